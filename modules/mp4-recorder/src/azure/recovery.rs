//! `mp4-recorder recover`: what a device that is gone had sent of a file becomes a file.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use azure_core::http::{Etag, RequestContent, Url};
use azure_core::time::OffsetDateTime;
use azure_storage_blob::models::{
    BlobClientDownloadOptions, BlobContainerClientListBlobsOptions, BlobType,
    BlockBlobClientCommitBlockListOptions, BlockBlobClientCommitBlockListResultHeaders, BlockListType,
    BlockLookupList, ListBlobsIncludeItem,
};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions, BlockBlobClient};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt;
use rand::Rng;
use tokio::io::AsyncWriteExt;

use super::account::Access;
use super::upload::{CHANGED, mark, sum};
use super::{BlobError, Store, ended};
use crate::segment;

/// Characters of an upload's id, and of the place behind it.
const ID: usize = 24;
const PLACE: usize = 12;
/// A store keeps blocks that wait for a week.
const BLOCKS_LAST_DAYS: i64 = 8;
/// Stored files that are looked at for blocks beside them: each takes a request.
const MOST_BESIDE: usize = 1000;
/// A blob is read in such pieces.
const PIECE: u64 = 4 << 20;

/// Names under which blocks may wait for their commit.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Nothing is stored there, or nothing that has a byte.
    pub alone: Vec<String>,
    /// A file is, since no longer than blocks last: the newest of them.
    pub beside: Vec<String>,
}

/// A recovered file.
#[derive(Debug)]
pub struct Committed {
    /// Of the blob.
    pub bytes: u64,
    /// It plays as it was sent, but has no index, for this reason.
    pub without_index: Option<BlobError>,
}

impl Store {
    /// Names under which blocks may wait for their commit.
    ///
    /// # Errors
    /// The store does not list them.
    pub async fn uncommitted(&self) -> Result<Waiting, BlobError> {
        let mut text = format!("{}/{}", self.container.service, self.container.container);
        if let Access::Sas(query) = &self.access {
            text.push('?');
            text.push_str(query);
        }
        let url = Url::parse(&text).map_err(|error| BlobError::Other(error.to_string()))?;
        let options =
            BlobContainerClientOptions { client_options: self.options(), version: self.version.clone() };
        let client = BlobContainerClient::new(url, None, Some(options))?;
        let options = BlobContainerClientListBlobsOptions {
            include: Some(vec![ListBlobsIncludeItem::UncommittedBlobs]),
            ..Default::default()
        };
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let is_new =
            |stored: OffsetDateTime| (OffsetDateTime::now_utc() - stored).whole_days() < BLOCKS_LAST_DAYS;
        let mut blobs = client.list_blobs(Some(options))?;
        while let Some(blob) = blobs.try_next().await? {
            let Some(name) = blob.name else { continue };
            let Some(of) = blob.properties else {
                alone.push(name);
                continue;
            };
            if of.blob_type.is_some_and(|kind| kind != BlobType::BlockBlob) {
                continue;
            }
            if of.content_length.unwrap_or(0) == 0 {
                alone.push(name);
            } else if name.ends_with(".mp4") && of.last_modified.is_none_or(is_new) {
                beside.push((of.last_modified, name));
            }
        }
        beside.sort_unstable_by(|one, other| other.cmp(one));
        beside.truncate(MOST_BESIDE);
        Ok(Waiting { alone, beside: beside.into_iter().map(|(_, name)| name).collect() })
    }

    /// Bytes of recordings that wait for their commit under a name where nothing can be recovered: a file is stored there,
    /// which is not to be written over, or their beginning is missing.
    ///
    /// # Errors
    /// The store does not say.
    pub async fn passed_over(&self, name: &str, flow: Option<&str>) -> Result<u64, BlobError> {
        let list = self.blocks(name)?.get_block_list(BlockListType::Uncommitted, None).await?.into_model()?;
        let blocks = list.uncommitted_blocks.unwrap_or_default().into_iter();
        let sized = blocks.filter_map(|block| Some((block.name?, u64::try_from(block.size?).ok()?)));
        let wanted = flow.map(mark);
        Ok(sized.filter(|(id, _)| place_of(id, wanted.as_deref()).is_some()).map(|(_, size)| size).sum())
    }

    /// Commits what was sent of one file, without a gap from its beginning, and gives it its index. `None`: it is no
    /// recording, or of another flow. It does not bear the upload's id: a recorder that lives after all stores the whole
    /// file beside it.
    ///
    /// # Errors
    /// The blocks wait on.
    pub async fn recover(&self, name: &str, flow: Option<&str>) -> Result<Option<Committed>, BlobError> {
        let client = self.blocks(name)?;
        let list = client.get_block_list(BlockListType::All, None).await?.into_model()?;
        if list.committed_blocks.is_some_and(|blocks| !blocks.is_empty()) {
            return Ok(None);
        }
        let blocks = list.uncommitted_blocks.unwrap_or_default().into_iter();
        let sized = blocks.filter_map(|block| Some((block.name?, u64::try_from(block.size?).ok()?)));
        let Some(blocks) = chosen(sized, flow) else { return Ok(None) };
        let etag = self.commit_recovered(&client, ids(&blocks), None, Etag::from("*"), false).await?;
        let bytes = blocks.iter().map(|(_, size)| size).sum();
        // From here on the file plays, whatever becomes of its index.
        Ok(Some(match self.index(name, &client, blocks, etag).await {
            Ok(bytes) => Committed { bytes, without_index: None },
            Err(error) => Committed { bytes, without_index: Some(error) },
        }))
    }

    /// Gives a blob of fragments its index: it is repaired on this machine, and the blocks that this changes are sent
    /// again. Gives its bytes.
    async fn index(
        &self,
        name: &str,
        client: &BlockBlobClient,
        blocks: Vec<(Vec<u8>, u64)>,
        etag: Etag,
    ) -> Result<u64, BlobError> {
        let folder = Folder::new()?;
        let (sent, repaired) = (folder.0.join("sent"), folder.0.join("repaired"));
        let bytes: u64 = blocks.iter().map(|(_, size)| size).sum();
        self.download(name, bytes, &etag, &sent).await?;
        let (from, to) = (sent.clone(), repaired.clone());
        let work = tokio::task::spawn_blocking(move || {
            std::fs::copy(&from, &to)?;
            segment::repair(&to, None).map_err(|error| BlobError::Other(error.to_string()))
        });
        let bytes = work.await.map_err(ended)??.bytes;
        let (mut at, mut parts) = (0, Vec::new());
        for (id, size) in blocks {
            let length = size.min(bytes.saturating_sub(at));
            if length == 0 {
                break;
            }
            let id = if length == size && is_same(&sent, &repaired, at, length).await? {
                id
            } else {
                let id = changed(&id, at)?;
                self.stage(client, &repaired, &id, at, length).await?;
                id
            };
            parts.push((id, length));
            at += length;
        }
        let md5 = sum(&repaired).await?;
        self.commit_recovered(client, ids(&parts), Some(&md5), etag, true).await?;
        Ok(bytes)
    }

    /// `replaces`: `etag` is that of the blob there; otherwise the name has to be free. Gives the new blob's.
    async fn commit_recovered(
        &self,
        client: &BlockBlobClient,
        ids: Vec<Vec<u8>>,
        md5: Option<&str>,
        etag: Etag,
        replaces: bool,
    ) -> Result<Etag, BlobError> {
        let (if_match, if_none_match) = if replaces { (Some(etag), None) } else { (None, Some(etag)) };
        let options = BlockBlobClientCommitBlockListOptions {
            blob_content_type: Some("video/mp4".into()),
            blob_content_md5: md5.and_then(|md5| STANDARD.decode(md5).ok()),
            if_match,
            if_none_match,
            metadata: Some([("recovered".to_owned(), "true".to_owned())].into()),
            ..Default::default()
        };
        let list = BlockLookupList { latest: Some(ids), ..Default::default() };
        let answer = client.commit_block_list(RequestContent::try_from(list)?, Some(options)).await?;
        answer.etag()?.ok_or_else(|| BlobError::Other("the store gave no ETag".into()))
    }

    async fn download(&self, name: &str, bytes: u64, etag: &Etag, to: &Path) -> Result<(), BlobError> {
        let client = self.blob(name)?;
        let mut file = tokio::fs::File::create(to).await?;
        let mut at = 0;
        while at < bytes {
            let length = PIECE.min(bytes - at);
            let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
            let options = BlobClientDownloadOptions {
                if_match: Some(etag.clone()),
                parallel: NonZero::new(1),
                partition_size: NonZero::new(piece.len()),
                range: Some((at..at + length).into()),
                ..Default::default()
            };
            let read = client.download_into(&mut piece, Some(options)).await?.len;
            if read != piece.len() {
                return Err(BlobError::Other(format!("the store gave {read} of {length} bytes")));
            }
            file.write_all(&piece).await?;
            at += length;
        }
        file.flush().await?;
        Ok(())
    }
}

/// A folder for the time of a repair.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("recover-{:016x}", rand::rng().random::<u64>()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn ids(blocks: &[(Vec<u8>, u64)]) -> Vec<Vec<u8>> {
    blocks.iter().map(|(id, _)| id.clone()).collect()
}

/// The id of a block that takes the place of another of the same upload. All ids under one name have the same length.
fn changed(id: &[u8], at: u64) -> Result<Vec<u8>, BlobError> {
    let upload = id.get(..ID).ok_or_else(|| BlobError::Other("a block id is too short".into()))?;
    Ok([upload, format!("{:012x}", CHANGED | at).as_bytes()].concat())
}

/// Whether two files hold the same bytes there.
async fn is_same(one: &Path, other: &Path, at: u64, length: u64) -> Result<bool, BlobError> {
    let (one, other) = (one.to_owned(), other.to_owned());
    let work = tokio::task::spawn_blocking(move || {
        let read = |path: &Path| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            std::fs::File::open(path)?.read_exact_at(&mut bytes, at)?;
            Ok::<_, std::io::Error>(bytes)
        };
        Ok::<_, std::io::Error>(read(&one)? == read(&other)?)
    });
    Ok(work.await.map_err(ended)??)
}

/// Of which upload a block is, and where in its file; `None`: it is not ours, or the upload's id does not begin as `wanted`.
fn place_of<'a>(id: &'a [u8], wanted: Option<&str>) -> Option<(&'a str, u64)> {
    let (upload, place) = std::str::from_utf8(id).ok()?.split_at_checked(ID)?;
    let is_ours = place.len() == PLACE && upload.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_meant = wanted.is_none_or(|wanted| upload.starts_with(wanted));
    Some((upload, u64::from_str_radix(place, 16).ok()?)).filter(|_| is_ours && is_meant)
}

/// Of the blocks under one name those of the upload that got furthest, from the first on without a gap.
fn chosen(blocks: impl Iterator<Item = (Vec<u8>, u64)>, flow: Option<&str>) -> Option<Vec<(Vec<u8>, u64)>> {
    let wanted = flow.map(mark);
    let mut uploads: BTreeMap<String, BTreeMap<u64, (Vec<u8>, u64)>> = BTreeMap::new();
    for (id, size) in blocks {
        let Some((upload, place)) = place_of(&id, wanted.as_deref()) else { continue };
        let upload = upload.to_owned();
        uploads.entry(upload).or_default().insert(place, (id, size));
    }
    let runs = uploads.into_values().map(|mut blocks| {
        let (mut run, mut at) = (Vec::new(), 0);
        while let Some(block) = blocks.remove(&at) {
            at += block.1;
            run.push(block);
        }
        run
    });
    runs.max_by_key(|run| run.iter().map(|(_, size)| size).sum::<u64>()).filter(|run| !run.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::Upload;

    fn upload() -> Upload {
        Upload {
            id: format!("{}{:016x}", mark("cam"), 1),
            block: 100,
            md5: String::new(),
            began: 0,
            staged: Vec::new(),
            sent: 0,
            kept: Vec::new(),
        }
    }

    #[test]
    fn a_block_that_replaces_another_has_an_id_of_the_same_length() {
        let id = upload().block_id(7);
        let changed = changed(&id, 7).unwrap();
        assert_eq!((changed.len(), &changed[..ID]), (id.len(), &id[..ID]));
        assert_ne!(changed, id);
    }

    #[test]
    fn what_was_sent_without_a_gap_is_recovered_and_only_of_the_flow_that_is_asked_for() {
        let mine = upload();
        let other = Upload { id: format!("{}{:016x}", mark("gate"), 2), ..upload() };
        let blocks = || {
            let mine = [30, 10, 0].map(|at| (mine.block_id(at), 10));
            mine.into_iter().chain([(other.block_id(0), 15), (b"of somebody else".to_vec(), 99)])
        };
        assert_eq!(chosen(blocks(), None).unwrap(), [(mine.block_id(0), 10), (mine.block_id(10), 10)]);
        assert_eq!(chosen(blocks(), Some("gate")).unwrap(), [(other.block_id(0), 15)]);
        assert_eq!(chosen(blocks(), Some("yard")), None);
    }
}

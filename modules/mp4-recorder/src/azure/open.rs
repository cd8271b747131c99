//! Files that are sent while they are being written, and what becomes of them when nobody finishes them.

use std::collections::BTreeMap;
use std::path::Path;

use azure_core::http::{Etag, RequestContent, Url};
use azure_storage_blob::models::{
    BlobContainerClientListBlobsOptions, BlockBlobClientCommitBlockListOptions, BlockListType,
    BlockLookupList, ListBlobsIncludeItem,
};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use futures_util::TryStreamExt;

use super::account::Access;
use super::{BlobError, Seen, Store, Upload, mark};

/// Of an upload's id, and of the index behind it.
const ID: usize = 24;
const INDEX: usize = 6;

impl Store {
    /// Whether nothing is stored under a name.
    ///
    /// # Errors
    /// The store does not say.
    pub async fn is_free(&self, name: &str, upload: &Upload) -> Result<bool, BlobError> {
        Ok(matches!(self.look(name, upload, u64::MAX).await?, Seen::Nothing))
    }

    /// Sends one block of a file that is being written.
    ///
    /// # Errors
    /// It is not there, as far as is known.
    pub async fn stage_open(
        &self,
        name: &str,
        path: &Path,
        upload: &Upload,
        index: usize,
        at: u64,
        length: u64,
    ) -> Result<(), BlobError> {
        self.stage(&self.blocks(name)?, path, &upload.block_id(index), at, length).await
    }

    /// Names under which nothing is but blocks that wait for their commit, and some more.
    ///
    /// # Errors
    /// The store does not list them.
    pub async fn uncommitted(&self) -> Result<Vec<String>, BlobError> {
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
        let mut found = Vec::new();
        let mut blobs = client.list_blobs(Some(options))?;
        while let Some(blob) = blobs.try_next().await? {
            let length = blob.properties.and_then(|properties| properties.content_length);
            found.extend(blob.name.filter(|_| length.unwrap_or(0) == 0));
        }
        Ok(found)
    }

    /// Commits what was sent of one file, without a gap from its beginning. `None`: it is no recording, or of another
    /// flow. Gives the bytes. It does not bear the upload's id: a recorder that lives after all stores the whole file
    /// beside it.
    ///
    /// # Errors
    /// The blocks wait on.
    pub async fn recover(&self, name: &str, flow: Option<&str>) -> Result<Option<u64>, BlobError> {
        let client = self.blocks(name)?;
        let list = client.get_block_list(BlockListType::All, None).await?.into_model()?;
        if list.committed_blocks.is_some_and(|blocks| !blocks.is_empty()) {
            return Ok(None);
        }
        let blocks = list.uncommitted_blocks.unwrap_or_default().into_iter();
        let sized = blocks.filter_map(|block| Some((block.name?, u64::try_from(block.size?).ok()?)));
        let Some((ids, bytes)) = chosen(sized, flow) else { return Ok(None) };
        let options = BlockBlobClientCommitBlockListOptions {
            blob_content_type: Some("video/mp4".into()),
            if_none_match: Some(Etag::from("*")),
            metadata: Some([("recovered".to_owned(), "true".to_owned())].into()),
            ..Default::default()
        };
        let list = BlockLookupList { latest: Some(ids), ..Default::default() };
        client.commit_block_list(RequestContent::try_from(list)?, Some(options)).await?;
        Ok(Some(bytes))
    }
}

/// Of the blocks under one name those of the upload that got furthest, from the first on without a gap.
fn chosen(blocks: impl Iterator<Item = (Vec<u8>, u64)>, flow: Option<&str>) -> Option<(Vec<Vec<u8>>, u64)> {
    let wanted = flow.map(mark);
    let mut uploads: BTreeMap<String, BTreeMap<usize, (Vec<u8>, u64)>> = BTreeMap::new();
    for (id, size) in blocks {
        let Ok(text) = String::from_utf8(id.clone()) else { continue };
        let Some((upload, index)) = text.split_at_checked(ID) else { continue };
        let is_ours = index.len() == INDEX && upload.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_ours || wanted.as_ref().is_some_and(|wanted| !upload.starts_with(wanted)) {
            continue;
        }
        let Ok(index) = index.parse() else { continue };
        uploads.entry(upload.to_owned()).or_default().insert(index, (id, size));
    }
    let runs = uploads.into_values().map(|blocks| {
        let run = blocks.into_iter().enumerate().take_while(|(at, (index, _))| at == index);
        let (ids, sizes): (Vec<_>, Vec<u64>) = run.map(|(_, (_, block))| block).unzip();
        (ids, sizes.iter().sum())
    });
    runs.max_by_key(|(_, bytes)| *bytes).filter(|(ids, _)| !ids.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(staged: &[u64]) -> Upload {
        Upload {
            id: format!("{}{:016x}", mark("cam"), 1),
            block: 100,
            md5: String::new(),
            began: 0,
            staged: staged.to_vec(),
        }
    }

    #[test]
    fn a_file_is_cut_where_it_was_sent_already_and_into_blocks_behind_that() {
        assert_eq!(upload(&[]).pieces(250), [(0, 100), (100, 100), (200, 50)]);
        assert_eq!(upload(&[70, 90]).pieces(250), [(0, 70), (70, 20), (90, 100), (190, 60)]);
        // A file that was cut off in front of what was sent.
        assert_eq!(upload(&[70, 90]).pieces(80), [(0, 70), (70, 10)]);
        assert_eq!(upload(&[]).pieces(0), []);
    }

    #[test]
    fn what_was_sent_without_a_gap_is_recovered_and_only_of_the_flow_that_is_asked_for() {
        let mine = upload(&[]);
        let other = Upload { id: format!("{}{:016x}", mark("gate"), 2), ..upload(&[]) };
        let blocks = || {
            let mine = [3, 1, 0].map(|index| (mine.block_id(index), 10));
            mine.into_iter().chain([(other.block_id(0), 15), (b"of somebody else".to_vec(), 99)])
        };
        let (ids, bytes) = chosen(blocks(), None).unwrap();
        assert_eq!((ids, bytes), (vec![mine.block_id(0), mine.block_id(1)], 20));
        assert_eq!(chosen(blocks(), Some("gate")), Some((vec![other.block_id(0)], 15)));
        assert_eq!(chosen(blocks(), Some("yard")), None);
    }
}

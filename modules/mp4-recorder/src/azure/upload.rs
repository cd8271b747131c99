//! How a file becomes a blob: blocks, each with its MD5, and one commit under a name that is free.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use azure_core::Bytes;
use azure_core::http::{Etag, RequestContent};
use azure_storage_blob::BlockBlobClient;
use azure_storage_blob::models::{
    Block, BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions, BlockListType,
    BlockLookupList,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use serde::{Deserialize, Serialize};

use super::{BlobError, NO_PERMISSION, OTHER_BLOCKS, Seen, Store, ended, open};
use crate::folder::Stored;
use crate::spool::{Record, Spool};

/// The first REST version with tags.
const TAGS_SINCE: &str = "2019-12-12";
/// Azure forgets blocks that were never committed after a week.
const BLOCKS_LAST_MILLIS: i64 = 6 * 86_400_000;
const MOST_BLOCKS: u64 = 50_000;
const LEAST_BLOCK: u64 = 256 << 10;
const MOST_BLOCK: u64 = 8 << 20;
/// A block is in memory as a whole while it is sent, and each output sends one: so much in all.
const BLOCKS_AT_ONCE: u64 = 48 << 20;
/// A block takes about so long.
const BLOCK_SECONDS: u64 = 15;

/// An upload that was begun: what a later one can go on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upload {
    /// 24 hexadecimal digits, 8 of the flow's name and 16 at random: blocks of others never mix with these.
    pub id: String,
    /// Bytes of a block.
    pub block: u64,
    /// Of the whole file, base64.
    pub md5: String,
    /// Milliseconds of Unix time.
    pub began: i64,
    /// Where blocks end that were sent while the file was being written. Those of its head change at its close.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<u64>,
    /// Blocks that the store confirmed, in the order of sending: counted where it may not be asked for them.
    #[serde(default)]
    pub sent: usize,
}

/// How a blob is named and described.
pub struct Described<'a> {
    /// In the container.
    pub name: &'a str,
    /// Words about it; names are letters.
    pub metadata: HashMap<String, String>,
    /// `tags`.
    pub tags: &'a BTreeMap<String, String>,
}

/// The largest block where so many outputs send.
fn most_block(outputs: u64) -> u64 {
    (BLOCKS_AT_ONCE / outputs.max(1)).clamp(LEAST_BLOCK, MOST_BLOCK)
}

/// What block ids of a flow begin with.
pub(super) fn mark(flow: &str) -> String {
    sha2::Sha256::digest(flow.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

impl Upload {
    pub(super) fn block_id(&self, index: usize) -> Vec<u8> {
        format!("{}{index:06}", self.id).into_bytes()
    }

    /// Where each block of a file of so many bytes begins, and how long it is.
    pub(super) fn pieces(&self, bytes: u64) -> Vec<(u64, u64)> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        let mut ends = self.staged.iter().copied();
        while at < bytes {
            let next = ends.next().unwrap_or(u64::MAX).min(at.saturating_add(self.block.max(1)));
            let end = next.clamp(at + 1, bytes);
            pieces.push((at, end - at));
            at = end;
        }
        pieces
    }
}

impl Store {
    /// Uploads a file of the spool. Progress that has to survive a crash is written into its record.
    ///
    /// # Errors
    /// It is not stored, as far as is known; the next try continues where this one ended.
    pub async fn store(
        &self,
        spool: &Arc<Spool>,
        record: &mut Record,
        described: Described<'_>,
    ) -> Result<Stored, BlobError> {
        let path = spool.path(record);
        let bytes = match tokio::fs::metadata(&path).await {
            Ok(file) => file.len(),
            // It may have been stored and deleted by a process that ended before it removed the record.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let Some(upload) = &record.upload else { return Ok(Stored::Gone) };
                return Ok(match self.look(described.name, upload, record.bytes).await? {
                    Seen::Ours => Stored::Already,
                    Seen::Other | Seen::Nothing | Seen::Unknown => Stored::Gone,
                });
            }
            Err(error) => return Err(error.into()),
        };
        let resumed = record.upload.clone().filter(|upload| {
            let age = jiff::Timestamp::now().as_millisecond().saturating_sub(upload.began);
            (0..BLOCKS_LAST_MILLIS).contains(&age)
        });
        let mut upload = match &resumed {
            // An upload that began while the file was written has no MD5 yet.
            Some(upload) if upload.md5.is_empty() => Upload { md5: sum(&path).await?, ..upload.clone() },
            Some(upload) => upload.clone(),
            None => self.begin(&record.flow, &path, bytes).await?,
        };
        record.upload = Some(upload.clone());
        write_down(spool, record).await?;
        // No block is sent before that look: a lost answer may have said that everything is stored.
        let sees = match self.look(described.name, &upload, bytes).await? {
            Seen::Ours => return Ok(Stored::Already),
            Seen::Other => return Ok(Stored::NameTaken),
            Seen::Nothing => true,
            Seen::Unknown => false,
        };
        let client = self.blocks(described.name)?;
        let there = if resumed.is_some() && sees { self.staged(&client).await? } else { BTreeMap::new() };
        let block = self.block(bytes);
        if resumed.is_some() && sees && there.is_empty() && upload.staged.is_empty() && block < upload.block {
            // The line has become slow, and none of the large blocks got through.
            upload = Upload { block, md5: upload.md5, ..self.begin_open(&record.flow) };
            record.upload = Some(upload.clone());
            write_down(spool, record).await?;
        }
        let pieces = upload.pieces(bytes);
        let head = if upload.staged.is_empty() { 0 } else { open::head(&path).await? };
        let in_order = pieces.iter().enumerate().skip(1).chain(pieces.iter().enumerate().take(1));
        for (count, (index, (at, length))) in in_order.enumerate() {
            let id = upload.block_id(index);
            // The head of a file that was sent while it was written has changed since. What says so goes last.
            let is_listed = there.get(&id) == Some(length) && *at >= head;
            if is_listed || (!sees && count < upload.sent) {
                continue;
            }
            match self.stage(&client, &path, &id, *at, *length).await {
                Err(error) if is_taken(&error) => return Ok(Stored::NameTaken),
                staged => staged?,
            }
            if !sees {
                upload.sent = count + 1;
                record.upload = Some(upload.clone());
                write_down(spool, record).await?;
            }
        }
        let ids: Vec<_> = (0..pieces.len()).map(|index| upload.block_id(index)).collect();
        let has_tags = self.version.as_str() >= TAGS_SINCE
            && !described.tags.is_empty()
            && !self.without_tags.load(Ordering::Relaxed);
        let mut committed = self.commit(&client, &ids, &upload, bytes, &described, has_tags).await;
        if has_tags
            && let Err(error) = &committed
            && error.code() == Some(NO_PERMISSION)
        {
            committed = self.commit(&client, &ids, &upload, bytes, &described, false).await;
            if committed.is_ok() && !self.without_tags.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "{}: the SAS may not set tags (t), so blobs are stored without them",
                    self.container.shown
                );
            }
        }
        match &committed {
            Err(error) if error.code() == Some("InvalidBlockList") => {
                record.upload = None;
                write_down(spool, record).await?;
            }
            Err(error) if is_taken(error) => return Ok(Stored::NameTaken),
            _ => {}
        }
        committed
    }

    async fn begin(&self, flow: &str, path: &Path, bytes: u64) -> Result<Upload, BlobError> {
        Ok(Upload { block: self.block(bytes), md5: sum(path).await?, ..self.begin_open(flow) })
    }

    /// How large the blocks of a file of so many bytes are, by the rate of the last one.
    fn block(&self, bytes: u64) -> u64 {
        let rate = self.rate.load(Ordering::Relaxed);
        let block = rate.saturating_mul(BLOCK_SECONDS).clamp(LEAST_BLOCK, self.most_block());
        block.max(bytes.div_ceil(MOST_BLOCKS))
    }

    fn most_block(&self) -> u64 {
        most_block(self.outputs.load(Ordering::Relaxed))
    }

    /// An upload of what is being written.
    pub fn begin_open(&self, flow: &str) -> Upload {
        Upload {
            id: format!("{}{:016x}", mark(flow), rand::rng().random::<u64>()),
            block: self.most_block(),
            md5: String::new(),
            began: jiff::Timestamp::now().as_millisecond(),
            staged: Vec::new(),
            sent: 0,
        }
    }

    /// Blocks that wait for their commit, and their lengths.
    async fn staged(&self, client: &BlockBlobClient) -> Result<BTreeMap<Vec<u8>, u64>, BlobError> {
        let list = match client.get_block_list(BlockListType::Uncommitted, None).await {
            Ok(list) => list,
            Err(error) => {
                let error = BlobError::from(error);
                // Nothing there, or a SAS that may not look: all are sent.
                return if matches!(error.status(), Some(404 | 403)) {
                    Ok(BTreeMap::new())
                } else {
                    Err(error)
                };
            }
        };
        let blocks = list.into_model()?.uncommitted_blocks.unwrap_or_default();
        let known = |block: Block| Some((block.name?, u64::try_from(block.size?).ok()?));
        Ok(blocks.into_iter().filter_map(known).collect())
    }

    pub(super) async fn stage(
        &self,
        client: &BlockBlobClient,
        path: &Path,
        id: &[u8],
        at: u64,
        length: u64,
    ) -> Result<(), BlobError> {
        let path = path.to_owned();
        let piece = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
            std::fs::File::open(path)?.read_exact_at(&mut piece, at)?;
            let md5 = Md5::digest(&piece).to_vec();
            Ok::<_, std::io::Error>((Bytes::from(piece), md5))
        });
        let (piece, md5) = piece.await.map_err(ended)??;
        let options =
            BlockBlobClientStageBlockOptions { transactional_content_md5: Some(md5), ..Default::default() };
        let began = Instant::now();
        let staged =
            client.stage_block(id, length, piece.into(), Some(options)).await.map_err(BlobError::from);
        let rate = length as f64 / began.elapsed().as_secs_f64().max(0.001);
        match &staged {
            Ok(_) => self.rate.store(rate as u64, Ordering::Relaxed),
            // How much of it got through nobody knows: the next one is smaller.
            Err(BlobError::Network(_)) => drop(self.rate.fetch_min((rate / 4.0) as u64, Ordering::Relaxed)),
            Err(_) => {}
        }
        staged.map(drop)
    }

    async fn commit(
        &self,
        client: &BlockBlobClient,
        ids: &[Vec<u8>],
        upload: &Upload,
        bytes: u64,
        described: &Described<'_>,
        has_tags: bool,
    ) -> Result<Stored, BlobError> {
        let mut metadata = described.metadata.clone();
        metadata.insert("uploadid".into(), upload.id.clone());
        let tags = has_tags.then(|| {
            let pairs = described.tags.iter();
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            pairs
                .map(|(key, value)| format!("{}={}", encoded(key), encoded(value)))
                .collect::<Vec<_>>()
                .join("&")
        });
        let options = BlockBlobClientCommitBlockListOptions {
            blob_content_type: Some("video/mp4".into()),
            blob_content_md5: STANDARD.decode(&upload.md5).ok(),
            blob_tags_string: tags,
            if_none_match: Some(Etag::from("*")),
            metadata: Some(metadata),
            ..Default::default()
        };
        let list = BlockLookupList { latest: Some(ids.to_vec()), ..Default::default() };
        let list = RequestContent::try_from(list)?;
        match client.commit_block_list(list, Some(options)).await {
            Ok(_) => Ok(Stored::New),
            Err(error) => {
                let error = BlobError::from(error);
                let doubtful = matches!(error, BlobError::Network(_) | BlobError::NotTheService(_))
                    || matches!(error.status(), Some(409 | 412));
                if !doubtful {
                    return Err(error);
                }
                match self.look(described.name, upload, bytes).await? {
                    Seen::Ours => Ok(Stored::New),
                    Seen::Other => Ok(Stored::NameTaken),
                    // Somebody's, or this file after a lost answer: rather twice than never.
                    Seen::Unknown
                        if matches!(error.code(), Some("BlobAlreadyExists" | "ConditionNotMet")) =>
                    {
                        Ok(Stored::NameTaken)
                    }
                    Seen::Nothing | Seen::Unknown => Err(error),
                }
            }
        }
    }
}

/// The name is somebody else's, or somebody's blocks wait there. Whoever may create and not write is told so by the second.
fn is_taken(error: &BlobError) -> bool {
    matches!(error.code(), Some(OTHER_BLOCKS | "UnauthorizedBlobOverwrite"))
}

/// MD5 of a file, base64.
pub(super) async fn sum(path: &Path) -> Result<String, BlobError> {
    let path = path.to_owned();
    let md5 = tokio::task::spawn_blocking(move || {
        let mut sum = Md5::new();
        std::io::copy(&mut std::fs::File::open(path)?, &mut sum)?;
        Ok::<_, std::io::Error>(STANDARD.encode(sum.finalize()))
    });
    Ok(md5.await.map_err(ended)??)
}

async fn write_down(spool: &Arc<Spool>, record: &Record) -> Result<(), BlobError> {
    let (spool, record) = (spool.clone(), record.clone());
    Ok(tokio::task::spawn_blocking(move || spool.update(record)).await.map_err(ended)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_many_outputs_take_no_more_memory_than_those_of_a_few() {
        for (outputs, block) in [(0, MOST_BLOCK), (6, MOST_BLOCK), (30, 1_677_721), (10_000, LEAST_BLOCK)] {
            assert_eq!(most_block(outputs), block, "{outputs}");
        }
        assert!((1..=192).all(|outputs| most_block(outputs) * outputs <= BLOCKS_AT_ONCE));
    }
}

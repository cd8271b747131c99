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
/// Azure takes 50,000. Those that are there already may be smaller.
const MOST_BLOCKS: u64 = 40_000;
/// Ends of blocks that are written down when the rest is cut anew: some 50 KB of a record.
const MOST_ENDS: usize = 4000;
const LEAST_BLOCK: u64 = 256 << 10;
const MOST_BLOCK: u64 = 8 << 20;
/// A block is in memory as a whole while it is sent, and each output sends one: so much in all.
const BLOCKS_AT_ONCE: u64 = 48 << 20;
/// What a request has beside its body is less.
const LEAST_SENT: u64 = 8 << 10;
/// A block takes about so long.
const BLOCK_SECONDS: u64 = 15;
/// Behind every place in a file.
pub(super) const CHANGED: u64 = 1 << 44;

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
    /// Where all blocks end that were there when the line had become slow, and the rest was cut anew.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<u64>,
}

/// How a blob is named and described.
pub struct Described<'a> {
    /// In the container.
    pub name: &'a str,
    /// Words about it; names are letters.
    pub metadata: HashMap<String, String>,
    /// `tags`.
    pub tags: &'a BTreeMap<String, String>,
    /// Of the file, base64, where it is known.
    pub md5: Option<String>,
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
    /// The id of the block that begins there.
    pub(super) fn block_id(&self, at: u64) -> Vec<u8> {
        format!("{}{at:012x}", self.id).into_bytes()
    }

    /// Where each block of a file of so many bytes begins, and how long it is.
    pub(super) fn pieces(&self, bytes: u64) -> Vec<(u64, u64)> {
        let (mut pieces, mut at) = (Vec::new(), 0);
        let ends = if self.kept.is_empty() { &self.staged } else { &self.kept };
        let mut ends = ends.iter().copied().peekable();
        while at < bytes {
            // A file may have been cut off within what was sent.
            while ends.next_if(|end| *end <= at).is_some() {}
            let next = match ends.peek() {
                Some(end) => *end,
                None => at.saturating_add(self.block.max(1)),
            };
            let end = next.clamp(at + 1, bytes);
            pieces.push((at, end - at));
            at = end;
        }
        pieces
    }

    /// The same of a block that has another content than was sent under that id while the file was being written.
    pub(super) fn changed_id(&self, at: u64) -> Vec<u8> {
        self.block_id(CHANGED | at)
    }

    /// Cuts everything into smaller blocks but those that `are_there`.
    fn cut_anew(&mut self, bytes: u64, block: u64, are_there: impl Fn(&(u64, u64)) -> bool) {
        let pieces = self.pieces(bytes);
        let known = pieces.iter().rposition(&are_there).map_or(0, |last| last + 1);
        let mut kept = Vec::new();
        for piece @ (at, length) in pieces.into_iter().take(known) {
            let end = at + length;
            if !are_there(&piece) {
                kept.extend((1..).map(|count| at + count * block).take_while(|inner| *inner < end));
            }
            kept.push(end);
        }
        if kept.is_empty() {
            kept.push(block.min(bytes));
        }
        if kept.len() <= MOST_ENDS {
            (self.kept, self.block) = (kept, block);
        }
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
            None => {
                let md5 = match &described.md5 {
                    Some(md5) => md5.clone(),
                    None => sum(&path).await?,
                };
                Upload { block: self.block(bytes), md5, ..self.begin_open(&record.flow) }
            }
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
        // What was sent of the head while the file was being written has changed at its close.
        let head = if upload.staged.is_empty() { 0 } else { open::head(&path).await? };
        let id_at = |upload: &Upload, at| if at < head { upload.changed_id(at) } else { upload.block_id(at) };
        let block = self.block(bytes);
        if resumed.is_some() && self.transport.pace().seen() > 0 && block < upload.block {
            // The line has become slow: what is not there yet goes in smaller blocks.
            let before = upload.clone();
            let is_there = |(at, length): &(u64, u64)| there.get(&id_at(&before, *at)) == Some(length);
            upload.cut_anew(bytes, block, is_there);
            upload.sent = 0;
            record.upload = Some(upload.clone());
            write_down(spool, record).await?;
        }
        let pieces = upload.pieces(bytes);
        // What says that the file is whole goes last.
        for (count, (at, length)) in pieces.iter().skip(1).chain(pieces.first()).enumerate() {
            let id = id_at(&upload, *at);
            if there.get(&id) == Some(length) || (!sees && count < upload.sent) {
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
        let ids: Vec<_> = pieces.iter().map(|(at, _)| id_at(&upload, *at)).collect();
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
                    "{}: the SAS does not permit tags (t), so blobs are stored without them",
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

    /// How large the blocks of a file of so many bytes are, by the rate of the last one.
    pub(super) fn block(&self, bytes: u64) -> u64 {
        let rate = self.transport.pace().seen();
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
            kept: Vec::new(),
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
        let pace = self.transport.pace();
        let (began, out) = (Instant::now(), pace.out());
        let staged =
            client.stage_block(id, length, piece.into(), Some(options)).await.map_err(BlobError::from);
        let rate = |bytes: u64| (bytes as f64 / began.elapsed().as_secs_f64().max(0.001)) as u64;
        match &staged {
            Ok(_) => pace.arrived(rate(length)),
            // A line that carried some of it; of one that carried nothing nothing is known.
            Err(BlobError::Network(_)) => match pace.out().saturating_sub(out) {
                0..LEAST_SENT => {}
                sent => pace.failed(rate(sent)),
            },
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

    fn upload(block: u64, staged: &[u64]) -> Upload {
        let id = format!("{}{:016x}", mark("cam"), 1);
        let staged = staged.to_vec();
        Upload { id, block, md5: String::new(), began: 0, staged, sent: 0, kept: Vec::new() }
    }

    #[test]
    fn what_is_there_stays_as_it_was_cut_and_the_rest_goes_in_smaller_blocks() {
        let mut cut = upload(100, &[]);
        cut.cut_anew(350, 40, |(at, _)| [100, 200].contains(at));
        assert_eq!(
            cut.pieces(350),
            [(0, 40), (40, 40), (80, 20), (100, 100), (200, 100), (300, 40), (340, 10)]
        );
        // Nothing is lost by doing it again.
        cut.cut_anew(350, 30, |(at, _)| [40, 100].contains(at));
        assert_eq!(cut.pieces(350)[..5], [(0, 30), (30, 10), (40, 40), (80, 20), (100, 100)]);
        assert_eq!(cut.pieces(350).last(), Some(&(350 - 30, 30)));
        assert_eq!(cut.pieces(350).iter().map(|(_, length)| length).sum::<u64>(), 350);
        // What was sent while the file was written, and is not there.
        let mut open = upload(100, &[300]);
        open.cut_anew(310, 200, |_| false);
        assert_eq!(open.pieces(310), [(0, 200), (200, 110)]);
    }

    #[test]
    fn the_blocks_of_a_head_that_changed_have_ids_of_their_own_of_the_same_length() {
        let upload = upload(100, &[]);
        let (plain, changed) = (upload.block_id(7), upload.changed_id(7));
        assert!(
            plain.len() == changed.len() && plain != changed && upload.block_id(1 << 43).len() == plain.len()
        );
    }

    #[test]
    fn blocks_of_many_outputs_take_no_more_memory_than_those_of_a_few() {
        for (outputs, block) in [(0, MOST_BLOCK), (6, MOST_BLOCK), (30, 1_677_721), (10_000, LEAST_BLOCK)] {
            assert_eq!(most_block(outputs), block, "{outputs}");
        }
        assert!((1..=192).all(|outputs| most_block(outputs) * outputs <= BLOCKS_AT_ONCE));
    }
}

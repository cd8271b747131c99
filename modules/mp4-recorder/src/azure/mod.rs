//! Azure Blob Storage, Azure Blob Storage on IoT Edge and Azurite as a store: a file becomes a block blob, once, and
//! nothing that is there is overwritten.

mod account;
mod http;
mod open;
mod proxy;
mod refused;
mod signing;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use av_flow::config::SecretText;
use azure_core::Bytes;
use azure_core::http::headers::HeaderName;
use azure_core::http::{ClientOptions, Etag, RequestContent, RetryOptions, Transport, Url};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientGetPropertiesResultHeaders, Block,
    BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions, BlockListType, BlockLookupList,
    DeleteSnapshotsOptionType,
};
use azure_storage_blob::{BlobClient, BlobClientOptions, BlockBlobClient, BlockBlobClientOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use account::Access;
pub use http::{Http, Pace};

pub use account::{Container, Credentials};
pub use refused::BlobError;

use crate::folder::Stored;
use crate::spool::{Record, Spool};
use crate::store::StoreConfig;

/// Known to Azurite of 2024 and later, and to the cloud for good.
const VERSION: &str = "2023-11-03";
/// The first with tags.
const TAGS_SINCE: &str = "2019-12-12";
/// Azure forgets blocks that were never committed after a week.
const BLOCKS_LAST_MILLIS: i64 = 6 * 86_400_000;
/// Blocks of another length of id wait under a name, for a week.
pub const OTHER_BLOCKS: &str = "InvalidBlobOrBlock";
const MOST_BLOCKS: u64 = 50_000;
const LEAST_BLOCK: u64 = 256 << 10;
const MOST_BLOCK: u64 = 8 << 20;
/// A block takes about so long.
const BLOCK_SECONDS: u64 = 15;
/// What a path of a URL holds as it is (RFC 3986 §2.3), and what parts it.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

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
    /// Where blocks end that were sent while the file was being written. The first of them changes at its close.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staged: Vec<u64>,
}

/// What opens a container, and how it is spoken to.
pub struct Store {
    container: Container,
    access: Access,
    version: String,
    transport: Arc<Http>,
    signing: Option<Arc<signing::SharedKey>>,
    /// Bytes per second that the last block took; 0: unknown.
    rate: AtomicU64,
    /// The SAS may not set tags.
    without_tags: AtomicBool,
}

/// What a file is called and said to be.
pub struct Described<'a> {
    /// In the container.
    pub name: &'a str,
    /// Words about it; names are letters.
    pub metadata: HashMap<String, String>,
    /// `tags`.
    pub tags: &'a BTreeMap<String, String>,
}

/// What block ids of a flow begin with.
fn mark(flow: &str) -> String {
    sha2::Sha256::digest(flow.as_bytes()).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

impl Upload {
    fn block_id(&self, index: usize) -> Vec<u8> {
        format!("{}{index:06}", self.id).into_bytes()
    }

    /// Where each block of a file of so many bytes begins, and how long it is.
    fn pieces(&self, bytes: u64) -> Vec<(u64, u64)> {
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
    /// A store whose secret has been read.
    ///
    /// # Errors
    /// The credentials can't be used.
    pub fn new(
        mut container: Container,
        credentials: &Credentials,
        secret: &SecretText,
        version: Option<&str>,
        transport: Arc<Http>,
    ) -> Result<Self, BlobError> {
        let access = Access::of(credentials, secret, &mut container)
            .map_err(|error| BlobError::Access(error.to_string()))?;
        let signing = match &access {
            Access::Key(key) => {
                Some(Arc::new(signing::SharedKey::new(container.account.clone(), key.clone())))
            }
            Access::Sas(_) => None,
        };
        let version = version.unwrap_or(VERSION).to_owned();
        Ok(Self {
            container,
            access,
            version,
            transport,
            signing,
            rate: AtomicU64::new(0),
            without_tags: AtomicBool::new(false),
        })
    }

    fn url(&self, name: &str) -> Result<Url, BlobError> {
        let path = utf8_percent_encode(name, PATH);
        let mut text = format!("{}/{}/{path}", self.container.service, self.container.container);
        if let Access::Sas(query) = &self.access {
            text.push('?');
            text.push_str(query);
        }
        Url::parse(&text).map_err(|error| BlobError::Other(error.to_string()))
    }

    fn options(&self) -> ClientOptions {
        let mut options = ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(self.transport.clone())),
            ..ClientOptions::default()
        };
        if let Some(signing) = &self.signing {
            options.per_try_policies.push(signing.clone());
        }
        options
    }

    fn blob(&self, name: &str) -> Result<BlobClient, BlobError> {
        let options = BlobClientOptions { client_options: self.options(), version: self.version.clone() };
        Ok(BlobClient::new(self.url(name)?, None, Some(options))?)
    }

    fn blocks(&self, name: &str) -> Result<BlockBlobClient, BlobError> {
        let options =
            BlockBlobClientOptions { client_options: self.options(), version: self.version.clone() };
        Ok(BlockBlobClient::new(self.url(name)?, None, Some(options))?)
    }

    /// What is under a name now.
    async fn look(&self, name: &str, upload: &Upload, bytes: u64) -> Result<Seen, BlobError> {
        let properties = match self.blob(name)?.get_properties(None).await {
            Ok(properties) => properties,
            Err(error) => {
                let error = BlobError::from(error);
                // The answer to HEAD has no body: a container that is not there is told by its code alone.
                return match (error.status(), error.code()) {
                    (Some(404), Some("BlobNotFound") | None) => Ok(Seen::Nothing),
                    (Some(404), Some(code)) if code != "ContainerNotFound" => Ok(Seen::Nothing),
                    (Some(400 | 403), _) => Err(self.refusal(name).await?.unwrap_or(error)),
                    _ => Err(error),
                };
            }
        };
        let ours = properties
            .metadata()
            .unwrap_or_default()
            .iter()
            .any(|(key, value)| key.eq_ignore_ascii_case("uploadid") && *value == upload.id);
        let md5 = properties.content_md5().ok().flatten().map(|md5| STANDARD.encode(md5));
        let same =
            properties.content_length().ok().flatten() == Some(bytes) && md5.as_ref() == Some(&upload.md5);
        Ok(if ours || same { Seen::Ours } else { Seen::Other })
    }

    /// Why nothing may be looked at: a refusal says in its body which of its reasons it is.
    async fn refusal(&self, name: &str) -> Result<Option<BlobError>, BlobError> {
        let asked = self.blocks(name)?.get_block_list(BlockListType::Uncommitted, None).await;
        Ok(asked.err().map(BlobError::from).filter(|error| error.status() != Some(404)))
    }

    /// Puts a file of the spool there. `record` is written down whenever something has to be known after a crash.
    ///
    /// # Errors
    /// It is not there, as far as is known; doing it again goes on where this ended.
    pub async fn store(
        &self,
        spool: &Arc<Spool>,
        record: &mut Record,
        described: Described<'_>,
    ) -> Result<Stored, BlobError> {
        let path = spool.path(record);
        let bytes = match tokio::fs::metadata(&path).await {
            Ok(file) => file.len(),
            // Deleted after it was stored, by a process that ended before it could say so?
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let Some(upload) = &record.upload else { return Ok(Stored::Gone) };
                return Ok(match self.look(described.name, upload, record.bytes).await? {
                    Seen::Ours => Stored::Already,
                    Seen::Other | Seen::Nothing => Stored::Gone,
                });
            }
            Err(error) => return Err(error.into()),
        };
        let resumed = record.upload.clone().filter(|upload| {
            let age = jiff::Timestamp::now().as_millisecond().saturating_sub(upload.began);
            (0..BLOCKS_LAST_MILLIS).contains(&age)
        });
        let upload = match &resumed {
            // What was sent while it was being written had no sum yet.
            Some(upload) if upload.md5.is_empty() => Upload { md5: sum(&path).await?, ..upload.clone() },
            Some(upload) => upload.clone(),
            None => self.begin(&record.flow, &path, bytes).await?,
        };
        record.upload = Some(upload.clone());
        write_down(spool, record).await?;
        // Never a block before that look: an answer that was lost may have said that all is done.
        match self.look(described.name, &upload, bytes).await? {
            Seen::Ours => return Ok(Stored::Already),
            Seen::Other => return Ok(Stored::NameTaken),
            Seen::Nothing => {}
        }
        let client = self.blocks(described.name)?;
        let there = if resumed.is_some() { self.staged(&client).await? } else { BTreeMap::new() };
        let pieces = upload.pieces(bytes);
        for (index, (at, length)) in
            pieces.iter().enumerate().skip(1).chain(pieces.iter().enumerate().take(1))
        {
            let id = upload.block_id(index);
            // The head of a file that was sent while it was written has become another, and goes last.
            let is_there = there.get(&id) == Some(length) && (index > 0 || upload.staged.is_empty());
            if !is_there {
                match self.stage(&client, &path, &id, *at, *length).await {
                    Err(error) if error.code() == Some(OTHER_BLOCKS) => return Ok(Stored::NameTaken),
                    staged => staged?,
                }
            }
        }
        let ids: Vec<_> = (0..pieces.len()).map(|index| upload.block_id(index)).collect();
        let has_tags = self.version.as_str() >= TAGS_SINCE
            && !described.tags.is_empty()
            && !self.without_tags.load(Ordering::Relaxed);
        let mut committed = self.commit(&client, &ids, &upload, bytes, &described, has_tags).await;
        if has_tags
            && let Err(error) = &committed
            && error.code() == Some("AuthorizationPermissionMismatch")
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
            Err(error) if error.code() == Some(OTHER_BLOCKS) => return Ok(Stored::NameTaken),
            _ => {}
        }
        committed
    }

    async fn begin(&self, flow: &str, path: &Path, bytes: u64) -> Result<Upload, BlobError> {
        let md5 = sum(path).await?;
        let rate = self.rate.load(Ordering::Relaxed);
        let block = (rate.saturating_mul(BLOCK_SECONDS)).clamp(LEAST_BLOCK, MOST_BLOCK);
        let block = block.max(bytes.div_ceil(MOST_BLOCKS));
        Ok(Upload { block, md5, ..self.begin_open(flow) })
    }

    /// An upload of what is being written.
    pub fn begin_open(&self, flow: &str) -> Upload {
        Upload {
            id: format!("{}{:016x}", mark(flow), rand::rng().random::<u64>()),
            block: MOST_BLOCK,
            md5: String::new(),
            began: jiff::Timestamp::now().as_millisecond(),
            staged: Vec::new(),
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

    async fn stage(
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
        client.stage_block(id, length, piece.into(), Some(options)).await?;
        let rate = length as f64 / began.elapsed().as_secs_f64().max(0.001);
        self.rate.store(rate as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes a blob of so many bytes; one of another length is not the one that was stored.
    ///
    /// # Errors
    /// It may be there still.
    pub async fn delete(&self, name: &str, bytes: u64) -> Result<Gone, BlobError> {
        let client = self.blob(name)?;
        match client.get_properties(None).await {
            Ok(seen) if seen.content_length().ok().flatten().is_some_and(|length| length != bytes) => {
                return Ok(Gone::Unknown);
            }
            Ok(_) => {}
            Err(error) => match BlobError::from(error) {
                error if error.status() == Some(404) && error.code() != Some("ContainerNotFound") => {
                    return Ok(Gone::Unknown);
                }
                // A SAS that may not look may delete.
                error if error.status() == Some(403) => {}
                error => return Err(error),
            },
        }
        let options = BlobClientDeleteOptions {
            delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
            ..Default::default()
        };
        match client.delete(Some(options)).await {
            Ok(answer) => {
                let told = HeaderName::from_static("x-ms-delete-type-permanent");
                Ok(match answer.headers().get_optional_str(&told) {
                    Some("true") => Gone::Permanent,
                    Some(_) => Gone::Soft,
                    None => Gone::Unknown,
                })
            }
            Err(error) => match BlobError::from(error) {
                error if error.code() == Some("BlobNotFound") => Ok(Gone::Unknown),
                error => Err(error),
            },
        }
    }

    /// Makes the store forget blocks that wait for their commit, by committing none of them and deleting what that makes.
    ///
    /// # Errors
    /// They wait on, for a week at most.
    pub async fn discard(&self, name: &str) -> Result<(), BlobError> {
        let options = BlockBlobClientCommitBlockListOptions {
            if_none_match: Some(Etag::from("*")),
            ..Default::default()
        };
        let list = RequestContent::try_from(BlockLookupList::default())?;
        self.blocks(name)?.commit_block_list(list, Some(options)).await?;
        self.delete(name, 0).await.map(drop)
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
                    Seen::Nothing => Err(error),
                }
            }
        }
    }
}

/// MD5 of a file, base64.
async fn sum(path: &Path) -> Result<String, BlobError> {
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

/// What became of a file that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// There is nothing left of it.
    Permanent,
    /// The store keeps it for a while (soft delete).
    Soft,
    /// The store does not say.
    Unknown,
}

enum Seen {
    Nothing,
    Ours,
    Other,
}

fn ended(_: tokio::task::JoinError) -> BlobError {
    BlobError::Other("the work on a file ended early".into())
}

/// The store of one output, as long as nothing about it changes: its connection is kept.
#[derive(Default)]
pub struct Blobs {
    pace: Arc<Pace>,
    open: tokio::sync::Mutex<Option<Open>>,
}

struct Open {
    config: StoreConfig,
    secret: Arc<SecretText>,
    store: Arc<Store>,
}

impl Blobs {
    /// The store as it is configured now.
    ///
    /// # Errors
    /// The credentials can't be used.
    pub async fn store(
        &self,
        context: &av_edge::Context,
        container: &Container,
        config: &StoreConfig,
        secret: &Arc<SecretText>,
    ) -> Result<Arc<Store>, BlobError> {
        self.pace.set(config.upload_rate);
        let mut open = self.open.lock().await;
        if let Some(open) = &*open
            && open.config == *config
            && open.secret.expose() == secret.expose()
        {
            return Ok(open.store.clone());
        }
        let transport = Http::new(context.hosts.clone(), roots(context).await, self.pace.clone())
            .map_err(|error| BlobError::Other(error.to_string()))?;
        let credentials =
            config.credentials.as_ref().ok_or_else(|| BlobError::Access("no credentials".into()))?;
        let version = config.version.as_deref();
        let store =
            Arc::new(Store::new(container.clone(), credentials, secret, version, Arc::new(transport))?);
        *open = Some(Open { config: config.clone(), secret: secret.clone(), store: store.clone() });
        Ok(store)
    }
}

/// Public roots and those of the edge.
async fn roots(context: &av_edge::Context) -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    match context.certificates.trust_bundle().await {
        Ok(Some(bundle)) => {
            let certificates = CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates);
        }
        Ok(None) => {}
        Err(reason) => tracing::warn!("connecting without the edge trust bundle: {reason}"),
    }
    roots
}

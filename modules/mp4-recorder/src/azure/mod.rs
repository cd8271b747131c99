//! Azure Blob Storage, Azure Blob Storage on IoT Edge and Azurite as a store: a file becomes a block blob, once, and
//! nothing that is there is overwritten.

mod account;
mod connection;
mod deletion;
mod http;
mod identity;
mod open;
mod pace;
mod proxy;
mod recovery;
mod refused;
mod signing;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use av_flow::config::SecretText;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::Policy;
use azure_core::http::{
    ClientOptions, HttpClient, Method, Request, RetryOptions, StatusCode, Transport, Url,
};
use azure_storage_blob::models::{BlobClientGetPropertiesResultHeaders, BlockListType};
use azure_storage_blob::{BlobClient, BlobClientOptions, BlockBlobClient, BlockBlobClientOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use account::Access;
pub use account::{Container, Credentials};
pub use connection::Blobs;
pub use deletion::Gone;
pub use http::Http;
pub use pace::Pace;
pub use recovery::{Committed, Waiting};
pub use refused::BlobError;
pub use upload::{Described, Upload};

/// Known to Azurite of 2024 and later, and to the cloud for good.
const VERSION: &str = "2023-11-03";
/// Blocks of another length of id wait under a name, for a week.
pub const OTHER_BLOCKS: &str = "InvalidBlobOrBlock";
/// The credentials are good, but not for that.
const NO_PERMISSION: &str = "AuthorizationPermissionMismatch";
/// What a path of a URL holds as it is (RFC 3986 §2.3), and what parts it.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// What opens a container, and how it is spoken to.
pub struct Store {
    container: Container,
    access: Access,
    version: String,
    transport: Arc<Http>,
    /// Signs each request, or gives it a token; a SAS needs neither.
    signing: Option<Arc<dyn Policy>>,
    /// How many outputs of the module send to stores.
    outputs: AtomicU64,
    /// The SAS may not set tags.
    without_tags: AtomicBool,
    /// The SAS may not read.
    without_looks: AtomicBool,
    /// The store let nothing be deleted.
    without_deletion: AtomicBool,
    looked_as_a_player: AtomicBool,
}

impl Store {
    /// A store whose secret has been read.
    ///
    /// # Errors
    /// The credentials can't be used.
    pub fn new(
        mut container: Container,
        credentials: &Credentials,
        secret: Option<&SecretText>,
        version: Option<&str>,
        transport: Arc<Http>,
    ) -> Result<Self, BlobError> {
        let access = Access::of(credentials, secret, &mut container)
            .map_err(|error| BlobError::Access(error.to_string()))?;
        let signing: Option<Arc<dyn Policy>> = match &access {
            Access::Key(key) => {
                Some(Arc::new(signing::SharedKey::new(container.account.clone(), key.clone())))
            }
            Access::Identity(client_id) => {
                let asks = Arc::new(transport.for_tokens());
                Some(Arc::new(identity::Bearer::new(client_id.as_deref(), asks)?))
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
            outputs: AtomicU64::new(1),
            without_tags: AtomicBool::new(false),
            without_looks: AtomicBool::new(false),
            without_deletion: AtomicBool::new(false),
            looked_as_a_player: AtomicBool::new(false),
        })
    }

    /// Tells how many outputs there are, this one included: they share the memory for blocks.
    pub fn share(&self, outputs: usize) {
        self.outputs.store(outputs as u64, Ordering::Relaxed);
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
                    (Some(400 | 403), _) => match self.refusal(name).await?.unwrap_or(error) {
                        refused if refused.code() == Some(NO_PERMISSION) => {
                            self.tell_that_looks_are_refused();
                            Ok(Seen::Unknown)
                        }
                        refused => Err(refused),
                    },
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

    /// Asks once as a player does that signs nothing and names no version: accounts whose default version is from 2009 let
    /// nobody seek, which calls with a version of their own hide. Most containers are closed to it.
    pub async fn look_as_a_player(&self, name: &str) {
        if self.looked_as_a_player.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(mut url) = self.url(name) else { return };
        url.set_query(None);
        let request = Request::new(url, Method::Head);
        let Ok(answer) = self.transport.execute_request(&request).await else { return };
        let accepts = answer.headers().get_optional_str(&HeaderName::from_static("accept-ranges"));
        if answer.status() == StatusCode::Ok && accepts.is_none() {
            tracing::warn!(
                "{}: players can't seek in the files stored here, because the account answers with REST \
                 version 2009; set its default service version (az storage account blob-service-properties \
                 update --default-service-version 2021-12-02)",
                self.container.shown
            );
        }
    }

    fn tell_that_looks_are_refused(&self) {
        if !self.without_looks.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{}: the credentials lack read permission (r): files are stored anyway, but if the last \
                 answer of the store is lost, the file is stored again under the next name",
                self.container.shown
            );
        }
    }

    /// The reason of a refusal: it is in the body, which an answer to HEAD does not have.
    async fn refusal(&self, name: &str) -> Result<Option<BlobError>, BlobError> {
        let asked = self.blocks(name)?.get_block_list(BlockListType::Uncommitted, None).await;
        Ok(asked.err().map(BlobError::from).filter(|error| error.status() != Some(404)))
    }
}

/// What is under a name.
enum Seen {
    Nothing,
    /// Whoever may not read can't tell.
    Unknown,
    Ours,
    Other,
}

fn ended(_: tokio::task::JoinError) -> BlobError {
    BlobError::Other("the work on a file ended early".into())
}

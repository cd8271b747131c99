//! What a blob service's no means, and what to do about it.

use av_flow::Reason;
use azure_core::error::ErrorKind;

/// An answer without the id that the service gives to each request.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "something between this machine and the store answers in its place (status {0}); check the URL, the proxy \
     and the network"
)]
pub struct NotTheService(pub u16);

/// Why a file is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The service's no.
    #[error("{sentence} ({status}{})", code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
    Refused {
        /// What to do.
        sentence: &'static str,
        /// HTTP's number.
        status: u16,
        /// `x-ms-error-code`.
        code: Option<String>,
    },
    /// No connection, or one that broke.
    #[error("{0}")]
    Network(String),
    /// An answer that is not the service's.
    #[error("{0}")]
    NotTheService(#[from] NotTheService),
    /// The spool.
    #[error("the spool: {0}")]
    Spool(#[from] std::io::Error),
    /// Credentials.
    #[error("{0}")]
    Access(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

impl BlobError {
    /// For metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Refused { .. } => Reason::Refused,
            Self::Network(_) => Reason::Unreachable,
            Self::NotTheService(_) => Reason::Protocol,
            Self::Spool(_) => Reason::File,
            Self::Access(_) => Reason::Secret,
            Self::Other(_) => Reason::Internal,
        }
    }

    /// The service's word for it.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// HTTP's number, where the service has answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl From<azure_core::Error> for BlobError {
    fn from(error: azure_core::Error) -> Self {
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code, raw_response } => {
                let detail = raw_response
                    .as_ref()
                    .map(|raw| String::from_utf8_lossy(raw.body().as_ref()).into_owned());
                let status = u16::from(*status);
                Self::Refused {
                    sentence: sentence(
                        status,
                        error_code.as_deref().unwrap_or_default(),
                        &detail.unwrap_or_default(),
                    ),
                    status,
                    code: error_code.clone(),
                }
            }
            ErrorKind::Connection | ErrorKind::Io => Self::Network(error.to_string()),
            ErrorKind::Credential => {
                Self::Access(format!("credentials: no token from the managed identity: {error}"))
            }
            _ => match error.downcast_ref::<NotTheService>() {
                Some(stranger) => Self::NotTheService(*stranger),
                None => Self::Other(error.to_string()),
            },
        }
    }
}

/// One sentence for each no.
fn sentence(status: u16, code: &str, detail: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| detail.contains(word));
    match code {
        "AuthenticationFailed" if says(&["date header", "Date header"]) => {
            "the store says that this machine's clock is wrong; set it (NTP)"
        }
        "AuthenticationFailed" if says(&["expiry", "Signature not valid in the specified time frame"]) => {
            "the SAS has expired or is not valid yet; renew credentials.sas, and check the clock"
        }
        "AuthenticationFailed" => "the store rejects the key or SAS; copy the credentials again",
        // Azurite's word for it.
        "AuthorizationFailure" if says(&["including the signature"]) => {
            "the store rejects the key or SAS; copy the credentials again"
        }
        "KeyBasedAuthenticationNotPermitted" => {
            "the account does not allow account keys; use a user-delegation SAS (credentials.sas)"
        }
        "AuthorizationServiceMismatch" => {
            "the account SAS is not for blobs; its services (ss) must include blob (b)"
        }
        "AuthorizationResourceTypeMismatch" => {
            "the account SAS lacks a resource type; its types (srt) must include object (o), and container (c) for \
             `mp4-recorder recover`"
        }
        "AccountRequiresHttps" => "the account accepts only https; use azblob:// or azblob+https://",
        "BlobImmutableDueToPolicy" => {
            "kept by the store: an immutability policy or a legal hold protects the blob"
        }
        "AuthorizationPermissionMismatch" => {
            "the SAS lacks a permission; it needs create and write (cw) on the container's blobs, preferably \
             read as well (rcw)"
        }
        "AuthorizationFailure" | "AuthorizationSourceIPMismatch" | "PublicAccessNotPermitted" => {
            "the account's network rules, or the SAS, do not allow this machine"
        }
        "AuthorizationProtocolMismatch" => "the SAS allows only https",
        "InsufficientAccountPermissions" => "the credentials do not permit this",
        "AccountIsDisabled" => "the storage account is disabled",
        "ContainerNotFound" => "the container does not exist; create it",
        "ContainerBeingDeleted" => "the container is being deleted; wait, or name another",
        "ResourceNotFound" => "the account or container does not exist",
        "InvalidBlockList" => "blocks are missing from the store; the file is sent again",
        "InvalidBlobOrBlock" => "another writer has uncommitted blocks under that name",
        "Md5Mismatch" => "a block was damaged in transit; it is sent again",
        "ServerBusy" => "the store is busy",
        "OperationTimedOut" => "the store took too long",
        "InvalidHeaderValue" if says(&["x-ms-version", "API version"]) => {
            "the store does not know this REST version; set apiVersion (2017-04-17 on IoT Edge)"
        }
        _ if status == 403 => "the store refuses access; check credentials, permissions and network rules",
        _ if status >= 500 => "the store has an internal problem",
        _ => "the store refuses",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_of_a_403_has_its_own_sentence() {
        let failed = "AuthenticationFailed";
        let all = [
            sentence(403, failed, "Request date header too old: 'Fri, 01 Jan 2010'"),
            sentence(403, failed, "Signature not valid in the specified time frame"),
            sentence(403, failed, "The MAC signature found in the HTTP request is not the same"),
            sentence(403, "KeyBasedAuthenticationNotPermitted", ""),
            sentence(403, "AuthorizationPermissionMismatch", ""),
            sentence(403, "AuthorizationServiceMismatch", ""),
            sentence(403, "AuthorizationResourceTypeMismatch", ""),
            sentence(403, "AuthorizationFailure", ""),
            sentence(403, "", ""),
            sentence(400, "AccountRequiresHttps", ""),
            sentence(409, "BlobImmutableDueToPolicy", ""),
            sentence(409, "", ""),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}

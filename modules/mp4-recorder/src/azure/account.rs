//! Which container, and what opens it.

use av_flow::config::{Secret, SecretText};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{ParseError, Url};

/// A container of an account, as a document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The URL as written, without what is secret.
    pub shown: String,
    /// Of the service: `https://ACCOUNT.blob.core.windows.net`, or `http://HOST:PORT/ACCOUNT`.
    pub service: String,
    /// The account's name.
    pub account: String,
    /// The container's.
    pub container: String,
}

/// Why a URL is no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// `azblob`.
    #[error("expected azblob://ACCOUNT/CONTAINER")]
    Account,
    /// The others.
    #[error("expected azblob+http(s)://HOST:PORT/ACCOUNT/CONTAINER")]
    Host,
    /// Of the others.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// Azure's rules for names.
    #[error(
        "an account name has 3 to 24 characters of a-z 0-9, a container name 3 to 63 of a-z 0-9 and \
             single -"
    )]
    Names,
}

impl Container {
    /// Reads a URL of one of the three schemes.
    ///
    /// # Errors
    /// It names no container.
    pub fn parse(text: &str) -> Result<Self, ContainerError> {
        let (scheme, rest) = text.split_once("://").ok_or(ContainerError::Account)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let parts: Vec<&str> = rest.split('/').collect();
        let (service, account, container) = match (scheme.to_ascii_lowercase().as_str(), parts.as_slice()) {
            ("azblob", [account, container]) => {
                (format!("https://{account}.blob.core.windows.net"), *account, *container)
            }
            ("azblob", _) => return Err(ContainerError::Account),
            ("azblob+http", [host, account, container]) => {
                (format!("http://{host}/{account}"), *account, *container)
            }
            ("azblob+https", [host, account, container]) => {
                (format!("https://{host}/{account}"), *account, *container)
            }
            _ => return Err(ContainerError::Host),
        };
        let is_account = (3..=24).contains(&account.len())
            && account.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let is_container = (3..=63).contains(&container.len())
            && container.split('-').all(|part| {
                !part.is_empty()
                    && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
        if !is_account || !is_container {
            return Err(ContainerError::Names);
        }
        let url = Url::parse(&service);
        if url.as_ref().is_err_and(|error| *error == ParseError::InvalidPort)
            || url.as_ref().is_ok_and(|url| url.port() == Some(0))
        {
            return Err(ContainerError::Port);
        }
        let is_plain = url.is_ok_and(|url| {
            url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        if !is_plain {
            return Err(ContainerError::Host);
        }
        let (account, container) = (account.to_owned(), container.to_owned());
        Ok(Self { shown: format!("{scheme}://{rest}"), service, account, container })
    }
}

/// `credentials` of a store.
#[derive(Clone, Debug, PartialEq)]
pub enum Credentials {
    /// `connectionString`.
    ConnectionString(Secret),
    /// `accountKey`.
    AccountKey(Secret),
    /// `sas`.
    Sas(Secret),
    /// `managedIdentity`.
    ManagedIdentity {
        /// `clientId` of a user-assigned identity; `None`: the machine's own.
        client_id: Option<String>,
    },
}

impl Credentials {
    /// The secret in it, where it has one.
    pub fn secret(&self) -> Option<&Secret> {
        match self {
            Self::ConnectionString(secret) | Self::AccountKey(secret) | Self::Sas(secret) => Some(secret),
            Self::ManagedIdentity { .. } => None,
        }
    }
}

/// What is shown to the service.
#[derive(Clone, PartialEq)]
pub enum Access {
    /// Each request is signed with this key.
    Key(Vec<u8>),
    /// A query behind each URL.
    Sas(String),
    /// Each request has a token of this managed identity.
    Identity(Option<String>),
}

/// Credentials that can't be used. Nothing of them is repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Base64.
    #[error("credentials: the account key is not base64; copy it again from the portal")]
    Key,
    /// Credentials with a secret, without one.
    #[error("credentials: the secret is missing")]
    Secret,
    /// Of what a SAS has.
    #[error("credentials: the SAS has no `sig=`; copy all of it")]
    Sas,
    /// Of what a connection string has.
    #[error("credentials: the connection string has neither AccountKey nor SharedAccessSignature")]
    ConnectionString,
    /// Two accounts.
    #[error("credentials: the connection string is for account {of}, the URL for {url}")]
    OtherAccount {
        /// In the connection string.
        of: String,
        /// In the URL.
        url: String,
    },
}

impl Access {
    /// Of credentials whose secret has been read; a connection string may bring another address of the service.
    ///
    /// # Errors
    /// They can't be used.
    pub fn of(
        credentials: &Credentials,
        secret: Option<&SecretText>,
        container: &mut Container,
    ) -> Result<Self, AccessError> {
        if let Credentials::ManagedIdentity { client_id } = credentials {
            return Ok(Self::Identity(client_id.clone()));
        }
        let text = secret.ok_or(AccessError::Secret)?.expose().trim();
        match credentials {
            Credentials::ManagedIdentity { .. } => Err(AccessError::Secret),
            Credentials::AccountKey(_) => key(text),
            Credentials::Sas(_) => sas(text),
            Credentials::ConnectionString(_) => {
                let value = |name: &str| {
                    text.split(';').filter_map(|part| part.split_once('=')).find(|(key, _)| *key == name)
                };
                if let Some((_, account)) = value("AccountName")
                    && account != container.account
                {
                    let (of, url) = (account.to_owned(), container.account.clone());
                    return Err(AccessError::OtherAccount { of, url });
                }
                // The URL of a test store says its address itself.
                if container.shown.starts_with("azblob://") {
                    if let Some((_, endpoint)) = value("BlobEndpoint") {
                        container.service = endpoint.trim_end_matches('/').to_owned();
                    } else if let Some((_, suffix)) = value("EndpointSuffix") {
                        container.service = format!("https://{}.blob.{suffix}", container.account);
                    }
                }
                match (value("AccountKey"), value("SharedAccessSignature")) {
                    (Some((_, text)), _) => key(text),
                    (None, Some((_, text))) => sas(text),
                    (None, None) => Err(AccessError::ConnectionString),
                }
            }
        }
    }
}

fn key(text: &str) -> Result<Access, AccessError> {
    STANDARD.decode(text).map(Access::Key).map_err(|_| AccessError::Key)
}

fn sas(text: &str) -> Result<Access, AccessError> {
    let text = text.strip_prefix('?').unwrap_or(text);
    let has_signature = text.split('&').any(|pair| pair.starts_with("sig="));
    if has_signature { Ok(Access::Sas(text.to_owned())) } else { Err(AccessError::Sas) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_by_account_or_by_address() {
        let cloud = Container::parse("azblob://acc1/my-recordings/").unwrap();
        assert_eq!(cloud.service, "https://acc1.blob.core.windows.net");
        assert_eq!((&*cloud.container, &*cloud.shown), ("my-recordings", "azblob://acc1/my-recordings"));
        let local = Container::parse("azblob+http://127.0.0.1:10000/devstoreaccount1/rec").unwrap();
        assert_eq!(local.service, "http://127.0.0.1:10000/devstoreaccount1");
        for (text, error) in [
            ("azblob://acc1", ContainerError::Account),
            ("azblob+https://host/acc1", ContainerError::Host),
            ("azblob://Acc1/rec", ContainerError::Names),
            ("azblob://acc1/re--c", ContainerError::Names),
            ("azblob+http://u:p@host/acc1/rec", ContainerError::Host),
            ("azblob+http://host:0/acc1/rec", ContainerError::Port),
            ("azblob+https://host:65536/acc1/rec", ContainerError::Port),
        ] {
            assert_eq!(Container::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_key_a_sas_and_a_connection_string_open_it() {
        let plain = |text: &str| Secret::Plain(text.into());
        let read = |credentials: &Credentials, text: &str| {
            let secret = plain(text).resolve(&av_edge::Paths::default()).unwrap();
            let mut container = Container::parse("azblob://acc1/rec").unwrap();
            Access::of(credentials, Some(&secret), &mut container).map(|access| (access, container.service))
        };
        let string = Credentials::ConnectionString(plain("x"));
        let (access, service) =
            read(&string, "AccountName=acc1;AccountKey=AQID;EndpointSuffix=core.example").unwrap();
        assert!(access == Access::Key(vec![1, 2, 3]));
        assert_eq!(service, "https://acc1.blob.core.example");
        let error = read(&string, "AccountName=acc2;AccountKey=AQID").err().unwrap();
        assert_eq!(error, AccessError::OtherAccount { of: "acc2".into(), url: "acc1".into() });
        assert_eq!(read(&string, "AccountName=acc1").err(), Some(AccessError::ConnectionString));
        let sas = Credentials::Sas(plain("x"));
        assert!(read(&sas, " ?sv=1&sig=abc ").unwrap().0 == Access::Sas("sv=1&sig=abc".into()));
        assert_eq!(read(&sas, "sv=1").err(), Some(AccessError::Sas));
        assert_eq!(read(&Credentials::AccountKey(plain("x")), "no key").err(), Some(AccessError::Key));
    }
}

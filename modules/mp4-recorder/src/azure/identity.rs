//! A managed identity: the platform gives tokens to the machine or the container, and there is no secret to keep.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::TokenCredential;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Request, RetryOptions, Transport};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};

use super::Http;

/// What tokens are asked for (`resource` of the identity endpoint).
const SCOPE: &str = "https://storage.azure.com/.default";

/// Puts a token into every request. The SDK's credential keeps it until shortly before its end.
#[derive(Debug)]
pub struct Bearer {
    credential: Arc<dyn TokenCredential>,
}

impl Bearer {
    /// Tokens of the machine's own identity, or of the one with this client id. `transport` asks the identity endpoint.
    ///
    /// # Errors
    /// The environment names an identity endpoint that can't be used.
    pub fn new(client_id: Option<&str>, transport: Arc<Http>) -> azure_core::Result<Self> {
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: client_id.map(|id| UserAssignedId::ClientId(id.to_owned())),
            client_options: ClientOptions {
                retry: RetryOptions::none(),
                transport: Some(Transport::new(transport)),
                ..ClientOptions::default()
            },
        };
        Ok(Self { credential: ManagedIdentityCredential::new(Some(options))? })
    }
}

#[async_trait]
impl Policy for Bearer {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let token = self.credential.get_token(&[SCOPE], None).await?;
        request.insert_header("authorization", format!("Bearer {}", token.token.secret()));
        let Some((first, rest)) = next.split_first() else {
            return Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Other,
                "nothing sends",
            ));
        };
        first.send(context, request, rest).await
    }
}

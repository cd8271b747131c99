//! Deleting blobs, and blocks that wait for their commit.

use std::sync::atomic::Ordering;

use azure_core::http::headers::HeaderName;
use azure_core::http::{Etag, RequestContent};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientGetPropertiesResultHeaders, BlockBlobClientCommitBlockListOptions,
    BlockLookupList, DeleteSnapshotsOptionType,
};

use super::account::Access;
use super::{BlobError, Store};

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

impl Store {
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
                error => {
                    self.without_deletion.fetch_or(error.status().is_some(), Ordering::Relaxed);
                    Err(error)
                }
            },
        }
    }

    /// Whether deleting may be allowed, as far as the credentials and what was tried say.
    fn may_delete(&self) -> bool {
        let is_permitted = match &self.access {
            Access::Sas(query) => permits(query, 'd'),
            Access::Key(_) | Access::Identity(_) => true,
        };
        is_permitted && !self.without_deletion.load(Ordering::Relaxed)
    }

    /// Discards blocks that wait for their commit: commits none of them and deletes the empty blob. `false`: it may not
    /// delete, and an empty blob would stay.
    ///
    /// # Errors
    /// The store drops them after a week.
    pub async fn discard(&self, name: &str) -> Result<bool, BlobError> {
        if !self.may_delete() {
            return Ok(false);
        }
        let options = BlockBlobClientCommitBlockListOptions {
            if_none_match: Some(Etag::from("*")),
            ..Default::default()
        };
        let list = RequestContent::try_from(BlockLookupList::default())?;
        self.blocks(name)?.commit_block_list(list, Some(options)).await?;
        self.delete(name, 0).await.map(|_| true)
    }
}

/// Whether a SAS has that permission. One that names an access policy of the container does not say.
fn permits(sas: &str, permission: char) -> bool {
    let has =
        |pair: &str| pair.strip_prefix("sp=").is_some_and(|permissions| permissions.contains(permission));
    sas.split('&').any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sas_says_whether_it_may_delete() {
        assert!(permits("sv=2023-11-03&sp=rcwd&sig=x", 'd'));
        for sas in ["sv=2023-11-03&sp=rcw&sig=d", "si=policy&sig=d", "sp=&sig=x"] {
            assert!(!permits(sas, 'd'), "{sas}");
        }
    }
}

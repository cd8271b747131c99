//! Files that are sent while they are being written.

use std::path::Path;

use super::{BlobError, Seen, Store, Upload};

impl Store {
    /// Whether nothing is stored under a name, as far as can be seen.
    ///
    /// # Errors
    /// The store does not say.
    pub async fn is_free(&self, name: &str, upload: &Upload) -> Result<bool, BlobError> {
        Ok(matches!(self.look(name, upload, u64::MAX).await?, Seen::Nothing | Seen::Unknown))
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::upload::mark;

    fn upload(staged: &[u64]) -> Upload {
        Upload {
            id: format!("{}{:016x}", mark("cam"), 1),
            block: 100,
            md5: String::new(),
            began: 0,
            staged: staged.to_vec(),
            sent: 0,
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
}

//! Files that are sent while they are being written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::{BlobError, Seen, Store, Upload, ended};

impl Store {
    /// Whether nothing is stored under a name, as far as can be seen.
    ///
    /// # Errors
    /// The store does not say.
    pub async fn is_free(&self, name: &str, upload: &Upload) -> Result<bool, BlobError> {
        Ok(matches!(self.look(name, upload, u64::MAX).await?, Seen::Nothing | Seen::Unknown))
    }

    /// How long a block of a file may be that is being written.
    pub fn most_open(&self) -> u64 {
        self.block(0)
    }

    /// Whether an upload is stored under a name, as far as can be seen.
    ///
    /// # Errors
    /// The store does not say.
    pub async fn has(&self, name: &str, upload: &Upload, bytes: u64) -> Result<bool, BlobError> {
        Ok(matches!(self.look(name, upload, bytes).await?, Seen::Ours))
    }

    /// Asks for nothing, so that the answer tells what time it is.
    pub async fn ask_the_time(&self) {
        if let Ok(blob) = self.blob("time") {
            drop(blob.get_properties(None).await);
        }
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
        at: u64,
        length: u64,
    ) -> Result<(), BlobError> {
        self.stage(&self.blocks(name)?, path, &upload.block_id(at), at, length).await
    }
}

/// Where the head of a recording ends, whose index is written at its close: at its first media, which are in an `mdat`.
pub(super) async fn head(path: &Path) -> Result<u64, BlobError> {
    let path = path.to_owned();
    Ok(tokio::task::spawn_blocking(move || head_of(&File::open(path)?)).await.map_err(ended)??)
}

fn head_of(file: &File) -> io::Result<u64> {
    const HEADER: u64 = 16;
    let bytes = file.metadata()?.len();
    let mut at = 0_u64;
    while at.saturating_add(HEADER) <= bytes {
        let mut header = [0; HEADER as usize];
        file.read_exact_at(&mut header, at)?;
        let (short, kind, long) = (&header[..4], &header[4..8], &header[8..]);
        let size = match u32::from_be_bytes(short.try_into().unwrap_or_default()) {
            1 => u64::from_be_bytes(long.try_into().unwrap_or_default()),
            size => u64::from(size),
        };
        if kind == b"mdat" {
            return Ok(at + HEADER);
        }
        if size < 8 {
            break;
        }
        at = at.saturating_add(size);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::azure::upload::mark;

    #[test]
    fn the_head_of_a_recording_reaches_to_its_media_however_large_its_reserve_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.mp4");
        for reserve in [24_u32, 9 << 20] {
            let mut content = b"\0\0\0\x10ftypisom\0\0\0\0".to_vec();
            content.extend((reserve - 16).to_be_bytes());
            content.extend(b"moov");
            content.resize(reserve as usize, 0);
            content.extend(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x18");
            let head = content.len() as u64;
            content.extend(b"pictures");
            std::fs::write(&path, &content).unwrap();
            assert_eq!(head_of(&File::open(&path).unwrap()).unwrap(), head);
        }
        // One that is damaged: all of it may have changed.
        std::fs::write(&path, [0; 100]).unwrap();
        assert_eq!(head_of(&File::open(&path).unwrap()).unwrap(), 100);
    }

    fn upload(staged: &[u64]) -> Upload {
        Upload {
            id: format!("{}{:016x}", mark("cam"), 1),
            block: 100,
            md5: String::new(),
            began: 0,
            staged: staged.to_vec(),
            sent: 0,
            kept: Vec::new(),
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

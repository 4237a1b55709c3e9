//! Files of output: private, bounded, and on disk only once they are needed
//! (04 §6.4, 00 §6).
//!
//! Invariant: a file never grows past its limit ([`FILE_LIMIT`], or less) but for its closing line;
//! what is beyond is dropped with one note.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{DirBuilder, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::decode::Utf8Decoder;

/// Bytes in one file of output (00 §6).
pub const FILE_LIMIT: u64 = 64 * 1024 * 1024;

/// What stands in a file where output was dropped.
const LIMIT_NOTE: &str = "\n[output limit of 64 MiB reached; the rest was dropped]\n";

/// Bytes in the transcript of a monitor, and what stands at its end (04 §7.20).
const MONITOR_LIMIT: u64 = 1024 * 1024;
const MONITOR_NOTE: &str = "\n[output truncated at 1048576 bytes]\n";

/// Bytes that wait in memory before the file is really made.
const PENDING_LIMIT: usize = 64 * 1024;

/// Bytes copied at once.
const COPY_BYTES: usize = 256 * 1024;

/// A file of output: private, bounded, and on disk only once it is needed.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: Option<File>,
    pending: String,
    written: u64,
    limit: u64,
    note: &'static str,
    full: bool,
}

impl OutputFile {
    /// A file at `path`; nothing is on disk before [`Self::begin`] or 64 KiB.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            pending: String::new(),
            written: 0,
            limit: FILE_LIMIT,
            note: LIMIT_NOTE,
            full: false,
        }
    }

    /// The smaller file of a monitor.
    pub fn of_monitor(path: PathBuf) -> Self {
        Self {
            limit: MONITOR_LIMIT,
            note: MONITOR_NOTE,
            ..Self::new(path)
        }
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the file (mode 0600, missing directories 0700) and writes what waits.
    pub async fn begin(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        if let Some(directory) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .await?;
        }
        // A file of an earlier process may bear the same name; never follow a link put there.
        match tokio::fs::remove_file(&self.path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
            .await?;
        let file = self.file.insert(file);
        let pending = std::mem::take(&mut self.pending);
        file.write_all(pending.as_bytes()).await?;
        file.flush().await
    }

    /// Adds output; beyond the limit it is dropped with one note.
    pub async fn append(&mut self, text: &str) -> io::Result<()> {
        if self.full {
            return Ok(());
        }
        let room = usize::try_from(self.limit - self.written).unwrap_or(usize::MAX);
        if text.len() <= room {
            self.written += text.len() as u64;
            return self.put(text).await;
        }
        self.full = true;
        self.put(&text[..text.floor_char_boundary(room)]).await?;
        self.put(self.note).await
    }

    /// Adds a closing line, beyond the limit too.
    pub async fn close_with(&mut self, text: &str) -> io::Result<()> {
        self.put(text).await
    }

    async fn put(&mut self, text: &str) -> io::Result<()> {
        match &mut self.file {
            Some(file) => {
                file.write_all(text.as_bytes()).await?;
                file.flush().await
            }
            None => {
                self.pending.push_str(text);
                if self.pending.len() > PENDING_LIMIT {
                    self.begin().await?;
                }
                Ok(())
            }
        }
    }

    /// Writes to `other` what this file holds.
    pub async fn copy_to(&self, other: &mut Self) -> io::Result<()> {
        if self.file.is_none() {
            return other.append(&self.pending).await;
        }
        let mut reader = File::open(&self.path).await?;
        let mut decoder = Utf8Decoder::default();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            other.append(&decoder.push(&buffer[..count])).await?;
        }
    }

    /// Takes it from disk again, if it got there. Whether that works changes
    /// nothing for the command it belongs to.
    pub async fn remove(self) {
        if self.file.is_some() {
            let _ = tokio::fs::remove_file(&self.path).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn written(pieces: &[&str]) -> String {
        let home = tempfile::tempdir().unwrap();
        let mut file = OutputFile::new(home.path().join("deep/x.log"));
        file.limit = 10;
        for piece in pieces {
            file.append(piece).await.unwrap();
        }
        file.close_with("[exit code: 0]\n").await.unwrap();
        assert!(
            !file.path().exists(),
            "nothing is on disk before it is begun"
        );
        file.begin().await.unwrap();
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[tokio::test]
    async fn a_file_stops_at_its_limit_with_one_note_and_still_gets_its_last_line() {
        let text = written(&["12345é", "12345é", "12345é"]).await;
        assert_eq!(text, format!("12345é123{LIMIT_NOTE}[exit code: 0]\n"));
        let text = written(&["1234567890", "x"]).await;
        assert_eq!(text, format!("1234567890{LIMIT_NOTE}[exit code: 0]\n"));
        assert_eq!(written(&["1234567890"]).await, "1234567890[exit code: 0]\n");
    }

    #[tokio::test]
    async fn a_file_of_an_earlier_process_or_a_link_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let victim = home.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, home.path().join("x.log")).unwrap();
        let mut file = OutputFile::new(home.path().join("x.log"));
        file.append("new").await.unwrap();
        file.begin().await.unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
    }
}

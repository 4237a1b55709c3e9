//! Regular files, opened and written so that nothing on a machine can hang or
//! flood a tool (04 §5.3).
//!
//! Invariants: only regular files are read or written; devices, pipes and
//! sockets are refused without being opened. A read never holds more than its
//! limit. A write goes through symlinks, keeps the mode, and when the disk is
//! full leaves the old content in place.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is a directory.
    #[error("Path is a directory, not a file: {0}")]
    Directory(PathBuf),
    /// It is a device, a pipe or a socket.
    #[error("Not a regular file: {path} is a {kind}")]
    Special {
        /// The file.
        path: PathBuf,
        /// `named pipe`, `socket`, `character device`, `block device`.
        kind: &'static str,
    },
    /// It is larger than the caller takes.
    #[error("File too large: {size} bytes (max {max} bytes)")]
    TooLarge {
        /// Bytes found; at least so many for a file that grew meanwhile.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// Someone wrote to it between our reading and our writing.
    #[error("File changed while it was being edited: {0}. Read it again and retry.")]
    Changed(PathBuf),
    /// The operating system refused.
    #[error("{source}: {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FileError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// The words of 04 §5.3 for a tool that works in `cwd`.
    pub fn for_model(&self, cwd: &Path) -> String {
        let Self::Io { path, source } = self else {
            return self.to_string();
        };
        let path = path.display();
        match source.kind() {
            io::ErrorKind::NotFound => format!(
                "File does not exist. Attempted path: {path}. Current working directory: {}",
                cwd.display()
            ),
            io::ErrorKind::PermissionDenied => format!("Permission denied: {path}"),
            io::ErrorKind::IsADirectory => format!("Path is a directory: {path}"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("No space left on device: {path}")
            }
            _ => self.to_string(),
        }
    }
}

/// What a file was when it was read, to see whether it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// Reads a regular file of at most `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<(Vec<u8>, Stamp), FileError> {
    let (mut file, metadata) = open(path)?;
    if metadata.len() > max {
        return Err(FileError::TooLarge {
            size: metadata.len(),
            max,
        });
    }
    // Sized by what is there, bounded even if it grows while it is read.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    let read = Read::by_ref(&mut file)
        .take(max + 1)
        .read_to_end(&mut bytes)
        .map_err(FileError::io(path))?;
    if read as u64 > max {
        return Err(FileError::TooLarge {
            size: read as u64,
            max,
        });
    }
    Ok((bytes, Stamp::of(&metadata)))
}

/// Opens a regular file for reading.
pub fn open(path: &Path) -> Result<(File, Metadata), FileError> {
    // Looked at before it is opened: opening a device can have effects.
    check_regular(path, &fs::metadata(path).map_err(FileError::io(path))?)?;
    open_seen(path)
}

/// The same for what the caller has just seen to be a regular file.
pub fn open_seen(path: &Path) -> Result<(File, Metadata), FileError> {
    let file = nonblocking()
        .read(true)
        .open(path)
        .map_err(FileError::io(path))?;
    // And again, because the name may have changed hands in between.
    let metadata = file.metadata().map_err(FileError::io(path))?;
    check_regular(path, &metadata)?;
    Ok((file, metadata))
}

/// What [`write`] did.
#[derive(Debug)]
pub struct Written {
    /// The file was not there before.
    pub created: bool,
}

/// Writes the whole content of a file: through symlinks, keeping the mode of
/// an existing file. Parents must exist.
///
/// With `expected`, the file must still be the one that was read. An existing
/// file grows before its old bytes are touched, so a full disk costs nothing;
/// a file that this call created is removed again when it cannot be filled.
pub fn write(path: &Path, content: &[u8], expected: Option<Stamp>) -> Result<Written, FileError> {
    match fs::metadata(path) {
        Ok(metadata) => check_regular(path, &metadata)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && expected.is_none() => {
            match nonblocking().write(true).create_new(true).open(path) {
                Ok(mut file) => {
                    return match file.write_all(content) {
                        Ok(()) => Ok(Written { created: true }),
                        Err(error) => {
                            // The write's own error is the one to report.
                            let _ = fs::remove_file(path);
                            Err(FileError::io(path)(error))
                        }
                    };
                }
                // A dangling symlink: create what it points to, below.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(FileError::io(path)(error)),
            }
        }
        Err(error) => return Err(FileError::io(path)(error)),
    }
    let mut file = nonblocking()
        .write(true)
        .create(expected.is_none())
        .truncate(false)
        .open(path)
        .map_err(FileError::io(path))?;
    let metadata = file.metadata().map_err(FileError::io(path))?;
    check_regular(path, &metadata)?;
    if expected.is_some_and(|expected| expected != Stamp::of(&metadata)) {
        return Err(FileError::Changed(path.to_path_buf()));
    }
    overwrite(&mut file, metadata.len(), content).map_err(FileError::io(path))?;
    Ok(Written { created: false })
}

fn overwrite(file: &mut File, old: u64, content: &[u8]) -> io::Result<()> {
    let kept = content
        .len()
        .min(usize::try_from(old).unwrap_or(usize::MAX));
    let (head, growth) = content.split_at(kept);
    if !growth.is_empty() {
        file.seek(SeekFrom::Start(old))?;
        if let Err(error) = file.write_all(growth) {
            // Back to the old end; the write's own error is the one to report.
            let _ = file.set_len(old);
            return Err(error);
        }
    }
    file.seek(SeekFrom::Start(0))?;
    file.write_all(head)?;
    file.set_len(content.len() as u64)
}

/// Never waits for the other end of a pipe, never takes a terminal.
fn nonblocking() -> OpenOptions {
    use rustix::fs::OFlags;
    let mut options = OpenOptions::new();
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    options
}

/// Refuses everything but a regular file.
pub fn check_regular(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let path = path.to_path_buf();
    if kind.is_dir() {
        return Err(FileError::Directory(path));
    }
    let kind = if kind.is_fifo() {
        "named pipe"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_block_device() {
        "block device"
    } else {
        "character device"
    };
    Err(FileError::Special { path, kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_write_keeps_mode_inode_and_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("script"), dir.path().join("link"));
        fs::write(&file, "long old content").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o750)).unwrap();
        symlink(&file, &link).unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        for content in ["short", "much longer than it ever was before", ""] {
            write(&link, content.as_bytes(), None).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), content);
        }
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o750);
        assert_eq!(metadata.ino(), inode);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_dangling_symlink_gets_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink(dir.path().join("target"), &link).unwrap();
        write(&link, b"x", None).unwrap();
        assert_eq!(fs::read(dir.path().join("target")).unwrap(), b"x");
    }

    #[test]
    fn a_full_disk_leaves_the_old_content() {
        // A handle that may not write fails where a full disk does: at the growth.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "old content").unwrap();
        let mut read_only = File::open(&path).unwrap();
        assert!(overwrite(&mut read_only, 11, b"new content, and longer").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old content");
        if Path::new("/dev/full").exists() {
            assert!(matches!(
                write(Path::new("/dev/full"), b"x", None),
                Err(FileError::Special { .. })
            ));
        }
    }

    #[test]
    fn a_file_that_changed_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "one").unwrap();
        let (_, stamp) = read(&path, 100).unwrap();
        fs::write(&path, "other").unwrap();
        assert!(matches!(
            write(&path, b"mine", Some(stamp)),
            Err(FileError::Changed(_))
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            write(&path, b"mine", Some(stamp)),
            Err(FileError::Io { .. })
        ));
    }

    #[test]
    fn special_files_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("loop");
        symlink(&link, &link).unwrap();
        for (path, text) in [
            (pipe.as_path(), "named pipe"),
            (socket.as_path(), "socket"),
            (Path::new("/dev/zero"), "character device"),
            (dir.path(), "directory"),
            (link.as_path(), "symbolic links"),
        ] {
            for error in [
                read(path, 10).unwrap_err(),
                write(path, b"x", None).unwrap_err(),
            ] {
                assert!(error.to_string().contains(text), "{path:?}: {error}");
            }
        }
    }

    #[test]
    fn a_read_is_bounded_even_when_the_size_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, [b'x'; 11]).unwrap();
        assert!(matches!(
            read(&path, 10),
            Err(FileError::TooLarge { size: 11, max: 10 })
        ));
        assert_eq!(read(&path, 11).unwrap().0.len(), 11);
        // Files of /proc say they are empty.
        assert!(matches!(
            read(Path::new("/proc/self/environ"), 0).map(|(bytes, _)| bytes.len()),
            Ok(0) | Err(FileError::TooLarge { .. })
        ));
        assert!(
            !read(Path::new("/proc/self/status"), 1 << 20)
                .unwrap()
                .0
                .is_empty()
        );
    }
}

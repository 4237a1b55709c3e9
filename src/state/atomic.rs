//! Reading with a bound, and replacing a file whole (spec 01 §4.9).
//!
//! A reader sees the old or the new content, never a half. The new file takes
//! over mode and owner of the old one; a private file is tightened to 0600. A
//! symbolic link stays a link: its target is replaced. How much of that holds
//! when the power fails is what [`Lasting`] says; a killed process loses nothing.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::home::create_private_dir;

/// The largest settings file that is read: 16 MiB. Real ones are a few KiB.
pub const READ_LIMIT: u64 = 16 * 1024 * 1024;

/// Who may read the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The user alone: 0600 or less, whatever it was before.
    Private,
    /// As the old file, or as the umask says. For files in a project.
    Inherited,
}

impl Access {
    /// The mode of what replaces `old`.
    pub(super) fn mode(self, old: Option<&fs::Metadata>) -> u32 {
        match (old, self) {
            (Some(old), Self::Inherited) => old.mode() & 0o7777,
            (None, Self::Inherited) => 0o666,
            (Some(old), Self::Private) => old.mode() & 0o600,
            (None, Self::Private) => 0o600,
        }
    }
}

/// What is waited for, in rising order of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lasting {
    /// Nothing: a power failure may leave an empty file.
    Process,
    /// The content is on the disk: a power failure leaves the old or the new file.
    Content,
    /// Content and name are: a power failure leaves the new file.
    Name,
}

/// Reads a regular file of at most `limit` bytes. A pipe or device in its
/// place is an error, so that nothing waits for ever.
///
/// # Errors
/// As `open` and `read`; `InvalidInput` for what is not a regular file;
/// `FileTooLarge` past the limit.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(&open(path)?, limit)
}

/// Opens for reading without waiting for the other end of a pipe.
///
/// # Errors
/// As `open`.
pub fn open(path: &Path) -> io::Result<File> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nonblocking).open(path)
}

/// The same as [`read_bounded`] for an open file, from where it stands.
///
/// # Errors
/// As for [`read_bounded`].
pub fn read_open(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    // Room for the end as well, so that one read takes all and another sees the end.
    let room = usize::try_from(meta.len().min(limit)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(room + 64);
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let text = format!("larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Replaces the content of `path` and waits until it is on the disk. Missing
/// directories are made with mode 0700.
///
/// # Errors
/// As the system calls; the old file is whole then.
pub fn write(path: &Path, bytes: &[u8], access: Access) -> io::Result<()> {
    replace(path, bytes, access, Lasting::Name)
}

/// The same, as lasting as asked.
///
/// # Errors
/// As for [`write`].
pub fn replace(path: &Path, bytes: &[u8], access: Access, lasting: Lasting) -> io::Result<()> {
    let fill = &mut |file: &mut File| file.write_all(bytes);
    replace_with(path, access, lasting, fill).map(drop)
}

/// The same with what `fill` writes into the new file, which is empty. Gives the
/// new file; `None` when its content had to be put into the old one.
///
/// # Errors
/// As for [`write`], and those of `fill`.
pub fn replace_with(
    path: &Path,
    access: Access,
    lasting: Lasting,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> io::Result<Option<File>> {
    let target = link_target(path)?;
    let dir = directory(&target);
    create_private_dir(dir)?;
    let old = fs::metadata(&target).ok();
    let mode = access.mode(old.as_ref());
    let mut temporary = tempfile::Builder::new()
        .prefix(".letta-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(dir)?;
    fill(temporary.as_file_mut())?;
    if let Some(old) = &old {
        keep_owner_and_mode(temporary.as_file(), old, mode);
    }
    if lasting >= Lasting::Content {
        temporary.as_file().sync_data()?;
    }
    match temporary.persist(&target) {
        Ok(file) => {
            if lasting == Lasting::Name {
                sync_dir(dir)?;
            }
            Ok(Some(file))
        }
        // A single file mounted into a container cannot be replaced, only filled.
        Err(error) if error.error.kind() == io::ErrorKind::ResourceBusy => {
            fill_in_place(&target, error.file.path()).map(|()| None)
        }
        Err(error) => Err(error.error),
    }
}

/// The directory of a file.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Makes a rename or removal in `dir` last.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        // Some network file systems cannot sync a directory.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

/// Best effort: a server run as root must not take a user's file away, and a
/// mode that cannot be set is no reason to fail.
pub(super) fn keep_owner_and_mode(file: &File, old: &fs::Metadata, mode: u32) {
    if let Ok(new) = file.metadata()
        && (new.uid(), new.gid()) != (old.uid(), old.gid())
    {
        let _ = std::os::unix::fs::fchown(file, Some(old.uid()), Some(old.gid()));
    }
    // After the owner: chown clears bits. The umask may have taken some as well.
    let _ = file.set_permissions(Permissions::from_mode(mode));
}

/// `whole` is another file: `target` is empty for a moment.
fn fill_in_place(target: &Path, whole: &Path) -> io::Result<()> {
    let mut whole = File::open(whole)?;
    let mut file = OpenOptions::new().write(true).truncate(true).open(target)?;
    io::copy(&mut whole, &mut file)?;
    file.sync_all()
}

/// Follows symbolic links, a dangling last one too.
pub(super) fn link_target(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..40 {
        match fs::read_link(&target) {
            Ok(next) => {
                target = target
                    .parent()
                    .map_or_else(|| next.clone(), |dir| dir.join(&next))
            }
            // Not a link, or not there: both are where the file goes.
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "too many symbolic links",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("exists").mode() & 0o777
    }

    fn dir_with_file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("file");
        fs::write(&path, "old").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
        (dir, path)
    }

    #[test]
    fn a_private_file_is_created_0600_and_an_open_one_tightened() {
        let (dir, path) = dir_with_file(0o644);
        write(&path, b"new", Access::Private).expect("written");
        assert_eq!(
            (mode(&path), fs::read(&path).expect("read")),
            (0o600, b"new".to_vec())
        );
        let fresh = dir.path().join("sub/fresh");
        write(&fresh, b"", Access::Private).expect("written");
        assert_eq!(
            (mode(&fresh), mode(&dir.path().join("sub"))),
            (0o600, 0o700)
        );
    }

    #[test]
    fn no_mode_is_loosened() {
        let (_dir, path) = dir_with_file(0o400);
        write(&path, b"new", Access::Private).expect("written");
        assert_eq!(mode(&path), 0o400);
        let (_dir, path) = dir_with_file(0o640);
        write(&path, b"new", Access::Inherited).expect("written");
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn a_link_stays_a_link_and_its_target_gets_the_content() {
        let (dir, path) = dir_with_file(0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("file", &link).expect("link");
        write(&link, b"new", Access::Private).expect("written");
        assert!(fs::symlink_metadata(&link).expect("exists").is_symlink());
        assert_eq!(fs::read(&path).expect("read"), b"new");
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink("elsewhere", &dangling).expect("link");
        write(&dangling, b"x", Access::Private).expect("written");
        assert!(dir.path().join("elsewhere").is_file());
    }

    #[test]
    fn nothing_but_the_file_is_left_behind() {
        let (dir, path) = dir_with_file(0o600);
        write(&path, b"new", Access::Private).expect("written");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn reading_stops_at_the_limit_and_at_what_is_no_file() {
        let (dir, path) = dir_with_file(0o600);
        assert_eq!(read_bounded(&path, 3).expect("fits"), b"old");
        let error = read_bounded(&path, 2).expect_err("too large");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .expect("pipe");
        let error = read_bounded(&pipe, 9).expect_err("a pipe would block");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

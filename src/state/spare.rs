//! Replacing a large file again and again: its content before the last one is kept
//! beside it, as `.<name>.spare`, and written over for the next.
//!
//! The system then neither looks for room nor gives any back, which is half the
//! cost of a rewrite. Invariant: as in [`super::atomic`], the name bears the old or
//! the new content, whole; a file is written over only after it was out of sight for
//! [`REST`], when whoever began to read it before is done.
//!
//! Nothing but one writer at a time may do this to a file: its lock is the caller's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

use super::atomic::{self, Access, Lasting};

/// Smaller files are replaced by new ones.
const LARGE: u64 = 1024 * 1024;

/// How long a replaced file is left alone.
const REST: Duration = Duration::from_millis(500);

/// Replaces the content of `path` by what `fill` writes, `size` bytes from the
/// start of the file it is given, and waits until that is on the disk. Gives the
/// new file; `None` when its content had to be put into the old one.
///
/// # Errors
/// As the system calls, and those of `fill`; the old file is whole then.
pub fn replace(
    path: &Path,
    access: Access,
    size: u64,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> io::Result<Option<File>> {
    replace_after(REST, path, access, size, fill)
}

fn replace_after(
    rest: Duration,
    path: &Path,
    access: Access,
    size: u64,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> io::Result<Option<File>> {
    let target = atomic::link_target(path)?;
    let spare = beside(&target);
    let old = fs::metadata(&target).ok().filter(|_| size >= LARGE);
    let Some(old) = old else {
        // One of a larger file, or of none.
        let _ = fs::remove_file(&spare);
        return atomic::replace_with(path, access, Lasting::Name, fill);
    };
    let exchanged = open(&spare, rest).and_then(|mut file| {
        // Before anything private is in it.
        atomic::keep_owner_and_mode(&file, &old, access.mode(Some(&old)));
        write(&mut file, size, fill)?;
        renameat_with(CWD, &spare, CWD, &target, RenameFlags::EXCHANGE)?;
        Ok(file)
    });
    match exchanged {
        Ok(file) => {
            atomic::sync_dir(atomic::directory(&target))?;
            Ok(Some(file))
        }
        // Half of it may be written, or the two cannot be exchanged here: network
        // file systems, a single file mounted into a container.
        Err(_) => {
            let _ = fs::remove_file(&spare);
            atomic::replace_with(path, access, Lasting::Name, fill)
        }
    }
}

fn write(
    file: &mut File,
    size: u64,
    fill: &mut dyn FnMut(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // Before it is filled, for that may set the time of the last change.
    if file.metadata()?.len() > size {
        file.set_len(size)?;
    }
    fill(file)?;
    if file.stream_position()? != size {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.sync_data()
}

fn beside(target: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".spare");
    target.with_file_name(name)
}

/// The spare file, or a new one in its place.
fn open(spare: &Path, rest: Duration) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let nofollow = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    if let Ok(file) = options.clone().custom_flags(nofollow).open(spare)
        && file.metadata().is_ok_and(|meta| is_free(&meta, rest))
    {
        return Ok(file);
    }
    match fs::remove_file(spare) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => options.create_new(true).open(spare),
    }
}

/// Whether nobody else has the content and nobody reads it any more.
fn is_free(meta: &fs::Metadata, rest: Duration) -> bool {
    let seconds = Duration::from_secs(meta.ctime().unsigned_abs());
    let changed = SystemTime::UNIX_EPOCH + seconds;
    let nanoseconds = Duration::from_nanos(meta.ctime_nsec().unsigned_abs());
    let since = SystemTime::now().duration_since(changed + nanoseconds);
    meta.is_file() && meta.nlink() == 1 && since.is_ok_and(|since| since >= rest)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Longer than any test.
    const LONG: Duration = Duration::from_secs(3600);

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        /// A large file of `byte`.
        fn new(byte: u8) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let new = Self { dir };
            new.replace(LONG, byte, LARGE);
            new
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("large")
        }

        fn spare(&self) -> PathBuf {
            self.dir.path().join(".large.spare")
        }

        fn replace(&self, rest: Duration, byte: u8, size: u64) {
            let content = vec![byte; usize::try_from(size).expect("a size")];
            let fill = &mut |file: &mut File| file.write_all(&content);
            let done = replace_after(rest, &self.path(), Access::Private, size, fill);
            assert!(done.expect("written").is_some());
        }

        fn holds(&self, byte: u8, size: u64) -> bool {
            let content = fs::read(self.path()).expect("read");
            content.len() as u64 == size && content.iter().all(|found| *found == byte)
        }

        fn inode(path: &Path) -> u64 {
            fs::metadata(path).expect("there").ino()
        }
    }

    #[test]
    fn two_files_take_turns_and_the_name_has_the_new_content() {
        let it = Fixture::new(b'a');
        assert!(!it.spare().exists(), "there was nothing to keep");
        let first = Fixture::inode(&it.path());
        it.replace(Duration::ZERO, b'b', LARGE + 5);
        assert!(it.holds(b'b', LARGE + 5));
        assert_eq!(Fixture::inode(&it.spare()), first);
        it.replace(Duration::ZERO, b'c', LARGE + 9);
        assert!(it.holds(b'c', LARGE + 9));
        assert_eq!(Fixture::inode(&it.path()), first);
        it.replace(Duration::ZERO, b'd', LARGE);
        assert!(it.holds(b'd', LARGE));
        let mode = fs::metadata(it.path()).expect("there").mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn who_has_the_old_file_open_reads_it_to_its_end() {
        let it = Fixture::new(b'a');
        it.replace(LONG, b'b', LARGE);
        let mut reader = File::open(it.path()).expect("opened");
        it.replace(LONG, b'c', LARGE);
        it.replace(LONG, b'd', LARGE);
        let mut found = Vec::new();
        reader.read_to_end(&mut found).expect("read");
        assert!(found.len() as u64 == LARGE && found.iter().all(|byte| *byte == b'b'));
        assert!(it.holds(b'd', LARGE));
    }

    #[test]
    fn a_copy_that_shares_the_old_file_stays_as_it_is() {
        let it = Fixture::new(b'a');
        let backup = it.dir.path().join("backup");
        fs::hard_link(it.path(), &backup).expect("linked");
        it.replace(Duration::ZERO, b'b', LARGE);
        it.replace(Duration::ZERO, b'c', LARGE);
        assert!(
            fs::read(&backup)
                .expect("read")
                .iter()
                .all(|byte| *byte == b'a')
        );
        assert!(it.holds(b'c', LARGE));
    }

    #[test]
    fn a_link_in_place_of_the_spare_file_is_not_followed() {
        let it = Fixture::new(b'a');
        let other = it.dir.path().join("other");
        fs::write(&other, "kept").expect("written");
        std::os::unix::fs::symlink(&other, it.spare()).expect("linked");
        it.replace(Duration::ZERO, b'b', LARGE);
        assert_eq!(fs::read(&other).expect("read"), b"kept");
        assert!(it.holds(b'b', LARGE));
    }

    #[test]
    fn a_small_file_has_no_spare() {
        let it = Fixture::new(b'a');
        it.replace(Duration::ZERO, b'b', LARGE);
        assert!(it.spare().exists());
        it.replace(Duration::ZERO, b'c', 3);
        assert!(!it.spare().exists() && it.holds(b'c', 3));
    }

    #[test]
    fn what_cannot_be_filled_leaves_the_old_file_and_nothing_else() {
        let it = Fixture::new(b'a');
        let fill = &mut |file: &mut File| {
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = replace(&it.path(), Access::Private, LARGE, fill).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(it.holds(b'a', LARGE));
        assert_eq!(fs::read_dir(it.dir.path()).expect("listed").count(), 1);
    }
}

//! Stretches of one file, appended to another.
//!
//! Where it can, the kernel hands over whole pages through a large pipe. It would
//! do so by itself (`copy_file_range`), but in pieces of 64 KiB, and a stretch that
//! starts elsewhere in a page than it shall is then written in small ones.
//! Invariant: all of a stretch is appended, or there is an error.

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Bytes in the pipe: what anybody may ask for (`fs.pipe-max-size`).
const PIPE_BYTES: usize = 1024 * 1024;

/// Bytes read at once where the kernel cannot.
const BUFFER_BYTES: usize = 256 * 1024;

/// Appends stretches.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    pipe: Option<(OwnedFd, OwnedFd)>,
}

impl Carrier {
    /// Appends the bytes of `range` in `old` to `new`.
    ///
    /// # Errors
    /// As for reading and writing; `UnexpectedEof` when `old` ends before `range` does.
    pub(super) fn append(
        &mut self,
        old: &File,
        mut range: Range<u64>,
        new: &mut File,
    ) -> io::Result<()> {
        if let Some((out, into)) = self.pipe() {
            while range.start < range.end {
                match hand_over(old, &mut range, new, out, into) {
                    Ok(true) => {}
                    // Nothing came: by way of this process, which says why.
                    Ok(false) => break,
                    Err(error) => {
                        // What is left in it belongs nowhere.
                        self.pipe = None;
                        return Err(error);
                    }
                }
            }
        }
        by_hand(old, range, new)
    }

    fn pipe(&mut self) -> Option<&(OwnedFd, OwnedFd)> {
        if self.pipe.is_none() {
            let pipe = pipe_with(PipeFlags::CLOEXEC).ok()?;
            // A smaller one does as well, in more steps.
            let _ = fcntl_setpipe_size(&pipe.1, PIPE_BYTES);
            self.pipe = Some(pipe);
        }
        self.pipe.as_ref()
    }
}

/// One step; `false` when the kernel cannot read `old` in this way, or it ends.
fn hand_over(
    old: &File,
    range: &mut Range<u64>,
    new: &mut File,
    out: &OwnedFd,
    into: &OwnedFd,
) -> io::Result<bool> {
    let left = length(range).min(PIPE_BYTES);
    let mut start = range.start;
    let mut taken = match splice(old, Some(&mut start), into, None, left, SpliceFlags::MOVE) {
        Ok(0) => return Ok(false),
        Ok(taken) => taken,
        Err(rustix::io::Errno::INTR) => return Ok(true),
        Err(_) => return Ok(false),
    };
    while taken > 0 {
        match splice(out, None, &mut *new, None, taken, SpliceFlags::MOVE) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(given) => {
                taken -= given;
                range.start += given as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn by_hand(old: &File, mut range: Range<u64>, new: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; length(&range).min(BUFFER_BYTES)];
    while range.start < range.end {
        let part = length(&range).min(BUFFER_BYTES);
        let part = &mut buffer[..part];
        old.read_exact_at(part, range.start)?;
        new.write_all(part)?;
        range.start += part.len() as u64;
    }
    Ok(())
}

fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    fn text(length: u32) -> Vec<u8> {
        let mut seed = 1_u32;
        let next = |_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0]
        };
        (0..length).map(next).collect()
    }

    /// Longer than the pipe, at places that are no borders of pages.
    #[test]
    fn stretches_come_over_whole_and_in_order_by_both_ways() {
        let text = text(3_500_000);
        let mut old = tempfile::tempfile().expect("a file");
        old.write_all(&text).expect("written");
        let ranges = [
            5..2_700_001_u64,
            2_700_001..2_700_001,
            1..2,
            4097..3_500_000,
        ];
        let mut expected = b"new".to_vec();
        for range in &ranges {
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("at"));
            expected.extend_from_slice(&text[start..end]);
        }
        let mut carrier = Carrier::default();
        for way in 0..2 {
            let mut new = tempfile::tempfile().expect("a file");
            new.write_all(b"new").expect("written");
            for range in &ranges {
                match way {
                    0 => carrier.append(&old, range.clone(), &mut new),
                    _ => by_hand(&old, range.clone(), &mut new),
                }
                .expect("appended");
            }
            let mut found = Vec::new();
            new.rewind().expect("rewound");
            new.read_to_end(&mut found).expect("read");
            assert!(found == expected, "way {way}");
        }
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_is_an_error() {
        let mut old = tempfile::tempfile().expect("a file");
        old.write_all(b"short").expect("written");
        let mut new = tempfile::tempfile().expect("a file");
        let error = Carrier::default().append(&old, 2..9, &mut new);
        let error = error.expect_err("it ends at 5");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error_and_the_next_one_gets_nothing_of_it() {
        let mut old = tempfile::NamedTempFile::new().expect("a file");
        old.write_all(b"0123456789").expect("written");
        let mut full = File::open(old.path()).expect("for reading only");
        let mut carrier = Carrier::default();
        let refused = carrier.append(old.as_file(), 0..5, &mut full);
        refused.expect_err("it is open for reading only");
        let mut new = tempfile::tempfile().expect("a file");
        let done = carrier.append(old.as_file(), 5..10, &mut new);
        done.expect("appended");
        let mut found = String::new();
        new.rewind().expect("rewound");
        new.read_to_string(&mut found).expect("read");
        assert_eq!(found, "56789");
    }
}

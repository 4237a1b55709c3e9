//! The kernel's news of directories (inotify); none on other systems.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// A watched directory, as the kernel calls it.
pub(super) type Watched = i32;

/// One piece of news.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// An entry of a directory changed, or with `None` the directory itself.
    Changed(Watched, Option<OsString>),
    /// Something was missed.
    Lost,
}

#[cfg(target_os = "linux")]
pub(super) use linux::Inotify;

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::Arc;

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use tokio::net::unix::pipe::Receiver;

    use super::{News, Path, Watched, io};

    /// Room for a good many events; one takes 16 bytes and its name.
    const BUFFER: usize = 8 * 1024;
    /// Of an event, before its name.
    const HEADER: usize = 16;

    /// An open handle. Closing it ends all its watches.
    #[derive(Clone, Debug)]
    pub(in super::super) struct Inotify(Arc<Receiver>);

    impl Inotify {
        /// Needs a runtime.
        pub(in super::super) fn new() -> io::Result<Self> {
            let handle = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            // To the runtime it is like a pipe: readable, non-blocking.
            Ok(Self(Arc::new(Receiver::from_owned_fd_unchecked(handle)?)))
        }

        /// Watches a directory; the same number when it is watched already.
        /// Blocks as long as the disk takes to find it.
        pub(in super::super) fn add(&self, directory: &Path) -> io::Result<Watched> {
            let flags = WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            Ok(inotify::add_watch(self.0.as_fd(), directory, flags)?)
        }

        /// Ends the watch of a directory.
        pub(in super::super) fn remove(&self, watched: Watched) {
            // One that the kernel dropped with its directory is gone already.
            let _ = inotify::remove_watch(self.0.as_fd(), watched);
        }

        /// Waits for news. Cancel-safe.
        pub(in super::super) async fn next(&self) -> io::Result<Vec<News>> {
            let mut buffer = vec![0; BUFFER];
            loop {
                self.0.readable().await?;
                match self.0.try_read(&mut buffer) {
                    Ok(read) => return Ok(parse(&buffer[..read])),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Events one after the other: watch, mask, cookie, length of the name, name.
    fn parse(mut bytes: &[u8]) -> Vec<News> {
        let mut news = Vec::new();
        while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
            let word = |at: usize| {
                let mut word = [0; 4];
                word.copy_from_slice(&header[at..at + 4]);
                u32::from_ne_bytes(word)
            };
            let length = usize::try_from(word(12)).unwrap_or(usize::MAX);
            let Some((name, rest)) = rest.split_at_checked(length) else {
                break;
            };
            bytes = rest;
            let mask = word(4);
            let is = |flag: ReadFlags| mask & flag.bits() != 0;
            if is(ReadFlags::QUEUE_OVERFLOW) {
                news.push(News::Lost);
            } else if !is(ReadFlags::IGNORED) {
                // Names are filled up with NUL bytes.
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = (!name.is_empty()).then(|| OsStr::from_bytes(name).to_owned());
                news.push(News::Changed(word(0).cast_signed(), name));
            }
        }
        news
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn events_are_read_one_after_the_other() {
            let event = |watched: i32, mask: u32, name: &[u8]| {
                let length = u32::try_from(name.len()).unwrap();
                let mut bytes = watched.to_ne_bytes().to_vec();
                for word in [mask, 0, length] {
                    bytes.extend(word.to_ne_bytes());
                }
                bytes.extend(name);
                bytes
            };
            let mut bytes = event(1, ReadFlags::MODIFY.bits(), b"name\0\0\0\0");
            bytes.extend(event(2, ReadFlags::IGNORED.bits(), b""));
            bytes.extend(event(-1, ReadFlags::QUEUE_OVERFLOW.bits(), b""));
            bytes.extend(event(3, ReadFlags::DELETE_SELF.bits(), b""));
            bytes.extend(&event(4, 2, b"torn")[..18]);
            let changed =
                |watched, name: Option<&str>| News::Changed(watched, name.map(Into::into));
            assert_eq!(
                parse(&bytes),
                [changed(1, Some("name")), News::Lost, changed(3, None)]
            );
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Clone, Debug)]
pub(super) enum Inotify {}

#[cfg(not(target_os = "linux"))]
impl Inotify {
    pub(super) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn add(&self, _: &Path) -> io::Result<Watched> {
        match *self {}
    }

    pub(super) fn remove(&self, _: Watched) {
        match *self {}
    }

    pub(super) async fn next(&self) -> io::Result<Vec<News>> {
        match *self {}
    }
}

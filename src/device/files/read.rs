//! `read_file`: a whole file, as text or as base64 (06 §3.6).
//!
//! Invariant: a file is held in memory once, as part of the answer (a text
//! also while it is decoded), and at most one large answer is under way.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::device::call::{Call, Failure, Written};
use crate::protocol::fields::ShapeError;
use crate::tools::disk::{self, FileError};
use crate::tools::text::decode;

/// The largest file, in bytes.
const MAX_BYTES: u64 = 25 * 1024 * 1024;
/// A larger file makes an answer that is paced.
const LARGE: u64 = 256 * 1024;
/// Control characters make a text up to six times longer; not beyond this.
const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Read at once: a multiple of three, so that pieces of base64 join.
const PIECE: usize = 48 * 1024;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Base64,
}

/// Reads a file.
pub(in crate::device) async fn read_file(mut call: Call) -> Written {
    let fields = &mut call.fields;
    let id = fields.string("request_id")?;
    let path = fields.string("path")?;
    let (encoding, name) = match fields.optional_string("encoding") {
        Ok(None) => (Encoding::Utf8, "utf8"),
        Ok(Some(name)) if name == "utf8" => (Encoding::Utf8, "utf8"),
        Ok(Some(name)) if name == "base64" => (Encoding::Base64, "base64"),
        _ => {
            let error = ShapeError::new("encoding", "utf8 or base64");
            return Err(Failure::from(error)
                .with("path", path)
                .with("encoding", "utf8"));
        }
    };
    let failed = |failure: Failure| failure.with("path", path.as_str()).with("encoding", name);
    let read = async {
        let place = PathBuf::from(&path);
        let size = call.shared.quick(move || size(&place)).await?;
        let permit = match size > LARGE {
            true => Some(call.shared.large().await?),
            false => None,
        };
        // Everything but the content, whose place is between the two parts.
        let head = json!({"type": "read_file_response", "request_id": id, "path": path});
        let mut frame = head.to_string();
        frame.pop();
        frame.push_str(r#","content":"#);
        let tail = format!(r#","encoding":"{name}","success":true}}"#);
        let place = PathBuf::from(&path);
        let work = move || write(frame, &place, encoding, &tail, permit);
        call.shared.quick(work).await
    };
    read.await.map_err(failed)
}

fn size(path: &Path) -> Result<u64, Failure> {
    let (_, metadata) = disk::open(path).map_err(failure)?;
    Ok(metadata.len())
}

fn write(
    mut frame: String,
    path: &Path,
    encoding: Encoding,
    tail: &str,
    permit: Option<OwnedSemaphorePermit>,
) -> Written {
    match encoding {
        Encoding::Base64 => base64(&mut frame, path, tail.len())?,
        Encoding::Utf8 => {
            let (bytes, _) = disk::read(path, MAX_BYTES).map_err(failure)?;
            let text = decode(bytes, path).map_err(|error| Failure::new(error.to_string()))?;
            frame.reserve(text.len() + text.len() / 16 + tail.len() + 2);
            let mut bytes = Bounded(frame.into_bytes());
            let written = serde_json::to_writer(&mut bytes, &text);
            drop(text);
            let text = written.ok().and_then(|()| String::from_utf8(bytes.0).ok());
            frame = text.ok_or_else(too_large)?;
        }
    }
    frame.push_str(tail);
    Ok((frame, permit))
}

/// Appends a file piece by piece.
fn base64(frame: &mut String, path: &Path, tail: usize) -> Result<(), Failure> {
    let (mut file, metadata) = disk::open(path).map_err(failure)?;
    let size = metadata.len();
    if size > MAX_BYTES {
        return Err(too_large_for_base64());
    }
    let encoded = usize::try_from(size).unwrap_or(0).div_ceil(3) * 4;
    frame.reserve_exact(encoded + tail + 2);
    frame.push('"');
    let mut piece = vec![0; PIECE];
    let mut all = 0;
    loop {
        let length = fill(&mut file, &mut piece)
            .map_err(|error| Failure::new(super::at_path(&error, path)))?;
        all += length as u64;
        // A file that grows while it is read, or does not tell its size.
        if all > MAX_BYTES {
            return Err(too_large_for_base64());
        }
        STANDARD.encode_string(&piece[..length], frame);
        if length < PIECE {
            break;
        }
    }
    frame.push('"');
    Ok(())
}

/// Reads until `piece` is full or the file ends.
fn fill(file: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < piece.len() {
        match file.read(&mut piece[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn failure(error: FileError) -> Failure {
    match error {
        FileError::TooLarge { .. } => too_large(),
        error => Failure::new(error.to_string()),
    }
}

fn too_large() -> Failure {
    Failure::new("File too large to read as text (max 25MB)")
}

fn too_large_for_base64() -> Failure {
    Failure::new("File too large for base64 read (max 25MB)")
}

/// Bytes of a frame that must not grow without end.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_FRAME {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

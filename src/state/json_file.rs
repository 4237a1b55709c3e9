//! A JSON object on disk that several programs edit (spec 01 §4.1).
//!
//! Key order and unknown keys survive. The form is the published program's:
//! two spaces of indent, no final newline. A file that is not an object is
//! copied aside before it is replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::atomic::{self, Access, READ_LIMIT};
use crate::protocol::time::iso_millis;

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// No such file.
    Missing,
    /// An object.
    Object(Map<String, Value>),
    /// Something else, with the reason.
    Corrupt(String),
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JsonFileError {
    /// It exists and cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written, or not be set aside before.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads an object of at most [`READ_LIMIT`] bytes.
///
/// # Errors
/// Only when the file exists and cannot be read.
pub fn read(path: &Path) -> Result<Found, JsonFileError> {
    match atomic::read_bounded(path, READ_LIMIT) {
        Ok(bytes) => Ok(parse(&bytes)),
        Err(source)
            if source.kind() == io::ErrorKind::NotFound
                || source.kind() == io::ErrorKind::NotADirectory =>
        {
            Ok(Found::Missing)
        }
        Err(source) => Err(JsonFileError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Sorts bytes into object and garbage.
pub(super) fn parse(bytes: &[u8]) -> Found {
    // Editors on Windows put a byte order mark in front.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Found::Object(object),
        Ok(_) => Found::Corrupt("not a JSON object".to_owned()),
        // The position only: the text of the error could quote a secret.
        Err(error) => Found::Corrupt(format!(
            "invalid JSON in line {}, column {}",
            error.line(),
            error.column()
        )),
    }
}

/// Replaces the file.
///
/// # Errors
/// When it cannot be written; the old content is whole then.
pub fn write(
    path: &Path,
    object: &Map<String, Value>,
    access: Access,
) -> Result<(), JsonFileError> {
    let failed = |source| JsonFileError::Write {
        path: path.to_owned(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(object).map_err(|error| failed(error.into()))?;
    atomic::write(path, &bytes, access).map_err(failed)
}

/// Copies a corrupt file to `<path>.corrupt-<time>`, 0600, and says where.
///
/// # Errors
/// When the copy cannot be made; the file must not be replaced then.
pub fn set_aside(path: &Path) -> Result<PathBuf, JsonFileError> {
    let failed = |source| JsonFileError::Write {
        path: path.to_owned(),
        source,
    };
    let stamp = iso_millis(SystemTime::now()).replace([':', '.'], "-");
    let mut copy = path.as_os_str().to_owned();
    copy.push(format!(".corrupt-{stamp}"));
    let copy = PathBuf::from(copy);
    let bytes = fs::read(path).map_err(failed)?;
    atomic::write(&copy, &bytes, Access::Private).map_err(failed)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_unknown_keys_survive_in_the_published_form() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s.json");
        let text = "{\n  \"z\": 1,\n  \"a\": [],\n  \"m\": {\n    \"x\": null\n  }\n}";
        fs::write(&path, text).expect("written");
        let Found::Object(object) = read(&path).expect("readable") else {
            panic!("an object");
        };
        write(&path, &object, Access::Private).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }

    #[test]
    fn garbage_is_told_from_absence_and_never_quoted() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("s.json");
        assert!(matches!(read(&path), Ok(Found::Missing)));
        for bad in ["", "null", "[]", "{\"LETTA_API_KEY\": sk-secret}"] {
            fs::write(&path, bad).expect("written");
            match read(&path) {
                Ok(Found::Corrupt(why)) => assert!(!why.contains("secret"), "{why}"),
                other => panic!("{bad} gave {other:?}"),
            }
        }
    }
}

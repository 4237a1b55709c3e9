//! The API key from outside: environment, named file, systemd credential
//! (00 §5). The saved login lives in [`UserSettings`](super::UserSettings).

use std::io;
use std::path::{Path, PathBuf};

use super::atomic::read_bounded;
use crate::config::{CredentialSources, Secret};

/// Keys are some hundred bytes; whatever is larger is another file.
const KEY_LIMIT: u64 = 64 * 1024;

/// A key was promised and cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file cannot be read.
    #[error("cannot read the API key from {path} (named by {variable}): {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The variable that names it.
        variable: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It holds nothing that can be a header value.
    #[error(
        "{path} (named by {variable}) does not hold an API key: expected one line of printable ASCII"
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// The variable that names it.
        variable: &'static str,
    },
}

/// The key given from outside, or `None` when the saved login decides. Blocking.
///
/// # Errors
/// A file named by `LETTA_API_KEY_FILE` that is missing or holds no key: a
/// wrong secret mount must not fall back to another account.
pub fn given_api_key(sources: &CredentialSources) -> Result<Option<Secret>, CredentialError> {
    if let Some(key) = &sources.api_key {
        return Ok(Some(key.clone()));
    }
    if let Some(path) = &sources.api_key_file {
        return read_key(path, "LETTA_API_KEY_FILE").map(Some);
    }
    let Some(directory) = &sources.credentials_directory else {
        return Ok(None);
    };
    // systemd sets the variable for any credential: ours may not be among them.
    match read_key(&directory.join("letta-api-key"), "CREDENTIALS_DIRECTORY") {
        Err(CredentialError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn read_key(path: &Path, variable: &'static str) -> Result<Secret, CredentialError> {
    let bytes = read_bounded(path, KEY_LIMIT).map_err(|source| CredentialError::Read {
        path: path.to_owned(),
        variable,
        source,
    })?;
    let key = bytes.trim_ascii();
    match std::str::from_utf8(key) {
        Ok(text) if !key.is_empty() && key.iter().all(u8::is_ascii_graphic) => {
            Ok(Secret::new(text))
        }
        _ => Err(CredentialError::NotAKey {
            path: path.to_owned(),
            variable,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_then_named_file_then_systemd_credential() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("key");
        std::fs::write(&file, "from-file\n").expect("written");
        std::fs::write(dir.path().join("letta-api-key"), "from-systemd").expect("written");
        let mut sources = CredentialSources {
            api_key: Some(Secret::new("from-env")),
            api_key_file: Some(file),
            credentials_directory: Some(dir.path().to_owned()),
        };
        let key = |sources: &CredentialSources| {
            let key = given_api_key(sources).expect("readable");
            key.map(|key| key.expose().to_owned())
        };
        assert_eq!(key(&sources).as_deref(), Some("from-env"));
        sources.api_key = None;
        assert_eq!(key(&sources).as_deref(), Some("from-file"));
        sources.api_key_file = None;
        assert_eq!(key(&sources).as_deref(), Some("from-systemd"));
        sources.credentials_directory = Some(dir.path().join("other"));
        assert_eq!(key(&sources), None);
    }

    #[test]
    fn a_named_file_without_a_key_is_an_error_that_does_not_quote_it() {
        let dir = tempfile::tempdir().expect("temp dir");
        let file = dir.path().join("key");
        let sources = CredentialSources {
            api_key_file: Some(file.clone()),
            ..CredentialSources::default()
        };
        assert!(matches!(
            given_api_key(&sources),
            Err(CredentialError::Read { .. })
        ));
        for bad in ["", " \n", "two lines\nsecret", "sécret"] {
            std::fs::write(&file, bad).expect("written");
            let error = given_api_key(&sources).expect_err("no key");
            assert!(error.to_string().contains("LETTA_API_KEY_FILE"));
            assert!(!error.to_string().contains("cret"), "{error}");
        }
    }
}

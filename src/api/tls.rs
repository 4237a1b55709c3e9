//! The one TLS configuration of the process: HTTP and WebSocket alike (00 §5).
//!
//! Invariant: the ring provider is passed explicitly and the built-in roots are
//! always trusted; `SSL_CERT_FILE`, `SSL_CERT_DIR` and `LETTA_EXTRA_CA_FILE` add
//! to them. Only HTTP/1.1 is offered: the upgrade needs it, and one connection
//! per stream is what a handful of conversations wants.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// The longest CA file that is read, in bytes.
const MAX_CA_FILE: u64 = 16 * 1024 * 1024;

/// Files with further roots, all PEM.
#[derive(Clone, Debug, Default)]
pub struct CaFiles {
    /// `SSL_CERT_FILE`: skipped with a warning when unusable, as OpenSSL does.
    pub cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: directories with one or more certificates per file.
    pub cert_dirs: Vec<PathBuf>,
    /// `LETTA_EXTRA_CA_FILE`: must be usable.
    pub extra: Option<PathBuf>,
}

/// Why there is no TLS configuration.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The extra CA file cannot be used.
    #[error("LETTA_EXTRA_CA_FILE {}: {reason}. Name a PEM file with CA certificates.", path.display())]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The TLS library refused its own settings.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// Builds the configuration. Reads the named files: call it at start-up.
///
/// # Errors
/// When `LETTA_EXTRA_CA_FILE` cannot be read or holds no certificate.
pub fn client_config(files: &CaFiles) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = &files.cert_file {
        match read_certificates(path) {
            Ok(found) => _ = roots.add_parsable_certificates(found),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "SSL_CERT_FILE is not usable; going on without it");
            }
        }
    }
    for dir in &files.cert_dirs {
        add_directory(&mut roots, dir);
    }
    if let Some(path) = &files.extra {
        let unusable = |reason: String| TlsError::ExtraCa {
            path: path.clone(),
            reason,
        };
        let found = read_certificates(path).map_err(|error| unusable(error.to_string()))?;
        let (added, _) = roots.add_parsable_certificates(found);
        if added == 0 {
            return Err(unusable("no certificate in it".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn add_directory(roots: &mut RootCertStore, dir: &Path) {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(path = %dir.display(), %error, "SSL_CERT_DIR is not usable; going on without it");
            return;
        }
    };
    for entry in entries.flatten() {
        // Such directories hold links, bundles and README files: what is no certificate is passed over.
        if let Ok(found) = read_certificates(&entry.path()) {
            roots.add_parsable_certificates(found);
        }
    }
}

fn read_certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.len() > MAX_CA_FILE {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    let pem = std::fs::read(path)?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| io::Error::other(format!("not PEM: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        rcgen::generate_simple_self_signed(["ca.test".to_owned()])
            .unwrap()
            .cert
            .pem()
    }

    #[test]
    fn an_extra_ca_file_that_is_missing_or_empty_is_an_error_naming_it() {
        let dir = tempfile::tempdir().unwrap();
        let missing = CaFiles {
            extra: Some(dir.path().join("none.pem")),
            ..CaFiles::default()
        };
        let text = client_config(&missing).unwrap_err().to_string();
        assert!(text.contains("LETTA_EXTRA_CA_FILE") && text.contains("none.pem"));

        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "no certificates here").unwrap();
        let empty = CaFiles {
            extra: Some(empty),
            ..CaFiles::default()
        };
        let text = client_config(&empty).unwrap_err().to_string();
        assert!(text.contains("no certificate"), "{text}");
    }

    #[test]
    fn system_variables_that_lead_nowhere_do_not_stop_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let files = CaFiles {
            cert_file: Some(dir.path().join("none.pem")),
            cert_dirs: vec![dir.path().join("nowhere")],
            extra: None,
        };
        assert!(client_config(&files).is_ok());
    }

    #[test]
    fn only_http_1_1_is_offered() {
        let config = client_config(&CaFiles::default()).unwrap();
        assert_eq!(config.alpn_protocols, [b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_certificate_directory_is_read_whatever_else_lies_in_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("README"), "words").unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("one.pem"), pem() + &pem()).unwrap();
        let mut roots = RootCertStore::empty();
        add_directory(&mut roots, dir.path());
        assert_eq!(roots.roots.len(), 2);
    }
}

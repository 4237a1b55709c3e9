//! `letta server --listen`: the address and the authentication of the direct
//! door, as the command line gives them (spec 02 §12.1).
//!
//! Reading flags touches no file; [`AuthFlags::load`] reads the secrets, once,
//! when the server starts.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Secret;

/// Largest file of a token or secret that is read.
const SECRET_BYTES: u64 = 64 * 1024;

/// Shortest key for signed tokens, in bytes.
const SHORTEST_KEY: usize = 32;

/// What `--listen` and the flags beside it ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectFlags {
    /// Where to listen.
    pub listen: ListenUrl,
    /// How clients prove who they are; `None` on this machine only.
    pub auth: Option<AuthFlags>,
    /// `--openai-api`.
    pub openai_api: bool,
    /// `--ui`.
    pub ui: bool,
}

/// The parts of `ws://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// Lower-case, IPv6 addresses with their brackets.
    pub host: String,
    /// 0 = any free port.
    pub port: u16,
    /// Where WebSockets are opened: `/ws` unless the URL names a path.
    pub path: String,
}

/// `--ws-auth` with the flags of its mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthFlags {
    /// One token that every client sends.
    Capability(TokenSource),
    /// JWTs signed with a shared secret.
    Signed {
        /// Absolute path of the file with the secret.
        secret_file: PathBuf,
        /// `iss` that tokens must have.
        issuer: Option<String>,
        /// `aud` that tokens must have.
        audience: Option<String>,
        /// How far clocks may differ, in seconds.
        max_skew: u64,
    },
}

/// Where the capability token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// Absolute path of the file with the token.
    File(PathBuf),
    /// The SHA-256 digest of the token.
    Digest([u8; 32]),
}

/// The secrets behind [`AuthFlags`], read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthSecrets {
    /// The token itself.
    Token(Secret),
    /// The SHA-256 digest of the token.
    Digest([u8; 32]),
    /// The key of signed tokens, and what their claims must say.
    Key {
        /// The text of the secret file.
        key: Secret,
        /// `iss` that tokens must have.
        issuer: Option<String>,
        /// `aud` that tokens must have.
        audience: Option<String>,
        /// How far clocks may differ, in seconds.
        max_skew: u64,
    },
}

/// Why the flags of the direct door were refused. Texts as of the published program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum DirectError {
    #[error("--listen may only be specified once")]
    ListenTwice,
    #[error("--listen= requires a URL; use bare --listen for an available loopback port")]
    ListenEmpty,
    #[error("{0} cannot be used with --listen")]
    Conflict(&'static str),
    #[error("{0} requires --listen")]
    NeedsListen(&'static str),
    #[error("Invalid app-server listen URL: {0}")]
    InvalidUrl(String),
    #[error("app-server MVP only supports ws:// listen URLs")]
    Scheme,
    #[error("app-server listen URL cannot include auth, query, or hash")]
    UrlParts,
    #[error("app-server listen URL must include a valid port")]
    Port,
    #[error(
        "refusing to start non-loopback websocket listener {0} without auth; configure `--ws-auth capability-token` or `--ws-auth signed-bearer-token`"
    )]
    OpenToAll(String),
    #[error(
        "websocket auth flags require `--ws-auth capability-token` or `--ws-auth signed-bearer-token`"
    )]
    NoMode,
    #[error(
        "unsupported --ws-auth mode \"{0}\"; expected \"capability-token\" or \"signed-bearer-token\""
    )]
    Mode(String),
    #[error(
        "`--ws-token-file` or `--ws-token-sha256` is required when `--ws-auth capability-token` is set"
    )]
    NoToken,
    #[error("`--ws-token-file` and `--ws-token-sha256` are mutually exclusive")]
    TwoTokens,
    #[error("`--ws-shared-secret-file` is required when `--ws-auth signed-bearer-token` is set")]
    NoSecret,
    #[error(
        "`--ws-shared-secret-file`, `--ws-issuer`, `--ws-audience`, and `--ws-max-clock-skew-seconds` require `--ws-auth signed-bearer-token`"
    )]
    NotSigned,
    #[error(
        "`--ws-token-file` and `--ws-token-sha256` require `--ws-auth capability-token`, not `signed-bearer-token`"
    )]
    NotCapability,
    #[error("{0} must be an absolute path")]
    RelativePath(&'static str),
    #[error("--ws-token-sha256 must be a 64-character hex SHA-256 digest")]
    Digest,
    #[error("--ws-max-clock-skew-seconds must be a non-negative integer")]
    Skew,
    #[error("failed to read websocket auth secret {0}: {1}")]
    Unreadable(String, String),
    #[error("websocket auth secret {0} must not be empty")]
    Empty(String),
    #[error("signed websocket bearer secret {0} must be at least 32 bytes")]
    Short(String),
}

/// The flags of the direct door as they stand on the line.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// `Some(None)` = bare `--listen`.
    pub(super) listen: Option<Option<String>>,
    pub(super) mode: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) token_sha256: Option<String>,
    pub(super) secret_file: Option<PathBuf>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    pub(super) max_skew: Option<String>,
    pub(super) openai_api: bool,
    pub(super) ui: bool,
}

impl Given {
    /// The checked flags; `None` without `--listen`.
    pub(super) fn check(self) -> Result<Option<DirectFlags>, DirectError> {
        let Some(listen) = &self.listen else {
            return match self.beside_listen() {
                Some(flag) => Err(DirectError::NeedsListen(flag)),
                None => Ok(None),
            };
        };
        let listen = ListenUrl::parse(listen.as_deref().unwrap_or("ws://127.0.0.1:0"))?;
        let (openai_api, ui) = (self.openai_api, self.ui);
        let auth = self.auth()?;
        if auth.is_none() && !listen.is_loopback() {
            return Err(DirectError::OpenToAll(listen.authority()));
        }
        Ok(Some(DirectFlags {
            listen,
            auth,
            openai_api,
            ui,
        }))
    }

    /// A flag that means nothing without `--listen`.
    fn beside_listen(&self) -> Option<&'static str> {
        [
            ("--ws-auth", self.mode.is_some()),
            ("--ws-token-file", self.token_file.is_some()),
            ("--ws-token-sha256", self.token_sha256.is_some()),
            ("--ws-shared-secret-file", self.secret_file.is_some()),
            ("--ws-issuer", self.issuer.is_some()),
            ("--ws-audience", self.audience.is_some()),
            ("--ws-max-clock-skew-seconds", self.max_skew.is_some()),
            ("--openai-api", self.openai_api),
            ("--ui", self.ui),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }

    fn auth(self) -> Result<Option<AuthFlags>, DirectError> {
        let token = self.token_file.is_some() || self.token_sha256.is_some();
        let signed = self.secret_file.is_some()
            || self.issuer.is_some()
            || self.audience.is_some()
            || self.max_skew.is_some();
        match self.mode.as_deref() {
            None if token || signed => Err(DirectError::NoMode),
            None => Ok(None),
            Some("capability-token") if signed => Err(DirectError::NotSigned),
            Some("capability-token") => match (self.token_file, self.token_sha256) {
                (None, None) => Err(DirectError::NoToken),
                (Some(_), Some(_)) => Err(DirectError::TwoTokens),
                (Some(file), None) => {
                    let file = absolute("--ws-token-file", file)?;
                    Ok(Some(AuthFlags::Capability(TokenSource::File(file))))
                }
                (None, Some(hex)) => {
                    let digest = digest(hex.trim()).ok_or(DirectError::Digest)?;
                    Ok(Some(AuthFlags::Capability(TokenSource::Digest(digest))))
                }
            },
            Some("signed-bearer-token") if token => Err(DirectError::NotCapability),
            Some("signed-bearer-token") => {
                let file = self.secret_file.ok_or(DirectError::NoSecret)?;
                let max_skew = match self.max_skew {
                    None => 30,
                    Some(text) => super::duration::whole_number(&text).ok_or(DirectError::Skew)?,
                };
                Ok(Some(AuthFlags::Signed {
                    secret_file: absolute("--ws-shared-secret-file", file)?,
                    issuer: self.issuer,
                    audience: self.audience,
                    max_skew,
                }))
            }
            Some(other) => Err(DirectError::Mode(other.to_owned())),
        }
    }
}

impl ListenUrl {
    fn parse(text: &str) -> Result<Self, DirectError> {
        let invalid = || DirectError::InvalidUrl(text.to_owned());
        let url = reqwest::Url::parse(text).map_err(|_| match without_port(text) {
            Some(rest) if reqwest::Url::parse(&rest).is_ok() => DirectError::Port,
            _ => invalid(),
        })?;
        if url.scheme() != "ws" {
            return Err(DirectError::Scheme);
        }
        let filled = |part: Option<&str>| part.is_some_and(|part| !part.is_empty());
        let user = !url.username().is_empty() || url.password().is_some();
        if user || filled(url.query()) || filled(url.fragment()) {
            return Err(DirectError::UrlParts);
        }
        let host = url.host_str().ok_or_else(invalid)?.to_ascii_lowercase();
        let path = match url.path() {
            "" | "/" => "/ws",
            path => path,
        };
        Ok(Self {
            host,
            port: url.port().unwrap_or(0),
            path: path.to_owned(),
        })
    }

    /// The host without the brackets of an IPv6 address.
    pub fn bare_host(&self) -> &str {
        let inner = self.host.strip_prefix('[');
        let inner = inner.and_then(|host| host.strip_suffix(']'));
        inner.unwrap_or(&self.host)
    }

    /// Whether only programs of this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        let host = self.bare_host();
        host == "localhost" || host == "::1" || host.starts_with("127.")
    }

    fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The URL without what stands behind the last colon of its host.
fn without_port(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, _) = authority.rsplit_once(':')?;
    Some(format!("{scheme}://{host}{path}"))
}

fn absolute(flag: &'static str, path: PathBuf) -> Result<PathBuf, DirectError> {
    match path.is_absolute() {
        true => Ok(path),
        false => Err(DirectError::RelativePath(flag)),
    }
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(digest)
}

impl AuthFlags {
    /// Reads the secrets.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, or is too short for a key.
    pub fn load(&self) -> Result<AuthSecrets, DirectError> {
        match self {
            Self::Capability(TokenSource::Digest(digest)) => Ok(AuthSecrets::Digest(*digest)),
            Self::Capability(TokenSource::File(file)) => {
                Ok(AuthSecrets::Token(Secret::new(read_secret(file)?)))
            }
            Self::Signed {
                secret_file,
                issuer,
                audience,
                max_skew,
            } => {
                let key = read_secret(secret_file)?;
                if key.len() < SHORTEST_KEY {
                    return Err(DirectError::Short(secret_file.display().to_string()));
                }
                Ok(AuthSecrets::Key {
                    key: Secret::new(key),
                    issuer: issuer.clone(),
                    audience: audience.clone(),
                    max_skew: *max_skew,
                })
            }
        }
    }
}

fn read_secret(path: &Path) -> Result<String, DirectError> {
    let shown = path.display().to_string();
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES).read_to_string(&mut text))
        .map_err(|error| DirectError::Unreadable(shown.clone(), error.to_string()))?;
    match text.trim() {
        "" => Err(DirectError::Empty(shown)),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{ServerCommand, parse_server};

    fn parse(line: &[&str]) -> Result<DirectFlags, String> {
        match parse_server(line.iter().map(OsString::from)) {
            Ok(ServerCommand::Run(flags)) => Ok(flags.direct.expect("--listen was given")),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    const OPEN: &str = "ws://0.0.0.0:4500";
    const CAPABILITY: [&str; 2] = ["--ws-auth", "capability-token"];
    const SIGNED: [&str; 2] = ["--ws-auth", "signed-bearer-token"];

    #[test]
    fn s02_12_1_every_cli_error_has_its_own_text() {
        let cases: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/direct-flags.json")).unwrap();
        let cases = cases.as_array().unwrap();
        assert!(cases.len() > 25);
        for case in cases {
            let line: Vec<&str> = case["line"]
                .as_array()
                .unwrap()
                .iter()
                .map(|word| word.as_str().unwrap())
                .collect();
            let error = parse(&line).expect_err("an error");
            assert_eq!(error, case["error"], "{line:?}");
        }
    }

    #[test]
    fn listen_takes_a_url_behind_it_after_an_equals_sign_or_none() {
        let loopback = |port, path: &str| ListenUrl {
            host: "127.0.0.1".into(),
            port,
            path: path.into(),
        };
        for (line, listen) in [
            (&["--listen"][..], loopback(0, "/ws")),
            (&["--listen", "--debug"], loopback(0, "/ws")),
            (&["--listen", "ws://127.0.0.1:4500"], loopback(4500, "/ws")),
            (&["--listen=ws://127.0.0.1:4500/"], loopback(4500, "/ws")),
            (&["--listen=ws://127.0.0.1:80"], loopback(0, "/ws")),
            (&["--listen=ws://127.0.0.1:9/a/b"], loopback(9, "/a/b")),
        ] {
            assert_eq!(parse(line).unwrap().listen, listen, "{line:?}");
        }
        for host in ["localhost", "LOCALHOST", "[::1]", "127.0.0.9"] {
            let url = format!("--listen=ws://{host}:1");
            assert!(parse(&[&url]).unwrap().listen.is_loopback(), "{host}");
        }
    }

    #[test]
    fn an_open_address_is_fine_with_either_kind_of_auth() {
        let hex = "AB".repeat(32);
        let line = ["--listen", OPEN, CAPABILITY[0], CAPABILITY[1]];
        let flags = parse(&[&line[..], &["--ws-token-sha256", &hex]].concat()).unwrap();
        let digest = TokenSource::Digest([0xab; 32]);
        assert_eq!(flags.auth, Some(AuthFlags::Capability(digest)));
        let line = ["--listen", OPEN, SIGNED[0], SIGNED[1]];
        let rest = [
            "--ws-shared-secret-file=/k",
            "--ws-issuer=i",
            "--ws-max-clock-skew-seconds=0",
        ];
        let Some(AuthFlags::Signed {
            max_skew, issuer, ..
        }) = parse(&[&line[..], &rest].concat()).unwrap().auth
        else {
            panic!("not signed");
        };
        assert_eq!((max_skew, issuer.as_deref()), (0, Some("i")));
    }

    #[test]
    fn secrets_are_trimmed_and_checked_when_the_server_starts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let shown = file.display();
        let token = AuthFlags::Capability(TokenSource::File(file.clone()));
        let signed = AuthFlags::Signed {
            secret_file: file.clone(),
            issuer: None,
            audience: None,
            max_skew: 30,
        };
        let error = token.load().unwrap_err().to_string();
        let wanted = format!("failed to read websocket auth secret {shown}: ");
        assert!(error.starts_with(&wanted), "{error}");
        std::fs::write(&file, " \n").unwrap();
        let error = token.load().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("websocket auth secret {shown} must not be empty")
        );
        std::fs::write(&file, "  short \n").unwrap();
        let secret = AuthSecrets::Token(Secret::new("short"));
        assert_eq!(token.load().unwrap(), secret);
        let error = signed.load().unwrap_err().to_string();
        assert_eq!(
            error,
            format!("signed websocket bearer secret {shown} must be at least 32 bytes")
        );
        std::fs::write(&file, "x".repeat(32)).unwrap();
        assert!(signed.load().is_ok());
    }
}

//! Who may come in: capability tokens and signed tokens (spec 02 §12.3).
//!
//! Invariant: no comparison with a secret ends earlier for a better guess, and
//! no text of a refusal says more than the published program's.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::{AuthSecrets, Secret};

/// SHA-256 works on blocks of this many bytes.
const BLOCK: usize = 64;

/// What lets a client in.
#[derive(Debug)]
pub(super) enum Auth {
    /// Everybody who can reach the port; only on loopback.
    Open,
    /// One token, known by its digest.
    Capability([u8; 32]),
    /// Tokens signed with a key.
    Signed(Signed),
}

/// What signed tokens must be.
#[derive(Debug)]
pub(super) struct Signed {
    key: Secret,
    issuer: Option<String>,
    audience: Option<String>,
    max_skew: u64,
}

/// Why a client was not let in: the text of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) &'static str);

const INVALID_JWT: Refused = Refused("invalid websocket jwt");

impl Auth {
    pub(super) fn new(secrets: Option<AuthSecrets>) -> Self {
        match secrets {
            None => Self::Open,
            Some(AuthSecrets::Token(token)) => Self::Capability(digest(token.expose())),
            Some(AuthSecrets::Digest(digest)) => Self::Capability(digest),
            Some(AuthSecrets::Key {
                key,
                issuer,
                audience,
                max_skew,
            }) => Self::Signed(Signed {
                key,
                issuer,
                audience,
                max_skew,
            }),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    /// Checks an `Authorization` header.
    pub(super) fn header(&self, header: Option<&[u8]>) -> Result<(), Refused> {
        if self.is_open() {
            return Ok(());
        }
        let header = header.ok_or(Refused("missing websocket bearer token"))?;
        let text = str::from_utf8(header).unwrap_or_default().trim();
        let (scheme, token) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        if !scheme.eq_ignore_ascii_case("bearer") || token.trim().is_empty() {
            return Err(Refused("invalid authorization header"));
        }
        self.token(token.trim())
    }

    /// Checks a token.
    pub(super) fn token(&self, token: &str) -> Result<(), Refused> {
        match self {
            Self::Open => Ok(()),
            Self::Capability(wanted) if same(&digest(token), wanted) => Ok(()),
            Self::Capability(_) => Err(Refused("invalid websocket bearer token")),
            Self::Signed(signed) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now = now.map_or(0, |since| since.as_secs());
                signed.check(token, i128::from(now))
            }
        }
    }
}

impl Signed {
    fn check(&self, token: &str, now: i128) -> Result<(), Refused> {
        let claims = self.verified(token).ok_or(INVALID_JWT)?;
        let integer = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(value) => match value.as_i64() {
                Some(seconds) => Ok(Some(i128::from(seconds))),
                None => Err(INVALID_JWT),
            },
        };
        let expires = integer("exp")?.ok_or(INVALID_JWT)?;
        let not_before = integer("nbf")?;
        let issuer = match claims.get("iss") {
            None => None,
            Some(value) => Some(value.as_str().ok_or(INVALID_JWT)?),
        };
        let audiences: Vec<&str> = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or(INVALID_JWT)?,
            Some(_) => return Err(INVALID_JWT),
        };
        let skew = i128::from(self.max_skew);
        if now > expires + skew {
            return Err(Refused("expired websocket jwt"));
        }
        if not_before.is_some_and(|not_before| now < not_before - skew) {
            return Err(Refused("websocket jwt is not valid yet"));
        }
        if self
            .issuer
            .as_deref()
            .is_some_and(|wanted| issuer != Some(wanted))
        {
            return Err(Refused("websocket jwt issuer mismatch"));
        }
        let wanted = self.audience.as_deref();
        if wanted.is_some_and(|wanted| !audiences.contains(&wanted)) {
            return Err(Refused("websocket jwt audience mismatch"));
        }
        Ok(())
    }

    /// The claims of a token with our signature.
    fn verified(&self, token: &str) -> Option<serde_json::Map<String, Value>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
            serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes).ok()
        };
        let given: [u8; 32] = URL_SAFE_NO_PAD.decode(signature).ok()?.try_into().ok()?;
        let ours = hmac(self.key.expose().as_bytes(), signed.as_bytes());
        let genuine = same(&given, &ours) && object(header)?.get("alg")? == "HS256";
        genuine.then(|| object(claims)).flatten()
    }
}

pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let keyed = |pad: u8| Sha256::new_with_prefix(block.map(|byte| byte ^ pad));
    let inner = keyed(0x36).chain_update(message).finalize();
    keyed(0x5c).chain_update(inner).finalize().into()
}

/// Compares without telling by its duration where the difference is.
pub(super) fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "0123456789abcdef0123456789abcdef";
    const NOW: i128 = 1_000_000;

    fn jwt(key: &str, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac(key.as_bytes(), signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn signed(issuer: Option<&str>, audience: Option<&str>) -> Signed {
        Signed {
            key: Secret::new(KEY),
            issuer: issuer.map(Into::into),
            audience: audience.map(Into::into),
            max_skew: 30,
        }
    }

    fn hs256() -> Value {
        json!({"alg": "HS256", "typ": "JWT"})
    }

    #[test]
    fn the_signature_is_the_one_of_rfc_4231() {
        let hex = |bytes: [u8; 32]| bytes.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(hmac(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let message = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(hmac(&[0xaa; 131], message)),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn s02_12_3_the_header_is_read_before_the_token() {
        let auth = Auth::Capability(digest("right"));
        for (header, refusal) in [
            (None, "missing websocket bearer token"),
            (Some("right"), "invalid authorization header"),
            (Some("Basic right"), "invalid authorization header"),
            (Some("Bearer "), "invalid authorization header"),
            (Some("Bearer wrong"), "invalid websocket bearer token"),
            (Some("Bearer right right"), "invalid websocket bearer token"),
        ] {
            let refused = auth.header(header.map(str::as_bytes)).unwrap_err();
            assert_eq!(refused.0, refusal, "{header:?}");
        }
        for header in ["Bearer right", "bEARER   right  ", " bearer\tright"] {
            assert_eq!(auth.header(Some(header.as_bytes())), Ok(()), "{header}");
        }
        assert!(auth.header(Some(b"Bearer \xff")).is_err());
        assert_eq!(Auth::Open.header(None), Ok(()));
    }

    #[test]
    fn s02_12_3_claims_are_checked_one_by_one() {
        let bound = || signed(Some("us"), Some("them"));
        let free = || signed(None, None);
        let exp = NOW as i64 + 60;
        for (which, claims, refusal) in [
            (free(), json!({"exp": exp}), ""),
            (free(), json!({"exp": NOW as i64 - 30}), ""),
            (
                free(),
                json!({"exp": NOW as i64 - 31}),
                "expired websocket jwt",
            ),
            (free(), json!({"exp": exp, "nbf": NOW as i64 + 30}), ""),
            (
                free(),
                json!({"exp": exp, "nbf": NOW as i64 + 31}),
                "websocket jwt is not valid yet",
            ),
            (free(), json!({}), "invalid websocket jwt"),
            (free(), json!({"exp": "soon"}), "invalid websocket jwt"),
            (free(), json!({"exp": 1.5}), "invalid websocket jwt"),
            (
                free(),
                json!({"exp": exp, "nbf": null}),
                "invalid websocket jwt",
            ),
            (
                free(),
                json!({"exp": exp, "iss": 1}),
                "invalid websocket jwt",
            ),
            (
                free(),
                json!({"exp": exp, "aud": [1]}),
                "invalid websocket jwt",
            ),
            (free(), json!([1]), "invalid websocket jwt"),
            (bound(), json!({"exp": exp, "iss": "us", "aud": "them"}), ""),
            (
                bound(),
                json!({"exp": exp, "iss": "us", "aud": ["x", "them"]}),
                "",
            ),
            (
                bound(),
                json!({"exp": exp, "aud": "them"}),
                "websocket jwt issuer mismatch",
            ),
            (
                bound(),
                json!({"exp": exp, "iss": "us", "aud": ["x"]}),
                "websocket jwt audience mismatch",
            ),
            (
                bound(),
                json!({"exp": exp, "iss": "us"}),
                "websocket jwt audience mismatch",
            ),
        ] {
            let result = which.check(&jwt(KEY, &hs256(), &claims), NOW);
            let said = result.map_or_else(|refused| refused.0, |()| "");
            assert_eq!(said, refusal, "{claims}");
        }
    }

    #[test]
    fn forged_tokens_are_all_invalid() {
        let claims = json!({"exp": NOW as i64 + 60});
        let genuine = jwt(KEY, &hs256(), &claims);
        let (signed_part, _) = genuine.rsplit_once('.').unwrap();
        let elsewhere = jwt(KEY, &hs256(), &json!({"exp": NOW as i64 + 61}));
        let (_, other_signature) = elsewhere.rsplit_once('.').unwrap();
        for forged in [
            jwt("another key of at least 32 bytes.", &hs256(), &claims),
            jwt(KEY, &json!({"alg": "none"}), &claims),
            jwt(KEY, &json!({"alg": "HS512"}), &claims),
            jwt(KEY, &json!({}), &claims),
            format!("{signed_part}."),
            format!("{signed_part}.{other_signature}"),
            format!("{genuine}="),
            format!("{genuine}.x"),
            signed_part.to_owned(),
            String::new(),
            String::from(".."),
        ] {
            let refused = signed(None, None).check(&forged, NOW).unwrap_err();
            assert_eq!(refused, INVALID_JWT, "{forged}");
        }
        assert_eq!(signed(None, None).check(&genuine, NOW), Ok(()));
    }
}

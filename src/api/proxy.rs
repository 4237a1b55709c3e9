//! Proxies from the environment: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`, in
//! upper or lower case (00 §5). HTTPS goes through `CONNECT`, with basic
//! authentication when the proxy's URL holds a user.
//!
//! Invariant: user and password of a proxy never reach a text made here.

use thiserror::Error;

/// The proxies to use.
#[derive(Clone, Default)]
pub struct ProxySettings {
    https: Option<String>,
    http: Option<String>,
    no_proxy: Option<String>,
}

/// A proxy variable that cannot be used.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "{variable} is not the URL of an HTTP proxy. Write it like http://user:password@host:port."
)]
pub struct ProxyError {
    variable: &'static str,
}

impl ProxySettings {
    /// Takes the variables from `lookup`; an empty value counts as unset, upper case wins.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            lookup(name)
                .filter(|value| !value.trim().is_empty())
                .or_else(|| lookup(&name.to_ascii_lowercase()))
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        Self {
            https: either("HTTPS_PROXY"),
            http: either("HTTP_PROXY"),
            no_proxy: either("NO_PROXY"),
        }
    }

    /// One line for the start-up log, without credentials; `None` without proxies.
    pub fn summary(&self) -> Option<String> {
        let parts: Vec<String> = [("https", &self.https), ("http", &self.http)]
            .into_iter()
            .filter_map(|(scheme, url)| {
                let url = url.as_deref()?;
                Some(format!("{scheme} through {}", host_of(url)))
            })
            .collect();
        if parts.is_empty() {
            return None;
        }
        let except = self
            .no_proxy
            .as_ref()
            .map_or_else(String::new, |list| format!(", except {list}"));
        Some(parts.join(", ") + &except)
    }

    /// The proxies for a client; the client must not look for others itself.
    pub(super) fn proxies(&self) -> Result<Vec<reqwest::Proxy>, ProxyError> {
        let no_proxy = self
            .no_proxy
            .as_deref()
            .and_then(reqwest::NoProxy::from_string);
        let mut proxies = Vec::new();
        if let Some(url) = &self.https {
            let url = checked(url, "HTTPS_PROXY")?;
            let proxy = reqwest::Proxy::https(url).map_err(|_| ProxyError {
                variable: "HTTPS_PROXY",
            })?;
            proxies.push(proxy.no_proxy(no_proxy.clone()));
        }
        if let Some(url) = &self.http {
            let url = checked(url, "HTTP_PROXY")?;
            let proxy = reqwest::Proxy::http(url).map_err(|_| ProxyError {
                variable: "HTTP_PROXY",
            })?;
            proxies.push(proxy.no_proxy(no_proxy));
        }
        Ok(proxies)
    }
}

impl std::fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProxySettings")
            .field(&self.summary())
            .finish()
    }
}

/// Adds the scheme that people leave out, and refuses what is no HTTP proxy.
fn checked(url: &str, variable: &'static str) -> Result<reqwest::Url, ProxyError> {
    let refused = ProxyError { variable };
    let full = if url.contains("://") {
        reqwest::Url::parse(url)
    } else {
        reqwest::Url::parse(&format!("http://{url}"))
    };
    match full {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err(refused),
    }
}

fn host_of(url: &str) -> String {
    checked(url, "").map_or_else(
        |_| String::from("an unusable address"),
        |url| {
            let host = url.host_str().unwrap_or_default();
            url.port_or_known_default()
                .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> ProxySettings {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        ProxySettings::from_env(|name| {
            let found = pairs.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone())
        })
    }

    #[test]
    fn both_cases_are_read_and_upper_case_wins() {
        let lower = settings(&[("https_proxy", "http://low:1")]);
        assert_eq!(lower.summary().unwrap(), "https through low:1");
        let both = settings(&[("https_proxy", "http://low:1"), ("HTTPS_PROXY", "up:2")]);
        assert_eq!(both.summary().unwrap(), "https through up:2");
        let empty = settings(&[("HTTPS_PROXY", " "), ("https_proxy", "low:1")]);
        assert_eq!(empty.summary().unwrap(), "https through low:1");
        assert_eq!(settings(&[("NO_PROXY", "x")]).summary(), None);
    }

    #[test]
    fn credentials_never_show() {
        let proxy = settings(&[
            ("HTTP_PROXY", "http://user:hunter2@host:8080"),
            ("NO_PROXY", ".local"),
        ]);
        let text = format!("{proxy:?} {}", proxy.summary().unwrap());
        assert!(text.contains("host:8080") && text.contains("except .local"));
        assert!(!text.contains("hunter2") && !text.contains("user"));
    }

    #[test]
    fn what_is_no_http_proxy_is_refused_by_name_only() {
        for bad in ["socks5://user:hunter2@host:1", "http://", "ftp://host"] {
            let error = settings(&[("HTTPS_PROXY", bad)]).proxies().unwrap_err();
            let text = error.to_string();
            assert!(text.contains("HTTPS_PROXY") && !text.contains("hunter2"));
        }
    }
}

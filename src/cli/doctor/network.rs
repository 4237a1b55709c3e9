//! The way to the Letta server: proxies, name, address, certificate, clock, key.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use reqwest::Method;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::report::Report;
use crate::api::client::Path;
use crate::api::error::ApiError;
use crate::api::net::NetSettings;
use crate::api::token::CredentialError;
use crate::cli::server::start::Foundation;

/// Limit of each look.
const PATIENCE: Duration = Duration::from_secs(10);
/// A clock may be off by this much before logins break.
const TOLERATED_SKEW: u64 = 120;

/// Looks at everything between this machine and the server.
pub(super) async fn examine(foundation: &Foundation, report: &mut Report) {
    let url = foundation.base_url();
    let proxies = NetSettings::from_env(|name| std::env::var_os(name)).proxies;
    let proxied = proxies.summary();
    report.fine("proxy", proxied.clone().unwrap_or_else(|| "none".into()));
    let parsed = reqwest::Url::parse(&url).ok();
    let host = parsed
        .as_ref()
        .and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)));
    let Some((host, port)) = host else {
        return report.broken(
            "address",
            format!("{url:?} is no URL"),
            "Set LETTA_BASE_URL to something like https://api.letta.com.",
        );
    };
    if proxied.is_some() {
        report.skipped("dns", "the proxy looks the name up");
        report.skipped("tcp", "the proxy connects");
    } else {
        reach(&host, port, report).await;
    }
    api(foundation, &url, report).await;
}

/// The name and the port.
async fn reach(host: &str, port: u16, report: &mut Report) {
    let begun = Instant::now();
    // A literal IPv6 address stands in brackets in a URL.
    let name = host.trim_matches(['[', ']']);
    let found = timeout(PATIENCE, lookup_host((name, port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            report.broken(
                "dns",
                format!("{host}: {error}"),
                "Look at /etc/resolv.conf and at the network.",
            );
            return report.skipped("tcp", "no address");
        }
        Err(_) => {
            report.broken(
                "dns",
                format!("{host}: no answer"),
                "Look at /etc/resolv.conf.",
            );
            return report.skipped("tcp", "no address");
        }
    };
    let shown: Vec<String> = addresses.iter().map(|at| at.ip().to_string()).collect();
    report.fine(
        "dns",
        format!("{host} is {} ({} ms)", shown.join(", "), millis(begun)),
    );
    let mut failure = String::from("no address");
    for address in addresses {
        let begun = Instant::now();
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                return report.fine("tcp", format!("{address} answers ({} ms)", millis(begun)));
            }
            Ok(Err(error)) => failure = format!("{address}: {error}"),
            Err(_) => failure = format!("{address}: no answer"),
        }
    }
    report.broken(
        "tcp",
        failure,
        "A firewall may be in the way: allow outbound connections to that port, or set HTTPS_PROXY.",
    );
}

/// The certificate, the clock and the key, with one request that changes nothing.
async fn api(foundation: &Foundation, url: &str, report: &mut Report) {
    let (credentials, net) = match foundation.credentials(&foundation.name()) {
        Ok(both) => both,
        Err(error) => return report.broken("tls", format!("{error:#}"), ""),
    };
    let request = net.http().get(url).timeout(PATIENCE).send();
    let secured = url.starts_with("https:");
    match request.await {
        Ok(answer) => {
            let seen = if secured {
                "the certificate is valid"
            } else {
                "none: the server is spoken to in clear"
            };
            report.fine("tls", seen);
            let date = answer.headers().get("date");
            clock(date.and_then(|date| date.to_str().ok()), report);
        }
        Err(error) => {
            let reason = causes(&error);
            report.broken(
                "tls",
                reason,
                "For a private authority set SSL_CERT_FILE or LETTA_EXTRA_CA_FILE; a wrong clock makes certificates invalid too.",
            );
            report.skipped("clock", "no answer");
            return report.skipped("credentials", "no answer");
        }
    }
    // A file that cannot be read, or nothing at all, is known before the server is asked.
    match credentials.token().await {
        Ok(_) => {}
        Err(CredentialError::Missing) => {
            return report.broken(
                "credentials",
                "nobody is signed in",
                "Set LETTA_API_KEY, or sign in: letta login",
            );
        }
        Err(error) => {
            return report.broken("credentials", error.to_string(), "Sign in: letta login");
        }
    }
    let device = foundation.settings.device_id().unwrap_or_default();
    let client = match foundation.api(url, &credentials, &net, &device) {
        Ok(client) => client,
        Err(error) => return report.broken("credentials", format!("{error:#}"), ""),
    };
    let agents = client
        .call(Method::GET, Path::at("/v1/agents/"))
        .query("limit", 1)
        .retries(0)
        .timeout(PATIENCE);
    match agents.value().await {
        Ok(_) => report.fine("credentials", "accepted"),
        Err(error) => report.broken("credentials", refused(&error), "Sign in again: letta login"),
    }
}

fn refused(error: &ApiError) -> String {
    match error.status() {
        Some(401 | 403) => format!("refused: {}", error.detail()),
        _ => error.to_string(),
    }
}

/// Compares this machine's clock with the server's `Date`.
fn clock(date: Option<&str>, report: &mut Report) {
    let Some(there) = date.and_then(http_date) else {
        return report.skipped("clock", "the server does not say what time it is");
    };
    let here = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let off = here.abs_diff(there);
    if off > TOLERATED_SKEW {
        let way = if here > there { "ahead" } else { "behind" };
        report.warn(
            "clock",
            format!("{off} s {way} of the server"),
            "Set it: timedatectl set-ntp true. Certificates and schedules depend on it.",
        );
    } else {
        report.fine("clock", format!("within {} s of the server", off.max(1)));
    }
}

/// Seconds since 1970 of `Tue, 24 Nov 2026 15:07:42 GMT`, the one form that
/// servers send.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let mut words = text.strip_suffix(" GMT")?.split_once(", ")?.1.split(' ');
    let day = words.next()?.parse().ok()?;
    let month = words.next().filter(|month| month.len() == 3)?;
    let month = MONTHS.find(month).filter(|at| at % 3 == 0)? / 3 + 1;
    let year = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':').map(|part| part.parse::<i8>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let date = jiff::civil::Date::new(year, i8::try_from(month).ok()?, day).ok()?;
    let time = jiff::civil::Time::new(hour, minute, second, 0).ok()?;
    let instant = jiff::tz::TimeZone::UTC
        .to_timestamp(date.to_datetime(time))
        .ok()?;
    u64::try_from(instant.as_second()).ok()
}

fn millis(begun: Instant) -> u128 {
    begun.elapsed().as_millis()
}

/// An error with what caused it; the URL is known already.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text += &error.to_string();
        cause = error.source();
    }
    if text.is_empty() {
        error.to_string()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::*;

    #[test]
    fn dates_of_servers_are_read() {
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        for bad in [
            "",
            "yesterday",
            "Sun, 06 ovD 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 25:49:37 GMT",
        ] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_is_far_off_is_worth_a_warning() {
        let mut report = Report::default();
        clock(Some("Sun, 06 Nov 1994 08:49:37 GMT"), &mut report);
        assert!(report.is_good());
        assert_eq!(
            report.json()["checks"][0]["status"],
            Verdict::Warning.as_str()
        );
    }
}

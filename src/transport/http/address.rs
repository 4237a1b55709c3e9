//! Where the health endpoints listen: `LETTA_HEALTH_ADDR`, else `PORT`, else
//! this machine only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The port when none is given.
pub const DEFAULT_PORT: u16 = 8080;

/// Where the health endpoints listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthAddress {
    /// Nowhere.
    Off,
    /// At one address.
    At(SocketAddr),
    /// At every address of this machine, IPv6 and IPv4.
    Everywhere(u16),
}

/// A value that is no address.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name}={value:?} is no health address: use `off`, a port, `:port` for every interface, or `ip:port`"
)]
pub struct AddressError {
    name: &'static str,
    value: String,
}

impl HealthAddress {
    /// Reads `LETTA_HEALTH_ADDR` (`off`, `port`, `:port`, `ip:port`,
    /// `localhost:port`) and, without it, the `PORT` that platforms set, which
    /// means every interface. Empty counts as not set.
    ///
    /// # Errors
    /// Names the variable whose value is no address.
    pub fn from_settings(address: Option<&str>, port: Option<&str>) -> Result<Self, AddressError> {
        let given = |value: Option<&str>| {
            value
                .map(str::trim)
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
        };
        if let Some(value) = given(address) {
            return Self::parse(&value).ok_or(AddressError {
                name: "LETTA_HEALTH_ADDR",
                value,
            });
        }
        if let Some(value) = given(port) {
            return value
                .parse()
                .map(Self::Everywhere)
                .map_err(|_| AddressError {
                    name: "PORT",
                    value,
                });
        }
        Ok(Self::At((Ipv4Addr::LOCALHOST, DEFAULT_PORT).into()))
    }

    fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("off") {
            return Some(Self::Off);
        }
        if let Ok(port) = value.parse() {
            return Some(Self::At((Ipv4Addr::LOCALHOST, port).into()));
        }
        if let Some(port) = value.strip_prefix(':') {
            return port.parse().ok().map(Self::Everywhere);
        }
        if let Some(port) = value.strip_prefix("localhost:") {
            return port
                .parse()
                .ok()
                .map(|port| Self::At((Ipv4Addr::LOCALHOST, port).into()));
        }
        value.parse().ok().map(Self::At)
    }

    /// What to bind, best first: the IPv6 wildcard takes IPv4 too, but a kernel
    /// without IPv6 has only the other one.
    pub(super) fn candidates(&self) -> Vec<SocketAddr> {
        match *self {
            Self::Off => Vec::new(),
            Self::At(address) => vec![address],
            Self::Everywhere(port) => vec![
                (Ipv6Addr::UNSPECIFIED, port).into(),
                (Ipv4Addr::UNSPECIFIED, port).into(),
            ],
        }
    }

    /// Where a check on this machine finds the endpoints; `None` when they are off.
    pub fn to_connect(&self) -> Option<SocketAddr> {
        match *self {
            Self::Off => None,
            Self::Everywhere(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
            Self::At(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                Some((ip, address.port()).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_addresses() {
        let at = |text: &str| HealthAddress::At(text.parse().unwrap());
        for (address, port, expected) in [
            (None, None, at("127.0.0.1:8080")),
            (Some(" "), Some(""), at("127.0.0.1:8080")),
            (None, Some("8080"), HealthAddress::Everywhere(8080)),
            (Some("off"), Some("8080"), HealthAddress::Off),
            (Some("9000"), Some("8080"), at("127.0.0.1:9000")),
            (Some(":9000"), None, HealthAddress::Everywhere(9000)),
            (Some("localhost:9"), None, at("127.0.0.1:9")),
            (Some("0.0.0.0:9000"), None, at("0.0.0.0:9000")),
            (Some("[::1]:9000"), None, at("[::1]:9000")),
        ] {
            assert_eq!(
                HealthAddress::from_settings(address, port).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn errors_name_the_variable_and_what_would_do() {
        let error = HealthAddress::from_settings(Some("example.com:1"), None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("LETTA_HEALTH_ADDR=\"example.com:1\" is no")
        );
        let error = HealthAddress::from_settings(None, Some("99999")).unwrap_err();
        assert!(error.to_string().starts_with("PORT=\"99999\" is no"));
    }

    #[test]
    fn a_check_connects_to_this_machine() {
        let connect = |text: &str| HealthAddress::parse(text).unwrap().to_connect();
        assert_eq!(connect("off"), None);
        assert_eq!(connect(":80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(connect("0.0.0.0:80").unwrap().to_string(), "127.0.0.1:80");
        assert_eq!(connect("[::]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(connect("10.0.0.1:80").unwrap().to_string(), "10.0.0.1:80");
    }
}

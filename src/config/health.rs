//! Where the health endpoints listen (00 §5).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What `LETTA_HEALTH_ADDR` takes, for error texts.
pub(super) const HEALTH_FORMS: &str =
    "IP:PORT such as 0.0.0.0:8080 or [::]:8080, localhost:PORT, or off";

/// The address when nothing is said: this machine only.
pub const DEFAULT_HEALTH_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Reads `LETTA_HEALTH_ADDR`: `Some(None)` is off, `None` is a mistake.
pub(super) fn parse_health_addr(text: &str) -> Option<Option<SocketAddr>> {
    if text.eq_ignore_ascii_case("off") {
        return Some(None);
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().ok()?;
        return Some(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }
    text.parse().ok().map(Some)
}

/// The address that a platform's `PORT` asks for: every interface, because
/// its health checks come from outside of the container.
pub(super) fn platform_addr(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

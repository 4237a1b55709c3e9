//! Tells systemd how the service is, by datagrams to `$NOTIFY_SOCKET`.
//!
//! Without a service manager every call does nothing. Invariant: never blocks
//! and never fails; a service manager that does not listen is not our trouble.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// Longest status text, in characters; systemd shows one line.
const LONGEST_STATUS: usize = 200;

/// The line to the service manager. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    line: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET` (a path, or `@name` for an abstract one),
    /// `WATCHDOG_USEC` and `WATCHDOG_PID` through `variable`.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let line = variable("NOTIFY_SOCKET").and_then(|name| connect(&name));
        // The variables pass to children; only the process they name is watched.
        let meant_for_us =
            variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let watchdog = variable("WATCHDOG_USEC")
            .and_then(|micros| micros.parse().ok())
            .filter(|micros| *micros > 0 && meant_for_us && line.is_some())
            .map(Duration::from_micros);
        Self {
            line: line.map(Arc::new),
            watchdog,
        }
    }

    /// How often [`Notifier::watchdog`] must be called: half of what systemd
    /// allows. `None` when it does not watch.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The service is up.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\n{}", status_line(status)));
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&status_line(status));
    }

    /// The service is reading its settings again; [`Notifier::reloaded`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The end of [`Notifier::reloading`]: the status stays as it was.
    pub fn reloaded(&self) {
        self.send("READY=1");
    }

    /// The service is going down.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\n{}", status_line(status)));
    }

    /// The service is alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some(line) = &self.line {
            let (socket, manager) = &**line;
            let _ = socket.send_to_addr(message.as_bytes(), manager);
        }
    }
}

fn connect(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let manager = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None if name.starts_with('/') => SocketAddr::from_pathname(name).ok()?,
        None => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, manager))
}

/// `STATUS=` with a text that cannot begin another assignment.
fn status_line(status: &str) -> String {
    let text: String = status
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_STATUS)
        .collect();
    format!("STATUS={text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager's end, and the notifier that speaks to it.
    fn pair(name: &str, socket: &UnixDatagram, more: &[(&str, String)]) -> Notifier {
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut variables = vec![("NOTIFY_SOCKET", name.to_owned())];
        variables.extend_from_slice(more);
        Notifier::from_env(|key| {
            let found = variables.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| value.clone())
        })
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buf = [0; 1024];
        let len = socket.recv(&mut buf).unwrap();
        String::from_utf8(buf[..len].to_vec()).unwrap()
    }

    #[test]
    fn every_message_has_systemds_spelling() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = pair(path.to_str().unwrap(), &manager, &[]);
        notifier.ready("Connected");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=Connected");
        notifier.status("a\nREADY=1");
        assert_eq!(heard(&manager), "STATUS=a READY=1");
        notifier.reloading();
        let reloading = heard(&manager);
        let micros = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        notifier.reloaded();
        assert_eq!(heard(&manager), "READY=1");
        notifier.watchdog();
        assert_eq!(heard(&manager), "WATCHDOG=1");
        notifier.stopping("Draining");
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=Draining");
    }

    #[test]
    fn abstract_sockets_work() {
        let name = format!("letta-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = pair(&format!("@{name}"), &manager, &[]);
        notifier.watchdog();
        assert_eq!(heard(&manager), "WATCHDOG=1");
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_needed_and_only_by_us() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let with = |pid: u32| {
            let more = [
                ("WATCHDOG_USEC", String::from("60000000")),
                ("WATCHDOG_PID", pid.to_string()),
            ];
            pair(path.to_str().unwrap(), &manager, &more).watchdog_interval()
        };
        assert_eq!(with(std::process::id()), Some(Duration::from_secs(30)));
        assert_eq!(with(1), None);
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let nobody = Notifier::from_env(|_| None);
        nobody.ready("x");
        assert_eq!(nobody.watchdog_interval(), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone");
        let gone = Notifier::from_env(|key| {
            (key == "NOTIFY_SOCKET").then(|| path.to_str().unwrap().to_owned())
        });
        gone.ready("x");
    }
}

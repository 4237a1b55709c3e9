//! Is the relay still there? Counts pings it did not answer (01 §8.4).
//!
//! Invariant: only pings that an open socket took count, never the time that
//! passed, so that a machine that slept or was short of CPU does not kill a
//! healthy connection.

use tokio::time::Instant;

/// Unanswered pings after which the connection is given up.
const MAX_UNANSWERED: u32 = 3;

/// The count of one connection.
#[derive(Debug, Default)]
pub(super) struct Heartbeat {
    unanswered: u32,
    last_ping: Option<Instant>,
    last_pong: Option<Instant>,
}

/// What to do at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Send a ping.
    Ping,
    /// Drop the connection without a close handshake.
    Dead,
}

impl Heartbeat {
    /// Judges the pings so far; called before each new one.
    pub(super) fn tick(&mut self) -> Pulse {
        if self.last_pong >= self.last_ping {
            self.unanswered = 0;
        }
        match self.unanswered {
            0..MAX_UNANSWERED => Pulse::Ping,
            _ => Pulse::Dead,
        }
    }

    /// A ping was handed to an open socket.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.last_ping = Some(now);
        self.unanswered += 1;
    }

    /// The relay answered.
    pub(super) fn ponged(&mut self, now: Instant) {
        self.last_pong = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn s01_15_row03_three_unanswered_pings_end_it_at_the_fourth_tick() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heart = Heartbeat::default();
        for tick in [30, 60, 90] {
            assert_eq!(heart.tick(), Pulse::Ping);
            heart.pinged(at(tick));
        }
        assert_eq!(heart.tick(), Pulse::Dead);
    }

    #[test]
    fn one_answer_starts_the_count_anew() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heart = Heartbeat::default();
        for tick in [30, 60, 90] {
            heart.tick();
            heart.pinged(at(tick));
        }
        heart.ponged(at(119));
        for tick in [120, 150, 180] {
            assert_eq!(heart.tick(), Pulse::Ping);
            heart.pinged(at(tick));
        }
        assert_eq!(heart.tick(), Pulse::Dead);
    }

    #[test]
    fn pings_that_no_socket_took_do_not_count() {
        let mut heart = Heartbeat::default();
        for _ in 0..10 {
            assert_eq!(heart.tick(), Pulse::Ping);
        }
    }
}

use super::*;

const ID: &str = "conn-1";

/// A machine with a clock of its own.
struct Bench {
    machine: Machine,
    start: Instant,
    now: Instant,
    step: Step,
}

impl Bench {
    fn new(max_offline: Option<Duration>) -> Self {
        let start = Instant::now();
        let mut machine = Machine::new(start, max_offline, fastrand::Rng::with_seed(1));
        let step = machine.start(start);
        Self {
            machine,
            start,
            now: start,
            step,
        }
    }

    /// A machine with open sockets.
    fn connected() -> Self {
        let mut bench = Self::new(None);
        bench.register();
        bench.on(Event::Authorized);
        bench.on(Event::Opened);
        assert_eq!(bench.step, Step::Serve);
        bench
    }

    fn on(&mut self, event: Event) -> &Step {
        self.step = self.machine.on(event, self.now);
        &self.step
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn register(&mut self) {
        self.on(Event::Authorized);
        assert_eq!(self.step, Step::Register);
        self.on(Event::Registered(ConnectionId::new(ID)));
        assert_eq!(self.step, Step::Authorize);
    }

    /// Waits as told and begins the next attempt to open sockets.
    fn wait_and_authorize(&mut self) -> Step {
        let Step::Wait(wait) = self.step else {
            panic!("expected a wait, not {:?}", self.step);
        };
        self.now += wait;
        self.on(Event::Waited);
        assert_eq!(self.step, Step::Authorize);
        self.on(Event::Authorized).clone()
    }

    fn state(&self) -> &RelayState {
        &self.machine.status().state
    }
}

fn closed(lane: Lane, code: u16, reason: &str) -> Event {
    let reason = reason.to_owned();
    let cause = Cause::Peer;
    let close = Close {
        code,
        reason,
        cause,
    };
    Event::Lost(Loss::Closed(lane, close))
}

fn broken() -> Event {
    let close = Close::abnormal(Cause::Network, "reset");
    Event::Lost(Loss::Closed(Lane::Control, close))
}

fn refused(text: &str) -> Event {
    Event::NotOpened(OpenError::Failed(text.to_owned()))
}

fn unregistered(class: RegisterClass) -> Event {
    let text = "HTTP 521".to_owned();
    Event::NotRegistered(RegisterError { text, class })
}

fn unauthorized(class: AuthClass) -> Event {
    let text = "no token".to_owned();
    Event::NotAuthorized(AuthError { text, class })
}

/// Whether a step waits `seconds`, jitter aside.
fn waits(step: &Step, seconds: u64) -> bool {
    let least = Duration::from_secs(seconds);
    matches!(step, Step::Wait(wait) if (least..=least + least.min(Duration::from_secs(4)) / 4).contains(wait))
}

#[test]
fn every_close_code_has_its_consequence() {
    use Verdict::{Expired, Replaced, Transient};
    let peer = |code, reason: &str| Close {
        code,
        reason: reason.to_owned(),
        cause: Cause::Peer,
    };
    for (lane, close, expected) in [
        (Lane::Control, peer(1008, ""), Expired),
        (Lane::Control, peer(1008, REPLACED), Expired),
        (Lane::Control, peer(1000, REPLACED), Replaced),
        (Lane::Control, peer(1000, ""), Transient),
        (
            Lane::Control,
            peer(1000, "replaced by new connection"),
            Transient,
        ),
        (Lane::Control, peer(1001, REPLACED), Transient),
        (Lane::Control, peer(1005, ""), Transient),
        (Lane::Control, peer(1009, ""), Transient),
        (Lane::Control, peer(1011, ""), Transient),
        (Lane::Control, peer(1012, ""), Transient),
        (Lane::Control, peer(4001, ""), Transient),
        (
            Lane::Control,
            Close::abnormal(Cause::Network, REPLACED),
            Transient,
        ),
        (
            Lane::Control,
            Close::abnormal(Cause::TooLarge, ""),
            Transient,
        ),
        (Lane::Stream, peer(1000, REPLACED), Replaced),
        (Lane::Stream, peer(1000, "x"), Transient),
        (Lane::Stream, peer(1008, ""), Transient),
    ] {
        assert_eq!(verdict(lane, &close), expected, "{lane:?} {close}");
    }
}

#[test]
fn s01_15_row08_registration_retries_for_ever_with_backoff() {
    let mut bench = Bench::new(None);
    for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
        bench.on(Event::Authorized);
        assert_eq!(bench.step, Step::Register);
        bench.on(unregistered(RegisterClass::Transient { retry_after: None }));
        assert!(waits(&bench.step, seconds), "{:?}", bench.step);
        assert!(bench.machine.status().next_retry.is_some());
        bench.after(86_400).on(Event::Waited);
        assert_eq!(bench.step, Step::Authorize);
    }
    assert_eq!(*bench.state(), RelayState::Registering { attempt: 9 });
    bench.register();
    assert_eq!(*bench.state(), RelayState::Connecting { attempt: 0 });
}

#[test]
fn s01_15_row08_retry_after_outweighs_a_shorter_backoff_only() {
    let retry_after = Some(Duration::from_secs(3));
    let mut bench = Bench::new(None);
    for seconds in [3, 3, 4] {
        bench.on(Event::Authorized);
        bench.on(unregistered(RegisterClass::Transient { retry_after }));
        assert!(waits(&bench.step, seconds), "{:?}", bench.step);
        bench.on(Event::Waited);
    }
}

#[test]
fn s01_15_row09_refused_and_unusable_registrations_end_with_their_codes() {
    for (class, code) in [(RegisterClass::Refused, 77), (RegisterClass::Fatal, 78)] {
        let mut bench = Bench::new(None);
        bench.on(Event::Authorized);
        bench.on(unregistered(class));
        let Step::End(reason) = &bench.step else {
            panic!("{:?}", bench.step);
        };
        assert_eq!(
            (reason.code(), reason.to_string()),
            (code, "HTTP 521".into())
        );
        assert!(matches!(bench.state(), RelayState::Ended { .. }));
    }
}

#[test]
fn a_login_is_asked_for_before_registration_but_not_before_a_reconnect() {
    let mut bench = Bench::new(None);
    bench.on(unauthorized(AuthClass::LoginRequired));
    assert_eq!(bench.step, Step::Login);
    assert_eq!(*bench.state(), RelayState::LoginRequired);
    bench.on(Event::Authorized);
    assert_eq!(bench.step, Step::Register);
    assert_eq!(*bench.state(), RelayState::Registering { attempt: 1 });
    bench.on(Event::Registered(ConnectionId::new(ID)));
    bench.on(unauthorized(AuthClass::LoginRequired));
    assert!(matches!(&bench.step, Step::End(reason) if reason.code() == 77));
}

#[test]
fn credentials_that_cannot_be_refreshed_now_cost_an_attempt() {
    let mut bench = Bench::new(None);
    bench.on(unauthorized(AuthClass::Transient));
    assert!(waits(&bench.step, 1));
    bench.on(Event::Waited);
    bench.register();
    bench.on(unauthorized(AuthClass::Transient));
    assert!(waits(&bench.step, 1));
    assert!(matches!(
        bench.state(),
        RelayState::Reconnecting { attempt: 1, .. }
    ));
}

#[test]
fn s01_15_row06_only_a_connection_that_held_a_minute_reconnects_at_once() {
    let mut bench = Bench::connected();
    bench.after(60).on(closed(Lane::Control, 1001, ""));
    assert_eq!(bench.step, Step::Authorize);
    assert_eq!(*bench.state(), RelayState::Connecting { attempt: 0 });
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        bench.on(Event::Authorized);
        bench.on(Event::Opened);
        bench.after(59).on(broken());
        assert!(waits(&bench.step, seconds), "{:?}", bench.step);
        bench.on(Event::Waited);
    }
    bench.on(Event::Authorized);
    bench.on(Event::Opened);
    bench.after(61).on(closed(Lane::Control, 4001, ""));
    assert_eq!(bench.step, Step::Authorize);
}

#[test]
fn s01_15_row07_refused_upgrades_back_off_without_registering_again() {
    let mut bench = Bench::new(None);
    bench.register();
    bench.on(Event::Authorized);
    for (number, seconds) in [(2, 1), (3, 2), (4, 4)] {
        bench.on(refused("HTTP 503"));
        assert!(waits(&bench.step, seconds));
        assert_eq!(bench.wait_and_authorize(), Step::Open { number });
    }
    bench.on(Event::Opened);
    assert_eq!(bench.step, Step::Serve);
    assert_eq!(bench.machine.status().last_error, None);
}

#[test]
fn s01_15_row34_never_connected_for_five_minutes_registers_again_for_ever() {
    let mut bench = Bench::new(None);
    for _ in 0..5 {
        bench.register();
        bench.on(Event::Authorized);
        assert_eq!(bench.step, Step::Open { number: 1 });
        let begun = bench.now;
        loop {
            bench.on(refused("unreachable"));
            if bench.step == Step::Authorize {
                break;
            }
            bench.wait_and_authorize();
        }
        assert_eq!(*bench.state(), RelayState::Registering { attempt: 1 });
        let window = bench.now - begun;
        assert!((300..332).contains(&window.as_secs()), "{window:?}");
    }
}

#[test]
fn s01_15_row35_established_then_unreachable_for_five_minutes_registers_again() {
    let mut bench = Bench::connected();
    bench.after(3600).on(broken());
    bench.on(Event::Authorized);
    let lost = bench.now;
    loop {
        bench.on(refused("unreachable"));
        if bench.step == Step::Authorize {
            break;
        }
        bench.wait_and_authorize();
    }
    assert!((bench.now - lost).as_secs() >= 300);
    assert_eq!(*bench.state(), RelayState::Registering { attempt: 1 });
    bench.register();
    assert_eq!(bench.on(Event::Authorized), &Step::Open { number: 1 });
}

#[test]
fn s01_15_row04_an_expired_registration_is_renewed_at_once_but_not_in_a_loop() {
    let mut bench = Bench::connected();
    bench.on(closed(Lane::Control, 1008, "expired"));
    assert_eq!(bench.step, Step::Authorize);
    assert_eq!(*bench.state(), RelayState::Registering { attempt: 1 });
    for seconds in [1, 2, 4] {
        bench.register();
        bench.on(Event::Authorized);
        bench.on(Event::Opened);
        bench.after(1).on(closed(Lane::Control, 1008, "expired"));
        assert!(waits(&bench.step, seconds), "{:?}", bench.step);
        bench.on(Event::Waited);
    }
    bench.register();
    bench.on(Event::Authorized);
    let close = Close {
        code: 1008,
        reason: String::new(),
        cause: Cause::Peer,
    };
    bench.on(Event::NotOpened(OpenError::Closed(close)));
    assert!(
        waits(&bench.step, 8),
        "refused before it was open counts too"
    );
}

#[test]
fn s01_15_row05_a_successor_ends_it() {
    for lane in [Lane::Control, Lane::Stream] {
        let mut bench = Bench::connected();
        bench.after(600).on(closed(lane, 1000, REPLACED));
        assert_eq!(bench.step, Step::End(ExitReason::Superseded));
        let counted = &bench.machine.status().disconnects;
        assert_eq!(counted.get(&DisconnectReason::Replaced), Some(&1));
    }
}

#[test]
fn an_address_of_no_use_ends_it_with_78() {
    let mut bench = Bench::new(None);
    bench.register();
    bench.on(Event::Authorized);
    bench.on(Event::NotOpened(OpenError::Unusable("bad address".into())));
    assert!(matches!(&bench.step, Step::End(reason) if reason.code() == 78));
}

#[test]
fn max_offline_counts_from_the_last_good_connection() {
    let hour = Duration::from_secs(3600);
    let mut bench = Bench::new(Some(hour));
    let first = bench.start + hour;
    assert_eq!(bench.machine.offline_deadline(), Some(first));
    bench.register();
    bench.on(Event::Authorized);
    bench.on(Event::Opened);
    assert_eq!(bench.machine.offline_deadline(), None);
    bench.after(59).on(broken());
    assert_eq!(bench.machine.offline_deadline(), Some(first));
    bench.wait_and_authorize();
    bench.on(Event::Opened);
    bench.after(60).on(broken());
    assert_eq!(bench.machine.offline_deadline(), Some(bench.now + hour));
    bench.on(Event::OfflineTooLong);
    assert_eq!(bench.step, Step::End(ExitReason::Offline));
    assert_eq!(ExitReason::Offline.code(), 69);
    assert_eq!(
        Bench::new(Some(Duration::MAX)).machine.offline_deadline(),
        None
    );
}

#[test]
fn the_snapshot_tells_of_attempts_errors_and_counts() {
    let mut bench = Bench::connected();
    let status = bench.machine.status();
    assert_eq!(status.connects, 1);
    assert_eq!(status.last_pong, Some(bench.now));
    assert_eq!(status.connection_id, Some(ConnectionId::new(ID)));
    bench.after(1).on(Event::Lost(Loss::Unanswered));
    let status = bench.machine.status();
    assert_eq!((status.attempt, status.since), (1, bench.now));
    assert!(
        matches!(status.state, RelayState::Reconnecting { retry_at, .. } if Some(retry_at) == status.next_retry)
    );
    assert_eq!(
        status.last_error.as_deref(),
        Some("the relay answered no pings")
    );
    assert_eq!(status.disconnects[&DisconnectReason::Heartbeat], 1);
    assert_eq!(status.last_pong, None);
}

//! What a large frame costs the one who hands it to the session log.
//! `cargo bench --bench session_log`

#![expect(clippy::print_stdout, reason = "a bench reports to the terminal")]
#![expect(clippy::expect_used, reason = "a bench may fail loudly")]

use std::time::{Duration, Instant, SystemTime};

use letta::telemetry::redact::Secrets;
use letta::telemetry::session_log::{Direction, Label, SessionLog, SessionLogOptions};

const ROUNDS: u32 = 20_000;

fn main() {
    let dir = tempfile::tempdir().expect("temp dir");
    let options = SessionLogOptions::new(dir.path(), SystemTime::now(), Secrets::default());
    let log = SessionLog::open(options);
    let frame = format!(r#"{{"type":"x","t":"{}"}}"#, "a".repeat(1 << 20));
    let mut spent = Duration::ZERO;
    for round in 0..ROUNDS {
        let before = Instant::now();
        log.frame(Direction::Sent, Label::Protocol, &frame);
        spent += before.elapsed();
        if round % 512 == 0 {
            log.flush(Duration::from_secs(20));
        }
    }
    println!(
        "a frame of 1 MiB: {:?} for the caller (bound: 5 µs)",
        spent / ROUNDS
    );
}

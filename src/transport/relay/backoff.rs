//! How long to wait before the next attempt: doubling, with jitter (01 §6, §8.6).

use std::time::Duration;

/// The longest wait of our own choice.
const MAX_BASE: Duration = Duration::from_secs(30);

/// The longest wait a server may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// The wait before retry `attempt` (1, 2, …): 1, 2, 4 … 30 s, at least what the
/// server asked for, and up to a quarter (at most 1 s) more by chance.
pub(super) fn delay(
    attempt: u32,
    retry_after: Option<Duration>,
    rng: &mut fastrand::Rng,
) -> Duration {
    let doublings = attempt.saturating_sub(1).min(5);
    let base = Duration::from_secs(1 << doublings).min(MAX_BASE);
    let asked = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
    let delay = base.max(asked);
    let spread = (delay / 4).min(Duration::from_secs(1));
    delay + spread.mul_f64(rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s01_15_row08_waits_double_to_30_s_and_honour_retry_after() {
        let seconds = Duration::from_secs;
        let cases = [
            (1, None, 1000, 1250),
            (2, None, 2000, 2500),
            (3, None, 4000, 5000),
            (4, None, 8000, 9000),
            (5, None, 16_000, 17_000),
            (6, None, 30_000, 31_000),
            (u32::MAX, None, 30_000, 31_000),
            (1, Some(seconds(3)), 3000, 3750),
            (3, Some(seconds(3)), 4000, 5000),
            (1, Some(seconds(86_400)), 300_000, 301_000),
            (1, Some(Duration::MAX), 300_000, 301_000),
        ];
        let mut rng = fastrand::Rng::with_seed(7);
        for (attempt, retry_after, least, below) in cases {
            let waits: Vec<_> = (0..200)
                .map(|_| delay(attempt, retry_after, &mut rng).as_millis())
                .collect();
            assert!(
                waits.iter().all(|wait| (least..below).contains(wait)),
                "{attempt} {retry_after:?}"
            );
            assert!(waits.iter().any(|wait| *wait != waits[0]), "no jitter");
        }
    }
}

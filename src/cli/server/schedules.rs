//! The schedules of `letta server`: what they stand on, and from when on they fire.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::CronScope;
use crate::conversation::{Link, Services};
use crate::cron::firing::Conversations;
use crate::cron::scheduler::Scheduler;
use crate::cron::zone::Zones;

/// What fires the schedules; `None` when it is turned off.
pub(super) fn scheduler(services: &Services, scope: CronScope) -> Option<Scheduler> {
    (scope != CronScope::Off).then(|| Scheduler {
        store: services.schedules.clone(),
        scope,
        zones: Zones::system(),
        target: Arc::new(Conversations {
            api: services.api.0.clone(),
            inject: services.inject.clone(),
            events: services.events.clone(),
        }),
        metrics: services.metrics.0.clone(),
        clock: Arc::new(jiff::Timestamp::now),
    })
}

/// Fires schedules from the first connection on, through every later loss (07 §1.5).
pub(super) async fn fire(
    scheduler: Option<Scheduler>,
    mut link: watch::Receiver<Link>,
    stop: CancellationToken,
) {
    let Some(scheduler) = scheduler else { return };
    let connected = async { link.wait_for(|link| link.open).await.is_ok() };
    if stop.run_until_cancelled(connected).await == Some(true) {
        scheduler.run(stop).await;
    }
}

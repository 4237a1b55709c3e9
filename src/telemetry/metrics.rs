//! The metrics of the listener, in Prometheus' text format (prefix `letta_`).
//!
//! Every series is declared here and nowhere else. Invariant: label values come
//! from closed sets, so the number of series is bounded and no agent,
//! conversation, path or secret can become one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::process_stats::ProcessCollector;

/// Value of the `tool` label for a tool that is not one of ours: clients bring
/// their own, under any name.
const OTHER_TOOL: &str = "other";

/// Upper bounds of the duration buckets, seconds: a quick read to a long build.
const BUCKETS: [f64; 11] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0,
];

/// Declares an enum whose variants are the values of one label.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The value as it stands in the output.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(
                &self,
                encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
            ) -> Result<(), std::fmt::Error> {
                self.as_str().encode(encoder)
            }
        }
    };
}

label_values! {
    /// Why the relay connection ended.
    DisconnectReason {
        /// The relay closed it in the ordinary way.
        Closed = "closed",
        /// The relay no longer knows the connection: registration is due.
        Expired = "expired",
        /// Another listener took the place of this one.
        Replaced = "replaced",
        /// Pings went unanswered.
        Silent = "silent",
        /// The network or TLS failed.
        Network = "network",
        /// This process is going down.
        Shutdown = "shutdown",
    }
}

label_values! {
    /// How a turn ended.
    TurnOutcome {
        /// The agent finished.
        Completed = "completed",
        /// Somebody stopped it.
        Cancelled = "cancelled",
        /// It failed after all retries.
        Failed = "failed",
    }
}

label_values! {
    /// How a tool call ended.
    ToolOutcome {
        /// The tool returned a result.
        Success = "success",
        /// The tool returned an error.
        Error = "error",
        /// Rules or a human refused it.
        Denied = "denied",
        /// The turn was stopped meanwhile.
        Cancelled = "cancelled",
    }
}

label_values! {
    /// What became of a due schedule.
    CronOutcome {
        /// Its prompt was queued.
        Fired = "fired",
        /// It was due while nothing ran here, and too long ago.
        Missed = "missed",
        /// Its prompt could not be queued.
        Failed = "failed",
        /// Its life was over.
        Expired = "expired",
    }
}

label_values! {
    /// What became of a token refresh.
    RefreshOutcome {
        /// New tokens came.
        Success = "success",
        /// The server refused for good.
        Refused = "refused",
        /// It could not be tried: network or server trouble.
        Failed = "failed",
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Label<const KEY: u8, V>(V);

/// Keys of the one-label sets.
const REASON: u8 = 0;
const OUTCOME: u8 = 1;

impl<const KEY: u8, V: EncodeLabelValue> EncodeLabelSet for Label<KEY, V> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        let key = if KEY == REASON { "reason" } else { "outcome" };
        encode_label(encoder, key, &self.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ToolLabels {
    tool: &'static str,
    outcome: ToolOutcome,
}

impl EncodeLabelSet for ToolLabels {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        encode_label(encoder, "tool", &self.tool)?;
        encode_label(encoder, "outcome", &self.outcome)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ToolName(&'static str);

impl EncodeLabelSet for ToolName {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        encode_label(encoder, "tool", &self.0)
    }
}

fn encode_label(
    encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    key: &str,
    value: &impl EncodeLabelValue,
) -> Result<(), std::fmt::Error> {
    use prometheus_client::encoding::EncodeLabelKey;
    let mut label = encoder.encode_label();
    let mut label_key = label.encode_label_key()?;
    EncodeLabelKey::encode(&key, &mut label_key)?;
    let mut label_value = label_key.encode_label_value()?;
    value.encode(&mut label_value)?;
    label_value.finish()
}

/// Seconds with a fraction, as a gauge holds them.
type Seconds = Gauge<f64, AtomicU64>;

/// Handles to every metric. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    tools: Arc<BTreeSet<&'static str>>,
    relay_connected: Gauge,
    relay_connects: Counter,
    relay_disconnects: Family<Label<REASON, DisconnectReason>, Counter>,
    relay_reconnect_attempts: Counter,
    relay_last_pong: Seconds,
    outbound_queue: Gauge,
    turns: Family<Label<OUTCOME, TurnOutcome>, Counter>,
    turn_duration: Histogram,
    tool_calls: Family<ToolLabels, Counter>,
    tool_duration: Family<ToolName, Histogram>,
    approvals_pending: Gauge,
    queue_depth: Gauge,
    active_turns: Gauge,
    cron_lease_held: Gauge,
    cron_next_fire: Seconds,
    cron_fires: Family<Label<OUTCOME, CronOutcome>, Counter>,
    auth_refresh: Family<Label<OUTCOME, RefreshOutcome>, Counter>,
    subagents_running: Gauge,
    subagents: Family<Label<OUTCOME, TurnOutcome>, Counter>,
    subagents_lost: Counter,
    children: Gauge,
}

impl Metrics {
    /// All series at zero. `tools` are the names that the `tool` label may take;
    /// calls of any other tool count as `other`.
    pub fn new(version: &'static str, tools: impl IntoIterator<Item = &'static str>) -> Self {
        let mut registry = Registry::with_prefix("letta");
        let build = Info::new([("version", version), ("arch", std::env::consts::ARCH)]);
        // Info metrics get the suffix `_info` in the output.
        registry.register("build", "Version and architecture of this binary", build);
        registry.register_collector(Box::new(ProcessCollector));
        let r = &mut registry;
        let mut metrics = Self {
            registry: Arc::default(),
            tools: Arc::new(tools.into_iter().collect()),
            relay_connected: add(r, "relay_connected", "1 while the relay connection is open"),
            relay_connects: add(r, "relay_connects", "Relay connections opened"),
            relay_disconnects: add(r, "relay_disconnects", "Relay connections ended, by reason"),
            relay_reconnect_attempts: add(
                r,
                "relay_reconnect_attempts",
                "Attempts to connect again",
            ),
            relay_last_pong: add(
                r,
                "relay_last_pong_timestamp_seconds",
                "When the relay last answered a ping, seconds since the epoch",
            ),
            outbound_queue: add(r, "outbound_queue_frames", "Frames waiting to be sent"),
            turns: add(r, "turns", "Turns ended, by outcome"),
            turn_duration: new_histogram(),
            tool_calls: add(r, "tool_calls", "Tool calls ended, by tool and outcome"),
            tool_duration: Family::new_with_constructor(new_histogram),
            approvals_pending: add(r, "approvals_pending", "Tool calls waiting for a human"),
            queue_depth: add(r, "queue_depth", "Messages waiting for their turn"),
            active_turns: add(r, "active_turns", "Turns running now"),
            cron_lease_held: add(
                r,
                "cron_lease_held",
                "1 while this process fires the schedules",
            ),
            cron_next_fire: add(
                r,
                "cron_next_fire_timestamp_seconds",
                "When the next schedule is due, seconds since the epoch; 0 without one",
            ),
            cron_fires: add(r, "cron_fires", "Due schedules, by outcome"),
            auth_refresh: add(r, "auth_refresh", "Token refreshes, by outcome"),
            subagents_running: add(r, "subagents_running", "Subagents at work"),
            subagents: add(r, "subagents", "Subagents ended, by outcome"),
            subagents_lost: add(
                r,
                "subagents_lost",
                "Subagents of an earlier process reported as lost or late",
            ),
            children: add(r, "children", "Child processes running"),
        };
        registry.register(
            "turn_duration_seconds",
            "How long turns took",
            metrics.turn_duration.clone(),
        );
        registry.register(
            "tool_duration_seconds",
            "How long tools ran",
            metrics.tool_duration.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics.show_every_outcome();
        metrics
    }

    /// A counter that appears with its first increment has no rate for it, so
    /// every series with a closed label starts at zero.
    fn show_every_outcome(&self) {
        for reason in DisconnectReason::ALL {
            drop(self.relay_disconnects.get_or_create(&Label(*reason)));
        }
        for outcome in TurnOutcome::ALL {
            drop(self.turns.get_or_create(&Label(*outcome)));
            drop(self.subagents.get_or_create(&Label(*outcome)));
        }
        for outcome in CronOutcome::ALL {
            drop(self.cron_fires.get_or_create(&Label(*outcome)));
        }
        for outcome in RefreshOutcome::ALL {
            drop(self.auth_refresh.get_or_create(&Label(*outcome)));
        }
    }

    /// The relay connection opened.
    pub fn relay_opened(&self) {
        self.relay_connected.set(1);
        self.relay_connects.inc();
    }

    /// The relay connection ended.
    pub fn relay_closed(&self, reason: DisconnectReason) {
        self.relay_connected.set(0);
        self.relay_disconnects.get_or_create(&Label(reason)).inc();
    }

    /// One attempt to connect again begins.
    pub fn relay_reconnecting(&self) {
        self.relay_reconnect_attempts.inc();
    }

    /// The relay answered a ping.
    pub fn relay_ponged(&self, at: SystemTime) {
        self.relay_last_pong.set(epoch_seconds(at));
    }

    /// How many frames wait to be sent.
    pub fn set_outbound_queue(&self, frames: usize) {
        self.outbound_queue.set(gauge_value(frames));
    }

    /// A turn ended after `took`.
    pub fn turn_ended(&self, outcome: TurnOutcome, took: Duration) {
        self.turns.get_or_create(&Label(outcome)).inc();
        self.turn_duration.observe(took.as_secs_f64());
    }

    /// A tool call ended; `took` is `None` when the tool never ran.
    pub fn tool_ended(&self, tool: &str, outcome: ToolOutcome, took: Option<Duration>) {
        let tool = self.tools.get(tool).copied().unwrap_or(OTHER_TOOL);
        self.tool_calls
            .get_or_create(&ToolLabels { tool, outcome })
            .inc();
        if let Some(took) = took {
            self.tool_duration
                .get_or_create(&ToolName(tool))
                .observe(took.as_secs_f64());
        }
    }

    /// How many tool calls wait for a human.
    pub fn set_approvals_pending(&self, calls: usize) {
        self.approvals_pending.set(gauge_value(calls));
    }

    /// How many messages wait for their turn, over all conversations.
    pub fn set_queue_depth(&self, messages: usize) {
        self.queue_depth.set(gauge_value(messages));
    }

    /// How many turns run.
    pub fn set_active_turns(&self, turns: usize) {
        self.active_turns.set(gauge_value(turns));
    }

    /// Whether this process fires the schedules.
    pub fn set_cron_lease(&self, held: bool) {
        self.cron_lease_held.set(i64::from(held));
    }

    /// When the next schedule is due.
    pub fn set_cron_next_fire(&self, at: Option<SystemTime>) {
        self.cron_next_fire.set(at.map_or(0.0, epoch_seconds));
    }

    /// A schedule was due.
    pub fn cron_fired(&self, outcome: CronOutcome) {
        self.cron_fires.get_or_create(&Label(outcome)).inc();
    }

    /// A token refresh was tried.
    pub fn auth_refreshed(&self, outcome: RefreshOutcome) {
        self.auth_refresh.get_or_create(&Label(outcome)).inc();
    }

    /// A subagent began.
    pub fn subagent_started(&self) {
        self.subagents_running.inc();
    }

    /// A subagent ended.
    pub fn subagent_ended(&self, outcome: TurnOutcome) {
        self.subagents_running.dec();
        self.subagents.get_or_create(&Label(outcome)).inc();
    }

    /// A subagent of an earlier process was told of.
    pub fn subagent_lost(&self) {
        self.subagents_lost.inc();
    }

    /// A child process started.
    pub fn child_started(&self) {
        self.children.inc();
    }

    /// A child process ended.
    pub fn child_ended(&self) {
        self.children.dec();
    }

    /// Everything in the text format of OpenMetrics, which Prometheus reads.
    pub fn render(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail; a collector that did would end the page early.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

/// Makes a metric and puts it on the page.
fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn new_histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn epoch_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new("1.2.3", ["Bash", "Read"])
    }

    fn value(page: &str, series: &str) -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series} in\n{page}"))
            .trim()
            .parse()
            .unwrap()
    }

    #[test]
    fn every_documented_series_is_on_the_page() {
        let metrics = metrics();
        metrics.tool_ended("Bash", ToolOutcome::Success, Some(Duration::from_secs(2)));
        let page = metrics.render();
        for (series, expected) in [
            ("letta_build_info{version=\"1.2.3\",", None),
            ("letta_relay_connected ", Some(0.0)),
            ("letta_relay_connects_total ", Some(0.0)),
            (
                "letta_relay_disconnects_total{reason=\"silent\"} ",
                Some(0.0),
            ),
            ("letta_relay_reconnect_attempts_total ", Some(0.0)),
            ("letta_relay_last_pong_timestamp_seconds ", Some(0.0)),
            ("letta_outbound_queue_frames ", Some(0.0)),
            ("letta_turns_total{outcome=\"completed\"} ", Some(0.0)),
            ("letta_turn_duration_seconds_count ", Some(0.0)),
            (
                "letta_tool_calls_total{tool=\"Bash\",outcome=\"success\"} ",
                Some(1.0),
            ),
            ("letta_tool_duration_seconds_sum{tool=\"Bash\"} ", Some(2.0)),
            ("letta_subagents_running ", Some(0.0)),
            ("letta_subagents_total{outcome=\"cancelled\"} ", Some(0.0)),
            ("letta_subagents_lost_total ", Some(0.0)),
            ("letta_approvals_pending ", Some(0.0)),
            ("letta_queue_depth ", Some(0.0)),
            ("letta_active_turns ", Some(0.0)),
            ("letta_cron_lease_held ", Some(0.0)),
            ("letta_cron_next_fire_timestamp_seconds ", Some(0.0)),
            ("letta_cron_fires_total{outcome=\"missed\"} ", Some(0.0)),
            ("letta_auth_refresh_total{outcome=\"refused\"} ", Some(0.0)),
            ("letta_children ", Some(0.0)),
            ("letta_process_cpu_seconds_total ", None),
            ("letta_process_resident_memory_bytes ", None),
            ("letta_process_open_fds ", None),
            ("letta_process_start_time_seconds ", None),
        ] {
            assert!(page.contains(series), "no {series} in\n{page}");
            if let Some(expected) = expected {
                assert_eq!(value(&page, series), expected, "{series}");
            }
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn clones_count_together() {
        let metrics = metrics();
        let clone = metrics.clone();
        clone.relay_opened();
        clone.relay_closed(DisconnectReason::Network);
        clone.relay_opened();
        clone.relay_ponged(SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        clone.turn_ended(TurnOutcome::Failed, Duration::from_secs(3));
        clone.set_queue_depth(7);
        clone.child_started();
        let page = metrics.render();
        assert_eq!(value(&page, "letta_relay_connected "), 1.0);
        assert_eq!(value(&page, "letta_relay_connects_total "), 2.0);
        assert_eq!(
            value(&page, "letta_relay_disconnects_total{reason=\"network\"} "),
            1.0
        );
        assert_eq!(
            value(&page, "letta_relay_last_pong_timestamp_seconds "),
            1.5
        );
        assert_eq!(value(&page, "letta_turns_total{outcome=\"failed\"} "), 1.0);
        assert_eq!(value(&page, "letta_turn_duration_seconds_sum "), 3.0);
        assert_eq!(value(&page, "letta_queue_depth "), 7.0);
        assert_eq!(value(&page, "letta_children "), 1.0);
    }

    #[test]
    fn foreign_tool_names_never_become_labels() {
        let metrics = metrics();
        for name in ["mcp__private", "agent-123", "Bash\"} 1\nforged"] {
            metrics.tool_ended(name, ToolOutcome::Error, None);
        }
        let page = metrics.render();
        assert!(
            !page.contains("private") && !page.contains("agent-123") && !page.contains("forged")
        );
        assert_eq!(
            value(
                &page,
                "letta_tool_calls_total{tool=\"other\",outcome=\"error\"} "
            ),
            3.0
        );
        assert!(!page.contains("letta_tool_duration_seconds_count{tool=\"other\"}"));
    }
}

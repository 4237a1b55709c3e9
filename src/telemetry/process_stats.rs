//! What the kernel says about this process, for `process_*` metrics.
//!
//! Reads `/proc/self` when asked and keeps nothing. Those reads are answered
//! from memory in microseconds, so they are safe on the async runtime.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks per second in `/proc/*/stat`: fixed by the kernel's interface on the
/// architectures this program is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// A look at this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// Memory in RAM, bytes.
    pub resident_bytes: u64,
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// When it started, seconds since the epoch.
    pub start_time_seconds: f64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Threads.
    pub threads: u64,
}

impl ProcessStats {
    /// Reads the numbers of this process; zero where `/proc` does not tell.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let system = fs::read_to_string("/proc/stat").unwrap_or_default();
        // The directory that is being listed is one of the descriptors.
        let open_fds = fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count().saturating_sub(1));
        Self {
            open_fds: open_fds as u64,
            ..Self::parse(&status, &stat, &system)
        }
    }

    fn parse(status: &str, stat: &str, system: &str) -> Self {
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0)
        };
        // The second field is the name in brackets and may hold anything.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let numbers: Vec<&str> = after_name.split_whitespace().collect();
        // Numbered as in proc(5), where the state after the name is field 3.
        let ticks = |number: usize| {
            let value = numbers.get(number - 3).and_then(|n| n.parse::<u64>().ok());
            value.unwrap_or(0) as f64 / TICKS_PER_SECOND
        };
        Self {
            resident_bytes: field(status, "VmRSS:") * 1024,
            cpu_seconds: ticks(14) + ticks(15),
            start_time_seconds: field(system, "btime ") as f64 + ticks(22),
            open_fds: 0,
            threads: field(status, "Threads:"),
        }
    }
}

/// Adds `process_*` to a registry; the numbers are read at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stats = ProcessStats::read();
        let mut gauge = |name: &str, help: &str, value: f64| {
            let metric = ConstGauge::new(value);
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)
        };
        gauge(
            "process_resident_memory_bytes",
            "Memory in RAM",
            stats.resident_bytes as f64,
        )?;
        gauge(
            "process_open_fds",
            "Open file descriptors",
            stats.open_fds as f64,
        )?;
        gauge("process_threads", "Threads", stats.threads as f64)?;
        gauge(
            "process_start_time_seconds",
            "When the process started, seconds since the epoch",
            stats.start_time_seconds,
        )?;
        let cpu = ConstCounter::new(stats.cpu_seconds);
        let encoder = encoder.encode_descriptor(
            "process_cpu_seconds",
            "User and system CPU time",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_by_field() {
        let status = "Name:\tletta\nVmRSS:\t    8192 kB\nThreads:\t4\n";
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 2500 1 1";
        let system = "cpu 1 2\nbtime 1700000000\n";
        assert_eq!(
            ProcessStats::parse(status, stat, system),
            ProcessStats {
                resident_bytes: 8 << 20,
                cpu_seconds: 2.0,
                start_time_seconds: 1_700_000_025.0,
                open_fds: 0,
                threads: 4,
            }
        );
        assert_eq!(ProcessStats::parse("", "", ""), ProcessStats::default());
    }

    #[test]
    fn this_process_is_alive() {
        let before = ProcessStats::read();
        assert!(before.resident_bytes > 100_000 && before.threads >= 1);
        assert!(before.start_time_seconds > 1.6e9);
        let held: Vec<_> = (0..8)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests of this process open and close files meanwhile.
        assert!(ProcessStats::read().open_fds >= held.len() as u64);
    }
}

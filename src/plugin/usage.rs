//! What a plugin cost: counted at every call in constant time and memory, shown in one line at the end of a run.

use std::fmt;
use std::time::Duration;

/// Buckets per power of two: durations are known to within 6 %.
const STEPS: usize = 16;
const BUCKETS: usize = 64 * STEPS;

/// The cost of one plugin so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Usage {
    /// The plugin's name in the run.
    pub name: String,
    /// Calls of hooks, without `init` and `close`.
    pub calls: u64,
    /// Time in those calls.
    pub total: Duration,
    /// Half of the calls took at most this.
    pub median: Duration,
    /// 99 of 100 calls took at most this.
    pub p99: Duration,
    /// Most bytes of guest memory at one time.
    pub peak_memory: u64,
    /// Times the guest was stopped: panics, limits, time.
    pub traps: u64,
    /// Reads of tensor elements, each of which waits for the device.
    pub reads: u64,
    /// Fresh stores after a trap.
    pub restarts: u64,
    /// Log lines left out because of their limit.
    pub dropped_lines: u64,
}

/// The same before it is summed up: of one instance, or of several.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub durations: Durations,
    pub peak_memory: u64,
    pub traps: u64,
    pub reads: u64,
    pub restarts: u64,
    pub dropped_lines: u64,
}

impl Tally {
    /// Adds another instance; memories were held at the same time.
    pub(super) fn add(&mut self, other: &Self) {
        self.durations.merge(&other.durations);
        self.peak_memory += other.peak_memory;
        self.traps += other.traps;
        self.reads += other.reads;
        self.restarts += other.restarts;
        self.dropped_lines += other.dropped_lines;
    }

    pub(super) fn usage(&self, name: &str) -> Usage {
        Usage {
            name: name.to_owned(),
            calls: self.durations.calls(),
            total: self.durations.total(),
            median: self.durations.quantile(0.5),
            p99: self.durations.quantile(0.99),
            peak_memory: self.peak_memory,
            traps: self.traps,
            reads: self.reads,
            restarts: self.restarts,
            dropped_lines: self.dropped_lines,
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} calls, {:.1} ms in all, median {:.1?}, p99 {:.1?}, memory {:.1} MiB, {} reads, {} traps",
            self.calls,
            self.total.as_secs_f64() * 1000.0,
            self.median,
            self.p99,
            self.peak_memory as f64 / f64::from(1 << 20),
            self.reads,
            self.traps,
        )
    }
}

/// Durations in buckets of equal relative width.
#[derive(Clone, Debug)]
pub(super) struct Durations {
    counts: Vec<u32>,
    calls: u64,
    total: Duration,
}

impl Default for Durations {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            calls: 0,
            total: Duration::ZERO,
        }
    }
}

impl Durations {
    pub(super) fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let count = &mut self.counts[bucket(nanos)];
        *count = count.saturating_add(1);
        self.calls += 1;
        self.total += duration;
    }

    fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count = count.saturating_add(*more);
        }
        self.calls += other.calls;
        self.total += other.total;
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// The upper end of the bucket below which the given share of the calls lies.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let wanted = (self.calls as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(upper(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(1);
    let power = nanos.ilog2() as usize;
    // The four bits after the leading one.
    let step = if power >= 4 {
        (nanos >> (power - 4)) as usize & (STEPS - 1)
    } else {
        (nanos << (4 - power)) as usize & (STEPS - 1)
    };
    power * STEPS + step
}

fn upper(index: usize) -> u64 {
    let (power, step) = (index / STEPS, index % STEPS);
    let width = 2_f64.powi(power as i32) / STEPS as f64;
    (2_f64.powi(power as i32) + width * (step + 1) as f64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_sixteenth() {
        let mut durations = Durations::default();
        for micros in 1..=1000_u64 {
            durations.add(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 500.0), (0.99, 990.0), (0.001, 1.0), (1.0, 1000.0)] {
            let found = durations.quantile(share).as_secs_f64() * 1e6;
            assert!(
                (micros..=micros * 1.07).contains(&found),
                "{share}: {found}"
            );
        }
        assert_eq!(durations.calls(), 1000);
        assert_eq!(durations.total(), Duration::from_micros(500_500));
        assert_eq!(Durations::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn instances_are_added_up() {
        let mut sum = Tally::default();
        for micros in [100, 900] {
            let mut one = Tally {
                peak_memory: 64,
                reads: 2,
                ..Tally::default()
            };
            one.durations.add(Duration::from_micros(micros));
            sum.add(&one);
        }
        let usage = sum.usage("x");
        assert_eq!((usage.calls, usage.peak_memory, usage.reads), (2, 128, 4));
        assert_eq!(usage.total, Duration::from_micros(1000));
        assert!(
            usage.median < Duration::from_micros(110) && usage.p99 > Duration::from_micros(850)
        );
    }

    #[test]
    fn every_duration_has_a_bucket() {
        for nanos in [0, 1, 2, 3, 15, 16, 17, u64::MAX] {
            let index = bucket(nanos);
            assert!(index < BUCKETS);
            assert!(
                upper(index) as f64 >= nanos as f64 * 0.999 || nanos == u64::MAX,
                "{nanos}"
            );
        }
    }
}

//! What an evaluation will hold in memory, foreseen after its first batch.

use std::fs;

/// A metric that keeps everything is asked for its numbers while the batches and the whole are both there.
const COPIES: f64 = 2.0;
const GIBIBYTE: f64 = (1_u64 << 30) as f64;

/// Memory that can be had: what the machine has free, or what is left of the control group's limit.
pub(super) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .as_deref()
        .and_then(free);
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}")).ok()?;
        text.trim().parse().ok()
    };
    let group = number("max")
        .zip(number("current"))
        .map(|(limit, used)| limit.saturating_sub(used));
    [machine, group].into_iter().flatten().min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn free(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

/// What a metric that holds `held` bytes after `done` of `rows` rows will need, if that is more than there is.
pub(super) fn excess(
    (metric, held): (&str, u64),
    (done, rows): (usize, usize),
    available: u64,
) -> Option<String> {
    let needed = held as f64 / done.max(1) as f64 * rows as f64 * COPIES;
    if needed <= available as f64 {
        return None;
    }
    let (needed, available) = (needed / GIBIBYTE, available as f64 / GIBIBYTE);
    Some(format!(
        "metric {metric} keeps all outputs: about {needed:.1} GiB for {rows} rows, and {available:.1} GiB of memory are free; \
         --max_eval_samples evaluates fewer rows, --prediction_loss_only keeps none; a plugin that exports the streaming \
         metrics or makes the outputs smaller (argmax) needs no such memory"
    ))
}

#[cfg(test)]
mod tests {
    use super::{available, excess, free};

    #[test]
    fn only_what_does_not_fit_is_told() {
        // 100,000 rows of 30,000 float32 logits, in batches of 8.
        let held = 8 * 30_000 * 4;
        let told = excess(("f1", held), (8, 100_000), 8 << 30).expect("22 GiB are more than 8");
        assert!(
            told.starts_with("metric f1 keeps all outputs: about 22.4 GiB for 100000 rows, and 8.0 GiB of memory are free; --max_eval_samples"),
            "{told}"
        );
        assert!(told.contains("--prediction_loss_only"));
        assert_eq!(excess(("f1", held), (8, 100_000), 32 << 30), None);
        assert_eq!(excess(("f1", 0), (8, 100_000), 0), None);
    }

    #[test]
    fn free_memory_is_read() {
        let text = "MemTotal:  100 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(free(text), Some(2 << 20));
        assert_eq!(free("MemTotal:  100 kB\n"), None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}

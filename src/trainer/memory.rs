//! How much memory the stages of a run take (field 80, spec 3.12): resident memory of the process at the beginning, at the
//! end, and at its peak, which a thread watches.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

/// Between two looks of the thread. The reference's looks all the time and takes a processor.
const INTERVAL: Duration = Duration::from_millis(2);
/// Linux counts `statm` in pages of this size on x86-64.
const PAGE_BYTES: u64 = 4096;

/// Measures one stage at a time; a stage inside another is part of it.
#[derive(Debug, Default)]
pub(super) struct MemoryTracker {
    stage: Option<Stage>,
    /// What the first report carries besides its own stage.
    init: Option<Measured>,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    begin: u64,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    begin: u64,
    end: u64,
    peak: u64,
}

impl MemoryTracker {
    /// Begins a stage, unless one has begun.
    pub(super) fn begin(&mut self, name: &'static str) -> Result<()> {
        if self.stage.is_none() {
            self.stage = Some(Stage::begin(name)?);
        }
        Ok(())
    }

    /// Ends the stage of construction; the first report tells of it.
    pub(super) fn end_init(&mut self) -> Result<()> {
        if let Some(stage) = self.stage.take() {
            self.init = Some(stage.end()?);
        }
        Ok(())
    }

    /// Ends the stage `name` and adds what it took to `metrics`; nothing if it is part of another one.
    pub(super) fn end(&mut self, name: &str, metrics: &mut Vec<(String, f64)>) -> Result<()> {
        let Some(stage) = self.stage.take_if(|stage| stage.name == name) else {
            return Ok(());
        };
        let measured = stage.end()?;
        let init = self.init.take();
        for (stage, measured) in init
            .map(|init| ("init", init))
            .into_iter()
            .chain([(name, measured)])
        {
            metrics.extend(measured.metrics(stage));
        }
        if let Some(init) = init {
            metrics.push(("before_init_mem_cpu".to_owned(), init.begin as f64));
        }
        Ok(())
    }
}

impl Stage {
    fn begin(name: &'static str) -> Result<Self> {
        let begin = resident_bytes()?;
        let (peak, over) = (
            Arc::new(AtomicU64::new(begin)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, told) = (Arc::clone(&peak), Arc::clone(&over));
        let watch = move || {
            while !told.load(Ordering::Relaxed) {
                // What cannot be read at this moment is looked at again at the next.
                seen.fetch_max(resident_bytes().unwrap_or(0), Ordering::Relaxed);
                thread::sleep(INTERVAL);
            }
        };
        let thread = thread::Builder::new()
            .name("memory".to_owned())
            .spawn(watch)
            .context("the thread that watches memory cannot be started")?;
        Ok(Self {
            name,
            begin,
            peak,
            over,
            thread: Some(thread),
        })
    }

    fn end(mut self) -> Result<Measured> {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, its peak is what it saw until then.
            let _ = thread.join();
        }
        Ok(Measured {
            begin: self.begin,
            end: resident_bytes()?,
            peak: self.peak.load(Ordering::Relaxed),
        })
    }
}

/// A stage that an error or a signal has ended is not reported, but its thread must end too.
impl Drop for Stage {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Measured {
    fn metrics(self, stage: &str) -> [(String, f64); 2] {
        let delta = self.end as f64 - self.begin as f64;
        let peaked = self.peak.saturating_sub(self.end) as f64;
        [
            (format!("{stage}_mem_cpu_alloc_delta"), delta),
            (format!("{stage}_mem_cpu_peaked_delta"), peaked),
        ]
    }
}

/// Resident memory of this process.
fn resident_bytes() -> Result<u64> {
    let path = "/proc/self/statm";
    let text = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse::<u64>().ok());
    Ok(pages.with_context(|| format!("{path} is not as Linux writes it"))? * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: usize = 1 << 20;

    /// Pages that are really there.
    fn touched(mebibytes: usize) -> Vec<u8> {
        std::hint::black_box(vec![1; mebibytes * MEBIBYTE])
    }

    #[test]
    fn what_is_kept_and_what_was_only_needed_are_told_apart() {
        let mut tracker = MemoryTracker::default();
        tracker.begin("init").expect("begun");
        tracker.end_init().expect("ended");
        tracker.begin("train").expect("begun");
        let kept = touched(256);
        let needed = touched(512);
        thread::sleep(20 * INTERVAL);
        drop(needed);
        tracker.begin("eval").expect("inside another stage");
        let mut metrics = Vec::new();
        tracker.end("eval", &mut metrics).expect("part of training");
        assert_eq!(metrics, []);
        tracker.end("train", &mut metrics).expect("ended");
        let names: Vec<_> = metrics.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "init_mem_cpu_alloc_delta",
            "init_mem_cpu_peaked_delta",
            "train_mem_cpu_alloc_delta",
            "train_mem_cpu_peaked_delta",
            "before_init_mem_cpu",
        ];
        assert_eq!(names, expected);
        // Other tests take and give memory at the same time.
        let near = |value: f64, mebibytes: f64| (value / MEBIBYTE as f64 - mebibytes).abs() < 160.0;
        assert!(near(metrics[2].1, 256.0), "{metrics:?}");
        assert!(near(metrics[3].1, 512.0), "{metrics:?}");
        drop(kept);
        tracker.begin("eval").expect("begun");
        let mut metrics = Vec::new();
        tracker.end("eval", &mut metrics).expect("ended");
        assert_eq!(metrics.len(), 2, "construction is told of once");
    }
}

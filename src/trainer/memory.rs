//! How much memory the stages of a run take (field 80, spec 3.12), at the beginning, at the end, and at the peak: resident
//! memory of the process, which a thread watches, and what libtorch has allocated on the run's GPU, which it counts itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use tch::Device;

use crate::torch;

/// Between two looks of the thread. The reference's looks all the time and takes a processor.
const INTERVAL: Duration = Duration::from_millis(2);
/// Linux counts `statm` in pages of this size on x86-64.
const PAGE_BYTES: u64 = 4096;

/// Measures one stage at a time; a stage inside another is part of it.
#[derive(Debug)]
pub(super) struct MemoryTracker {
    /// The run's GPU.
    gpu: Option<usize>,
    stage: Option<Stage>,
    /// What the first report carries besides its own stage.
    init: Option<Measured>,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    begin: u64,
    /// The run's GPU, and what was allocated on it.
    gpu: Option<(usize, u64)>,
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measured {
    cpu: Bytes,
    gpu: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bytes {
    begin: u64,
    end: u64,
    peak: u64,
}

impl MemoryTracker {
    /// For a run on `device`.
    pub(super) fn new(device: Device) -> Self {
        Self {
            gpu: match device {
                Device::Cuda(index) => Some(index),
                _ => None,
            },
            stage: None,
            init: None,
        }
    }

    /// Begins a stage, unless one has begun.
    pub(super) fn begin(&mut self, name: &'static str) -> Result<()> {
        if self.stage.is_none() {
            self.stage = Some(Stage::begin(name, self.gpu)?);
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
            metrics.push(("before_init_mem_cpu".to_owned(), init.cpu.begin as f64));
            if let Some(gpu) = init.gpu {
                metrics.push(("before_init_mem_gpu".to_owned(), gpu.begin as f64));
            }
        }
        Ok(())
    }
}

impl Stage {
    fn begin(name: &'static str, gpu: Option<usize>) -> Result<Self> {
        let begin = resident_bytes()?;
        let gpu = match gpu {
            Some(index) => {
                torch::cuda_forget_peak(index)?;
                Some((index, torch::cuda_memory(index)?.allocated))
            }
            None => None,
        };
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
            gpu,
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
        let gpu = match self.gpu {
            Some((index, begin)) => {
                let now = torch::cuda_memory(index)?;
                Some(Bytes {
                    begin,
                    end: now.allocated,
                    peak: now.peak,
                })
            }
            None => None,
        };
        Ok(Measured {
            cpu: Bytes {
                begin: self.begin,
                end: resident_bytes()?,
                peak: self.peak.load(Ordering::Relaxed),
            },
            gpu,
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
    /// In the reference's order.
    fn metrics(self, stage: &str) -> Vec<(String, f64)> {
        let places = [("cpu", Some(self.cpu)), ("gpu", self.gpu)];
        let named = |measure: &'static str, of: fn(Bytes) -> f64| {
            let places = places.into_iter();
            places.filter_map(move |(place, bytes)| {
                Some((format!("{stage}_mem_{place}_{measure}_delta"), of(bytes?)))
            })
        };
        let allocated = named("alloc", |bytes| bytes.end as f64 - bytes.begin as f64);
        let peaked = named("peaked", |bytes| {
            bytes.peak.saturating_sub(bytes.end) as f64
        });
        allocated.chain(peaked).collect()
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
    fn a_gpu_is_told_of_beside_the_cpu() {
        let bytes = |begin, end, peak| Bytes { begin, end, peak };
        let measured = Measured {
            cpu: bytes(10, 30, 35),
            gpu: Some(bytes(8, 4, 20)),
        };
        let expected = [
            ("eval_mem_cpu_alloc_delta", 20.0),
            ("eval_mem_gpu_alloc_delta", -4.0),
            ("eval_mem_cpu_peaked_delta", 5.0),
            ("eval_mem_gpu_peaked_delta", 16.0),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(measured.metrics("eval"), expected);
    }

    #[test]
    fn what_is_kept_and_what_was_only_needed_are_told_apart() {
        let mut tracker = MemoryTracker::new(Device::Cpu);
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

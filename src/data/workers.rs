//! Threads that make batches: batch `i` of an epoch by worker `i mod count`, handed out in order, two batches ahead of
//! each worker.
//!
//! Each worker draws from a generator of its own, seeded with the epoch's base seed plus its number modulo 2^32, as the
//! reference seeds its worker processes (spec 1.1, field 54): the default generator is left to the model.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, ensure};

use super::loader::LoadedBatch;
use super::maker::{Job, Maker};
use crate::torch::Generator;

/// Batches that a worker makes ahead (`prefetch_factor` of the reference).
pub(super) const PREFETCH: usize = 2;

/// A finished batch, and the worker's generator after it if it draws.
type Finished = (Result<LoadedBatch>, Option<Vec<u8>>);

struct Worker {
    jobs: Option<SyncSender<Job>>,
    finished: Receiver<Result<Finished>>,
    thread: Option<JoinHandle<()>>,
    /// The generator as it was after the last batch that was handed out.
    state: Vec<u8>,
}

/// The workers of one epoch. They end when it does, after the batches that they have in hand.
pub(super) struct Crew {
    workers: Vec<Worker>,
    is_random: bool,
}

impl Crew {
    /// Starts `count` workers; `states` are their generators, one after the other, where an epoch goes on.
    pub fn start(
        maker: &Arc<Maker>,
        count: usize,
        (base_seed, states): (i64, Option<&[u8]>),
    ) -> Result<Self> {
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let seed = base_seed.wrapping_add(i64::try_from(number)?) as u32;
            let mut generator = Generator::seeded(u64::from(seed))?;
            if let Some(states) = states {
                let size = states.len() / count;
                generator.set_state(&states[number * size..(number + 1) * size])?;
            }
            workers.push(Worker::start(maker.clone(), number, generator)?);
        }
        Ok(Self {
            workers,
            is_random: maker.is_random(),
        })
    }

    /// Batches that may be under way.
    pub fn capacity(&self) -> usize {
        self.workers.len() * PREFETCH
    }

    /// Has batch `index` made. There must be room for it.
    pub fn send(&mut self, index: usize, job: Job) -> Result<()> {
        let count = self.workers.len();
        let worker = &mut self.workers[index % count];
        let sent = worker
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        ensure!(sent, worker.why_it_ended());
        Ok(())
    }

    /// Waits for batch `index`, the next in order. With it goes what following batches are drawn from.
    pub fn receive(&mut self, index: usize) -> Result<LoadedBatch> {
        let count = self.workers.len();
        let worker = &mut self.workers[index % count];
        let (batch, state) = match worker.finished.recv() {
            Ok(finished) => finished?,
            Err(_) => return Err(worker.why_it_ended()),
        };
        if let Some(state) = state {
            worker.state = state;
        }
        let mut batch = batch?;
        if self.is_random {
            let states = self.workers.iter().map(|worker| &worker.state[..]);
            batch.draws = Some(states.collect::<Vec<_>>().concat());
        }
        Ok(batch)
    }
}

impl Worker {
    fn start(maker: Arc<Maker>, number: usize, mut generator: Generator) -> Result<Self> {
        let state = generator.state()?;
        let (jobs, waiting) = sync_channel::<Job>(PREFETCH);
        let (done, finished) = sync_channel(PREFETCH);
        let work = move || {
            let _no_gradients = tch::no_grad_guard();
            for job in waiting {
                let batch = maker.make(job, &mut generator);
                let state = maker.is_random().then(|| generator.state()).transpose();
                // Nobody waits any more when the epoch has ended early.
                if done.send(state.map(|state| (batch, state))).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name(format!("data-{number}"))
            .spawn(work)
            .context("starting a data worker; lower --dataloader_num_workers")?;
        Ok(Self {
            jobs: Some(jobs),
            finished,
            thread: Some(thread),
            state,
        })
    }

    /// A worker ends by itself only if it panics.
    fn why_it_ended(&mut self) -> anyhow::Error {
        let ended = self.thread.take().map(JoinHandle::join);
        let reason = match &ended {
            Some(Err(panic)) => text_of(&**panic),
            _ => "it is gone",
        };
        anyhow!("a data worker failed: {reason}")
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
}

impl Drop for Crew {
    fn drop(&mut self) {
        // All of them are told before the first is waited for.
        for worker in &mut self.workers {
            worker.jobs = None;
        }
        for worker in &mut self.workers {
            while worker.finished.recv().is_ok() {}
            if let Some(thread) = worker.thread.take() {
                // How it ended has been told, or is of no interest any more.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::Result;
    use tch::Tensor;

    use crate::data::collator::BadExample;
    use crate::data::loader::{Batching, Epoch, LoadedBatch, Loader};
    use crate::data::sampler::{Random, Sequential};
    use crate::data::{Batch, Collator, Dataset, Example, Sampler, Table, Value};
    use crate::torch::testing::seeded;
    use crate::torch::{Generator, default_generator_state};

    /// The rows' numbers, and one random number for each batch. Refuses the row 13, and panics at the row 17.
    struct Drawing;

    impl Collator for Drawing {
        fn collate(&self, examples: &[Example], draws: &mut Generator) -> Result<Batch> {
            let numbers: Vec<i64> = examples.iter().map(number).collect();
            if let Some(position) = numbers.iter().position(|number| *number == 13) {
                let message = "13 is refused".to_owned();
                return Err(BadExample { position, message }.into());
            }
            assert!(!numbers.contains(&17), "17 is too much");
            let drawn = vec![draws.random_int64()?; numbers.len()];
            let columns = vec![
                ("x".into(), Tensor::f_from_slice(&numbers)?),
                ("drawn".into(), Tensor::f_from_slice(&drawn)?),
            ];
            Ok(Batch { columns })
        }

        fn is_random(&self) -> bool {
            true
        }
    }

    fn number(example: &Example) -> i64 {
        match example.columns[0].1 {
            Value::Int(number) => number,
            _ => panic!("a number"),
        }
    }

    fn rows(count: i64) -> Arc<Table> {
        let row = |number| Example {
            columns: vec![("x".into(), Value::Int(number))],
        };
        let rows: Vec<Example> = (0..count).map(row).collect();
        Arc::new(Table::from_examples(&rows).expect("a table"))
    }

    fn loader(dataset: &Arc<Table>, workers: usize, sampler: Box<dyn Sampler>) -> Loader {
        let batching = Batching {
            workers,
            ..Batching::new(Box::new(Drawing), 2)
        };
        Loader::new((dataset.clone(), sampler), batching).expect("a loader")
    }

    fn batches(epoch: Epoch<'_>) -> Vec<LoadedBatch> {
        epoch.collect::<Result<_>>().expect("batches")
    }

    fn column(batch: &LoadedBatch, name: &str) -> Vec<i64> {
        let tensor = batch.batch.get(name).expect("a column");
        Vec::try_from(tensor).expect("numbers")
    }

    #[test]
    fn workers_make_the_same_batches_and_leave_the_default_generator_to_the_model() {
        let dataset = rows(11);
        let pass = |workers| {
            seeded(42, || {
                let mut loader = loader(&dataset, workers, Box::new(Random::new()));
                let made = batches(loader.epoch().expect("an epoch"));
                let numbers: Vec<_> = made.iter().map(|batch| column(batch, "x")).collect();
                (numbers, default_generator_state().expect("a state"))
            })
        };
        let (alone, after_own_draws) = pass(0);
        let (first, after) = pass(1);
        assert_eq!(first, alone);
        for workers in [2, 3, 8] {
            assert_eq!(pass(workers), (alone.clone(), after.clone()), "{workers}");
        }
        // Without workers the collator draws from the default generator.
        assert_ne!(after, after_own_draws);
    }

    /// Field 54: worker w draws from a generator seeded with the base seed plus w, modulo 2^32; batch i is made by i mod W.
    #[test]
    fn workers_are_seeded_as_the_references() {
        // The first draw after seed 42 (spec 3.5).
        const BASE_SEED: i64 = 6_909_045_637_428_952_499;
        let dataset = rows(10);
        let made = seeded(42, || {
            let mut loader = loader(&dataset, 2, Box::new(Sequential));
            batches(loader.epoch().expect("an epoch"))
        });
        let mut own: Vec<Generator> = (0..2)
            .map(|worker| {
                let seed = (BASE_SEED + worker) as u64 % (1 << 32);
                Generator::seeded(seed).expect("a generator")
            })
            .collect();
        for (index, batch) in made.iter().enumerate() {
            let expected = own[index % 2].random_int64().expect("a draw");
            assert_eq!(column(batch, "drawn"), [expected; 2], "batch {index}");
        }
    }

    #[test]
    fn what_is_drawn_goes_on_after_any_batch() {
        let dataset = rows(12);
        for workers in [0, 1, 3] {
            seeded(42, || {
                let mut whole = loader(&dataset, workers, Box::new(Random::new()));
                let epoch = whole.epoch().expect("an epoch");
                let start = epoch.start().clone();
                let expected = batches(epoch);
                for done in 1..expected.len() {
                    let draws = expected[done - 1].draws.as_deref();
                    let mut resumed = loader(&dataset, workers, Box::new(Random::new()));
                    let mut epoch = resumed.resume_epoch(&start, done, draws).expect("an epoch");
                    epoch.prepare();
                    let next = epoch.next().expect("a batch").expect("a batch");
                    for name in ["x", "drawn"] {
                        let (found, expected) = (column(&next, name), &expected[done]);
                        assert_eq!(found, column(expected, name), "{workers} workers, {done}");
                    }
                }
            });
        }
    }

    #[test]
    fn an_epoch_that_ends_early_leaves_no_worker_behind() {
        let dataset = rows(12);
        seeded(1, || {
            let mut loader = loader(&dataset, 3, Box::new(Sequential));
            let mut epoch = loader.epoch().expect("an epoch");
            assert!(epoch.next().expect("a batch").is_ok());
            drop(epoch);
            drop(loader);
            assert_eq!(Arc::strong_count(&dataset), 1);
        });
    }

    #[test]
    fn a_refused_row_is_named_after_the_batches_before_it_and_a_panic_is_an_error() {
        for (count, good, expected) in [
            (16, 6, "row 13: 13 is refused"),
            (12, 6, ""),
            (18, 6, "row 13: 13 is refused"),
        ] {
            let dataset = rows(count);
            seeded(1, || {
                let mut loader = loader(&dataset, 2, Box::new(Sequential));
                let mut epoch = loader.epoch().expect("an epoch");
                for _ in 0..good {
                    epoch.next().expect("a batch").expect("a good batch");
                }
                match epoch.next() {
                    None => assert_eq!(expected, ""),
                    Some(batch) => {
                        let error = batch.expect_err("a bad row");
                        assert_eq!(error.to_string(), expected);
                        assert!(epoch.next().is_none());
                    }
                }
            });
        }
        let table = Table::from_examples(&[Example {
            columns: vec![("x".into(), Value::Int(17))],
        }]);
        let dataset = Arc::new(table.expect("a table"));
        assert_eq!(dataset.len(), 1);
        seeded(1, || {
            let mut loader = loader(&dataset, 2, Box::new(Sequential));
            let mut epoch = loader.epoch().expect("an epoch");
            let error = epoch.next().expect("a batch").expect_err("a panic");
            assert_eq!(error.to_string(), "a data worker failed: 17 is too much");
        });
    }
}

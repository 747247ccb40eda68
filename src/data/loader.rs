//! Batches of an epoch, in the reference's order and with its random draws, one batch ahead (spec 3.5).
//!
//! Each epoch draws one int64 from the default generator when it begins (the loader's base seed), then whatever the
//! sampler draws at the first batch. What an epoch began with is kept, so that its order can be made again. With workers
//! the batches and these draws are the same; only what a collator draws comes from the workers' own generators.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Error, Result, bail, ensure};
use tch::Device;

use super::maker::{Job, Maker, Source};
use super::stream::{Convert, Pass, Stream};
use super::workers::Crew;
use super::{Batch, Collator, Dataset, Place, Sampler};
use crate::error::Failure;
use crate::torch::{
    Generator, default_generator_state, default_random_int64, set_default_generator_state,
};

const OTHER_DATA: &str = "go on with the same data and batch size, or add --ignore_data_skip to begin the epoch's data again";

fn check_skip(count: usize, len: usize) -> Result<()> {
    if count <= len {
        return Ok(());
    }
    let message = format!("cannot skip {count} batches of an epoch with {len}");
    Err(Failure::data(message).hint(OTHER_DATA).into())
}

/// What is needed to make an epoch's order again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The default generator right before the epoch's first draw, 5056 bytes.
    pub generator: Vec<u8>,
    /// The sampler's own state, if it has one.
    pub sampler: Option<Vec<u8>>,
    /// Rows of the data set, 0 for a stream: the same draws give another order of another number.
    pub num_rows: usize,
}

/// A batch and the rows it is made of.
#[derive(Debug)]
pub struct LoadedBatch {
    /// The tensors.
    pub batch: Batch,
    /// Row numbers in the data set, in the order of the batch.
    pub rows: Vec<usize>,
    /// For collators that draw: the generators (the default one's state, or those of all workers one after the other) from
    /// which the batches after this one are drawn.
    pub draws: Option<Vec<u8>>,
}

/// Where rows come from.
enum Rows {
    /// Any row at any time, in a sampler's order.
    Mapped(Box<dyn Sampler>),
    /// One after the other.
    Streamed(Box<dyn Stream>),
}

/// Batches rows.
pub struct Loader {
    rows: Rows,
    maker: Arc<Maker>,
    batch_size: usize,
    drop_last: bool,
    workers: usize,
    /// Rows that the last pass over a stream has handed out.
    passed: usize,
}

/// How a loader makes batches of its rows.
pub struct Batching {
    /// How rows become tensors.
    pub collator: Box<dyn Collator>,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
    /// Threads that make batches; 0: the caller does.
    pub workers: usize,
    /// Make batches in page-locked memory, from where they go to this GPU faster.
    pub pin_for: Option<Device>,
}

impl Batching {
    /// Every row, without workers, in ordinary memory.
    pub fn new(collator: Box<dyn Collator>, batch_size: usize) -> Self {
        Self {
            collator,
            batch_size,
            drop_last: false,
            workers: 0,
            pin_for: None,
        }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, batch_size, drop_last) = (&self.num_rows(), &self.batch_size, &self.drop_last);
        formatter
            .debug_struct("Loader")
            .field("rows", rows)
            .field("batch_size", batch_size)
            .field("drop_last", drop_last)
            .field("workers", &self.workers)
            .finish()
    }
}

impl Loader {
    /// A loader that has drawn nothing yet, over rows that are in memory, in the order of `sampler`.
    pub fn new(
        (dataset, sampler): (Arc<dyn Dataset>, Box<dyn Sampler>),
        batching: Batching,
    ) -> Result<Self> {
        Self::of((Rows::Mapped(sampler), Source::Mapped(dataset)), batching)
    }

    /// A loader that reads its rows when they are needed, and makes rows for the model of them.
    pub fn streaming(
        (stream, convert): (Box<dyn Stream>, Box<dyn Convert>),
        batching: Batching,
    ) -> Result<Self> {
        Self::of(
            (Rows::Streamed(stream), Source::Streamed(convert)),
            batching,
        )
    }

    fn of((rows, source): (Rows, Source), batching: Batching) -> Result<Self> {
        let Batching {
            collator,
            batch_size,
            drop_last,
            workers,
            pin_for,
        } = batching;
        ensure!(
            batch_size > 0,
            Failure::usage("the batch size must be at least 1")
        );
        let maker = Maker {
            source,
            collator,
            pin_for,
        };
        Ok(Self {
            rows,
            maker: Arc::new(maker),
            batch_size,
            drop_last,
            workers,
            passed: 0,
        })
    }

    /// Batches of an epoch; `None`: not known before it ends.
    pub fn num_batches(&self) -> Option<usize> {
        let rows = self.num_rows()?;
        Some(if self.drop_last {
            rows / self.batch_size
        } else {
            rows.div_ceil(self.batch_size)
        })
    }

    /// Rows of the data set; `None`: not known before they are read.
    pub fn num_rows(&self) -> Option<usize> {
        match &self.maker.source {
            Source::Mapped(dataset) => Some(dataset.len()),
            Source::Streamed(_) => None,
        }
    }

    /// Rows of the data set, or those that the last pass over a stream has handed out.
    pub fn rows_passed(&self) -> usize {
        self.num_rows().unwrap_or(self.passed)
    }

    /// Rows of a batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Rows of a batch from the next epoch on. The sampler keeps its own idea of it.
    pub fn set_batch_size(&mut self, batch_size: usize) -> Result<()> {
        ensure!(
            batch_size > 0,
            Failure::usage("the batch size must be at least 1")
        );
        self.batch_size = batch_size;
        Ok(())
    }

    /// The sampler's own state, if it has one.
    pub fn sampler_state(&self) -> Result<Option<Vec<u8>>> {
        match &self.rows {
            Rows::Mapped(sampler) => sampler.state(),
            Rows::Streamed(_) => Ok(None),
        }
    }

    /// Takes the sampler back to a state.
    pub fn restore_sampler(&mut self, state: &[u8]) -> Result<()> {
        match &mut self.rows {
            Rows::Mapped(sampler) => sampler.load_state(state),
            Rows::Streamed(_) => bail!("a stream has no sampler"),
        }
    }

    /// Begins the next epoch: draws the base seed. The order is drawn with the first batch.
    pub fn epoch(&mut self) -> Result<Epoch<'_>> {
        let start = EpochStart {
            generator: default_generator_state()?,
            sampler: match &self.rows {
                Rows::Mapped(sampler) => sampler.state()?,
                Rows::Streamed(_) => None,
            },
            num_rows: self.num_rows().unwrap_or(0),
        };
        let base_seed = default_random_int64()?;
        Ok(Epoch::new(self, start, base_seed))
    }

    /// Makes the epoch that began with `start` again and continues it after `skip` batches, whose rows are not used; with
    /// `draws` of the last of them a random collator goes on as it would have. The default generator is left as it is: the
    /// caller restores it to where it was in the middle of that epoch.
    pub fn resume_epoch(
        &mut self,
        start: &EpochStart,
        skip: usize,
        draws: Option<&[u8]>,
    ) -> Result<Epoch<'_>> {
        let num_rows = self.num_rows().unwrap_or(0);
        if num_rows != start.num_rows {
            let message = format!(
                "the epoch was begun with {} rows, and now there are {num_rows}",
                start.num_rows
            );
            return Err(Failure::data(message).hint(OTHER_DATA).into());
        }
        if let Some(len) = self.num_batches() {
            check_skip(skip, len)?;
        }
        let now = default_generator_state()?;
        set_default_generator_state(&start.generator)?;
        let drawn = self.draw_again(start, num_rows);
        set_default_generator_state(&now)?;
        let (base_seed, order) = drawn.context("making the order of the epoch again")?;
        let mut epoch = Epoch::new(self, start.clone(), base_seed);
        epoch.order = order;
        epoch.next = skip;
        epoch.delivered = skip;
        epoch.go_on_from(draws)?;
        Ok(epoch)
    }

    /// What the epoch drew: its base seed and, of rows in memory, its order.
    fn draw_again(&mut self, start: &EpochStart, num_rows: usize) -> Result<(i64, Option<Order>)> {
        let Rows::Mapped(sampler) = &mut self.rows else {
            return Ok((default_random_int64()?, None));
        };
        if let Some(state) = &start.sampler {
            sampler.load_state(state)?;
        }
        let base_seed = default_random_int64()?;
        Ok((base_seed, Some(Order::Known(sampler.order(num_rows)?))))
    }

    /// Draws what a whole epoch draws for its order, and reads nothing: for epochs that an earlier run has finished.
    pub fn pass_over_epoch(&mut self) -> Result<()> {
        default_random_int64()?;
        let num_rows = self.num_rows().unwrap_or(0);
        match &mut self.rows {
            Rows::Mapped(sampler) => sampler.order(num_rows).map(|_| ()),
            Rows::Streamed(_) => Ok(()),
        }
    }

    /// The order of an epoch's rows; `skip` rows of a stream are left out.
    fn order(&mut self, skip: usize) -> Result<Order> {
        let num_rows = self.num_rows().unwrap_or(0);
        match &mut self.rows {
            Rows::Mapped(sampler) => Ok(Order::Known(sampler.order(num_rows)?)),
            Rows::Streamed(stream) => {
                let mut pass = stream.open()?;
                let skipped = pass.skip(skip)?;
                if skipped < skip {
                    let message = format!("cannot skip {skip} rows of a stream with {skipped}");
                    return Err(Failure::data(message).hint(OTHER_DATA).into());
                }
                Ok(Order::AsRead(pass))
            }
        }
    }
}

/// The order in which an epoch visits its rows.
enum Order {
    Known(Vec<usize>),
    AsRead(Box<dyn Pass>),
}

/// The batches of one epoch.
pub struct Epoch<'a> {
    loader: &'a mut Loader,
    start: EpochStart,
    base_seed: i64,
    order: Option<Order>,
    /// The batch to be begun next.
    next: usize,
    /// Batches handed out, skipped ones included.
    delivered: usize,
    /// What a random collator goes on from, once.
    draws: Option<Vec<u8>>,
    /// Without workers: the batch to be handed out next, made while the one before was in use.
    ready: Option<Result<LoadedBatch>>,
    /// With workers: they, once the first batch was asked for.
    crew: Option<Crew>,
    /// With workers: why no further batch is begun; told when the batches before it are handed out.
    failure: Option<Error>,
    is_exhausted: bool,
}

impl fmt::Debug for Epoch<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Epoch")
            .field("loader", &self.loader)
            .field("delivered", &self.delivered)
            .finish()
    }
}

impl<'a> Epoch<'a> {
    fn new(loader: &'a mut Loader, start: EpochStart, base_seed: i64) -> Self {
        loader.passed = 0;
        Self {
            loader,
            start,
            base_seed,
            order: None,
            next: 0,
            delivered: 0,
            draws: None,
            ready: None,
            crew: None,
            failure: None,
            is_exhausted: false,
        }
    }

    /// What the epoch began with.
    pub fn start(&self) -> &EpochStart {
        &self.start
    }

    /// Batches handed out so far, skipped ones included: with [`Epoch::start`], the position of exact resumption.
    pub fn delivered(&self) -> usize {
        self.delivered
    }

    /// Leaves out the first `count` batches without using their rows; the draws are those of the whole epoch. Only
    /// before the first batch.
    pub fn skip_batches(&mut self, count: usize) -> Result<()> {
        ensure!(
            self.next == self.delivered && self.order.is_none(),
            "batches can be skipped only at the beginning of an epoch"
        );
        if let Some(len) = self.loader.num_batches() {
            check_skip(count, len)?;
        }
        self.next = count;
        self.delivered = count;
        Ok(())
    }

    /// Takes up the generators of a collator that draws, if they are those of as many workers.
    fn go_on_from(&mut self, draws: Option<&[u8]>) -> Result<()> {
        let Some(draws) = draws.filter(|_| self.loader.maker.is_random()) else {
            return Ok(());
        };
        let expected = self.start.generator.len() * self.loader.workers.max(1);
        if draws.len() == expected {
            self.draws = Some(draws.to_vec());
        } else {
            let before = draws.len() / self.start.generator.len();
            tracing::warn!(
                "the run was begun with {before} data workers, or none: what its collator draws from here on differs"
            );
        }
        Ok(())
    }

    /// Makes the order and the next batch now, so that all they draw is drawn: what follows a restored generator is then
    /// the batch after it. Only before the first batch.
    pub fn prepare(&mut self) {
        if self.ready.is_some() || self.crew.is_some() {
            return;
        }
        if self.loader.workers > 0 {
            self.fill();
        } else {
            self.ready = self.make_first();
        }
    }

    /// Without workers: the first batch, drawn from where the collator stood.
    fn make_first(&mut self) -> Option<Result<LoadedBatch>> {
        let Some(draws) = self.draws.take() else {
            return self.make();
        };
        let made = default_generator_state().and_then(|now| {
            set_default_generator_state(&draws)?;
            let made = self.make();
            set_default_generator_state(&now)?;
            Ok(made)
        });
        made.unwrap_or_else(|error| Some(Err(error)))
    }

    /// Without workers: makes the next batch; the first time also the order.
    fn make(&mut self) -> Option<Result<LoadedBatch>> {
        let make = |epoch: &mut Self| {
            let Some(job) = epoch.next_job()? else {
                return Ok(None);
            };
            let mut draws = Generator::default_cpu()?;
            epoch.loader.maker.make(job, &mut draws).map(Some)
        };
        make(self).transpose()
    }

    /// What the next batch is made of; `None` at the end.
    fn next_job(&mut self) -> Result<Option<Job>> {
        let size = self.loader.batch_size;
        let done = self.next.saturating_mul(size);
        if self.order.is_none() {
            let order = self.loader.order(done);
            self.order = Some(order.context("making the order of an epoch")?);
        }
        let place = Place {
            epoch: self.base_seed,
            batch: self.next,
            worker: self.next % self.loader.workers.max(1),
        };
        let job = match &mut self.order {
            Some(Order::Known(order)) => Job {
                place,
                rows: order.iter().skip(done).take(size).copied().collect(),
                raw: None,
            },
            Some(Order::AsRead(pass)) => {
                let raw = pass.read(size)?;
                Job {
                    place,
                    rows: (done..done + raw.rows()).collect(),
                    raw: Some(raw),
                }
            }
            None => return Ok(None),
        };
        let is_short = job.rows.len() < size;
        if job.rows.is_empty() || (self.loader.drop_last && is_short) {
            return Ok(None);
        }
        self.next += 1;
        Ok(Some(job))
    }

    /// With workers: has them make as many batches as they may be ahead.
    fn fill(&mut self) {
        if let Err(error) = self.try_fill() {
            self.failure = Some(error);
            self.is_exhausted = true;
        }
    }

    fn try_fill(&mut self) -> Result<()> {
        if self.crew.is_none() {
            let (maker, workers) = (&self.loader.maker, self.loader.workers);
            let draws = (self.base_seed, self.draws.as_deref());
            self.crew = Some(Crew::start(maker, workers, draws)?);
        }
        let capacity = self.crew.as_ref().map_or(0, Crew::capacity);
        while !self.is_exhausted && self.next - self.delivered < capacity {
            let index = self.next;
            match (self.next_job()?, &mut self.crew) {
                (Some(job), Some(crew)) => crew.send(index, job)?,
                _ => self.is_exhausted = true,
            }
        }
        Ok(())
    }

    fn next_of_crew(&mut self) -> Option<Result<LoadedBatch>> {
        self.fill();
        if self.next == self.delivered {
            return self.failure.take().map(Err);
        }
        let received = self.crew.as_mut()?.receive(self.delivered);
        self.delivered += 1;
        match received {
            Ok(batch) => {
                // While this batch is in use the workers have something to do.
                self.fill();
                Some(Ok(batch))
            }
            Err(error) => {
                self.is_exhausted = true;
                self.next = self.delivered;
                Some(Err(error))
            }
        }
    }

    fn next_of_caller(&mut self) -> Option<Result<LoadedBatch>> {
        let is_first = self.next == self.delivered;
        let current = match self.ready.take() {
            None if is_first => self.make_first(),
            ready => ready,
        }?;
        self.delivered += 1;
        let ahead = |epoch: &mut Self, mut batch: LoadedBatch| {
            if epoch.loader.maker.is_random() {
                batch.draws = Some(default_generator_state()?);
            }
            // The reference makes the following batch before the current one is used; random collators show it.
            epoch.ready = epoch.make();
            Ok(batch)
        };
        Some(current.and_then(|batch| ahead(self, batch)))
    }
}

impl Iterator for Epoch<'_> {
    type Item = Result<LoadedBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = if self.loader.workers > 0 {
            self.next_of_crew()
        } else {
            self.next_of_caller()
        };
        if let Some(Ok(batch)) = &next {
            self.loader.passed += batch.rows.len();
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use anyhow::Result;

    use super::{Batching, Epoch, Loader};
    use crate::data::collator::DefaultCollator;
    use crate::data::sampler::{LengthGrouped, Random, Sequential};
    use crate::data::{Batch, Collator, Dataset, Example, Sampler, Table, Value};
    use crate::torch::testing::seeded;
    use crate::torch::{Generator, default_generator_state, default_random_int64};

    fn numbers(len: usize) -> Arc<dyn Dataset> {
        let rows: Vec<Example> = (0..len)
            .map(|row| Example {
                columns: vec![("x".into(), Value::Int(row as i64))],
            })
            .collect();
        Arc::new(Table::from_examples(&rows).expect("a table"))
    }

    fn loader(len: usize, batch_size: usize, sampler: Box<dyn Sampler>) -> Loader {
        let batching = Batching::new(Box::new(DefaultCollator), batch_size);
        Loader::new((numbers(len), sampler), batching).expect("a loader")
    }

    fn rows(epoch: Epoch<'_>) -> Vec<Vec<usize>> {
        epoch.map(|batch| batch.expect("a batch").rows).collect()
    }

    // Rows 11 and 13 of the spec.
    #[test]
    fn lengths_are_the_references() {
        for (len, batch_size, drop_last, expected) in [
            (18, 4, false, 5),
            (18, 4, true, 4),
            (66, 16, false, 5),
            (66, 16, true, 4),
            (74, 32, false, 3),
            (74, 32, true, 2),
            (0, 4, false, 0),
        ] {
            let mut loader = loader(len, batch_size, Box::new(Sequential));
            loader.drop_last = drop_last;
            assert_eq!(loader.num_batches(), Some(expected));
            let batches = seeded(1, || rows(loader.epoch().expect("an epoch")));
            assert_eq!(batches.len(), expected);
            let full = len / batch_size * batch_size;
            let visited = if drop_last { full } else { len };
            assert_eq!(batches.concat(), (0..visited).collect::<Vec<_>>());
        }
        let batching = Batching::new(Box::new(DefaultCollator), 0);
        assert!(Loader::new((numbers(1), Box::new(Sequential)), batching).is_err());
    }

    // Appendix A of the spec.
    #[test]
    fn the_first_epoch_is_the_references() {
        let expected = "32 26 19 6 10 17 50 11|7 33 36 29 42 28 61 62|31 30 13 43 22 39 45 37|56 60 53 5 51 21 25 55|\
                        16 58 35 38 27 9 40 12|57 46 44 34 54 15 49 18|41 4 47 48 1 20 63 2|59 14 52 23 3 24 8 0";
        let batches = seeded(42, || {
            rows(
                loader(64, 8, Box::new(Random::new()))
                    .epoch()
                    .expect("an epoch"),
            )
        });
        let text: Vec<String> = batches
            .iter()
            .map(|rows| {
                rows.iter()
                    .map(usize::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(text.join("|"), expected);
    }

    #[test]
    fn a_sequential_pass_draws_one_number() {
        seeded(42, || {
            let mut loader = loader(10, 4, Box::new(Sequential));
            assert_eq!(
                rows(loader.epoch().expect("an epoch")),
                [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]
            );
            // The second of the draws of spec 3.5.
            assert_eq!(
                default_random_int64().expect("a draw"),
                8_314_211_556_539_077_902
            );
        });
    }

    /// Notes each call, as a collator whose moment matters.
    struct Noting(Arc<Mutex<Vec<String>>>);

    impl Collator for Noting {
        fn collate(&self, examples: &[Example], draws: &mut Generator) -> Result<Batch> {
            self.0
                .lock()
                .expect("the notes")
                .push(format!("collate {}", examples.len()));
            DefaultCollator.collate(examples, draws)
        }
    }

    #[test]
    fn the_loader_works_one_batch_ahead() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let batching = Batching::new(Box::new(Noting(notes.clone())), 2);
        let mut loader =
            Loader::new((numbers(6), Box::new(Sequential)), batching).expect("a loader");
        seeded(1, || {
            let mut epoch = loader.epoch().expect("an epoch");
            let mut step = 0;
            for batch in epoch.by_ref() {
                batch.expect("a batch");
                step += 1;
                notes
                    .lock()
                    .expect("the notes")
                    .push(format!("step {step}"));
            }
            assert!(epoch.next().is_none());
        });
        let expected = [
            "collate 2",
            "collate 2",
            "step 1",
            "collate 2",
            "step 2",
            "step 3",
        ];
        assert_eq!(*notes.lock().expect("the notes"), expected);
    }

    #[test]
    fn an_epoch_resumes_after_any_batch_and_leaves_the_default_generator_alone() {
        type Make = fn() -> Box<dyn Sampler>;
        let samplers: [Make; 4] = [
            || Box::new(Sequential),
            || Box::new(Random::new()),
            || Box::new(Random::seeded(5).expect("a sampler")),
            || {
                Box::new(
                    LengthGrouped::new((0..22).map(|row| row % 7).collect(), 8).expect("a sampler"),
                )
            },
        ];
        for make in samplers {
            seeded(42, || {
                let mut whole = loader(22, 4, make());
                rows(whole.epoch().expect("an epoch"));
                let epoch = whole.epoch().expect("an epoch");
                let start = epoch.start().clone();
                let expected = rows(epoch);
                let following = rows(whole.epoch().expect("an epoch"));
                for skip in 0..=6 {
                    let before = default_generator_state().expect("a state");
                    let mut resumed = loader(22, 4, make());
                    let epoch = resumed.resume_epoch(&start, skip, None).expect("an epoch");
                    assert_eq!((epoch.delivered(), epoch.start()), (skip, &start));
                    assert_eq!(rows(epoch), expected[skip..]);
                    assert_eq!(default_generator_state().expect("a state"), before);
                }
                assert!(loader(22, 4, make()).resume_epoch(&start, 7, None).is_err());
                // With a generator of its own, which lives on from epoch to epoch.
                let state = start.sampler.as_ref();
                if state.is_some_and(|state| state.len() == start.generator.len()) {
                    let mut resumed = loader(22, 4, make());
                    rows(resumed.resume_epoch(&start, 3, None).expect("an epoch"));
                    assert_eq!(rows(resumed.epoch().expect("an epoch")), following);
                }
            });
        }
    }

    #[test]
    fn skipping_and_passing_over_draw_as_the_whole_epoch() {
        let whole: Vec<_> = seeded(42, || {
            let mut loader = loader(20, 3, Box::new(Random::new()));
            (0..2)
                .map(|_| rows(loader.epoch().expect("an epoch")))
                .collect()
        });
        seeded(42, || {
            let mut loader = loader(20, 3, Box::new(Random::new()));
            loader.pass_over_epoch().expect("the draws");
            let mut epoch = loader.epoch().expect("an epoch");
            epoch.skip_batches(4).expect("four of seven");
            assert!(epoch.next().is_some());
            assert_eq!(epoch.delivered(), 5);
            assert!(epoch.skip_batches(1).is_err());
            assert_eq!(rows(epoch), whole[1][5..]);
            assert!(loader.epoch().expect("an epoch").skip_batches(8).is_err());
        });
    }

    #[test]
    fn a_bad_row_is_named_and_the_batches_before_are_delivered() {
        let mut examples: Vec<Example> = (0..4)
            .map(|row| Example {
                columns: vec![("x".into(), Value::Int(row))],
            })
            .collect();
        examples[3].columns[0].1 = Value::Null;
        let dataset = Arc::new(Table::from_examples(&examples).expect("a table"));
        let batching = Batching::new(Box::new(DefaultCollator), 2);
        let mut loader = Loader::new((dataset, Box::new(Sequential)), batching).expect("a loader");
        seeded(1, || {
            let mut epoch = loader.epoch().expect("an epoch");
            assert!(epoch.next().expect("a batch").is_ok());
            let error = epoch.next().expect("a batch").expect_err("a null");
            assert_eq!(
                error.to_string(),
                "row 3: field \"x\" is null, but not in all rows of the batch"
            );
        });
    }
}

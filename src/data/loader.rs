//! Batches of an epoch, in the reference's order and with its random draws, one batch ahead (spec 3.5).
//!
//! Each epoch draws one int64 from the default generator when it begins (the loader's base seed), then whatever the
//! sampler draws at the first batch. What an epoch began with is kept, so that its order can be made again.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Error, Result, ensure};

use super::collator::BadExample;
use super::{Batch, Collator, Dataset, Sampler};
use crate::error::Failure;
use crate::torch::{default_generator_state, default_random_int64, set_default_generator_state};

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
    /// Rows of the data set: the same draws give another order of another number.
    pub num_rows: usize,
}

/// A batch and the rows it is made of.
#[derive(Debug)]
pub struct LoadedBatch {
    /// The tensors.
    pub batch: Batch,
    /// Row numbers in the data set, in the order of the batch.
    pub rows: Vec<usize>,
}

/// Batches rows.
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    sampler: Box<dyn Sampler>,
    collator: Box<dyn Collator>,
    batch_size: usize,
    drop_last: bool,
}

/// The parts of a loader.
pub struct LoaderParts {
    /// The rows.
    pub dataset: Arc<dyn Dataset>,
    /// Their order.
    pub sampler: Box<dyn Sampler>,
    /// How they become tensors.
    pub collator: Box<dyn Collator>,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Leave out a last batch that is not full.
    pub drop_last: bool,
}

impl fmt::Debug for Loader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rows, batch_size, drop_last) =
            (&self.dataset.len(), &self.batch_size, &self.drop_last);
        formatter
            .debug_struct("Loader")
            .field("rows", rows)
            .field("batch_size", batch_size)
            .field("drop_last", drop_last)
            .finish()
    }
}

impl Loader {
    /// A loader that has drawn nothing yet.
    pub fn new(parts: LoaderParts) -> Result<Self> {
        let LoaderParts {
            dataset,
            sampler,
            collator,
            batch_size,
            drop_last,
        } = parts;
        ensure!(
            batch_size > 0,
            Failure::usage("the batch size must be at least 1")
        );
        Ok(Self {
            dataset,
            sampler,
            collator,
            batch_size,
            drop_last,
        })
    }

    /// Batches of an epoch.
    pub fn len(&self) -> usize {
        let rows = self.dataset.len();
        if self.drop_last {
            rows / self.batch_size
        } else {
            rows.div_ceil(self.batch_size)
        }
    }

    /// True if an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows that are batched.
    pub fn dataset(&self) -> &Arc<dyn Dataset> {
        &self.dataset
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
        self.sampler.state()
    }

    /// Takes the sampler back to a state.
    pub fn restore_sampler(&mut self, state: &[u8]) -> Result<()> {
        self.sampler.load_state(state)
    }

    /// Begins the next epoch: draws the base seed. The order is drawn with the first batch.
    pub fn epoch(&mut self) -> Result<Epoch<'_>> {
        let start = EpochStart {
            generator: default_generator_state()?,
            sampler: self.sampler.state()?,
            num_rows: self.dataset.len(),
        };
        default_random_int64()?;
        Ok(Epoch::new(self, start))
    }

    /// Makes the epoch that began with `start` again and continues it after `skip` batches, whose rows are not read. The
    /// default generator is left as it is: the caller restores it to where it was in the middle of that epoch. What a
    /// random collator drew for the batch ahead is not part of that, as in the reference.
    pub fn resume_epoch(&mut self, start: &EpochStart, skip: usize) -> Result<Epoch<'_>> {
        let num_rows = self.dataset.len();
        if num_rows != start.num_rows {
            let message = format!(
                "the epoch was begun with {} rows, and now there are {num_rows}",
                start.num_rows
            );
            return Err(Failure::data(message).hint(OTHER_DATA).into());
        }
        check_skip(skip, self.len())?;
        if let Some(state) = &start.sampler {
            self.sampler.load_state(state)?;
        }
        let now = default_generator_state()?;
        set_default_generator_state(&start.generator)?;
        let order = default_random_int64().and_then(|_| self.sampler.order(self.dataset.len()));
        set_default_generator_state(&now)?;
        let order = order.context("making the order of the epoch again")?;
        Ok(Epoch {
            order: Some(order),
            next: skip,
            delivered: skip,
            ..Epoch::new(self, start.clone())
        })
    }

    /// Draws what a whole epoch draws for its order, and reads nothing: for epochs that an earlier run has finished.
    pub fn pass_over_epoch(&mut self) -> Result<()> {
        default_random_int64()?;
        self.sampler.order(self.dataset.len()).map(|_| ())
    }

    fn load(&mut self, rows: Vec<usize>) -> Result<LoadedBatch> {
        let read = |row: &usize| {
            self.dataset
                .get(*row)
                .with_context(|| format!("reading {}", self.dataset.locate(*row)))
        };
        let examples = rows.iter().map(read).collect::<Result<Vec<_>>>()?;
        let batch = self
            .collator
            .collate(&examples)
            .map_err(|error| self.explain(error, &rows))?;
        Ok(LoadedBatch { batch, rows })
    }

    /// Says which row a collator has refused.
    fn explain(&self, error: Error, rows: &[usize]) -> Error {
        match error.downcast::<BadExample>() {
            Ok(bad) => {
                let place = rows
                    .get(bad.position)
                    .map_or_else(|| "a row".to_owned(), |row| self.dataset.locate(*row));
                Failure::data(format!("{place}: {}", bad.message)).into()
            }
            Err(error) => {
                let first = rows
                    .first()
                    .map_or_else(|| "no row".to_owned(), |row| self.dataset.locate(*row));
                error.context(format!(
                    "making a batch of {} rows that begins with {first}",
                    rows.len()
                ))
            }
        }
    }
}

/// The batches of one epoch.
pub struct Epoch<'a> {
    loader: &'a mut Loader,
    start: EpochStart,
    order: Option<Vec<usize>>,
    /// The batch to be made next.
    next: usize,
    /// Batches handed out, skipped ones included.
    delivered: usize,
    /// The batch to be handed out next, made while the one before was in use.
    ready: Option<Result<LoadedBatch>>,
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
    fn new(loader: &'a mut Loader, start: EpochStart) -> Self {
        Self {
            loader,
            start,
            order: None,
            next: 0,
            delivered: 0,
            ready: None,
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

    /// Leaves out the first `count` batches without reading their rows; the draws are those of the whole epoch. Only
    /// before the first batch.
    pub fn skip_batches(&mut self, count: usize) -> Result<()> {
        ensure!(
            self.next == self.delivered && self.order.is_none(),
            "batches can be skipped only at the beginning of an epoch"
        );
        check_skip(count, self.loader.len())?;
        self.next = count;
        self.delivered = count;
        Ok(())
    }

    /// Makes the order and the next batch now, so that all they draw is drawn: what follows a restored generator is then
    /// the batch after it. Only before the first batch.
    pub fn prepare(&mut self) {
        if self.ready.is_none() {
            self.ready = self.make();
        }
    }

    /// Makes the next batch; the first time also the order.
    fn make(&mut self) -> Option<Result<LoadedBatch>> {
        if self.order.is_none() {
            match self.loader.sampler.order(self.loader.dataset.len()) {
                Ok(order) => self.order = Some(order),
                Err(error) => return Some(Err(error.context("making the order of an epoch"))),
            }
        }
        let order = self.order.as_deref()?;
        let size = self.loader.batch_size;
        let rows = order
            .iter()
            .skip(self.next.saturating_mul(size))
            .take(size)
            .copied()
            .collect::<Vec<_>>();
        if rows.is_empty() || (self.loader.drop_last && rows.len() < size) {
            return None;
        }
        self.next += 1;
        Some(self.loader.load(rows))
    }
}

impl Iterator for Epoch<'_> {
    type Item = Result<LoadedBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_first = self.next == self.delivered;
        let current = match self.ready.take() {
            None if is_first => self.make(),
            ready => ready,
        }?;
        // The reference makes the following batch before the current one is used; random collators show it.
        self.ready = if current.is_ok() { self.make() } else { None };
        self.delivered += 1;
        Some(current)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use anyhow::Result;

    use super::{Epoch, Loader, LoaderParts};
    use crate::data::collator::DefaultCollator;
    use crate::data::sampler::{LengthGrouped, Random, Sequential};
    use crate::data::{Batch, Collator, Dataset, Example, Sampler, Table, Value};
    use crate::torch::testing::seeded;
    use crate::torch::{default_generator_state, default_random_int64};

    fn numbers(len: usize) -> Arc<dyn Dataset> {
        let rows: Vec<Example> = (0..len)
            .map(|row| Example {
                columns: vec![("x".into(), Value::Int(row as i64))],
            })
            .collect();
        Arc::new(Table::from_examples(&rows).expect("a table"))
    }

    fn loader(len: usize, batch_size: usize, sampler: Box<dyn Sampler>) -> Loader {
        let parts = LoaderParts {
            dataset: numbers(len),
            sampler,
            collator: Box::new(DefaultCollator),
            batch_size,
            drop_last: false,
        };
        Loader::new(parts).expect("a loader")
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
            assert_eq!(loader.len(), expected);
            let batches = seeded(1, || rows(loader.epoch().expect("an epoch")));
            assert_eq!(batches.len(), expected);
            let full = len / batch_size * batch_size;
            let visited = if drop_last { full } else { len };
            assert_eq!(batches.concat(), (0..visited).collect::<Vec<_>>());
        }
        let parts = LoaderParts {
            dataset: numbers(1),
            sampler: Box::new(Sequential),
            collator: Box::new(DefaultCollator),
            batch_size: 0,
            drop_last: false,
        };
        assert!(Loader::new(parts).is_err());
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
        fn collate(&mut self, examples: &[Example]) -> Result<Batch> {
            self.0
                .lock()
                .expect("the notes")
                .push(format!("collate {}", examples.len()));
            DefaultCollator.collate(examples)
        }
    }

    #[test]
    fn the_loader_works_one_batch_ahead() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let parts = LoaderParts {
            dataset: numbers(6),
            sampler: Box::new(Sequential),
            collator: Box::new(Noting(notes.clone())),
            batch_size: 3,
            drop_last: false,
        };
        let mut loader = Loader::new(LoaderParts {
            batch_size: 2,
            ..parts
        })
        .expect("a loader");
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
                    let epoch = resumed.resume_epoch(&start, skip).expect("an epoch");
                    assert_eq!((epoch.delivered(), epoch.start()), (skip, &start));
                    assert_eq!(rows(epoch), expected[skip..]);
                    assert_eq!(default_generator_state().expect("a state"), before);
                }
                assert!(loader(22, 4, make()).resume_epoch(&start, 7).is_err());
                if start.sampler.is_some() {
                    let mut resumed = loader(22, 4, make());
                    rows(resumed.resume_epoch(&start, 3).expect("an epoch"));
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
        let parts = LoaderParts {
            dataset,
            sampler: Box::new(Sequential),
            collator: Box::new(DefaultCollator),
            batch_size: 2,
            drop_last: false,
        };
        let mut loader = Loader::new(parts).expect("a loader");
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

//! What hooks are given, for the unit tests of a plugin: `cargo test` builds it for the machine it runs on, with tensors in
//! memory in the place of the host's. Only there; a component has none of this.
//!
//! ```ignore
//! #[test]
//! fn it_counts_what_is_right() {
//!     let plugin = testing::init::<Accuracy>("{}").unwrap();
//!     let mut pass = plugin.accumulator("");
//!     let batch = testing::BatchParts::new(2)
//!         .output("logits", Tensor::from_float32(&[2, 2], &[1.0, 0.0, 0.0, 1.0]).unwrap())
//!         .label("labels", Tensor::from_signed64(&[2], &[0, 0]).unwrap());
//!     pass.update(&batch.view()).unwrap();
//!     assert_eq!(pass.compute().unwrap(), [("accuracy".to_owned(), 0.5)]);
//! }
//! ```

use crate::batch::Batch;
use crate::context::{Checkpoint, Ctx, Rng, Run, Setup};
use crate::error::Result;
use crate::features::Features;
use crate::hooks::host::{artifact, data, rng, run};
use crate::plugin::{Plugin, config};
use crate::tensor::Tensor;

pub use crate::hooks::host::data::Cell;
pub use crate::hooks::host::run::{Asked, Ctx as CtxParts, Run as RunParts, Setup as SetupParts};
pub use crate::hooks::host::tokenizer::set_special;

/// A plugin from its configuration as JSON, with every value that the schema would fill in.
pub fn init<P: Plugin>(json: &str) -> Result<P> {
    init_with(json, &RunParts::default(), &SetupParts::default())
}

/// The same, in a run; `setup` notes what it asked for.
pub fn init_with<P: Plugin>(json: &str, run: &RunParts, setup: &SetupParts) -> Result<P> {
    P::init(config(json)?, &Run::new(run), &Setup::new(setup))
}

/// The parts of a batch.
#[derive(Debug, Default)]
pub struct BatchParts(data::Batch);

impl BatchParts {
    /// A batch of so many examples.
    pub fn new(size: u64) -> Self {
        Self(data::Batch {
            size,
            ..data::Batch::default()
        })
    }

    /// Adds an output.
    pub fn output(mut self, name: &str, tensor: Tensor) -> Self {
        self.0.outputs.push((name.to_owned(), tensor.into()));
        self
    }

    /// Adds a label column.
    pub fn label(mut self, name: &str, tensor: Tensor) -> Self {
        self.0.labels.push((name.to_owned(), tensor.into()));
        self
    }

    /// Adds another column.
    pub fn input(mut self, name: &str, tensor: Tensor) -> Self {
        self.0.inputs.push((name.to_owned(), tensor.into()));
        self
    }

    /// As a hook gets it.
    pub fn view(&self) -> Batch<'_> {
        Batch::new(&self.0)
    }
}

/// The rows of a batch, column by column.
#[derive(Debug, Default)]
pub struct Rows(data::Features);

impl Rows {
    /// Rows that are trained with, or evaluated.
    pub fn new(is_training: bool) -> Self {
        Self(data::Features {
            columns: Vec::new(),
            is_training,
        })
    }

    /// Adds a column.
    pub fn column(mut self, name: &str, cells: Vec<Cell>) -> Self {
        self.0.columns.push((name.to_owned(), cells));
        self
    }

    /// As a hook gets them.
    pub fn view(&self) -> Features<'_> {
        Features::new(&self.0)
    }
}

/// Random numbers from a seed.
#[derive(Debug)]
pub struct Stream(rng::Rng);

impl Stream {
    /// Another seed gives other numbers.
    pub fn new(seed: u64) -> Self {
        Self(rng::Rng::new(seed))
    }

    /// As a hook gets it.
    pub fn view(&self) -> Rng<'_> {
        Rng::new(&self.0)
    }
}

/// The context of a call as a hook gets it; `parts.asked` notes what it asks for.
pub fn ctx(parts: &run::Ctx) -> Ctx<'_> {
    Ctx::new(parts)
}

/// A checkpoint of files in memory.
#[derive(Debug, Default)]
pub struct CheckpointParts(artifact::Artifact);

impl CheckpointParts {
    /// An empty checkpoint of that name.
    pub fn new(name: &str) -> Self {
        Self(artifact::Artifact {
            name: name.to_owned(),
            files: Vec::new(),
        })
    }

    /// Adds a file.
    pub fn file(mut self, name: &str, bytes: &[u8]) -> Self {
        self.0.files.push((name.to_owned(), bytes.to_vec()));
        self
    }

    /// As a hook gets it.
    pub fn view(&self) -> Checkpoint<'_> {
        Checkpoint::new(&self.0)
    }
}

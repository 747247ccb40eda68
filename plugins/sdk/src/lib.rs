//! Write plugins for the trainer in Rust: implement [`Plugin`] and the trait of each hook, name them in [`export!`], and
//! build for `wasm32-wasip2`.
//!
//! ```ignore
//! use trainer_sdk::{Accumulator, Batch, Metrics, Plugin, Result, Run, Setup};
//!
//! struct Accuracy;
//! #[derive(Default)]
//! struct Counts { right: f64, all: f64 }
//!
//! impl Plugin for Accuracy {
//!     type Config = trainer_sdk::NoConfig;
//!     fn init(_: Self::Config, _: &Run, _: &Setup) -> Result<Self> { Ok(Self) }
//! }
//! impl Metrics for Accuracy {
//!     type Accumulator = Counts;
//!     fn accumulator(&self, _dataset: &str) -> Counts { Counts::default() }
//! }
//! impl Accumulator for Counts {
//!     fn update(&mut self, batch: &Batch) -> Result<()> {
//!         let right = batch.logits()?.argmax(-1)?.equal(&batch.target()?)?;
//!         self.right += right.sum_all()?.item()?;
//!         self.all += batch.size() as f64;
//!         Ok(())
//!     }
//!     fn compute(&self) -> Result<Vec<(String, f64)>> { Ok(vec![("accuracy".into(), self.right / self.all)]) }
//! }
//! trainer_sdk::manifest!("../manifest.json");
//! trainer_sdk::export!(Accuracy: metrics);
//! ```

mod batch;
mod context;
mod error;
mod features;
#[doc(hidden)]
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
#[cfg(not(target_family = "wasm"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod mock;
mod plugin;
mod tensor;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod tokenizer;

pub use batch::Batch;
pub use context::{Better, Checkpoint, Ctx, Level, Progress, Rng, Run, Setup, log};
pub use error::{Error, ErrorKind, Result};
pub use features::{Features, Padding};
pub use plugin::{
    Accumulator, CheckpointHooks, Collator, EpochHooks, EvalHooks, FaultHooks, LogHooks, Logits,
    Loss, Metrics, NoConfig, OptimizerHooks, Plugin, PredictionStepHooks, Report, ResumeHooks,
    Scalar, Stateful, StepHooks, SubstepHooks, TrainHooks, WholeMetrics,
};
pub use tensor::{Dtype, Tensor};

/// What the exporting macros need; not for direct use.
#[doc(hidden)]
pub mod private {
    pub use crate::batch::Batch;
    pub use crate::context::{Checkpoint, Ctx, Rng, Run, Setup};
    pub use crate::features::Features;
    pub use crate::plugin::{config, named};
}

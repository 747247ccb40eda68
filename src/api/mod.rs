//! The trainer for Rust programs: the eleven parameters of the reference's constructor (spec 2), with your own model, rows,
//! collator, optimizer and schedule, metrics and callbacks as trait objects.
//!
//! ```ignore
//! let arguments = TrainingArguments {
//!     output_dir: Some("out".into()),
//!     learning_rate: 0.1,
//!     ..TrainingArguments::default()
//! };
//! let mut trainer = Trainer::new(TrainerParts {
//!     train_dataset: Some(rows),
//!     ..TrainerParts::new(ModelSource::Model(model), arguments)
//! })?;
//! trainer.train(Resume::No)?;
//! trainer.save_model()?;
//! ```
//!
//! A whole program is in `examples/regression`. The loop is the one of `host train`: the same events, checkpoints and exact
//! resumption. Plugins that the arguments name run in their sandbox as there, but are compiled in the calling process.

mod prediction;
mod selected;
mod trainer;

pub use crate::config::arguments::Arguments as TrainingArguments;
pub use crate::config::run::Resume;
pub use prediction::PredictionOutput;
pub use selected::Selected;
pub use trainer::{
    MakeCollator, MakeModel, MakeOptimizers, ModelSource, Optimizers, Trainer, TrainerParts,
    parameter_groups,
};

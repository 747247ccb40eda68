//! Losses: from a model's outputs and the labels of a batch to one scalar with history.

use anyhow::Result;
use tch::Tensor;

use crate::data::Batch;
use crate::model::{Model, Outputs, ProblemType, Task};

mod binary_cross_entropy;
mod by_problem;
mod cross_entropy;
mod label_smoothing;
mod labels;
mod mean_squared_error;
mod model_loss;

pub use binary_cross_entropy::BinaryCrossEntropy;
pub use by_problem::ByProblem;
pub use cross_entropy::CrossEntropy;
pub use label_smoothing::LabelSmoothing;
pub use mean_squared_error::MeanSquaredError;
pub use model_loss::ModelLoss;

/// A training objective. The result is the mean over the batch; the trainer divides for accumulation (I6), never the loss.
pub trait Loss {
    /// `batch` still holds the label columns. Errors name the labels that do not fit the outputs.
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> Result<Tensor>;
    /// Label columns that must not reach `Model::forward` (label smoothing removes `labels` first, spec 3.10).
    fn withheld_columns(&self) -> &[String] {
        &[]
    }
}

/// What the built-in losses are made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    /// What a native model was built for; `None` for a TorchScript module.
    pub task: Option<Task>,
    /// `None`: the first labels decide, as in the reference.
    pub problem_type: Option<ProblemType>,
    /// Field 68; 0 is off.
    pub label_smoothing_factor: f64,
    /// Causal language models: output i predicts label i + 1.
    pub shift_labels: bool,
}

/// Makes one loss.
type Make = fn(&LossSettings) -> Box<dyn Loss>;

/// The losses that a user may name.
#[rustfmt::skip]
pub const BUILTIN: &[(&str, Make)] = &[
    ("model", |_| Box::new(ModelLoss)),
    ("cross_entropy", |_| Box::new(CrossEntropy)),
    ("mean_squared_error", |_| Box::new(MeanSquaredError)),
    ("binary_cross_entropy", |_| Box::new(BinaryCrossEntropy)),
    ("by_problem", |settings| Box::new(ByProblem::new(settings.problem_type))),
    ("label_smoothing", |settings| Box::new(LabelSmoothing::new(settings.label_smoothing_factor, settings.shift_labels))),
];

/// The loss that the reference would use: smoothed if asked for, else the one of the model's head, else the model's own.
pub fn for_model(model: &dyn Model, settings: &LossSettings) -> Box<dyn Loss> {
    if settings.label_smoothing_factor != 0.0 {
        return Box::new(LabelSmoothing::new(
            settings.label_smoothing_factor,
            settings.shift_labels,
        ));
    }
    match settings.task {
        Some(Task::SequenceClassification) if model.is_library_model() => {
            Box::new(ByProblem::new(settings.problem_type))
        }
        Some(Task::TokenClassification | Task::MaskedLm) if model.is_library_model() => {
            Box::new(CrossEntropy)
        }
        _ => Box::new(ModelLoss),
    }
}

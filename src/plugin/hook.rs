//! The hook functions that the host calls, as a number that indexes counters and as a name for messages; and the
//! interfaces of the contract, those that this version calls and those that it knows but does not call yet.

use std::fmt;

use super::limits::Limit;

/// The version of both WIT packages.
pub(super) const API: &str = "0.1.0";

/// A function of a plugin that the host calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    Instantiate,
    Init,
    Close,
    SaveState,
    RestoreState,
    InitEnd,
    TrainBegin,
    TrainEnd,
    EpochBegin,
    EpochEnd,
    StepBegin,
    StepEnd,
    SubstepEnd,
    Evaluate,
    Predict,
    PredictionStep,
    Log,
    Save,
    PreOptimizerStep,
    OptimizerStep,
    Resume,
    Fault,
    MetricsNew,
    MetricsUpdate,
    MetricsPartial,
    MetricsMerge,
    MetricsCompute,
    MetricsDrop,
    WholeMetrics,
    Preprocess,
    Collate,
    ComputeLoss,
    ReportStart,
    ReportParams,
    ReportScalars,
    ReportFinish,
}

impl Hook {
    /// How many there are.
    pub(super) const COUNT: usize = Hook::ReportFinish as usize + 1;

    /// Interface and function.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Instantiate => "instantiation",
            Hook::Init => "lifecycle.init",
            Hook::Close => "lifecycle.close",
            Hook::SaveState => "stateful.save-state",
            Hook::RestoreState => "stateful.restore-state",
            Hook::InitEnd => "train-hooks.on-init-end",
            Hook::TrainBegin => "train-hooks.on-train-begin",
            Hook::TrainEnd => "train-hooks.on-train-end",
            Hook::EpochBegin => "epoch-hooks.on-epoch-begin",
            Hook::EpochEnd => "epoch-hooks.on-epoch-end",
            Hook::StepBegin => "step-hooks.on-step-begin",
            Hook::StepEnd => "step-hooks.on-step-end",
            Hook::SubstepEnd => "substep-hooks.on-substep-end",
            Hook::Evaluate => "eval-hooks.on-evaluate",
            Hook::Predict => "eval-hooks.on-predict",
            Hook::PredictionStep => "prediction-step-hooks.on-prediction-step",
            Hook::Log => "log-hooks.on-log",
            Hook::Save => "checkpoint-hooks.on-save",
            Hook::PreOptimizerStep => "optimizer-hooks.on-pre-optimizer-step",
            Hook::OptimizerStep => "optimizer-hooks.on-optimizer-step",
            Hook::Resume => "resume-hooks.on-resume",
            Hook::Fault => "fault-hooks.on-fault",
            Hook::MetricsNew => "metrics.accumulator",
            Hook::MetricsUpdate => "metrics.update",
            Hook::MetricsPartial => "metrics.partial",
            Hook::MetricsMerge => "metrics.merge",
            Hook::MetricsCompute => "metrics.compute",
            Hook::MetricsDrop => "metrics.drop",
            Hook::WholeMetrics => "whole-metrics.compute-metrics",
            Hook::Preprocess => "logits.preprocess",
            Hook::Collate => "collator.collate",
            Hook::ComputeLoss => "loss.compute-loss",
            Hook::ReportStart => "report-run.start",
            Hook::ReportParams => "report-run.params",
            Hook::ReportScalars => "report-scalars.scalars",
            Hook::ReportFinish => "report-run.finish",
        }
    }

    /// The limit on the time of a call.
    pub(super) fn time_limit(self) -> Limit {
        match self {
            Hook::Instantiate | Hook::Init => Limit::InitTime,
            Hook::StepBegin
            | Hook::StepEnd
            | Hook::SubstepEnd
            | Hook::PredictionStep
            | Hook::PreOptimizerStep
            | Hook::OptimizerStep
            | Hook::Collate
            | Hook::ComputeLoss => Limit::StepTime,
            Hook::ReportStart | Hook::ReportParams | Hook::ReportScalars | Hook::ReportFinish => {
                Limit::ReportTime
            }
            _ => Limit::Time,
        }
    }

    /// Whether operations in the call are part of the graph that gradients are made from.
    pub(super) fn is_differentiated(self) -> bool {
        self == Hook::ComputeLoss
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Interfaces of `trainer:plugin` that this version calls.
pub(super) const CALLED: &[&str] = &[
    "train-hooks",
    "epoch-hooks",
    "step-hooks",
    "substep-hooks",
    "eval-hooks",
    "prediction-step-hooks",
    "log-hooks",
    "optimizer-hooks",
    "checkpoint-hooks",
    "resume-hooks",
    "fault-hooks",
    "metrics",
    "whole-metrics",
    "logits",
    "collator",
    "loss",
    "report-run",
    "report-scalars",
];

/// Interfaces that go with a hook but are none by themselves.
pub(super) const SUPPORTING: &[&str] = &["lifecycle", "stateful"];

/// Interfaces of the contract that no part of this version calls yet.
pub(super) const NOT_YET_CALLED: &[&str] = &["report-text", "report-tables", "report-artifacts"];

/// Interfaces of `trainer:host`.
pub(super) const PROVIDED: &[&str] = &[
    "types",
    "log",
    "tensor",
    "rng",
    "run",
    "data",
    "tokenizer",
    "artifact",
    "secrets",
];

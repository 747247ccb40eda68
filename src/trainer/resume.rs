//! Resuming: what a checkpoint says beyond the reference's files, and how a run goes on from it bit for bit.
//!
//! A checkpoint of this program holds the position in the data and the generator state from which the epoch's order was
//! drawn, so that the order is made again without touching the generators of the run. A checkpoint that Hugging Face wrote
//! has neither: then the data are skipped as 4.34 does (spec 3.2, 3.5).

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::accumulation::Accumulation;
use super::loss_log::LossLog;
use super::{Plan, Trainer, Training};
use crate::callback::TrainerState;
use crate::checkpoint::rng::RngState;
use crate::checkpoint::{find, json, layout, load};
use crate::data::{Epoch, EpochStart, Loader};
use crate::error::Failure;
use crate::model::weights;

/// Where a run stands in its data.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    epoch: u64,
    pub(super) batches_done: u64,
    pub(super) epoch_ended: bool,
    start: Option<EpochStart>,
}

/// [`Cursor`] as it is saved; the generator states are tensors beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    epoch: u64,
    batches_done: u64,
    epoch_ended: bool,
    num_rows: u64,
}

/// `progress.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    pub cursor: Position,
    pub total_batches: u64,
    pub pending_batches: u64,
    pub losses: LossLog,
    pub losses_finite: bool,
    pub nonfinite_steps: u64,
    pub flos_since_log: f64,
    pub callbacks: Map<String, Value>,
    /// A callback had stopped the run at this step.
    pub training_stopped: bool,
    /// A callback had ended the epoch at this step.
    pub epoch_stopped: bool,
}

const START_GENERATOR: &str = "epoch_start.generator";
const START_SAMPLER: &str = "epoch_start.sampler";
const GRADIENT: &str = "gradient.";

impl Cursor {
    pub(super) fn in_epoch(epoch: u64, batches_done: u64, start: EpochStart) -> Self {
        Self {
            epoch,
            batches_done,
            epoch_ended: false,
            start: Some(start),
        }
    }

    pub(super) fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            batches_done: self.batches_done,
            epoch_ended: self.epoch_ended,
            num_rows: self.start.as_ref().map_or(0, |start| start.num_rows as u64),
        }
    }

    pub(super) fn tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let Some(start) = &self.start else {
            return Ok(Vec::new());
        };
        let mut tensors = vec![(
            START_GENERATOR.to_owned(),
            Tensor::f_from_slice(&start.generator)?,
        )];
        if let Some(sampler) = &start.sampler {
            tensors.push((START_SAMPLER.to_owned(), Tensor::f_from_slice(sampler)?));
        }
        Ok(tensors)
    }
}

/// Where the first epoch of a resumed call begins.
#[derive(Debug)]
pub(super) struct Resumed {
    epoch: u64,
    skip: Skip,
    generators: Option<RngState>,
    /// No batch of this epoch is left: all steps were done, or a callback had stopped it.
    pub(super) is_over: bool,
}

#[derive(Debug)]
enum Skip {
    /// A new epoch.
    Nothing,
    /// Our own checkpoint: the epoch's order is made again from where it was drawn.
    Exact { start: EpochStart, batches: u64 },
    /// A foreign checkpoint: the order is drawn from the present generators, then batches are skipped.
    Foreign { batches: u64 },
}

impl Resumed {
    pub(super) fn first_epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the epoch had begun and not ended.
    pub(super) fn is_inside_epoch(&self) -> bool {
        !matches!(self.skip, Skip::Nothing)
    }

    /// Opens the epoch at its position.
    pub(super) fn open<'a>(&self, loader: &'a mut Loader) -> Result<Epoch<'a>> {
        if let (Skip::Nothing, Some(generators)) = (&self.skip, &self.generators) {
            generators.restore()?;
        }
        match &self.skip {
            Skip::Nothing => loader.epoch(),
            Skip::Exact { start, batches } => {
                loader.resume_epoch(start, usize::try_from(*batches)?)
            }
            Skip::Foreign { batches } => {
                for _ in 0..self.epoch {
                    loader.pass_over_epoch()?;
                }
                let mut epoch = loader.epoch()?;
                epoch.skip_batches(usize::try_from(*batches)?)?;
                Ok(epoch)
            }
        }
    }

    /// Restores the generators once the epoch's data are in place.
    pub(super) fn restore_generators(&self) -> Result<()> {
        match (&self.skip, &self.generators) {
            (Skip::Nothing, _) | (_, None) => Ok(()),
            (_, Some(generators)) => generators.restore(),
        }
    }
}

impl Trainer {
    /// Prepares state and parts for a call of `train`.
    pub(super) fn begin(
        &mut self,
        training: &mut Training,
        folder: Option<&Path>,
    ) -> Result<Option<Resumed>> {
        self.state = TrainerState::new();
        self.losses_finite = true;
        self.nonfinite_steps = 0;
        self.flos_since_log = 0.0;
        self.saved_step = None;
        self.stopped_before = false;
        self.state.epoch = Some(0.0);
        self.losses.begin(0, None);
        let resumed = match folder {
            None => None,
            Some(folder) => {
                let context = || format!("resuming from {}", folder.display());
                Some(self.restore(training, folder).with_context(context)?)
            }
        };
        let plan = &training.plan;
        self.note_changed_intervals(plan, resumed.is_some());
        self.state.logging_steps = plan.logging_steps;
        self.state.eval_steps = plan.eval_steps;
        self.state.save_steps = plan.save_steps;
        self.state.max_steps = plan.max_steps;
        self.state.num_train_epochs = plan.num_train_epochs;
        Ok(resumed)
    }

    fn note_changed_intervals(&self, plan: &Plan, resumed: bool) {
        let pairs = [
            (
                "logging_steps",
                self.state.logging_steps,
                plan.logging_steps,
            ),
            ("eval_steps", self.state.eval_steps, plan.eval_steps),
            ("save_steps", self.state.save_steps, plan.save_steps),
            (
                "max_steps",
                self.state.max_steps as f64,
                plan.max_steps as f64,
            ),
        ];
        let changed = pairs.iter().filter(|(_, old, new)| old != new);
        let changed: Vec<String> = changed
            .map(|(name, old, new)| format!("{name} {old} -> {new}"))
            .collect();
        if resumed && !changed.is_empty() {
            tracing::warn!(
                "the new arguments win over the checkpoint's: {}",
                changed.join(", ")
            );
        }
    }

    fn restore(&mut self, training: &mut Training, folder: &Path) -> Result<Resumed> {
        find::open(folder)?;
        let loaded = load::read_weights(folder)?;
        weights::apply(&*self.parts.model, &loaded.tensors)?;
        drop(loaded);
        restore_optimizer(training, folder)?;
        let path = folder.join(layout::TRAINER_STATE);
        self.state = json::read(&path)?;
        let generators = RngState::load(folder)?;
        let progress_path = folder.join(layout::PROGRESS);
        if !progress_path.exists() {
            return Ok(self.foreign_position(&training.plan, generators));
        }
        let progress: Progress = json::read(&progress_path)?;
        let tensors = load::read_tensors(&folder.join(layout::PROGRESS_TENSORS))?.tensors;
        self.restore_progress(training, &progress, &tensors)?;
        let mut resumed = self.own_position(progress.cursor, &tensors, generators)?;
        // Longer runs go on where a callback stopped the shorter one.
        let is_stopped =
            progress.training_stopped && self.state.max_steps == training.plan.max_steps;
        let is_done = self.state.global_step >= training.plan.max_steps;
        self.stopped_before = is_stopped || is_done;
        resumed.is_over = self.stopped_before || progress.epoch_stopped;
        Ok(resumed)
    }

    fn restore_progress(
        &mut self,
        training: &Training,
        progress: &Progress,
        tensors: &[(String, Tensor)],
    ) -> Result<()> {
        let steps = training.plan.accumulation;
        self.accumulation =
            Accumulation::resumed(steps, progress.total_batches, progress.pending_batches);
        self.losses
            .begin(self.state.global_step, Some(&progress.losses));
        self.losses_finite = progress.losses_finite;
        self.nonfinite_steps = progress.nonfinite_steps;
        self.flos_since_log = progress.flos_since_log;
        self.parts.callbacks.load_states(&progress.callbacks)?;
        for parameter in self.parts.model.parameters() {
            let name = format!("{GRADIENT}{}", parameter.name);
            if let Some((_, gradient)) = tensors.iter().find(|(key, _)| *key == name) {
                crate::torch::set_gradient(&parameter.tensor, &gradient.f_to(self.config.device)?)?;
            }
        }
        Ok(())
    }

    fn own_position(
        &self,
        position: Position,
        tensors: &[(String, Tensor)],
        generators: Option<RngState>,
    ) -> Result<Resumed> {
        if position.epoch_ended || self.config.ignore_data_skip {
            let epoch = position.epoch + u64::from(position.epoch_ended);
            return Ok(Resumed {
                epoch,
                skip: Skip::Nothing,
                generators,
                is_over: false,
            });
        }
        let bytes = |name: &str| match tensors.iter().find(|(key, _)| key == name) {
            Some((_, tensor)) => Ok(Some(Vec::<u8>::try_from(tensor.f_to_kind(Kind::Uint8)?)?)),
            None => anyhow::Ok(None),
        };
        let generator = bytes(START_GENERATOR)?.ok_or_else(|| {
            Failure::data(format!(
                "{} lacks {START_GENERATOR}",
                layout::PROGRESS_TENSORS
            ))
        })?;
        let start = EpochStart {
            generator,
            sampler: bytes(START_SAMPLER)?,
            num_rows: usize::try_from(position.num_rows)?,
        };
        let skip = Skip::Exact {
            start,
            batches: position.batches_done,
        };
        Ok(Resumed {
            epoch: position.epoch,
            skip,
            generators,
            is_over: false,
        })
    }

    /// The position that 4.34 computes from the step alone (spec 3.2, step 5).
    fn foreign_position(&mut self, plan: &Plan, generators: Option<RngState>) -> Resumed {
        let step = self.state.global_step;
        self.losses.begin(step, None);
        let batches = (step % plan.updates_per_epoch) * plan.accumulation;
        let epoch = step / plan.updates_per_epoch;
        let skip = if batches == 0 || self.config.ignore_data_skip {
            Skip::Nothing
        } else {
            Skip::Foreign { batches }
        };
        Resumed {
            epoch,
            skip,
            generators,
            is_over: false,
        }
    }
}

fn restore_optimizer(training: &mut Training, folder: &Path) -> Result<()> {
    // As the reference: only if both files exist.
    let (Some(optimizer), Some(scheduler)) =
        (load::read_optimizer(folder)?, load::read_scheduler(folder)?)
    else {
        tracing::warn!(
            "{} has no optimizer and schedule state; both begin anew",
            folder.display()
        );
        return Ok(());
    };
    training
        .optimizer
        .load_state(optimizer)
        .context("optimizer state")?;
    training
        .scheduler
        .load_state(scheduler)
        .context("schedule state")?;
    training.scheduler.apply(training.optimizer.groups_mut());
    Ok(())
}

//! Resuming: what a checkpoint says beyond the reference's files, and how a run goes on from it bit for bit.
//!
//! A checkpoint of this program holds the position in the data and the generator state from which the epoch's order was
//! drawn, so that the order is made again without touching the generators of the run. A checkpoint that Hugging Face wrote
//! has neither: then the data are skipped as 4.34 does (spec 3.2, 3.5).

use std::fmt::Display;
use std::path::Path;
use std::time::Instant;

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
use crate::optim::ParameterGroup;
use crate::torch;

/// Where a run stands in its data.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    epoch: u64,
    pub(super) batches_done: u64,
    pub(super) epoch_ended: bool,
    start: Option<EpochStart>,
    /// What a random collator draws the following batches from.
    pub(super) draws: Option<Vec<u8>>,
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
    /// Micro-batches of a step; with another number the incomplete group is dropped.
    pub accumulation_steps: u64,
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
    /// A signal ended the evaluation at this point.
    pub evaluation_owed: bool,
    /// After it a save was due.
    pub save_owed: bool,
}

const START_GENERATOR: &str = "epoch_start.generator";
const START_SAMPLER: &str = "epoch_start.sampler";
const COLLATOR_DRAWS: &str = "collator.generators";
/// What the next batch gets as `mems`.
pub(super) const PAST: &str = "past";
const GRADIENT: &str = "gradient.";

impl Cursor {
    pub(super) fn in_epoch(epoch: u64, batches_done: u64, start: EpochStart) -> Self {
        Self {
            epoch,
            batches_done,
            epoch_ended: false,
            start: Some(start),
            draws: None,
        }
    }

    /// As it was saved.
    fn restored(position: Position, tensors: &[(String, Tensor)]) -> Result<Self> {
        let bytes = |name: &str| match tensors.iter().find(|(key, _)| key == name) {
            Some((_, tensor)) => Ok(Some(Vec::<u8>::try_from(tensor.f_to_kind(Kind::Uint8)?)?)),
            None => anyhow::Ok(None),
        };
        let start = match bytes(START_GENERATOR)? {
            Some(generator) => Some(EpochStart {
                generator,
                sampler: bytes(START_SAMPLER)?,
                num_rows: usize::try_from(position.num_rows)?,
            }),
            None => None,
        };
        Ok(Self {
            epoch: position.epoch,
            batches_done: position.batches_done,
            epoch_ended: position.epoch_ended,
            start,
            draws: bytes(COLLATOR_DRAWS)?,
        })
    }

    /// Epochs done, as a fraction.
    pub(super) fn epochs_done(&self, epoch_len: u64) -> f64 {
        self.epoch as f64 + self.batches_done as f64 / epoch_len as f64
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
        if let Some(draws) = &self.draws {
            tensors.push((COLLATOR_DRAWS.to_owned(), Tensor::f_from_slice(draws)?));
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
    Exact {
        start: EpochStart,
        batches: u64,
        draws: Option<Vec<u8>>,
    },
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

    /// Takes the generators up where the run stood between two epochs, instead of at the opening of the next one.
    pub(super) fn restore_generators(&mut self) -> Result<()> {
        self.generators
            .take()
            .map_or(Ok(()), |generators| generators.restore())
    }

    /// Opens the epoch at its position, with the generators as they were there.
    pub(super) fn open(self, loader: &mut Loader) -> Result<Epoch<'_>> {
        let restore = |generators: Option<RngState>| match generators {
            Some(generators) => generators.restore(),
            None => Ok(()),
        };
        let mut epoch = match self.skip {
            Skip::Nothing => {
                restore(self.generators)?;
                return loader.epoch();
            }
            Skip::Exact {
                start,
                batches,
                draws,
            } => loader.resume_epoch(&start, usize::try_from(batches)?, draws.as_deref())?,
            Skip::Foreign { batches } => {
                for _ in 0..self.epoch {
                    loader.pass_over_epoch()?;
                }
                let mut epoch = loader.epoch()?;
                epoch.skip_batches(usize::try_from(batches)?)?;
                epoch
            }
        };
        // A foreign checkpoint's order is drawn from the present generators: only then come the saved ones.
        epoch.prepare();
        restore(self.generators)?;
        Ok(epoch)
    }
}

impl Trainer {
    /// Prepares state and parts for a call of `train`.
    pub(super) fn begin(
        &mut self,
        training: &mut Training,
        folder: Option<&Path>,
    ) -> Result<Option<Resumed>> {
        self.check_best_metric()?;
        self.started = Instant::now();
        self.changes.clear();
        self.accumulation = Accumulation::new(training.plan.accumulation);
        torch::clear_gradients(&self.parameters)?;
        self.losses_finite = true;
        self.nonfinite_steps = 0;
        self.flos_since_log = 0.0;
        self.saved_step = None;
        self.stopped_before = false;
        self.evaluation_owed = false;
        self.past = None;
        self.control.set_save(false);
        self.state = TrainerState::new();
        self.state.epoch = Some(0.0);
        self.losses.begin(0, None);
        let resumed = match folder {
            None => None,
            Some(folder) => {
                let context = || format!("resuming from {}", folder.display());
                Some(self.restore(training, folder).with_context(context)?)
            }
        };
        self.adopt(&training.plan);
        self.note_rates(&*training.optimizer);
        Ok(resumed)
    }

    /// What the state holds of this call rather than of the one that is resumed.
    fn adopt(&mut self, plan: &Plan) {
        let state = &mut self.state;
        state.logging_steps = plan.logging_steps;
        state.eval_steps = plan.eval_steps;
        state.save_steps = plan.save_steps;
        state.max_steps = plan.max_steps;
        state.num_train_epochs = plan.num_train_epochs;
        state.is_local_process_zero = true;
        state.is_world_process_zero = true;
        state.trial_name = None;
        state.trial_params = None;
    }

    fn restore(&mut self, training: &mut Training, folder: &Path) -> Result<Resumed> {
        find::open(folder)?;
        let loaded = load::read_weights(folder)?;
        weights::apply(&*self.parts.model, &loaded.tensors)?;
        drop(loaded);
        let mut changed = Changed::default();
        restore_optimizer(training, folder, &mut changed)?;
        let generators = RngState::load(folder)?;
        let path = folder.join(layout::TRAINER_STATE);
        if !path.exists() {
            tracing::warn!(
                "{} has no {}: a new run begins with its weights",
                folder.display(),
                layout::TRAINER_STATE
            );
            return Ok(self.foreign_position(&training.plan, generators));
        }
        self.state = json::read(&path)?;
        changed.note_plan(&self.state, &training.plan);
        let progress_path = folder.join(layout::PROGRESS);
        if !progress_path.exists() {
            changed.tell();
            return Ok(self.foreign_position(&training.plan, generators));
        }
        let progress: Progress = json::read(&progress_path)?;
        let steps = (progress.accumulation_steps, training.plan.accumulation);
        changed.note("gradient_accumulation_steps", steps.0, steps.1);
        changed.tell();
        let tensors = load::read_tensors(&folder.join(layout::PROGRESS_TENSORS))?.tensors;
        self.restore_progress(training, &progress, &tensors)?;
        self.cursor = Cursor::restored(progress.cursor, &tensors)?;
        let mut resumed = self.own_position(generators)?;
        // Longer runs go on where a callback stopped the shorter one.
        let is_stopped =
            progress.training_stopped && self.state.max_steps == training.plan.max_steps;
        let is_done = self.state.global_step >= training.plan.max_steps;
        self.stopped_before = is_stopped || is_done;
        resumed.is_over =
            resumed.is_inside_epoch() && (self.stopped_before || progress.epoch_stopped);
        Ok(resumed)
    }

    fn restore_progress(
        &mut self,
        training: &Training,
        progress: &Progress,
        tensors: &[(String, Tensor)],
    ) -> Result<()> {
        self.losses
            .begin(self.state.global_step, Some(&progress.losses));
        self.evaluation_owed = progress.evaluation_owed;
        self.control.set_save(progress.save_owed);
        self.losses_finite = progress.losses_finite;
        self.nonfinite_steps = progress.nonfinite_steps;
        self.flos_since_log = progress.flos_since_log;
        self.parts.callbacks.load_states(&progress.callbacks)?;
        let past = tensors.iter().find(|(name, _)| name == PAST);
        if let Some((_, past)) = past.filter(|_| self.config.past_index.is_some()) {
            self.past = Some(past.f_to(self.config.device)?);
        }
        let steps = training.plan.accumulation;
        if steps != progress.accumulation_steps {
            return Ok(());
        }
        self.accumulation =
            Accumulation::resumed(steps, progress.total_batches, progress.pending_batches);
        for parameter in self.parts.model.parameters() {
            let name = format!("{GRADIENT}{}", parameter.name);
            if let Some((_, gradient)) = tensors.iter().find(|(key, _)| *key == name) {
                torch::set_gradient(&parameter.tensor, &gradient.f_to(self.config.device)?)?;
            }
        }
        Ok(())
    }

    /// Where the cursor stands.
    fn own_position(&self, generators: Option<RngState>) -> Result<Resumed> {
        let cursor = &self.cursor;
        let skip = if cursor.epoch_ended || self.config.ignore_data_skip {
            Skip::Nothing
        } else {
            let lacking = || {
                let file = layout::PROGRESS_TENSORS;
                Failure::data(format!("{file} lacks {START_GENERATOR}"))
            };
            Skip::Exact {
                start: cursor.start.clone().ok_or_else(lacking)?,
                batches: cursor.batches_done,
                draws: cursor.draws.clone(),
            }
        };
        Ok(Resumed {
            epoch: cursor.epoch + u64::from(cursor.epoch_ended),
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

fn restore_optimizer(training: &mut Training, folder: &Path, changed: &mut Changed) -> Result<()> {
    let Training {
        optimizer,
        scheduler,
        ..
    } = training;
    // As the reference: only if both files exist.
    let (Some(saved_optimizer), Some(saved_scheduler)) =
        (load::read_optimizer(folder)?, load::read_scheduler(folder)?)
    else {
        tracing::warn!(
            "{} has no optimizer and schedule state; both begin anew",
            folder.display()
        );
        return Ok(());
    };
    let peak_rate = |groups: &[ParameterGroup]| groups.first().map(|g| g.initial_learning_rate);
    let given = peak_rate(optimizer.groups());
    optimizer
        .load_state(saved_optimizer)
        .context("optimizer state")?;
    if let (Some(old), Some(new)) = (peak_rate(optimizer.groups()), given) {
        changed.note("learning_rate", old, new);
    }
    scheduler
        .load_state(saved_scheduler)
        .context("schedule state")?;
    scheduler.apply(optimizer.groups_mut());
    Ok(())
}

/// Arguments that differ from those of the run that is resumed, for one line about them.
#[derive(Debug, Default)]
struct Changed(Vec<String>);

impl Changed {
    fn note<T: PartialEq + Display>(&mut self, name: &str, old: T, new: T) {
        if old != new {
            self.0.push(format!("{name} {old} -> {new}"));
        }
    }

    fn note_plan(&mut self, state: &TrainerState, plan: &Plan) {
        self.note("logging_steps", state.logging_steps, plan.logging_steps);
        self.note("eval_steps", state.eval_steps, plan.eval_steps);
        self.note("save_steps", state.save_steps, plan.save_steps);
        self.note("max_steps", state.max_steps, plan.max_steps);
    }

    fn tell(&self) {
        if !self.0.is_empty() {
            tracing::warn!(
                "the new arguments win over the checkpoint's: {}",
                self.0.join(", ")
            );
        }
    }
}

//! Resuming: what a checkpoint says beyond the reference's files, and how a run goes on from it bit for bit.
//!
//! A checkpoint of this program holds the position in the data and the generator state from which the epoch's order was
//! drawn, so that the order is made again without touching the generators of the run. A checkpoint that Hugging Face wrote
//! has neither: then the data are skipped as 4.34 does (spec 3.2, 3.5).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tch::{Device, Kind, Tensor};

use super::accumulation::Accumulation;
use super::loss_log::LossLog;
use super::{Plan, Trainer, Training};
use crate::callback::TrainerState;
use crate::checkpoint::json::any_number;
use crate::checkpoint::rng::RngState;
use crate::checkpoint::{PartState, find, json, layout, load};
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
    batch_size: u64,
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
    /// Rows of a batch; 0: not known.
    #[serde(default)]
    batch_size: u64,
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
    #[serde(with = "any_number")]
    pub flos_since_log: f64,
    pub callbacks: Map<String, Value>,
    /// A callback had stopped the run at this step.
    pub training_stopped: bool,
    /// A callback had ended the epoch at this step.
    pub epoch_stopped: bool,
    /// A signal ended the evaluation at this point.
    #[serde(default)]
    pub evaluation_owed: bool,
    /// After it a save was due.
    #[serde(default)]
    pub save_owed: bool,
}

const START_GENERATOR: &str = "epoch_start.generator";
const START_SAMPLER: &str = "epoch_start.sampler";
const COLLATOR_DRAWS: &str = "collator.generators";
/// What the next batch gets as `mems`.
pub(super) const PAST: &str = "past";
const GRADIENT: &str = "gradient.";

impl Cursor {
    /// At a batch of an epoch of batches of `batch_size` rows.
    pub(super) fn in_epoch(epoch: u64, batches: &Epoch<'_>, batch_size: usize) -> Self {
        Self {
            epoch,
            batches_done: batches.delivered() as u64,
            epoch_ended: false,
            batch_size: batch_size as u64,
            start: Some(batches.start().clone()),
            draws: None,
        }
    }

    /// With batches of another size, the batch in which the first row lies that has not been seen.
    fn rebatched(mut self, batch_size: usize) -> Self {
        let new = batch_size as u64;
        if self.batch_size != 0 && self.batch_size != new {
            self.batches_done = self.batches_done * self.batch_size / new;
        }
        self.batch_size = new;
        self
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
            batch_size: position.batch_size,
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
            batch_size: self.batch_size,
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
    pub(super) fn restore_generators(&mut self, device: Device) -> Result<()> {
        self.generators
            .take()
            .map_or(Ok(()), |generators| generators.restore(device))
    }

    /// Opens the epoch at its position, with the generators as they were there.
    pub(super) fn open(self, loader: &mut Loader, device: Device) -> Result<Epoch<'_>> {
        let restore = |generators: Option<RngState>| match generators {
            Some(generators) => generators.restore(device),
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
        self.planned_tokens = self.count_tokens(training)?;
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
        // Those beyond the checkpoint that is resumed belong to a run that went another way.
        self.earlier_checkpoints = find::steps(&self.config.output_dir)?;
        if resumed.is_some() {
            let step = self.state.global_step;
            self.earlier_checkpoints.retain(|earlier| *earlier > step);
        }
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
        let arguments = folder.join(layout::TRAINING_ARGS);
        if arguments.exists() {
            changed.note_arguments(&json::read(&arguments)?, &self.config.arguments);
        }
        restore_optimizer(training, folder, &mut changed)?;
        self.restore_scaler(folder)?;
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
        let batch_size = training.loader.batch_size();
        check_step_sizes(&progress, training)?;
        self.cursor = Cursor::restored(progress.cursor, &tensors)?.rebatched(batch_size);
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

    /// The reference does not save the scale in plain float16; such a run begins with the first one.
    fn restore_scaler(&mut self, folder: &Path) -> Result<()> {
        let Some(scaler) = &mut self.parts.scaler else {
            return Ok(());
        };
        let path = folder.join(layout::SCALER);
        if !path.exists() {
            tracing::warn!(
                "{} has no scale of losses; it begins anew",
                folder.display()
            );
            return Ok(());
        }
        let json: Value = json::read(&path)?;
        let tensors = Vec::new();
        scaler
            .load_state(PartState { tensors, json })
            .with_context(|| format!("reading {}", path.display()))
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

/// Rows of a batch in the run that wrote a checkpoint, if it was one of this program.
pub fn batch_size_of(folder: &Path) -> Result<Option<usize>> {
    let path = folder.join(layout::PROGRESS);
    if !path.exists() {
        return Ok(None);
    }
    let progress: Progress = json::read(&path)?;
    let size = usize::try_from(progress.cursor.batch_size)?;
    Ok(Some(size).filter(|size| *size > 0))
}

/// Steps of another size make other epochs: a run that is told its epochs would end too early or too late.
fn check_step_sizes(progress: &Progress, training: &Training) -> Result<()> {
    let (old, new) = (
        progress.cursor.batch_size,
        training.loader.batch_size() as u64,
    );
    let before = (
        if old == 0 { new } else { old },
        progress.accumulation_steps,
    );
    let now = (new, training.plan.accumulation);
    if before == now || !training.plan.by_epochs {
        return Ok(());
    }
    let message = format!(
        "the checkpoint's steps are {} batches of {} rows, and now they are {} of {}: the steps done and the epochs to do would \
         be counted in different units",
        before.1, before.0, now.1, now.0
    );
    let hint = "give the number of all steps with --max_steps, or go on with the same batches";
    Err(Failure::usage(message).hint(hint).into())
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

/// Arguments that change nothing of what is computed.
const UNCHANGING: &[&str] = &[
    "output_dir",
    "overwrite_output_dir",
    "resume_from_checkpoint",
    "logging_dir",
    "run_name",
    "do_train",
    "do_eval",
    "do_predict",
    "disable_tqdm",
    "log_level",
    "report_to",
    "record_steps",
];

/// Arguments that differ from those of the run that is resumed, by name, for one line about them.
#[derive(Debug, Default)]
struct Changed(BTreeMap<String, String>);

impl Changed {
    fn note<T: PartialEq + Display>(&mut self, name: &str, old: T, new: T) {
        if old != new {
            self.0
                .insert(name.to_owned(), format!("{name} {old} -> {new}"));
        }
    }

    /// Arguments that both know.
    fn note_arguments(&mut self, old: &Value, new: &Value) {
        let new = new.as_object().into_iter().flatten();
        for (name, new) in new.filter(|(name, _)| !UNCHANGING.contains(&name.as_str())) {
            if let Some(old) = old.get(name) {
                self.note(name, old, new);
            }
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
                self.0.values().cloned().collect::<Vec<_>>().join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Changed, Cursor};

    #[test]
    fn batches_of_another_size_leave_no_row_out() {
        for (old, new, batches) in [(8, 8, 3), (8, 4, 6), (8, 16, 1), (8, 5, 4), (0, 4, 3)] {
            let cursor = Cursor {
                batches_done: 3,
                batch_size: old,
                ..Cursor::default()
            };
            let found = cursor.rebatched(new);
            assert_eq!(
                (found.batches_done, found.batch_size),
                (batches, new as u64),
                "{old} {new}"
            );
        }
    }

    #[test]
    fn arguments_that_change_results_are_told_once() {
        let mut changed = Changed::default();
        let old =
            json!({"seed": 1, "output_dir": "a", "optim": "sgd", "learning_rate": 0.1, "gone": 1});
        let new =
            json!({"seed": 2, "output_dir": "b", "optim": "sgd", "learning_rate": 0.2, "new": 1});
        changed.note_arguments(&old, &new);
        changed.note("learning_rate", 0.1, 0.2);
        let told: Vec<_> = changed.0.values().collect();
        assert_eq!(told, ["learning_rate 0.1 -> 0.2", "seed 1 -> 2"]);
    }
}

//! `train`: epochs, batches, and what is due at their ends (spec 3.2).

use std::path::{Path, PathBuf};

use anyhow::Result;
use tch::Tensor;

use super::accumulation::Place;
use super::resume::{Cursor, Resumed};
use super::speed::{self, Work};
use super::{Plan, Trainer, Training, Updates};
use crate::callback::Event;
use crate::data::{Epoch, LoadedBatch};
use crate::error::Failure;
use crate::optim::Phase;

/// How a call of [`Trainer::train`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps, or a callback stopped it.
    Completed,
    /// A signal asked for it; the checkpoint that was committed.
    Interrupted(PathBuf),
}

/// What a call of [`Trainer::train`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Optimizer steps done in all.
    pub global_step: u64,
    /// The final metrics without `total_flos`, as the reference returns them; empty if it was interrupted.
    pub metrics: Vec<(String, f64)>,
}

/// Why no further batch of an epoch is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// There is none, or a callback ended the epoch.
    Epoch,
    /// A signal: the end of the epoch is left to the run that goes on.
    Interrupted,
}

impl Trainer {
    /// Trains from the beginning or from a checkpoint folder.
    pub fn train(&mut self, training: &mut Training, resume: Option<&Path>) -> Result<Outcome> {
        self.is_in_train = true;
        self.begin_memory("train")?;
        let outcome = self.run_epochs(training, resume);
        self.is_in_train = false;
        outcome
    }

    fn run_epochs(&mut self, training: &mut Training, resume: Option<&Path>) -> Result<Outcome> {
        let mut resumed = self.begin(training, resume)?;
        self.start_reports();
        if let Some(folder) = resume {
            self.fire(Event::Resume(folder))?;
        }
        self.fire(Event::TrainBegin)?;
        if self.stopped_before {
            self.control.stop_training("the run had come to its end");
        }
        if !self.settle_between_epochs(training, resumed.as_mut())? {
            return self.interrupt(training);
        }
        let first_epoch = resumed.as_ref().map_or(0, Resumed::first_epoch);
        for epoch in first_epoch..training.plan.num_train_epochs {
            // A run that had come to its end inside an epoch still owes the end of that epoch, but no new one.
            let is_owed = resumed.as_ref().is_some_and(Resumed::is_inside_epoch);
            if self.stopped_before && !is_owed {
                break;
            }
            self.run_epoch(training, epoch, resumed.take())?;
            if self.is_cut_short(&training.plan) {
                return self.interrupt(training);
            }
            if self.control.should_training_stop() {
                break;
            }
        }
        self.finish(training)
    }

    /// Tokens that the run will see (spec 3.7): those of an epoch times the epochs, or those of the first batch times the
    /// batches of all steps. Reading them draws as an epoch draws.
    pub(super) fn count_tokens(&self, training: &mut Training) -> Result<Option<f64>> {
        if !self.config.tokens_per_second {
            return Ok(None);
        }
        let (loader, plan) = (&mut training.loader, &training.plan);
        let mut tokens = 0;
        for loaded in loader.epoch()? {
            let Some(count) = loaded?.batch.get("input_ids").map(Tensor::numel) else {
                tracing::warn!("tokens cannot be counted: the batches have no input_ids");
                break;
            };
            if plan.epochs.is_none() {
                let batches = plan.max_steps * plan.accumulation;
                return Ok(Some(count as f64 * batches as f64));
            }
            tokens += count;
        }
        Ok(Some(tokens as f64 * plan.epochs.unwrap_or(1.0)))
    }

    /// The evaluation that a resumed run owes from the end of an epoch. Whether none is owed from there any more.
    fn settle_between_epochs(
        &mut self,
        training: &mut Training,
        resumed: Option<&mut Resumed>,
    ) -> Result<bool> {
        match resumed.filter(|resumed| self.evaluation_owed && !resumed.is_inside_epoch()) {
            Some(resumed) => {
                resumed.restore_generators(self.config.device)?;
                self.settle(&mut training.split().1)
            }
            None => Ok(true),
        }
    }

    fn run_epoch(
        &mut self,
        training: &mut Training,
        epoch: u64,
        resumed: Option<Resumed>,
    ) -> Result<()> {
        let (loader, mut updates) = training.split();
        let batch_size = loader.batch_size();
        self.fire(Event::EpochBegin)?;
        // A resumed epoch goes on with what it remembers.
        if !resumed.as_ref().is_some_and(Resumed::is_inside_epoch) {
            self.past = None;
        }
        let is_over = resumed.as_ref().is_some_and(|resumed| resumed.is_over);
        let mut batches = match resumed {
            Some(resumed) => resumed.open(loader, self.config.device)?,
            None => loader.epoch()?,
        };
        let draws = self.cursor.draws.take().filter(|_| batches.delivered() > 0);
        self.cursor = Cursor::in_epoch(epoch, &batches, batch_size);
        self.cursor.draws = draws;
        if self.evaluation_owed && !self.settle(&mut updates)? {
            return Ok(());
        }
        if !is_over && self.run_batches(&mut batches, &mut updates)? == Left::Interrupted {
            return Ok(());
        }
        self.cursor.epoch_ended = true;
        self.fire(Event::EpochEnd)?;
        self.block(&mut updates)
    }

    fn run_batches(&mut self, batches: &mut Epoch<'_>, updates: &mut Updates<'_>) -> Result<Left> {
        for batch in batches {
            let mut batch = batch?;
            self.cursor.draws = batch.draws.take();
            let ended_step = self.run_batch(&batch, updates)?;
            if ended_step && self.is_cut_short(updates.plan) {
                return Ok(Left::Interrupted);
            }
            if self.control.should_epoch_stop() || self.control.should_training_stop() {
                break;
            }
        }
        if self.cursor.batches_done == 0 {
            let reason = "the training data yielded no batch";
            let step = self.state.global_step;
            if step == 0 {
                let hint = "check the files, and that a pipe has not been read before; a last batch that is not full is left out \
                            with --dataloader_drop_last";
                return Err(Failure::data(reason).hint(hint).into());
            }
            tracing::warn!("{reason}, stopping training at step {step}!");
            self.control.stop_training(reason);
        }
        Ok(Left::Epoch)
    }

    /// One micro-batch and, if it ends a step, the update and what is due then. Whether it did.
    fn run_batch(&mut self, batch: &LoadedBatch, updates: &mut Updates<'_>) -> Result<bool> {
        let place = Place {
            index: self.cursor.batches_done,
            epoch_len: updates.plan.steps_in_epoch,
        };
        if self.accumulation.begins_step(place) {
            self.fire(Event::StepBegin)?;
        }
        updates.optimizer.enter(Phase::Training)?;
        let share = self.forward_backward(batch)?;
        self.losses_finite &= share.is_finite();
        self.losses
            .add(share, self.state.global_step, self.config.nan_inf_filter);
        self.cursor.batches_done += 1;
        if !self.accumulation.ends_step(place) {
            self.fire(Event::SubstepEnd)?;
            return Ok(false);
        }
        self.update(updates)?;
        self.state.global_step += 1;
        self.state.epoch = Some(self.cursor.epochs_done(place.epoch_len));
        self.fire(Event::StepEnd)?;
        self.block(updates)?;
        Ok(true)
    }

    /// Whether a signal asks for the end, and there is something left to end.
    fn is_cut_short(&self, plan: &Plan) -> bool {
        let is_done =
            self.control.should_training_stop() || self.state.global_step >= plan.max_steps;
        self.is_interrupted() && (self.evaluation_owed || !is_done)
    }

    fn interrupt(&mut self, training: &mut Training) -> Result<Outcome> {
        training.optimizer.enter(Phase::Evaluation)?;
        let checkpoint = self.commit_interrupted(&training.split().1)?;
        Ok(Outcome {
            end: End::Interrupted(checkpoint),
            global_step: self.state.global_step,
            metrics: Vec::new(),
        })
    }

    /// Best model, final metrics, final log (spec 3.2 steps 9 and 10).
    fn finish(&mut self, training: &mut Training) -> Result<Outcome> {
        training.optimizer.enter(Phase::Evaluation)?;
        if self.load_best_model()? {
            training.optimizer.weights_replaced()?;
        }
        let runtime = self.started.elapsed();
        self.training_seconds = runtime.as_secs_f64();
        let planned = Work {
            samples: training.plan.num_train_samples,
            steps: training.plan.max_steps,
        };
        let mut metrics = speed::metrics("train", runtime, planned);
        metrics.extend(speed::tokens("train", runtime, self.planned_tokens));
        self.store_flos();
        metrics.push(("total_flos".to_owned(), self.state.total_flos));
        let train_loss = self.losses.mean(self.state.global_step);
        metrics.push(("train_loss".to_owned(), train_loss));
        self.is_in_train = false;
        self.memory.end("train", &mut metrics)?;
        self.log(&mut metrics)?;
        self.rotate_at_end()?;
        self.fire(Event::TrainEnd)?;
        metrics.retain(|(name, _)| name != "total_flos");
        Ok(Outcome {
            end: End::Completed,
            global_step: self.state.global_step,
            metrics,
        })
    }
}

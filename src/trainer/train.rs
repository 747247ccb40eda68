//! `train`: epochs, batches, and what is due at their ends (spec 3.2).

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::accumulation::{Accumulation, Place};
use super::resume::{Cursor, Resumed};
use super::{Trainer, Training, round};
use crate::callback::Event;
use crate::data::LoadedBatch;

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

impl Trainer {
    /// Trains from the beginning or from a checkpoint folder.
    pub fn train(&mut self, training: &mut Training, resume: Option<&Path>) -> Result<Outcome> {
        self.started = Instant::now();
        self.accumulation = Accumulation::new(training.plan.accumulation);
        let mut resumed = self.begin(training, resume)?;
        self.learning_rates = training
            .optimizer
            .groups()
            .iter()
            .map(|group| group.learning_rate)
            .collect();
        self.fire(Event::TrainBegin)?;
        let first_epoch = resumed.as_ref().map_or(0, Resumed::first_epoch);
        for epoch in first_epoch..training.plan.num_train_epochs {
            // A run that had come to its end inside an epoch still owes the end of that epoch, but no new one.
            if self.stopped_before
                && resumed
                    .as_ref()
                    .is_none_or(|resumed| !resumed.is_inside_epoch())
            {
                break;
            }
            self.run_epoch(training, epoch, resumed.take())?;
            if self.is_interrupted() && !self.is_done(&training.plan) {
                let checkpoint = self.commit_interrupted(training)?;
                return Ok(Outcome {
                    end: End::Interrupted(checkpoint),
                    global_step: self.state.global_step,
                    metrics: Vec::new(),
                });
            }
            if self.control.should_training_stop() {
                break;
            }
        }
        self.finish(training)
    }

    fn run_epoch(
        &mut self,
        training: &mut Training,
        epoch: u64,
        resumed: Option<Resumed>,
    ) -> Result<()> {
        self.fire(Event::EpochBegin)?;
        let Training {
            loader,
            optimizer,
            scheduler,
            plan,
        } = training;
        let mut batches = match &resumed {
            Some(resumed) => resumed.open(loader)?,
            None => loader.epoch()?,
        };
        let mut index = batches.delivered() as u64;
        self.cursor = Cursor::in_epoch(epoch, index, batches.start().clone());
        let is_over = resumed.as_ref().is_some_and(|resumed| resumed.is_over);
        if self.stopped_before {
            self.control.stop_training("the run had come to its end");
        }
        let mut resumed = resumed;
        let mut is_empty = index == 0;
        loop {
            let batch = batches.next().transpose()?;
            // Only now: a foreign checkpoint's epoch draws its order with its first batch.
            if let Some(resumed) = resumed.take() {
                resumed.restore_generators()?;
            }
            let Some(batch) = batch.filter(|_| !is_over) else {
                break;
            };
            is_empty = false;
            let place = Place {
                index,
                epoch_len: plan.steps_in_epoch,
            };
            index += 1;
            if self.accumulation.begins_step(place) {
                self.fire(Event::StepBegin)?;
            }
            self.run_batch(&batch)?;
            self.cursor.batches_done = index;
            if self.accumulation.ends_step(place) {
                let losses_finite = std::mem::replace(&mut self.losses_finite, true);
                self.update(&mut **optimizer, &mut **scheduler, losses_finite)?;
                self.state.global_step += 1;
                self.state.epoch = Some(epoch as f64 + index as f64 / plan.steps_in_epoch as f64);
                self.fire(Event::StepEnd)?;
                self.block(&mut **optimizer, &mut **scheduler)?;
                if self.is_interrupted() && !self.is_done(plan) {
                    return Ok(());
                }
            } else {
                self.fire(Event::SubstepEnd)?;
            }
            if self.control.should_epoch_stop() || self.control.should_training_stop() {
                break;
            }
        }
        if is_empty {
            tracing::warn!(
                "the training data yielded no batch, stopping training at step {}!",
                self.state.global_step
            );
            self.control
                .stop_training("the training data yielded no batch");
        }
        drop(batches);
        self.cursor.epoch_ended = true;
        self.fire(Event::EpochEnd)?;
        self.block(&mut *training.optimizer, &mut *training.scheduler)
    }

    fn run_batch(&mut self, batch: &LoadedBatch) -> Result<()> {
        let share = self.forward_backward(batch)?;
        self.losses_finite &= share.is_finite();
        self.losses
            .add(share, self.state.global_step, self.config.nan_inf_filter);
        Ok(())
    }

    /// Whether nothing is left to interrupt.
    fn is_done(&self, plan: &super::Plan) -> bool {
        self.control.should_training_stop() || self.state.global_step >= plan.max_steps
    }

    /// Best model, final metrics, final log (spec 3.2 steps 9 and 10).
    fn finish(&mut self, training: &Training) -> Result<Outcome> {
        self.load_best_model()?;
        let runtime = self.started.elapsed().as_secs_f64();
        self.training_seconds = runtime;
        self.state.total_flos += std::mem::take(&mut self.flos_since_log);
        let mut metrics = vec![("train_runtime".to_owned(), round(runtime, 4))];
        if runtime > 0.0 {
            let per_second = |amount: u64| round(amount as f64 / runtime, 3);
            metrics.push((
                "train_samples_per_second".to_owned(),
                per_second(training.plan.num_train_samples),
            ));
            metrics.push((
                "train_steps_per_second".to_owned(),
                per_second(training.plan.max_steps),
            ));
        }
        metrics.push(("total_flos".to_owned(), self.state.total_flos));
        metrics.push((
            "train_loss".to_owned(),
            self.losses.mean(self.state.global_step),
        ));
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

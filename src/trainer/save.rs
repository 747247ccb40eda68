//! Saving: what goes into a checkpoint, which one is best, which ones go (spec 5).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tch::Tensor;

use super::resume::Progress;
use super::{BestModel, Metrics, Trainer, Updates};
use crate::callback::{Event, EventKind};
use crate::checkpoint::rng::RngState;
use crate::checkpoint::save::{ModelFiles, SaveError, Staging, WeightsOptions};
use crate::checkpoint::{find, json, layout, load, rotate, save};
use crate::error::told;
use crate::model::weights;

/// Checkpoints above this are sharded, as the reference does.
const MAX_SHARD_BYTES: u64 = 10_000_000_000;

impl Trainer {
    /// Writes a checkpoint, keeps the best, removes old ones, fires `on_save`. A full disk is reported and training goes
    /// on, unless the configuration says otherwise.
    pub(super) fn save_checkpoint(
        &mut self,
        updates: &Updates<'_>,
        metrics: Option<&Metrics>,
    ) -> Result<()> {
        let best_before = (
            self.state.best_metric,
            self.state.best_model_checkpoint.clone(),
        );
        if let Some(metrics) = metrics {
            self.note_best(metrics)?;
        }
        match self.write_checkpoint(updates) {
            Ok(folder) => {
                let step = self.state.global_step;
                self.saved_step = Some(step);
                self.earlier_checkpoints.retain(|earlier| *earlier != step);
                self.rotate()?;
                self.fire(Event::Save(&folder))
            }
            Err(error) if !self.config.stop_on_disk_full && SaveError::find(&error).is_some() => {
                // The best model is what is on disk, so a save that failed cannot be it.
                (self.state.best_metric, self.state.best_model_checkpoint) = best_before;
                tracing::warn!(
                    "checkpoint {} was not saved, training goes on: {}",
                    self.state.global_step,
                    told(&error)
                );
                self.failed_saves += 1;
                self.control.clear_before(EventKind::Save);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The checkpoint of an interrupted run, unless this step has one already.
    pub(super) fn commit_interrupted(&mut self, updates: &Updates<'_>) -> Result<PathBuf> {
        let folder = layout::checkpoint(&self.config.output_dir, self.state.global_step);
        if self.saved_step == Some(self.state.global_step) && folder.exists() {
            return Ok(folder);
        }
        self.write_checkpoint(updates)
    }

    fn write_checkpoint(&mut self, updates: &Updates<'_>) -> Result<PathBuf> {
        self.store_flos();
        let step = self.state.global_step;
        let mut staging = Staging::begin(&self.config.output_dir, step)?;
        let saved = self
            .write_files(&mut staging, updates)
            .and_then(|()| staging.commit());
        saved.with_context(|| format!("saving checkpoint {step}"))
    }

    fn write_files(&self, staging: &mut Staging, updates: &Updates<'_>) -> Result<()> {
        if let Some(config) = self.parts.model.config() {
            staging.write_json(layout::CONFIG, &config)?;
        }
        staging.write_weights(&self.parts.model.state_dict(), self.weights_options())?;
        for companion in &self.config.companions {
            staging.copy_file(companion)?;
        }
        staging.write_json(layout::TRAINING_ARGS, &self.config.arguments)?;
        staging.write_part(layout::OPTIMIZER, &updates.optimizer.state()?)?;
        staging.write_json(layout::SCHEDULER, &updates.scheduler.state()?.json)?;
        if let Some(scaler) = &self.parts.scaler {
            staging.write_json(layout::SCALER, &scaler.state()?.json)?;
        }
        staging.write_json_sorted(layout::TRAINER_STATE, &self.state)?;
        let progress = self.progress()?;
        staging.write_json(layout::PROGRESS, &progress)?;
        staging.write_tensors(
            layout::PROGRESS_TENSORS,
            &self.progress_tensors()?,
            &BTreeMap::new(),
        )?;
        staging.write_part(
            layout::RNG_STATE,
            &RngState::capture(self.config.device)?.into_part()?,
        )
    }

    fn weights_options(&self) -> WeightsOptions {
        let is_library_model = self.parts.model.is_library_model();
        WeightsOptions {
            format_pt: is_library_model,
            max_shard_bytes: if is_library_model {
                MAX_SHARD_BYTES
            } else {
                u64::MAX
            },
        }
    }

    fn progress(&self) -> Result<Progress> {
        Ok(Progress {
            cursor: self.cursor.position(),
            accumulation_steps: self.accumulation.steps(),
            total_batches: self.accumulation.total_batches(),
            pending_batches: self.accumulation.pending(),
            losses: self.losses.clone(),
            losses_finite: self.losses_finite,
            nonfinite_steps: self.nonfinite_steps,
            flos_since_log: self.flos_since_log,
            callbacks: self.parts.callbacks.states(),
            training_stopped: self.control.should_training_stop()
                && self.state.global_step < self.state.max_steps,
            epoch_stopped: self.control.should_epoch_stop(),
            evaluation_owed: self.evaluation_owed,
            save_owed: self.evaluation_owed && self.control.should_save(),
        })
    }

    /// The data position and, in the middle of a group, its gradients so far.
    fn progress_tensors(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = self.cursor.tensors()?;
        if let Some(past) = &self.past {
            tensors.push((super::resume::PAST.to_owned(), past.f_contiguous()?));
        }
        if self.accumulation.pending() > 0 {
            for parameter in self.parts.model.parameters() {
                let gradient = parameter.tensor.f_grad()?;
                if gradient.defined() {
                    tensors.push((format!("gradient.{}", parameter.name), gradient));
                }
            }
        }
        Ok(tensors)
    }

    /// Updates the best metric; evaluations without a save never count, values that are not finite never win.
    fn note_best(&mut self, metrics: &Metrics) -> Result<()> {
        let Some(BestModel {
            metric,
            greater_is_better,
            ..
        }) = &self.config.best
        else {
            return Ok(());
        };
        let value = metrics.required(metric)?;
        let is_better = match self.state.best_metric {
            None => true,
            Some(best) if *greater_is_better => value > best,
            Some(best) => value < best,
        };
        if is_better && value.is_finite() {
            let folder = layout::checkpoint(&self.config.output_dir, self.state.global_step);
            self.state.best_metric = Some(value);
            self.state.best_model_checkpoint = Some(folder.to_string_lossy().into_owned());
        }
        Ok(())
    }

    fn best_folder(&self) -> Option<&Path> {
        self.state.best_model_checkpoint.as_deref().map(Path::new)
    }

    fn rotate(&self) -> Result<()> {
        match self.config.save_total_limit {
            Some(limit) => {
                let marked = (self.best_folder(), &*self.earlier_checkpoints);
                rotate::rotate(&self.config.output_dir, limit, marked)
            }
            None => Ok(()),
        }
    }

    /// With a limit of one, only the best checkpoint stays at the end, if one is known (spec 3.2, step 10).
    pub(super) fn rotate_at_end(&self) -> Result<()> {
        match (self.config.save_total_limit, self.best_folder()) {
            (Some(1), Some(best)) => rotate::keep_only(&self.config.output_dir, best),
            _ => Ok(()),
        }
    }

    fn loads_best(&self) -> bool {
        self.config
            .best
            .as_ref()
            .is_some_and(|best| best.load_at_end)
    }

    /// Reloads the best weights; weights only (spec 5.3). Whether it did.
    pub(super) fn load_best_model(&mut self) -> Result<bool> {
        let Some(recorded) = self.best_folder().filter(|_| self.loads_best()) else {
            return Ok(false);
        };
        let Some(folder) = find::locate(&self.config.output_dir, recorded) else {
            tracing::warn!(
                "the best model {} is gone; the last weights are kept",
                recorded.display()
            );
            return Ok(false);
        };
        tracing::info!(
            "loading the best model from {} (score {:?})",
            folder.display(),
            self.state.best_metric
        );
        let loaded = load::read_weights(&folder)?;
        weights::apply(&*self.parts.model, &loaded.tensors)
            .with_context(|| format!("loading the best model from {}", folder.display()))?;
        Ok(true)
    }

    /// `save_model`: weights, configuration, tokenizer and arguments into the output folder itself.
    pub fn save_model(&self) -> Result<()> {
        self.save_model_to(&self.config.output_dir)
    }

    /// [`Trainer::save_model`] into another folder.
    pub fn save_model_to(&self, folder: &Path) -> Result<()> {
        let (weights, config) = (self.parts.model.state_dict(), self.parts.model.config());
        let files = ModelFiles {
            weights: &weights,
            options: self.weights_options(),
            config: config.as_ref(),
            copies: &self.config.companions,
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("making the folder {}", folder.display()))?;
        save::write_model(folder, files).context("saving the model")?;
        save::atomic_write(
            &folder.join(layout::TRAINING_ARGS),
            &json::to_bytes(&self.config.arguments)?,
        )
    }

    /// `save_state`: `trainer_state.json` into the output folder.
    pub fn save_state(&self) -> Result<()> {
        save::atomic_write(
            &self.config.output_dir.join(layout::TRAINER_STATE),
            &json::to_sorted_bytes(&self.state)?,
        )
    }

    /// Saves that a full disk prevented.
    pub fn failed_saves(&self) -> u64 {
        self.failed_saves
    }
}

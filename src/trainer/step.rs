//! One micro-batch forward and backward, one update: the only places where gradients are made and used (I5).

use std::sync::Arc;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{OnNonfinite, Trainer, Updates};
use crate::amp;
use crate::callback::Event;
use crate::data::{Batch, LoadedBatch};
use crate::error::{Failure, Kind as FailureKind};
use crate::model::Outputs;
use crate::optim::clip;
use crate::torch;

/// The argument of `forward` that gets what is fed back.
const MEMORY: &str = "mems";

impl Trainer {
    /// Forward, loss, backward. Returns the batch's share of the step's loss, in the loss's own precision.
    pub(super) fn forward_backward(&mut self, loaded: &LoadedBatch) -> Result<f64> {
        self.set_training_mode(true)?;
        let batch = loaded.batch.to_device(self.config.device)?;
        let loss = self.compute_loss(&batch)?;
        check_trainable(&loss)?;
        let share = self.accumulation.share(&loss)?;
        match &self.parts.scaler {
            Some(scaler) => scaler.scale(&share)?.f_backward(),
            None => share.f_backward(),
        }
        .context("backward pass")?;
        self.flos_since_log += self.parts.model.floating_point_operations(&batch);
        let value = loss.f_double_value(&[])?;
        if let Some(record) = &mut self.parts.step_record {
            record.batch(self.state.global_step, &loaded.rows, value)?;
        }
        Ok(self
            .accumulation
            .share_of(value, loss.f_kind()? == Kind::Double))
    }

    /// The loss of a batch, with history unless gradients are off.
    fn compute_loss(&mut self, batch: &Batch) -> Result<Tensor> {
        let outputs = self.forward(batch)?;
        self.parts.loss.loss(&outputs, batch)
    }

    /// A forward pass, under autocast if the run has it. Outputs of half precision come back in float32 then.
    pub(super) fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        let autocast = self.config.precision.autocast_on(self.config.device)?;
        let outputs = self.forward_as_is(batch).context("forward pass")?;
        if autocast.is_none() && !self.config.precision.half_model {
            return Ok(outputs);
        }
        let named = outputs.fields.into_iter();
        let fields = named.map(|(name, tensor)| Ok((name, amp::in_float32(tensor)?)));
        Ok(Outputs {
            loss: outputs.loss.map(amp::in_float32).transpose()?,
            fields: fields.collect::<Result<_>>()?,
        })
    }

    /// A forward pass without the columns that the loss withholds, and with what is remembered of the batch before.
    fn forward_as_is(&mut self, batch: &Batch) -> Result<Outputs> {
        let withheld = self.parts.loss.withheld_columns();
        if withheld.is_empty() && self.config.past_index.is_none() {
            return self.parts.model.forward(batch);
        }
        let is_kept = |name: &str| !withheld.iter().any(|column| column == name);
        let kept = batch.columns.iter().filter(|(name, _)| is_kept(name));
        let past = self.past.take().map(|past| (Arc::from(MEMORY), past));
        let columns = kept
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .chain(past)
            .collect();
        let outputs = self.parts.model.forward(&Batch { columns })?;
        if let Some(index) = self.config.past_index {
            self.past = Some(past_of(&outputs, index)?);
        }
        Ok(outputs)
    }

    /// Unscale, clip, optimizer, schedule, gradients to none.
    pub(super) fn update(&mut self, updates: &mut Updates<'_>) -> Result<()> {
        let masters = updates.optimizer.gather()?;
        let parameters = masters.as_deref().unwrap_or(&self.parameters);
        let overflowed = match &mut self.parts.scaler {
            Some(scaler) => !scaler.unscale(parameters)?,
            None => false,
        };
        let norm = clip::clip(parameters, self.config.max_grad_norm)?;
        self.gradient_norm = norm;
        if let Some(record) = &mut self.parts.step_record {
            record.update(self.state.global_step, norm, &self.learning_rates)?;
        }
        if self.is_update_made(norm, overflowed)? {
            self.fire_with(Event::PreOptimizerStep, masters.as_deref())?;
            updates.optimizer.step().context("optimizer step")?;
            self.fire_with(Event::OptimizerStep, masters.as_deref())?;
            if !updates.scheduler.is_per_evaluation() {
                updates.scheduler.step(updates.optimizer.groups_mut());
            }
        }
        if let Some(scaler) = &mut self.parts.scaler {
            scaler.update();
        }
        torch::clear_gradients(&self.parameters)?;
        self.note_rates(updates.optimizer);
        Ok(())
    }

    /// Counts a step with a loss or gradient that is not finite, and says what becomes of it. Gradients that overflowed
    /// under finite losses mean that the scale was too large: the scaler's business, and left out without counting.
    fn is_update_made(&mut self, norm: Option<f64>, overflowed: bool) -> Result<bool> {
        let losses_finite = std::mem::replace(&mut self.losses_finite, true);
        if overflowed && losses_finite {
            return Ok(false);
        }
        let gradients_finite = match norm {
            Some(norm) => norm.is_finite(),
            None => torch::gradients_are_finite(&self.parameters)?,
        };
        if losses_finite && gradients_finite {
            return Ok(true);
        }
        self.nonfinite_steps += 1;
        match self.config.on_nonfinite {
            OnNonfinite::Warn => Ok(!overflowed),
            OnNonfinite::Skip => Ok(false),
            OnNonfinite::Stop => {
                let step = self.state.global_step + 1;
                let message = format!("the loss or a gradient is not finite at step {step}");
                let hint = "lower --learning_rate or set --max_grad_norm; --on_nonfinite skip leaves such steps out";
                Err(Failure::new(FailureKind::Numeric, message)
                    .hint(hint)
                    .into())
            }
        }
    }
}

/// The output that is fed back, without its history: the reference leaves cutting it to the model.
fn past_of(outputs: &Outputs, index: usize) -> Result<Tensor> {
    let past = index
        .checked_sub(1)
        .and_then(|index| outputs.fields.get(index));
    let Some((_, past)) = past else {
        let names: Vec<&str> = outputs.fields.iter().map(|(name, _)| &**name).collect();
        let message = format!(
            "past_index is {index}, counted from the loss as 0, but the model returns only {}",
            names.join(", ")
        );
        return Err(Failure::usage(message).into());
    };
    Ok(past.f_detach()?)
}

/// A loss without history would fail in the backward pass with words of libtorch.
fn check_trainable(loss: &Tensor) -> Result<()> {
    if loss.requires_grad() {
        return Ok(());
    }
    let message = "the loss depends on no parameter that can be trained";
    Err(Failure::data(message)
        .hint("the model must compute it from its parameters, as floating point numbers and without detaching")
        .into())
}

//! Scaling of losses, so that small float16 gradients do not vanish: `torch.cuda.amp.GradScaler`.

use anyhow::Result;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::checkpoint::{PartState, Stateful};
use crate::error::Failure;
use crate::torch;

/// Scales losses before the backward pass and gradients back after it.
pub trait Scaler: Stateful {
    /// The loss times the scale, with history.
    fn scale(&self, loss: &Tensor) -> Result<Tensor>;
    /// Divides the gradients of `parameters` by the scale. Whether all of them are finite; if not, the update must be
    /// left out.
    fn unscale(&mut self, parameters: &[Tensor]) -> Result<bool>;
    /// Adapts the scale after a step, by what the last [`Scaler::unscale`] has found.
    fn update(&mut self);
}

/// Grows the scale after a number of steps without overflow, and shrinks it at each overflow.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicScaler {
    /// A float32 number, as the tensor of the reference holds it.
    scale: f32,
    growth_factor: f64,
    backoff_factor: f64,
    growth_interval: u64,
    /// Steps without overflow since the scale last changed.
    growth_tracker: u64,
    found_overflow: bool,
}

impl Default for DynamicScaler {
    /// The reference's: 65536, doubled after 2000 steps, halved at an overflow.
    fn default() -> Self {
        Self::new(65536.0, 2000)
    }
}

impl DynamicScaler {
    /// With another first scale and another number of steps before it grows.
    pub fn new(scale: f32, growth_interval: u64) -> Self {
        Self {
            scale,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval,
            growth_tracker: 0,
            found_overflow: false,
        }
    }

    /// The present scale.
    pub fn current_scale(&self) -> f32 {
        self.scale
    }
}

impl Scaler for DynamicScaler {
    fn scale(&self, loss: &Tensor) -> Result<Tensor> {
        // In float32 even if the loss is in half precision: the scale may be beyond its range.
        let scale = Tensor::f_from_slice(&[self.scale])?
            .f_squeeze()?
            .f_to_device(loss.device())?;
        let loss = match loss.f_kind()? {
            Kind::Half | Kind::BFloat16 => loss.f_to_kind(Kind::Float)?,
            _ => loss.shallow_clone(),
        };
        Ok(loss.f_mul(&scale)?)
    }

    fn unscale(&mut self, parameters: &[Tensor]) -> Result<bool> {
        // Divided in double and rounded once, as `scale.double().reciprocal().float()`.
        let inverse = (1.0 / f64::from(self.scale)) as f32;
        self.found_overflow = !torch::unscale_gradients(parameters, inverse)?;
        Ok(!self.found_overflow)
    }

    fn update(&mut self) {
        if std::mem::take(&mut self.found_overflow) {
            self.scale = (f64::from(self.scale) * self.backoff_factor) as f32;
            self.growth_tracker = 0;
            return;
        }
        self.growth_tracker += 1;
        if self.growth_tracker == self.growth_interval {
            let grown = (f64::from(self.scale) * self.growth_factor) as f32;
            if grown.is_finite() {
                self.scale = grown;
            }
            self.growth_tracker = 0;
        }
    }
}

impl Stateful for DynamicScaler {
    /// The keys of `GradScaler.state_dict`.
    fn state(&self) -> Result<PartState> {
        Ok(PartState {
            tensors: Vec::new(),
            json: json!({
                "scale": self.scale,
                "growth_factor": self.growth_factor,
                "backoff_factor": self.backoff_factor,
                "growth_interval": self.growth_interval,
                "_growth_tracker": self.growth_tracker,
            }),
        })
    }

    fn load_state(&mut self, state: PartState) -> Result<()> {
        let misfit = |key: &str| {
            Failure::data(format!("the state of the loss scale has no usable {key}"))
                .hint("resume from another checkpoint")
        };
        let number = |key: &str| {
            let value = state.json.get(key).and_then(Value::as_f64);
            value
                .filter(|value| value.is_finite() && *value > 0.0)
                .ok_or_else(|| misfit(key))
        };
        let count = |key: &str| {
            let value = state.json.get(key).and_then(Value::as_u64);
            value.ok_or_else(|| misfit(key))
        };
        *self = Self {
            scale: number("scale")? as f32,
            growth_factor: number("growth_factor")?,
            backoff_factor: number("backoff_factor")?,
            growth_interval: count("growth_interval")?,
            growth_tracker: count("_growth_tracker")?,
            found_overflow: false,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameter(gradient: f32) -> Tensor {
        let parameter = Tensor::from(0.0_f32).set_requires_grad(true);
        torch::set_gradient(&parameter, &Tensor::from(gradient)).expect("a gradient");
        parameter
    }

    /// libtorch's own kernel takes the same steps from the same findings.
    #[test]
    fn the_scale_moves_as_libtorchs() {
        let findings = [
            false, false, true, false, true, true, false, false, false, false, false, false,
        ];
        for first in [65536.0, 3e38, 1e-44] {
            let mut ours = DynamicScaler::new(first, 3);
            let mut scale = Tensor::from_slice(&[first]);
            let tracker = Tensor::from_slice(&[0_i32]);
            for found in findings {
                ours.found_overflow = found;
                ours.update();
                let found = Tensor::from_slice(&[f32::from(u8::from(found))]);
                let _ = scale.internal_amp_update_scale_(&tracker, &found, 2.0, 0.5, 3);
                assert_eq!(
                    (f64::from(ours.scale), ours.growth_tracker as i64),
                    (scale.double_value(&[0]), tracker.int64_value(&[0])),
                    "from {first}"
                );
            }
        }
    }

    #[test]
    fn gradients_come_back_unscaled_and_overflow_is_found() {
        let mut scaler = DynamicScaler::default();
        let scaled = scaler.scale(&Tensor::from(2.0_f32)).expect("a loss");
        assert_eq!(scaled.double_value(&[]), 131_072.0);
        let parameters = [parameter(65536.0), Tensor::from(1.0_f32), parameter(-3.0)];
        assert!(scaler.unscale(&parameters).expect("gradients"));
        assert_eq!(parameters[0].grad().double_value(&[]), 1.0);
        assert_eq!(parameters[2].grad().double_value(&[]), -3.0 / 65536.0);
        for bad in [f32::INFINITY, f32::NAN] {
            let found = scaler.unscale(&[parameter(1.0), parameter(bad)]);
            assert!(!found.expect("gradients"), "{bad}");
        }
    }

    #[test]
    fn the_state_continues() {
        let mut scaler = DynamicScaler::new(8.0, 2);
        scaler.update();
        let mut other = DynamicScaler::default();
        other
            .load_state(scaler.state().expect("a state"))
            .expect("it fits");
        assert_eq!(other, scaler);
        let mut state = scaler.state().expect("a state");
        state.json["scale"] = json!(-1);
        let error = other.load_state(state).expect_err("no scale");
        assert!(error.to_string().contains("no usable scale"), "{error}");
        assert_eq!(other, scaler, "unchanged");
    }
}

//! `transformers.optimization.Adafactor`, operation for operation: second moments of matrices kept as a row and a column.

use anyhow::Result;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::state::{self, Entry};
use super::{Optimizer, ParameterGroup, groups};
use crate::checkpoint::{PartState, Stateful};
use crate::error::Failure;
use crate::torch::add_scaled;

/// Hyperparameters besides rate and decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdafactorSettings {
    /// Added to squared gradients; smallest scale of a parameter.
    pub epsilon: (f64, f64),
    /// Largest root mean square of an update.
    pub clip_threshold: f64,
    /// Exponent of the decay of second moments.
    pub decay_rate: f64,
    /// Decay of the first moment, if there is one.
    pub beta1: Option<f64>,
    /// Multiply the rate by the parameter's root mean square.
    pub scale_parameter: bool,
    /// Compute the rate from the step count; the groups' rates are not used.
    pub relative_step: bool,
    /// Begin with small relative steps.
    pub warmup_init: bool,
}

impl AdafactorSettings {
    /// As the Trainer uses it: an external rate, nothing relative.
    pub fn as_trainer() -> Self {
        Self {
            epsilon: (1e-30, 1e-3),
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            scale_parameter: false,
            relative_step: false,
            warmup_init: false,
        }
    }
}

/// The optimizer. State is made at the first gradient of a parameter.
#[derive(Debug)]
pub struct Adafactor {
    groups: Vec<ParameterGroup>,
    settings: AdafactorSettings,
    slots: Vec<Option<Slot>>,
}

/// State of one parameter, in float32 or wider.
#[derive(Debug)]
struct Slot {
    step: f64,
    second: SecondMoment,
    first: Option<Tensor>,
    /// Root mean square of the parameter at the last step.
    rms: Tensor,
}

#[derive(Debug)]
enum SecondMoment {
    Factored { row: Tensor, column: Tensor },
    Full(Tensor),
}

/// Names of the state's tensors.
const ROW: &str = "exp_avg_sq_row";
const COLUMN: &str = "exp_avg_sq_col";
const FULL: &str = "exp_avg_sq";
const FIRST: &str = "exp_avg";
const RMS: &str = "RMS";

impl Adafactor {
    /// Over groups.
    pub fn new(groups: Vec<ParameterGroup>, settings: AdafactorSettings) -> Result<Self> {
        if settings.warmup_init && !settings.relative_step {
            return Err(Failure::usage("adafactor: warmup_init requires relative_step").into());
        }
        groups::check(&groups)?;
        let count = groups.iter().map(|group| group.parameters.len()).sum();
        Ok(Self {
            groups,
            settings,
            slots: (0..count).map(|_| None).collect(),
        })
    }

    /// Writes the rates that were used into the groups, for who reports them: those of each group's first parameter.
    fn show_rates(&mut self) -> Result<()> {
        let mut first = 0;
        for group in &mut self.groups {
            if let Some(Some(slot)) = self.slots.get(first) {
                group.learning_rate = slot.rate(group, &self.settings)?;
            }
            first += group.parameters.len();
        }
        Ok(())
    }

    fn read_entry(&self, name: &str, parameter: &Tensor, mut entry: Entry) -> Result<Slot> {
        let like = wide(parameter)?;
        let shape = parameter.size();
        let mut take =
            |key: &str, shape: &[i64]| state::take(&mut entry, key, (name, shape, &like));
        let second = match shape.as_slice() {
            [.., _, _] => SecondMoment::Factored {
                row: take(ROW, &row_shape(&shape))?,
                column: take(COLUMN, &column_shape(&shape))?,
            },
            _ => SecondMoment::Full(take(FULL, &shape)?),
        };
        let first = self
            .settings
            .beta1
            .map(|_| take(FIRST, &shape))
            .transpose()?;
        let rms = take(RMS, &[])?;
        let step = state::take_step(&mut entry, name)?;
        state::nothing_left(&entry, name)?;
        Ok(Slot {
            step,
            second,
            first,
            rms,
        })
    }
}

/// The tensor in a type that can hold sums: half precision becomes float32.
fn wide(tensor: &Tensor) -> Result<Tensor> {
    Ok(match tensor.f_kind()? {
        Kind::BFloat16 | Kind::Half => tensor.f_to_kind(Kind::Float)?,
        _ => tensor.shallow_clone(),
    })
}

fn row_shape(shape: &[i64]) -> Vec<i64> {
    shape[..shape.len() - 1].to_vec()
}

fn column_shape(shape: &[i64]) -> Vec<i64> {
    [&shape[..shape.len() - 2], &shape[shape.len() - 1..]].concat()
}

fn root_mean_square(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor
        .f_norm()?
        .f_div_scalar((tensor.numel() as f64).sqrt())?)
}

impl Slot {
    fn new(gradient: &Tensor, settings: &AdafactorSettings) -> Result<Self> {
        let options = (gradient.f_kind()?, gradient.device());
        let shape = gradient.size();
        let second = if shape.len() >= 2 {
            let (row, column) = (row_shape(&shape), column_shape(&shape));
            SecondMoment::Factored {
                row: Tensor::f_zeros(row, options)?,
                column: Tensor::f_zeros(column, options)?,
            }
        } else {
            SecondMoment::Full(gradient.f_zeros_like()?)
        };
        let first = settings
            .beta1
            .map(|_| gradient.f_zeros_like())
            .transpose()?;
        Ok(Self {
            step: 0.0,
            second,
            first,
            rms: Tensor::f_zeros([] as [i64; 0], options)?,
        })
    }

    /// One update of `parameter` from `gradient`, both wide.
    fn step(
        &mut self,
        (parameter, gradient): (&mut Tensor, &Tensor),
        group: &ParameterGroup,
        settings: &AdafactorSettings,
    ) -> Result<()> {
        self.step += 1.0;
        self.rms = root_mean_square(parameter)?;
        let rate = self.rate(group, settings)?;
        let decay = 1.0 - self.step.powf(settings.decay_rate);
        let squares = gradient
            .f_pow_tensor_scalar(2)?
            .f_add_scalar(settings.epsilon.0)?;
        let mut update = self.second.normalize(&squares, gradient, decay)?;
        let mut excess = root_mean_square(&update)?.f_div_scalar(settings.clip_threshold)?;
        let mut update = update.f_div_(&excess.f_clamp_min_(1.0)?)?;
        let mut update = update.f_mul_scalar_(rate)?;
        if let (Some(first), Some(beta1)) = (&mut self.first, settings.beta1) {
            let mut decayed = first.f_mul_scalar_(beta1)?;
            add_scaled(&mut decayed, &update, 1.0 - beta1)?;
            update = decayed;
        }
        if group.weight_decay != 0.0 {
            let present = parameter.shallow_clone();
            add_scaled(parameter, &present, -group.weight_decay * rate)?;
        }
        let _ = parameter.f_add_(&update.f_neg()?)?;
        Ok(())
    }

    fn rate(&self, group: &ParameterGroup, settings: &AdafactorSettings) -> Result<f64> {
        let relative = if settings.relative_step {
            let least = if settings.warmup_init {
                1e-6 * self.step
            } else {
                1e-2
            };
            f64::min(least, 1.0 / self.step.sqrt())
        } else {
            group.learning_rate
        };
        if !settings.scale_parameter {
            return Ok(relative);
        }
        // The reference multiplies a float32 tensor here.
        let scale = self.rms.f_double_value(&[])?;
        Ok(if scale > settings.epsilon.1 {
            f64::from(scale as f32 * relative as f32)
        } else {
            settings.epsilon.1 * relative
        })
    }
}

impl SecondMoment {
    /// Takes new squares in and returns the gradient divided by their root.
    fn normalize(&mut self, squares: &Tensor, gradient: &Tensor, decay: f64) -> Result<Tensor> {
        match self {
            Self::Factored { row, column } => {
                let mut row = row.f_mul_scalar_(decay)?;
                add_scaled(
                    &mut row,
                    &squares.f_mean_dim([-1_i64].as_slice(), false, None)?,
                    1.0 - decay,
                )?;
                let mut column = column.f_mul_scalar_(decay)?;
                add_scaled(
                    &mut column,
                    &squares.f_mean_dim([-2_i64].as_slice(), false, None)?,
                    1.0 - decay,
                )?;
                let row = row
                    .f_div(&row.f_mean_dim([-1_i64].as_slice(), true, None)?)?
                    .f_rsqrt_()?
                    .f_unsqueeze(-1)?;
                let column = column.f_unsqueeze(-2)?.f_rsqrt()?;
                Ok(row.f_mul(&column)?.f_mul_(gradient)?)
            }
            Self::Full(average) => {
                let mut average = average.f_mul_scalar_(decay)?;
                add_scaled(&mut average, squares, 1.0 - decay)?;
                Ok(average.f_rsqrt()?.f_mul_(gradient)?)
            }
        }
    }
}

/// One parameter: a wide copy is stepped and copied back if it is of half precision.
fn step_parameter(
    slot: &mut Option<Slot>,
    parameter: &Tensor,
    group: &ParameterGroup,
    settings: &AdafactorSettings,
) -> Result<()> {
    let gradient = parameter.f_grad()?;
    if !gradient.defined() {
        return Ok(());
    }
    let gradient = wide(&gradient)?;
    let slot = match slot {
        Some(slot) => slot,
        None => slot.insert(Slot::new(&gradient, settings)?),
    };
    let mut working = wide(parameter)?;
    slot.step((&mut working, &gradient), group, settings)?;
    if working.f_kind()? != parameter.f_kind()? {
        parameter.shallow_clone().f_copy_(&working)?;
    }
    Ok(())
}

impl Optimizer for Adafactor {
    fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [ParameterGroup] {
        &mut self.groups
    }

    fn step(&mut self) -> Result<()> {
        let (groups, settings) = (&self.groups, &self.settings);
        let parameters = groups.iter().flat_map(|group| {
            group
                .parameters
                .iter()
                .map(move |parameter| (group, parameter))
        });
        tch::no_grad(|| {
            parameters
                .zip(&mut self.slots)
                .try_for_each(|((group, parameter), slot)| {
                    step_parameter(slot, parameter, group, settings)
                })
        })?;
        if self.settings.relative_step {
            self.show_rates()?;
        }
        Ok(())
    }
}

impl Stateful for Adafactor {
    fn state(&self) -> Result<PartState> {
        let mut tensors = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let mut push = |key: &str, tensor: &Tensor| {
                tensors.push((state::name(index, key), tensor.shallow_clone()))
            };
            push(
                "step",
                &Tensor::f_from_slice(&[slot.step as f32])?.f_reshape([] as [i64; 0])?,
            );
            slot.first.iter().for_each(|first| push(FIRST, first));
            match &slot.second {
                SecondMoment::Factored { row, column } => {
                    push(ROW, row);
                    push(COLUMN, column);
                }
                SecondMoment::Full(average) => push(FULL, average),
            }
            push(RMS, &slot.rms);
        }
        let AdafactorSettings {
            epsilon,
            clip_threshold,
            decay_rate,
            beta1,
            ..
        } = self.settings;
        let own = [
            ("eps", json!([epsilon.0, epsilon.1])),
            ("clip_threshold", json!(clip_threshold)),
            ("decay_rate", json!(decay_rate)),
            ("beta1", beta1.map_or(Value::Null, Value::from)),
            ("scale_parameter", json!(self.settings.scale_parameter)),
            ("relative_step", json!(self.settings.relative_step)),
            ("warmup_init", json!(self.settings.warmup_init)),
        ];
        Ok(PartState {
            tensors,
            json: state::groups_json(&self.groups, &own),
        })
    }

    fn load_state(&mut self, state: PartState) -> Result<()> {
        let incoming = state::read(&self.groups, state)?;
        let read = |name: &str, parameter: &Tensor, entry| self.read_entry(name, parameter, entry);
        self.slots = state::read_slots(&self.groups, incoming.entries, read)?;
        state::apply_groups(&mut self.groups, &incoming.groups);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Adafactor, AdafactorSettings};
    use crate::checkpoint::{PartState, Stateful};
    use crate::optim::{Optimizer, ParameterGroup};
    use crate::torch::set_gradient;
    use tch::{Kind, Tensor};

    fn optimizer(settings: AdafactorSettings, kind: Kind) -> Adafactor {
        let group = |name: &str, parameter: Tensor, weight_decay: f64| ParameterGroup {
            parameters: vec![parameter.to_kind(kind).set_requires_grad(true)],
            names: vec![name.to_owned()],
            learning_rate: 0.1,
            initial_learning_rate: 0.1,
            weight_decay,
        };
        let w = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]).view([2, 2]);
        let b = Tensor::from_slice(&[1.0_f32, -1.0]);
        Adafactor::new(vec![group("w", w, 0.1), group("b", b, 0.0)], settings).expect("valid")
    }

    fn step(optimizer: &mut Adafactor, (w_factor, b_factor): (f64, f64)) {
        let w = Tensor::from_slice(&[0.1_f32, 0.2, -0.3, 0.4]).view([2, 2]) * w_factor;
        let b = Tensor::from_slice(&[0.5_f32, -0.5]) * b_factor;
        for (group, gradient) in optimizer.groups().iter().zip([w, b]) {
            let parameter = &group.parameters[0];
            set_gradient(parameter, &gradient.to_kind(parameter.kind())).expect("a gradient");
        }
        optimizer.step().expect("a step");
    }

    fn values(optimizer: &Adafactor) -> Vec<f32> {
        let flat = |group: &ParameterGroup| {
            Vec::<f32>::try_from(
                group.parameters[0]
                    .detach()
                    .to_kind(Kind::Float)
                    .flatten(0, -1),
            )
        };
        optimizer
            .groups()
            .iter()
            .flat_map(|group| flat(group).expect("floats"))
            .collect()
    }

    #[test]
    fn two_steps_give_the_recorded_values() {
        let expected = [
            [0.912_540, 1.870_456, 3.073_923, 3.862_020, 0.9, -0.9],
            [
                0.824_358, 1.739_948, 3.149_250, 3.723_400, 0.833_729, -0.833_729,
            ],
        ];
        for (kind, tolerance) in [
            (Kind::Float, 2e-6),
            (Kind::Double, 2e-6),
            (Kind::BFloat16, 2e-2),
        ] {
            let mut optimizer = optimizer(AdafactorSettings::as_trainer(), kind);
            for (factors, expected) in [(1.0, 1.0), (2.0, 0.5)].into_iter().zip(expected) {
                step(&mut optimizer, factors);
                for (value, expected) in values(&optimizer).iter().zip(expected) {
                    assert!(
                        (value - expected).abs() < tolerance,
                        "{kind:?}: {value} {expected}"
                    );
                }
            }
        }
    }

    #[test]
    fn it_goes_on_from_its_state_bit_for_bit() {
        let general = AdafactorSettings {
            beta1: Some(0.9),
            scale_parameter: true,
            relative_step: true,
            warmup_init: true,
            ..AdafactorSettings::as_trainer()
        };
        for settings in [AdafactorSettings::as_trainer(), general] {
            let (mut whole, mut resumed) = (
                optimizer(settings, Kind::Float),
                optimizer(settings, Kind::Float),
            );
            assert!(whole.state().expect("a state").tensors.is_empty());
            step(&mut whole, (1.0, 1.0));
            step(&mut whole, (-1.0, 3.0));
            let state = whole.state().expect("a state");
            let tensors = state
                .tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.copy()))
                .collect();
            for (from, to) in whole.groups().iter().zip(resumed.groups()) {
                tch::no_grad(|| to.parameters[0].shallow_clone().copy_(&from.parameters[0]));
            }
            resumed
                .load_state(PartState {
                    tensors,
                    json: state.json,
                })
                .expect("it fits");
            step(&mut whole, (0.5, 2.0));
            step(&mut resumed, (0.5, 2.0));
            assert_eq!(values(&whole), values(&resumed));
        }
    }

    #[test]
    fn a_state_without_a_row_is_refused() {
        let mut whole = optimizer(AdafactorSettings::as_trainer(), Kind::Float);
        step(&mut whole, (1.0, 1.0));
        let mut state = whole.state().expect("a state");
        state.tensors.retain(|(name, _)| !name.ends_with("_row"));
        let error = optimizer(AdafactorSettings::as_trainer(), Kind::Float)
            .load_state(state)
            .expect_err("incomplete");
        assert_eq!(
            error.to_string(),
            "the optimizer state does not fit: w has no exp_avg_sq_row"
        );
    }
}

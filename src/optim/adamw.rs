//! `torch.optim.AdamW`, with single-tensor operations or the fused kernel.

use std::ops::Range;

use anyhow::Result;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::state::{self, Entry};
use super::{Optimizer, OptimizerSettings, ParameterGroup, groups};
use crate::checkpoint::{PartState, Stateful};
use crate::torch::{self, AdamParameters, AdamState};

/// Adam with decoupled weight decay. Moments are made at the first gradient of a parameter.
#[derive(Debug)]
pub struct AdamW {
    groups: Vec<ParameterGroup>,
    settings: OptimizerSettings,
    fused: bool,
    moments: Moments,
}

/// Of all parameters through the groups; undefined tensors where there was no gradient yet.
#[derive(Debug, Default)]
struct Moments {
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
    absent: usize,
}

impl Moments {
    fn new(count: usize) -> Self {
        let undefined = || (0..count).map(|_| Tensor::new()).collect();
        Self {
            exp_avgs: undefined(),
            exp_avg_sqs: undefined(),
            steps: undefined(),
            absent: count,
        }
    }

    fn set(&mut self, index: usize, [exp_avg, exp_avg_sq, step]: [Tensor; 3]) {
        self.exp_avgs[index] = exp_avg;
        self.exp_avg_sqs[index] = exp_avg_sq;
        self.steps[index] = step;
        self.absent -= 1;
    }

    fn is_present(&self, index: usize) -> bool {
        self.steps[index].defined()
    }

    fn of(&self, range: Range<usize>) -> AdamState<'_> {
        AdamState {
            exp_avgs: &self.exp_avgs[range.clone()],
            exp_avg_sqs: &self.exp_avg_sqs[range.clone()],
            steps: &self.steps[range],
        }
    }
}

impl AdamW {
    /// Over groups; `fused` is `adamw_torch_fused`.
    pub fn new(
        groups: Vec<ParameterGroup>,
        settings: OptimizerSettings,
        fused: bool,
    ) -> Result<Self> {
        groups::check(&groups)?;
        let settings = settings.checked()?;
        let count = groups.iter().map(|group| group.parameters.len()).sum();
        Ok(Self {
            groups,
            settings,
            fused,
            moments: Moments::new(count),
        })
    }

    /// Makes the moments of parameters that have a gradient for the first time.
    fn make_moments(&mut self) -> Result<()> {
        let parameters = self.groups.iter().flat_map(|group| &group.parameters);
        for (index, parameter) in parameters.enumerate() {
            if !self.moments.is_present(index) && parameter.f_grad()?.defined() {
                let zeros = || anyhow::Ok(parameter.f_detach()?.f_zeros_like()?);
                let moments = [zeros()?, zeros()?, self.step_tensor(0.0, parameter)?];
                self.moments.set(index, moments);
            }
        }
        Ok(())
    }

    /// As torch: beside the parameter for the fused kernel, else on the host.
    fn step_tensor(&self, step: f64, parameter: &Tensor) -> Result<Tensor> {
        let device = if self.fused {
            parameter.device()
        } else {
            Device::Cpu
        };
        Ok(Tensor::f_full([] as [i64; 0], step, (Kind::Float, device))?)
    }

    fn parameters(&self, group: &ParameterGroup) -> AdamParameters {
        AdamParameters {
            learning_rate: group.learning_rate,
            beta1: self.settings.beta1,
            beta2: self.settings.beta2,
            weight_decay: group.weight_decay,
            epsilon: self.settings.epsilon,
            fused: self.fused,
        }
    }

    fn read_entry(&self, name: &str, parameter: &Tensor, mut entry: Entry) -> Result<[Tensor; 3]> {
        let (shape, step) = (parameter.size(), state::take_step(&mut entry, name)?);
        let exp_avg = state::take(&mut entry, "exp_avg", (name, &shape, parameter))?;
        let exp_avg_sq = state::take(&mut entry, "exp_avg_sq", (name, &shape, parameter))?;
        state::nothing_left(&entry, name)?;
        Ok([exp_avg, exp_avg_sq, self.step_tensor(step, parameter)?])
    }

    fn group_settings(&self) -> [(&'static str, Value); 8] {
        [
            ("betas", json!([self.settings.beta1, self.settings.beta2])),
            ("eps", json!(self.settings.epsilon)),
            ("amsgrad", json!(false)),
            ("maximize", json!(false)),
            ("foreach", Value::Null),
            ("capturable", json!(false)),
            ("differentiable", json!(false)),
            ("fused", if self.fused { json!(true) } else { Value::Null }),
        ]
    }
}

impl Optimizer for AdamW {
    fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [ParameterGroup] {
        &mut self.groups
    }

    fn step(&mut self) -> Result<()> {
        if self.moments.absent > 0 {
            self.make_moments()?;
        }
        let mut first = 0;
        for group in &self.groups {
            let range = first..first + group.parameters.len();
            first = range.end;
            torch::adamw_step(
                &group.parameters,
                &self.moments.of(range),
                self.parameters(group),
            )?;
        }
        Ok(())
    }
}

impl Stateful for AdamW {
    fn state(&self) -> Result<PartState> {
        let mut tensors = Vec::new();
        for index in (0..self.moments.steps.len()).filter(|index| self.moments.is_present(*index)) {
            let Moments {
                exp_avgs,
                exp_avg_sqs,
                steps,
                ..
            } = &self.moments;
            for (key, list) in [
                ("step", steps),
                ("exp_avg", exp_avgs),
                ("exp_avg_sq", exp_avg_sqs),
            ] {
                tensors.push((state::name(index, key), list[index].shallow_clone()));
            }
        }
        let mut own = self.group_settings().to_vec();
        own.push(("decoupled_weight_decay", json!(true)));
        Ok(PartState {
            tensors,
            json: state::groups_json(&self.groups, &own),
        })
    }

    fn load_state(&mut self, state: PartState) -> Result<()> {
        let incoming = state::read(&self.groups, state)?;
        let mut moments = Moments::new(incoming.entries.len());
        for (index, ((name, parameter), entry)) in
            state::named(&self.groups).zip(incoming.entries).enumerate()
        {
            if !entry.is_empty() {
                moments.set(index, self.read_entry(name, parameter, entry)?);
            }
        }
        self.moments = moments;
        state::apply_groups(&mut self.groups, &incoming.groups);
        if let Some(saved) = incoming.groups.first() {
            self.settings.adopt(saved);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::AdamW;
    use crate::checkpoint::{PartState, Stateful};
    use crate::optim::{Optimizer, OptimizerSettings, ParameterGroup};
    use tch::Tensor;

    const SETTINGS: OptimizerSettings = OptimizerSettings {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-3,
    };

    fn optimizer(fused: bool) -> AdamW {
        let parameter = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        let idle = Tensor::from_slice(&[5.0_f32]).set_requires_grad(true);
        let group = |parameters: Vec<Tensor>, names: &[&str]| ParameterGroup {
            parameters,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            learning_rate: 0.1,
            initial_learning_rate: 0.1,
            weight_decay: 0.2,
        };
        AdamW::new(
            vec![
                group(vec![idle, parameter], &["idle", "p"]),
                group(vec![], &[]),
            ],
            SETTINGS,
            fused,
        )
        .expect("valid")
    }

    fn step(optimizer: &mut AdamW, t: f64) {
        let parameter = &optimizer.groups()[0].parameters[1];
        parameter.grad().defined().then(|| parameter.grad().zero_());
        (parameter * (Tensor::from_slice(&[0.01_f32, -0.5]) * t))
            .sum(None)
            .backward();
        optimizer.step().expect("a step");
    }

    fn values(optimizer: &AdamW) -> Vec<f32> {
        Vec::try_from(optimizer.groups()[0].parameters[1].detach()).expect("floats")
    }

    fn copied(state: PartState) -> PartState {
        let tensors = state
            .tensors
            .into_iter()
            .map(|(name, tensor)| (name, tensor.copy()))
            .collect();
        PartState {
            tensors,
            json: state.json,
        }
    }

    #[test]
    fn three_steps_give_the_recorded_values() {
        for fused in [false, true] {
            let mut optimizer = optimizer(fused);
            for t in 1..=3 {
                step(&mut optimizer, f64::from(t));
            }
            let [a, b] = values(&optimizer)[..] else {
                panic!("two values")
            };
            assert!(
                (a - 0.673_358).abs() < 2e-6 && (b + 1.596_356).abs() < 2e-6,
                "{fused}: {a} {b}"
            );
        }
    }

    #[test]
    fn the_state_is_torchs_and_goes_on_bit_for_bit() {
        for fused in [false, true] {
            let mut whole = optimizer(fused);
            assert!(
                whole.state().expect("a state").tensors.is_empty(),
                "made at the first step"
            );
            step(&mut whole, 1.0);
            whole.groups_mut()[0].learning_rate = 0.05;
            let state = copied(whole.state().expect("a state"));
            let names: Vec<_> = state
                .tensors
                .iter()
                .map(|(name, _)| name.as_str())
                .collect();
            assert_eq!(
                names,
                ["state.1.step", "state.1.exp_avg", "state.1.exp_avg_sq"],
                "a parameter without gradient has none"
            );
            assert_eq!(
                state.json["param_groups"][0]["params"],
                serde_json::json!([0, 1])
            );
            assert_eq!(state.json["param_groups"][0]["lr"], 0.05);
            assert_eq!(
                state.json["param_groups"][1]["params"],
                serde_json::json!([])
            );

            let mut resumed = optimizer(fused);
            tch::no_grad(|| {
                resumed.groups()[0].parameters[1]
                    .shallow_clone()
                    .copy_(&whole.groups()[0].parameters[1])
            });
            resumed.load_state(state).expect("it fits");
            for t in [2.0, 3.0] {
                step(&mut whole, t);
                step(&mut resumed, t);
            }
            assert_eq!(values(&whole), values(&resumed));
        }
    }

    #[test]
    fn a_state_that_does_not_fit_changes_nothing() {
        let mut whole = optimizer(false);
        step(&mut whole, 1.0);
        type Spoil = fn(&mut PartState);
        let spoils: [(Spoil, &str); 6] = [
            (
                |state| state.tensors[1].1 = Tensor::from_slice(&[1.0_f32]),
                "exp_avg of p has shape [1], not [2]",
            ),
            (
                |state| state.tensors[0].0 = "state.9.step".to_owned(),
                "tensor state.9.step belongs to no parameter",
            ),
            (|state| drop(state.tensors.remove(2)), "p has no exp_avg_sq"),
            (
                |state| state.tensors[2].0 = "state.1.other".to_owned(),
                "p has no exp_avg_sq",
            ),
            (
                |state| drop(state.json["param_groups"].as_array_mut().map(Vec::pop)),
                "it has 1 parameter groups, the model 2",
            ),
            (
                |state| state.json["param_groups"][0]["params"] = serde_json::json!([0]),
                "group 0 has 1 parameters, the model's 2",
            ),
        ];
        for (spoil, expected) in spoils {
            let mut state = copied(whole.state().expect("a state"));
            spoil(&mut state);
            let mut other = optimizer(false);
            let error = other.load_state(state).expect_err(expected);
            assert_eq!(
                error.to_string(),
                format!("the optimizer state does not fit: {expected}")
            );
            assert!(other.state().expect("a state").tensors.is_empty());
        }
    }
}

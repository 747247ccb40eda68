//! `schedulefree.AdamWScheduleFree` (`schedule_free_adamw`, beyond 4.34): instead of a falling rate, the weights are an
//! average of the iterates.
//!
//! There are three sets of weights: z, the iterates; x, their average, which is evaluated and saved; and y between them,
//! where gradients are taken. Parameters hold y while training, and x in the [`Phase::Evaluation`]. The original computes
//! one from the other at each switch, which changes the last digits: a run would depend on how often it is evaluated. Here y
//! is kept aside meanwhile and put back, so it does not; a checkpoint holds x as the weights and y beside the state.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::Tensor;

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup, Phase, state};
use crate::checkpoint::{PartState, Stateful};
use crate::error::Failure;
use crate::torch::{self, UpdateRule};

const SETTINGS: &[&str] = &["weight_lr_power", "r"];
/// Name of the training weights in a state.
const TRAINING_WEIGHTS: &str = "y";

/// Over groups. Settings: `weight_lr_power` (2) and `r` (0), the powers of rate and step that weigh an iterate.
pub fn create(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    let options = &choice.options;
    options.only("schedule_free_adamw", SETTINGS)?;
    if choice.adam.beta1 == 0.0 {
        let message = "schedule_free_adamw: adam_beta1 0 leaves no way from the training weights back to their average";
        return Err(Failure::usage(message).into());
    }
    let rule = Averaging {
        adam: choice.adam.checked()?,
        warmup_steps: choice.warmup_steps,
        rate_power: options.number("weight_lr_power")?.unwrap_or(2.0),
        step_power: options.number("r")?.unwrap_or(0.0),
        averages: groups.iter().map(|_| Average::default()).collect(),
    };
    Ok(Box::new(ScheduleFree {
        inner: Buffered::new(groups, rule)?,
        phase: Phase::Training,
        aside: Vec::new(),
    }))
}

#[derive(Debug)]
struct ScheduleFree {
    inner: Buffered<Averaging>,
    /// Which weights the parameters hold.
    phase: Phase,
    /// In evaluation: y of each parameter that has been stepped, by the parameter's number.
    aside: Vec<(usize, Tensor)>,
}

impl ScheduleFree {
    fn show_average(&mut self) -> Result<()> {
        let beta1 = self.inner.rule().adam.beta1;
        let mut aside = Vec::new();
        for (index, parameter, buffers) in self.inner.kept() {
            aside.push((index, torch::copy_of(parameter, parameter.f_kind()?)?));
            torch::lerp_in_place(parameter, &buffers[0], 1.0 - 1.0 / beta1)?;
        }
        self.aside = aside;
        Ok(())
    }

    fn show_training_weights(&mut self) -> Result<()> {
        let beta1 = self.inner.rule().adam.beta1;
        for (index, parameter, buffers) in self.inner.kept() {
            match self.aside.iter().find(|(number, _)| *number == index) {
                Some((_, kept)) => parameter.f_detach()?.f_copy_(kept)?,
                // A checkpoint of the original has no y.
                None => torch::lerp_in_place(parameter, &buffers[0], 1.0 - beta1)?,
            }
        }
        self.aside.clear();
        Ok(())
    }
}

impl Optimizer for ScheduleFree {
    fn groups(&self) -> &[ParameterGroup] {
        self.inner.groups()
    }

    fn groups_mut(&mut self) -> &mut [ParameterGroup] {
        self.inner.groups_mut()
    }

    fn step(&mut self) -> Result<()> {
        self.enter(Phase::Training)?;
        self.inner.step()
    }

    fn enter(&mut self, phase: Phase) -> Result<()> {
        if phase == self.phase {
            return Ok(());
        }
        match phase {
            Phase::Training => self.show_training_weights()?,
            Phase::Evaluation => self.show_average()?,
        }
        self.phase = phase;
        Ok(())
    }

    /// Averaging begins anew from the new weights.
    fn weights_replaced(&mut self) -> Result<()> {
        self.aside.clear();
        for (_, parameter, buffers) in self.inner.kept() {
            let mut iterate = buffers[0].shallow_clone();
            tch::no_grad(|| iterate.f_copy_(parameter))?;
        }
        Ok(())
    }
}

impl Stateful for ScheduleFree {
    fn state(&self) -> Result<PartState> {
        let mut state = self.inner.state()?;
        let kept = self.aside.iter();
        let kept = kept.map(|(index, tensor)| {
            (
                state::name(*index, TRAINING_WEIGHTS),
                tensor.shallow_clone(),
            )
        });
        state.tensors.extend(kept);
        let groups = state.json["param_groups"].as_array_mut();
        for group in groups.into_iter().flatten() {
            group["train_mode"] = json!(self.phase == Phase::Training);
        }
        Ok(state)
    }

    fn load_state(&mut self, mut state: PartState) -> Result<()> {
        let is_training = state.json["param_groups"][0]["train_mode"] == json!(true);
        let ending = format!(".{TRAINING_WEIGHTS}");
        let (kept, rest): (Vec<_>, Vec<_>) = state
            .tensors
            .into_iter()
            .partition(|(name, _)| name.ends_with(&ending));
        state.tensors = rest;
        let aside = self.own_copies(kept, &ending)?;
        self.inner.load_state(state)?;
        self.aside = aside;
        self.phase = if is_training {
            Phase::Training
        } else {
            Phase::Evaluation
        };
        Ok(())
    }
}

impl ScheduleFree {
    /// The training weights of a state by the number of their parameter, checked and copied.
    fn own_copies(
        &self,
        kept: Vec<(String, Tensor)>,
        ending: &str,
    ) -> Result<Vec<(usize, Tensor)>> {
        let parameters = self.groups().iter().flat_map(|group| &group.parameters);
        let parameters: Vec<_> = self.inner.names().zip(parameters).collect();
        let own = |(name, tensor): (String, Tensor)| {
            let index = name
                .strip_prefix("state.")
                .and_then(|rest| rest.strip_suffix(ending))
                .and_then(|index| index.parse::<usize>().ok())
                .filter(|index| *index < parameters.len())
                .ok_or_else(|| state::misfit(format!("tensor {name} belongs to no parameter")))?;
            let (parameter, like) = parameters[index];
            let mut entry = state::Entry::from([(TRAINING_WEIGHTS.to_owned(), tensor)]);
            let what = (parameter.as_str(), &like.size()[..], like);
            Ok((index, state::take(&mut entry, TRAINING_WEIGHTS, what)?))
        };
        kept.into_iter().map(own).collect()
    }
}

#[derive(Debug)]
struct Averaging {
    adam: OptimizerSettings,
    warmup_steps: u64,
    rate_power: f64,
    step_power: f64,
    averages: Vec<Average>,
}

/// Where the average of a group stands.
#[derive(Debug)]
struct Average {
    steps: u64,
    weight_sum: f64,
    largest_rate: f64,
    rate: f64,
}

impl Default for Average {
    fn default() -> Self {
        Self {
            steps: 0,
            weight_sum: 0.0,
            largest_rate: -1.0,
            rate: 0.0,
        }
    }
}

impl Rule for Averaging {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        Ok(vec![
            Buffer::like("z", parameter)?,
            Buffer::like("exp_avg_sq", parameter)?,
        ])
    }

    fn fresh(&self, buffer: &Buffer, parameter: &Tensor) -> Result<Tensor> {
        Ok(match buffer.key {
            "z" => torch::copy_of(parameter, parameter.f_kind()?)?,
            _ => parameter.f_detach()?.f_zeros_like()?,
        })
    }

    fn update(
        &mut self,
        index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let average = &mut self.averages[index];
        let step = (average.steps + 1) as f64;
        let warmup = if average.steps < self.warmup_steps {
            step / self.warmup_steps as f64
        } else {
            1.0
        };
        average.rate = group.learning_rate * warmup;
        average.largest_rate = average.largest_rate.max(average.rate);
        let weight = step.powf(self.step_power) * average.largest_rate.powf(self.rate_power);
        average.weight_sum += weight;
        average.steps += 1;
        let mut settings = self.adam.of_step(group);
        settings.learning_rate = average.rate;
        // Rates of 0 have no weight yet: the reference's division by zero counts as 0.
        settings.average_weight = if average.weight_sum == 0.0 {
            0.0
        } else {
            weight / average.weight_sum
        };
        let updated = active.iter().map(|active| torch::Updated {
            step,
            ..active.updated()
        });
        let updated: Vec<_> = updated.collect();
        torch::update_step(UpdateRule::ScheduleFreeAdamw, &updated, &settings)
    }

    fn hyperparameters(&self, index: usize) -> Vec<(&'static str, Value)> {
        let average = &self.averages[index];
        vec![
            ("betas", json!([self.adam.beta1, self.adam.beta2])),
            ("eps", json!(self.adam.epsilon)),
            ("r", json!(self.step_power)),
            ("k", json!(average.steps)),
            ("warmup_steps", json!(self.warmup_steps)),
            ("weight_sum", json!(average.weight_sum)),
            ("lr_max", json!(average.largest_rate)),
            ("scheduled_lr", json!(average.rate)),
            ("weight_lr_power", json!(self.rate_power)),
        ]
    }

    fn adopt(&mut self, index: usize, saved: &Map<String, Value>) {
        self.adam.adopt(saved);
        let number = |key: &str| state::number(saved, key);
        let average = &mut self.averages[index];
        *average = Average {
            steps: saved
                .get("k")
                .and_then(Value::as_u64)
                .unwrap_or(average.steps),
            weight_sum: number("weight_sum").unwrap_or(average.weight_sum),
            largest_rate: number("lr_max").unwrap_or(average.largest_rate),
            rate: number("scheduled_lr").unwrap_or(average.rate),
        };
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::optim::Options;

    /// After the best weights were loaded.
    #[test]
    fn training_goes_on_from_weights_that_were_put_in() {
        let mut parameter = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
        let group = ParameterGroup {
            parameters: vec![parameter.shallow_clone()],
            names: vec!["p".to_owned()],
            learning_rate: 0.1,
            initial_learning_rate: 0.1,
            weight_decay: 0.0,
        };
        let choice = OptimizerChoice {
            name: "schedule_free_adamw".to_owned(),
            adam: OptimizerSettings {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
            },
            options: Options::default(),
            warmup_steps: 0,
        };
        let mut optimizer = create(&choice, vec![group]).expect("an optimizer");
        for _ in 0..3 {
            parameter.square().sum(Kind::Float).backward();
            optimizer.step().expect("a step");
            parameter.zero_grad();
        }
        optimizer.enter(Phase::Evaluation).expect("entered");
        let best = Tensor::from_slice(&[5.0_f32, 6.0]);
        tch::no_grad(|| parameter.copy_(&best));
        optimizer.weights_replaced().expect("replaced");
        optimizer.enter(Phase::Training).expect("entered");
        assert!(parameter.equal(&best), "{parameter:?}");
    }
}

//! `torch.optim.SGD` as the Trainer uses it: no momentum, plain L2 weight decay. It has no state of its own.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Optimizer, ParameterGroup, groups, state};
use crate::checkpoint::{PartState, Stateful};
use crate::torch;

/// Gradient descent.
#[derive(Debug)]
pub struct Sgd {
    groups: Vec<ParameterGroup>,
}

impl Sgd {
    /// Over groups.
    pub fn new(groups: Vec<ParameterGroup>) -> Result<Self> {
        groups::check(&groups)?;
        Ok(Self { groups })
    }
}

impl Optimizer for Sgd {
    fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [ParameterGroup] {
        &mut self.groups
    }

    fn step(&mut self) -> Result<()> {
        self.groups.iter().try_for_each(|group| {
            torch::sgd_step(&group.parameters, group.learning_rate, group.weight_decay)
        })
    }
}

impl Stateful for Sgd {
    fn state(&self) -> Result<PartState> {
        let own = [
            ("momentum", json!(0)),
            ("dampening", json!(0)),
            ("nesterov", json!(false)),
            ("maximize", json!(false)),
            ("foreach", Value::Null),
            ("differentiable", json!(false)),
            ("fused", Value::Null),
        ];
        Ok(PartState {
            tensors: Vec::new(),
            json: state::groups_json(&self.groups, &own),
        })
    }

    fn load_state(&mut self, state: PartState) -> Result<()> {
        let incoming = state::read(&self.groups, state)?;
        let names = self.groups.iter().flat_map(|group| &group.names);
        names
            .zip(&incoming.entries)
            .try_for_each(|(name, entry)| state::nothing_left(entry, name))?;
        if let Some(momentum) = incoming
            .groups
            .iter()
            .filter_map(|group| state::number(group, "momentum"))
            .find(|value| *value != 0.0)
        {
            return Err(state::misfit(format!("it was written with momentum {momentum}")).into());
        }
        state::apply_groups(&mut self.groups, &incoming.groups);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Sgd;
    use crate::checkpoint::Stateful;
    use crate::optim::groups::{self, Member};
    use crate::optim::{Optimizer, ParameterGroup, clip};
    use tch::Tensor;

    /// The first batch of data D (spec appendix A) for a model y = a x + b at a = b = 0.
    fn first_batch() -> (Tensor, Tensor) {
        let rows = [32, 26, 19, 6, 10, 17, 50, 11];
        let x: Vec<f32> = rows
            .iter()
            .map(|i| ((37 * i) % 64) as f32 / 16.0 - 2.0)
            .collect();
        let y: Vec<f32> = rows
            .iter()
            .zip(&x)
            .map(|(i, x)| 2.0 * x + 3.0 + if i % 2 == 0 { 0.1 } else { -0.1 })
            .collect();
        (Tensor::from_slice(&x), Tensor::from_slice(&y))
    }

    fn groups(parameters: &[Tensor], learning_rate: f64, weight_decay: f64) -> Vec<ParameterGroup> {
        let members: Vec<_> = parameters
            .iter()
            .map(|tensor| Member {
                name: "p",
                tensor,
                decay: true,
            })
            .collect();
        groups::build(&members, learning_rate, weight_decay)
    }

    #[test]
    fn one_clipped_step_gives_the_recorded_values() {
        // Spec 8, row 91: learning rate 0.1, clipping at 1.
        let (x, y) = first_batch();
        let [a, b] = [0.0_f32, 0.0].map(|value| Tensor::from(value).set_requires_grad(true));
        let parameters = [a.shallow_clone(), b.shallow_clone()];
        let mut optimizer = Sgd::new(groups(&parameters, 0.1, 0.0)).expect("valid");
        (&a * &x + &b).mse_loss(&y, tch::Reduction::Mean).backward();
        clip::clip(&parameters, Some(1.0)).expect("gradients");
        optimizer.step().expect("a step");
        let (a, b) = (a.double_value(&[]), b.double_value(&[]));
        assert!(
            (a - 0.076_212_2).abs() < 1e-6 && (b - 0.064_743_4).abs() < 1e-6,
            "{a} {b}"
        );
        assert!((a.hypot(b) - 0.1).abs() < 1e-6);
    }

    #[test]
    fn the_groups_come_back() {
        let parameters = [Tensor::from(1.0_f32).set_requires_grad(true)];
        let make = |rate: f64| Sgd::new(groups(&parameters, rate, 0.5)).expect("valid");
        let mut first = make(0.2);
        first.groups_mut()[0].learning_rate = 0.1;
        let mut second = make(0.2);
        second
            .load_state(first.state().expect("a state"))
            .expect("it fits");
        assert_eq!(second.groups()[0].learning_rate, 0.1);
        (&parameters[0] * 2.0).backward();
        second.step().expect("a step");
        assert!(
            (parameters[0].double_value(&[]) - (1.0 - 0.1 * 2.5)).abs() < 1e-6,
            "L2 decay"
        );
    }
}

//! Float32 copies of half-precision parameters: the optimizer updates the copies, the model gets them rounded (level O2 of
//! apex, spec 3.9). Small updates add up, which half precision alone would lose.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::groups::Member;
use super::state::misfit;
use super::{Optimizer, ParameterGroup, Phase};
use crate::checkpoint::{PartState, Stateful};
use crate::torch;

/// Names of the copies in a saved state.
const PREFIX: &str = "master.";

/// Any optimizer, over copies.
pub struct Masters {
    inner: Box<dyn Optimizer>,
    pairs: Vec<Pair>,
    phase: Phase,
}

/// A parameter that is trained.
struct Pair {
    name: String,
    half: Tensor,
    master: Tensor,
}

impl Masters {
    /// `make` builds the optimizer from `members` with the copies in their places; frozen ones stay as they are.
    pub fn new(
        members: &[Member<'_>],
        make: impl FnOnce(&[Member<'_>]) -> Result<Box<dyn Optimizer>>,
    ) -> Result<Self> {
        let trained = members
            .iter()
            .filter(|member| member.tensor.requires_grad());
        let pairs = trained.map(|member| {
            let half = member.tensor.shallow_clone();
            let master = torch::copy_of(&half, Kind::Float)?;
            Ok(Pair {
                name: member.name.to_owned(),
                master: master.f_set_requires_grad(true)?,
                half,
            })
        });
        let pairs: Vec<Pair> = pairs.collect::<Result<_>>()?;
        let mut masters = pairs.iter();
        let replaced = members.iter().map(|member| {
            let master = if member.tensor.requires_grad() {
                masters.next().map(|pair| &pair.master)
            } else {
                None
            };
            Member {
                tensor: master.unwrap_or(member.tensor),
                ..*member
            }
        });
        let replaced: Vec<Member<'_>> = replaced.collect();
        let inner = make(&replaced)?;
        Ok(Self {
            inner,
            pairs,
            phase: Phase::Training,
        })
    }

    /// The model's parameters become the copies, rounded.
    fn publish(&mut self) -> Result<()> {
        tch::no_grad(|| {
            for pair in &mut self.pairs {
                pair.half.f_copy_(&pair.master)?;
            }
            Ok(())
        })
    }
}

impl Optimizer for Masters {
    fn groups(&self) -> &[ParameterGroup] {
        self.inner.groups()
    }

    fn groups_mut(&mut self) -> &mut [ParameterGroup] {
        self.inner.groups_mut()
    }

    fn gather(&mut self) -> Result<Option<Vec<Tensor>>> {
        let masters = || self.pairs.iter().map(|pair| pair.master.shallow_clone());
        let masters: Vec<Tensor> = masters().collect();
        torch::clear_gradients(&masters)?;
        for pair in &self.pairs {
            let gradient = pair.half.f_grad()?;
            if gradient.defined() {
                torch::set_gradient(&pair.master, &gradient.f_to_kind(Kind::Float)?)?;
            }
        }
        Ok(Some(masters))
    }

    fn step(&mut self) -> Result<()> {
        self.inner.step()?;
        self.publish()
    }

    fn enter(&mut self, phase: Phase) -> Result<()> {
        self.inner.enter(phase)?;
        if phase == self.phase {
            return Ok(());
        }
        self.phase = phase;
        self.publish()
    }

    fn weights_replaced(&mut self) -> Result<()> {
        tch::no_grad(|| {
            for pair in &mut self.pairs {
                pair.master.f_copy_(&pair.half)?;
            }
            anyhow::Ok(())
        })?;
        self.inner.weights_replaced()
    }
}

impl Stateful for Masters {
    /// The optimizer's own state, and the copies.
    fn state(&self) -> Result<PartState> {
        let mut state = self.inner.state()?;
        for pair in &self.pairs {
            let name = format!("{PREFIX}{}", pair.name);
            state.tensors.push((name, pair.master.f_detach()?));
        }
        Ok(state)
    }

    fn load_state(&mut self, mut state: PartState) -> Result<()> {
        let is_master = |(name, _): &(String, Tensor)| name.starts_with(PREFIX);
        let (saved, own): (Vec<_>, Vec<_>) = state.tensors.into_iter().partition(is_master);
        state.tensors = own;
        let find = |pair: &Pair| {
            let name = format!("{PREFIX}{}", pair.name);
            let found = saved.iter().find(|(key, _)| *key == name);
            found
                .map(|(_, tensor)| tensor)
                .filter(|tensor| tensor.size() == pair.master.size())
                .ok_or_else(|| misfit(format!("it has no float32 copy of {}", pair.name)))
        };
        let found = self.pairs.iter().map(find);
        let found: Vec<&Tensor> = found.collect::<Result<_, _>>()?;
        self.inner.load_state(state)?;
        tch::no_grad(|| {
            for (pair, saved) in self.pairs.iter_mut().zip(found) {
                pair.master.f_copy_(saved)?;
            }
            anyhow::Ok(())
        })?;
        self.publish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{OptimizerChoice, OptimizerSettings, Options, create, groups};

    const SETTINGS: OptimizerSettings = OptimizerSettings {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
    };

    fn choice(name: &str) -> OptimizerChoice {
        OptimizerChoice {
            name: name.to_owned(),
            adam: SETTINGS,
            options: Options::default(),
            warmup_steps: 0,
        }
    }

    fn parameter(value: f64) -> Tensor {
        Tensor::from_slice(&[value])
            .to_kind(Kind::BFloat16)
            .set_requires_grad(true)
    }

    fn member<'a>(name: &'a str, tensor: &'a Tensor) -> Member<'a> {
        Member {
            name,
            tensor,
            decay: true,
        }
    }

    fn masters(name: &str, members: &[Member<'_>], rate: f64) -> Masters {
        Masters::new(members, |members| {
            create(&choice(name), groups::build(members, rate, 0.0))
        })
        .expect("an optimizer")
    }

    /// One step with gradient 1; what is clipped.
    fn step(optimizer: &mut dyn Optimizer, half: &Tensor) -> Option<Vec<Tensor>> {
        torch::set_gradient(half, &half.ones_like()).expect("a gradient");
        let gathered = optimizer.gather().expect("gradients");
        optimizer.step().expect("a step");
        gathered
    }

    #[test]
    fn updates_that_half_precision_loses_add_up() {
        let frozen = Tensor::from_slice(&[5.0_f32]);
        let (half, alone) = (parameter(1.0), parameter(1.0));
        let members = [member("frozen", &frozen), member("w", &half)];
        let mut optimizer = masters("sgd", &members, 1e-3);
        let groups = groups::build(&[member("w", &alone)], 1e-3, 0.0);
        let mut plain = create(&choice("sgd"), groups).expect("an optimizer");
        for _ in 0..4 {
            let gathered = step(&mut optimizer, &half).expect("copies");
            assert_eq!(gathered.len(), 1);
            assert_eq!(gathered[0].grad().kind(), Kind::Float);
            assert!(step(&mut *plain, &alone).is_none());
        }
        assert_eq!(
            alone.double_value(&[0]),
            1.0,
            "each update was rounded away"
        );
        assert_eq!(half.double_value(&[0]), 0.996_093_75, "0.996 in bfloat16");
        assert_eq!(optimizer.groups()[0].names, ["w"]);
    }

    #[test]
    fn the_state_holds_the_copies() {
        let (half, other) = (parameter(1.0), parameter(1.0));
        let mut optimizer = masters("adamw_torch", &[member("w", &half)], 1e-3);
        step(&mut optimizer, &half);
        let state = optimizer.state().expect("a state");
        let copy = |state: &PartState| PartState {
            tensors: state
                .tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.copy()))
                .collect(),
            json: state.json.clone(),
        };
        let saved = copy(&state);
        let mut again = masters("adamw_torch", &[member("w", &other)], 1e-3);
        again.load_state(copy(&saved)).expect("it fits");
        for _ in 0..3 {
            step(&mut optimizer, &half);
            step(&mut again, &other);
        }
        let values = |optimizer: &Masters| optimizer.pairs[0].master.double_value(&[0]);
        assert_eq!(values(&optimizer), values(&again));
        assert_ne!(values(&again), 1.0);
        let mut lacking = saved;
        lacking
            .tensors
            .retain(|(name, _)| !name.starts_with(PREFIX));
        let error = again.load_state(lacking).expect_err("no copy");
        assert!(
            error.to_string().contains("no float32 copy of w"),
            "{error}"
        );
    }
}

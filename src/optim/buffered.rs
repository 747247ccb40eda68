//! The frame of optimizers that keep a few tensors for each parameter: when they are made, how they are saved and read. A
//! [`Rule`] says which tensors those are and how a step uses them.

use anyhow::Result;
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

use super::state::{self, Entry};
use super::{Optimizer, ParameterGroup, groups};
use crate::checkpoint::{PartState, Stateful};
use crate::torch::Updated;

/// One tensor that a rule keeps for a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Buffer {
    /// Its name in a state.
    pub key: &'static str,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its element type.
    pub kind: Kind,
}

impl Buffer {
    /// One of the form of `parameter`.
    pub fn like(key: &'static str, parameter: &Tensor) -> Result<Self> {
        Ok(Self {
            key,
            shape: parameter.size(),
            kind: parameter.f_kind()?,
        })
    }

    /// The same with another element type.
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// A parameter with a gradient in a step.
#[derive(Debug)]
pub(super) struct Active<'a> {
    pub parameter: &'a Tensor,
    pub slot: &'a Slot,
}

impl<'a> Active<'a> {
    /// As `torch::update_step` wants it, with the states in the order of the buffers.
    pub fn updated(&self) -> Updated<'a> {
        Updated {
            parameter: self.parameter,
            states: self.slot.buffers.iter().collect(),
            step: self.slot.step,
        }
    }
}

/// What is kept for a parameter.
#[derive(Debug)]
pub(super) struct Slot {
    /// Steps made; in [`Rule::update`] with the present one.
    pub step: f64,
    /// In the order of [`Rule::buffers`].
    pub buffers: Vec<Tensor>,
}

/// How an optimizer updates parameters, and what it keeps for each.
pub(super) trait Rule: std::fmt::Debug {
    /// The buffers of a parameter, in the order in which the rule uses them.
    fn buffers(&self, name: &str, parameter: &Tensor) -> Result<Vec<Buffer>>;

    /// A new buffer: zeros, unless the rule says otherwise.
    fn fresh(&self, buffer: &Buffer, parameter: &Tensor) -> Result<Tensor> {
        let options = (buffer.kind, parameter.device());
        Ok(Tensor::f_zeros(&buffer.shape, options)?)
    }

    /// Takes out of a saved entry what the rule does not keep because it never changes; an error if it is something else.
    fn take_constants(&self, _name: &str, _entry: &mut Entry) -> Result<()> {
        Ok(())
    }

    /// One update of the parameters of group `index` that have a gradient.
    fn update(&mut self, index: usize, group: &ParameterGroup, active: &[Active<'_>])
    -> Result<()>;

    /// What the groups of a state say besides rates and decay.
    fn hyperparameters(&self, index: usize) -> Vec<(&'static str, Value)>;

    /// Takes over what the saved group `index` says; a value that differs from the arguments' is said.
    fn adopt(&mut self, index: usize, saved: &Map<String, Value>);
}

/// An optimizer made of a rule.
#[derive(Debug)]
pub(super) struct Buffered<R> {
    groups: Vec<ParameterGroup>,
    rule: R,
    /// Of all parameters through the groups; none where there was no gradient yet.
    slots: Vec<Option<Slot>>,
}

impl<R: Rule> Buffered<R> {
    /// Over groups.
    pub fn new(groups: Vec<ParameterGroup>, rule: R) -> Result<Self> {
        groups::check(&groups)?;
        let count = groups.iter().map(|group| group.parameters.len()).sum();
        Ok(Self {
            groups,
            rule,
            slots: (0..count).map(|_| None).collect(),
        })
    }

    /// The rule.
    pub fn rule(&self) -> &R {
        &self.rule
    }

    /// Number of the parameter through the groups, parameter, buffers; of those that had a gradient.
    pub fn kept(&self) -> impl Iterator<Item = (usize, &Tensor, &[Tensor])> {
        let parameters = self.groups.iter().flat_map(|group| &group.parameters);
        let slots = parameters.zip(&self.slots).enumerate();
        slots.filter_map(|(index, (parameter, slot))| {
            Some((index, parameter, &slot.as_ref()?.buffers[..]))
        })
    }

    /// The names of all parameters, in order.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.groups.iter().flat_map(|group| &group.names)
    }

    fn new_slot(&self, name: &str, parameter: &Tensor) -> Result<Slot> {
        let buffers = self.rule.buffers(name, parameter)?;
        let fresh = buffers
            .iter()
            .map(|buffer| self.rule.fresh(buffer, parameter));
        Ok(Slot {
            step: 0.0,
            buffers: fresh.collect::<Result<_>>()?,
        })
    }

    /// Makes the buffers of parameters that have a gradient for the first time, and counts the step.
    fn count_step(&mut self) -> Result<()> {
        let mut index = 0;
        for group in &self.groups {
            for (name, parameter) in group.names.iter().zip(&group.parameters) {
                if parameter.f_grad()?.defined() {
                    if self.slots[index].is_none() {
                        self.slots[index] = Some(self.new_slot(name, parameter)?);
                    }
                    self.slots[index]
                        .iter_mut()
                        .for_each(|slot| slot.step += 1.0);
                }
                index += 1;
            }
        }
        Ok(())
    }

    fn read_slot(&self, name: &str, parameter: &Tensor, mut entry: Entry) -> Result<Slot> {
        let step = state::take_step(&mut entry, name)?;
        let mut buffers = Vec::new();
        for buffer in self.rule.buffers(name, parameter)? {
            let form = Tensor::f_empty([0], (buffer.kind, parameter.device()))?;
            let what = (name, &buffer.shape[..], &form);
            buffers.push(state::take(&mut entry, buffer.key, what)?);
        }
        self.rule.take_constants(name, &mut entry)?;
        state::nothing_left(&entry, name)?;
        Ok(Slot { step, buffers })
    }
}

impl<R: Rule> Optimizer for Buffered<R> {
    fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [ParameterGroup] {
        &mut self.groups
    }

    fn step(&mut self) -> Result<()> {
        tch::no_grad(|| {
            self.count_step()?;
            let mut slots = self.slots.iter();
            for (index, group) in self.groups.iter().enumerate() {
                let mut active = Vec::new();
                for (parameter, slot) in group.parameters.iter().zip(&mut slots) {
                    match slot {
                        Some(slot) if parameter.f_grad()?.defined() => {
                            active.push(Active { parameter, slot });
                        }
                        _ => {}
                    }
                }
                self.rule.update(index, group, &active)?;
            }
            Ok(())
        })
    }
}

impl<R: Rule> Stateful for Buffered<R> {
    fn state(&self) -> Result<PartState> {
        let named = state::named(&self.groups);
        let mut tensors = Vec::new();
        for (index, ((name, parameter), slot)) in named.zip(&self.slots).enumerate() {
            let Some(slot) = slot else { continue };
            let step = Tensor::f_from_slice(&[slot.step as f32])?.f_reshape([] as [i64; 0])?;
            tensors.push((state::name(index, "step"), step));
            let buffers = self.rule.buffers(name, parameter)?;
            for (buffer, tensor) in buffers.iter().zip(&slot.buffers) {
                tensors.push((state::name(index, buffer.key), tensor.shallow_clone()));
            }
        }
        let own = |index: usize| self.rule.hyperparameters(index);
        Ok(PartState {
            tensors,
            json: state::groups_json_each(&self.groups, own),
        })
    }

    fn load_state(&mut self, state: PartState) -> Result<()> {
        let incoming = state::read(&self.groups, state)?;
        let read = |name: &str, parameter: &Tensor, entry| self.read_slot(name, parameter, entry);
        self.slots = state::read_slots(&self.groups, incoming.entries, read)?;
        state::apply_groups(&mut self.groups, &incoming.groups);
        for (index, saved) in incoming.groups.iter().enumerate() {
            self.rule.adopt(index, saved);
        }
        Ok(())
    }
}

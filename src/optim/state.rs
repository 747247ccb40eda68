//! The state of an optimizer as `torch.optim.Optimizer.state_dict` says it: tensors `state.<index>.<key>` and the groups
//! as JSON, where the index counts parameters through the groups. Shared by all optimizers.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Map, Value};
use tch::Tensor;

use super::ParameterGroup;
use crate::checkpoint::PartState;
use crate::error::Failure;
use crate::torch;

/// Tensors of one parameter by key.
pub type Entry = BTreeMap<String, Tensor>;

/// A state that fits the groups, before it is taken over.
#[derive(Debug)]
pub struct Incoming {
    /// One for each parameter through the groups; empty if it had no gradient yet.
    pub entries: Vec<Entry>,
    /// The groups' JSON objects.
    pub groups: Vec<Map<String, Value>>,
}

/// The groups as torch writes them: `weight_decay`, `lr`, what the optimizer adds, `initial_lr`, `params`.
pub fn groups_json(groups: &[ParameterGroup], own: &[(&'static str, Value)]) -> Value {
    groups_json_each(groups, |_| own.to_vec())
}

/// [`groups_json`] for optimizers whose groups differ in what they add; `own` gets the group's number.
pub fn groups_json_each(
    groups: &[ParameterGroup],
    own: impl Fn(usize) -> Vec<(&'static str, Value)>,
) -> Value {
    let mut first = 0;
    let objects = groups.iter().enumerate().map(|(index, group)| {
        let mut object = Map::new();
        object.insert("weight_decay".to_owned(), Value::from(group.weight_decay));
        object.insert("lr".to_owned(), Value::from(group.learning_rate));
        let own = own(index).into_iter();
        object.extend(own.map(|(key, value)| (key.to_owned(), value)));
        object.insert(
            "initial_lr".to_owned(),
            Value::from(group.initial_learning_rate),
        );
        let indices = first..first + group.parameters.len();
        first = indices.end;
        object.insert("params".to_owned(), indices.collect());
        Value::Object(object)
    });
    let objects: Vec<_> = objects.collect();
    serde_json::json!({ "param_groups": objects })
}

/// The name of a state tensor.
pub fn name(index: usize, key: &str) -> String {
    format!("state.{index}.{key}")
}

/// Reads a state for `groups`: the same number of groups and of parameters in each, as torch demands.
pub fn read(groups: &[ParameterGroup], state: PartState) -> Result<Incoming> {
    let saved = saved_groups(&state.json)?;
    if saved.len() != groups.len() {
        return Err(misfit(format!(
            "it has {} parameter groups, the model {}",
            saved.len(),
            groups.len()
        ))
        .into());
    }
    // The file's index of a parameter -> ours.
    let mut positions = BTreeMap::new();
    let mut count = 0;
    for (number, (group, own)) in saved.iter().zip(groups).enumerate() {
        let indices = parameter_indices(group, number)?;
        if indices.len() != own.parameters.len() {
            let (found, expected) = (indices.len(), own.parameters.len());
            return Err(misfit(format!(
                "group {number} has {found} parameters, the model's {expected}"
            ))
            .into());
        }
        for index in indices {
            positions.insert(index, count);
            count += 1;
        }
    }
    let mut entries: Vec<Entry> = (0..count).map(|_| Entry::new()).collect();
    for (name, tensor) in state.tensors {
        let parts = name
            .strip_prefix("state.")
            .and_then(|rest| rest.split_once('.'));
        let place =
            parts.and_then(|(index, key)| Some((*positions.get(&index.parse().ok()?)?, key)));
        let Some((position, key)) = place else {
            return Err(misfit(format!("tensor {name} belongs to no parameter")).into());
        };
        entries[position].insert(key.to_owned(), tensor);
    }
    Ok(Incoming {
        entries,
        groups: saved,
    })
}

fn saved_groups(json: &Value) -> Result<Vec<Map<String, Value>>, Failure> {
    let groups = json
        .get("param_groups")
        .and_then(Value::as_array)
        .ok_or_else(|| misfit("it has no param_groups"))?;
    groups
        .iter()
        .map(|group| {
            group
                .as_object()
                .cloned()
                .ok_or_else(|| misfit("a parameter group is not an object"))
        })
        .collect()
}

fn parameter_indices(group: &Map<String, Value>, number: usize) -> Result<Vec<u64>, Failure> {
    let indices = group.get("params").and_then(Value::as_array);
    let indices = indices.and_then(|indices| {
        indices
            .iter()
            .map(Value::as_u64)
            .collect::<Option<Vec<_>>>()
    });
    indices.ok_or_else(|| misfit(format!("group {number} does not list its params")))
}

/// The state does not fit the optimizer.
pub fn misfit(what: impl std::fmt::Display) -> Failure {
    Failure::data(format!("the optimizer state does not fit: {what}"))
        .hint("resume with the model and the --optim that wrote the checkpoint")
}

/// A number of a saved group, if it is there.
pub fn number(group: &Map<String, Value>, key: &str) -> Option<f64> {
    group.get(key).and_then(Value::as_f64)
}

/// The betas of a saved group that are there.
pub fn betas(group: &Map<String, Value>) -> [Option<f64>; 2] {
    let beta = |index: usize| group.get("betas")?.get(index)?.as_f64();
    [beta(0), beta(1)]
}

/// The parameters of all groups in order, with their names.
pub fn named(groups: &[ParameterGroup]) -> impl Iterator<Item = (&String, &Tensor)> {
    groups
        .iter()
        .flat_map(|group| group.names.iter().zip(&group.parameters))
}

/// What an optimizer keeps of each parameter, by `read_entry` from the saved entries; `None` for one without an entry.
pub fn read_slots<S>(
    groups: &[ParameterGroup],
    entries: Vec<Entry>,
    read_entry: impl Fn(&str, &Tensor, Entry) -> Result<S>,
) -> Result<Vec<Option<S>>> {
    let read = |((name, parameter), entry): ((&String, &Tensor), Entry)| {
        let is_kept = !entry.is_empty();
        is_kept
            .then(|| read_entry(name, parameter, entry))
            .transpose()
    };
    named(groups).zip(entries).map(read).collect()
}

/// Takes over rates and decay, as `load_state_dict` does; a decay that differs from the arguments' is said.
pub fn apply_groups(groups: &mut [ParameterGroup], saved: &[Map<String, Value>]) {
    for (index, (group, saved)) in groups.iter_mut().zip(saved).enumerate() {
        group.learning_rate = number(saved, "lr").unwrap_or(group.learning_rate);
        group.initial_learning_rate =
            number(saved, "initial_lr").unwrap_or(group.initial_learning_rate);
        group.weight_decay = adopted(
            (
                &format!("weight_decay of group {index}"),
                group.weight_decay,
            ),
            number(saved, "weight_decay"),
        );
    }
}

/// The checkpoint's value of a hyperparameter if it has one; says so if it is not the present one.
pub fn adopted((name, present): (&str, f64), saved: Option<f64>) -> f64 {
    match saved {
        Some(saved) if saved != present => {
            tracing::warn!("{name}: the checkpoint's {saved} is used, not {present}");
            saved
        }
        _ => present,
    }
}

/// Says where a checkpoint was written with another value of what no argument sets.
pub fn tell_fixed(
    (optimizer, index): (&str, usize),
    saved: &Map<String, Value>,
    fixed: &[(&str, f64)],
) {
    for (name, value) in fixed {
        if let Some(other) = number(saved, name).filter(|other| other != value) {
            tracing::warn!(
                "{optimizer}: {name} is {value}, not {other} as in group {index} of the checkpoint"
            );
        }
    }
}

/// Takes `key` out of an entry, checks its shape, and makes it ours: of the type and on the device of `like`.
pub fn take(
    entry: &mut Entry,
    key: &str,
    (parameter, shape, like): (&str, &[i64], &Tensor),
) -> Result<Tensor> {
    let tensor = entry
        .remove(key)
        .ok_or_else(|| misfit(format!("{parameter} has no {key}")))?;
    if tensor.size() != shape {
        return Err(misfit(format!(
            "{key} of {parameter} has shape {:?}, not {shape:?}",
            tensor.size()
        ))
        .into());
    }
    // Always a copy: the step changes it in place, and the file's tensor may be shared.
    torch::copy_of(&tensor.f_to_device(like.device())?, like.f_kind()?)
}

/// Takes a step count, which is one number of any type.
pub fn take_step(entry: &mut Entry, parameter: &str) -> Result<f64> {
    let step = entry
        .remove("step")
        .ok_or_else(|| misfit(format!("{parameter} has no step")))?;
    if step.numel() != 1 {
        return Err(misfit(format!(
            "step of {parameter} has shape {:?}, not one number",
            step.size()
        ))
        .into());
    }
    Ok(step.f_reshape([] as [i64; 0])?.f_double_value(&[])?)
}

/// An error if an entry holds a tensor that the optimizer does not have.
pub fn nothing_left(entry: &Entry, parameter: &str) -> Result<()> {
    match entry.keys().next() {
        Some(key) => Err(misfit(format!("{parameter} has an unknown {key}")).into()),
        None => Ok(()),
    }
}

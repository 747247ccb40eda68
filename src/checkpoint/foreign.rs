//! The reference's pickles as our states: what `optimizer.pt`, `scheduler.pt`, `rng_state.pth` and `pytorch_model.bin` say.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Number, Value, json};
use tch::Tensor;

use super::PartState;
use super::bytes;
use super::pickle::{PickleValue, read_archive};
use super::rng::RngState;
use crate::error::Failure;

/// Reads a pickled state dict: names and tensors.
pub fn read_state_dict(path: &Path) -> Result<Vec<(String, Tensor)>> {
    convert(path, "weights", |value| {
        let PickleValue::Dict(entries) = value else { bail!("expected a dictionary, found {}", value.what()) };
        let mut names = HashSet::new();
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let PickleValue::Str(name) = name else { bail!("a name is {}", name.what()) };
            let PickleValue::Tensor(tensor) = value else { bail!("{name:?} is {}, not a tensor", value.what()) };
            ensure!(names.insert(name.clone()), "tensor {name:?} is there twice");
            tensors.push((name, tensor));
        }
        Ok(tensors)
    })
}

/// Reads `optimizer.pt`: tensors `state.<index>.<key>`, JSON `{"param_groups": [..]}`.
pub fn read_optimizer(path: &Path) -> Result<PartState> {
    convert(path, "optimizer state", |value| {
        let mut tensors = Vec::new();
        for (index, state) in value.get("state").context("it has no \"state\"")?.entries()? {
            let PickleValue::Int(index) = index else { bail!("a parameter index is {}", index.what()) };
            for (key, value) in state.entries().with_context(|| format!("state of parameter {index}"))? {
                let PickleValue::Str(key) = key else { bail!("a key of parameter {index} is {}", key.what()) };
                let name = format!("state.{index}.{key}");
                if let Some(tensor) = state_tensor(value).with_context(|| name.clone())? {
                    tensors.push((name, tensor));
                }
            }
        }
        let groups = value.get("param_groups").context("it has no \"param_groups\"")?;
        groups.items().context("param_groups")?;
        Ok(PartState { tensors, json: json!({"param_groups": to_json(groups)?}) })
    })
}

/// A value of an optimizer's state. Numbers, such as the step count of some optimizers, become float32 scalars, as newer ones
/// keep them; what an optimizer left unset has no entry.
fn state_tensor(value: &PickleValue) -> Result<Option<Tensor>> {
    let scalar = |number: f64| -> Result<_> { Ok(Some(Tensor::f_from_slice(&[number as f32])?.f_reshape([0_i64; 0])?)) };
    match value {
        PickleValue::Tensor(tensor) => Ok(Some(tensor.shallow_clone())),
        &PickleValue::Int(number) => scalar(number as f64),
        &PickleValue::Float(number) => scalar(number),
        PickleValue::None => Ok(None),
        other => bail!("expected a tensor, found {}", other.what()),
    }
}

/// Reads `scheduler.pt`: its dictionary as JSON.
pub fn read_scheduler(path: &Path) -> Result<PartState> {
    convert(path, "schedule state", |value| {
        value.entries()?;
        Ok(PartState { tensors: Vec::new(), json: to_json(&value)? })
    })
}

/// Reads `rng_state.pth`. The states of Python and numpy are looked at and left: nothing here draws from them.
pub fn read_rng(path: &Path) -> Result<RngState> {
    convert(path, "generator states", |value| {
        for key in ["python", "numpy"] {
            value.get(key).map_or(Ok(&[][..]), PickleValue::items).context(key)?;
        }
        let cpu = generator(value.get("cpu").context("it has no \"cpu\"")?).context("cpu")?;
        let cuda = match value.get("cuda") {
            None => Ok(Vec::new()),
            Some(PickleValue::List(states)) => states.iter().map(generator).collect(),
            Some(state) => generator(state).map(|state| vec![state]),
        };
        Ok(RngState { cpu, cuda: cuda.context("cuda")? })
    })
}

fn generator(value: &PickleValue) -> Result<Vec<u8>> {
    match value {
        PickleValue::Tensor(tensor) => bytes::to_vec(tensor),
        other => bail!("expected a tensor, found {}", other.what()),
    }
}

fn convert<T>(path: &Path, what: &str, parse: impl FnOnce(PickleValue) -> Result<T>) -> Result<T> {
    let value = read_archive(path)?;
    parse(value).map_err(|error| Failure::data(format!("{} does not hold {what}: {error:#}", path.display())).into())
}

/// Plain values as JSON. Numbers that JSON lacks are written as Python prints them: `"inf"`, `"-inf"`, `"nan"`.
fn to_json(value: &PickleValue) -> Result<Value> {
    Ok(match value {
        PickleValue::None => Value::Null,
        &PickleValue::Bool(value) => value.into(),
        &PickleValue::Int(value) => value.into(),
        &PickleValue::Float(value) => Number::from_f64(value).map_or_else(|| python_float(value).into(), Value::Number),
        PickleValue::Str(text) => text.as_str().into(),
        PickleValue::List(items) | PickleValue::Tuple(items) => {
            Value::Array(items.iter().map(to_json).collect::<Result<_>>()?)
        }
        PickleValue::Dict(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let PickleValue::Str(key) = key else { bail!("a key is {}", key.what()) };
                map.insert(key.clone(), to_json(value).with_context(|| key.clone())?);
            }
            Value::Object(map)
        }
        // Learning rates can be tensors of one element.
        PickleValue::Tensor(tensor) if tensor.numel() == 1 => {
            let number = tensor.f_reshape([1])?.f_double_value(&[0])?;
            to_json(&PickleValue::Float(number))?
        }
        other => bail!("{} has no place in JSON", other.what()),
    })
}

fn python_float(value: f64) -> &'static str {
    if value.is_nan() {
        "nan"
    } else if value > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

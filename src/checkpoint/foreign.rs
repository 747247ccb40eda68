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
        let PickleValue::Dict(entries) = value else {
            bail!("expected a dictionary, found {}", value.what())
        };
        let mut names = HashSet::new();
        let mut tensors = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let PickleValue::Str(name) = name else {
                bail!("a name is {}", name.what())
            };
            let PickleValue::Tensor(tensor) = value else {
                bail!("{name:?} is {}, not a tensor", value.what())
            };
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
        for (index, state) in value
            .get("state")
            .context("it has no \"state\"")?
            .entries()?
        {
            let PickleValue::Int(index) = index else {
                bail!("a parameter index is {}", index.what())
            };
            push_state(*index, state, &mut tensors)?;
        }
        let groups = value
            .get("param_groups")
            .context("it has no \"param_groups\"")?;
        groups.items().context("param_groups")?;
        Ok(PartState {
            tensors,
            json: json!({"param_groups": to_json(groups)?}),
        })
    })
}

/// Adds the state of parameter `index`. What stands in a dictionary inside of it is part of it: bitsandbytes 0.50 wraps
/// its tensors in one.
fn push_state(index: i64, state: &PickleValue, tensors: &mut Vec<(String, Tensor)>) -> Result<()> {
    let mut push = |key: &PickleValue, value: &PickleValue| {
        let PickleValue::Str(key) = key else {
            bail!("a key of parameter {index} is {}", key.what())
        };
        let name = format!("state.{index}.{key}");
        let tensor = state_tensor(value).with_context(|| name.clone())?;
        tensors.extend(tensor.map(|tensor| (name, tensor)));
        Ok(())
    };
    let entries = state
        .entries()
        .with_context(|| format!("state of parameter {index}"))?;
    for (key, value) in entries {
        match value {
            PickleValue::Dict(wrapped) => {
                wrapped
                    .iter()
                    .try_for_each(|(key, value)| push(key, value))?;
            }
            value => push(key, value)?,
        }
    }
    Ok(())
}

/// A value of an optimizer's state. Numbers, such as the step count of some optimizers, become float32 scalars, as newer ones
/// keep them; what an optimizer left unset has no entry.
fn state_tensor(value: &PickleValue) -> Result<Option<Tensor>> {
    let scalar = |number: f64| -> Result<_> {
        Ok(Some(
            Tensor::f_from_slice(&[number as f32])?.f_reshape([0_i64; 0])?,
        ))
    };
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
        Ok(PartState {
            tensors: Vec::new(),
            json: to_json(&value)?,
        })
    })
}

/// Reads `rng_state.pth`. The states of Python and numpy are looked at and left: nothing here draws from them.
pub fn read_rng(path: &Path) -> Result<RngState> {
    convert(path, "generator states", |value| {
        for key in ["python", "numpy"] {
            value
                .get(key)
                .map_or(Ok(&[][..]), PickleValue::items)
                .context(key)?;
        }
        let cpu = generator(value.get("cpu").context("it has no \"cpu\"")?).context("cpu")?;
        let cuda = match value.get("cuda") {
            None => Ok(Vec::new()),
            Some(PickleValue::List(states)) => states.iter().map(generator).collect(),
            Some(state) => generator(state).map(|state| vec![state]),
        };
        Ok(RngState {
            cpu,
            cuda: cuda.context("cuda")?,
        })
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
    parse(value).map_err(|error| {
        Failure::data(format!(
            "{} does not hold {what}: {error:#}",
            path.display()
        ))
        .into()
    })
}

/// Plain values as JSON. Numbers that JSON lacks are written as Python prints them: `"inf"`, `"-inf"`, `"nan"`.
fn to_json(value: &PickleValue) -> Result<Value> {
    Ok(match value {
        PickleValue::None => Value::Null,
        &PickleValue::Bool(value) => value.into(),
        &PickleValue::Int(value) => value.into(),
        &PickleValue::Float(value) => {
            Number::from_f64(value).map_or_else(|| python_float(value).into(), Value::Number)
        }
        PickleValue::Str(text) => text.as_str().into(),
        PickleValue::List(items) | PickleValue::Tuple(items) => {
            Value::Array(items.iter().map(to_json).collect::<Result<_>>()?)
        }
        PickleValue::Dict(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let PickleValue::Str(key) = key else {
                    bail!("a key is {}", key.what())
                };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use tch::Kind;

    use super::*;
    use crate::error::kind_of;

    fn sample(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/golden/checkpoint_sample")
            .join(name)
    }

    #[test]
    fn the_references_optimizer_state_is_read() {
        let PartState { tensors, json } =
            read_optimizer(&sample("optimizer.pt")).expect("readable");
        assert_eq!(tensors.len(), 41 * 3);
        let tensors: BTreeMap<_, _> = tensors.into_iter().collect();
        for index in 0..41 {
            let step = &tensors[&format!("state.{index}.step")];
            assert_eq!(
                (step.size(), step.f_kind().expect("a kind")),
                (vec![], Kind::Float)
            );
            assert_eq!(step.f_double_value(&[]).expect("a number"), 10.0);
        }
        assert_eq!(tensors["state.0.exp_avg"].size(), [180, 32]);
        // Read off the file with another program.
        let number = |name: &str, index: i64| {
            tensors[name].f_double_value(&[index]).expect("a number") as f32
        };
        assert_eq!(number("state.40.exp_avg", 0), -0.039_286_83);
        assert_eq!(number("state.40.exp_avg_sq", 1), 0.000_257_269_19);
        let groups = json["param_groups"].as_array().expect("groups");
        let counts: Vec<_> = groups
            .iter()
            .map(|group| group["params"].as_array().expect("indices").len())
            .collect();
        assert_eq!(counts, [17, 24]);
        assert_eq!(groups[1]["params"][0], 17);
        for (key, value) in [
            ("lr", json!(0.0006)),
            ("initial_lr", json!(0.001)),
            ("betas", json!([0.9, 0.999])),
            ("fused", json!(null)),
        ] {
            assert_eq!(groups[0][key], value, "{key}");
        }
    }

    #[test]
    fn the_references_schedule_state_is_read() {
        let PartState { tensors, json } =
            read_scheduler(&sample("scheduler.pt")).expect("readable");
        assert!(tensors.is_empty());
        let expected = json!({
            "base_lrs": [0.001, 0.001], "last_epoch": 10, "_step_count": 11, "_is_initial": false,
            "_get_lr_called_within_step": false, "_last_lr": [0.0006, 0.0006], "lr_lambdas": [{}, {}],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_references_generator_states_are_read() {
        let state = read_rng(&sample("rng_state.pth")).expect("readable");
        assert_eq!((state.cpu.len(), state.cuda.len()), (5056, 0));
        let mut generator = crate::torch::Generator::seeded(0).expect("a generator");
        generator.set_state(&state.cpu).expect("libtorch takes it");
        assert_eq!(generator.state().expect("a state"), state.cpu);
        let whole = read_archive(&sample("rng_state.pth")).expect("readable");
        let numpy = whole.get("numpy").expect("there").items().expect("a tuple");
        let PickleValue::Array(array) = &numpy[1] else {
            panic!("not an array")
        };
        assert_eq!(
            (array.dtype.as_str(), &array.shape[..], array.data.len()),
            ("u4", &[624][..], 2496)
        );
    }

    #[test]
    fn the_references_checkpoint_is_taken_as_foreign() {
        let dir = sample("");
        let found = crate::checkpoint::find::open(&dir).expect("usable");
        assert!(matches!(
            found,
            crate::checkpoint::find::Completeness::Foreign
        ));
        assert_eq!(
            crate::checkpoint::load::read_weights(&dir)
                .expect("readable")
                .tensors
                .len(),
            41
        );
        assert!(
            crate::checkpoint::load::read_optimizer(&dir)
                .expect("readable")
                .is_some()
        );
        assert_eq!(
            RngState::load(&dir)
                .expect("readable")
                .expect("there")
                .cpu
                .len(),
            5056
        );
    }

    #[test]
    fn one_file_is_not_taken_for_another() {
        let optimizer = sample("optimizer.pt");
        let cases = [
            (
                read_optimizer(&sample("scheduler.pt")).map(|_| ()),
                "does not hold optimizer state: it has no \"state\"",
            ),
            (
                read_rng(&optimizer).map(|_| ()),
                "does not hold generator states: it has no \"cpu\"",
            ),
            (
                read_state_dict(&optimizer).map(|_| ()),
                "does not hold weights: \"state\" is a dictionary, not a tensor",
            ),
            (
                read_optimizer(&sample("config.json")).map(|_| ()),
                "config.json cannot be used: it is not a file of torch.save",
            ),
        ];
        for (result, expected) in cases {
            let error = result.expect_err(expected);
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(kind_of(&error), crate::error::Kind::Data);
        }
    }

    #[test]
    fn numbers_and_gaps_of_other_optimizers_have_a_form() {
        let scalar = state_tensor(&PickleValue::Int(7))
            .expect("a number")
            .expect("a tensor");
        assert_eq!(
            (scalar.size(), scalar.f_double_value(&[]).expect("a number")),
            (vec![], 7.0)
        );
        assert!(
            state_tensor(&PickleValue::None)
                .expect("no error")
                .is_none()
        );
        assert!(state_tensor(&PickleValue::Str("x".into())).is_err());
        let best = PickleValue::Dict(vec![(
            PickleValue::Str("best".into()),
            PickleValue::Float(f64::INFINITY),
        )]);
        assert_eq!(to_json(&best).expect("JSON"), json!({"best": "inf"}));
    }
}

//! Plugins from outside: guests of `tests/guests` and `plugins`, loaded and driven through the traits that the loop uses.

mod batches;
mod capabilities;
mod compile;
mod limits;
mod load;
mod model;
mod recovery;
mod sandbox;
pub mod server;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use host::callback::{Callback, Context, Control, Event, Parameters, TrainerState};
use host::data::Batch;
use host::metric::{EvaluationBatch, Metric};
use host::plugin::{Environment, Plugin, Spec, load};
use serde_json::{Value, json};
use tch::Tensor;

/// A component that was built by `make guests` or `make plugins`.
fn built(folder: &str, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(folder)
        .join("target/wasm32-wasip2/release")
        .join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing; run `make plugins guests`",
        path.display()
    );
    path
}

/// A guest of the tests.
pub fn guest(name: &str) -> PathBuf {
    built("tests/guests", name)
}

/// A plugin of this project.
pub fn official(name: &str) -> PathBuf {
    built("plugins", name)
}

/// A run that shares compiled components with the other tests.
pub fn environment() -> Environment {
    Environment {
        seed: 42,
        world_size: 1,
        arguments: json!({"seed": 42, "output_dir": "out"})
            .as_object()
            .expect("an object")
            .clone(),
        cache_dir: Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins")),
        compiler: Some(PathBuf::from(env!("CARGO_BIN_EXE_host-engine"))),
        ..Environment::default()
    }
}

/// A copy of a component in `folder` with another manifest: its own, changed. The section around the component counts,
/// not the one that the toolchain put into the core module.
pub fn with_manifest(component: &Path, folder: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut manifest = json!({"id": "test/changed", "version": "0.1.0", "api": "0.1"});
    change(&mut manifest);
    let mut bytes = fs::read(component).expect("a component");
    bytes.extend(custom_section(
        "trainer:manifest",
        manifest.to_string().as_bytes(),
    ));
    let path = folder.join(component.file_name().expect("a file"));
    fs::write(&path, bytes).expect("written");
    path
}

/// A section of a component: `0`, the length, the name, the content.
fn custom_section(name: &str, content: &[u8]) -> Vec<u8> {
    let leb = |mut number: usize| {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let body = [leb(name.len()), name.as_bytes().to_vec(), content.to_vec()].concat();
    [vec![0], leb(body.len()), body].concat()
}

/// A specification with configuration and limits as a user writes them.
pub fn spec(path: &Path, config: &Value, limits: &[(&str, &str)]) -> Spec {
    let mut spec = Spec::new(path);
    spec.config = config.as_object().expect("an object").clone();
    for (key, value) in limits {
        spec.limits.set(key, value).expect("a limit");
    }
    spec
}

/// The hostile guest with one of its habits.
fn hostile(attack: &str, limits: &[(&str, &str)]) -> Result<Plugin> {
    hostile_at(attack, 1, limits)
}

/// The same, from a later call on.
fn hostile_at(attack: &str, call: u64, limits: &[(&str, &str)]) -> Result<Plugin> {
    load(
        &spec(
            &guest("hostile"),
            &json!({"attack": attack, "call": call}),
            limits,
        ),
        &environment(),
    )
}

/// An error as the program prints it, with its hints.
fn told(error: &anyhow::Error) -> String {
    let hints: String = host::error::hints_of(error)
        .iter()
        .map(|hint| format!(" hint: {hint}"))
        .collect();
    format!("{error:#}{hints}")
}

/// Shows a batch of four rows and two classes to a function.
fn with_batch<T>(use_it: impl FnOnce(&EvaluationBatch<'_>) -> T) -> T {
    let logits = Tensor::from_slice2(&[[2.0_f32, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 3.0]]);
    let outputs = [("logits".to_owned(), logits)];
    let labels = [("labels".to_owned(), Tensor::from_slice(&[0_i64, 0, 0, 1]))];
    let inputs = Batch::default();
    use_it(&EvaluationBatch {
        outputs: &outputs,
        labels: &labels,
        inputs: &inputs,
        dataset: "",
        size: 4,
    })
}

/// The plugin's streaming metric.
fn metric(plugin: &Plugin) -> Box<dyn Metric> {
    plugin.metrics().remove(0)
}

/// One pass of so many batches.
fn pass(metric: &mut dyn Metric, batches: usize) -> Result<Vec<(String, f64)>> {
    metric.reset("")?;
    for _ in 0..batches {
        with_batch(|batch| metric.update(batch))?;
    }
    metric.compute()
}

/// One event at a step, as the dispatcher would call it.
fn event(
    callback: &mut dyn Callback,
    event: Event<'_>,
    step: u64,
    control: &mut Control,
) -> Result<()> {
    let state = TrainerState {
        global_step: step,
        ..TrainerState::new()
    };
    control.set_actor(callback.name(), step);
    let mut context = Context {
        state: &state,
        control,
        learning_rates: &[0.1],
        gradient_norm: None,
        elapsed_seconds: 0.0,
        micro_step: step,
        parameters: Parameters::default(),
    };
    callback.on_event(event, &mut context)
}

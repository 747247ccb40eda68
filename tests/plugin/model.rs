//! What callbacks may read where they were granted it: parameters and gradients as handles, checkpoints file by file; and
//! the events of runs that go on or fail.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use host::callback::{Callback, Context, Control, Event, Fault, Parameters, TrainerState};
use host::plugin::{Grants, Plugin, load};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use super::{environment, event, guest, hostile, spec, told, with_manifest};
use crate::support::sha256;

/// The hostile guest with requests and grants.
fn granted(attack: &str, requests: &Value, grants: &[&str]) -> Plugin {
    let folder = tempfile::tempdir().expect("a folder");
    let path = with_manifest(&guest("hostile"), folder.path(), |manifest| {
        manifest["requests"] = requests.clone();
    });
    let config = json!({"attack": attack, "call": 1, "every": 1});
    let mut spec = spec(&path, &config, &[]);
    spec.grants = Grants::parse(grants).expect("capabilities");
    load(&spec, &environment()).expect("loads")
}

/// Three parameters; all but the last have a gradient.
fn model() -> (Vec<String>, Vec<Tensor>) {
    let parameter = |value: f64| {
        let tensor = Tensor::full([2, 3], value, (Kind::Float, Device::Cpu));
        tensor.set_requires_grad(true)
    };
    let tensors = vec![parameter(1.0), parameter(-2.0), parameter(3.0)];
    (&tensors[0] * 5.0 + &tensors[1] * 7.0)
        .sum(Kind::Float)
        .backward();
    let names = ["w", "layer.0.bias", "v"].map(str::to_owned);
    (names.to_vec(), tensors)
}

fn optimizer_step(callback: &mut dyn Callback, parameters: Parameters<'_>) -> Result<()> {
    let state = TrainerState::new();
    let mut control = Control::default();
    let mut context = Context {
        state: &state,
        control: &mut control,
        learning_rates: &[0.1],
        gradient_norm: None,
        elapsed_seconds: 0.0,
        micro_step: 1,
        parameters,
    };
    callback.on_event(Event::PreOptimizerStep, &mut context)
}

fn asks_for_both() -> Value {
    json!({"parameters": "draws them", "gradients": "draws them"})
}

#[test]
fn parameters_and_gradients_are_read_and_stay_as_they_are() {
    let (names, tensors) = model();
    let before: Vec<Tensor> = tensors.iter().map(Tensor::copy).collect();
    let plugin = granted("parameters", &asks_for_both(), &["parameters", "gradients"]);
    let mut callback = plugin.callbacks().remove(0);
    optimizer_step(&mut *callback, Parameters::new(&names, &tensors)).expect("read");
    let expected = [
        ("parameters/count", 3.0),
        ("parameters/size", 6.0 * (1.0 + 2.0 + 3.0)),
        ("gradients/count", 2.0),
        ("gradients/size", 6.0 * (5.0 + 7.0)),
        ("matching", 2.0),
        ("matching none", 0.0),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(callback.take_emitted(), expected);
    for (tensor, before) in tensors.iter().zip(&before) {
        assert!(tensor.equal(before) && tensor.requires_grad());
    }
    assert_eq!(tensors[0].grad().double_value(&[0, 0]), 5.0);
}

#[test]
fn what_was_not_asked_for_or_is_no_pattern_is_refused() {
    let (names, tensors) = model();
    for (attack, requests, grants, text) in [
        (
            "parameters",
            json!({}),
            &[][..],
            "needs the capability `parameters`, which the plugin's manifest does not request (denied)",
        ),
        (
            "parameters",
            json!({"parameters": "x"}),
            &["parameters"],
            "needs the capability `gradients`, which the plugin's manifest does not request (denied)",
        ),
        (
            "bad-pattern",
            asks_for_both(),
            &["parameters", "gradients"],
            "the pattern `[` cannot be read",
        ),
    ] {
        let plugin = granted(attack, &requests, grants);
        let mut callback = plugin.callbacks().remove(0);
        let error =
            optimizer_step(&mut *callback, Parameters::new(&names, &tensors)).expect_err(text);
        let subject = "plugin `hostile`: optimizer-hooks.on-pre-optimizer-step, call 1: ";
        let shown = told(&error);
        assert!(shown.contains(subject) && shown.contains(text), "{shown}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let asking = with_manifest(&guest("hostile"), folder.path(), |manifest| {
        manifest["requests"] = asks_for_both();
    });
    let error = load(&spec(&asking, &json!({}), &[]), &environment()).expect_err("not granted");
    assert!(
        told(&error).contains("asks for 2 capabilities that are not granted"),
        "{}",
        told(&error)
    );
}

#[test]
fn copies_of_parameters_count_and_handles_have_their_number() {
    let names: Vec<String> = (0..1100).map(|number| format!("p{number}")).collect();
    let tensors: Vec<Tensor> = names.iter().map(|_| Tensor::from(1.0_f32)).collect();
    let plugin = granted("parameters", &asks_for_both(), &["parameters", "gradients"]);
    let mut callback = plugin.callbacks().remove(0);
    let error =
        optimizer_step(&mut *callback, Parameters::new(&names, &tensors)).expect_err("many");
    assert!(
        told(&error).contains("over the limit `handles` of 1024"),
        "{}",
        told(&error)
    );

    let large = vec![Tensor::zeros([80 << 20], (Kind::Float, Device::Cpu))];
    let plugin = granted(
        "kept-parameters",
        &asks_for_both(),
        &["parameters", "gradients"],
    );
    let mut callback = plugin.callbacks().remove(0);
    let error = optimizer_step(&mut *callback, Parameters::new(&names, &large)).expect_err("large");
    assert!(
        told(&error).contains("over the limit `tensors` of 256 MiB"),
        "{}",
        told(&error)
    );
}

/// A checkpoint, and what a plugin must not find from it.
fn checkpoint(folder: &Path) -> std::path::PathBuf {
    let checkpoint = folder.join("checkpoint-3");
    fs::create_dir_all(checkpoint.join("folder")).expect("folders");
    fs::write(folder.join("secret"), "do not read").expect("a file");
    fs::write(checkpoint.join("weights"), b"12345").expect("a file");
    fs::write(checkpoint.join("folder/more"), b"6").expect("a file");
    symlink("/etc/passwd", checkpoint.join("link")).expect("a link");
    checkpoint
}

#[test]
fn a_checkpoint_is_read_file_by_file_and_nothing_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = checkpoint(folder.path());
    let requests = json!({"artifact-read": "looks at it"});
    let plugin = granted("artifact", &requests, &["artifact:read"]);
    let mut callback = plugin.callbacks().remove(0);
    let expected = [
        ("files".to_owned(), 2.0),
        ("size".to_owned(), 6.0),
        (format!("folder/more/{}", sha256(b"6")), 1.0),
        ("folder/more/end".to_owned(), 1.0),
        (format!("weights/{}", sha256(b"12345")), 5.0),
        ("weights/end".to_owned(), 2.0),
    ];
    for told_of in [Event::Save(&checkpoint), Event::Resume(&checkpoint)] {
        event(&mut *callback, told_of, 3, &mut Control::default()).expect("read");
        assert_eq!(callback.take_emitted(), expected);
    }
    let plugin = hostile("artifact", &[]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let error = event(
        &mut *callback,
        Event::Resume(&checkpoint),
        3,
        &mut Control::default(),
    )
    .expect_err("not asked for");
    let expected = "plugin `hostile`: resume-hooks.on-resume, call 1: needs the capability `artifact:read`, which the \
                    plugin's manifest does not request (denied)";
    assert!(told(&error).contains(expected), "{}", told(&error));
}

#[test]
fn a_large_checkpoint_is_read_within_the_limits() {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = folder.path().join("checkpoint-1");
    fs::create_dir(&checkpoint).expect("a folder");
    // A hole: many bytes that take no room.
    let file = fs::File::create(checkpoint.join("weights")).expect("a file");
    file.set_len(1 << 40).expect("a hole");
    let changed = with_manifest(&guest("hostile"), folder.path(), |manifest| {
        manifest["requests"] = json!({"artifact-read": "hashes it"});
    });
    let config = json!({"attack": "artifact", "call": 1, "every": 1});
    let mut spec = spec(&changed, &config, &[("time", "200ms")]);
    spec.grants = Grants::parse(&["artifact:read"]).expect("a capability");
    let plugin = load(&spec, &environment()).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    let begin = std::time::Instant::now();
    let error = event(
        &mut *callback,
        Event::Save(&checkpoint),
        1,
        &mut Control::default(),
    )
    .expect_err("too long");
    assert!(
        told(&error).contains("over the limit `time` of 200ms"),
        "{}",
        told(&error)
    );
    assert!(begin.elapsed().as_secs() < 5);
}

#[test]
fn a_fault_is_told_and_a_plugin_that_is_the_fault_hears_nothing_of_it() {
    let fault = Event::Fault(Fault {
        kind: "io",
        message: "the disk is full",
    });
    let plugin = hostile("record", &[]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    event(&mut *callback, fault, 2, &mut Control::default()).expect("told");
    let emitted = callback.take_emitted();
    assert!(
        emitted.contains(&("fault/io".to_owned(), 16.0)),
        "{emitted:?}"
    );
    let plugin = hostile("panic", &[]).expect("loads");
    let mut callback = plugin.callbacks().remove(0);
    event(&mut *callback, Event::StepEnd, 1, &mut Control::default()).expect_err("stopped");
    event(&mut *callback, fault, 2, &mut Control::default()).expect("nothing is said");
    assert_eq!(plugin.usage().calls, 1);
}

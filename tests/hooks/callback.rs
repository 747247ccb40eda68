//! Callbacks: a recorder of everything that a callback can see and ask for, natively and as a guest; and early stopping,
//! built in and as a plugin, event for event.

use std::collections::HashMap;

use anyhow::Result;
use host::callback::{
    Callback, Change, Context, Control, EVENT_KINDS, EarlyStopping, Event, EventKind, Fault,
    OWN_EVENT_KINDS, Parameters, TrainerState,
};
use host::plugin::{Environment, Plugin, load};
use serde_json::{Value, json};

use crate::loop_behaviour::stage::name_of;
use crate::plugin::{environment, guest, official, spec};

/// The native twin of the guest's recorder.
#[derive(Default)]
struct Recorder {
    counts: HashMap<&'static str, u64>,
    latest: HashMap<String, f64>,
    emitted: Vec<(String, f64)>,
}

impl Callback for Recorder {
    fn name(&self) -> &str {
        "hostile"
    }

    fn wants(&self, _: EventKind) -> bool {
        true
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        let name = name_of(event.kind());
        let count = self.counts.entry(name).or_default();
        *count += 1;
        let count = *count;
        for entry in &context.state.log_history {
            self.latest.extend(
                entry
                    .iter()
                    .filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))),
            );
        }
        let (state, control) = (context.state, &mut *context.control);
        let mut emit = |key: &str, value: f64| self.emitted.push((format!("{name}/{key}"), value));
        emit("count", count as f64);
        emit("step", state.global_step as f64);
        emit("max", state.max_steps as f64);
        emit("epoch", state.epoch.unwrap_or(0.0));
        emit("micro", context.micro_step as f64);
        emit("rates", context.learning_rates.iter().sum());
        emit("norm", context.gradient_norm.unwrap_or(-1.0));
        emit("best", state.best_metric.unwrap_or(-1.0));
        emit("loss", self.latest.get("loss").copied().unwrap_or(-1.0));
        match event {
            Event::Evaluate(numbers) | Event::Predict(numbers) | Event::Log(numbers) => {
                numbers.iter().for_each(|(key, value)| emit(key, *value));
            }
            Event::Fault(fault) => emit(fault.kind, fault.message.len() as f64),
            Event::Save(folder) | Event::Resume(folder) => {
                emit(&folder.file_name().expect("a name").to_string_lossy(), 5.0)
            }
            _ => {}
        }
        let flags = [
            control.should_training_stop(),
            control.should_save(),
            control.should_evaluate(),
            control.should_log(),
        ];
        emit(
            "flags",
            f64::from(
                flags
                    .iter()
                    .fold(0, |bits, flag| bits * 2 + u32::from(*flag)),
            ),
        );
        match count % 5 {
            1 => control.set_save(true),
            2 => control.set_evaluate(true),
            3 => control.set_log(!control.should_log()),
            4 => control.stop_epoch(name),
            _ => control.stop_training(name),
        }
        Ok(())
    }

    fn take_emitted(&mut self) -> Vec<(String, f64)> {
        std::mem::take(&mut self.emitted)
    }
}

/// Emitted values, flags and changes after one event.
type Reaction = (Vec<(String, f64)>, [bool; 5], Vec<Change>);

/// All that a callback says and does during a made-up run.
fn script(callback: &mut dyn Callback) -> Vec<Reaction> {
    let folder = tempfile::tempdir().expect("a folder");
    let checkpoint = folder.path().join("checkpoint-2");
    std::fs::create_dir(&checkpoint).expect("a checkpoint");
    std::fs::write(checkpoint.join("weights"), b"12345").expect("a file");
    let numbers = [
        ("eval_loss".to_owned(), 0.5),
        ("eval_f1".to_owned(), f64::INFINITY),
    ];
    let mut state = TrainerState {
        max_steps: 9,
        num_train_epochs: 3,
        ..TrainerState::new()
    };
    let mut control = Control::default();
    let mut seen = Vec::new();
    for round in 0..6_u64 {
        for kind in EVENT_KINDS.into_iter().chain(OWN_EVENT_KINDS) {
            assert!(callback.wants(kind), "{kind:?}");
            let event = match kind {
                EventKind::InitEnd => Event::InitEnd,
                EventKind::TrainBegin => Event::TrainBegin,
                EventKind::TrainEnd => Event::TrainEnd,
                EventKind::EpochBegin => Event::EpochBegin,
                EventKind::EpochEnd => Event::EpochEnd,
                EventKind::StepBegin => Event::StepBegin,
                EventKind::SubstepEnd => Event::SubstepEnd,
                EventKind::StepEnd => Event::StepEnd,
                EventKind::Evaluate => Event::Evaluate(&numbers),
                EventKind::Predict => Event::Predict(&numbers[..1]),
                EventKind::Save => Event::Save(&checkpoint),
                EventKind::Log => Event::Log(&numbers),
                EventKind::PredictionStep => Event::PredictionStep,
                EventKind::PreOptimizerStep => Event::PreOptimizerStep,
                EventKind::OptimizerStep => Event::OptimizerStep,
                EventKind::Resume => Event::Resume(&checkpoint),
                EventKind::Fault => Event::Fault(Fault {
                    kind: "numeric",
                    message: "not finite",
                }),
            };
            control.clear_before(kind);
            control.set_actor(callback.name(), state.global_step);
            let mut context = Context {
                state: &state,
                control: &mut control,
                learning_rates: &[0.1, 0.02],
                gradient_norm: (round % 2 == 0).then_some(1.5),
                elapsed_seconds: 0.0,
                micro_step: round * 2,
                parameters: Parameters::default(),
            };
            callback.on_event(event, &mut context).expect("no error");
            let flags = [
                control.should_training_stop(),
                control.should_epoch_stop(),
                control.should_save(),
                control.should_evaluate(),
                control.should_log(),
            ];
            seen.push((callback.take_emitted(), flags, control.take_changes()));
        }
        state.global_step += 1;
        state.epoch = Some(round as f64 / 2.0);
        state.best_metric = Some(0.1 * round as f64);
        state.log_history.push(
            json!({"loss": 3.0 - round as f64, "step": round})
                .as_object()
                .expect("an object")
                .clone(),
        );
    }
    seen
}

#[test]
fn a_guest_sees_and_does_what_a_native_callback_sees_and_does() {
    let plugin = load(
        &spec(&guest("hostile"), &json!({"attack": "record"}), &[]),
        &environment(),
    )
    .expect("loads");
    let guest = script(&mut *plugin.callbacks().remove(0));
    let native = script(&mut Recorder::default());
    assert_eq!(guest.len(), 6 * 17);
    for (number, (guest, native)) in guest.iter().zip(&native).enumerate() {
        assert_eq!(guest, native, "event {number}");
    }
}

fn early_stopping(config: &Value, arguments: &Value) -> Plugin {
    let environment = Environment {
        arguments: arguments.as_object().expect("an object").clone(),
        ..environment()
    };
    load(
        &spec(&official("early_stopping"), config, &[]),
        &environment,
    )
    .expect("loads")
}

/// Evaluations with a save after each: after which of them training stops, and every wish on the way. Every second
/// evaluation, the state goes through a checkpoint into a new callback.
fn stops(
    make: &dyn Fn() -> Box<dyn Callback>,
    metric: &str,
    values: &[f64],
    greater: bool,
) -> (Option<usize>, Vec<Change>) {
    let mut callback = make();
    let mut state = TrainerState::new();
    let mut control = Control::default();
    let mut changes = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let metrics = [("eval_other".to_owned(), 0.0), (metric.to_owned(), *value)];
        state.global_step += 10;
        control.set_actor("early stopping", state.global_step);
        let mut context = Context {
            state: &state,
            control: &mut control,
            learning_rates: &[],
            gradient_norm: None,
            elapsed_seconds: 0.0,
            micro_step: 0,
            parameters: Parameters::default(),
        };
        callback
            .on_event(Event::Evaluate(&metrics), &mut context)
            .expect("no error");
        changes.extend(control.take_changes());
        if control.should_training_stop() {
            return (Some(index + 1), changes);
        }
        if state.best_metric.is_none_or(|best| {
            if greater {
                *value > best
            } else {
                *value < best
            }
        }) {
            state.best_metric = Some(*value);
        }
        if index % 2 == 1 {
            let saved = callback.state().expect("a state");
            callback = make();
            callback.load_state(&saved).expect("restored");
        }
    }
    (None, changes)
}

#[test]
fn early_stopping_is_the_same_built_in_and_as_a_plugin() {
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f64 / (1 << 24) as f64
    };
    let mut runs: Vec<Vec<f64>> = vec![
        vec![0.5, 0.5, 0.5],
        vec![0.5, 0.6, 0.55, 0.58, 0.7],
        vec![0.5, 0.505, 0.6],
        vec![f64::NAN, 0.5, f64::NAN, 0.4, f64::INFINITY, 0.3, 0.2],
    ];
    runs.extend((0..20).map(|_| (0..12).map(|_| (random() * 8.0).round() / 8.0).collect()));
    for (patience, threshold, greater) in [
        (1, 0.0, true),
        (2, 0.0, false),
        (3, 0.2, true),
        (1, 0.01, true),
    ] {
        let config = json!({"patience": patience, "threshold": threshold, "metric": "acc", "greater_is_better": greater});
        let plugin = || early_stopping(&config, &json!({})).callbacks().remove(0);
        let built_in = || -> Box<dyn Callback> {
            Box::new(EarlyStopping::new(patience, threshold, "acc", greater))
        };
        for values in &runs {
            assert_eq!(
                stops(&plugin, "eval_acc", values, greater),
                stops(&built_in, "eval_acc", values, greater),
                "{values:?}"
            );
        }
    }
}

#[test]
fn early_stopping_takes_its_metric_from_the_run_and_objects_as_the_reference_does() {
    let begin = |plugin: &Plugin| {
        let state = TrainerState::new();
        let mut control = Control::default();
        let mut context = Context {
            state: &state,
            control: &mut control,
            learning_rates: &[],
            gradient_norm: None,
            elapsed_seconds: 0.0,
            micro_step: 0,
            parameters: Parameters::default(),
        };
        plugin
            .callbacks()
            .remove(0)
            .on_event(Event::TrainBegin, &mut context)
    };
    let good = json!({"load_best_model_at_end": true, "metric_for_best_model": "f1", "evaluation_strategy": "epoch"});
    begin(&early_stopping(&json!({}), &good)).expect("fine");
    for (key, value, text) in [
        (
            "load_best_model_at_end",
            json!(false),
            "needs load_best_model_at_end",
        ),
        (
            "metric_for_best_model",
            Value::Null,
            "needs metric_for_best_model",
        ),
        (
            "evaluation_strategy",
            json!("no"),
            "needs an evaluation_strategy",
        ),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        let error = begin(&early_stopping(&json!({}), &bad))
            .expect_err(text)
            .to_string();
        assert!(error.contains(text), "{error}");
    }
}

//! Every optimizer against ten recorded steps of its reference (`tests/fixtures/optimizers/make.py`), and what all of them
//! share: they go on from their state bit for bit, and refuse one that does not fit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tch::{Kind, Tensor};

use super::options::testing::options;
use super::{
    BUILTIN, Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup, Phase, create,
    state_copies,
};
use crate::checkpoint::{PartState, foreign, load};
use crate::torch::set_gradient;

const RATE: f64 = 0.05;
const SMALL: [&[i64]; 2] = [&[3, 4], &[4]];
const LARGE: [&[i64]; 2] = [&[65, 67], &[4]];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/optimizers")
        .join(name)
}

fn recorded(name: &str) -> BTreeMap<String, Tensor> {
    let file = load::read_tensors(&fixture(name)).expect("the fixture");
    file.tensors.into_iter().collect()
}

/// `values` of make.py: exact in float32.
fn values(shape: &[i64], salt: i64, kind: Kind) -> Tensor {
    let count: i64 = shape.iter().product();
    let value = |i: i64| {
        let mantissa = (i * 7919 + i * i * 31 + salt * 104_729) % 2003 - 1001;
        (mantissa as f64 / 1024.0 * 0.5_f64.powi((i % 13) as i32)) as f32
    };
    let values: Vec<f32> = (0..count).map(value).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(kind)
}

/// What a test makes an optimizer of.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    options: fn() -> Value,
    shapes: [&'static [i64]; 2],
    kind: Kind,
    warmup_steps: u64,
}

const fn case(name: &'static str) -> Case {
    Case {
        name,
        options: || json!({}),
        shapes: SMALL,
        kind: Kind::Float,
        warmup_steps: 0,
    }
}

impl Case {
    fn choice(&self) -> OptimizerChoice {
        OptimizerChoice {
            name: self.name.to_owned(),
            adam: OptimizerSettings {
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-6,
            },
            options: options((self.options)()),
            warmup_steps: self.warmup_steps,
        }
    }

    /// Over `w`, which decays, `b`, and a parameter that never has a gradient.
    fn make(&self) -> Box<dyn Optimizer> {
        let parameter = |number: i64| {
            values(self.shapes[number as usize], number, self.kind).set_requires_grad(true)
        };
        let idle = Tensor::from_slice(&[5.0_f32]).set_requires_grad(true);
        let group = |parameters: Vec<Tensor>, names: &[&str], weight_decay: f64| ParameterGroup {
            parameters,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            learning_rate: RATE,
            initial_learning_rate: RATE,
            weight_decay,
        };
        let groups = vec![
            group(vec![parameter(0)], &["w"], 0.2),
            group(vec![parameter(1), idle], &["b", "idle"], 0.0),
        ];
        create(&self.choice(), groups).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// Step number `step`, from 0.
fn step(optimizer: &mut dyn Optimizer, step: i64) {
    for (number, group) in optimizer.groups_mut().iter_mut().enumerate() {
        group.learning_rate = RATE * (1.0 - step as f64 / 20.0);
        let parameter = &group.parameters[0];
        let salt = 100 + 10 * step + number as i64;
        let gradient = values(&parameter.size(), salt, parameter.kind());
        set_gradient(parameter, &gradient).expect("a gradient");
    }
    optimizer.step().expect("a step");
}

fn parameters(optimizer: &dyn Optimizer) -> [&Tensor; 2] {
    let groups = optimizer.groups();
    [&groups[0].parameters[0], &groups[1].parameters[0]]
}

fn difference(found: &Tensor, expected: &Tensor) -> f64 {
    let (found, expected) = (found.detach(), expected);
    assert_eq!(
        (found.size(), found.kind()),
        (expected.size(), expected.kind())
    );
    let difference = found.to_kind(Kind::Double) - expected.to_kind(Kind::Double);
    difference.abs().max().double_value(&[])
}

/// Name in the fixture, case, largest difference of float32 values. bfloat16 must be equal.
fn cases() -> Vec<(&'static str, Case)> {
    let with = |name, options| Case {
        options,
        ..case(name)
    };
    let half = |name, options| Case {
        kind: Kind::BFloat16,
        ..with(name, options)
    };
    vec![
        ("adamw_torch in bfloat16", half("adamw_torch", || json!({}))),
        ("adamw_hf in bfloat16", half("adamw_hf", || json!({}))),
        ("rmsprop in bfloat16", half("rmsprop", || json!({}))),
        ("muon in bfloat16", half("muon", || json!({}))),
        ("adamw_hf", case("adamw_hf")),
        (
            "adamw_hf correct_bias=false",
            with("adamw_hf", || json!({"correct_bias": false})),
        ),
        ("adamw_apex_fused", case("adamw_apex_fused")),
        ("adamw_anyprecision", case("adamw_anyprecision")),
        (
            "adamw_anyprecision bfloat16",
            with(
                "adamw_anyprecision",
                || json!({"momentum_dtype": "bfloat16", "variance_dtype": "bfloat16"}),
            ),
        ),
        (
            "adamw_anyprecision kahan",
            half("adamw_anyprecision", || {
                json!({"momentum_dtype": "bfloat16", "variance_dtype": "bfloat16",
                       "use_kahan_summation": true})
            }),
        ),
        ("adagrad", case("adagrad")),
        ("rmsprop", case("rmsprop")),
        ("lion_32bit", case("lion_32bit")),
        ("lion_32bit", case("paged_lion_32bit")),
        ("paged_adamw_32bit", case("paged_adamw_32bit")),
        // Below 4096 elements states keep 32 bits.
        ("paged_adamw_32bit", case("adamw_8bit")),
        ("lion_32bit", case("lion_8bit")),
        (
            "paged_adamw_32bit in bfloat16",
            half("paged_adamw_32bit", || json!({})),
        ),
        ("muon", case("muon")),
        (
            "muon match_rms_adamw",
            with("muon", || {
                json!({"adjust_lr_fn": "match_rms_adamw", "nesterov": false, "momentum": 0.8,
                       "ns_steps": 3})
            }),
        ),
        (
            "schedule_free_adamw",
            Case {
                warmup_steps: 3,
                ..case("schedule_free_adamw")
            },
        ),
        (
            "schedule_free_adamw r=1",
            with(
                "schedule_free_adamw",
                || json!({"r": 1.0, "weight_lr_power": 1.0}),
            ),
        ),
        ("stable_adamw", case("stable_adamw")),
        (
            "stable_adamw decouple_lr",
            with("stable_adamw", || json!({"decouple_lr": true})),
        ),
        (
            "stable_adamw in bfloat16",
            half("stable_adamw", || json!({})),
        ),
    ]
}

#[test]
fn ten_steps_are_the_recorded_ones() {
    let recorded = recorded("ten_steps.safetensors");
    let mut wrong = Vec::new();
    for (fixture, case) in cases() {
        let mut optimizer = case.make();
        let tolerance = if case.kind == Kind::Float { 1e-6 } else { 0.0 };
        for number in 0..10 {
            step(&mut *optimizer, number);
            for (name, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
                let expected = &recorded[&format!("{fixture}.{}.{name}", number + 1)];
                let difference = difference(parameter, expected);
                if difference > tolerance {
                    let number = number + 1;
                    wrong.push(format!(
                        "{}: {name}, step {number}: {difference}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Spec 4.3: p = (1, -2), g = t (0.01, -0.5), rate 0.1, epsilon 1e-3, decay 0.2; the decay is the last thing of a step.
#[test]
fn adamw_hf_gives_the_numbers_of_the_specification() {
    let mut choice = case("adamw_hf").choice();
    choice.adam.beta2 = 0.999;
    choice.adam.epsilon = 1e-3;
    let parameter = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
    let group = ParameterGroup {
        parameters: vec![parameter.shallow_clone()],
        names: vec!["p".to_owned()],
        learning_rate: 0.1,
        initial_learning_rate: 0.1,
        weight_decay: 0.2,
    };
    let mut optimizer = create(&choice, vec![group]).expect("valid");
    for t in 1..=3 {
        let gradient = Tensor::from_slice(&[0.01_f32, -0.5]) * f64::from(t);
        set_gradient(&parameter, &gradient).expect("a gradient");
        optimizer.step().expect("a step");
    }
    let expected = Tensor::from_slice(&[0.829_309_f32, -1.611_394]);
    assert!(difference(&parameter, &expected) < 1e-6, "{parameter:?}");
}

#[test]
fn eight_bits_give_the_recorded_codes() {
    let recorded = recorded("eight_bits.safetensors");
    let names = [
        ("adamw_8bit", "adamw_8bit"),
        ("adamw_8bit", "adamw_bnb_8bit"),
        ("adamw_8bit", "paged_adamw_8bit"),
        ("lion_8bit", "lion_8bit"),
        ("lion_8bit", "paged_lion_8bit"),
    ];
    for (fixture, name) in names {
        let mut optimizer = Case {
            shapes: LARGE,
            ..case(name)
        }
        .make();
        (0..10).for_each(|number| step(&mut *optimizer, number));
        for (key, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
            let difference = difference(parameter, &recorded[&format!("{fixture}.{key}")]);
            assert!(difference <= 1e-5, "{name}: {key}: {difference}");
        }
        let state: BTreeMap<_, _> = optimizer
            .state()
            .expect("a state")
            .tensors
            .into_iter()
            .collect();
        for key in ["state1", "absmax1", "state2", "absmax2"] {
            let expected = recorded.get(&format!("{fixture}.{key}"));
            let found = state.get(&format!("state.0.{key}"));
            assert_eq!(found.is_some(), expected.is_some(), "{name}: {key}");
            if let (Some(found), Some(expected)) = (found, expected) {
                let difference = difference(found, expected);
                let tolerance = if key.starts_with("abs") { 1e-6 } else { 0.0 };
                assert!(difference <= tolerance, "{name}: {key}: {difference}");
            }
        }
        assert_eq!(
            state["state.1.state1"].kind(),
            Kind::Float,
            "b has too few elements"
        );
    }
}

#[test]
fn what_is_not_a_number_does_not_vanish_in_codes() {
    let mut optimizer = Case {
        shapes: LARGE,
        ..case("adamw_8bit")
    }
    .make();
    step(&mut *optimizer, 0);
    let parameter = parameters(&*optimizer)[0].shallow_clone();
    let gradient = parameter.grad().copy();
    let _ = gradient.view([-1]).get(1000).fill_(f64::NAN);
    set_gradient(&parameter, &gradient).expect("a gradient");
    optimizer.step().expect("a step");
    step(&mut *optimizer, 2);
    let state = optimizer.state().expect("a state").tensors;
    for key in ["absmax1", "absmax2"] {
        let name = format!("state.0.{key}");
        let (_, scales) = state.iter().find(|(key, _)| *key == name).expect("scales");
        assert!(scales.double_value(&[1000 / 256]).is_nan(), "{key}");
        assert!(scales.double_value(&[0]).is_finite(), "{key}");
    }
}

fn copied(state: PartState) -> PartState {
    let tensors = state.tensors.into_iter();
    let tensors = tensors.map(|(name, tensor)| (name, tensor.copy()));
    PartState {
        tensors: tensors.collect(),
        json: state.json,
    }
}

fn take_parameters(from: &dyn Optimizer, to: &dyn Optimizer) {
    for (from, to) in parameters(from).into_iter().zip(parameters(to)) {
        tch::no_grad(|| to.shallow_clone().copy_(from));
    }
}

/// All optimizers, on large parameters and, where the type changes something, in bfloat16.
fn all() -> Vec<Case> {
    let all = BUILTIN.iter().map(|(name, _)| Case {
        shapes: LARGE,
        ..case(name)
    });
    let half = cases()
        .into_iter()
        .map(|(_, case)| case)
        .filter(|case| case.kind == Kind::BFloat16);
    all.chain(half).collect()
}

#[test]
fn every_optimizer_goes_on_from_its_state_bit_for_bit() {
    for case in all() {
        let name = case.name;
        let mut whole = case.make();
        (0..5).for_each(|number| step(&mut *whole, number));
        whole.enter(Phase::Evaluation).expect("a phase");
        let state = copied(whole.state().expect("a state"));
        assert!(
            state
                .tensors
                .iter()
                .all(|(name, _)| !name.starts_with("state.2.")),
            "{name}: a parameter without gradient has a state"
        );
        let large = state
            .tensors
            .iter()
            .filter(|(name, tensor)| name.starts_with("state.0.") && tensor.numel() == 65 * 67);
        assert!(large.count() as u64 <= state_copies(name), "{name}");
        let mut resumed = case.make();
        take_parameters(&*whole, &*resumed);
        resumed.load_state(state).expect("it fits");
        for optimizer in [&mut whole, &mut resumed] {
            optimizer.enter(Phase::Training).expect("a phase");
            (5..10).for_each(|number| step(&mut **optimizer, number));
        }
        for (whole, resumed) in parameters(&*whole).into_iter().zip(parameters(&*resumed)) {
            assert_eq!(difference(resumed, &whole.detach()), 0.0, "{name}");
        }
    }
}

#[test]
fn phases_change_nothing_of_a_run() {
    let recorded = recorded("ten_steps.safetensors");
    let case = Case {
        warmup_steps: 3,
        ..case("schedule_free_adamw")
    };
    let mut optimizer = case.make();
    for number in 0..10 {
        step(&mut *optimizer, number);
        if number % 3 == 0 {
            optimizer.enter(Phase::Evaluation).expect("a phase");
            optimizer.enter(Phase::Evaluation).expect("the same phase");
            optimizer.enter(Phase::Training).expect("a phase");
        }
    }
    for (name, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
        let trained = &recorded[&format!("schedule_free_adamw.10.{name}")];
        assert!(difference(parameter, trained) <= 1e-6, "{name}");
    }
    optimizer.enter(Phase::Evaluation).expect("a phase");
    for (name, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
        let average = &recorded[&format!("schedule_free_adamw.average.{name}")];
        assert!(difference(parameter, average) <= 1e-6, "{name}");
    }
    // A state without the training weights, as the original saves it: they are computed.
    let mut state = copied(optimizer.state().expect("a state"));
    assert_eq!(state.json["param_groups"][1]["train_mode"], false);
    state.tensors.retain(|(name, _)| !name.ends_with(".y"));
    let mut other = case.make();
    take_parameters(&*optimizer, &*other);
    other.load_state(state).expect("it fits");
    other.enter(Phase::Training).expect("a phase");
    for (name, parameter) in ["w", "b"].into_iter().zip(parameters(&*other)) {
        let trained = &recorded[&format!("schedule_free_adamw.10.{name}")];
        assert!(difference(parameter, trained) <= 1e-6, "{name}");
    }
}

#[test]
fn pickled_states_are_taken_up() {
    let recorded = recorded("ten_steps.safetensors");
    for name in ["adagrad", "rmsprop", "adamw_hf"] {
        let two = BUILTIN.iter().find(|(known, _)| *known == name);
        let case = case(two.expect("an optimizer").0);
        let mut state = foreign::read_optimizer(&fixture(&format!("{name}.pt"))).expect("readable");
        // The recorded model has no third parameter.
        state.json["param_groups"][1]["params"] = json!([1, 2]);
        let mut optimizer = case.make();
        for (key, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
            let fifth = &recorded[&format!("{name}.5.{key}")];
            tch::no_grad(|| parameter.shallow_clone().copy_(fifth));
        }
        optimizer.load_state(state).expect("it fits");
        (5..10).for_each(|number| step(&mut *optimizer, number));
        for (key, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
            let difference = difference(parameter, &recorded[&format!("{name}.10.{key}")]);
            assert!(difference <= 1e-6, "{name}: {key}: {difference}");
        }
    }
}

/// bitsandbytes wraps its tensors in a dictionary, and saves its maps.
#[test]
fn pickled_codes_are_taken_up() {
    let recorded = recorded("eight_bits.safetensors");
    for name in ["adamw_8bit", "lion_8bit"] {
        let mut state = foreign::read_optimizer(&fixture(&format!("{name}.pt"))).expect("readable");
        state.json["param_groups"][1]["params"] = json!([1, 2]);
        let mut optimizer = Case {
            shapes: LARGE,
            ..case(name)
        }
        .make();
        for (key, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
            let fifth = &recorded[&format!("{name}.5.{key}")];
            tch::no_grad(|| parameter.shallow_clone().copy_(fifth));
        }
        let map = state
            .tensors
            .iter()
            .position(|(key, _)| key == "state.0.qmap1");
        let map = map.expect("a map");
        let spoiled = copied(PartState {
            tensors: state
                .tensors
                .iter()
                .map(|(key, tensor)| (key.clone(), tensor.shallow_clone()))
                .collect(),
            json: state.json.clone(),
        });
        let _ = spoiled.tensors[map].1.get(3).fill_(0.5);
        let error = optimizer.load_state(spoiled).expect_err("another map");
        assert!(
            error.to_string().ends_with("qmap1 of w is another map"),
            "{error}"
        );
        optimizer.load_state(state).expect("it fits");
        (5..10).for_each(|number| step(&mut *optimizer, number));
        for (key, parameter) in ["w", "b"].into_iter().zip(parameters(&*optimizer)) {
            let difference = difference(parameter, &recorded[&format!("{name}.{key}")]);
            assert!(difference <= 1e-5, "{name}: {key}: {difference}");
        }
        let state = optimizer.state().expect("a state").tensors;
        let codes = state.iter().find(|(key, _)| key == "state.0.state1");
        assert_eq!(
            codes.expect("codes").1,
            recorded[&format!("{name}.state1")],
            "{name}"
        );
    }
}

#[test]
fn states_have_the_references_names() {
    let expected = [
        ("adamw_hf", "step exp_avg exp_avg_sq"),
        ("adamw_anyprecision", "step exp_avg exp_avg_sq"),
        ("adagrad", "step sum"),
        ("rmsprop", "step square_avg"),
        ("lion_32bit", "step state1"),
        ("lion_8bit", "step state1 absmax1"),
        ("paged_adamw_32bit", "step state1 state2"),
        ("adamw_8bit", "step state1 absmax1 state2 absmax2"),
        ("muon", "step momentum_buffer"),
        ("schedule_free_adamw", "step z exp_avg_sq"),
        ("stable_adamw", "step exp_avg exp_avg_sq"),
    ];
    for (name, keys) in expected {
        let mut optimizer = Case {
            shapes: LARGE,
            ..case(name)
        }
        .make();
        step(&mut *optimizer, 0);
        let state = optimizer.state().expect("a state");
        let found: Vec<_> = state
            .tensors
            .iter()
            .filter_map(|(name, _)| name.strip_prefix("state.0."))
            .collect();
        assert_eq!(found.join(" "), keys, "{name}");
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    type Spoil = fn(&mut PartState);
    let cases: [(&str, Spoil, &str); 5] = [
        (
            "adagrad",
            |state| drop(state.tensors.remove(1)),
            "w has no sum",
        ),
        (
            "rmsprop",
            |state| state.tensors[1].0 = "state.0.momentum_buffer".to_owned(),
            "w has no square_avg",
        ),
        (
            // Blocks of 2048 elements, as bitsandbytes had them before 0.44.
            "lion_8bit",
            |state| state.tensors[2].1 = Tensor::from_slice(&[1.0_f32, 1.0, 1.0]),
            "absmax1 of w has shape [3], not [18]",
        ),
        (
            "muon",
            |state| state.tensors[0].1 = Tensor::from_slice(&[1.0_f32, 1.0]),
            "step of w has shape [2], not one number",
        ),
        (
            "schedule_free_adamw",
            |state| {
                let weights = Tensor::from_slice(&[1.0_f32]);
                state.tensors.push(("state.9.y".to_owned(), weights));
            },
            "tensor state.9.y belongs to no parameter",
        ),
    ];
    for (name, spoil, expected) in cases {
        let case = Case {
            shapes: LARGE,
            ..case(name)
        };
        let mut optimizer = case.make();
        step(&mut *optimizer, 0);
        let mut state = copied(optimizer.state().expect("a state"));
        spoil(&mut state);
        let mut other = case.make();
        let error = other.load_state(state).expect_err(expected);
        assert_eq!(
            error.to_string(),
            format!("the optimizer state does not fit: {expected}")
        );
        assert!(other.state().expect("a state").tensors.is_empty(), "{name}");
    }
}

#[test]
fn muon_is_for_hidden_matrices() {
    let names = [
        ("encoder.layer.0.output.dense.weight", true),
        ("embeddings.word_embeddings.weight", false),
        ("classifier.weight", false),
        ("lm_head.weight", false),
    ];
    for (name, expected) in names {
        let parameter = values(&[3, 4], 0, Kind::Float).set_requires_grad(true);
        let group = ParameterGroup {
            parameters: vec![parameter.shallow_clone()],
            names: vec![name.to_owned()],
            learning_rate: RATE,
            initial_learning_rate: RATE,
            weight_decay: 0.0,
        };
        let mut optimizer = create(&case("muon").choice(), vec![group]).expect("valid");
        set_gradient(&parameter, &values(&[3, 4], 1, Kind::Float)).expect("a gradient");
        optimizer.step().expect("a step");
        let state = optimizer.state().expect("a state");
        let is_muon = state
            .tensors
            .iter()
            .any(|(key, _)| key.ends_with("momentum_buffer"));
        assert_eq!(is_muon, expected, "{name}");
    }
}

#[test]
fn settings_of_another_optimizer_are_refused() {
    for (name, _) in BUILTIN {
        let mut choice = case(name).choice();
        choice.options = options(json!({"unknown": 1}));
        let error = create(&choice, Vec::new()).map(|_| ()).expect_err(name);
        assert!(
            error.to_string().contains("has no setting unknown"),
            "{name}: {error}"
        );
        let mut choice = case(name).choice();
        choice.adam.beta1 = 1.0;
        let reads_betas = !["sgd", "adagrad", "rmsprop", "adafactor"].contains(name);
        assert_eq!(
            create(&choice, Vec::new()).is_err(),
            reads_betas,
            "{name} with adam_beta1 1"
        );
    }
}

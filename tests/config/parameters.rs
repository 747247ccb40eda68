//! The settings that arguments may name are those that optimizers and schedules read.

use std::collections::BTreeSet;

use host::config::arguments::FIELDS;
use host::config::field::State;
use host::config::parameters::{OPTIMIZERS, Parameter, SCHEDULES};
use host::optim::lr_scheduler::{self, ScheduleSettings};
use host::optim::{self, BUILTIN, OptimizerChoice, OptimizerSettings, Options};
use serde_json::json;

/// A setting that nobody has: the refusal lists those there are.
fn unknown() -> Options {
    let json = json!({"no such": 1});
    json.as_object().cloned().expect("an object").into()
}

/// The names in the refusal of [`unknown`].
fn listed<T>(owner: &str, result: anyhow::Result<T>) -> BTreeSet<String> {
    let Err(error) = result else {
        panic!("{owner} takes any setting")
    };
    let text = error.to_string();
    let start = format!("{owner} has no setting no such; it has ");
    let names = text.strip_prefix(&start);
    let names = names.unwrap_or_else(|| panic!("{owner}: {text}"));
    let names = names.split(", ").filter(|name| *name != "none");
    names.map(str::to_owned).collect()
}

fn in_table(owner: &str, table: &[(&str, &[Parameter])]) -> BTreeSet<String> {
    let parameters = table.iter().filter(|(name, _)| *name == owner);
    parameters
        .flat_map(|(_, parameters)| *parameters)
        .map(|parameter| parameter.name.to_owned())
        .collect()
}

/// The values of an argument that can be chosen.
fn choices(field: &str) -> BTreeSet<&'static str> {
    let field = FIELDS.iter().find(|row| row.name == field);
    let choices = field.expect("a row").facts.choices.iter();
    choices
        .filter(|choice| choice.state == State::Honoured)
        .map(|choice| choice.name)
        .collect()
}

#[test]
fn optimizers_read_the_settings_of_the_table() {
    for (name, _) in BUILTIN {
        let choice = OptimizerChoice {
            name: (*name).to_owned(),
            adam: OptimizerSettings {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
            },
            options: unknown(),
            warmup_steps: 0,
        };
        let read = listed(name, optim::create(&choice, Vec::new()));
        assert_eq!(in_table(name, OPTIMIZERS), read, "{name}");
    }
    let built: BTreeSet<_> = BUILTIN.iter().map(|(name, _)| *name).collect();
    assert_eq!(built, choices("optim"));
}

#[test]
fn schedules_read_the_settings_of_the_table() {
    for name in choices("lr_scheduler_type") {
        let settings = ScheduleSettings {
            warmup_steps: 1,
            total_steps: 10,
            learning_rate: 0.1,
        };
        let made = lr_scheduler::create((name, &unknown()), settings, &mut []);
        assert_eq!(in_table(name, SCHEDULES), listed(name, made), "{name}");
    }
}

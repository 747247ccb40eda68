//! Arguments and choices that this program does not honour: refused by name when they are asked for.

use std::path::Path;

use super::super::arguments::{Arguments, FIELDS};
use super::super::field::{Choice, Field, State};
use super::super::findings::did_you_mean;
use super::super::run::ReportTo;
use super::super::setting::quoted;
use super::Draft;

/// Reporters that 4.34 knows. Here they are plugins.
const REPORTERS: &[&str] = &[
    "azure_ml",
    "comet_ml",
    "dagshub",
    "mlflow",
    "neptune",
    "tensorboard",
    "wandb",
    "codecarbon",
    "clearml",
    "flyte",
];

impl Draft<'_> {
    pub(super) fn check_states(&mut self) {
        let defaults = Arguments::default();
        for field in FIELDS {
            if let Some(text) = refusal(field, &self.arguments, &defaults) {
                self.wrong(field.name, text);
            }
        }
        if self.is_given("save_safetensors") && !self.arguments.save_safetensors {
            self.wrong(
                "save_safetensors",
                "false is refused: weights are always safetensors; leave it out",
            );
        }
        self.check_reporters();
    }

    /// `none`, `all` or names of plugins of this run.
    fn check_reporters(&mut self) {
        let names = self.arguments.report_to.0.get_or_insert_default().clone();
        let is_special = |name: &&String| *name == "none" || *name == "all";
        match names.iter().find(is_special) {
            Some(_) if names.len() == 1 => self.arguments.report_to.0 = Some(Vec::new()),
            Some(name) => self.wrong(
                "report_to",
                format!("`{name}` cannot stand beside other names; use it alone"),
            ),
            None => names.iter().for_each(|name| self.check_reporter(name)),
        }
    }

    fn check_reporter(&mut self, name: &str) {
        let tables = self.input.plugins.iter().map(|table| &table.path);
        let given = tables.chain(&self.input.arguments.plugin);
        let plugins: Vec<String> = given.map(|path| plugin_name(path)).collect();
        let named = ReportTo::Named(vec![name.to_owned()]);
        if plugins.iter().any(|plugin| named.includes(plugin)) {
            return;
        }
        let shown = quoted(name);
        let known = REPORTERS
            .iter()
            .copied()
            .chain(plugins.iter().map(String::as_str));
        let text = if REPORTERS.contains(&name) {
            format!(
                "{shown} is not installed: reporters are plugins; give it with --plugin, or use none"
            )
        } else {
            let suggestion = did_you_mean(name, known);
            format!("{shown} is not a reporter{suggestion}; use none")
        };
        self.wrong("report_to", text);
    }
}

/// The name of a plugin as it was written: a file, or `namespace/name@version`.
fn plugin_name(written: &Path) -> String {
    let name = written.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_suffix(".wasm") {
        Some(stem) => stem.to_owned(),
        None => name.split('@').next().unwrap_or_default().to_owned(),
    }
}

/// Why this value of `field` cannot be had.
fn refusal(field: &Field, arguments: &Arguments, defaults: &Arguments) -> Option<String> {
    let value = field.show(arguments);
    let default = field.show(defaults);
    if value == default {
        return None;
    }
    match field.facts.state {
        State::Deferred(missing) => {
            return Some(format!(
                "not available yet: it needs {missing}; leave it out"
            ));
        }
        State::Refused(reason) => return Some(format!("refused: {reason}; leave it out")),
        State::Honoured => {}
    }
    let choices = field.facts.choices;
    let name = value.as_str().filter(|_| !choices.is_empty())?;
    match choices
        .iter()
        .find(|choice| choice.name == name)
        .map(|choice| choice.state)
    {
        Some(State::Honoured) => None,
        Some(State::Deferred(missing)) => Some(format!(
            "`{name}` is not available yet: it needs {missing}; {}",
            use_one_of(choices)
        )),
        Some(State::Refused(reason)) => Some(format!(
            "`{name}` is refused: {reason}; {}",
            use_one_of(choices)
        )),
        None => Some(format!(
            "{} is not a choice{}; {}",
            quoted(name),
            did_you_mean(name, choices.iter().map(|choice| choice.name)),
            use_one_of(choices)
        )),
    }
}

fn use_one_of(choices: &[Choice]) -> String {
    let names = choices
        .iter()
        .filter(|choice| choice.state == State::Honoured)
        .map(|choice| choice.name);
    format!("use one of {}", names.collect::<Vec<_>>().join(", "))
}

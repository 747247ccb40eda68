//! The plugins of a run: loaded in order, handed to the trainer as the same boxes as built-ins, and their cost at the end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::callback::Callback;
use crate::checkpoint::layout;
use crate::config::run::Run;
use crate::config::surroundings;
use crate::data::{Collator, Tokenizer};
use crate::error::Failure;
use crate::loss::Loss;
use crate::metric::{LogitsProcessor, Metric};
use crate::plugin::{self, Environment, Grants, Limits, Pinned, Plugin, Spec, Usage};
use crate::report::{self, Reporter};

/// How long the end of a run waits for each reporter.
const FINISH_TIME: Duration = Duration::from_secs(30);

/// Makes a collator for a loader of rows that are trained with, or that are evaluated.
pub(crate) type MakeCollator = Box<dyn Fn(bool) -> Box<dyn Collator>>;

/// Loaded plugins in call order.
#[derive(Debug)]
pub(crate) struct Plugins {
    loaded: Vec<Plugin>,
}

impl Plugins {
    /// Loads all plugins of a run; what can be refused is refused here. With `compiler`, an executable of this program
    /// compiles components in a process of its own.
    pub(crate) fn load(run: &Run, compiler: Option<PathBuf>) -> Result<Self> {
        let environment = Environment {
            seed: run.train.seed,
            rank: 0,
            world_size: 1,
            arguments: run.arguments.clone(),
            cache_dir: run.plugin_cache.clone(),
            compiler,
            output_dir: run.output_dir.clone(),
            logging_dir: run.logging_dir.clone(),
            variable: Some(surroundings::variable),
        };
        let load = |plugin: &crate::config::run::Plugin| {
            let mut limits = Limits::default();
            for (key, value) in &plugin.limits {
                limits
                    .set(key, value)
                    .with_context(|| format!("plugin_limit {}.{key}", plugin.name))?;
            }
            let spec = Spec {
                path: plugin.path.clone(),
                name: plugin.name.clone(),
                config: plugin.config.clone(),
                limits,
                grants: Grants::parse(&plugin.grants)
                    .with_context(|| format!("capabilities granted to plugin `{}`", plugin.name))?,
                pinned: plugin.pinned.as_ref().map(|pinned| Pinned {
                    id: pinned.id.clone(),
                    wasm: pinned.wasm.clone(),
                    requests: pinned.requests.clone(),
                    lock: pinned.lock.clone(),
                }),
            };
            plugin::load(&spec, &environment)
        };
        let loaded = run.plugins.iter().map(load).collect::<Result<Vec<_>>>()?;
        let names = |has: &dyn Fn(&Plugin) -> bool| {
            let having = loaded.iter().filter(|plugin| has(plugin));
            having.map(Plugin::name).collect::<Vec<_>>()
        };
        only_one(
            &names(&|plugin| plugin.collators().is_some()),
            ("collator", "--data_collator"),
            run.data.collation.name.is_some(),
        )?;
        only_one(
            &names(&Plugin::provides_loss),
            ("loss", "--label_smoothing_factor"),
            run.train.label_smoothing_factor != 0.0,
        )?;
        Ok(Self { loaded })
    }

    pub(crate) fn metrics(&self) -> Vec<Box<dyn Metric>> {
        self.loaded.iter().flat_map(Plugin::metrics).collect()
    }

    pub(crate) fn logits(&self) -> Vec<Box<dyn LogitsProcessor>> {
        self.loaded.iter().flat_map(Plugin::logits).collect()
    }

    pub(crate) fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        self.loaded.iter().flat_map(Plugin::callbacks).collect()
    }

    /// What makes the collators of loaders, told whether what they load is trained with.
    pub(crate) fn collators(&self) -> Option<MakeCollator> {
        let mut made = self.loaded.iter().filter_map(Plugin::collators);
        let make = made.next()?;
        Some(Box::new(make))
    }

    /// The loss, if a plugin has one, over labels of these names.
    pub(crate) fn loss(&self, label_names: Vec<String>) -> Option<Box<dyn Loss>> {
        let mut losses = self.loaded.iter();
        losses.find_map(|plugin| plugin.loss(label_names.clone()))
    }

    pub(crate) fn set_tokenizer(&self, tokenizer: &Arc<Tokenizer>) {
        for plugin in &self.loaded {
            plugin.set_tokenizer(tokenizer.clone());
        }
    }

    /// Reporters, each on a thread of its own. `resumes`: the run goes on with one that was stopped.
    pub(crate) fn reporters(&self, run: &Run, resumes: bool) -> Result<Vec<Box<dyn Reporter>>> {
        let mut reporters = Vec::new();
        for plugin in &self.loaded {
            let name = plugin.name();
            if run.logging.report_to.includes(name) {
                reporters.extend(plugin.reporters(&delivery(run, name, resumes))?);
            }
        }
        Ok(reporters)
    }

    /// The end of a run that ended well.
    pub(crate) fn close(&self) -> Result<()> {
        self.loaded.iter().try_for_each(Plugin::close)
    }

    /// One line for each plugin, but for those that only report, which say so themselves; `seconds` is what its share is
    /// taken of.
    pub(crate) fn usage_lines(&self, seconds: f64) -> Vec<String> {
        let usages = self
            .loaded
            .iter()
            .map(|plugin| (plugin.usage(), plugin.is_reporter()));
        usages
            .filter(|(usage, reports)| usage.calls > 0 || !reports)
            .map(|(usage, _)| usage_line(&usage, seconds))
            .collect()
    }
}

/// Refuses two plugins for what a run has one of, and a plugin beside the argument that does the same.
fn only_one(names: &[&str], (hook, argument): (&str, &str), is_given: bool) -> Result<()> {
    let message = match names {
        [] => return Ok(()),
        [_] if !is_given => return Ok(()),
        [name] => {
            format!("plugin `{name}` provides the hook `{hook}`, and {argument} is set as well")
        }
        [first, second, ..] => {
            format!("plugins `{first}` and `{second}` both provide the hook `{hook}`")
        }
    };
    let hint = format!("a run has one {hook}: leave one of them out");
    Err(Failure::usage(message).hint(hint).into())
}

/// The plugins of a run for whose reporters records wait.
pub(crate) fn waiting(run: &Run) -> Vec<String> {
    let names = run.plugins.iter().map(|plugin| plugin.name.clone());
    names
        .filter(|name| layout::spool(&run.output_dir, name).exists())
        .collect()
}

/// Delivers these records; one line for each reporter.
pub(crate) fn flush(
    run: &Run,
    waiting: &[String],
    compiler: Option<PathBuf>,
) -> Result<Vec<String>> {
    let mut run = run.clone();
    run.plugins.retain(|plugin| waiting.contains(&plugin.name));
    let mut lines = Vec::new();
    for plugin in &Plugins::load(&run, compiler)?.loaded {
        let name = plugin.name();
        let destination = plugin.destination()?;
        let destination =
            destination.with_context(|| format!("plugin `{name}` has no reporter"))?;
        let delivered = report::flush(&delivery(&run, name, true), destination)?;
        lines.push(format!("report {name}: {delivered} records delivered"));
    }
    Ok(lines)
}

/// Where the records for a reporter are kept, and how long it may hold up the end of a run.
fn delivery(run: &Run, name: &str, resumes: bool) -> report::Settings {
    report::Settings {
        name: name.to_owned(),
        spool: layout::spool(&run.output_dir, name),
        tokens: run.output_dir.join(layout::REPORTS),
        finish_time: FINISH_TIME,
        resumes,
    }
}

fn usage_line(usage: &Usage, seconds: f64) -> String {
    let share = if seconds > 0.0 {
        let share = 100.0 * usage.total.as_secs_f64() / seconds;
        format!(", {share:.2} % of the time")
    } else {
        String::new()
    };
    format!("plugin {}: {usage}{share}", usage.name)
}

//! The plugins of a run: loaded in order, handed to the trainer as the same boxes as built-ins, and their cost at the end.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::callback::Callback;
use crate::config::run::Run;
use crate::config::surroundings;
use crate::metric::{LogitsProcessor, Metric};
use crate::plugin::{self, Environment, Grants, Limits, Pinned, Plugin, Spec, Usage};

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
        Ok(Self {
            loaded: run.plugins.iter().map(load).collect::<Result<_>>()?,
        })
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

    /// The end of a run that ended well.
    pub(crate) fn close(&self) -> Result<()> {
        self.loaded.iter().try_for_each(Plugin::close)
    }

    /// One line for each plugin; `seconds` is what its share is taken of.
    pub(crate) fn usage_lines(&self, seconds: f64) -> Vec<String> {
        self.loaded
            .iter()
            .map(|plugin| usage_line(&plugin.usage(), seconds))
            .collect()
    }
}

fn usage_line(usage: &Usage, seconds: f64) -> String {
    let total = usage.total.as_secs_f64();
    let share = if seconds > 0.0 {
        format!(" ({:.2} % of the time)", 100.0 * total / seconds)
    } else {
        String::new()
    };
    format!(
        "plugin {}: {} calls, {:.1} ms in all{share}, median {:.1?}, p99 {:.1?}, memory {:.1} MiB, {} reads, {} traps",
        usage.name,
        usage.calls,
        total * 1000.0,
        usage.median,
        usage.p99,
        usage.peak_memory as f64 / f64::from(1 << 20),
        usage.reads,
        usage.traps,
    )
}

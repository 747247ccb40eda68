//! The plugins of a run: loaded before anything else is read, asked for their hooks, closed and counted at the end.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::callback::Callback;
use crate::config::run::Run;
use crate::metric::{LogitsProcessor, Metric};
use crate::plugin::{Bytes, Environment, Limits, Plugin, Spec, Usage, load};

/// The plugins in call order.
#[derive(Debug)]
pub(super) struct Plugins(Vec<Plugin>);

impl Plugins {
    pub(super) fn load(run: &Run) -> Result<Self> {
        let mut plugins = Vec::with_capacity(run.plugins.len());
        if run.plugins.is_empty() {
            return Ok(Self(plugins));
        }
        let environment = Environment {
            seed: run.train.seed,
            rank: 0,
            world_size: 1,
            arguments: run.arguments.clone(),
            cache_dir: run.plugin_cache.clone(),
            compiler: Some(std::env::current_exe().context("finding this program, which compiles plugins")?),
        };
        for plugin in &run.plugins {
            let mut limits = Limits::default();
            for (key, value) in &plugin.limits {
                limits.set(key, value).with_context(|| format!("--plugin_limit {}.{key}", plugin.name))?;
            }
            let (path, name, config) = (plugin.path.clone(), plugin.name.clone(), plugin.config.clone());
            plugins.push(load(&Spec { path, name, config, limits }, &environment)?);
        }
        Ok(Self(plugins))
    }

    pub(super) fn metrics(&self) -> Vec<Box<dyn Metric>> {
        self.0.iter().flat_map(Plugin::metrics).collect()
    }

    pub(super) fn logits(&self) -> Vec<Box<dyn LogitsProcessor>> {
        self.0.iter().flat_map(Plugin::logits).collect()
    }

    pub(super) fn callbacks(&self) -> Vec<Box<dyn Callback>> {
        self.0.iter().flat_map(Plugin::callbacks).collect()
    }

    pub(super) fn close(&self) -> Result<()> {
        self.0.iter().try_for_each(Plugin::close)
    }

    /// One line for each plugin; `seconds` is the time that its share is taken of, 0 if there is none.
    pub(super) fn usage_lines(&self, seconds: f64) -> Vec<String> {
        self.0.iter().map(|plugin| usage_line(&plugin.usage(), seconds)).collect()
    }
}

fn usage_line(usage: &Usage, seconds: f64) -> String {
    let millis = |time: Duration| format!("{:.3} ms", time.as_secs_f64() * 1e3);
    let share = if seconds > 0.0 { format!(" ({:.2} %)", 100.0 * usage.total.as_secs_f64() / seconds) } else { String::new() };
    let mut line = format!(
        "plugin {}: {} calls, {}{share}, median {}, p99 {}, memory {}, {} reads, {} traps",
        usage.name,
        usage.calls,
        millis(usage.total),
        millis(usage.median),
        millis(usage.p99),
        Bytes(usage.peak_memory),
        usage.reads,
        usage.traps,
    );
    for (count, what) in [(usage.restarts, "restarts"), (usage.dropped_lines, "log lines left out")] {
        if count > 0 {
            line += &format!(", {count} {what}");
        }
    }
    line
}

//! Signals of a run: the first asks for a checkpoint and an orderly end, a second ends the process at once. Until the first
//! batch there is nothing to save, and a signal does what it does to any process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// SIGUSR1 is what batch systems send before their time limit.
const SIGNALS: [i32; 4] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1];

/// From now on the first signal sets `interrupted`. Signals that this process was started to ignore stay ignored: `nohup`
/// and shells that put a command into the background ask for that.
pub fn watch(interrupted: &Arc<AtomicBool>) -> Result<()> {
    let ignored = ignored_signals().context("reading which signals are ignored")?;
    let is_ignored = |signal: i32| ignored & (1 << (signal - 1)) != 0;
    for signal in SIGNALS.into_iter().filter(|signal| !is_ignored(*signal)) {
        // In this order: the second signal finds the flag that the first has set.
        flag::register_conditional_shutdown(signal, 128 + signal, interrupted.clone())
            .and_then(|_| flag::register(signal, interrupted.clone()))
            .with_context(|| format!("handling signal {signal}"))?;
    }
    Ok(())
}

/// One bit for each signal, the lowest for signal 1.
fn ignored_signals() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.context("/proc/self/status has no SigIgn")?.trim();
    Ok(u64::from_str_radix(mask, 16)?)
}

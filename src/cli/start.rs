//! From the words of a command to a running engine: resolve the run, fix the environment that libtorch reads before
//! `main`, and become `host-engine`.
//!
//! The run travels as JSON in an anonymous file that the engine inherits, so nothing is written to disk and no argument
//! shows up in the list of processes twice. `exec` makes signals and the exit code the engine's own.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, anyhow};
use clap::{Arg, ArgMatches, value_parser};
use rustix::fs::{MemfdFlags, memfd_create};

use super::output;
use crate::checkpoint::layout;
use crate::config::hub::TOKEN_VARIABLES;
use crate::config::input::{self, Request};
use crate::config::reference;
use crate::config::resolve::{Resolved, resolve};
use crate::config::run::{Command, Run};
use crate::config::surroundings::{Surroundings, openmp_threads};

const ENGINE: &str = "host-engine";
const TELEMETRY: &str = "HF_XET_TELEMETRY_ENABLED";

/// Completes a subcommand whose words are arguments of the table; clap passes them on as they are.
pub(super) fn command(command: Command, clap: clap::Command) -> clap::Command {
    let words = Arg::new("words")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(value_parser!(OsString));
    clap.disable_help_flag(true)
        .override_help(reference::help(command))
        .arg(words)
}

/// Resolves the words of `matches` and starts the engine.
pub(super) fn start(command: Command, matches: &ArgMatches) -> Result<()> {
    let words = matches
        .get_many::<OsString>("words")
        .into_iter()
        .flatten()
        .cloned();
    let input = match input::read(words)? {
        Request::Help => return output::print(&reference::help(command)),
        Request::Run(input) => input,
    };
    let Resolved { run, notes } = resolve(command, &input, &Surroundings::read()?)?;
    for note in notes {
        output::note(&note);
    }
    become_engine(&run, &[])
}

/// Hands `run` to the engine, with further words for it. Returns only if the engine could not be started.
pub(super) fn become_engine(run: &Run, words: &[&str]) -> Result<()> {
    let engine = engine_path()?;
    let file =
        inherited_file(&serde_json::to_vec(run).context("the run cannot be written as JSON")?)?;
    let mut process = process::Command::new(&engine);
    process.arg("--run-fd").arg(file.as_raw_fd().to_string());
    process.args(words);
    // Spinning threads of idle operations take processors from the loader and from other runs.
    for (name, value) in [("OMP_WAIT_POLICY", "PASSIVE"), ("GOMP_SPINCOUNT", "0")] {
        if env::var_os(name).is_none() {
            process.env(name, value);
        }
    }
    if openmp_threads(env::var("OMP_NUM_THREADS").ok().as_deref()) != Some(run.num_threads) {
        process.env("OMP_NUM_THREADS", run.num_threads.to_string());
    }
    if run.train.full_determinism {
        // cuBLAS and CUDA read these when they start; the run's other settings travel with it.
        process.env("CUBLAS_WORKSPACE_CONFIG", ":16:8");
        process.env("CUDA_LAUNCH_BLOCKING", "1");
    }
    if run.hub.is_some() {
        // Read; the engine's children and plugins have no use for it.
        for name in TOKEN_VARIABLES {
            process.env_remove(name);
        }
        // Its large files go through a library that would tell the Hub how fast it was.
        if env::var_os(TELEMETRY).is_none() {
            process.env(TELEMETRY, "false");
        }
    }
    let error = process.exec();
    Err(anyhow!(error).context(format!("the engine {} cannot be started", engine.display())))
}

/// The engine beside this executable.
fn engine_path() -> Result<PathBuf> {
    let this = env::current_exe().context("the path of this program cannot be read")?;
    let engine = this.parent().unwrap_or(Path::new("")).join(ENGINE);
    std::fs::metadata(&engine)
        .with_context(|| format!("the engine {} is missing; it is built and installed together with host, in the same folder", engine.display()))?;
    Ok(engine)
}

/// An anonymous file with `content`, positioned at its start, that survives `exec`.
fn inherited_file(content: &[u8]) -> Result<File> {
    let mut file = File::from(
        memfd_create(layout::RUN, MemfdFlags::empty())
            .context("no anonymous file can be made for the run")?,
    );
    file.write_all(content)
        .and_then(|()| file.rewind())
        .context("the run cannot be handed to the engine")?;
    Ok(file)
}

//! Compiling a component that is not trusted: in a child process with limits on memory and time, because a component can
//! be made to keep a compiler busy, and wasmtime does not count that as a defect.
//!
//! The child is this program, started as `EXECUTABLE --compile-plugin MEMORY SECONDS`. It reads the component from its
//! standard input and writes native code to its standard output.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use super::cache::{Cache, Sealed};
use super::engine;
use super::limits::{Limit, Limits};
use super::text::printable;
use crate::error::Failure;

/// The hidden argument that makes the program a compile child.
pub const COMPILE_ARGUMENT: &str = "--compile-plugin";
/// Native code that is larger than this is refused.
const MAX_CODE: u64 = 1 << 30;
/// How much longer than its processor time a child may take, for a machine that does other things too.
const PATIENCE: u32 = 4;

/// What is to be compiled and how.
#[derive(Debug)]
pub(super) struct Job<'a> {
    /// The plugin's name, for messages.
    pub name: &'a str,
    /// SHA-256 of the component in hexadecimal.
    pub digest: &'a str,
    /// The component.
    pub bytes: &'a [u8],
    /// `compile_memory` and `compile_time` apply.
    pub limits: &'a Limits,
    /// The program that can be started as a compile child; `None`: compile in this process.
    pub compiler: Option<&'a Path>,
    /// Folder of compiled components; `None`: compile each time.
    pub cache: Option<&'a Path>,
}

/// Compiled code, from the cache if it is there.
pub(super) fn compiled(job: &Job<'_>) -> Result<Sealed> {
    let entry = format!(
        "{}-{}",
        job.digest,
        engine::compatibility(engine::engine()?)
    );
    let cache = job.cache.and_then(|folder| match Cache::open(folder) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!("compiled plugins are not kept: {error:#}");
            None
        }
    });
    if let Some(found) = cache.as_ref().and_then(|cache| cache.get(&entry)) {
        return Ok(found);
    }
    let code = match job.compiler {
        Some(program) => in_child(program, job)?,
        None => {
            engine::compile(job.bytes).map_err(|error| refusal(job.name, &format!("{error:#}")))?
        }
    };
    if let Some(Err(error)) = cache.map(|cache| cache.put(&entry, &code)) {
        tracing::warn!("the compiled plugin `{}` is not kept: {error:#}", job.name);
    }
    Sealed::fresh(&entry, code)
}

fn refusal(name: &str, reason: &str) -> Failure {
    Failure::data(format!(
        "plugin `{name}`: cannot be compiled: {}",
        printable(reason, 2048)
    ))
}

fn in_child(program: &Path, job: &Job<'_>) -> Result<Vec<u8>> {
    let Limits {
        compile_memory,
        compile_time,
        ..
    } = job.limits;
    let seconds = compile_time.as_secs().max(1);
    let mut command = Command::new(program);
    command
        .arg(COMPILE_ARGUMENT)
        .arg(compile_memory.to_string())
        .arg(seconds.to_string());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().with_context(|| {
        format!(
            "starting {} to compile plugin `{}`",
            program.display(),
            job.name
        )
    })?;
    let outcome = Exchange::start(child, job.bytes)?.finish(*compile_time * PATIENCE)?;
    if outcome.status.success() {
        return Ok(outcome.code);
    }
    Err(explain(job, &outcome).into())
}

/// A conversation with the child: three pipes that must all move at once.
struct Exchange {
    child: Child,
    code: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    messages: thread::JoinHandle<Vec<u8>>,
}

struct Outcome {
    status: ExitStatus,
    timed_out: bool,
    code: Vec<u8>,
    messages: String,
}

impl Exchange {
    fn start(mut child: Child, component: &[u8]) -> Result<Self> {
        let lost = || anyhow!("a pipe to the compile process is missing");
        let mut input = child.stdin.take().ok_or_else(lost)?;
        let output = child.stdout.take().ok_or_else(lost)?;
        let errors = child.stderr.take().ok_or_else(lost)?;
        let component = component.to_vec();
        // A child that dies early closes the pipe; its exit status says why.
        thread::spawn(move || input.write_all(&component));
        let (sender, code) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let read = output.take(MAX_CODE + 1).read_to_end(&mut bytes);
            sender.send(read.map(|_| bytes))
        });
        let messages = thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = errors.take(64 << 10).read_to_end(&mut bytes);
            bytes
        });
        Ok(Self {
            child,
            code,
            messages,
        })
    }

    fn finish(mut self, patience: Duration) -> Result<Outcome> {
        let received = self.code.recv_timeout(patience);
        let timed_out = received.is_err();
        if timed_out {
            self.child.kill()?;
        }
        let code = received
            .unwrap_or_else(|_| Ok(Vec::new()))
            .context("reading from the compile process")?;
        if code.len() as u64 > MAX_CODE {
            self.child.kill()?;
            bail!(Failure::data(
                "a plugin's compiled code is larger than 1 GiB"
            ));
        }
        let status = self.child.wait()?;
        let messages = self.messages.join().unwrap_or_default();
        Ok(Outcome {
            status,
            timed_out,
            code,
            messages: String::from_utf8_lossy(&messages).into_owned(),
        })
    }
}

fn explain(job: &Job<'_>, outcome: &Outcome) -> Failure {
    let signal = outcome.status.signal();
    let over_time = outcome.timed_out
        || [Signal::XCPU, Signal::KILL]
            .iter()
            .any(|known| signal == Some(known.as_raw()));
    let out_of_memory = signal == Some(Signal::ABORT.as_raw())
        || ["memory allocation", "out of memory"]
            .iter()
            .any(|text| outcome.messages.contains(text));
    let limit = match (over_time, out_of_memory) {
        (true, _) => Limit::CompileTime,
        (_, true) => Limit::CompileMemory,
        _ => {
            let last = outcome
                .messages
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty());
            let status = outcome.status.to_string();
            return refusal(
                job.name,
                last.unwrap_or(&status).trim_start_matches("error: "),
            );
        }
    };
    let (name, key) = (job.name, limit.key());
    let text = format!(
        "plugin `{name}`: compiling it went over the limit `{key}` of {}",
        job.limits.show(limit)
    );
    Failure::data(text).hint(format!(
        "raise it with --plugin_limit {name}.{key}={}",
        job.limits.raised(limit, None)
    ))
}

/// The life of a compile child: a component on standard input, its code for standard output. `arguments` are those after
/// [`COMPILE_ARGUMENT`]; an error is for standard error.
pub fn compile_child(arguments: &[OsString]) -> Result<Vec<u8>> {
    let numbers: Vec<u64> = arguments
        .iter()
        .filter_map(|argument| argument.to_str()?.parse().ok())
        .collect();
    let [memory, seconds] = numbers[..] else {
        bail!(Failure::usage(format!(
            "{COMPILE_ARGUMENT} needs bytes of memory and seconds; it is for internal use"
        )));
    };
    for (resource, limit) in [
        (Resource::Data, memory),
        (Resource::Cpu, seconds),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ] {
        setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        )?;
    }
    let mut component = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut component)
        .context("reading the component")?;
    engine::compile(&component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_child_ended_becomes_one_error() {
        let limits = Limits::default();
        let job = Job {
            name: "acc",
            digest: "",
            bytes: b"",
            limits: &limits,
            compiler: None,
            cache: None,
        };
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        for (status, timed_out, messages, text) in [
            (
                ExitStatus::from_raw(24),
                false,
                "",
                "compiling it went over the limit `compile_time` of 120s",
            ),
            (
                ExitStatus::from_raw(9),
                true,
                "",
                "compiling it went over the limit `compile_time` of 120s",
            ),
            (
                ExitStatus::from_raw(6),
                false,
                "memory allocation of 9 bytes failed",
                "over the limit `compile_memory` of 4 GiB",
            ),
            (
                exited(70),
                false,
                "error: invalid type index\n",
                "plugin `acc`: cannot be compiled: invalid type index",
            ),
            (
                exited(3),
                false,
                "",
                "plugin `acc`: cannot be compiled: exit status: 3",
            ),
        ] {
            let outcome = Outcome {
                status,
                timed_out,
                code: Vec::new(),
                messages: messages.to_owned(),
            };
            let failure = explain(&job, &outcome);
            assert!(failure.message.contains(text), "{}", failure.message);
        }
    }
}

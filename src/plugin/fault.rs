//! What goes wrong in a plugin, in three kinds: an error the guest returns, a trap, a limit. One function turns each into
//! a [`Failure`] that names the plugin, the hook, the call and the remedy.

use std::fmt::Write as _;

use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::trainer::host::types::{Error as GuestError, ErrorKind};
use super::hook::Hook;
use super::limits::{Bytes, Limit, Limits};
use super::text::printable;
use crate::error::{Failure, Kind};

/// Longest text that is taken over from a guest.
const MAX_TEXT: usize = 4096;
/// Innermost frames of a backtrace that are shown.
const MAX_FRAMES: usize = 6;

/// How a host function that a guest called ends when it does not succeed.
#[derive(Debug)]
pub enum HostError {
    /// The guest gets this as its `error` and may go on.
    Guest(GuestError),
    /// The guest is stopped.
    Trap(wasmtime::Error),
}

impl HostError {
    /// This batch or file cannot be used: a wrong shape, type or index.
    pub(super) fn data(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Data, message)
    }

    /// Needs a capability that the plugin does not ask for.
    pub(super) fn not_requested(capability: &str) -> Self {
        Self::denied(format!(
            "needs the capability `{capability}`, which the plugin's manifest does not request"
        ))
    }

    /// Needs a grant.
    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Denied, message)
    }

    /// This host cannot do it.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Unsupported, message)
    }

    /// A budget is used up.
    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Limit, message)
    }

    /// A handle from an earlier call.
    pub(super) fn stale(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Stale, message)
    }

    fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Guest(GuestError {
            kind,
            message: message.into(),
        })
    }
}

impl From<tch::TchError> for HostError {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends a C++ backtrace after the first line.
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        Self::data(line.trim_start_matches("Internal torch error: ").to_owned())
    }
}

impl From<wasmtime::Error> for HostError {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

impl From<wasmtime::component::ResourceTableError> for HostError {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Self::Trap(error.into())
    }
}

/// A limit that was reached in a call, noted where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub limit: Limit,
    /// What would have been needed, in words.
    pub wanted: String,
    /// The same as a number, where it is known.
    pub at_least: Option<u64>,
}

impl Violation {
    /// A budget of bytes.
    pub(super) fn bytes(limit: Limit, wanted: u64) -> Self {
        Self {
            limit,
            wanted: Bytes(wanted).to_string(),
            at_least: Some(wanted),
        }
    }

    /// A number of things.
    pub(super) fn count(limit: Limit, wanted: u64) -> Self {
        Self {
            limit,
            wanted: wanted.to_string(),
            at_least: Some(wanted),
        }
    }
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Cause {
    /// The guest returned an error.
    Guest(GuestError),
    /// The guest was stopped, or the boundary refused what it handed over.
    Trap(wasmtime::Error),
    /// The result came, but cannot be used.
    Result(String),
    /// The result came, but is over a limit.
    Limit(Violation),
}

/// A failed call and what is known of it.
#[derive(Debug)]
pub(super) struct Fault<'a> {
    /// The plugin's name in the run.
    pub plugin: &'a str,
    /// The hook that was called.
    pub hook: Hook,
    /// The how-manyeth call of that hook.
    pub call: u64,
    /// The plugin's limits.
    pub limits: &'a Limits,
    /// The first limit that was reached during the call.
    pub violation: Option<Violation>,
    /// The end of what the guest wrote to its standard output and error.
    pub output: String,
}

impl Fault<'_> {
    /// The one error of a failed call.
    pub(super) fn explain(self, cause: Cause) -> Failure {
        let Self {
            plugin, hook, call, ..
        } = &self;
        let subject = format!("plugin `{plugin}`: {hook}, call {call}");
        match cause {
            Cause::Guest(error) => {
                let text = format!(
                    "{subject}: {} ({})",
                    printable(&error.message, MAX_TEXT),
                    kind_name(error.kind)
                );
                let violation = self
                    .violation
                    .clone()
                    .filter(|_| error.kind == ErrorKind::Limit);
                self.with_limit(text, violation)
            }
            Cause::Result(text) => Failure::new(Kind::Plugin, format!("{subject}: {text}")),
            Cause::Limit(violation) => self.with_limit(subject, Some(violation)),
            Cause::Trap(error) => {
                let violation = self
                    .violation
                    .clone()
                    .or_else(|| limit_of(hook.time_limit(), &error));
                let text = match (&violation, error.downcast_ref::<Trap>()) {
                    (Some(_), _) => subject,
                    (None, Some(Trap::StackOverflow)) => {
                        format!("{subject}: the guest's stack is used up: endless recursion?")
                    }
                    (None, _) => format!("{subject}: {}", trap_text(&error)),
                };
                let mut failure = self.with_limit(text, violation);
                failure.message += &self.trail(&error);
                failure
            }
        }
    }

    /// What the guest wrote last, and where it was: a panic's message arrives there.
    fn trail(&self, error: &wasmtime::Error) -> String {
        let mut trail = String::new();
        // What the guest's own runtime says about itself is no help here.
        let is_said = |line: &&str| !line.starts_with("note: run with `RUST_BACKTRACE=1`");
        let said: Vec<&str> = self.output.trim().lines().filter(is_said).collect();
        let output = printable(&said.join("\n"), 2 * MAX_TEXT);
        if !output.is_empty() {
            let _ = write!(trail, "; it wrote: {output}");
        }
        if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
            let frames = frames(&backtrace.to_string());
            if !frames.is_empty() {
                let _ = write!(trail, "; in {}", frames.join(" < "));
            }
        }
        trail
    }

    fn with_limit(&self, text: String, violation: Option<Violation>) -> Failure {
        let Some(Violation {
            limit,
            wanted,
            at_least,
        }) = violation
        else {
            return Failure::new(Kind::Plugin, text);
        };
        let (key, value) = (limit.key(), self.limits.show(limit));
        let text = format!("{text}: over the limit `{key}` of {value} (needs {wanted})");
        let raised = self.limits.raised(limit, at_least);
        Failure::new(Kind::Plugin, text).hint(format!(
            "raise it with --plugin_limit {}.{key}={raised}",
            self.plugin
        ))
    }
}

/// The limit behind a trap that wasmtime raises by itself.
fn limit_of(time: Limit, error: &wasmtime::Error) -> Option<Violation> {
    if error.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
        return Some(Violation {
            limit: time,
            wanted: "more time".to_owned(),
            at_least: None,
        });
    }
    // wasmtime's error for this is a private type; its text is checked by the hostile guest `huge-list`.
    let transfer = error
        .chain()
        .any(|cause| cause.to_string().contains("fuel allocated for hostcalls"));
    transfer.then(|| Violation {
        limit: Limit::Transfer,
        wanted: "more".to_owned(),
        at_least: None,
    })
}

fn trap_text(error: &wasmtime::Error) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("the plugin ended itself with exit status {}", exit.0);
    }
    if error.downcast_ref::<Trap>() == Some(&Trap::UnreachableCodeReached) {
        return "trap: the guest panicked or aborted".to_owned();
    }
    let root = error.root_cause().to_string();
    printable(root.lines().next().unwrap_or_default(), MAX_TEXT)
}

/// The innermost functions of a backtrace that are not of the language's runtime. wasmtime demangles names only in its own
/// rendering: `  0:  0x1a2 - module!name`.
fn frames(backtrace: &str) -> Vec<String> {
    const RUNTIME: [&str; 7] = [
        "<wasm function",
        "std",
        "core::",
        "alloc::",
        "__rust",
        "rust_",
        "abort",
    ];
    let names = backtrace
        .lines()
        .filter_map(|line| line.split_once(" - ")?.1.split_once('!'));
    let names = names.map(|(_, name)| without_hashes(name));
    let own = names.filter(|name| !RUNTIME.iter().any(|prefix| name.starts_with(prefix)));
    own.take(MAX_FRAMES)
        .map(|name| printable(&name, 120))
        .collect()
}

/// `a[0123]::b::h0123456789abcdef` is `a::b` to a reader.
fn without_hashes(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        match after.split_once(']') {
            Some((hash, after)) if hash.chars().all(|c| c.is_ascii_hexdigit()) => rest = after,
            _ => {
                plain.push('[');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    match plain.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => plain,
    }
}

fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Config => "config",
        ErrorKind::Data => "data",
        ErrorKind::Denied => "denied",
        ErrorKind::Limit => "limit",
        ErrorKind::Stale => "stale",
        ErrorKind::Transient => "transient",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Fatal => "fatal",
        ErrorKind::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(limits: &Limits) -> Fault<'_> {
        Fault {
            plugin: "acc",
            hook: Hook::MetricsUpdate,
            call: 3,
            limits,
            violation: None,
            output: String::new(),
        }
    }

    #[test]
    fn a_guest_error_keeps_its_text_and_kind() {
        let limits = Limits::default();
        let cause = Cause::Guest(GuestError {
            kind: ErrorKind::Data,
            message: "no output\nnamed \u{1b}[31mlogits".to_owned(),
        });
        let failure = fault(&limits).explain(cause);
        assert_eq!(
            failure.message,
            "plugin `acc`: metrics.update, call 3: no output | named \\u{1b}[31mlogits (data)"
        );
        assert_eq!((failure.kind, failure.hint), (Kind::Plugin, None));
    }

    #[test]
    fn a_timeout_names_the_limit_its_value_and_how_to_raise_it() {
        let limits = Limits::default();
        let failure = fault(&limits).explain(Cause::Trap(Trap::Interrupt.into()));
        assert_eq!(
            failure.message,
            "plugin `acc`: metrics.update, call 3: over the limit `time` of 5s (needs more time)"
        );
        assert_eq!(
            failure.hint.as_deref(),
            Some("raise it with --plugin_limit acc.time=10s")
        );
    }

    #[test]
    fn a_noted_limit_explains_the_trap_that_follows() {
        let limits = Limits::default();
        let mut fault = fault(&limits);
        fault.violation = Some(Violation::bytes(Limit::Memory, 300 << 20));
        fault.output = "memory allocation of 314572800 bytes failed\n".to_owned();
        let failure = fault.explain(Cause::Trap(Trap::UnreachableCodeReached.into()));
        assert_eq!(
            failure.message,
            "plugin `acc`: metrics.update, call 3: over the limit `memory` of 256 MiB (needs 300 MiB); \
             it wrote: memory allocation of 314572800 bytes failed"
        );
    }

    #[test]
    fn a_backtrace_names_the_guests_own_functions() {
        let backtrace = "error while executing at wasm backtrace:\n    0:   0x5a2 - hostile.wasm!abort\n    1:   0x6 - \
            m!std[d123b7a1a2ed1472]::process::abort\n    2:   0x7 - m!hostile::attacks::dig::h894cc21c92da405d\n    3:   \
            0x8 - m!<wasm function 9>\n    4:   0x9 - m!hostile[ab12]::update::<[u8; 4]>";
        assert_eq!(
            frames(backtrace),
            ["hostile::attacks::dig", "hostile::update::<[u8; 4]>"]
        );
    }
}

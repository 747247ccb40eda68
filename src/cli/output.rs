//! The only place that prints. Results go to stdout, everything about the run to stderr.
//!
//! Whatever comes from outside may hold control characters; they are shown as escapes, so that no file or plugin can
//! write to the terminal.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::process::ExitCode;
use std::sync::Once;

use anyhow::{Context, Result};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::error::{Kind, hints_of, kind_of, told, without_frames};

const DEFECT: &str =
    "hint: this is a defect of the program; please report it with the command that led to it\n";

/// Prints `text` as it is to stdout. A reader that went away, as `head` does, is no failure.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(escaped(text).as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("stdout cannot be written to"),
    }
}

/// Hands bytes to the process that reads stdout.
pub fn hand_over(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .context("stdout cannot be written to")
}

/// Whether somebody watches stderr.
pub fn has_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Prints one line about the run as it goes on.
pub fn status(line: &str) {
    complain(&format!("{line}\n"));
}

/// Prints one remark about the run.
pub fn note(text: &str) {
    complain(&format!("note: {text}\n"));
}

/// Prints an error with its causes and remedies, and gives the exit code that belongs to it.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let kind = kind_of(error);
    let mut text = format!("error: {}\n", told(error));
    for hint in hints_of(error) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    if kind == Kind::Internal {
        text.push_str(DEFECT);
    }
    complain(&text);
    ExitCode::from(kind as u8)
}

/// Prints what is known of a panic, as an error: a defect must not look like one of the user's. Only the first is told;
/// those that follow from it would hide it.
pub fn panicked(info: &PanicHookInfo<'_>) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        let place = info.location().map(ToString::to_string);
        let text = info.payload_as_str().unwrap_or("no message");
        complain(&format!(
            "error: the program panicked at {}: {}\n{DEFECT}",
            place.as_deref().unwrap_or("an unknown place"),
            without_frames(text)
        ));
    });
}

/// Sends the log of the run to stderr from the level with this Hugging Face name on; `passive` is `warning`.
pub fn log_to_stderr(level: &str) {
    let level = match level {
        "detail" | "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "error" | "critical" => LevelFilter::ERROR,
        _ => LevelFilter::WARN,
    };
    // What they say of each attempt is said once, in words, by those who use them.
    let quiet = ["hf_hub", "xet", "xet_client", "xet_data", "xet_runtime"];
    let targets = Targets::new()
        .with_default(level)
        .with_targets(quiet.map(|target| (target, LevelFilter::OFF)));
    let layer = tracing_subscriber::fmt::layer()
        .event_format(Plain)
        .with_writer(|| Escaping);
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(targets));
    // Fails only if there is a log already, which then stays.
    let _ = subscriber.try_init();
}

/// `level: message`, as errors are printed.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        write!(writer, "{level}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Standard error with control characters escaped.
struct Escaping;

impl Write for Escaping {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        complain(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to stderr; if even that fails there is nobody left to tell.
fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(escaped(text).as_bytes());
}

/// `text` with control characters other than line ends as escapes.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let is_harmful = |character: char| character.is_control() && character != '\n';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            result.extend(character.escape_default())
        } else {
            result.push(character)
        }
    }
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("plain\nlines", "plain\nlines"),
            ("a\u{1b}[2Jb\r", "a\\u{1b}[2Jb\\r"),
            ("\u{9b}x", "\\u{9b}x"),
            ("ä\t", "ä\\t"),
        ] {
            assert_eq!(escaped(text), expected, "{text:?}");
        }
    }
}

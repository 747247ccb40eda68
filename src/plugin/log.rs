//! The log interface: a guest's lines go to the program's log under its name, made safe for a terminal, and no more of
//! them than its limits allow.

use std::time::{Duration, Instant};

use super::bindings::trainer::host::log;
use super::bindings::trainer::host::types::Level;
use super::limits::Limits;
use super::state::State;
use super::text::printable;

/// Bytes of one line that are shown.
const MAX_LINE: usize = 4096;
/// Fields of one line that are shown.
const MAX_FIELDS: usize = 32;
const WINDOW: Duration = Duration::from_secs(60);

/// How much a plugin has logged in the current minute.
#[derive(Debug)]
pub(super) struct Log {
    name: String,
    since: Instant,
    bytes: u64,
    lines: u64,
    max_bytes: u64,
    max_lines: u64,
    dropped: u64,
}

impl Log {
    pub(super) fn new(name: &str, limits: &Limits) -> Self {
        let (max_bytes, max_lines) = (limits.log_bytes, limits.log_lines);
        Self {
            name: name.to_owned(),
            since: Instant::now(),
            bytes: 0,
            lines: 0,
            max_bytes,
            max_lines,
            dropped: 0,
        }
    }

    /// Lines left out so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// One line, unless the minute's share is used up. The first one that is left out is announced.
    pub(super) fn line(&mut self, level: Level, text: &str) {
        if !self.admit(text.len().min(MAX_LINE), Instant::now()) {
            return;
        }
        let (plugin, text) = (self.name.as_str(), printable(text, MAX_LINE));
        match level {
            Level::Trace => tracing::trace!("plugin `{plugin}`: {text}"),
            Level::Debug => tracing::debug!("plugin `{plugin}`: {text}"),
            Level::Info => tracing::info!("plugin `{plugin}`: {text}"),
            Level::Warn => tracing::warn!("plugin `{plugin}`: {text}"),
            Level::Error => tracing::error!("plugin `{plugin}`: {text}"),
        }
    }

    fn admit(&mut self, bytes: usize, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.bytes, self.lines) = (now, 0, 0);
        }
        self.bytes += bytes as u64;
        self.lines += 1;
        let admitted = self.bytes <= self.max_bytes && self.lines <= self.max_lines;
        if !admitted {
            if self.dropped == 0 {
                tracing::warn!(
                    "plugin `{}` logs more than {} bytes or {} lines a minute: the rest is left out",
                    self.name,
                    self.max_bytes,
                    self.max_lines
                );
            }
            self.dropped += 1;
        }
        admitted
    }
}

impl log::Host for State {
    fn log(
        &mut self,
        level: Level,
        message: String,
        fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        let mut text = message;
        for (name, value) in fields.iter().take(MAX_FIELDS) {
            text.push(' ');
            text.push_str(name);
            text.push('=');
            text.push_str(value);
        }
        self.log.line(level, &text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_its_share_and_the_next_one_too() {
        let limits = Limits {
            log_bytes: 100,
            log_lines: 3,
            ..Limits::default()
        };
        let mut log = Log::new("chatty", &limits);
        let start = log.since;
        let admitted: Vec<bool> = [10, 10, 10, 10]
            .iter()
            .map(|bytes| log.admit(*bytes, start))
            .collect();
        assert_eq!(admitted, [true, true, true, false]);
        let later = start + WINDOW;
        assert!(log.admit(100, later));
        assert!(!log.admit(1, later));
        assert_eq!(log.dropped(), 2);
    }
}

//! What a plugin may use: the limits, their defaults, how they are written, and how a message says that one was reached.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::error::Failure;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The limits of one plugin. Times are wall-clock; bytes of a call are counted anew for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all linear memories together.
    pub memory: u64,
    /// Elements of all tables together.
    pub tables: u64,
    /// Core instances, memories and tables, each.
    pub instances: u64,
    /// Time of a call that happens at every step.
    pub step_time: Duration,
    /// Time of any other call.
    pub time: Duration,
    /// Time of a call of a reporter, which may wait for a server.
    pub report_time: Duration,
    /// Time of instantiation and `init`.
    pub init_time: Duration,
    /// Tensor handles alive at once.
    pub handles: u64,
    /// Bytes of tensors made by the plugin alive at once.
    pub tensors: u64,
    /// Bytes of tensor elements read in a call.
    pub reads: u64,
    /// Bytes of lists and strings handed to the host by one call across the boundary.
    pub transfer: u64,
    /// Bytes sent and received over HTTP in a call.
    pub network: u64,
    /// Bytes of the state that a plugin puts into a checkpoint.
    pub state: u64,
    /// Names a metric may return.
    pub metrics: u64,
    /// Bytes logged in a minute.
    pub log_bytes: u64,
    /// Lines logged in a minute.
    pub log_lines: u64,
    /// How often a fresh store may replace one that trapped.
    pub restarts: u64,
    /// Memory of the process that compiles the component.
    pub compile_memory: u64,
    /// Processor time of the process that compiles the component.
    pub compile_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 256 * MIB,
            tables: 1_000_000,
            instances: 512,
            step_time: Duration::from_secs(1),
            time: Duration::from_secs(5),
            report_time: Duration::from_secs(30),
            init_time: Duration::from_secs(10),
            handles: 1024,
            tensors: 256 * MIB,
            reads: 16 * MIB,
            transfer: 16 * MIB,
            network: 16 * MIB,
            state: MIB,
            metrics: 1000,
            log_bytes: 64 * KIB,
            log_lines: 1024,
            restarts: 0,
            compile_memory: 4 * GIB,
            compile_time: Duration::from_secs(120),
        }
    }
}

/// One limit, for messages and for `--plugin_limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of `Limits`")]
pub enum Limit {
    Memory,
    Tables,
    Instances,
    StepTime,
    Time,
    ReportTime,
    InitTime,
    Handles,
    Tensors,
    Reads,
    Transfer,
    Network,
    State,
    Metrics,
    LogBytes,
    LogLines,
    Restarts,
    CompileMemory,
    CompileTime,
}

impl Limit {
    /// All of them, in the order of the documentation.
    pub const ALL: [Limit; 19] = [
        Limit::Memory,
        Limit::Tables,
        Limit::Instances,
        Limit::StepTime,
        Limit::Time,
        Limit::ReportTime,
        Limit::InitTime,
        Limit::Handles,
        Limit::Tensors,
        Limit::Reads,
        Limit::Transfer,
        Limit::Network,
        Limit::State,
        Limit::Metrics,
        Limit::LogBytes,
        Limit::LogLines,
        Limit::Restarts,
        Limit::CompileMemory,
        Limit::CompileTime,
    ];

    /// The name a user writes.
    pub fn key(self) -> &'static str {
        match self {
            Limit::Memory => "memory",
            Limit::Tables => "tables",
            Limit::Instances => "instances",
            Limit::StepTime => "step_time",
            Limit::Time => "time",
            Limit::ReportTime => "report_time",
            Limit::InitTime => "init_time",
            Limit::Handles => "handles",
            Limit::Tensors => "tensors",
            Limit::Reads => "reads",
            Limit::Transfer => "transfer",
            Limit::Network => "network",
            Limit::State => "state",
            Limit::Metrics => "metrics",
            Limit::LogBytes => "log_bytes",
            Limit::LogLines => "log_lines",
            Limit::Restarts => "restarts",
            Limit::CompileMemory => "compile_memory",
            Limit::CompileTime => "compile_time",
        }
    }
}

impl Limits {
    /// Sets one limit as a user writes it: `memory=512MiB`, `time=30s`, `handles=4096`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(limit) = Limit::ALL.into_iter().find(|limit| limit.key() == key) else {
            let nearest = nearest(key, Limit::ALL.iter().map(|limit| limit.key()));
            let known = Limit::ALL.map(Limit::key).join(", ");
            let hint = nearest.map_or_else(
                || format!("known limits: {known}"),
                |name| format!("did you mean `{name}`?"),
            );
            return Err(Failure::usage(format!("unknown plugin limit `{key}`"))
                .hint(hint)
                .into());
        };
        match self.field(limit) {
            Field::Bytes(field) => *field = parse_bytes(value)?,
            Field::Time(field) => *field = parse_time(value)?,
            Field::Count(field) => *field = parse_count(value)?,
        }
        Ok(())
    }

    /// The value of a limit as a message shows it.
    pub fn show(&self, limit: Limit) -> String {
        match self.clone().field(limit) {
            Field::Bytes(bytes) => Bytes(*bytes).to_string(),
            Field::Time(time) => format!("{time:?}"),
            Field::Count(count) => count.to_string(),
        }
    }

    /// Twice the value, or more if that is known to be too little, as a user would write it: what a hint proposes.
    pub fn raised(&self, limit: Limit, at_least: Option<u64>) -> String {
        let at_least = at_least.unwrap_or(1);
        match self.clone().field(limit) {
            Field::Bytes(bytes) => {
                let mut raised = bytes.saturating_mul(2).max(1);
                while raised < at_least {
                    raised = raised.saturating_mul(2);
                }
                Bytes(raised).to_string().replace(' ', "")
            }
            Field::Time(time) => format!("{:?}", *time * 2),
            Field::Count(count) => (*count * 2).max(at_least).to_string(),
        }
    }

    fn field(&mut self, limit: Limit) -> Field<'_> {
        match limit {
            Limit::Memory => Field::Bytes(&mut self.memory),
            Limit::Tables => Field::Count(&mut self.tables),
            Limit::Instances => Field::Count(&mut self.instances),
            Limit::StepTime => Field::Time(&mut self.step_time),
            Limit::Time => Field::Time(&mut self.time),
            Limit::ReportTime => Field::Time(&mut self.report_time),
            Limit::InitTime => Field::Time(&mut self.init_time),
            Limit::Handles => Field::Count(&mut self.handles),
            Limit::Tensors => Field::Bytes(&mut self.tensors),
            Limit::Reads => Field::Bytes(&mut self.reads),
            Limit::Transfer => Field::Bytes(&mut self.transfer),
            Limit::Network => Field::Bytes(&mut self.network),
            Limit::State => Field::Bytes(&mut self.state),
            Limit::Metrics => Field::Count(&mut self.metrics),
            Limit::LogBytes => Field::Bytes(&mut self.log_bytes),
            Limit::LogLines => Field::Count(&mut self.log_lines),
            Limit::Restarts => Field::Count(&mut self.restarts),
            Limit::CompileMemory => Field::Bytes(&mut self.compile_memory),
            Limit::CompileTime => Field::Time(&mut self.compile_time),
        }
    }
}

enum Field<'a> {
    Bytes(&'a mut u64),
    Time(&'a mut Duration),
    Count(&'a mut u64),
}

/// A number of bytes that prints in the largest unit that keeps it readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..KIB => return write!(formatter, "{} B", self.0),
            KIB..MIB => (KIB, "KiB"),
            MIB..GIB => (MIB, "MiB"),
            _ => (GIB, "GiB"),
        };
        if self.0.is_multiple_of(unit) {
            write!(formatter, "{} {name}", self.0 / unit)
        } else {
            write!(formatter, "{:.1} {name}", self.0 as f64 / unit as f64)
        }
    }
}

/// The known name closest to what was written, if it is close at all.
pub(super) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let scored = known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(written, name), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len().max(written.len()) / 3 + 1).then_some(name)
}

/// `64MiB`, `1.5GiB`, `4096`.
pub(super) fn parse_bytes(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        unit => bail!(Failure::usage(format!(
            "`{unit}` is not a unit of bytes; use B, KiB, MiB or GiB"
        ))),
    };
    match text[..digits].parse::<f64>() {
        Ok(number) if number * (factor as f64) < (1_u64 << 53) as f64 => {
            Ok((number * factor as f64) as u64)
        }
        _ => bail!(Failure::usage(format!(
            "`{text}` is not a number of bytes such as 64MiB"
        ))),
    }
}

fn parse_time(text: &str) -> Result<Duration> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "min" => 60.0,
        unit => bail!(Failure::usage(format!(
            "`{unit}` is not a unit of time; use ms, s or min"
        ))),
    };
    let seconds = text[..digits].parse::<f64>().map(|number| number * factor);
    match seconds.map(Duration::try_from_secs_f64) {
        Ok(Ok(time)) if !time.is_zero() && time < Duration::from_secs(1 << 32) => Ok(time),
        _ => bail!(Failure::usage(format!(
            "`{text}` is not a time such as 250ms or 5s"
        ))),
    }
}

fn parse_count(text: &str) -> Result<u64> {
    match text.trim().replace('_', "").parse::<u32>() {
        Ok(count) => Ok(u64::from(count)),
        Err(_) => bail!(Failure::usage(format!("`{text}` is not a whole number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_set_by_its_key_and_shown() {
        for limit in Limit::ALL {
            let mut limits = Limits::default();
            let before = limits.show(limit);
            let raised = limits.raised(limit, None);
            limits
                .set(limit.key(), &raised)
                .expect("what a hint proposes can be written");
            assert_ne!(limits.show(limit), before, "{limit:?}");
            assert_eq!(limits.show(limit).replace(' ', ""), raised, "{limit:?}");
        }
    }

    #[test]
    fn a_hint_proposes_what_is_needed() {
        let limits = Limits::default();
        for (limit, at_least, raised) in [
            (Limit::Memory, None, "512MiB"),
            (Limit::Memory, Some(4 * GIB), "4GiB"),
            (Limit::Memory, Some(4 * GIB + 1), "8GiB"),
        ] {
            assert_eq!(limits.raised(limit, at_least), raised, "{at_least:?}");
        }
    }

    #[test]
    fn values_are_read_with_their_units() {
        for (text, bytes) in [
            ("64MiB", 64 * MIB),
            ("1.5 GiB", 3 * GIB / 2),
            ("12", 12),
            ("7B", 7),
            ("2KiB", 2 * KIB),
        ] {
            assert_eq!(parse_bytes(text).expect(text), bytes);
        }
        for (text, millis) in [("250ms", 250), ("1.5s", 1500), ("2min", 120_000)] {
            assert_eq!(parse_time(text).expect(text), Duration::from_millis(millis));
        }
        for (key, value) in [
            ("memory", "64MB"),
            ("memory", "-1"),
            ("time", "5"),
            ("time", "0s"),
            ("handles", "many"),
            ("memery", "1"),
        ] {
            assert!(Limits::default().set(key, value).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn a_mistyped_key_is_answered_with_the_nearest() {
        let error = Limits::default()
            .set("memroy", "1GiB")
            .expect_err("no such limit");
        assert_eq!(crate::error::hints_of(&error), ["did you mean `memory`?"]);
    }
}

//! Failures that decide the exit code of the program.
//!
//! Everything else is an `anyhow` chain; a [`Failure`] in the chain says which row of the exit code table applies and
//! what the user can do. The table is part of the documentation and tested (`tests/cli/exit_codes.rs`).

use std::fmt;

/// What kind of end a run came to; the discriminant is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Arguments or the configuration file are wrong or contradict each other.
    Usage = 2,
    /// A power was needed that the user has not granted (a capability, `--trust_model_code`, a trusted signature, a login).
    Policy = 64,
    /// A data, model, checkpoint, plugin or lock file, or what a registry sent, is missing its promised content.
    Data = 65,
    /// A plugin failed while it ran (error, trap, limit).
    Plugin = 69,
    /// A defect of this program.
    Internal = 70,
    /// Reading or writing failed (disk full, no permission, locked folder, a registry that cannot be reached).
    Io = 74,
    /// Stopped by a signal. In training a checkpoint was committed first; the run can be resumed.
    Stopped = 75,
    /// Another process of a distributed run failed; the run can be resumed.
    Peer = 76,
    /// Stopped because the loss or a gradient was not finite and `--on_nonfinite stop` asked for it, or a number inside the
    /// model and `--debug underflow_overflow` did.
    Numeric = 77,
}

impl Kind {
    /// One word, as plugins are told it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Policy => "policy",
            Kind::Data => "data",
            Kind::Plugin => "plugin",
            Kind::Internal => "internal",
            Kind::Io => "io",
            Kind::Stopped => "stopped",
            Kind::Peer => "peer",
            Kind::Numeric => "numeric",
        }
    }
}

/// A failure with a kind and, if there is one, a remedy.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What was wrong and where: lower case, no full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// Wrong arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A file does not hold what it should.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::Data, message)
    }

    /// Adds the remedy that is printed as `hint:`.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An error with its causes as one text: what is shown of it. libtorch appends where in C++ it was raised; that is left out.
pub fn told(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| without_frames(&cause.to_string()).to_owned())
        .collect();
    causes.join(": ")
}

/// The text of a C++ exception without the frames that follow it.
pub fn without_frames(text: &str) -> &str {
    // Also as `Debug` shows them.
    let marks = [
        "\nException raised from ",
        "\nframe #0: ",
        r"\nException raised from ",
        r"\nframe #0: ",
    ];
    let end = marks.iter().filter_map(|mark| text.find(mark)).min();
    text[..end.unwrap_or(text.len())].trim_end()
}

/// The kind of an error chain: the outermost [`Failure`] decides, then an I/O error, else it is a defect.
pub fn kind_of(error: &anyhow::Error) -> Kind {
    if let Some(failure) = failures(error).first() {
        return failure.kind;
    }
    if error.chain().any(|cause| cause.is::<std::io::Error>()) {
        Kind::Io
    } else {
        Kind::Internal
    }
}

/// The hints of an error chain, outermost first.
pub fn hints_of(error: &anyhow::Error) -> Vec<&str> {
    failures(error)
        .into_iter()
        .filter_map(|failure| failure.hint.as_deref())
        .collect()
}

/// The outermost failure and those that are causes. A failure attached with `context` is hidden from `chain`, but not
/// from `anyhow`'s own downcast, which finds the outermost one.
fn failures(error: &anyhow::Error) -> Vec<&Failure> {
    let mut failures: Vec<&Failure> = error.downcast_ref().into_iter().collect();
    for cause in error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<Failure>())
    {
        if !failures.iter().any(|known| std::ptr::eq(*known, cause)) {
            failures.push(cause);
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::{told, without_frames};

    #[test]
    fn frames_of_libtorch_are_left_out_wherever_they_are() {
        let raised = "sizes differ\nException raised from add at x.cpp:1 (most recent call first):\nframe #0: f\n";
        let enforced = "not enough memory\nframe #0: f\nframe #1: g";
        for (text, expected) in [
            (raised, "sizes differ"),
            (enforced, "not enough memory"),
            (
                r#"Torch("sizes differ\nframe #0: f")"#,
                r#"Torch("sizes differ"#,
            ),
            ("two\nlines", "two\nlines"),
            ("", ""),
        ] {
            assert_eq!(without_frames(text), expected, "{text}");
        }
        let error = anyhow::anyhow!(raised).context(enforced).context("outside");
        assert_eq!(told(&error), "outside: not enough memory: sizes differ");
    }
}

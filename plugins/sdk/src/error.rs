//! Errors: a kind that the host understands and a sentence for its user.

use std::fmt;

use crate::hooks::host::types;

pub use types::ErrorKind;

/// The result of everything that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// An error that goes to the host, or comes from it.
#[derive(Clone, Debug)]
pub struct Error {
    /// What the host may do about it.
    pub kind: ErrorKind,
    /// What was wrong: lower case, no full stop.
    pub message: String,
}

impl Error {
    pub(crate) fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// This batch or file cannot be used.
    pub fn data(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Data, message)
    }

    /// A configuration value cannot be used.
    pub fn config(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Config, message)
    }

    /// It may work when it is tried again.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Transient, message)
    }

    /// Nothing more can be done.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::of(ErrorKind::Fatal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
        }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message,
        }
    }
}

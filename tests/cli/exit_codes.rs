//! The exit codes, which scripts rely on.

use std::io;

use anyhow::{Context, anyhow};
use host::error::{Failure, Kind, hints_of, kind_of};

#[test]
fn codes_are_fixed() {
    let codes = [
        (Kind::Usage, 2),
        (Kind::Policy, 64),
        (Kind::Data, 65),
        (Kind::Plugin, 69),
        (Kind::Internal, 70),
        (Kind::Io, 74),
        (Kind::Stopped, 75),
        (Kind::Peer, 76),
        (Kind::Numeric, 77),
    ];
    for (kind, code) in codes {
        assert_eq!(kind as u8, code, "{kind:?}");
    }
}

#[test]
fn the_outermost_failure_decides_then_input_and_output() {
    let io = || anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound)).context("a file");
    let cases = [
        (anyhow!("a defect"), Kind::Internal),
        (io(), Kind::Io),
        (io().context(Failure::data("a row")), Kind::Data),
        (
            anyhow::Error::from(Failure::data("a row"))
                .context("a file")
                .context(Failure::usage("an argument")),
            Kind::Usage,
        ),
        (
            anyhow::Error::from(Failure::data("a row"))
                .context(io::Error::from(io::ErrorKind::Other)),
            Kind::Data,
        ),
    ];
    for (error, kind) in cases {
        assert_eq!(kind_of(&error), kind, "{error:#}");
    }
}

#[test]
fn hints_come_outermost_first() {
    let inner: Result<(), _> = Err(Failure::data("a row").hint("look at it"));
    let error = inner
        .context(Failure::usage("an argument").hint("leave it out"))
        .expect_err("a failure");
    assert_eq!(hints_of(&error), ["leave it out", "look at it"]);
}

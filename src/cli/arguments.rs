//! `host args`: the argument table.

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::output;
use crate::config::{proof, reference};
use crate::error::Failure;

pub(super) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .help(help)
            .action(ArgAction::SetTrue)
    };
    Command::new("args")
        .about("List every argument: name, type, default, honoured or refused and why")
        .arg(
            flag("json", "As JSON, with help, allowed values and other names")
                .conflicts_with("markdown"),
        )
        .arg(flag("markdown", "As the README's table"))
        .arg(
            flag("check", "Only say whether every argument does what it says, has a test, or is refused for good reason")
                .conflicts_with_all(["json", "markdown"]),
        )
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    if matches.get_flag("check") {
        check()
    } else if matches.get_flag("json") {
        output::print(&format!("{:#}\n", reference::json()))
    } else if matches.get_flag("markdown") {
        output::print(&reference::markdown())
    } else {
        output::print(&reference::table())
    }
}

fn check() -> Result<()> {
    let gaps = proof::gaps();
    if gaps.is_empty() {
        return output::print("every argument has its state and its test\n");
    }
    Err(Failure::usage(gaps.join("\n  ")).into())
}

//! `host plugin`: everything about plugins but running them. It finds, checks, allows, publishes and looks; nothing
//! here asks questions, so that every command can stand in a script.

mod add;
mod credentials;
mod difference;
mod fetch;
mod find;
mod inspect;
mod lock;
mod place;
mod publish;
mod sign;
mod update;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::Value;

use super::output;
use place::Place;

/// A verb.
struct Verb {
    command: fn() -> Command,
    run: fn(&ArgMatches, &Place) -> Result<Report>,
}

/// What a verb has to say, for readers and for scripts.
struct Report {
    text: String,
    value: Value,
}

const VERBS: &[Verb] = &[
    Verb {
        command: inspect::inspect_command,
        run: inspect::inspect,
    },
    Verb {
        command: inspect::diff_command,
        run: inspect::diff,
    },
    Verb {
        command: add::command,
        run: add::run,
    },
    Verb {
        command: update::command,
        run: update::run,
    },
    Verb {
        command: lock::remove_command,
        run: lock::remove,
    },
    Verb {
        command: lock::list_command,
        run: lock::list,
    },
    Verb {
        command: lock::grant_command,
        run: lock::grant,
    },
    Verb {
        command: lock::revoke_command,
        run: lock::revoke,
    },
    Verb {
        command: lock::lock_command,
        run: lock::lock,
    },
    Verb {
        command: lock::vendor_command,
        run: lock::vendor,
    },
    Verb {
        command: find::search_command,
        run: find::search,
    },
    Verb {
        command: find::show_command,
        run: find::show,
    },
    Verb {
        command: find::audit_command,
        run: find::audit,
    },
    Verb {
        command: publish::push_command,
        run: publish::push,
    },
    Verb {
        command: publish::pull_command,
        run: publish::pull,
    },
    Verb {
        command: sign::keygen_command,
        run: sign::keygen,
    },
    Verb {
        command: sign::sign_command,
        run: sign::sign,
    },
    Verb {
        command: sign::verify_command,
        run: sign::verify,
    },
    Verb {
        command: credentials::login_command,
        run: credentials::login,
    },
    Verb {
        command: credentials::logout_command,
        run: credentials::logout,
    },
];

pub(super) fn command() -> Command {
    let flags = [
        flag("json", "Print the result as JSON"),
        flag("offline", "Use no network: only what is in the store"),
        flag(
            "plain-http",
            "Use HTTP without TLS; without it only for this machine",
        ),
        flag(
            "global",
            "Use the user's own plugins.lock instead of the current folder's",
        ),
    ];
    Command::new("plugin")
        .about("Find, check, allow and publish plugins")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(flags.map(|flag| flag.global(true)))
        .arg(
            Arg::new("lock-file")
                .long("lock-file")
                .value_name("FILE")
                .global(true)
                .value_parser(value_parser!(PathBuf))
                .help("Use this lock file"),
        )
        .subcommands(VERBS.iter().map(|verb| (verb.command)()))
}

pub(super) fn run(matches: &ArgMatches) -> Result<()> {
    let (name, matches) = matches
        .subcommand()
        .context("clap accepted a line without a command")?;
    let mut verbs = VERBS.iter();
    let verb = verbs
        .find(|verb| (verb.command)().get_name() == name)
        .context("clap accepted an unknown command")?;
    output::log_to_stderr("warning");
    let place = Place::of(matches)?;
    let report = (verb.run)(matches, &place)?;
    if place.json {
        let text = serde_json::to_string_pretty(&report.value).context("a result as JSON")?;
        return output::print(&format!("{text}\n"));
    }
    output::print(&report.text)
}

/// A word that must be there.
fn positional(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .value_name(name.to_uppercase())
        .required(true)
        .help(help)
}

/// A file that must be named.
fn file(name: &'static str, help: &'static str) -> Arg {
    positional(name, help).value_parser(value_parser!(PathBuf))
}

/// `--name`, which is there or not.
fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

/// `--grant`, as several verbs have it.
fn grant_option(help: &'static str) -> Arg {
    Arg::new("grant")
        .long("grant")
        .value_name("KIND-OR-TEXT,...")
        .value_delimiter(',')
        .action(ArgAction::Append)
        .help(help)
}

/// `--key`, the public key that must have signed something.
fn key_option(help: &'static str) -> Arg {
    Arg::new("key")
        .long("key")
        .value_name("KEY-OR-FILE")
        .help(help)
}

/// `--allow-unsigned`.
fn unsigned_option() -> Arg {
    flag(
        "allow-unsigned",
        "Take it although nobody you trust has signed it; the lock file says so",
    )
}

fn word<'a>(matches: &'a ArgMatches, name: &str) -> Result<&'a str> {
    let word = matches.get_one::<String>(name);
    Ok(word.context("clap accepted a line without a word")?)
}

fn path<'a>(matches: &'a ArgMatches, name: &str) -> Result<&'a PathBuf> {
    matches
        .get_one::<PathBuf>(name)
        .context("clap accepted a line without a file")
}

fn words<'a>(matches: &'a ArgMatches, name: &str) -> Vec<&'a str> {
    let words = matches.get_many::<String>(name).into_iter().flatten();
    words
        .map(|word| word.trim())
        .filter(|word| !word.is_empty())
        .collect()
}

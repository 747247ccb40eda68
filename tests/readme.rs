//! The README's commands: each is one that continuous integration runs (`.ci/readme`), with arguments that exist, on files
//! that the project has; and its table of arguments is the program's own.

use std::fs;
use std::path::Path;

use host::config::parameters::{OPTIMIZERS, SCHEDULES};
use serde_json::Value;

use crate::support::Host;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// The commands of the `sh` blocks, continued lines joined, as words.
fn commands() -> Vec<Vec<String>> {
    let text = readme();
    let blocks = text
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("a block"));
    let joined: String = blocks.map(|block| block.replace("\\\n", " ")).collect();
    joined
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Names of all arguments that can be given, without dashes.
fn known_arguments() -> Vec<String> {
    let host = Host::new();
    let mut command = host.command("args");
    command.arg("--json");
    let table: Value = serde_json::from_str(&host.succeeds(command)).expect("JSON");
    let honoured = table
        .as_array()
        .expect("a list")
        .iter()
        .filter(|field| field["state"] == "honoured");
    honoured
        .map(|field| field["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn commands_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("Makefile");
    let arguments = known_arguments();
    let ours = ["plugin", "plugin_config", "no_plugins"];
    let commands = commands();
    assert!(commands.len() >= 8, "{commands:?}");
    for words in commands {
        let line = words.join(" ");
        match words[0].as_str() {
            "make" => assert!(
                makefile.contains(&format!("\n{}:", words[1])),
                "no such target: {line}"
            ),
            "export" | "head" => {}
            "host" => {
                let flags = words.iter().filter_map(|word| word.strip_prefix("--"));
                for flag in flags {
                    let known = arguments.iter().any(|known| known == flag) || ours.contains(&flag);
                    assert!(known, "no such argument: --{flag} in {line}");
                }
            }
            "cargo" => {
                let example = words.iter().position(|word| word == "--example");
                let name = &words[example.expect("an example is run") + 1];
                assert!(root().join("examples").join(name).is_dir(), "{line}");
            }
            _ => panic!("what is {line}"),
        }
    }
}

/// Files that a command reads are committed, or made by an earlier command or by `make`.
#[test]
fn files_exist() {
    let made = ["demo-output/", ".models/", "plugins/target/"];
    for words in commands() {
        let files = words
            .iter()
            .filter(|word| word.contains('/') && !word.contains('$') && !word.starts_with('-'));
        for file in files {
            let exists =
                root().join(file).exists() || made.iter().any(|folder| file.starts_with(folder));
            assert!(exists, "{file} in {}", words.join(" "));
        }
    }
}

/// Links to files of the project lead somewhere.
#[test]
fn links_lead_somewhere() {
    for rest in readme().split("](").skip(1) {
        let target = rest.split(')').next().expect("a target");
        assert!(
            target.contains("://") || root().join(target).exists(),
            "no {target}"
        );
    }
}

/// Each optimizer and schedule with settings has a row that names them all.
#[test]
fn settings_of_optimizers_and_schedules_are_told() {
    let text = readme();
    let cells = |line: &str| -> Option<(String, String)> {
        let (owner, settings) = line.strip_prefix("| ")?.split_once(" | ")?;
        Some((owner.to_owned(), settings.to_owned()))
    };
    let rows: Vec<_> = text.lines().filter_map(cells).collect();
    for (owner, parameters) in OPTIMIZERS.iter().chain(SCHEDULES) {
        let row = rows
            .iter()
            .find(|(owners, _)| owners.split(", ").any(|name| name == *owner));
        let (_, settings) = row.unwrap_or_else(|| panic!("no row for {owner}"));
        for parameter in *parameters {
            let words = settings.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
            let is_told = words.into_iter().any(|word| word == parameter.name);
            assert!(is_told, "{owner}: {} is not in {settings}", parameter.name);
        }
    }
}

#[test]
fn the_table_of_arguments_is_the_programs() {
    let host = Host::new();
    let mut command = host.command("args");
    command.arg("--markdown");
    let table = host.succeeds(command);
    assert!(
        readme().contains(table.trim()),
        "renew the README's table: host args --markdown"
    );
}

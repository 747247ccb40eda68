//! What the argument table says to people and programs: help of the commands, `host args`, the README's table.

use std::fmt::Write;

use serde_json::{Value, json};

use super::arguments::{Arguments, FIELDS};
use super::field::{Choice, Field, Origin, State};
use super::proof;
use super::run::Command;
use super::setting::Shape;

/// Lines of the README between which its table stands.
pub const MARKERS: (&str, &str) = ("<!-- arguments: begin -->", "<!-- arguments: end -->");

const WIDTH: usize = 100;
const INDENT: usize = 36;

/// `host <command> --help`.
pub fn help(command: Command) -> String {
    let (name, summary) = match command {
        Command::Train => (
            "train",
            "Fine-tunes a model on the rows of --train_file and saves it in --output_dir.",
        ),
        Command::Evaluate => (
            "evaluate",
            "Computes loss and metrics of a model on the rows of --validation_file.",
        ),
        Command::Predict => (
            "predict",
            "Writes a model's predictions for the rows of --test_file as JSON lines.",
        ),
    };
    let mut text = format!(
        "{summary}\n\n\
         Usage: host {name} [CONFIG.toml] [--argument value ...]\n\n\
         CONFIG.toml holds the same arguments, flat at its top level (learning_rate = 3e-5), and [[plugins]] tables\n\
         with path and config; relative paths in it start at its folder. The command line wins over the file.\n\
         Arguments have their Hugging Face names and can be written with dashes too; a bare flag means true,\n\
         --no_<name> turns off a flag that is on by default; lists are separated by spaces.\n"
    );
    let defaults = Arguments::default();
    let mut section = "";
    for field in FIELDS
        .iter()
        .filter(|field| field.facts.state == State::Honoured)
    {
        if field.section != section {
            section = field.section;
            let _ = write!(text, "\n{section}:\n");
        }
        help_entry(&mut text, field, &defaults);
    }
    text.push_str("\nThe remaining arguments of Hugging Face's Trainer are refused when set; `host args` lists all, with the reason.\n");
    text
}

fn help_entry(text: &mut String, field: &Field, defaults: &Arguments) {
    let value = match field.shape {
        Shape::Flag => String::new(),
        Shape::One => format!(" <{}>", field.type_name),
        Shape::Many => format!(" <{}>...", field.type_name.trim_start_matches("list of ")),
    };
    let mut help = field.help().to_owned() + &also(field);
    let choices = available(field.facts.choices);
    if !choices.is_empty() {
        let _ = write!(help, " [{}]", choices.join(", "));
    }
    let default = default(field, defaults);
    if default != "none" && default != "false" {
        let _ = write!(help, " [default: {default}]");
    }
    let head = format!("  --{}{value}", field.name);
    let gap = if head.len() + 2 > INDENT {
        format!("\n{:INDENT$}", "")
    } else {
        " ".repeat(INDENT - head.len())
    };
    let _ = writeln!(text, "{head}{gap}{}", wrapped(&help));
}

/// Words in lines of [`WIDTH`], continued at [`INDENT`].
fn wrapped(help: &str) -> String {
    let mut text = String::new();
    let mut column = INDENT;
    for word in help.split_whitespace() {
        let length = word.chars().count();
        if column > INDENT && column + 1 + length > WIDTH {
            let _ = write!(text, "\n{:INDENT$}", "");
            column = INDENT;
        } else if column > INDENT {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}

/// `host args`.
pub fn table() -> String {
    let defaults = Arguments::default();
    let mut text = String::new();
    let mut section = "";
    for field in FIELDS {
        if field.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = field.section;
            let _ = writeln!(text, "{gap}{section}");
        }
        let _ = writeln!(
            text,
            "  {:<36} {:<13} {:<13} {}{}",
            field.name,
            field.type_name,
            default(field, &defaults),
            state(field),
            also(field).trim_end_matches('.').replace(" Also", "; also")
        );
    }
    text
}

/// `host args --json`.
pub fn json() -> Value {
    let defaults = Arguments::default();
    let entry = |field: &Field| {
        let (origin, number) = match field.facts.origin {
            Origin::Listed(number) => ("transformers", Some(number)),
            Origin::Further => ("transformers", None),
            Origin::Host => ("host", None),
        };
        json!({
            "name": field.name,
            "origin": origin,
            "number": number,
            "type": field.type_name,
            "is_list": field.shape == Shape::Many,
            "default": field.show(&defaults),
            "section": field.section,
            "help": field.help(),
            "aliases": field.facts.aliases,
            "state": state_name(field.facts.state),
            "reason": reason(field.facts.state),
            "test": proof::of(field),
            "choices": field.facts.choices.iter().map(|choice| json!({
                "name": choice.name, "state": state_name(choice.state), "reason": reason(choice.state),
            })).collect::<Vec<_>>(),
        })
    };
    FIELDS.iter().map(entry).collect()
}

/// The README's table, markers included.
pub fn markdown() -> String {
    let defaults = Arguments::default();
    let mut text = format!("{}\n", MARKERS.0);
    let mut section = "";
    for field in FIELDS {
        if field.section != section {
            section = field.section;
            let _ = write!(
                text,
                "\n**{section}**\n\n| argument | type | default | state | meaning |\n| --- | --- | --- | --- | --- |\n"
            );
        }
        let cells = [
            format!("`{}`", field.name),
            field.type_name.to_owned(),
            format!("`{}`", default(field, &defaults)),
            state(field),
            field.help().replace('<', "\\<") + &also(field),
        ];
        let _ = writeln!(
            text,
            "| {} |",
            cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
        );
    }
    let _ = write!(text, "\n{}\n", MARKERS.1);
    text
}

fn default(field: &Field, defaults: &Arguments) -> String {
    match field.show(defaults) {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() => "none".to_owned(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::String(text) => text,
        // Small numbers in scientific form, as in Python.
        Value::Number(number) if number.is_f64() => {
            format!("{:?}", number.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

fn state(field: &Field) -> String {
    let refused: Vec<&str> = field
        .facts
        .choices
        .iter()
        .filter(|choice| choice.state != State::Honoured)
        .map(|choice| choice.name)
        .collect();
    match field.facts.state {
        State::Honoured if refused.is_empty() => "honoured".to_owned(),
        State::Honoured => format!("honoured, except {}", refused.join(", ")),
        State::Deferred(missing) => format!("refused for now: needs {missing}"),
        State::Refused(reason) => format!("refused: {reason}"),
    }
}

/// Other names of an argument, for the end of its help.
fn also(field: &Field) -> String {
    match field.facts.aliases {
        [] => String::new(),
        names => format!(" Also named {}.", names.join(", ")),
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Honoured => "honoured",
        State::Deferred(_) => "deferred",
        State::Refused(_) => "refused",
    }
}

fn reason(state: State) -> Option<String> {
    match state {
        State::Honoured => None,
        State::Deferred(missing) => Some(format!("needs {missing}")),
        State::Refused(reason) => Some(reason.to_owned()),
    }
}

fn available(choices: &[Choice]) -> Vec<&'static str> {
    choices
        .iter()
        .filter(|choice| choice.state == State::Honoured)
        .map(|choice| choice.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lines_keep_to_the_width() {
        for line in help(Command::Train).lines() {
            assert!(line.chars().count() <= WIDTH + 12, "{line}");
        }
    }

    #[test]
    fn every_argument_is_in_every_listing() {
        let (table, markdown, json, help) = (table(), markdown(), json(), help(Command::Train));
        assert_eq!(json.as_array().map(Vec::len), Some(FIELDS.len()));
        for field in FIELDS {
            assert!(
                table.contains(&format!("\n  {} ", field.name)),
                "{}",
                field.name
            );
            assert!(
                markdown.contains(&format!("| `{}` |", field.name)),
                "{}",
                field.name
            );
            assert_eq!(
                help.contains(&format!("  --{}", field.name)),
                field.facts.state == State::Honoured,
                "{}",
                field.name
            );
        }
    }
}

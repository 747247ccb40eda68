//! Row 89: tags and values of the event file.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{logged, reporting, sorted, train};

/// An event, as far as it is looked at.
#[derive(Debug, Default)]
struct Event {
    seconds: f64,
    step: u64,
    version: Option<String>,
    tag: String,
    value: Option<f32>,
    text: Option<String>,
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message of Protocol Buffers.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Bytes(take(&mut message, 8)),
            2 => {
                let length = varint(&mut message) as usize;
                Field::Bytes(take(&mut message, length))
            }
            5 => Field::Bytes(take(&mut message, 4)),
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, field));
    }
    fields
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = message.split_at(length);
    *message = rest;
    taken
}

fn varint(message: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let byte = take(message, 1)[0];
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn event(message: &[u8]) -> Event {
    let mut event = Event::default();
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Bytes(bytes)) => {
                event.seconds = f64::from_le_bytes(bytes.try_into().expect("8 bytes"))
            }
            (2, Field::Number(step)) => event.step = step,
            (3, Field::Bytes(bytes)) => event.version = Some(text(bytes)),
            (5, Field::Bytes(summary)) => {
                for (_, value) in fields(summary) {
                    let Field::Bytes(value) = value else { continue };
                    take_value(value, &mut event);
                }
            }
            _ => {}
        }
    }
    event
}

fn take_value(value: &[u8], event: &mut Event) {
    for (number, field) in fields(value) {
        match (number, field) {
            (1, Field::Bytes(tag)) => event.tag = text(tag),
            (2, Field::Bytes(bytes)) => {
                event.value = Some(f32::from_le_bytes(bytes.try_into().expect("4 bytes")));
            }
            (8, Field::Bytes(tensor)) => {
                let strings =
                    fields(tensor)
                        .into_iter()
                        .filter_map(|(number, field)| match field {
                            Field::Bytes(bytes) if number == 8 => Some(text(bytes)),
                            _ => None,
                        });
                event.text = strings.into_iter().next_back();
            }
            _ => {}
        }
    }
}

/// The events of a file; the frame's lengths are followed, its checksums are checked by the real reader in CI.
fn events(file: &[u8]) -> Vec<Event> {
    let mut rest = file;
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(take(&mut rest, 8).try_into().expect("8 bytes"));
        take(&mut rest, 4);
        events.push(event(take(&mut rest, length as usize)));
        take(&mut rest, 4);
    }
    events
}

#[test]
fn every_logged_value_has_its_tag_and_the_arguments_are_texts() {
    let host = reporting("tensorboard", &json!({}), &["write:logging_dir"]);
    let ended = train(&host, &["--logging_dir", "out/logs"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut files: Vec<_> = fs::read_dir(host.path("out/logs"))
        .expect("a folder")
        .flatten()
        .collect();
    assert_eq!(files.len(), 1);
    let file = files.remove(0);
    let name = file.file_name().to_string_lossy().into_owned();
    assert!(name.starts_with("events.out.tfevents."), "{name}");
    let events = events(&fs::read(file.path()).expect("a file"));
    assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
    assert!(events.iter().all(|event| event.seconds > 1.7e9));

    let texts: BTreeMap<&str, &str> = events
        .iter()
        .filter_map(|event| Some((event.tag.as_str(), event.text.as_deref()?)))
        .collect();
    let json_of = |tag: &str| serde_json::from_str::<Value>(texts[tag]).expect("JSON");
    assert_eq!(json_of("args/text_summary")["run_name"], "a run");
    assert_eq!(json_of("model_config/text_summary")["model_type"], "bert");

    let tag = |name: &str| match name.strip_prefix("eval_") {
        Some(rest) => format!("eval/{rest}"),
        None => format!("train/{name}"),
    };
    let expected: Vec<(u64, String, f32)> = logged(&host)
        .into_iter()
        .map(|(step, name, value)| (step, tag(&name), value as f32))
        .collect();
    let written: Vec<(u64, String, f32)> = events
        .into_iter()
        .filter_map(|event| Some((event.step, event.tag, event.value?)))
        .collect();
    let written = sorted(written);
    assert_eq!(written, sorted(expected));
    let tags: Vec<&str> = written.iter().map(|(_, tag, _)| tag.as_str()).collect();
    for tag in [
        "train/loss",
        "train/learning_rate",
        "train/epoch",
        "eval/loss",
        "eval/runtime",
        "train/train_runtime",
        "train/total_flos",
    ] {
        assert!(tags.contains(&tag), "{tag} is not in {tags:?}");
    }
}

#[test]
fn without_the_folder_nothing_is_trained() {
    let host = reporting("tensorboard", &json!({}), &[]);
    let ended = train(&host, &[]);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(ended.stderr.contains(
        "asks for a capability that is not granted: `write:logging_dir` (writes event files)"
    ));
}

#[test]
fn a_folder_that_holds_the_checkpoints_is_not_given_away() {
    let host = reporting("tensorboard", &json!({}), &["write:logging_dir"]);
    for folder in ["out", "."] {
        let ended = train(&host, &["--logging_dir", folder]);
        assert_eq!(ended.code, Some(64), "{}", ended.stderr);
        let text =
            "plugin `tensorboard`: `write:logging_dir` would give it the whole output folder";
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
}

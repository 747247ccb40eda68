//! `host args`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::Host;

#[test]
fn every_argument_is_listed_with_type_default_and_state() {
    let text = Host::new().run("args").stdout;
    let lines = [
        "  learning_rate                        float         5e-5          honoured\n",
        "  ddp_timeout                          int           1800          refused for now: needs training with several processes\n",
        "  evaluation_strategy                  str           no            honoured; also named eval_strategy\n",
        "  tpu_num_cores                        int           none          refused: libtorch has no TPU device\n",
        "  lr_scheduler_type                    str           linear        honoured\n",
    ];
    for line in lines {
        assert!(text.contains(line), "{line}{text}");
    }
}

#[test]
fn the_listing_is_also_json_and_a_table() {
    let host = Host::new();
    let json: Value = serde_json::from_str(&host.run("args --json").stdout).expect("JSON");
    let listed = json
        .as_array()
        .expect("a list")
        .iter()
        .filter(|entry| entry["number"].is_u64())
        .count();
    assert_eq!(listed, 96);
    let markdown = host.run("args --markdown").stdout;
    assert!(
        markdown.starts_with("<!-- arguments: begin -->\n"),
        "{markdown}"
    );
    assert!(
        markdown.contains("| `seed` | int | `42` | honoured | Seed of all random numbers. |\n"),
        "{markdown}"
    );
}

#[test]
fn two_forms_at_once_are_refused() {
    assert_eq!(Host::new().run("args --json --markdown").code, Some(2));
}

/// The test that an argument names exists and is a test.
#[test]
fn every_argument_names_a_test_that_exists() {
    let host = Host::new();
    let mut command = host.command("args");
    command.arg("--json");
    let table: Value = serde_json::from_str(&host.succeeds(command)).expect("JSON");
    for field in table.as_array().expect("a list") {
        let (name, test) = (&field["name"], field["test"].as_str());
        let test = test.unwrap_or_else(|| panic!("{name} names no test"));
        let (file, function) = test.split_once("::").expect("file::function");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{file}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name}: no {file}"));
        let head = format!("fn {function}() {{");
        assert!(text.contains(&head), "{name}: no test {test}");
    }
}

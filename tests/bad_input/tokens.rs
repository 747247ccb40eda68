//! Words with tags, rows that are tokenized already, and tokenizers.

use std::fs;

use serde_json::{Value, json};

use super::{DATA, EVALUATE, Refusal, TRAIN, USAGE, project, refused, succeeds};

const TAGS: &str = "--task token-classification";

#[test]
fn words_and_tags_must_pair() {
    for (row, error) in [
        (
            r#"{"tokens": ["a", "b"], "tags": [0]}"#,
            "train.jsonl:2: field \"tags\" has 1 labels for the 2 words of \"tokens\"",
        ),
        (
            r#"{"tokens": ["a", null], "tags": [0, 1]}"#,
            "train.jsonl:2: field \"tokens\" is a list with null in it",
        ),
        (
            r#"{"tokens": ["a", "b"], "tags": [0, -5]}"#,
            "train.jsonl:2: field \"tags\" is -5, which is no class of the model",
        ),
        (
            r#"{"tokens": "a b", "tags": [0, 1]}"#,
            "train.jsonl:2: field \"tokens\" is a string; expected a list of strings",
        ),
        (
            r#"{"tokens": ["a"], "tags": 1}"#,
            "train.jsonl:2: field \"tags\" is an integer; expected a list of integers",
        ),
    ] {
        let host = project();
        host.write(
            "train.jsonl",
            &format!("{{\"tokens\": [\"the\", \"soup\"], \"tags\": [0, 1]}}\n{row}\n"),
        );
        refused(&host, &format!("{TRAIN} {TAGS}"), Refusal::new(DATA, error));
    }
    let host = project();
    for (row, error) in [
        (
            r#"{"tokens": "a b", "tags": [0, 1]}"#,
            "train.jsonl:1: field \"tokens\" is a string; expected a list of words",
        ),
        (
            r#"{"tokens": ["a"], "tags": 1}"#,
            "train.jsonl:1: field \"tags\" is an integer; expected a list with a label for each word",
        ),
        (
            r#"{"tokens": [], "tags": []}"#,
            "train.jsonl:1: field \"tokens\" is an empty list",
        ),
        (
            r#"{"tokens": ["a"], "tags": [-100]}"#,
            "the data has no labels: a head needs at least one output",
        ),
    ] {
        host.write("train.jsonl", row);
        refused(&host, &format!("{TRAIN} {TAGS}"), Refusal::new(DATA, error));
    }
}

#[test]
fn a_batch_without_a_label_that_counts_does_no_harm() {
    let host = project();
    let ignored = "{\"tokens\": [\"the\", \"soup\"], \"tags\": [-100, -100]}\n";
    let counted = "{\"tokens\": [\"the\", \"soup\"], \"tags\": [0, 1]}\n";
    // Rows are drawn in another order, so that both kinds of batch come up with batches of one.
    host.write(
        "train.jsonl",
        &format!("{}{}", ignored.repeat(4), counted.repeat(4)),
    );
    host.write("valid.jsonl", &ignored.repeat(4));
    let shown = succeeds(
        &host,
        &format!(
            "{TRAIN} {TAGS} {EVALUATE} --per_device_train_batch_size 1 --max_steps 8 --eval_steps 4"
        ),
    );
    // As the reference, the mean over nothing is no number; it is shown and counted, and no gradient comes of it.
    assert!(shown.contains("eval_loss NaN"), "{shown}");
    assert!(
        shown.contains("steps with a loss or gradient that was not finite: 4"),
        "{shown}"
    );
    let weights =
        host::checkpoint::load::read_tensors(&host.path("out/model.safetensors")).expect("weights");
    for (name, tensor) in weights.tensors {
        assert!(tensor.isfinite().all().int64_value(&[]) == 1, "{name}");
    }
}

#[test]
fn rows_of_tokens_must_be_ones_that_the_model_can_take() {
    let long = format!("{:?}", vec![5; 300]);
    for (ids, error, hint) in [
        (
            "[2, 99999, 3]",
            "field \"input_ids\" has the token id 99999; the model has 180",
            "the tokenizer and the weights",
        ),
        (
            "[2, -1, 3]",
            "field \"input_ids\" has the token id -1; the model has 180",
            "",
        ),
        ("[]", "field \"input_ids\" has no tokens", ""),
        (
            &long,
            "field \"input_ids\" has 300 tokens; the model has 128 positions",
            "set --max_length 128",
        ),
    ] {
        let host = project();
        let row = |ids: &str| format!("{{\"input_ids\": {ids}, \"label\": 1}}\n");
        host.write("train.jsonl", &[row("[2, 3]"), row(ids)].concat());
        refused(
            &host,
            TRAIN,
            Refusal::new(DATA, &format!("train.jsonl:2: {error}")).hint(hint),
        );
    }
    let host = project();
    for (row, error) in [
        (
            r#"{"input_ids": [2.5, 1.0], "label": 1}"#,
            "train.jsonl:1: field \"input_ids\" is no list of integers",
        ),
        (
            r#"{"input_ids": 2, "label": 1}"#,
            "train.jsonl:1: field \"input_ids\" is no list of integers",
        ),
        (
            r#"{"input_ids": [2, 3], "attention_mask": [1], "label": 1}"#,
            "train.jsonl:1: field \"attention_mask\" is a list of 1; expected a list of 2",
        ),
        (
            r#"{"input_ids": [2, 3], "token_type_ids": [0, 9], "label": 1}"#,
            "token type id 9 is out of range: the model has 2",
        ),
        (
            r#"{"input_ids": [2, 3], "position_ids": [0, 900], "label": 1}"#,
            "position 900 is out of range: the model has 128",
        ),
    ] {
        host.write("train.jsonl", row);
        refused(&host, TRAIN, Refusal::new(DATA, error).begun());
    }
}

#[test]
fn a_tokenizer_that_is_absent_or_broken_is_named() {
    let host = project();
    for (content, error) in [
        ("", "tokenizer.json: not a tokenizer: EOF while parsing"),
        (
            "{\"version\": ",
            "tokenizer.json: not a tokenizer: EOF while parsing",
        ),
        (
            "{\"version\": \"1.0\"}",
            "tokenizer.json: not a tokenizer: Model missing",
        ),
        (
            "[]",
            "tokenizer.json: not a tokenizer: invalid type: sequence",
        ),
    ] {
        host.write("model/tokenizer.json", content);
        refused(&host, TRAIN, Refusal::new(DATA, error));
    }
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let host = project();
        host.write(&format!("model/{name}"), "{\n\"a\"");
        refused(
            &host,
            TRAIN,
            Refusal::new(
                DATA,
                &format!("model/{name}: EOF while parsing an object at line 2"),
            ),
        );
    }
    let host = project();
    for name in ["tokenizer.json", "vocab.txt"] {
        fs::remove_file(host.path("model").join(name)).expect("removed");
    }
    refused(
        &host,
        TRAIN,
        Refusal::new(
            DATA,
            "model: no tokenizer: neither tokenizer.json nor vocab.txt is there",
        )
        .hint("put the tokenizer's files beside the model"),
    );
}

#[test]
fn a_vocabulary_larger_than_the_embedding_is_found_before_the_first_step() {
    let host = project();
    let mut tokenizer = host.json("model/tokenizer.json");
    let vocabulary: &mut Value = &mut tokenizer["model"]["vocab"];
    assert!(vocabulary["soup"].is_number(), "a word of the fixture");
    vocabulary["soup"] = json!(5000);
    host.write("model/tokenizer.json", &tokenizer.to_string());
    refused(
        &host,
        TRAIN,
        Refusal::new(
            DATA,
            "train.jsonl:1: field \"input_ids\" has the token id 5000; the model has 180",
        )
        .hint("the tokenizer and the weights must belong to the same model"),
    );
}

#[test]
fn a_length_that_does_not_fit_is_refused() {
    for (length, error) in [
        (
            "129",
            "max_length 129 is more than the model's 128 positions",
        ),
        ("2", "max_length 2 leaves no room beside 3 special tokens"),
        (
            "0",
            "max_length: 0 is too small; give a number of at least 1",
        ),
    ] {
        refused(
            &project(),
            &format!("{TRAIN} --max_length {length}"),
            Refusal::new(USAGE, error),
        );
    }
}

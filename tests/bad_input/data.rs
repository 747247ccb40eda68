//! Data files: missing, empty, malformed, with columns that are absent or of the wrong kind.

use std::fs;

use serde_json::json;

use super::{DATA, EVALUATE, ROWS, Refusal, TRAIN, USAGE, configure, project, refused};

/// A first good row of a file.
const GOOD: &str = "{\"text\": \"the soup\", \"label\": 0}\n";

#[test]
fn a_file_that_holds_no_rows_is_named() {
    for (name, content, error) in [
        ("train.jsonl", &b""[..], "train.jsonl: the file is empty"),
        (
            "train.jsonl",
            b" \n\n \t\n",
            "train.jsonl: the file holds no rows",
        ),
        ("a.csv", b"", "a.csv: the file is empty"),
        ("a.csv", b"text,label\n", "a.csv: the file holds no rows"),
        ("a.parquet", b"", "a.parquet: the file is empty"),
    ] {
        let host = project();
        fs::write(host.path(name), content).expect("a file");
        let line = TRAIN.replace("train.jsonl", name);
        refused(&host, &line, Refusal::new(DATA, error));
    }
    let host = project();
    host.write("valid.jsonl", "");
    refused(
        &host,
        &format!("{TRAIN} {EVALUATE}"),
        Refusal::new(DATA, "valid.jsonl: the file is empty"),
    );
    let missing = "train_file: `other.jsonl` does not exist; check the path";
    refused(
        &host,
        &TRAIN.replace("train.jsonl", "other.jsonl"),
        Refusal::new(USAGE, missing),
    );
    host.write("train.txt", ROWS);
    refused(
        &host,
        &TRAIN.replace("train.jsonl", "train.txt"),
        Refusal::new(USAGE, "train.txt: unknown kind of data file").hint(".jsonl"),
    );
}

#[test]
fn a_malformed_line_is_located() {
    for (line, error) in [
        (
            &b"{\"text\": \"the\", \"label\": }\n"[..],
            "train.jsonl:2: malformed JSON at column 26",
        ),
        (
            b"{\"text\": \"the",
            "train.jsonl:2: malformed JSON at column 13: EOF while parsing a string",
        ),
        (
            b"[1, 2]\n",
            "train.jsonl:2: invalid type: sequence, expected an object",
        ),
        (
            b"{\"text\": \"\xff\xfe\", \"label\": 0}\n",
            "train.jsonl:2: not valid UTF-8 at byte 11",
        ),
        (
            b"{\"text\": \"\\ud800\", \"label\": 0}\n",
            "train.jsonl:2: malformed JSON",
        ),
        (b"\0\0\0\0\n", "train.jsonl:2: malformed JSON at column 1"),
        (
            b"{\"text\": \"a\", \"text\": \"b\", \"label\": 0}\n",
            "train.jsonl:2: field \"text\" appears twice",
        ),
        (
            b"{\"text\": \"a\", \"label\": 1e400}\n",
            "train.jsonl:2: malformed JSON at column 28: number out of range",
        ),
        (
            b"{\"text\": \"a\", \"label\": NaN}\n",
            "train.jsonl:2: malformed JSON at column 24",
        ),
    ] {
        let host = project();
        fs::write(host.path("train.jsonl"), [GOOD.as_bytes(), line].concat()).expect("a file");
        refused(&host, TRAIN, Refusal::new(DATA, error));
    }
    let host = project();
    host.write("train.jsonl", &format!("{GOOD}{}", "[".repeat(100_000)));
    refused(&host, TRAIN, Refusal::new(DATA, "train.jsonl:2: "));
}

#[test]
fn a_malformed_table_is_located() {
    let header = "name the column with --text_column; a CSV file needs a header line";
    for (content, error, hint) in [
        (
            &b"the soup,1\nthe book,0\n"[..],
            "a.csv: no label column (looked for label, ",
            "name it with --label_column",
        ),
        (
            b"body,label\nthe soup,1\n",
            "a.csv: no text column (looked for text, ",
            header,
        ),
        (
            b"text,label\nthe soup,0\nthe book,1,2\n",
            "a.csv:3: 3 fields; expected 2",
            "double quotes",
        ),
        (
            b"text,label\nthe soup\n",
            "a.csv:2: 1 fields; expected 2",
            "double quotes",
        ),
        (
            b"text,label\n\"the soup,0\n",
            "a.csv:2: 1 fields; expected 2",
            "double quotes",
        ),
        (
            b"text,text,label\na,b,0\n",
            "a.csv:1: column \"text\" appears twice",
            "",
        ),
        (
            b"text,label\na,0\nb,\n",
            "a.csv:3: field \"label\" is null or missing",
            "",
        ),
        (
            b"text,label\n\xff\xfe,0\n",
            "a.csv:2: field \"text\" is not valid UTF-8",
            "",
        ),
    ] {
        let host = project();
        fs::write(host.path("a.csv"), content).expect("a file");
        let line = TRAIN.replace("train.jsonl", "a.csv");
        refused(&host, &line, Refusal::new(DATA, error).hint(hint));
    }
}

#[test]
fn a_corrupt_parquet_file_is_named() {
    // A footer length beyond the file, no footer, a footer of nonsense.
    for content in [
        &b"PAR1xxxxxxxxxxxx\xff\xff\xff\x7fPAR1"[..],
        GOOD.as_bytes(),
        b"PAR1xxxxxxxxxxxxxxxx\x08\0\0\0PAR1",
    ] {
        let host = project();
        fs::write(host.path("a.parquet"), content).expect("a file");
        let line = TRAIN.replace("train.jsonl", "a.parquet");
        refused(
            &host,
            &line,
            Refusal::new(DATA, "a.parquet: not a readable Parquet file"),
        );
    }
}

#[test]
fn a_row_that_does_not_fit_is_located() {
    for (row, error) in [
        (
            r#"{"text": "the", "label": "one"}"#,
            "field \"label\" is a string; expected an integer (as in the rows before)",
        ),
        (
            r#"{"text": "the", "label": [1]}"#,
            "field \"label\" is a list of integers; expected an integer",
        ),
        (
            r#"{"text": 3, "label": 1}"#,
            "field \"text\" is an integer; expected a string",
        ),
        (
            r#"{"text": {"a": 1}, "label": 1}"#,
            "field \"text\" is an object",
        ),
        (
            r#"{"text": null, "label": 1}"#,
            "field \"text\" is null or missing; every row needs a text",
        ),
        (r#"{"label": 1}"#, "field \"text\" is null or missing"),
        (
            r#"{"text": "the", "label": null}"#,
            "field \"label\" is null or missing; every row needs a label",
        ),
        (r#"{"text": "the"}"#, "field \"label\" is null or missing"),
        (
            r#"{"text": "the", "label": -1}"#,
            "field \"label\" is -1, which is no class of the model; expected 0 or more",
        ),
        (
            r#"{"text": "the", "label": 1000000000000}"#,
            "field \"label\" is 1000000000000, which is no class of the model; expected 0 to 999999",
        ),
        (
            r#"{"text": "the", "label": 9223372036854775807}"#,
            "field \"label\" is 9223372036854775807, which is no class",
        ),
    ] {
        let host = project();
        host.write("train.jsonl", &format!("{GOOD}{GOOD}{row}\n"));
        refused(
            &host,
            TRAIN,
            Refusal::new(DATA, &format!("train.jsonl:3: {error}")),
        );
    }
}

#[test]
fn a_label_that_the_model_does_not_have_is_located() {
    let labels = json!({"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}});
    for (row, error, hint) in [
        (
            r#"{"text": "the", "label": 2}"#,
            "train.jsonl:1: field \"label\" is 2, which is no class of the model; expected 0 to 1",
            "",
        ),
        (
            r#"{"text": "the", "label": "ugly"}"#,
            "train.jsonl:1: field \"label\" is \"ugly\", which is no class",
            "the classes are bad, good",
        ),
    ] {
        let host = project();
        configure(&host, &labels);
        host.write("train.jsonl", row);
        refused(&host, TRAIN, Refusal::new(DATA, error).hint(hint));
    }
    // The training set decides, evaluation follows.
    let host = project();
    host.write("valid.jsonl", r#"{"text": "the", "label": 7}"#);
    refused(
        &host,
        &format!("{TRAIN} {EVALUATE}"),
        Refusal::new(
            DATA,
            "valid.jsonl:1: field \"label\" is 7, which is no class of the model; expected 0 to 1",
        ),
    );
    host.write(
        "train.jsonl",
        "{\"text\": \"the\", \"label\": [0, 1]}\n{\"text\": \"the\", \"label\": [0, 1, 1]}\n",
    );
    refused(
        &host,
        TRAIN,
        Refusal::new(
            DATA,
            "train.jsonl:2: field \"label\" has 3 values; expected 2",
        )
        .hint("task token-classification"),
    );
    for row in [
        r#"{"text": "the", "label": []}"#,
        r#"{"text": "the", "label": -100}"#,
    ] {
        host.write("train.jsonl", row);
        refused(
            &host,
            TRAIN,
            Refusal::new(
                DATA,
                "the data has no labels: a head needs at least one output",
            ),
        );
    }
}

#[test]
fn columns_that_are_absent_are_named() {
    for (arguments, error, hint) in [
        (
            "--text_column txet",
            "train.jsonl: no column \"txet\" (text_column); its columns are text, label",
            "did you mean \"text\"?",
        ),
        (
            "--label_column lable",
            "train.jsonl: no column \"lable\" (label_column); its columns are text, label",
            "did you mean \"label\"?",
        ),
        (
            "--text_pair_column second",
            "train.jsonl: no column \"second\" (text_pair_column)",
            "",
        ),
    ] {
        refused(
            &project(),
            &format!("{TRAIN} {arguments}"),
            Refusal::new(DATA, error).hint(hint),
        );
    }
    let host = project();
    host.write("valid.jsonl", r#"{"sentence": "the", "label": 1}"#);
    refused(
        &host,
        &format!("{TRAIN} {EVALUATE} --text_column text"),
        Refusal::new(
            DATA,
            "valid.jsonl: no column \"text\" (text_column); its columns are sentence, label",
        ),
    );
    host.write("train.jsonl", r#"{"body": "the", "label": 1}"#);
    refused(
        &host,
        TRAIN,
        Refusal::new(DATA, "train.jsonl: no text column (looked for text, ")
            .hint("name the column with --text_column"),
    );
    host.write("train.jsonl", r#"{"text": "the"}"#);
    refused(
        &host,
        TRAIN,
        Refusal::new(DATA, "train.jsonl: no label column (looked for label, ")
            .hint("name it with --label_column"),
    );
}

#[test]
fn evaluation_and_prediction_check_their_files_too() {
    let host = project();
    host.write("valid.jsonl", "{\"text\": \"the\"}\n{\"text\": null}\n");
    let predict = "predict --model model --test_file valid.jsonl --output_dir out";
    refused(
        &host,
        predict,
        Refusal::new(DATA, "valid.jsonl:2: field \"text\" is null or missing"),
    );
    let evaluate = "evaluate --model model --validation_file valid.jsonl --output_dir out";
    refused(
        &host,
        evaluate,
        Refusal::new(DATA, "valid.jsonl: no label column"),
    );
    host.write("valid.jsonl", "");
    refused(
        &host,
        predict,
        Refusal::new(DATA, "valid.jsonl: the file is empty"),
    );
}

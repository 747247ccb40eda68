//! Files, columns, lengths, order.

use std::fs;

use serde_json::json;

use super::{Bench, close, read};

#[test]
fn the_tokenizer_may_lie_elsewhere() {
    let bench = Bench::new();
    let before = bench.train("").losses();
    fs::create_dir(bench.host.path("words")).expect("a folder");
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
        "special_tokens_map.json",
    ] {
        let (from, to) = (format!("model/{name}"), format!("words/{name}"));
        fs::rename(bench.host.path(&from), bench.host.path(&to)).expect("moved");
    }
    assert!(bench.refused("").contains("tokenizer"));
    assert_eq!(bench.train("--tokenizer_name words").losses(), before);
}

#[test]
fn padding_changes_the_work_and_not_the_loss() {
    let bench = Bench::new();
    let longest = bench.train("");
    let multiple = bench.train("--pad_to_multiple_of 16");
    let whole = bench.train("--pad_to_max_length");
    let most = bench.train("--pad_to_multiple_of 32");
    assert!(longest.flos() < multiple.flos() && multiple.flos() < whole.flos());
    assert_eq!(most.flos(), whole.flos());
    for other in [&multiple, &whole] {
        assert!(close(&longest.losses(), &other.losses()));
    }
    let short = bench.train("--max_length 6");
    assert!(short.flos() < longest.flos());
    assert!(!close(&longest.losses(), &short.losses()));
}

#[test]
fn columns_that_the_model_does_not_take_are_dropped_unless_forbidden() {
    let bench = Bench::new();
    let expected = bench.train("").losses();
    bench.rows("extra.jsonl", |index, mut row| {
        row["extra"] = json!(index);
        row
    });
    assert_eq!(bench.train("--train_file extra.jsonl").losses(), expected);
    let told = bench.refused("--train_file extra.jsonl --no_remove_unused_columns");
    assert!(told.contains("extra"), "{told}");
}

#[test]
fn the_last_incomplete_batch_is_left_out_if_asked() {
    let bench = Bench::new();
    let all = "--max_train_samples 18 --num_train_epochs 1 --max_steps -1";
    let sizes = |arguments: &str| -> Vec<usize> {
        let rows = bench.train(&format!("{all} {arguments}")).rows();
        rows.iter().map(Vec::len).collect()
    };
    assert_eq!(sizes(""), [4, 4, 4, 4, 2]);
    assert_eq!(sizes("--dataloader_drop_last"), [4, 4, 4, 4]);
}

#[test]
fn page_locked_memory_is_of_no_consequence_on_a_cpu() {
    let bench = Bench::new();
    let expected = bench.train("").batches;
    assert_eq!(bench.train("--no_dataloader_pin_memory").batches, expected);
}

/// Row 76 through the program: the longest row comes first, by its own length or a given one.
#[test]
fn rows_are_grouped_by_length() {
    let bench = Bench::new();
    bench.rows("lengths.jsonl", |index, mut row| {
        row["words"] = json!(100 - index);
        row
    });
    let first = |arguments: &str| bench.train(arguments).rows()[0][0];
    let by_text = first("--group_by_length");
    let given = "--train_file lengths.jsonl --group_by_length --length_column_name words";
    assert_eq!(first(given), 0);
    assert_ne!(by_text, 0);
}

#[test]
fn columns_are_found_by_name() {
    let bench = Bench::new();
    let expected = bench.train("").losses();
    bench.rows(
        "named.jsonl",
        |_, row| json!({"body": row["text"], "target": row["label"]}),
    );
    let named = "--train_file named.jsonl --validation_file named.jsonl --text_column body --label_column target";
    assert_eq!(bench.train(named).losses(), expected);
    bench.rows(
        "pairs.jsonl",
        |_, row| json!({"text": row["text"], "text_pair": row["text"], "label": row["label"]}),
    );
    bench.rows(
        "other.jsonl",
        |_, row| json!({"one": row["text"], "two": row["text"], "label": row["label"]}),
    );
    let pairs = bench
        .train("--train_file pairs.jsonl --validation_file pairs.jsonl")
        .losses();
    let named = "--train_file other.jsonl --validation_file other.jsonl --text_column one --text_pair_column two";
    assert_eq!(bench.train(named).losses(), pairs);
    assert!(!close(&pairs, &expected));
}

/// Without its label columns a batch has no loss in evaluation.
#[test]
fn label_names_say_what_labels_are() {
    let bench = Bench::new();
    let results = |arguments: &str| read(&bench.train(arguments).folder.join("eval_results.json"));
    assert!(results("--label_names labels").get("eval_loss").is_some());
    let other = results("--label_names labels weights");
    assert!(other.get("eval_loss").is_none(), "{other}");
}

#[test]
fn the_data_have_a_seed_of_their_own_if_asked() {
    let bench = Bench::new();
    let rows = |arguments: &str| bench.train(arguments).rows();
    let seven = rows("--data_seed 7");
    assert_eq!(rows("--data_seed 7 --seed 3"), seven);
    assert_ne!(rows("--data_seed 8"), seven);
    assert_ne!(rows("--seed 3"), rows("--seed 42"));
}

#[test]
fn parts_of_the_files_can_be_used() {
    let bench = Bench::new();
    let run = bench.train("--max_train_samples 5 --max_eval_samples 3");
    assert!(run.rows().concat().iter().all(|row| *row < 5));
    let results = read(&run.folder.join("all_results.json"));
    assert_eq!(
        (&results["train_samples"], &results["eval_samples"]),
        (&json!(5), &json!(3))
    );
    let run = bench.train("--test_file rows.jsonl --do_predict --max_predict_samples 2");
    let predictions = fs::read_to_string(run.folder.join("predictions.jsonl")).expect("a file");
    assert_eq!(predictions.lines().count(), 2);
}

#[test]
fn parameters_have_the_type_that_was_asked_for() {
    let bench = Bench::new();
    let expected = bench.train("").losses();
    for (dtype, name, is_near) in [
        ("float64", "\"F64\"", true),
        ("bfloat16", "\"BF16\"", false),
    ] {
        let run = bench.train(&format!("--dtype {dtype}"));
        assert_eq!(close(&run.losses(), &expected), is_near, "{dtype}");
        let weights = fs::read(run.folder.join("model.safetensors")).expect("weights");
        let length = u64::from_le_bytes(weights[..8].try_into().expect("8 bytes")) as usize;
        let header = String::from_utf8_lossy(&weights[8..8 + length]).into_owned();
        assert!(header.contains(name), "{dtype}");
    }
}

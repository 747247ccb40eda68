//! `data_collator` and `--task masked-lm` through the program, beside numbers that PyTorch recorded.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{end, read};
use crate::support::{Host, fixture};

/// `host <words>` with a model folder and the toy tokenizer.
fn bert(host: &Host, model: &Path, words: &str) -> Command {
    let mut words = words.split_whitespace();
    let mut command = host.command(words.next().expect("a subcommand"));
    command
        .arg("--model")
        .arg(model)
        .arg("--tokenizer_name")
        .arg(fixture("golden/init_toy"))
        .args("--use_cpu --report_to none --output_dir out".split_whitespace())
        .args(words);
    command
}

fn masked(host: &Host, words: &str) -> Command {
    bert(host, &fixture("masked_lm"), words)
}

/// The first rows of the toy data.
fn toy(host: &Host, count: usize) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/toy.jsonl");
    let text = fs::read_to_string(data).expect("the toy data");
    let rows: Vec<&str> = text.lines().take(count).collect();
    host.write("rows.jsonl", &(rows.join("\n") + "\n"));
}

const RECORDED_RUN: &str = "train --task masked-lm --train_file rows.jsonl --num_train_epochs 2 --per_device_train_batch_size 16 \
                            --learning_rate 1e-3 --logging_steps 1 --record_steps steps.jsonl";

/// `tests/fixtures/make_masked_lm.py`: order, masks, dropout and losses of eight steps.
#[test]
fn masked_language_modeling_trains_as_recorded() {
    let host = Host::new();
    toy(&host, 64);
    host.succeeds(masked(
        &host,
        &format!("{RECORDED_RUN} --save_strategy steps --save_steps 3"),
    ));
    let recorded = read(&fixture("masked_lm/recorded.json"));
    let text = fs::read_to_string(host.path("steps.jsonl")).expect("the record");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let batches: Vec<Value> = lines.filter(|line| line.get("loss").is_some()).collect();
    let steps = recorded["steps"].as_array().expect("steps");
    assert_eq!(batches.len(), steps.len());
    for (batch, step) in batches.iter().zip(steps) {
        assert_eq!(batch["rows"], step["rows"]);
        let loss = |of: &Value| of["loss"].as_f64().expect("a loss");
        assert!((loss(batch) - loss(step)).abs() < 2e-5, "{batch} {step}");
    }
    let saved = host::checkpoint::load::read_tensors(&host.path("out/model.safetensors"));
    let saved = saved.expect("weights").tensors;
    let norms = recorded["norms"].as_object().expect("norms");
    assert_eq!(saved.len(), norms.len(), "tied weights are saved once");
    for (name, tensor) in &saved {
        let (found, expected) = (tensor.norm().double_value(&[]), norms[name].as_f64());
        let expected = expected.expect("a norm");
        assert!(
            (found - expected).abs() <= 2e-5 * expected.max(1.0),
            "{name}: {found} {expected}"
        );
    }
    assert_eq!(
        read(&host.path("out/config.json"))["architectures"][0],
        "BertForMaskedLM"
    );

    // From the middle of the first epoch: the same masks, so the same weights to the last bit.
    let whole = fs::read(host.path("out/model.safetensors")).expect("weights");
    fs::remove_dir_all(host.path("out/checkpoint-6")).expect("a checkpoint");
    host.succeeds(masked(
        &host,
        &format!("{RECORDED_RUN} --save_strategy no --resume_from_checkpoint out/checkpoint-3"),
    ));
    assert!(whole == fs::read(host.path("out/model.safetensors")).expect("weights"));
}

#[test]
fn masks_of_workers_go_on_from_a_checkpoint() {
    let host = Host::new();
    toy(&host, 64);
    let run = format!("{RECORDED_RUN} --dataloader_num_workers 2");
    host.succeeds(masked(
        &host,
        &format!("{run} --save_strategy steps --save_steps 3"),
    ));
    let whole = fs::read(host.path("out/model.safetensors")).expect("weights");
    fs::remove_dir_all(host.path("out/checkpoint-6")).expect("a checkpoint");
    let resumed = format!("{run} --save_strategy no --resume_from_checkpoint out/checkpoint-3");
    host.succeeds(masked(&host, &resumed));
    assert!(whole == fs::read(host.path("out/model.safetensors")).expect("weights"));
}

#[test]
fn a_masked_language_model_is_evaluated_with_loss_and_accuracy() {
    let host = Host::new();
    toy(&host, 40);
    host.succeeds(masked(
        &host,
        "evaluate --task masked-lm --validation_file rows.jsonl --mlm_probability 0.3",
    ));
    let results = read(&host.path("out/eval_results.json"));
    // A random model over 180 tokens: about ln 180 = 5.19.
    let loss = results["eval_loss"].as_f64().expect("a loss");
    assert!((4.9..5.5).contains(&loss), "{loss}");
    assert!(results["eval_accuracy"].is_f64());
}

/// Packed rows give the same loss and accuracy as padded ones: no sequence sees another.
#[test]
fn packing_changes_no_number_of_an_evaluation() {
    let host = Host::new();
    let data = fixture("tokens/validation.jsonl");
    // Its head is new, drawn from the same seed each time.
    let model = fixture("masked_lm");
    let evaluate = |arguments: &str| {
        let words = format!(
            "evaluate --task token-classification --per_device_eval_batch_size 64 --max_length 48 {arguments}"
        );
        let mut command = bert(&host, &model, &words);
        command.arg("--validation_file").arg(&data);
        host.succeeds(command);
        read(&host.path("out/eval_results.json"))
    };
    let (padded, packed) = (evaluate(""), evaluate("--data_collator packing"));
    let loss = |results: &Value| results["eval_loss"].as_f64().expect("a loss");
    assert!(
        (loss(&padded) - loss(&packed)).abs() < 1e-6,
        "{padded} {packed}"
    );
    assert_eq!(padded["eval_accuracy"], packed["eval_accuracy"]);
}

#[test]
fn collators_that_do_not_fit_are_refused() {
    let host = Host::new();
    toy(&host, 4);
    let train = "train --train_file rows.jsonl";
    for (words, expected) in [
        (
            "--data_collator packing",
            "data_collator packing does not go with sequence-classification",
        ),
        (
            "--data_collator language_modeling",
            "data_collator language_modeling does not go with sequence-classification",
        ),
        (
            "--task masked-lm --data_collator padding",
            "data_collator padding does not go with masked-lm",
        ),
        (
            "--task masked-lm --mlm no",
            "mlm is false, but a masked language model guesses hidden tokens",
        ),
        (
            "--mlm_probability 1.5",
            "mlm_probability: 1.5 is out of range",
        ),
        ("--plm_probability 0", "plm_probability: 0 is out of range"),
        ("--max_span_length 0", "max_span_length: 0 is too small"),
        ("--data_collator seq3seq", "did you mean `seq2seq`?"),
    ] {
        let ended = end(masked(&host, &format!("{train} {words}")));
        assert_eq!(ended.code, Some(2), "{words}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{words}: {}", ended.stderr);
    }
    // Row 87: a tokenizer without the token that hides others.
    let folder = host.path("tokenizer");
    fs::create_dir(&folder).expect("a folder");
    for name in ["tokenizer.json", "vocab.txt"] {
        fs::copy(fixture("golden/init_toy").join(name), folder.join(name)).expect("a file");
    }
    host.write(
        "tokenizer/tokenizer_config.json",
        "{\"pad_token\": \"[PAD]\"}",
    );
    let mut command = host.command("train");
    command.arg("--model").arg(fixture("masked_lm")).args(
        "--task masked-lm --tokenizer_name tokenizer --train_file rows.jsonl --output_dir out2 --use_cpu".split_whitespace(),
    );
    let ended = end(command);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("the tokenizer has no mask token, which masked language modeling needs"),
        "{}",
        ended.stderr
    );
}

/// A folder that was saved with the head of a masked language model is evaluated with it, asked for or not.
#[test]
fn what_is_evaluated_has_the_head_that_it_was_saved_with() {
    let loss = |words: &str| {
        let host = Host::new();
        toy(&host, 32);
        let line = format!("evaluate --validation_file rows.jsonl {words}");
        host.succeeds(masked(&host, &line));
        read(&host.path("out/eval_results.json"))["eval_loss"].clone()
    };
    assert_eq!(loss(""), loss("--task masked-lm"));
}

/// What stands hidden in the rows is guessed, and no more is hidden.
#[test]
fn hidden_tokens_are_predicted() {
    let host = Host::new();
    let vocabulary =
        fs::read_to_string(fixture("golden/init_toy/vocab.txt")).expect("the vocabulary");
    let word = vocabulary
        .lines()
        .find(|word| word.len() > 2 && word.chars().all(char::is_alphabetic));
    let word = word.expect("a word");
    let rows = [format!("{word} [MASK] {word} [MASK]"), word.to_owned()];
    let rows = rows.map(|text| serde_json::json!({ "text": text }).to_string() + "\n");
    host.write("rows.jsonl", &rows.concat());
    let predict = |words: &str| {
        let line = format!("predict --test_file rows.jsonl {words}");
        host.succeeds(masked(&host, &line));
        let text = fs::read_to_string(host.path("out/predictions.jsonl")).expect("predictions");
        let rows = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        rows.collect::<Vec<Value>>()
    };
    let found = predict("");
    let tokens = found[0]["tokens"].as_array().expect("tokens");
    assert_eq!(tokens.len(), 2, "{found:?}");
    for token in tokens {
        let token = token.as_str().expect("a token");
        assert!(vocabulary.lines().any(|known| known == token), "{token}");
    }
    for score in found[0]["scores"].as_array().expect("scores") {
        assert!((0.0..=1.0).contains(&score.as_f64().expect("a number")));
    }
    assert_eq!(found[1]["tokens"], serde_json::json!([]));
    assert_eq!(predict("--streaming"), found, "streamed or not");
}

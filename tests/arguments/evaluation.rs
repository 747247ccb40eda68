//! When evaluations happen, what they decide, and that their batches are of no consequence.

use serde_json::json;

use super::{Bench, read};

#[test]
fn evaluations_come_when_asked() {
    let bench = Bench::new();
    let steps = |arguments: &str| {
        let mut steps = bench.train(arguments).steps_with("eval_loss");
        // The last one is that after training.
        steps.pop();
        steps
    };
    assert_eq!(steps("--max_steps 8"), [] as [u64; 0]);
    assert_eq!(steps("--max_steps 8 --evaluation_strategy epoch"), [4, 8]);
    let by_steps = "--max_steps 8 --evaluation_strategy steps";
    assert_eq!(steps(&format!("{by_steps} --eval_steps 3")), [3, 6]);
    assert_eq!(
        steps(&format!("{by_steps} --eval_steps 0.25")),
        [2, 4, 6, 8]
    );
    assert_eq!(steps(&format!("{by_steps} --logging_steps 5")), [5]);
    assert_eq!(
        steps(&format!("{by_steps} --eval_steps 2 --eval_delay 5")),
        [6, 8]
    );
}

#[test]
fn the_batches_of_an_evaluation_are_of_no_consequence() {
    let bench = Bench::new();
    let results = |arguments: &str| {
        let results = read(&bench.train(arguments).folder.join("eval_results.json"));
        let loss = results["eval_loss"].as_f64().expect("a loss");
        (format!("{loss:.5}"), results["eval_accuracy"].clone())
    };
    let expected = results("--per_device_eval_batch_size 6");
    for arguments in [
        "--per_device_eval_batch_size 1",
        "--per_device_eval_batch_size 4 --eval_accumulation_steps 1",
    ] {
        assert_eq!(results(arguments), expected, "{arguments}");
    }
}

/// An improvement that is too small does not count; the best model is the one that is left in the end.
#[test]
fn early_stopping_and_the_best_model() {
    let bench = Bench::new();
    let common = "--max_steps 12 --evaluation_strategy steps --eval_steps 2 --save_strategy steps --save_steps 2 \
                  --load_best_model_at_end --early_stopping_patience 2";
    let run = bench.train(&format!("{common} --early_stopping_threshold 10"));
    assert_eq!(run.state["global_step"], json!(6));
    assert!(
        run.shown
            .contains("early_stopping stopped training at step 6"),
        "{}",
        run.shown
    );
    let run = bench.train(
        "--max_steps 12 --evaluation_strategy steps --eval_steps 2 --save_strategy steps \
                           --save_steps 2 --metric_for_best_model loss --greater_is_better true",
    );
    let (best, losses) = (
        &run.state["best_metric"],
        run.state["log_history"].as_array(),
    );
    let losses = losses
        .expect("a list")
        .iter()
        .filter_map(|entry| entry["eval_loss"].as_f64());
    let most = losses.fold(f64::MIN, f64::max);
    assert_eq!(best.as_f64(), Some(most));
}

/// Row 55: outputs that the configuration names are left out of predictions.
#[test]
fn outputs_to_ignore_are_left_out() {
    let bench = Bench::new();
    let predicted = |ignored: &[&str]| {
        let path = bench.host.path("model/config.json");
        let mut config = read(&path);
        config["keys_to_ignore_at_inference"] = json!(ignored);
        std::fs::write(&path, config.to_string()).expect("a configuration");
        let run = bench
            .train("--max_steps 1 --test_file rows.jsonl --do_predict --max_predict_samples 1");
        let text = std::fs::read_to_string(run.folder.join("predictions.jsonl")).expect("a file");
        serde_json::from_str::<serde_json::Value>(&text).expect("one row")
    };
    assert!(predicted(&["past_key_values"]).get("label").is_some());
    assert_eq!(predicted(&["logits"]), json!({"row": 0}));
}

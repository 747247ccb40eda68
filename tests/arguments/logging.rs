//! What is logged, told and published.

use serde_json::{Value, json};

use super::Bench;

#[test]
fn entries_come_when_asked() {
    let bench = Bench::new();
    let steps = |arguments: &str| {
        bench
            .train(&format!("--max_steps 8 {arguments}"))
            .steps_with("loss")
    };
    assert_eq!(steps(""), [] as [u64; 0]);
    assert_eq!(steps("--logging_steps 3"), [3, 6]);
    assert_eq!(steps("--logging_steps 0.5"), [4, 8]);
    assert_eq!(steps("--logging_steps 3 --logging_first_step"), [1, 3, 6]);
    assert_eq!(steps("--logging_strategy epoch"), [4, 8]);
    assert_eq!(steps("--logging_strategy no"), [] as [u64; 0]);
}

/// Row 21 through the program: what is not finite is left out of the log, unless it is to be seen.
#[test]
fn the_filter_of_the_log() {
    let bench = Bench::new();
    let diverging = "--learning_rate 1e38 --optim sgd --max_grad_norm 0 --logging_steps 1";
    let last = |more: &str| {
        let run = bench.train(&format!("{diverging} {more}"));
        let entries = run.state["log_history"].as_array().expect("a list").clone();
        let mut losses = entries
            .iter()
            .filter_map(|entry| entry.get("loss").cloned());
        losses.next_back().expect("a loss")
    };
    assert!(last("").is_number());
    assert_eq!(last("--no_logging_nan_inf_filter"), json!("NaN"));
}

#[test]
fn names_and_folders_of_a_run_are_published() {
    let bench = Bench::new();
    let run = bench.train("--run_name mine --logging_dir logs --report_to none");
    assert_eq!(run.argument("run_name"), json!("mine"));
    let folder = run.argument("logging_dir");
    assert!(
        folder
            .as_str()
            .is_some_and(|folder| folder.ends_with("logs")),
        "{folder}"
    );
    assert_eq!(run.argument("report_to"), json!([]));
    let run = bench.train("");
    assert_eq!(run.argument("run_name"), run.argument("output_dir"));
    let folder = run.argument("logging_dir");
    assert!(
        folder
            .as_str()
            .is_some_and(|folder| folder.contains("/runs/")),
        "{folder}"
    );
}

#[test]
fn plain_lines_are_what_there_is_without_a_terminal() {
    let bench = Bench::new();
    for arguments in ["--logging_steps 2", "--logging_steps 2 --disable_tqdm true"] {
        let shown = bench.train(arguments).shown;
        assert!(shown.contains("step 2/4"), "{arguments}: {shown}");
        assert!(!shown.contains('\r'), "{arguments}: {shown}");
    }
}

/// There are no other processes and no other machines to be told apart.
#[test]
fn arguments_about_other_processes_change_nothing_in_one() {
    let bench = Bench::new();
    let expected = bench.train("").batches;
    let others = "--log_level_replica error --no_log_on_each_node --save_on_each_node --dispatch_batches true";
    let run = bench.train(others);
    assert_eq!(run.batches, expected);
    assert_eq!(run.argument("save_on_each_node"), Value::Bool(true));
}

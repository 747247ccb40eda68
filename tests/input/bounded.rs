//! Memory of an evaluation: a metrics plugin that streams holds no logits, however many rows there are.

use std::process::Command;

use super::peak_memory;
use crate::plugin::official;
use crate::support::{Host, fixture};

const CLASSES: usize = 30_000;

/// `host evaluate` of a module that makes 30,000 logits of each row.
fn evaluate(host: &Host, rows: usize) -> Command {
    let row = |index: usize| {
        format!(
            "{{\"x\": {index}.0, \"labels\": {}}}\n",
            index * 7 % CLASSES
        )
    };
    let name = format!("{rows}.jsonl");
    host.write(&name, &(0..rows).map(row).collect::<String>());
    let mut command = host.command("evaluate");
    command
        .arg("--model")
        .arg(fixture("torchscript/wide.pt"))
        .arg("--validation_file")
        .arg(name);
    command
        .arg("--plugin")
        .arg(official("classification_metrics"));
    command
        .args("--trust_model_code --use_cpu --report_to none --output_dir out".split_whitespace());
    command
}

/// 32 times the rows are 450 MB more of logits.
#[test]
fn memory_does_not_grow_with_the_rows() {
    let host = Host::new();
    // The first run compiles the plugin.
    peak_memory(evaluate(&host, 8));
    let (few, many) = (
        peak_memory(evaluate(&host, 128)),
        peak_memory(evaluate(&host, 4096)),
    );
    assert!(many < few + (48 << 20), "{few} {many}");
    let results = super::read(&host.path("out/eval_results.json"));
    assert!(results["eval_accuracy"].is_f64(), "{results}");
}

//! Appendix A of the specification: y = ax + b as a TorchScript module, trained on sixty-four points.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Host, fixture};

const TOLERANCE: f64 = 1e-5;

/// Data D: x_i = ((37 i) mod 64)/16 - 2, y_i = 2 x_i + 3 + (.1 if i even else -.1).
pub fn data(rows: usize) -> String {
    (0..rows).fold(String::new(), |mut text, index| {
        let x = ((37 * index) % 64) as f64 / 16.0 - 2.0;
        let noise = if index % 2 == 0 { 0.1 } else { -0.1 };
        let _ = writeln!(
            text,
            "{{\"input_x\": {x:?}, \"label\": {:?}}}",
            (2.0 * x + 3.0 + noise) as f32
        );
        text
    })
}

/// Trains with the defaults of the appendix and `arguments`; the output folder is `out`.
pub fn train(host: &Host, rows: usize, arguments: &str) {
    let file = host.path("data.jsonl");
    fs::write(&file, data(rows)).expect("the data");
    let mut command = host.command("train");
    command
        .arg("--model")
        .arg(fixture("torchscript").join("regression.pt"))
        .arg("--trust_model_code");
    command
        .arg("--train_file")
        .arg(&file)
        .arg("--validation_file")
        .arg(&file)
        .arg("--output_dir")
        .arg(host.path("out"));
    command.args(["--learning_rate", "0.1", "--use_cpu", "--report_to", "none"]);
    command.args(arguments.split_whitespace());
    host.succeeds(command);
}

/// The parameters a and b of a saved module.
pub fn parameters(folder: &Path) -> (f64, f64) {
    let tensors = host::checkpoint::load::read_tensors(&folder.join("model.safetensors"))
        .expect("weights")
        .tensors;
    let value = |name: &str| {
        let found = tensors
            .iter()
            .find(|(key, _)| key == name)
            .unwrap_or_else(|| panic!("no parameter {name}"));
        found
            .1
            .to_kind(tch::Kind::Double)
            .sum(tch::Kind::Double)
            .double_value(&[])
    };
    (value("a"), value("b"))
}

fn assert_close(what: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= TOLERANCE,
        "{what}: {found} instead of {expected}"
    );
}

/// rows, arguments, a, b, train_loss
type Row = (usize, &'static str, f64, f64, Option<f64>);

const ROWS: &[Row] = &[
    (64, "", 1.181_487_6, 1.260_290_0, Some(7.087_268)),
    (
        64,
        "--max_grad_norm 0.5",
        1.181_487_6,
        1.260_290_0,
        Some(7.087_268),
    ),
    (
        64,
        "--num_train_epochs 1",
        0.444_009_5,
        0.451_812_1,
        Some(11.556_572),
    ),
    (
        64,
        "--max_steps 10",
        0.539_652_3,
        0.552_564_4,
        Some(10.737_755),
    ),
    (
        64,
        "--per_device_train_batch_size 10",
        1.042_483_3,
        1.103_057_6,
        Some(7.985_462),
    ),
    (
        64,
        "--evaluation_strategy steps --eval_steps 5",
        1.170_626_9,
        1.260_512_7,
        Some(7.195_850),
    ),
    (
        64,
        "--max_grad_norm 0",
        1.062_099_0,
        1.174_893_3,
        Some(7.431_609),
    ),
    (
        64,
        "--weight_decay 0.1",
        1.114_677_7,
        1.188_175_9,
        Some(7.310_316),
    ),
    (
        64,
        "--optim adafactor",
        1.069_548_1,
        1.207_989_9,
        Some(7.378_588),
    ),
    (64, "--optim sgd", 0.753_682_7, 0.967_179_5, Some(8.730_754)),
    (
        64,
        "--optim sgd --max_grad_norm 0.1",
        0.077_772_5,
        0.095_012_6,
        Some(13.359_378),
    ),
    (
        64,
        "--optim adagrad",
        0.499_616_4,
        0.563_717_8,
        Some(10.073_406),
    ),
    (
        64,
        "--lr_scheduler_type cosine",
        1.182_583_9,
        1.261_087_8,
        Some(6.813_731),
    ),
    (
        64,
        "--lr_scheduler_type cosine --warmup_steps 5",
        1.124_155_9,
        1.211_257_6,
        Some(7.957_969),
    ),
    (
        64,
        "--lr_scheduler_type constant",
        2.099_216_9,
        2.440_384_6,
        Some(5.470_616),
    ),
    (
        64,
        "--lr_scheduler_type polynomial",
        1.181_488_5,
        1.260_291_1,
        Some(7.087_266),
    ),
    (
        20,
        "--per_device_train_batch_size 4 --gradient_accumulation_steps 2",
        0.347_782_0,
        0.349_100_1,
        None,
    ),
    (
        64,
        "--per_device_train_batch_size 16 --gradient_accumulation_steps 5",
        0.199_935_0,
        0.200_039_1,
        None,
    ),
    (
        8,
        "--per_device_train_batch_size 4 --gradient_accumulation_steps 4 --num_train_epochs 2",
        0.149_971_5,
        0.150_019_5,
        None,
    ),
    (128, "", 1.996_733_8, 2.446_159_8, None),
];

/// Row 91 is among them: the step of sgd with a clipped gradient.
#[test]
fn appendix_a() {
    for (rows, arguments, a, b, train_loss) in ROWS {
        let host = Host::new();
        train(&host, *rows, arguments);
        let found = parameters(&host.path("out"));
        assert_close(&format!("a with {arguments:?}"), found.0, *a);
        assert_close(&format!("b with {arguments:?}"), found.1, *b);
        if let Some(expected) = train_loss {
            let results = fs::read_to_string(host.path("out/train_results.json")).expect("results");
            let results: Value = serde_json::from_str(&results).expect("JSON");
            assert_close(
                &format!("train_loss with {arguments:?}"),
                results["train_loss"].as_f64().expect("a loss"),
                *expected,
            );
        }
    }
}

#[test]
fn appendix_a_step_by_step() {
    let host = Host::new();
    train(&host, 64, "--max_steps 8 --save_steps 1 --logging_steps 1");
    let expected = [
        (0.100_000_0, 0.100_000_0),
        (0.187_344_1, 0.187_603_3),
        (0.261_871_5, 0.262_848_3),
        (0.323_285_1, 0.325_745_2),
        (0.372_660_0, 0.375_957_6),
        (0.408_991_4, 0.413_818_4),
        (0.432_176_4, 0.439_211_0),
        (0.444_009_5, 0.451_812_1),
    ];
    let losses = [
        20.8346, 10.9260, 13.3271, 12.0745, 11.2120, 10.1193, 7.1972, 6.7619,
    ];
    let state = fs::read_to_string(host.path("out/trainer_state.json")).expect("the state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    for (index, ((a, b), loss)) in expected.into_iter().zip(losses).enumerate() {
        let found = parameters(&host.path(&format!("out/checkpoint-{}", index + 1)));
        assert_close(&format!("a after step {}", index + 1), found.0, a);
        assert_close(&format!("b after step {}", index + 1), found.1, b);
        assert_eq!(
            state["log_history"][index]["loss"],
            loss,
            "loss of step {}",
            index + 1
        );
    }
}

/// Row 45: exact at epoch boundaries and inside the first epoch; here also inside later epochs (deliberate difference).
#[test]
fn appendix_a_resumed() {
    let whole = Host::new();
    train(&whole, 128, "--save_steps 4");
    let expected = parameters(&whole.path("out"));
    for step in [4, 8, 16, 20, 32, 36] {
        let host = Host::new();
        let checkpoint = whole.path(&format!("out/checkpoint-{step}"));
        train(
            &host,
            128,
            &format!(
                "--save_strategy no --resume_from_checkpoint {}",
                checkpoint.display()
            ),
        );
        assert_eq!(
            parameters(&host.path("out")),
            expected,
            "resumed from step {step}"
        );
    }
}

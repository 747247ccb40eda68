//! Optimizer and schedule: rates to the digit, and what changes the second loss but not the first.

use super::{Bench, close};

#[test]
fn every_setting_of_the_optimizer_is_used() {
    let bench = Bench::new();
    let plain = bench.train("").losses();
    for setting in [
        "--learning_rate 2e-3",
        "--weight_decay 0.5",
        "--adam_epsilon 1e-2",
        "--optim sgd",
    ] {
        let losses = bench.train(setting).losses();
        assert_eq!(losses[0], plain[0], "{setting}");
        assert_ne!(losses[1], plain[1], "{setting}");
    }
    // The first step does not depend on the betas.
    for setting in ["--adam_beta1 0.1", "--adam_beta2 0.5"] {
        let losses = bench.train(setting).losses();
        assert!(close(&losses[..2], &plain[..2]), "{setting}");
        assert_ne!(losses[2..], plain[2..], "{setting}");
    }
}

#[test]
fn rates_follow_the_schedule_and_its_warm_up() {
    let bench = Bench::new();
    for (arguments, expected) in [
        ("", [1.0, 0.75, 0.5, 0.25]),
        ("--lr_scheduler_type constant", [1.0, 1.0, 1.0, 1.0]),
        (
            "--lr_scheduler_type constant_with_warmup --warmup_steps 2",
            [0.0, 0.5, 1.0, 1.0],
        ),
        ("--warmup_ratio 0.25", [0.0, 1.0, 2.0 / 3.0, 1.0 / 3.0]),
        ("--warmup_ratio 0.25 --warmup_steps 2", [0.0, 0.5, 1.0, 0.5]),
    ] {
        let rates: Vec<f64> = bench
            .train(arguments)
            .rates()
            .iter()
            .map(|rate| rate * 1e3)
            .collect();
        assert!(close(&rates, &expected), "{arguments}: {rates:?}");
    }
}

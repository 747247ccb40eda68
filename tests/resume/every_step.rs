//! A run that was stopped at any step ends as the run that was not, bit for bit.

use super::{checkpoints, remains, small_run};
use crate::support::Host;

/// Runs once without a stop, then from each of its checkpoints.
fn check(arguments: &str, steps: &[u64]) {
    let host = Host::new();
    let whole = host.path("whole");
    host.succeeds(small_run(&host, &whole, arguments));
    assert_eq!(checkpoints(&whole), steps, "checkpoints with {arguments:?}");
    let expected = remains(&whole, 15);
    for step in &steps[..steps.len() - 1] {
        let output = host.path(&format!("from-{step}"));
        let mut command = small_run(&host, &output, arguments);
        command
            .arg("--resume_from_checkpoint")
            .arg(whole.join(format!("checkpoint-{step}")));
        host.succeeds(command);
        assert_eq!(
            remains(&output, 15),
            expected,
            "resumed from step {step} with {arguments:?}"
        );
    }
}

#[test]
fn saved_at_every_step() {
    let steps: Vec<u64> = (1..=15).collect();
    check("--save_steps 1", &steps);
}

/// At the end of an epoch a group is incomplete: its gradients are part of the checkpoint.
#[test]
fn saved_at_the_end_of_epochs() {
    // 11 batches in groups of 2: steps 5, 11 (which ends in the second epoch's last batch) and 15.
    check(
        "--save_strategy epoch --logging_strategy epoch",
        &[5, 11, 15],
    );
}

/// The word embeddings have more than 4096 elements, so states of 8 bits are among them.
#[test]
fn with_other_optimizers() {
    for optimizer in [
        "adamw_hf",
        "adamw_anyprecision --optim_args use_kahan_summation=true,variance_dtype=bfloat16",
        "adagrad",
        "rmsprop",
        "lion_32bit",
        "lion_8bit",
        "paged_adamw_32bit",
        "adamw_8bit",
        "muon",
        "schedule_free_adamw --lr_scheduler_type constant --warmup_steps 3",
        "stable_adamw",
    ] {
        check(&format!("--save_steps 5 --optim {optimizer}"), &[5, 10, 15]);
    }
}

#[test]
fn with_schedules_that_have_settings() {
    for schedule in [
        "warmup_stable_decay --lr_scheduler_kwargs num_decay_steps=6,min_lr_ratio=0.1 --warmup_steps 3",
        "reduce_lr_on_plateau --lr_scheduler_kwargs patience=0,factor=0.5,threshold=0.5",
    ] {
        let arguments = format!("--save_steps 5 --lr_scheduler_type {schedule}");
        check(&arguments, &[5, 10, 15]);
    }
}

#[test]
fn sorted_by_length() {
    let steps: Vec<u64> = (1..=15).filter(|step| step % 5 == 0).collect();
    check("--save_steps 5 --group_by_length", &steps);
}

#[test]
fn with_a_private_data_seed() {
    let steps: Vec<u64> = (1..=15).filter(|step| step % 5 == 0).collect();
    check("--save_steps 5 --data_seed 7", &steps);
}

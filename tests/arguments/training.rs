//! The loop.

use super::{Bench, close};

#[test]
fn batches_steps_and_epochs_are_counted_as_asked() {
    let bench = Bench::new();
    let run = bench.train("--per_device_train_batch_size 8 --max_steps 3");
    assert!(run.rows().iter().all(|rows| rows.len() == 8));
    assert_eq!((run.batches.len(), run.updates.len()), (3, 3));
    let run = bench.train("--gradient_accumulation_steps 2 --max_steps 3");
    assert_eq!((run.batches.len(), run.updates.len()), (6, 3));
    let run = bench.train("--num_train_epochs 1.5 --max_steps -1");
    assert_eq!((run.updates.len(), &run.state["epoch"]), (6, &1.5.into()));
}

#[test]
fn the_seed_decides_everything_that_is_drawn() {
    let bench = Bench::new();
    let run = |seed: u64| bench.train(&format!("--seed {seed}")).batches;
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn gradients_are_clipped_to_the_norm() {
    let bench = Bench::new();
    let losses = |norm: &str| {
        bench.train(&format!(
            "--max_grad_norm {norm} --optim sgd --learning_rate 1"
        ))
    };
    let (free, clipped) = (losses("0"), losses("1e-3"));
    assert_eq!(free.losses()[0], clipped.losses()[0]);
    assert_ne!(free.losses()[1], clipped.losses()[1]);
    assert!(
        clipped.updates[0]
            .gradient_norm
            .is_some_and(|norm| norm > 1e-3)
    );
    // Nothing moves by more than the norm allows.
    assert!((clipped.losses()[0] - clipped.losses()[1]).abs() < 0.5);
}

#[test]
fn labels_are_smoothed() {
    let bench = Bench::new();
    let (plain, smooth) = (bench.train(""), bench.train("--label_smoothing_factor 0.5"));
    assert!(!close(&plain.losses()[..1], &smooth.losses()[..1]));
    // With even scores both are log 2.
    assert!((smooth.losses()[0] - 0.693).abs() < 0.05);
}

/// On resuming, the data of the epoch begin again instead of going on.
#[test]
fn data_can_be_begun_anew_on_resuming() {
    let bench = Bench::new();
    let whole = bench.train("--save_strategy steps --save_steps 2");
    let resumed = |more: &str| {
        let arguments = format!(
            "--save_strategy steps --save_steps 2 --resume_from_checkpoint out/checkpoint-2 {more}"
        );
        bench.train(&arguments).rows()
    };
    assert_eq!(resumed(""), whole.rows()[2..]);
    let anew = resumed("--ignore_data_skip");
    assert_eq!(anew.len(), 2);
    assert_ne!(anew, whole.rows()[2..]);
}

/// Steps of another size would make other epochs: the number of all steps must be given then. A batch size that was found to
/// fit is taken up.
#[test]
fn another_batch_size_on_resuming() {
    let bench = Bench::new();
    let common = "--num_train_epochs 2 --save_strategy steps --save_steps 2";
    let whole = bench.train(&format!("{common} --max_steps -1"));
    assert_eq!(whole.batches.len(), 8);
    let resumed = format!("{common} --resume_from_checkpoint out/checkpoint-2");
    let larger = "--per_device_train_batch_size 8";
    let told = bench.refused(&format!("{resumed} --max_steps -1 {larger}"));
    assert!(
        told.contains("give the number of all steps with --max_steps"),
        "{told}"
    );
    let told = bench.refused(&format!(
        "{resumed} --max_steps -1 --gradient_accumulation_steps 2"
    ));
    assert!(
        told.contains("1 batches of 4 rows, and now they are 2 of 4"),
        "{told}"
    );
    // The first 8 of 16 rows have been seen.
    let run = bench.train(&format!("{resumed} --max_steps 3 {larger}"));
    assert_eq!(run.rows(), [whole.rows()[2..4].concat()]);
    let run = bench.train(&format!(
        "{resumed} --max_steps -1 --auto_find_batch_size {larger}"
    ));
    assert_eq!(run.rows(), whole.rows()[2..]);
}

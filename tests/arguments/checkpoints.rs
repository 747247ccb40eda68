//! When checkpoints are written and which are kept.

use super::Bench;
use crate::resume::checkpoints;

#[test]
fn checkpoints_come_when_asked_and_go_beyond_the_limit() {
    let saved = |arguments: &str| {
        let bench = Bench::new();
        checkpoints(&bench.train(&format!("--max_steps 8 {arguments}")).folder)
    };
    assert_eq!(saved(""), [] as [u64; 0]);
    assert_eq!(saved("--save_strategy epoch"), [4, 8]);
    assert_eq!(saved("--save_strategy steps --save_steps 3"), [3, 6]);
    assert_eq!(
        saved("--save_strategy steps --save_steps 0.25"),
        [2, 4, 6, 8]
    );
    assert_eq!(
        saved("--save_strategy steps --save_steps 0"),
        [] as [u64; 0]
    );
    assert_eq!(
        saved("--save_strategy steps --save_steps 2 --save_total_limit 2"),
        [6, 8]
    );
}

#[test]
fn weights_are_safetensors_whatever_is_said() {
    let bench = Bench::new();
    let run = bench.train("--save_safetensors true");
    assert!(run.folder.join("model.safetensors").exists());
    let told = bench.refused("--save_safetensors false");
    assert!(told.contains("save_safetensors"), "{told}");
}

//! SIGKILL at seeded moments, half of them between the first write and the rename of a save; then resume.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Remains, checkpoints, remains, small_run};
use crate::support::Host;

const SAVE_EVERY_STEP: &str = "--save_steps 1 --save_total_limit 3";

/// A small linear congruential generator: moments must be the same on every run of the test.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn staging(output: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(output).ok()?.flatten();
    entries
        .find(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(".checkpoint-")
        })
        .map(|entry| entry.path())
}

fn start(mut command: Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

/// Kills when the `nth` save has `files` files; true if the kill fell inside a save.
fn kill_inside_a_save(command: Command, output: &Path, nth: u64, files: usize) -> bool {
    let mut child = start(command);
    let (mut saves, mut current) = (0, None);
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline && child.try_wait().expect("a status").is_none() {
        let Some(folder) = staging(output) else {
            continue;
        };
        if current.as_ref() != Some(&folder) {
            saves += 1;
            current = Some(folder.clone());
        }
        let written = fs::read_dir(&folder).map(Iterator::count).unwrap_or(0);
        if saves >= nth && written >= files {
            break;
        }
    }
    child.kill().expect("a kill");
    child.wait().expect("an end");
    staging(output).is_some_and(|folder| {
        fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
    })
}

fn kill_after(command: Command, time: Duration) {
    let mut child = start(command);
    std::thread::sleep(time);
    child.kill().expect("a kill");
    child.wait().expect("an end");
}

/// Goes on from the newest complete checkpoint, or begins anew if none was committed.
fn go_on(host: &Host, output: &Path) {
    let newest = checkpoints(output).last().copied();
    let mut command = small_run(host, output, SAVE_EVERY_STEP);
    match newest {
        Some(_) => command.args(["--resume_from_checkpoint", "true"]),
        None => command.arg("--overwrite_output_dir"),
    };
    let shown = host.succeeds(command);
    if let Some(step) = newest {
        assert!(
            shown.contains(&format!("checkpoint-{step}")),
            "resumed from another checkpoint than {step}:\n{shown}"
        );
    }
    assert!(staging(output).is_none(), "leftovers of the killed save");
}

fn uninterrupted(host: &Host) -> Remains {
    let output = host.path("whole");
    host.succeeds(small_run(host, &output, SAVE_EVERY_STEP));
    remains(&output, 15)
}

/// Kills inside saves, until `wanted` of them fell inside.
fn check_inside_saves(seed: u64, kills: u64, wanted: u64) {
    let host = Host::new();
    let expected = uninterrupted(&host);
    let mut seeded = Seeded(seed);
    let mut inside = 0;
    for index in 0..kills {
        let output = host.path(&format!("killed-{index}"));
        let (nth, files) = (1 + seeded.below(14), 1 + seeded.below(8) as usize);
        inside += u64::from(kill_inside_a_save(
            small_run(&host, &output, SAVE_EVERY_STEP),
            &output,
            nth,
            files,
        ));
        go_on(&host, &output);
        assert_eq!(
            remains(&output, 15),
            expected,
            "killed at save {nth} with {files} files written"
        );
    }
    assert!(
        inside >= wanted,
        "only {inside} of {kills} kills fell inside a save"
    );
}

#[test]
fn inside_saves_of_the_first_half() {
    check_inside_saves(1, 15, 11);
}

#[test]
fn inside_saves_of_the_second_half() {
    check_inside_saves(2, 15, 11);
}

#[test]
fn at_any_moment() {
    let host = Host::new();
    let started = Instant::now();
    let expected = uninterrupted(&host);
    let duration = started.elapsed().as_micros() as u64;
    let mut seeded = Seeded(3);
    for index in 0..20 {
        let output = host.path(&format!("killed-{index}"));
        let time = Duration::from_micros(seeded.below(duration));
        kill_after(small_run(&host, &output, SAVE_EVERY_STEP), time);
        go_on(&host, &output);
        assert_eq!(remains(&output, 15), expected, "killed after {time:?}");
    }
}

//! Full disks, small disks, and folders that another run uses.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{checkpoints, small_run};
use crate::support::{Host, Requirement, in_namespaces, requires};

const EXIT_IO: i32 = 74;

/// Runs `command` with a tmpfs of `size` at `output`, then lists what it left there; all in a namespace of its own.
fn with_small_disk(command: &Command, output: &Path, size: &str) -> (Option<i32>, String) {
    std::fs::create_dir_all(output).expect("the mount point");
    let script = "mount -t tmpfs -o size=$2 tmpfs \"$1\" || exit 99; out=$1; shift 2; \"$@\"; code=$?; \
                  echo; echo LEFT: $(ls -A \"$out\"); exit $code";
    let mut shell = in_namespaces(script, &[output.as_ref(), size.as_ref()], command);
    let ended = shell.output().expect("unshare");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&ended.stderr),
        String::from_utf8_lossy(&ended.stdout)
    );
    (ended.status.code(), text)
}

#[test]
fn a_full_disk_does_not_stop_training() {
    if !requires(Requirement::Namespaces) {
        return;
    }
    let host = Host::new();
    let output = host.path("out");
    // One checkpoint of this model takes about 0.5 MB: some fit, not all fifteen.
    let (code, text) = with_small_disk(
        &small_run(&host, &output, "--save_steps 1"),
        &output,
        "2500k",
    );
    assert!(text.contains("was not saved, training goes on"), "{text}");
    let (_, left) = text.split_once("LEFT:").expect("the list of what is left");
    assert!(
        left.contains("checkpoint-1 ") && !left.contains(".checkpoint-"),
        "a partial save stayed: {text}"
    );
    // The final model does not fit either: that is an error, and it says so.
    assert_eq!(code, Some(EXIT_IO), "{text}");
}

/// The tables go to stdout, and somebody may have closed it; files matter more.
#[test]
fn results_are_written_before_they_are_shown() {
    let host = Host::new();
    let output = host.path("out");
    let mut command = small_run(&host, &output, "--max_steps 3");
    let full = fs::File::options().write(true).open("/dev/full");
    command.stdout(full.expect("/dev/full"));
    let ended = command.output().expect("the program starts");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(EXIT_IO), "{text}");
    assert!(text.contains("stdout"), "{text}");
    for name in [
        "trainer_state.json",
        "eval_results.json",
        "curves.svg",
        "model.safetensors",
    ] {
        assert!(output.join(name).exists(), "{name}: {text}");
    }
}

/// A folder with checkpoints of an earlier, longer run: those of the new one are what stays.
#[test]
fn checkpoints_of_an_earlier_run_go_first() {
    let host = Host::new();
    let output = host.path("out");
    host.succeeds(small_run(&host, &output, "--max_steps 6 --save_steps 3"));
    let shorter =
        "--max_steps 4 --save_steps 2 --save_total_limit 1 --seed 7 --overwrite_output_dir";
    host.succeeds(small_run(&host, &output, shorter));
    assert_eq!(checkpoints(&output), [4]);
}

/// What a refused run would have done is no record of the run that was.
#[test]
fn a_refused_run_leaves_the_record_of_the_earlier_one() {
    let host = Host::new();
    let output = host.path("out");
    host.succeeds(small_run(&host, &output, "--max_steps 2 --save_steps 2"));
    let record = fs::read(output.join("run.json")).expect("run.json");
    let mut command = small_run(
        &host,
        &output,
        "--max_steps 4 --optim sgd --resume_from_checkpoint true",
    );
    assert_eq!(command.output().expect("an end").status.code(), Some(65));
    assert_eq!(fs::read(output.join("run.json")).expect("run.json"), record);
}

#[test]
fn a_full_disk_stops_training_if_asked_to() {
    if !requires(Requirement::Namespaces) {
        return;
    }
    let host = Host::new();
    let output = host.path("out");
    let command = small_run(&host, &output, "--save_steps 1 --on_disk_full stop");
    let (code, text) = with_small_disk(&command, &output, "2500k");
    assert_eq!(code, Some(EXIT_IO), "{text}");
    assert!(!text.contains("training goes on"), "{text}");
}

#[test]
fn a_disk_smaller_than_a_checkpoint_is_refused_before_the_first_step() {
    if !requires(Requirement::Namespaces) {
        return;
    }
    let host = Host::new();
    let output = host.path("out");
    let (code, text) = with_small_disk(
        &small_run(&host, &output, "--save_steps 1"),
        &output,
        "128k",
    );
    assert_eq!(code, Some(EXIT_IO), "{text}");
    assert!(text.contains("free") && !text.contains("step 1/"), "{text}");
}

#[test]
fn a_second_run_in_the_same_folder_is_refused() {
    let host = Host::new();
    let output = host.path("out");
    let mut command = small_run(
        &host,
        &output,
        "--num_train_epochs 2000 --save_steps 2 --save_total_limit 2",
    );
    let mut first = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    while checkpoints(&output).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut second = small_run(&host, &output, "--resume_from_checkpoint true");
    let ended = second.output().expect("the program runs");
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(EXIT_IO), "{text}");
    assert!(
        text.contains(&first.id().to_string()),
        "it does not name the process: {text}"
    );
    first.kill().expect("a kill");
    first.wait().expect("an end");
    // The lock of a dead process is taken over.
    host.succeeds(small_run(
        &host,
        &output,
        "--resume_from_checkpoint true --max_steps 4",
    ));
}

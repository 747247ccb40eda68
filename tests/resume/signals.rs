//! SIGTERM, SIGINT, SIGHUP and SIGUSR1: a checkpoint is committed and the run ends as resumable; a second signal ends it
//! at once.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{checkpoints, remains, small_run};
use crate::support::{self, Host, fixture};

const EXIT_STOPPED: i32 = 75;

fn start(mut command: Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    support::wait_for(what, Duration::from_secs(60), condition);
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status();
    assert!(status.expect("kill").success());
}

/// Whether this process, and with it what it starts, ignores a signal: shells start background jobs so.
fn is_ignored(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("the status");
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a number");
    mask & (1 << (number - 1)) != 0
}

/// What a run has left in its output folder.
fn left(output: &Path) -> Vec<std::ffi::OsString> {
    let entries = fs::read_dir(output).expect("the folder").flatten();
    let names = entries.map(|entry| entry.file_name());
    names.filter(|name| name != ".lock").collect()
}

/// A run that takes its time: the small run over many epochs.
fn long_run(host: &Host, output: &Path) -> Command {
    small_run(
        host,
        output,
        "--num_train_epochs 2000 --save_steps 2 --save_total_limit 2",
    )
}

#[test]
fn the_first_signal_commits_a_checkpoint() {
    for (number, name) in [(15, "TERM"), (2, "INT"), (1, "HUP"), (10, "USR1")] {
        if is_ignored(number) {
            continue;
        }
        let host = Host::new();
        let output = host.path("out");
        let child = start(long_run(&host, &output));
        wait_for("a checkpoint", || !checkpoints(&output).is_empty());
        signal(&child, name);
        let ended = child.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(EXIT_STOPPED), "SIG{name}: {text}");
        let newest = *checkpoints(&output).last().expect("a checkpoint");
        assert!(
            text.contains(&format!("checkpoint-{newest}")),
            "SIG{name}: {text}"
        );
        let state =
            fs::read_to_string(output.join(format!("checkpoint-{newest}/trainer_state.json")))
                .expect("the state");
        assert!(
            state.contains(&format!("\"global_step\": {newest}")),
            "SIG{name}: {state}"
        );
    }
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_been() {
    let host = Host::new();
    let (whole, output) = (host.path("whole"), host.path("out"));
    let arguments = "--num_train_epochs 12 --save_steps 60";
    host.succeeds(small_run(&host, &whole, arguments));
    let child = start(small_run(&host, &output, arguments));
    wait_for("the output folder", || output.join(".lock").exists());
    std::thread::sleep(Duration::from_millis(700));
    signal(&child, "TERM");
    let ended = child.wait_with_output().expect("an end");
    // Fast machines may have finished; then there is nothing to resume and nothing to compare but the result.
    if ended.status.code() == Some(EXIT_STOPPED) {
        let mut command = small_run(&host, &output, arguments);
        command.args(["--resume_from_checkpoint", "true"]);
        host.succeeds(command);
    } else {
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    assert_eq!(remains(&output, 60), remains(&whole, 60));
}

/// Evaluations can take hours; who sends a signal waits for seconds.
#[test]
fn an_evaluation_is_left_and_made_up_for() {
    let host = Host::new();
    let (whole, output) = (host.path("whole"), host.path("out"));
    let validation = host.path("validation.jsonl");
    let rows = fs::read_to_string(fixture("golden/toy/validation.jsonl")).expect("rows");
    fs::write(&validation, rows.repeat(200)).expect("many rows");
    let run = |output: &Path| {
        let arguments = "--max_steps 2 --eval_steps 2 --save_steps 1 --max_eval_samples 10000 \
                         --per_device_eval_batch_size 1 --num_threads 1";
        let mut command = small_run(&host, output, arguments);
        command.arg("--validation_file").arg(&validation);
        command
    };
    let child = start(run(&output));
    wait_for("the step before the evaluation", || {
        !checkpoints(&output).is_empty()
    });
    std::thread::sleep(Duration::from_millis(300));
    signal(&child, "TERM");
    let ended = child.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(EXIT_STOPPED), "{text}");
    assert_eq!(checkpoints(&output), [1, 2], "{text}");
    let progress =
        fs::read_to_string(output.join("checkpoint-2/progress.json")).expect("a position");
    assert!(progress.contains("\"evaluation_owed\": true"), "{progress}");
    let mut command = run(&output);
    command.args(["--resume_from_checkpoint", "true"]);
    host.succeeds(command);
    host.succeeds(run(&whole));
    assert_eq!(remains(&output, 2), remains(&whole, 2));
}

/// Outside of training there is nothing to save: what was not finished leaves nothing.
#[test]
fn an_evaluation_of_its_own_ends_at_once() {
    let host = Host::new();
    let rows = fs::read_to_string(fixture("golden/toy/validation.jsonl")).expect("rows");
    let validation = host.write("validation.jsonl", &rows.repeat(1000));
    for (command, file) in [
        ("evaluate", "--validation_file"),
        ("predict", "--test_file"),
    ] {
        let output = host.path(command);
        let mut words = host.command(command);
        words
            .arg("--model")
            .arg(fixture("golden/init_toy"))
            .arg(file)
            .arg(&validation)
            .arg("--output_dir")
            .arg(&output)
            .args(["--use_cpu", "--per_device_eval_batch_size", "1"]);
        let child = start(words);
        wait_for("the output folder", || output.join(".lock").exists());
        std::thread::sleep(Duration::from_millis(500));
        signal(&child, "TERM");
        let ended = child.wait_with_output().expect("an end");
        let text = String::from_utf8_lossy(&ended.stderr);
        // On a slow machine it had not begun.
        if ended.status.signal().is_none() {
            assert_eq!(ended.status.code(), Some(EXIT_STOPPED), "{command}: {text}");
            assert!(text.contains("stopped by a signal"), "{command}: {text}");
        }
        let left = left(&output);
        assert!(left.is_empty(), "{command}: {left:?}");
    }
}

/// As under `nohup`, or in the background of a shell without job control.
#[test]
fn a_signal_that_is_ignored_stays_so() {
    let host = Host::new();
    let output = host.path("out");
    let run = long_run(&host, &output);
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
        .arg(run.get_program())
        .args(run.get_args());
    for (name, value) in run.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(folder) = run.get_current_dir() {
        command.current_dir(folder);
    }
    let child = start(command);
    wait_for("a checkpoint", || !checkpoints(&output).is_empty());
    signal(&child, "HUP");
    let before = *checkpoints(&output).last().expect("a checkpoint");
    wait_for("later checkpoints", || {
        checkpoints(&output)
            .last()
            .is_some_and(|step| *step > before + 4)
    });
    signal(&child, "TERM");
    let ended = child.wait_with_output().expect("an end");
    assert_eq!(ended.status.code(), Some(EXIT_STOPPED));
}

/// There is nothing to save yet, so nothing is waited for.
#[test]
fn before_the_first_step_a_signal_ends_the_process() {
    let host = Host::new();
    let output = host.path("out");
    let rows = fs::read_to_string(fixture("golden/toy/train.jsonl")).expect("rows");
    let file = host.write("many.jsonl", &rows.repeat(2000));
    let mut command = small_run(&host, &output, "--max_train_samples 1000000");
    command.arg("--train_file").arg(file);
    let child = start(command);
    wait_for("the output folder", || output.join(".lock").exists());
    signal(&child, "TERM");
    let ended = child.wait_with_output().expect("an end");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.signal(), Some(15), "{text}");
    let left = left(&output);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_second_signal_ends_the_run_at_once() {
    let host = Host::new();
    let output = host.path("out");
    let child = start(long_run(&host, &output));
    wait_for("a checkpoint", || !checkpoints(&output).is_empty());
    signal(&child, "STOP");
    // Both are pending when the process continues; the second finds the first.
    signal(&child, "TERM");
    signal(&child, "USR1");
    signal(&child, "CONT");
    let ended = child.wait_with_output().expect("an end");
    assert!(!ended.status.success());
    let mut command = long_run(&host, &output);
    command.args(["--resume_from_checkpoint", "true", "--max_steps", "4"]);
    host.succeeds(command);
}

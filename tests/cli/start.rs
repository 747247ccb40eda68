//! How `host` becomes the engine: environment, the run it hands over, exit code. A script stands in for the engine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::support::Host;

/// A copy of `host` beside an engine that shows what it was given and ends with code 75.
fn with_engine(host: &Host) -> Command {
    let program = host.path("bin/host");
    let engine = host.write(
        "bin/host-engine",
        "#!/bin/sh\necho \"$1 $OMP_WAIT_POLICY $GOMP_SPINCOUNT $OMP_NUM_THREADS${CUBLAS_WORKSPACE_CONFIG:+ $CUBLAS_WORKSPACE_CONFIG $CUDA_LAUNCH_BLOCKING}\"\ncat /proc/self/fd/$2\nexit 75\n",
    );
    fs::set_permissions(engine, fs::Permissions::from_mode(0o755)).expect("permissions");
    command(host, &program)
}

fn command(host: &Host, program: &std::path::Path) -> Command {
    host.write("model/config.json", "{}");
    host.write("train.jsonl", "{}\n");
    fs::create_dir_all(program.parent().expect("a folder above")).expect("a folder");
    // By another process: a child that a test beside this one starts would inherit the open file, and what is open for
    // writing cannot be executed.
    let copied = Command::new("cp")
        .args([env!("CARGO_BIN_EXE_host").as_ref(), program.as_os_str()])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    let mut command = Command::new(program);
    command
        .current_dir(host.folder())
        .args("train --model model --train_file train.jsonl --output_dir out".split(' '));
    for name in [
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "OMP_NUM_THREADS",
        "CUBLAS_WORKSPACE_CONFIG",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_ENDPOINT",
        "HF_XET_TELEMETRY_ENABLED",
    ] {
        command.env_remove(name);
    }
    command
}

/// First line and run that the engine saw.
fn seen(mut command: Command) -> (String, Value) {
    let ended = command.output().expect("the program runs");
    let text = String::from_utf8(ended.stdout).expect("text");
    assert_eq!(
        ended.status.code(),
        Some(75),
        "the exit code is the engine's: {}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let (line, run) = text.split_once('\n').expect("two lines");
    (line.to_owned(), serde_json::from_str(run).expect("a run"))
}

#[test]
fn the_engine_gets_the_run_and_its_environment() {
    let host = Host::new();
    let mut command = with_engine(&host);
    command.args(["--num_threads", "3", "--seed", "7"]);
    let (line, run) = seen(command);
    assert_eq!(line, "--run-fd PASSIVE 0 3");
    assert_eq!(run["train"]["seed"], 7);
    assert_eq!(run["num_threads"], 3);
    serde_json::from_value::<host::config::run::Run>(run).expect("the engine can read it");
    assert!(!host.path("out").exists(), "host itself writes nothing");
}

/// Field 83: what CUDA reads when it starts goes to the engine, and to nobody else.
#[test]
fn full_determinism_sets_what_cuda_reads() {
    let host = Host::new();
    let mut command = with_engine(&host);
    command.args(["--full_determinism", "--num_threads", "1"]);
    let (line, run) = seen(command);
    assert_eq!(line, "--run-fd PASSIVE 0 1 :16:8 1");
    assert_eq!(run["train"]["full_determinism"], true);
}

/// The token travels with the run; plugins and other children of the engine do not see it.
#[test]
fn the_token_is_not_in_the_environment_of_the_engine() {
    let host = Host::new();
    let mut command = with_engine(&host);
    let engine = host.path("bin/host-engine");
    let script = std::fs::read_to_string(&engine).expect("the engine of the test");
    let script = script.replacen('\n', "\nenv > environment\n", 1);
    std::fs::write(&engine, script).expect("the engine of the test");
    command
        .args(["--push_to_hub", "--num_threads", "1"])
        .env("HF_TOKEN", "hf_canary");
    let (_, run) = seen(command);
    assert_eq!(run["hub"]["token"], "hf_canary");
    let environment = std::fs::read_to_string(host.path("environment")).expect("text");
    assert!(!environment.contains("hf_canary"), "{environment}");
    assert!(
        environment.contains("HF_XET_TELEMETRY_ENABLED=false\n"),
        "{environment}"
    );
}

#[test]
fn the_users_environment_wins() {
    let host = Host::new();
    let mut command = with_engine(&host);
    command
        .env("OMP_WAIT_POLICY", "ACTIVE")
        .env("GOMP_SPINCOUNT", "100")
        .env("OMP_NUM_THREADS", "2,1");
    let (line, run) = seen(command);
    assert_eq!(line, "--run-fd ACTIVE 100 2,1");
    assert_eq!(run["num_threads"], 2);
}

#[test]
fn notes_say_what_overrides_what() {
    let host = Host::new();
    let mut command = with_engine(&host);
    command.args(
        "--warmup_steps 5 --warmup_ratio 0.1 --adafactor --plugin none.wasm --no_plugins"
            .split(' '),
    );
    let stderr =
        String::from_utf8(command.output().expect("the program runs").stderr).expect("text");
    let expected = "note: adafactor is deprecated and overrides optim; use optim adafactor\n\
                    note: warmup_steps 5 overrides warmup_ratio 0.1\n\
                    note: no_plugins: 1 plugins are left out\n";
    assert_eq!(stderr, expected);
}

#[test]
fn a_missing_engine_is_named() {
    let host = Host::new();
    let program = host.path("lonely/host");
    let ended = command(&host, &program).output().expect("the program runs");
    let stderr = String::from_utf8(ended.stderr).expect("text");
    assert!(stderr.starts_with("error: the engine "), "{stderr}");
    assert!(
        stderr.contains(
            "lonely/host-engine is missing; it is built and installed together with host"
        ),
        "{stderr}"
    );
    assert_eq!(ended.status.code(), Some(74));
}

#!/usr/bin/env python3
"""What `make bench` prints: start-up, the loop, plugin calls and memory, each beside its limit or its peer.

Every figure is a median, with the range of its runs. All programs run with the same threads and the same wait policy
of OpenMP. Python's standard library only; the peer in Python gets its own environment in .bench/venv.

    python3 tests/bench/run.py [--quick] [--without-peer] [--only GROUP]
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = ROOT / "target/release/host"
PLUGIN = ROOT / "plugins/target/wasm32-wasip2/release/classification_metrics.wasm"
GUESTS = ROOT / "tests/guests/target/wasm32-wasip2/release"
MODEL = ROOT / ".models/all-MiniLM-L6-v2"
INTENTS = ROOT / "examples/intents"
REGRESSION = ROOT / "tests/fixtures/torchscript/regression.pt"
BENCH = ROOT / ".bench"


class Table:
    """Rows of the report; a row that misses its limit is marked and makes the exit status 1."""

    def __init__(self):
        self.missed = 0

    def head(self, title):
        """A group of rows."""
        print(f"\n{title}", flush=True)

    def row(self, what, values, unit, limit=None):
        """The median of `values` and, if it has one, whether it keeps its limit."""
        median = statistics.median(values)
        text = f"  {what:<58} {median:9.2f} {unit:<5}"
        if len(values) > 1:
            text += f" ({min(values):.2f} to {max(values):.2f})"
        if limit is not None:
            kept = median <= limit
            self.missed += not kept
            text += f"  limit {limit:g}: {'kept' if kept else 'MISSED'}"
        print(text, flush=True)
        return median


def environment(threads):
    """What every program gets."""
    return dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_WAIT_POLICY="PASSIVE", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def run(words, threads=2, **options):
    """A program that must succeed; what it printed."""
    done = subprocess.run(list(map(str, words)), env=environment(threads), text=True, capture_output=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def milliseconds(words):
    """Wall time of a program that may fail."""
    begin = time.perf_counter()
    subprocess.run(list(map(str, words)), capture_output=True, env=environment(2), check=False)
    return 1000 * (time.perf_counter() - begin)


def answers(table, count):
    """`--help` and refused arguments: no libtorch is loaded."""
    table.head("Answers without training")
    cases = [
        ("host --help", [HOST, "--help"]),
        ("host train --help", [HOST, "train", "--help"]),
        ("an unknown argument", [HOST, "train", "--lerning_rate", "1"]),
        ("contradictory arguments", [HOST, "train", "--load_best_model_at_end", "--evaluation_strategy", "no"]),
    ]
    for what, words in cases:
        milliseconds(words)
        table.row(what, [milliseconds(words) for _ in range(count)], "ms", limit=20)


class StepClock:
    """Reads the record of steps through a pipe and notes when each line comes."""

    def __init__(self, folder):
        self.path = pathlib.Path(folder) / "steps"
        os.mkfifo(self.path)
        self.batches, self.updates = [], []
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        """Until the program closes its end."""
        with open(self.path, encoding="utf-8") as lines:
            for line in lines:
                now = time.perf_counter()
                (self.batches if "rows" in json.loads(line) else self.updates).append(now)


def start_to_first_step(rows, extra):
    """Seconds from the start of the process to the end of the first step, less a step."""
    with tempfile.TemporaryDirectory() as folder:
        clock = StepClock(folder)
        words = [HOST, "train", "--model", MODEL, "--train_file", rows, "--validation_file", rows, "--output_dir", f"{folder}/out"]
        words += ["--max_steps", 8, "--per_device_train_batch_size", 8, "--save_strategy", "no", "--evaluation_strategy", "no"]
        words += ["--record_steps", clock.path, "--max_eval_samples", 8, *extra]
        begin = time.perf_counter()
        run(words)
        clock.thread.join()
    # The lines of a step come before the optimizer's update, so the first step has ended when the second has come as far.
    steps = [after - before for before, after in zip(clock.updates[1:], clock.updates[2:])]
    return clock.updates[1] - begin - 2 * statistics.median(steps)


def start(table, count):
    """Start-up with MiniLM and 1,000 rows."""
    table.head("From the start of the process to the end of the first training step, less the step (MiniLM, 1,000 rows)")
    weights = MODEL / "model.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "rows.jsonl"
        rows.write_text("".join((INTENTS / "train.jsonl").read_text().splitlines(keepends=True)[:1000]))
        begin = time.perf_counter()
        weights.read_bytes()
        reading = time.perf_counter() - begin
        print(f"  reading the weights alone: {reading:.2f} s; the limits are 1 s more than that")
        cache = pathlib.Path(folder) / "cache"
        plugin = ["--plugin", PLUGIN]
        saved = os.environ.get("XDG_CACHE_HOME")
        os.environ["XDG_CACHE_HOME"] = str(cache)
        table.row("without a plugin", [start_to_first_step(rows, []) for _ in range(count)], "s", limit=1 + reading)
        cold = []
        for _ in range(min(count, 3)):
            subprocess.run(["rm", "-rf", str(cache)], check=True)
            cold.append(start_to_first_step(rows, plugin))
        table.row("with a plugin that is compiled first", cold, "s")
        table.row("with a plugin from the cache", [start_to_first_step(rows, plugin) for _ in range(count)], "s", limit=1 + reading)
        os.environ.pop("XDG_CACHE_HOME")
        if saved is not None:
            os.environ["XDG_CACHE_HOME"] = saved


def grid(path, count=64):
    """The regression data of the bare loop."""
    rows = []
    for i in range(count):
        x = ((37 * i) % 64) / 16 - 2
        rows.append(json.dumps({"input_x": x, "label": 2 * x + 3 + (0.1 if i % 2 == 0 else -0.1)}))
    path.write_text("\n".join(rows) + "\n")


def compiled_bare_loop():
    """The C++ program beside this file, built against the same libtorch."""
    libtorch = pathlib.Path(os.environ.get("LIBTORCH", ROOT / ".libtorch/torch"))
    BENCH.mkdir(exist_ok=True)
    program = BENCH / "bare_loop"
    source = pathlib.Path(__file__).with_name("bare_loop.cc")
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        include, libraries = libtorch / "include", libtorch / "lib"
        words = [os.environ.get("CXX", "c++"), "-O2", "-std=c++17", source, f"-I{include}", f"-I{include}/torch/csrc/api/include"]
        words += [f"-L{libraries}", "-ltorch_cpu", "-lc10", "-ltorch", f"-Wl,-rpath,{libraries}", "-o", program]
        run(words)
    return program


def finished(words, threads):
    """Resource usage, wall seconds and output of a program that must succeed."""
    begin = time.perf_counter()
    process = subprocess.Popen(list(map(str, words)), env=environment(threads), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{words} ended with {process.returncode}\n{printed}")
    return usage, time.perf_counter() - begin, printed


def loop(table, count, quick):
    """What the loop costs beyond libtorch, on a model whose arithmetic costs nothing."""
    table.head("One step of the two-scalar regression model, one thread")
    program, steps = compiled_bare_loop(), (500, 2500) if quick else (2000, 22000)
    bare = [[float(number) for number in run([program, REGRESSION, steps[1]], threads=1).split()] for _ in range(count)]
    ours = []
    with tempfile.TemporaryDirectory() as folder:
        rows = pathlib.Path(folder) / "rows.jsonl"
        grid(rows)
        for index in range(count):
            seconds = []
            for number in steps:
                words = [HOST, "train", "--model", REGRESSION, "--trust_model_code", "--train_file", rows, "--learning_rate", "0.1"]
                words += ["--output_dir", f"{folder}/out-{index}-{number}", "--max_steps", number, "--save_strategy", "no", "--disable_tqdm"]
                usage, wall, _ = finished(words, threads=1)
                seconds.append((usage.ru_utime + usage.ru_stime, wall))
            ours.append([1e6 * (long - short) / (steps[1] - steps[0]) for short, long in zip(*seconds)])
    for kind, (what, limit) in enumerate([("processor time", None), ("wall time", 100)]):
        in_cpp = table.row(f"libtorch calls alone, in C++: {what}", [figures[kind] for figures in bare], "us")
        table.row(f"host: {what}", [figures[kind] for figures in ours], "us")
        table.row(f"host beyond them: {what}", [figures[kind] - in_cpp for figures in ours], "us", limit=limit)


def precision(table, count, with_peer):
    """A step of MiniLM with 32 rows of 128 tokens: processor time and peak memory by what the step computes with."""
    table.head("One step of MiniLM, 32 rows of 128 tokens, AdamW, two threads")
    steps = (2, 6)
    kinds = [("float32", []), ("bf16", ["--bf16"]), ("float32, recomputed", ["--gradient_checkpointing"])]
    with tempfile.TemporaryDirectory() as folder:
        for what, extra in kinds:
            seconds, memory = [], []
            for index in range(count):
                usages = []
                for number in steps:
                    words = [HOST, "train", "--model", MODEL, "--train_file", INTENTS / "train.jsonl", "--max_length", 128, "--pad_to_max_length"]
                    words += ["--per_device_train_batch_size", 32, "--max_steps", number, "--save_strategy", "no", "--disable_tqdm", *extra]
                    words += ["--output_dir", f"{folder}/{what}-{index}-{number}"]
                    usages.append(finished(words, threads=2)[0])
                short, long = [usage.ru_utime + usage.ru_stime for usage in usages]
                seconds.append((long - short) / (steps[1] - steps[0]))
                memory.append(usages[1].ru_maxrss / 1024)
            table.row(f"host, {what}: processor time", seconds, "s")
            table.row(f"host, {what}: peak memory", memory, "MiB")
        if not with_peer:
            return
        for what in ("float32", "bf16"):
            words = [peer_python(), pathlib.Path(__file__).with_name("peer_step.py"), MODEL, what, steps[1] - steps[0]]
            values = [float(finished(words, threads=2)[2].split()[-1]) for _ in range(count)]
            table.row(f"PyTorch, {what}: processor time", values, "s")


def step_times(folder, name, extra):
    """Seconds of each step of a run after its first ones."""
    inner = pathlib.Path(folder) / name
    inner.mkdir()
    clock = StepClock(inner)
    words = [HOST, "train", "--model", MODEL, "--train_file", INTENTS / "train.jsonl", "--output_dir", inner / "out", "--max_length", 128]
    words += ["--per_device_train_batch_size", 32, "--max_steps", 24, "--save_strategy", "no", "--disable_tqdm", "--dataloader_num_workers", 4]
    words += ["--record_steps", clock.path, *extra]
    run(words)
    clock.thread.join()
    return [after - before for before, after in zip(clock.updates[3:], clock.updates[4:])]


def collator(table, count):
    """What a collator in a plugin costs a step that it feeds: its work hides behind the step's."""
    table.head("One step of MiniLM, 32 rows of 128 tokens, 4 data workers, two threads")
    masking = ["--plugin", PLUGIN.with_name("token_masking.wasm"), "--plugin_config", "token_masking.pad_to_multiple_of=128"]
    with tempfile.TemporaryDirectory() as folder:
        native, plugin = [], []
        # One after the other, so that whatever else the machine does falls on both.
        for index in range(count):
            native.append(1000 * statistics.median(step_times(folder, f"native-{index}", ["--pad_to_max_length"])))
            plugin.append(1000 * statistics.median(step_times(folder, f"plugin-{index}", masking)))
    table.row("built-in collator", native, "ms")
    table.row("collator in a plugin", plugin, "ms")
    lost = [100 * (slow / fast - 1) for slow, fast in zip(plugin, native)]
    table.row("step time lost to the plugin", lost, "%", limit=1)


def plugin_calls(table):
    """Measured inside one process by a program that uses the library."""
    table.head("Plugin calls")
    for line in run([ROOT / "target/release/examples/bench-plugin-calls", PLUGIN.parent, GUESTS], threads=1).splitlines():
        measured = json.loads(line)
        table.row(measured["what"], measured["values"], measured["unit"], limit=measured.get("limit"))


def peer_python():
    """The interpreter of the peer's environment, which is made if need be."""
    python, requirements = BENCH / "venv/bin/python", pathlib.Path(__file__).with_name("requirements.txt")
    stamp = BENCH / "venv/complete"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        print("  installing PyTorch and transformers for Python into .bench/venv", flush=True)
        run([sys.executable, "-m", "venv", "--clear", BENCH / "venv"])
        run([python, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--requirement", requirements])
        stamp.write_text(requirements.read_text())
    return python


def read_back(table, output):
    """Hugging Face's library reads what the demo wrote, and is as accurate with it."""
    words = [peer_python(), pathlib.Path(__file__).with_name("read_back.py"), output, INTENTS]
    theirs = json.loads(run(words).splitlines()[-1])
    ours = json.loads((output / "eval_results.json").read_text())["eval_accuracy"]
    table.row("from_pretrained of the result: names that do not fit", [len(theirs["misfits"])], "", limit=0)
    table.row("  its accuracy less the one reported here", [abs(theirs["accuracy"] - ours)], "", limit=1e-6)


def demo(table, count, with_peer):
    """The demo here and in Hugging Face's Trainer."""
    table.head("The demo: peak memory and wall time, two threads")
    with tempfile.TemporaryDirectory() as folder:
        words = [HOST, "train", INTENTS / "config.toml", "--plugin", PLUGIN, "--output_dir"]
        ours = [finished([*words, f"{folder}/{i}"], threads=2) for i in range(count)]
        memory = table.row("host: peak memory", [usage.ru_maxrss / 1024 for usage, _, _ in ours], "MiB")
        table.row("host: process", [seconds for _, seconds, _ in ours], "s")
        if not with_peer:
            return
        read_back(table, pathlib.Path(folder) / "0")
        words = [peer_python(), pathlib.Path(__file__).with_name("peer.py"), MODEL, INTENTS]
        theirs = [finished([*words, f"{folder}/peer-{i}"], threads=2) for i in range(count)]
    peer = table.row("Trainer: peak memory", [usage.ru_maxrss / 1024 for usage, _, _ in theirs], "MiB")
    table.row("Trainer: process", [seconds for _, seconds, _ in theirs], "s")
    table.row("host's share of Trainer's memory", [100 * memory / peer], "%", limit=60)
    print("  Trainer's accuracy:", json.loads(theirs[-1][2].splitlines()[-1])["accuracy"])


def main():
    """All groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--without-peer", action="store_true", help="leave Hugging Face's Trainer out")
    parser.add_argument("--only", metavar="GROUP", help="one group: answers, start, loop, precision, plugin_calls, collator or demo")
    options = parser.parse_args()
    quick, with_peer = options.quick, not options.without_peer
    groups = {
        "answers": lambda table: answers(table, 5 if quick else 21),
        "start": lambda table: start(table, 3 if quick else 7),
        "loop": lambda table: loop(table, 2 if quick else 5, quick),
        "precision": lambda table: precision(table, 1 if quick else 3, with_peer),
        "plugin_calls": plugin_calls,
        "collator": lambda table: collator(table, 1 if quick else 5),
        "demo": lambda table: demo(table, 1 if quick else 3, with_peer),
    }
    if options.only not in (None, *groups):
        parser.error(f"no group is named {options.only}: {', '.join(groups)}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.2f} before")
    table = Table()
    for name, group in groups.items():
        if options.only in (None, name):
            group(table)
    print(f"\nload {os.getloadavg()[0]:.2f} after")
    if table.missed:
        sys.exit(f"{table.missed} limits missed")


if __name__ == "__main__":
    main()

"""What the real services say about a run of `host` that reported to them (`.ci/services`).

usage: check.py RUN_FOLDER TRACKING_URI
"""

import json
import sys
from pathlib import Path

from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run_folder, tracking_uri = Path(sys.argv[1]), sys.argv[2]
history = json.loads((run_folder / "trainer_state.json").read_text())["log_history"]
logged = {}
for entry in history:
    for name, value in entry.items():
        if name != "step":
            logged.setdefault(name, []).append((entry["step"], value))


def check(what, found, wanted):
    if found != wanted:
        sys.exit(f"{what}: found {found}, wanted {wanted}")
    print(f"{what}: as logged")


# The real reader checks the frame of every record, checksums included.
events = EventAccumulator(str(run_folder / "logs"))
events.Reload()
tags = {("eval/" + name[5:]) if name.startswith("eval_") else ("train/" + name): name for name in logged}
check("TensorBoard's tags", sorted(events.Tags()["scalars"]), sorted(tags))
for tag, name in tags.items():
    found = sorted((event.step, round(event.value, 4)) for event in events.Scalars(tag))
    wanted = sorted((step, round(value, 4)) for step, value in logged[name])
    close = len(found) == len(wanted) and all(
        a[0] == b[0] and abs(a[1] - b[1]) <= 1e-3 + 1e-6 * abs(b[1]) for a, b in zip(found, wanted)
    )
    if not close:
        sys.exit(f"TensorBoard's {tag}: found {found}, wanted {wanted}")
texts = events.Tags()["tensors"]
check("TensorBoard's texts", sorted(texts), ["args/text_summary", "model_config/text_summary"])

client = MlflowClient(tracking_uri)
experiment = client.get_experiment_by_name("host services")
runs = client.search_runs([experiment.experiment_id])
check("MLflow's runs", len(runs), 1)
run = runs[0]
check("MLflow's status", run.info.status, "FINISHED")
check("MLflow's run name", run.info.run_name, "a run")
check("MLflow's tag", run.data.tags.get("team"), "a")
check("MLflow's metrics", sorted(run.data.metrics), sorted(logged))
for name, points in logged.items():
    # The server keeps one of several points with the same step, value and time.
    found = {(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)}
    check(f"MLflow's {name}", found, set(points))
arguments = json.loads((run_folder / "training_args.json").read_text())
check("MLflow's learning_rate", run.data.params["learning_rate"], repr(arguments["learning_rate"]))
check("MLflow's max_steps", run.data.params["max_steps"], str(arguments["max_steps"]))

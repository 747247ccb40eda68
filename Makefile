# The few words a person types. Each does all of its own set-up, on a machine with rustup, Python 3 with pip and a C++ compiler.
#
#   make demo       fine-tune a real BERT on the sentences of examples/intents, metrics by a plugin
#   make test       all tests
#   make bench      start-up, loop, plugin calls and memory, beside the same in Python and C++ (fetches PyTorch for Python)
#   make build      host and host-engine, in target/release
#   make plugins    the plugins of this project, in plugins/target/wasm32-wasip2/release
#   make libtorch   libtorch 2.11.0, into .libtorch; a LIBTORCH of your own in the environment wins
#   make model      the demo's encoder, into .models
#
# Everything fetched or built stays inside this folder.
.POSIX:
.PHONY: demo test bench build plugins guests libtorch model check

HOST = target/release/host
PLUGINS = plugins/target/wasm32-wasip2/release

demo: build model plugins
	$(HOST) train examples/intents/config.toml --plugin $(PLUGINS)/classification_metrics.wasm
	@target/release/examples/intents-baselines examples/intents .models/all-MiniLM-L6-v2 demo-output/eval_results.json

# The threads of libtorch sleep while they wait: tests run side by side.
test: libtorch plugins guests
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE cargo test --release
	cd plugins && cargo test

bench: build model plugins guests
	cargo build --release --examples
	python3 tests/bench/run.py

build: libtorch
	cargo build --release --bins --example intents-baselines

plugins: check
	cd plugins && cargo build --release --target wasm32-wasip2

guests: check
	cd tests/guests && cargo build --release --target wasm32-wasip2

libtorch: check
	@.ci/setup libtorch

model: check
	@.ci/setup model

check:
	@.ci/setup check

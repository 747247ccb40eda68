//! What only native architectures can do, and the words of `debug` (field 69).

use super::super::setting::quoted;
use super::Draft;
use super::paths::is_torchscript;

/// The watch for numbers that are not finite.
const WATCH: &str = "underflow_overflow";
/// Prints figures of a TPU.
const TPU: &str = "tpu_metrics_debug";

impl Draft<'_> {
    /// Whether training watches for numbers that are not finite.
    pub(super) fn watches_numbers(&self) -> bool {
        let mut words = self.arguments.debug.split_whitespace();
        words.any(|word| word == WATCH)
    }

    pub(super) fn check_debug(&mut self) {
        let debug = self.arguments.debug.clone();
        for word in debug.split_whitespace() {
            match word {
                WATCH => {}
                TPU => self.wrong(
                    "debug",
                    format!("{TPU} is refused: libtorch has no TPU device; use {WATCH}"),
                ),
                other => {
                    let shown = quoted(other);
                    self.wrong("debug", format!("{shown} is not a choice; use {WATCH}"));
                }
            }
        }
    }

    pub(super) fn check_native(&mut self) {
        let Some(model) = &self.arguments.model else {
            return;
        };
        let path = self.absolute(&model.path);
        if path.is_dir() || !is_torchscript(&path) || !self.is_training() {
            return;
        }
        let needs = [
            (
                "gradient_checkpointing",
                self.arguments.gradient_checkpointing,
            ),
            ("debug", self.watches_numbers()),
        ];
        for (field, is_given) in needs {
            if is_given {
                let text = "needs a native architecture, and the model is a TorchScript file, whose layers are its own; leave it out";
                self.contradict(&[field, "model"], text);
            }
        }
    }
}

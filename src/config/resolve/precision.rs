//! Fields 42 to 48: which half precision, at most one of each kind, and what a device must have for it.

use super::super::run::{Half, Precision};
use super::Draft;

/// Why float16 and TF32 are refused, as the reference refuses them off a GPU.
const NEEDS_GPU: &str = "can only be used on a GPU, and this run is on the CPU";

impl Draft<'_> {
    /// Whether the run may be on a GPU; whether libtorch can use it only the engine can know, which checks again.
    pub(super) fn may_use_gpu(&self) -> bool {
        self.surroundings.has_gpu_driver && !self.arguments.use_cpu
    }

    /// The deprecated name of half_precision_backend wins, as in the reference.
    pub(super) fn replace_backend(&mut self) {
        if self.arguments.fp16_backend != "auto" {
            self.arguments
                .half_precision_backend
                .clone_from(&self.arguments.fp16_backend);
            self.notes
                .push("fp16_backend is deprecated; use half_precision_backend".to_owned());
        }
    }

    /// What excludes what first, so that a missing device does not hide it.
    pub(super) fn check_precision(&mut self) {
        let arguments = &self.arguments;
        let (bf16, fp16) = (arguments.bf16, arguments.fp16);
        let full = (arguments.bf16_full_eval, arguments.fp16_full_eval);
        let apex = arguments.half_precision_backend == "apex";
        let cuda = arguments.half_precision_backend == "cuda_amp";
        let double = arguments.dtype == "float64";
        if bf16 && fp16 {
            let text = "excludes fp16: a run has one kind of autocast; leave one of them out";
            self.contradict(&["bf16", "fp16"], text);
        }
        if full == (true, true) {
            let text = "excludes fp16_full_eval: an evaluation has one type; leave one of them out";
            self.contradict(&["bf16_full_eval", "fp16_full_eval"], text);
        }
        if bf16 && apex {
            let text = "apex knows no bfloat16; leave it out";
            self.contradict(&["half_precision_backend", "bf16"], text);
        }
        if bf16 && double {
            let text = "autocast leaves float64 as it is; use dtype float32, or leave bf16 out";
            self.contradict(&["bf16", "dtype"], text);
        }
        let on_cpu = !self.may_use_gpu();
        for (name, is_given) in [("fp16", fp16), ("fp16_full_eval", full.1)] {
            if is_given && on_cpu {
                self.wrong(
                    name,
                    format!("float16 {NEEDS_GPU}; use {}", name.replace("fp16", "bf16")),
                );
            }
        }
        if self.arguments.tf32 == Some(true) && on_cpu {
            self.wrong("tf32", format!("TF32 {NEEDS_GPU}; leave it out"));
        }
        if !fp16 && (apex || cuda) && !(bf16 && apex) {
            self.notes.push(format!(
                "half_precision_backend {} has no effect without fp16",
                self.arguments.half_precision_backend
            ));
        }
    }

    /// The levels of apex: O0 computes in float32, O1 is autocast, O2 casts the model and keeps float32 copies of its
    /// weights, O3 casts the model and no more. Any other float16 is O1.
    pub(super) fn precision(&self) -> Precision {
        let arguments = &self.arguments;
        let level = match arguments.half_precision_backend.as_str() {
            "apex" => arguments.fp16_opt_level.as_str(),
            _ => "O1",
        };
        let fp16 = |levels: &[&str]| arguments.fp16 && levels.contains(&level);
        let half = |bf16: bool, fp16: bool| match (bf16, fp16) {
            (true, _) => Some(Half::Bfloat16),
            (_, true) => Some(Half::Float16),
            _ => None,
        };
        Precision {
            autocast: half(arguments.bf16, fp16(&["O1"])),
            model: half(false, fp16(&["O2", "O3"])),
            master_weights: fp16(&["O2"]),
            scales_losses: fp16(&["O1", "O2"]),
            full_evaluation: half(arguments.bf16_full_eval, arguments.fp16_full_eval),
            tf32: arguments.tf32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::input::Input;
    use super::super::super::run::Command;
    use super::super::super::surroundings::Surroundings;
    use super::*;

    /// float16 needs a GPU, so no run can show what its levels mean.
    #[test]
    fn levels_of_apex_have_their_meaning() {
        let half = Some(Half::Float16);
        let cases = [
            ("auto", "O2", (half, None, false, true)),
            ("cuda_amp", "O1", (half, None, false, true)),
            ("apex", "O0", (None, None, false, false)),
            ("apex", "O1", (half, None, false, true)),
            ("apex", "O2", (None, half, true, true)),
            ("apex", "O3", (None, half, false, false)),
        ];
        let surroundings = Surroundings::read().expect("the surroundings");
        for (backend, level, expected) in cases {
            let input = Input::default();
            let mut draft = Draft::new(Command::Train, &input, &surroundings);
            draft.arguments.fp16 = true;
            draft.arguments.half_precision_backend = backend.to_owned();
            draft.arguments.fp16_opt_level = level.to_owned();
            let found = draft.precision();
            let found = (
                found.autocast,
                found.model,
                found.master_weights,
                found.scales_losses,
            );
            assert_eq!(found, expected, "{backend} {level}");
        }
    }
}

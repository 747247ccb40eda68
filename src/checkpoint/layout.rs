//! Every file and folder name of a run, once (I9; spec 5).

use std::path::{Path, PathBuf};

/// Weights in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Index of sharded weights.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
/// Foreign weights, read through the restricted reader.
pub const PICKLED_WEIGHTS: &str = "pytorch_model.bin";
/// Index of sharded foreign weights.
pub const PICKLED_WEIGHTS_INDEX: &str = "pytorch_model.bin.index.json";
/// Model configuration.
pub const CONFIG: &str = "config.json";
/// Tokenizer, fast format.
pub const TOKENIZER: &str = "tokenizer.json";
/// Tokenizer settings.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens by role.
pub const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// WordPiece vocabulary, one piece a line.
pub const VOCABULARY: &str = "vocab.txt";
/// Further tokenizer files, copied as they are.
pub const TOKENIZER_EXTRAS: &[&str] = &[
    SPECIAL_TOKENS,
    "added_tokens.json",
    VOCABULARY,
    "vocab.json",
    "merges.txt",
];
/// Optimizer state.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Optimizer state as the reference pickles it; read only.
pub const PICKLED_OPTIMIZER: &str = "optimizer.pt";
/// Schedule state.
pub const SCHEDULER: &str = "scheduler.json";
/// Schedule state as the reference pickles it; read only.
pub const PICKLED_SCHEDULER: &str = "scheduler.pt";
/// Scale of losses.
pub const SCALER: &str = "scaler.json";
/// Generators.
pub const RNG_STATE: &str = "rng_state.safetensors";
/// Generators as the reference pickles them; read only.
pub const PICKLED_RNG_STATE: &str = "rng_state.pth";
/// The reference's trainer state.
pub const TRAINER_STATE: &str = "trainer_state.json";
/// What exact resumption needs beyond it: data position, accumulated losses, plugin states.
pub const PROGRESS: &str = "progress.json";
/// Tensors of exact resumption (running loss, generator at the beginning of the epoch).
pub const PROGRESS_TENSORS: &str = "progress.safetensors";
/// The arguments as written.
pub const TRAINING_ARGS: &str = "training_args.json";
/// Sizes and digests of all other files; written last, so its presence means that the folder is complete.
pub const MANIFEST: &str = "manifest.json";
/// The resolved run, beside the checkpoints.
pub const RUN: &str = "run.json";
/// Held by the process that writes into an output folder.
pub const LOCK: &str = ".lock";
/// Prefix of a checkpoint that is being written, in the output folder.
pub const STAGING_PREFIX: &str = ".checkpoint-";
/// Marks, in a staging name, a complete checkpoint that stepped aside for a second.
pub const REPLACED_MARK: &str = "replaced-";
/// Prefix of a final model that is being written, in its folder.
pub const MODEL_STAGING_PREFIX: &str = ".model-";
/// Prefix of a single file that is being written, beside its place.
pub const WRITING_PREFIX: &str = ".writing-";
/// Prefix of a folder with the files of an upload, in the output folder.
pub const UPLOAD_PREFIX: &str = ".upload-";
/// The model card: what the model is, for people.
pub const MODEL_CARD: &str = "README.md";
/// Prefix of a damaged checkpoint that was put aside.
pub const QUARANTINE_PREFIX: &str = "damaged-checkpoint-";
/// What reporters want to find again when a run is resumed.
pub const REPORTS: &str = "reports.json";
/// Folder of records that could not be delivered yet.
pub const SPOOL: &str = "spool";
/// Folder in which plugins have folders of their own.
pub const PLUGINS: &str = "plugins";
/// Loss and metric curves.
pub const CURVES: &str = "curves.svg";
/// Union of all `<split>_results.json`.
pub const ALL_RESULTS: &str = "all_results.json";
/// Predictions, one JSON object a line.
pub const PREDICTIONS: &str = "predictions.jsonl";

/// Records that wait for a reporter.
pub fn spool(output_dir: &Path, reporter: &str) -> PathBuf {
    output_dir.join(SPOOL).join(format!("{reporter}.jsonl"))
}

/// `<split>_results.json`.
pub fn results(split: &str) -> String {
    format!("{split}_results.json")
}

/// `checkpoint-<step>` inside `output_dir`.
pub fn checkpoint(output_dir: &Path, step: u64) -> PathBuf {
    output_dir.join(format!("checkpoint-{step}"))
}

/// The step of a folder named exactly `checkpoint-<digits>`.
pub fn checkpoint_step(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("checkpoint-")?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// The step of a staging folder, `.checkpoint-<digits>.<anything>`.
pub fn staging_step(name: &str) -> Option<u64> {
    let (digits, rest) = name.strip_prefix(STAGING_PREFIX)?.split_once('.')?;
    if rest.is_empty() {
        None
    } else {
        checkpoint_step(&format!("checkpoint-{digits}"))
    }
}

/// `model-00001-of-00003.safetensors`; `number` counts from 1.
pub fn weights_shard(number: usize, of: usize) -> String {
    format!("model-{number:05}-of-{of:05}.safetensors")
}

/// Whether a name is that of a shard of native weights.
pub fn is_weights_shard(name: &str) -> bool {
    let numbers = name
        .strip_prefix("model-")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    numbers
        .and_then(|numbers| numbers.split_once("-of-"))
        .is_some_and(|(number, of)| {
            [number, of]
                .iter()
                .all(|part| part.len() >= 5 && part.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

#[cfg(test)]
mod tests {
    use super::{checkpoint_step, is_weights_shard, staging_step, weights_shard};

    #[test]
    fn only_exact_names_are_checkpoints() {
        let cases = [
            ("checkpoint-5", Some(5)),
            ("checkpoint--9", None),
            ("checkpoint-20x", None),
            ("checkpoint-", None),
        ];
        for (name, step) in cases {
            assert_eq!(checkpoint_step(name), step, "{name}");
        }
    }
    #[test]
    fn only_our_own_leftovers_are_staging() {
        let cases = [
            (".checkpoint-5.1-2", Some(5)),
            (".checkpoint-5.replaced-1-2", Some(5)),
            (".checkpoint-5", None),
            (".checkpoint-5.", None),
            (".checkpoint-x.1", None),
            ("checkpoint-5.1", None),
        ];
        for (name, step) in cases {
            assert_eq!(staging_step(name), step, "{name}");
        }
    }

    #[test]
    fn shard_names_are_the_references() {
        assert_eq!(weights_shard(1, 3), "model-00001-of-00003.safetensors");
        assert!(is_weights_shard(&weights_shard(12, 345)));
        for name in [
            "model.safetensors",
            "model-1-of-3.safetensors",
            "model-00001-of-0000x.safetensors",
            "x",
        ] {
            assert!(!is_weights_shard(name), "{name}");
        }
    }
}

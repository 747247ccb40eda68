//! Logits processors: the plugin `argmax` beside the same in Rust.

use anyhow::Result;
use host::data::Batch;
use host::metric::{EvaluationBatch, LogitsProcessor};
use host::plugin::{Spec, load};
use tch::{Kind, Tensor};

use crate::plugin::{environment, official};

/// The native stand-in.
struct Argmax;

impl LogitsProcessor for Argmax {
    fn name(&self) -> &str {
        "argmax"
    }

    fn preprocess(&mut self, batch: &EvaluationBatch<'_>) -> Result<Vec<(String, Tensor)>> {
        let decide = |(name, tensor): &(String, Tensor)| {
            let scores = tensor.is_floating_point() && tensor.dim() >= 2;
            Ok((
                name.clone(),
                if scores {
                    tensor.f_argmax(-1, false)?
                } else {
                    tensor.shallow_clone()
                },
            ))
        };
        batch.outputs.iter().map(decide).collect()
    }
}

fn check_argmax(processor: &mut dyn LogitsProcessor) {
    assert_eq!(processor.name(), "argmax");
    let outputs = [
        (
            "logits".to_owned(),
            Tensor::from_slice2(&[[0.1_f32, 0.9, 0.3], [2.0, 1.0, 0.0]]),
        ),
        (
            "tokens".to_owned(),
            Tensor::from_slice(&[0.0_f32, 1.0, 5.0, 4.0])
                .reshape([2, 1, 2])
                .to_kind(Kind::BFloat16),
        ),
        ("ids".to_owned(), Tensor::from_slice2(&[[1_i64, 2], [3, 4]])),
        ("score".to_owned(), Tensor::from_slice(&[0.5_f32, 0.25])),
    ];
    let inputs = Batch::default();
    let batch = EvaluationBatch {
        outputs: &outputs,
        labels: &[],
        inputs: &inputs,
        dataset: "",
        size: 2,
    };
    for _ in 0..2 {
        let processed = processor.preprocess(&batch).expect("outputs");
        let names: Vec<&str> = processed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["logits", "tokens", "ids", "score"]);
        let wanted = [
            Tensor::from_slice(&[1_i64, 0]),
            Tensor::from_slice2(&[[1_i64], [0]]),
            outputs[2].1.shallow_clone(),
            outputs[3].1.shallow_clone(),
        ];
        for ((name, tensor), wanted) in processed.iter().zip(&wanted) {
            assert_eq!(
                (tensor.kind(), tensor.equal(wanted)),
                (wanted.kind(), true),
                "{name}"
            );
        }
    }
}

#[test]
fn native_and_plugin_decide_alike() {
    check_argmax(&mut Argmax);
    let plugin = load(&Spec::new(&official("argmax")), &environment()).expect("loads");
    check_argmax(&mut *plugin.logits().remove(0));
}

//! Losses: the plugin `focal-loss` beside libtorch's own cross entropy and beside the focal loss written for libtorch, in
//! value and gradient and in the weights of a run.

use std::fs;

use host::data::Batch;
use host::loss::{CrossEntropy, Loss};
use host::model::Outputs;
use host::plugin::{Grants, Plugin, load};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::plugin::{environment, official, spec};
use crate::resume::small_run;
use crate::support::Host;

fn plugin(config: &Value) -> Plugin {
    let mut spec = spec(&official("focal_loss"), config, &[]);
    spec.grants = Grants::parse(&["loss"]).expect("a capability");
    load(&spec, &environment()).expect("loads")
}

fn focal(config: &Value) -> Box<dyn Loss> {
    let loss = plugin(config).loss(vec!["labels".to_owned()]);
    loss.expect("a loss")
}

/// The same in libtorch's own operations.
struct Focal(f64);

impl Loss for Focal {
    fn loss(&mut self, outputs: &Outputs, batch: &Batch) -> anyhow::Result<Tensor> {
        let logits = &outputs.fields[0].1;
        let classes = logits.size()[logits.dim() - 1];
        let labels = batch.get("labels").expect("labels").reshape([-1]);
        let negative = logits.reshape([-1, classes]).cross_entropy_loss(
            &labels,
            None::<Tensor>,
            tch::Reduction::None,
            -100,
            0.0,
        );
        let doubt: Tensor = 1.0 - (-&negative).exp();
        let weighted = doubt.clamp_min(1e-6).pow_tensor_scalar(self.0) * negative;
        let counted = labels.ne(-100);
        Ok((weighted * &counted).sum(Kind::Float) / counted.sum(Kind::Float))
    }
}

/// Logits and labels of rows and of tokens, some of which do not count.
fn batches() -> Vec<(Tensor, Tensor)> {
    let wave = |count: i64| (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7).sin() * 3.0;
    vec![
        (
            wave(12).reshape([4, 3]),
            Tensor::from_slice(&[0_i64, 2, 1, 1]),
        ),
        (
            wave(12).reshape([4, 3]),
            Tensor::from_slice(&[0_i64, -100, 1, -100]),
        ),
        (
            wave(30).reshape([2, 3, 5]),
            Tensor::from_slice2(&[[4_i64, -100, 0], [1, 2, -100]]),
        ),
        // Sure of the right class, where powers below one are steep.
        (
            Tensor::from_slice2(&[[40.0_f32, -40.0], [1.0, 0.0]]),
            Tensor::from_slice(&[0_i64, 0]),
        ),
    ]
}

fn value(loss: &mut dyn Loss, logits: &Tensor, labels: &Tensor) -> Tensor {
    let outputs = Outputs {
        loss: None,
        fields: vec![("logits".to_owned(), logits.shallow_clone())],
    };
    let batch = Batch {
        columns: vec![("labels".into(), labels.shallow_clone())],
    };
    loss.loss(&outputs, &batch).expect("a loss")
}

/// Value and gradient of a loss.
fn graph(loss: &mut dyn Loss, logits: &Tensor, labels: &Tensor) -> (Tensor, Tensor) {
    let logits = logits.copy().set_requires_grad(true);
    let value = value(loss, &logits, labels);
    assert_eq!(value.size(), [] as [i64; 0]);
    value.backward();
    (value.detach(), logits.grad())
}

/// What a loss must agree with, whoever it is.
fn check_alike(one: &mut dyn Loss, other: &mut dyn Loss) {
    for (logits, labels) in batches() {
        let (value, gradient) = graph(one, &logits, &labels);
        let (expected, expected_gradient) = graph(other, &logits, &labels);
        assert!(
            value.allclose(&expected, 1e-6, 1e-7, false),
            "{value} {expected}"
        );
        assert!(
            gradient.allclose(&expected_gradient, 1e-5, 1e-7, false),
            "{gradient} {expected_gradient}"
        );
    }
}

#[test]
fn without_focus_it_is_the_built_in_cross_entropy() {
    check_alike(&mut *focal(&json!({"gamma": 0})), &mut CrossEntropy);
}

#[test]
fn with_focus_it_is_what_libtorch_differentiates_by_itself() {
    for gamma in [0.5, 1.0, 2.0, 5.0] {
        check_alike(&mut *focal(&json!({"gamma": gamma})), &mut Focal(gamma));
    }
}

#[test]
fn an_evaluation_needs_no_history() {
    let (logits, labels) = batches().remove(0);
    let mut loss = focal(&json!({}));
    let value = tch::no_grad(|| value(&mut *loss, &logits, &labels));
    assert!(!value.requires_grad() && value.double_value(&[]) > 0.0);
}

fn with_plugin(host: &Host, output: &str, more: &str) -> String {
    let mut command = small_run(host, &host.path(output), more);
    command.arg("--plugin").arg(official("focal_loss"));
    command.args(["--plugin_grant", "focal_loss.loss"]);
    host.succeeds(command)
}

#[test]
fn a_run_with_the_plugins_cross_entropy_ends_with_the_weights_of_the_built_in_one() {
    let host = Host::new();
    host.succeeds(small_run(&host, &host.path("native"), ""));
    let shown = with_plugin(&host, "plugin", "--plugin_config focal_loss.gamma=0");
    // 30 batches that are trained with, and 6 evaluations of 2; nothing was read.
    assert!(shown.contains("plugin focal_loss: 42 calls"), "{shown}");
    assert!(shown.contains(", 0 reads, 0 traps"), "{shown}");
    let weights = |output: &str| {
        let path = host.path(output).join("model.safetensors");
        host::checkpoint::load::read_tensors(&path)
            .expect("weights")
            .tensors
    };
    for ((name, native), (_, plugin)) in weights("native").iter().zip(&weights("plugin")) {
        assert!(plugin.allclose(native, 1e-6, 1e-6, false), "{name}");
    }
    with_plugin(&host, "focal", "");
    let bytes =
        |output: &str| fs::read(host.path(output).join("model.safetensors")).expect("weights");
    assert_ne!(bytes("focal"), bytes("plugin"));
}

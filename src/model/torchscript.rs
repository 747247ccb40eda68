//! TorchScript modules: how any `torch.nn.Module` comes in. `forward` is called with the batch's columns by the names of
//! its arguments.
//!
//! What it may return: a dictionary of tensors, with the loss as `loss`; a tuple; or one tensor. If the call was given
//! labels, the first element of a tuple (or the single tensor) **is taken for the loss** (`call.rs`).
//!
//! The module is code: the caller has checked that the user trusts it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::call::{self, Signature};
use super::{Model, Outputs, Parameter};
use crate::data::Batch;
use crate::error::{Failure, told};
use crate::torch::{self, Fusion, ScriptModule, ScriptOutput};

const CALL: &str = "forward gets the columns of a batch as tensors, by the names of its arguments, and returns a tensor, a tuple, or a \
                    dictionary of tensors";

/// What to load.
#[derive(Clone, Debug)]
pub struct ScriptOptions {
    /// A file that `torch.jit.save` wrote.
    pub path: PathBuf,
    /// Type to which floating point parameters, buffers and columns are converted.
    pub kind: Kind,
    /// Label columns; `None`: the arguments of `forward` whose name contains `label`.
    pub label_names: Option<Vec<String>>,
    /// Where parameters, buffers and constants live.
    pub device: Device,
    /// Evaluations run a frozen copy whose operations are fused, and the log tells how many (`torch_compile_backend ts`).
    pub fuses: bool,
}

/// Passes without gradients after which the code that runs is the optimised one: one is watched, the next optimises.
const WATCHED_PASSES: u32 = 3;

/// A loaded module.
#[derive(Debug)]
pub struct Script {
    module: ScriptModule,
    /// The module with its present weights as constants.
    frozen: Option<ScriptModule>,
    signature: Signature,
    parameters: Vec<Parameter>,
    buffers: Vec<(String, Tensor)>,
    is_training: bool,
    /// Evaluations fuse operations, on this device.
    fuses: Option<Device>,
    /// Fused passes until the log tells what came of it.
    until_told: u32,
}

/// Loads a module.
pub fn load(options: &ScriptOptions) -> Result<Script> {
    let ScriptOptions {
        path,
        kind,
        label_names,
        device,
        fuses,
    } = options;
    let mut module = ScriptModule::load(path, *device).map_err(|error| {
        Failure::data(format!(
            "{} is not a TorchScript module: {error:#}",
            path.display()
        ))
        .hint("save it with torch.jit.save(torch.jit.script(module), FILE) or torch.jit.trace")
    })?;
    module
        .set_dtype(*kind)
        .with_context(|| format!("converting the parameters to {kind:?}"))?;
    let norms = module.layer_norms()?;
    let parameters = module
        .parameters()?
        .into_iter()
        .map(|(name, tensor)| Parameter {
            decay: !name.contains("bias") && !is_inside(&name, &norms),
            name,
            tensor,
        });
    let parameters: Vec<_> = parameters.collect();
    let arguments = module.arguments().map_err(|error| {
        Failure::data(format!("{}: {error:#}", path.display())).hint(
            "the module needs a method `forward`; its arguments name the columns it is called with",
        )
    })?;
    Ok(Script {
        signature: Signature {
            required: module.required_arguments()?.into_iter().collect(),
            labels: call::labels(label_names.as_deref(), &arguments),
            arguments,
            kind: *kind,
        },
        buffers: module.buffers()?,
        parameters,
        module,
        frozen: None,
        is_training: true,
        fuses: fuses.then_some(*device),
        until_told: WATCHED_PASSES,
    })
}

/// Whether a parameter belongs to one of the modules, directly or deeper.
fn is_inside(parameter: &str, modules: &[String]) -> bool {
    modules.iter().any(|module| {
        module.is_empty()
            || parameter
                .strip_prefix(module.as_str())
                .is_some_and(|rest| rest.starts_with('.'))
    })
}

impl Script {
    /// A pass of a frozen copy whose operations are fused; `None`: there is none, and a warning has told why. Freezing keeps
    /// what is fused away from training, which needs gradients.
    fn forward_fused(&mut self, names: &[String], tensors: &[Tensor]) -> Option<ScriptOutput> {
        let device = self.fuses.filter(|_| !self.is_training)?;
        match self.try_fused(device, (names, tensors)) {
            Ok(output) => Some(output),
            Err(error) => {
                tracing::warn!("torch_compile has no effect: {}", told(&error));
                (self.fuses, self.frozen) = (None, None);
                None
            }
        }
    }

    fn try_fused(
        &mut self,
        device: Device,
        (names, tensors): (&[String], &[Tensor]),
    ) -> Result<ScriptOutput> {
        let frozen = match self.frozen.take() {
            Some(frozen) => frozen,
            None => self.module.freeze()?,
        };
        let frozen = self.frozen.insert(frozen);
        // A GPU's fuser is always on.
        let fusion = (device == Device::Cpu).then(Fusion::enable).transpose()?;
        let output = frozen.forward(names, tensors)?;
        drop(fusion);
        self.tell_fusion()?;
        Ok(output)
    }

    /// After some passes: how many groups of operations were fused, or that none were.
    fn tell_fusion(&mut self) -> Result<()> {
        if self.until_told == 0 {
            return Ok(());
        }
        self.until_told -= 1;
        if self.until_told == 0 {
            match torch::fused_groups()? {
                0 => tracing::warn!("torch_compile has no effect: nothing can be fused"),
                groups => tracing::info!("torch_compile: {groups} groups of operations are fused"),
            }
        }
        Ok(())
    }
}

impl Model for Script {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn state_dict(&self) -> Vec<(String, Tensor)> {
        let parameters = self
            .parameters
            .iter()
            .map(|parameter| (&parameter.name, &parameter.tensor));
        let buffers = self.buffers.iter().map(|(name, tensor)| (name, tensor));
        parameters
            .chain(buffers)
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect()
    }

    fn forward_arguments(&self) -> &[String] {
        &self.signature.arguments
    }

    fn main_input(&self) -> &str {
        self.signature.main_input()
    }

    fn label_names(&self) -> Vec<String> {
        self.signature.labels.clone()
    }

    fn is_library_model(&self) -> bool {
        false
    }

    fn config(&self) -> Option<serde_json::Value> {
        None
    }

    fn set_training(&mut self, training: bool) -> Result<()> {
        self.frozen = None;
        self.is_training = training;
        self.module.set_training(training)
    }

    fn set_kind(&mut self, kind: Kind) -> Result<()> {
        self.signature.kind = kind;
        self.frozen = None;
        self.module.set_dtype(kind)
    }

    fn compile_for_evaluation(&mut self) -> Result<()> {
        self.frozen = Some(self.module.freeze()?);
        Ok(())
    }

    fn forget_compiled(&mut self) {
        self.frozen = None;
    }

    fn forward(&mut self, batch: &Batch) -> Result<Outputs> {
        let (names, tensors) = self.signature.columns_of(batch)?;
        let has_labels = self.signature.has_labels(&names);
        if let Some(output) = self.forward_fused(&names, &tensors) {
            return call::outputs_of(output, has_labels);
        }
        let module = self.frozen.as_mut().unwrap_or(&mut self.module);
        let output = module.forward(&names, &tensors).map_err(|error| {
            Failure::data(format!("the TorchScript module failed: {error:#}")).hint(CALL)
        })?;
        call::outputs_of(output, has_labels)
    }

    fn floating_point_operations(&self, _batch: &Batch) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Device, Kind, Tensor};

    use super::{Script, ScriptOptions, load};
    use crate::data::Batch;
    use crate::model::Model;

    fn script(name: &str, kind: Kind) -> Script {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/torchscript")
            .join(name);
        load(&ScriptOptions {
            path,
            kind,
            label_names: None,
            device: Device::Cpu,
            fuses: false,
        })
        .expect("a module")
    }

    fn batch(columns: &[(&str, Tensor)]) -> Batch {
        Batch {
            columns: columns
                .iter()
                .map(|(name, tensor)| ((*name).into(), tensor.shallow_clone()))
                .collect(),
        }
    }

    fn names(outputs: &crate::model::Outputs) -> Vec<&str> {
        outputs
            .fields
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    #[test]
    fn tuples_and_dictionaries_come_back_with_and_without_labels() {
        let x = ("input_x", Tensor::from_slice(&[1.0_f32, 2.0]));
        let labels = ("labels", Tensor::from_slice(&[3.0_f32, 5.0]));
        for (file, output) in [("regression.pt", "logits"), ("regression_dict.pt", "y")] {
            let mut module = script(file, Kind::Float);
            assert_eq!(module.forward_arguments(), ["input_x", "labels"]);
            assert_eq!(module.label_names(), ["labels"]);
            assert_eq!(module.main_input(), "input_x");
            let outputs = module
                .forward(&batch(&[x.shared(), labels.shared()]))
                .expect("a pass");
            assert_eq!(
                outputs.loss.as_ref().expect("a loss").double_value(&[]),
                17.0,
                "{file}"
            );
            assert_eq!(names(&outputs), [output]);
            outputs.loss.expect("a loss").backward();
            assert_eq!(
                module.parameters()[1].tensor.grad().double_value(&[]),
                -8.0,
                "gradients reach the module's own tensors"
            );
            let outputs = module.forward(&batch(&[x.shared()])).expect("a pass");
            assert!(outputs.loss.is_none());
            assert_eq!(names(&outputs), [output]);
        }
    }

    #[test]
    fn state_decay_and_optional_arguments() {
        let mut module = script("layers.pt", Kind::Double);
        let decay: Vec<_> = module
            .parameters()
            .iter()
            .map(|parameter| (parameter.name.as_str(), parameter.decay))
            .collect();
        let expected = [
            ("scale", true),
            ("block.dense.weight", true),
            ("block.dense.bias", false),
            ("block.norm.weight", false),
            ("block.norm.bias", false),
            ("batch.weight", true),
            ("batch.bias", false),
        ];
        assert_eq!(decay, expected);
        let kinds: Vec<_> = module
            .state_dict()
            .iter()
            .skip(7)
            .map(|(name, tensor)| (name.clone(), tensor.kind()))
            .collect();
        let buffers = [
            ("batch.running_mean", Kind::Double),
            ("batch.running_var", Kind::Double),
            ("batch.num_batches_tracked", Kind::Int64),
        ];
        assert_eq!(kinds, buffers.map(|(name, kind)| (name.to_owned(), kind)));
        assert!(
            module
                .parameters()
                .iter()
                .all(|parameter| parameter.tensor.kind() == Kind::Double)
        );

        let x = Tensor::from_slice(&[1.0_f32, -1.0, 0.5, 2.0]).view([2, 2]);
        let labels = Tensor::from_slice(&[0_i64, 2]);
        module.set_training(true).expect("a mode");
        let outputs = module
            .forward(&batch(&[("my_labels", labels), ("x", x.shallow_clone())]))
            .expect("a pass");
        assert_eq!(
            (names(&outputs), outputs.loss.is_some()),
            (vec!["logits", "output_1"], true)
        );
        let counted = |module: &Script| {
            module
                .buffers
                .iter()
                .find(|(name, _)| name.ends_with("tracked"))
                .expect("a counter")
                .1
                .int64_value(&[])
        };
        assert_eq!(counted(&module), 1, "in training mode statistics are kept");
        module.set_training(false).expect("a mode");
        let shift = Tensor::from_slice(&[10.0_f32]);
        let shifted = module
            .forward(&batch(&[("x", x.shallow_clone()), ("shift", shift)]))
            .expect("a pass");
        let plain = module.forward(&batch(&[("x", x)])).expect("a pass");
        assert!(
            (&shifted.fields[0].1 - &plain.fields[0].1 - 10.0)
                .abs()
                .max()
                .double_value(&[])
                < 1e-12
        );
        assert_eq!(counted(&module), 1);
    }

    #[test]
    fn a_missing_argument_is_named() {
        let mut module = script("layers.pt", Kind::Float);
        let error = module
            .forward(&batch(&[("y", Tensor::from(1.0))]))
            .expect_err("x is missing");
        assert_eq!(
            error.to_string(),
            "forward(x, shift, my_labels) needs x, but the batch has only y"
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = load(&ScriptOptions {
            path,
            kind: Kind::Float,
            label_names: None,
            device: Device::Cpu,
            fuses: false,
        })
        .expect_err("no module");
        assert!(
            error
                .to_string()
                .contains("Cargo.toml is not a TorchScript module"),
            "{error}"
        );
    }

    trait Shared {
        fn shared(&self) -> Self;
    }

    impl Shared for (&str, Tensor) {
        fn shared(&self) -> Self {
            (self.0, self.1.shallow_clone())
        }
    }
}

//! The layers that architectures are made of. Each calls the one libtorch operation that its PyTorch module calls, so
//! that results, gradients and random draws are the same; dropout calls a faster one with the same bits.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::watch::{Pass, Seen};
use crate::error::Failure;
use crate::torch;

/// `torch.nn.Linear` with a bias.
#[derive(Debug)]
pub struct Linear {
    /// Name of the module.
    pub name: String,
    /// Shape: outputs, inputs.
    pub weight: Tensor,
    /// Shape: outputs.
    pub bias: Tensor,
}

impl Linear {
    /// Applies it to the last dimension.
    pub fn forward(&self, input: &Tensor, pass: &Pass) -> Result<Tensor> {
        let output = input.f_linear(&self.weight, Some(&self.bias))?;
        pass.saw(&Seen {
            name: &self.name,
            class: "Linear",
            parameters: &[("weight", &self.weight), ("bias", &self.bias)],
            inputs: &[input],
            output: &output,
        })?;
        Ok(output)
    }
}

/// `torch.nn.LayerNorm` over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    /// Name of the module.
    pub name: String,
    /// Scale.
    pub weight: Tensor,
    /// Shift.
    pub bias: Tensor,
    /// Added to the variance.
    pub epsilon: f64,
}

impl LayerNorm {
    /// Normalises the last dimension.
    pub fn forward(&self, input: &Tensor, pass: &Pass) -> Result<Tensor> {
        let output = input.f_layer_norm(
            self.weight.size(),
            Some(&self.weight),
            Some(&self.bias),
            self.epsilon,
            true,
        )?;
        pass.saw(&Seen {
            name: &self.name,
            class: "LayerNorm",
            parameters: &[("weight", &self.weight), ("bias", &self.bias)],
            inputs: &[input],
            output: &output,
        })?;
        Ok(output)
    }
}

/// `torch.nn.Embedding`.
#[derive(Debug)]
pub struct Embedding {
    /// Name of the module.
    pub name: String,
    /// Shape: rows, width.
    pub weight: Tensor,
    /// The row that gets no gradient.
    pub padding: Option<i64>,
    /// What its ids are, for errors (`token id`).
    pub subject: &'static str,
}

impl Embedding {
    /// The rows of `ids`.
    pub fn forward(&self, ids: &Tensor, pass: &Pass) -> Result<Tensor> {
        let padding = self.padding.unwrap_or(-1);
        let output = Tensor::f_embedding(&self.weight, ids, padding, false, false)
            .map_err(|error| self.explain(ids).unwrap_or_else(|| error.into()))?;
        pass.saw(&Seen {
            name: &self.name,
            class: "Embedding",
            parameters: &[("weight", &self.weight)],
            inputs: &[ids],
            output: &output,
        })?;
        Ok(output)
    }

    /// Why libtorch refused `ids`: it checks the range itself, so the check costs nothing until it fails.
    fn explain(&self, ids: &Tensor) -> Option<anyhow::Error> {
        let rows = self.weight.size().first().copied()?;
        let ids = ids.f_to_kind(Kind::Int64).ok()?;
        let (smallest, largest) = ids.f_aminmax(None, false).ok()?;
        let wrong = [smallest, largest]
            .iter()
            .filter_map(|id| id.f_int64_value(&[]).ok())
            .find(|id| !(0..rows).contains(id))?;
        let message = format!(
            "{} {wrong} is out of range: the model has {rows}",
            self.subject
        );
        Some(
            Failure::data(message)
                .hint("the tokenizer and the weights must belong to the same model")
                .into(),
        )
    }
}

/// `torch.nn.Dropout`; draws from the default generator.
#[derive(Clone, Debug, PartialEq)]
pub struct Dropout {
    /// Name of the module.
    pub name: String,
    /// Probability of a zero.
    pub probability: f64,
}

impl Dropout {
    /// Zeroes elements while training.
    pub fn forward(&self, input: &Tensor, pass: &Pass) -> Result<Tensor> {
        let output = match pass.training {
            true => torch::dropout(input, self.probability)?,
            false => input.shallow_clone(),
        };
        pass.saw(&Seen {
            name: &self.name,
            class: "Dropout",
            parameters: &[],
            inputs: &[input],
            output: &output,
        })?;
        Ok(output)
    }
}

/// The activation functions that configurations name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Exact.
    Gelu,
    /// The approximation written out, as the original BERT code has it.
    GeluNew,
    /// The same approximation in one operation; rounds differently.
    GeluTanh,
    /// max(0, x)
    Relu,
    /// x * sigmoid(x)
    Silu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    const NAMES: [(&str, Self); 7] = [
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluNew),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
        ("tanh", Self::Tanh),
    ];

    /// The function with this name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, activation)| *activation)
            .ok_or_else(|| {
                let known: Vec<_> = Self::NAMES.iter().map(|(known, _)| *known).collect();
                Failure::data(format!(
                    "activation function {name:?} is not supported; known are {}",
                    known.join(", ")
                ))
                .into()
            })
    }

    /// Applies it to every element.
    pub fn forward(self, input: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gelu => input.f_gelu("none")?,
            Self::GeluTanh => input.f_gelu("tanh")?,
            Self::GeluNew => gelu_new(input)?,
            Self::Relu => input.f_relu()?,
            Self::Silu => input.f_silu()?,
            Self::Tanh => input.f_tanh()?,
        })
    }
}

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, in the order of the reference.
fn gelu_new(input: &Tensor) -> Result<Tensor> {
    let cubic = input.f_pow_tensor_scalar(3.0)?.f_mul_scalar(0.044715)?;
    let inner = input
        .f_add(&cubic)?
        .f_mul_scalar((2.0 / std::f64::consts::PI).sqrt())?;
    Ok(input
        .f_mul_scalar(0.5)?
        .f_mul(&inner.f_tanh()?.f_add_scalar(1.0)?)?)
}

#[cfg(test)]
mod tests {
    use super::{Activation, Embedding, Pass};
    use tch::{Kind, Tensor};

    #[test]
    fn activations_have_their_published_values() {
        // Values of PyTorch and transformers at x = 0.5 and -1.5.
        let cases = [
            ("gelu", [0.345_731_23, -0.100_210_8]),
            ("gelu_new", [0.345_714, -0.100_427_98]),
            ("gelu_pytorch_tanh", [0.345_714, -0.100_427_98]),
            ("relu", [0.5, 0.0]),
            ("silu", [0.311_229_67, -0.273_638_28]),
            ("tanh", [0.462_117_16, -0.905_148_27]),
        ];
        let input = Tensor::from_slice(&[0.5_f64, -1.5]);
        for (name, expected) in cases {
            let output = Activation::parse(name)
                .and_then(|activation| activation.forward(&input))
                .expect("a value");
            for (index, expected) in expected.iter().enumerate() {
                let value = output.f_double_value(&[index as i64]).expect("a number");
                assert!(
                    (value - expected).abs() < 1e-6,
                    "{name}: {value} {expected}"
                );
            }
        }
        assert!(Activation::parse("geglu").is_err());
    }

    #[test]
    fn an_id_outside_the_table_is_named() {
        let weight = Tensor::zeros([4, 2], (Kind::Float, tch::Device::Cpu));
        let embedding = Embedding {
            name: "words".to_owned(),
            weight,
            padding: Some(0),
            subject: "token id",
        };
        let pass = Pass::default();
        assert!(
            embedding
                .forward(&Tensor::from_slice(&[0_i64, 3]), &pass)
                .is_ok()
        );
        for wrong in [4_i64, -1] {
            let error = embedding
                .forward(&Tensor::from_slice(&[0_i64, wrong]), &pass)
                .expect_err("out of range");
            assert_eq!(
                error.to_string(),
                format!("token id {wrong} is out of range: the model has 4")
            );
        }
    }
}

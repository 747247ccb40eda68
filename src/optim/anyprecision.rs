//! torchdistx's `AnyPrecisionAdamW` as 4.34 makes it (`adamw_anyprecision`): moments of any floating point type and, for
//! weights of half precision, Kahan's summation, which keeps what rounding takes from an update for the next one.

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup};
use crate::torch::{self, UpdateRule};

const SETTINGS: &[&str] = &[
    "use_kahan_summation",
    "momentum_dtype",
    "variance_dtype",
    "compensation_buffer_dtype",
];

/// The names that Python's `getattr(torch, name)` finds.
const DTYPES: &[(&str, Kind)] = &[
    ("float32", Kind::Float),
    ("float", Kind::Float),
    ("bfloat16", Kind::BFloat16),
    ("float16", Kind::Half),
    ("half", Kind::Half),
    ("float64", Kind::Double),
    ("double", Kind::Double),
];

/// Over groups. Settings: `use_kahan_summation` (false), `momentum_dtype` and `variance_dtype` (float32),
/// `compensation_buffer_dtype` (bfloat16).
pub fn create(choice: &OptimizerChoice, groups: Vec<ParameterGroup>) -> Result<Box<dyn Optimizer>> {
    let options = &choice.options;
    options.only("adamw_anyprecision", SETTINGS)?;
    let dtype =
        |key: &str, default: Kind| anyhow::Ok(options.one_of(key, DTYPES)?.unwrap_or(default));
    let rule = Anyprecision {
        adam: choice.adam.checked()?,
        momentum: dtype("momentum_dtype", Kind::Float)?,
        variance: dtype("variance_dtype", Kind::Float)?,
        compensation: dtype("compensation_buffer_dtype", Kind::BFloat16)?,
        kahan: options.flag("use_kahan_summation")?.unwrap_or(false),
    };
    Ok(Box::new(Buffered::new(groups, rule)?))
}

#[derive(Debug)]
struct Anyprecision {
    adam: OptimizerSettings,
    momentum: Kind,
    variance: Kind,
    compensation: Kind,
    kahan: bool,
}

fn name(kind: Kind) -> &'static str {
    let known = DTYPES.iter().find(|(_, other)| *other == kind);
    known.map_or("float32", |(name, _)| name)
}

impl Rule for Anyprecision {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        let mut buffers = vec![
            Buffer::like("exp_avg", parameter)?.of_kind(self.momentum),
            Buffer::like("exp_avg_sq", parameter)?.of_kind(self.variance),
        ];
        if self.kahan {
            buffers.push(Buffer::like("compensation", parameter)?.of_kind(self.compensation));
        }
        Ok(buffers)
    }

    fn update(
        &mut self,
        _index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let updated: Vec<_> = active.iter().map(Active::updated).collect();
        torch::update_step(
            UpdateRule::Anyprecision,
            &updated,
            &self.adam.of_step(group),
        )
    }

    fn hyperparameters(&self, _index: usize) -> Vec<(&'static str, Value)> {
        vec![
            ("betas", json!([self.adam.beta1, self.adam.beta2])),
            ("eps", json!(self.adam.epsilon)),
            ("use_kahan_summation", json!(self.kahan)),
            ("momentum_dtype", json!(name(self.momentum))),
            ("variance_dtype", json!(name(self.variance))),
            ("compensation_buffer_dtype", json!(name(self.compensation))),
        ]
    }

    /// The types of the buffers are those of the arguments: what is read is converted.
    fn adopt(&mut self, _index: usize, saved: &Map<String, Value>) {
        self.adam.adopt(saved);
    }
}

//! The optimizers of bitsandbytes: AdamW and Lion with a state of 32 bits, or of 8 bits in blocks that share a scale.
//!
//! A state of 8 bits is a code for each element, the largest absolute value of each block of 256 elements, and a map from
//! codes to values between -1 and 1 that is dense near 0. Blocks have 256 elements as in all releases since 0.44; before,
//! they had 2048, so checkpoints of those do not fit. Parameters below 4096 elements keep 32 bits. Paging moves states
//! between GPU and main memory without changing a number: on a CPU the paged names mean the same as the others.
//!
//! Numbers: bitsandbytes 0.50.2 on a CPU, with the quantiser of its portable implementation (`tests/fixtures/optimizers`).

use anyhow::Result;
use serde_json::{Map, Value, json};
use tch::{Kind, Tensor};

use super::buffered::{Active, Buffer, Buffered, Rule};
use super::state::{self, Entry};
use super::{Optimizer, OptimizerChoice, OptimizerSettings, ParameterGroup};
use crate::torch::{self, UpdateRule, Updated};

/// Elements that share a scale.
const BLOCK: usize = 256;
/// Parameters with fewer elements keep 32 bits.
const LEAST_ELEMENTS: usize = 4096;

/// Size of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// float32
    ThirtyTwo,
    /// Codes and scales.
    Eight,
}

/// AdamW over groups.
pub fn adamw(
    choice: &OptimizerChoice,
    groups: Vec<ParameterGroup>,
    bits: Bits,
) -> Result<Box<dyn Optimizer>> {
    create(choice, groups, (Family::AdamW, bits))
}

/// Lion over groups.
pub fn lion(
    choice: &OptimizerChoice,
    groups: Vec<ParameterGroup>,
    bits: Bits,
) -> Result<Box<dyn Optimizer>> {
    create(choice, groups, (Family::Lion, bits))
}

fn create(
    choice: &OptimizerChoice,
    groups: Vec<ParameterGroup>,
    (family, bits): (Family, Bits),
) -> Result<Box<dyn Optimizer>> {
    choice.options.only(&choice.name, &[])?;
    let rule = Quantised {
        adam: choice.adam.checked()?,
        family,
        bits,
        maps: [
            DynamicMap::new(Sign::Both)?,
            DynamicMap::new(Sign::Positive)?,
        ],
    };
    Ok(Box::new(Buffered::new(groups, rule)?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    AdamW,
    Lion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Both,
    Positive,
}

/// bitsandbytes' `create_dynamic_map`: 256 values, ascending. Seven decades, each with twice the values of the one below,
/// at the middles of even intervals, then 0 and 1.
fn dynamic_map(sign: Sign) -> Result<Tensor> {
    const DECADES: i32 = 7;
    let mut values = vec![0.0_f32, 1.0];
    for decade in 0..DECADES {
        let intervals = 1_i64 << (decade + i32::from(sign == Sign::Positive));
        let ends = Tensor::f_linspace(0.1, 1.0, intervals + 1, (Kind::Float, tch::Device::Cpu))?;
        let (low, high) = (
            ends.f_narrow(0, 0, intervals)?,
            ends.f_narrow(0, 1, intervals)?,
        );
        let middles = Vec::<f32>::try_from(low.f_add(&high)?.f_div_scalar(2.0)?)?;
        // Python's 10 ** -6 and its float32 tensor times a float.
        let scale = 10_f64.powi(decade - (DECADES - 1)) as f32;
        for middle in middles {
            values.push(scale * middle);
            if sign == Sign::Both {
                values.push(-scale * middle);
            }
        }
    }
    values.sort_by(f32::total_cmp);
    Ok(Tensor::f_from_slice(&values)?)
}

/// Values of codes, and what makes looking for the nearest one fast.
#[derive(Debug)]
struct DynamicMap {
    values: Tensor,
    table: Tensor,
}

impl DynamicMap {
    fn new(sign: Sign) -> Result<Self> {
        let values = dynamic_map(sign)?;
        let table = torch::quantisation_table(&values)?;
        Ok(Self { values, table })
    }
}

#[derive(Debug)]
struct Quantised {
    adam: OptimizerSettings,
    family: Family,
    bits: Bits,
    /// Of first moments, and of second ones, which are never negative.
    maps: [DynamicMap; 2],
}

impl Quantised {
    fn is_small(&self, parameter: &Tensor) -> bool {
        self.bits == Bits::ThirtyTwo || parameter.numel() < LEAST_ELEMENTS
    }

    /// The states of a step: codes and scales of every moment with their map.
    fn with_maps<'a>(&'a self, active: &Active<'a>) -> Updated<'a> {
        let mut updated = active.updated();
        let moments = active.slot.buffers.chunks(2).zip(&self.maps);
        updated.states = moments
            .flat_map(|(moment, map)| moment.iter().chain([&map.values, &map.table]))
            .collect();
        updated
    }
}

impl Rule for Quantised {
    fn buffers(&self, _name: &str, parameter: &Tensor) -> Result<Vec<Buffer>> {
        let moments = [("state1", "absmax1"), ("state2", "absmax2")];
        let moments = &moments[..if self.family == Family::AdamW { 2 } else { 1 }];
        let blocks = parameter.numel().div_ceil(BLOCK) as i64;
        let mut buffers = Vec::new();
        for (key, scales) in moments {
            let state = Buffer::like(key, parameter)?;
            if !self.is_small(parameter) {
                buffers.push(state.of_kind(Kind::Uint8));
                let (shape, kind) = (vec![blocks], Kind::Float);
                buffers.push(Buffer {
                    key: scales,
                    shape,
                    kind,
                });
            } else if state.kind == Kind::Double {
                buffers.push(state);
            } else {
                buffers.push(state.of_kind(Kind::Float));
            }
        }
        Ok(buffers)
    }

    /// bitsandbytes saves its maps with every parameter.
    fn take_constants(&self, name: &str, entry: &mut Entry) -> Result<()> {
        for (key, map) in ["qmap1", "qmap2"].into_iter().zip(&self.maps) {
            let Some(saved) = entry.remove(key) else {
                continue;
            };
            if saved.f_to_device(map.values.device())? != map.values {
                return Err(state::misfit(format!("{key} of {name} is another map")).into());
            }
        }
        Ok(())
    }

    fn update(
        &mut self,
        _index: usize,
        group: &ParameterGroup,
        active: &[Active<'_>],
    ) -> Result<()> {
        let settings = self.adam.of_step(group);
        if let Some(Active { parameter, .. }) = active.first() {
            for map in &mut self.maps {
                // A table is for a search on the CPU; to move what is there already costs nothing.
                map.values = map.values.f_to_device(parameter.device())?;
            }
        }
        let (small, large): (Vec<_>, Vec<_>) = active
            .iter()
            .partition(|active| self.is_small(active.parameter));
        let (rule32, rule8) = match self.family {
            Family::AdamW => (UpdateRule::Adamw32bit, UpdateRule::Adamw8bit),
            Family::Lion => (UpdateRule::Lion32bit, UpdateRule::Lion8bit),
        };
        let small: Vec<_> = small.into_iter().map(Active::updated).collect();
        torch::update_step(rule32, &small, &settings)?;
        let large: Vec<_> = large.into_iter().map(|one| self.with_maps(one)).collect();
        torch::update_step(rule8, &large, &settings)
    }

    fn hyperparameters(&self, _index: usize) -> Vec<(&'static str, Value)> {
        vec![
            ("betas", json!([self.adam.beta1, self.adam.beta2])),
            ("eps", json!(self.adam.epsilon)),
        ]
    }

    fn adopt(&mut self, _index: usize, saved: &Map<String, Value>) {
        match self.family {
            Family::AdamW => self.adam.adopt(saved),
            // bitsandbytes' Lion saves an epsilon that it does not use.
            Family::Lion => self.adam.adopt_betas(state::betas(saved)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sign, dynamic_map};
    use crate::checkpoint::load;
    use std::path::Path;

    #[test]
    fn the_maps_are_those_of_bitsandbytes() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/optimizers/eight_bits.safetensors");
        let recorded = load::read_tensors(&fixture).expect("the fixture").tensors;
        for (name, sign) in [("map.signed", Sign::Both), ("map.unsigned", Sign::Positive)] {
            let found = recorded.iter().find(|(key, _)| key == name);
            let (_, expected) = found.expect("a map");
            assert_eq!(dynamic_map(sign).expect("a map"), *expected, "{name}");
        }
    }
}

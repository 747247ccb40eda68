//! Mixed precision: the forward pass under autocast with outputs in float32, and the scaling of losses (spec 3.9).

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use crate::torch::Autocast;

mod scaler;

pub use scaler::{DynamicScaler, Scaler};

/// How a run computes. The default computes in the types of the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// Autocast the forward pass to this type, in training and in evaluation.
    pub autocast: Option<Kind>,
    /// The parameters themselves were cast to half precision for training; outputs are float32 all the same.
    pub half_model: bool,
    /// Cast the parameters to this type at the first evaluation outside training; they stay so.
    pub full_evaluation: Option<Kind>,
}

impl Precision {
    /// Autocast on `device` while the result lives, if the run has it.
    pub fn autocast_on(&self, device: Device) -> Result<Option<Autocast>> {
        self.autocast
            .map(|kind| Autocast::enable(device.is_cuda(), kind))
            .transpose()
    }
}

/// A half-precision tensor as float32; any other as it is. Losses outside the model are computed in float32.
pub fn in_float32(tensor: Tensor) -> Result<Tensor> {
    Ok(match tensor.f_kind()? {
        Kind::BFloat16 | Kind::Half => tensor.f_to_kind(Kind::Float)?,
        _ => tensor,
    })
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::{Precision, in_float32};

    #[test]
    fn products_are_cast_while_the_guard_lives() {
        let precision = Precision {
            autocast: Some(Kind::BFloat16),
            ..Precision::default()
        };
        let one = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let product = || one.matmul(&one).kind();
        let guard = precision.autocast_on(Device::Cpu).expect("autocast");
        assert_eq!(product(), Kind::BFloat16);
        drop(guard);
        assert_eq!(product(), Kind::Float);
        let none = Precision::default().autocast_on(Device::Cpu);
        assert!(none.expect("no error").is_none());
    }

    #[test]
    fn only_half_precision_becomes_float32() {
        for (kind, expected) in [
            (Kind::BFloat16, Kind::Float),
            (Kind::Half, Kind::Float),
            (Kind::Float, Kind::Float),
            (Kind::Double, Kind::Double),
            (Kind::Int64, Kind::Int64),
        ] {
            let tensor = Tensor::zeros([1], (kind, Device::Cpu));
            assert_eq!(in_float32(tensor).expect("a tensor").kind(), expected);
        }
    }
}

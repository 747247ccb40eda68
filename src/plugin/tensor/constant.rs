//! Numbers as tensors. tch's own `Scalar` is not used: when libtorch refuses an operation that was given one, tch panics
//! while it frees the scalar instead of returning the error.

use tch::{Device, Kind, TchError, Tensor};

use super::rules::{is_float, whole};

type Made = Result<Tensor, TchError>;

/// A tensor without dimensions.
pub(super) fn constant(kind: Kind, value: f64, device: Device) -> Made {
    let number = match whole(value) {
        Some(whole) if !is_float(kind) => Tensor::f_from_slice(&[whole])?,
        _ => Tensor::f_from_slice(&[value])?,
    };
    number
        .f_reshape([0_i64; 0])?
        .f_to_kind(kind)?
        .f_to_device(device)
}

/// A number as the other operand of arithmetic with a tensor: it decides between whole and real, but never on the width.
pub(super) fn number(tensor: &Tensor, value: f64) -> Made {
    let kind = match (tensor.f_kind()?, whole(value)) {
        (kind, _) if is_float(kind) => kind,
        (_, None) => Kind::Float,
        (Kind::Bool, Some(_)) => Kind::Int64,
        (kind, Some(_)) => kind,
    };
    constant(kind, value, tensor.device())
}

/// A tensor and a number in a type in which they can be compared without loss.
pub(super) fn compared(tensor: &Tensor, value: f64) -> Result<(Tensor, Tensor), TchError> {
    let kind = match (tensor.f_kind()?, whole(value)) {
        (kind, _) if is_float(kind) => kind,
        (_, Some(_)) => Kind::Int64,
        (_, None) => Kind::Double,
    };
    Ok((
        tensor.f_to_kind(kind)?,
        constant(kind, value, tensor.device())?,
    ))
}

/// A tensor with one value everywhere.
pub(super) fn filled(dims: &[i64], value: &Tensor) -> Made {
    let mut tensor = Tensor::f_empty(dims, (value.f_kind()?, value.device()))?;
    tensor.f_copy_(value)?;
    Ok(tensor)
}

/// The p-norm, computed in float32 or float64.
pub(super) fn norm(tensor: &Tensor, p: f64, (dims, keep_dim): (&[i64], bool)) -> Made {
    let kind = tensor.f_kind()?;
    let work = if kind == Kind::Double {
        Kind::Double
    } else {
        Kind::Float
    };
    let sizes = tensor.f_to_kind(work)?.f_abs()?;
    let number = |value| constant(work, value, tensor.device());
    let result = if p == f64::INFINITY {
        sizes.f_amax(dims, keep_dim)?
    } else if p == f64::NEG_INFINITY {
        sizes.f_amin(dims, keep_dim)?
    } else if p == 0.0 {
        sizes
            .f_ne_tensor(&number(0.0)?)?
            .f_sum_dim_intlist(dims, keep_dim, work)?
    } else if p == 1.0 {
        sizes.f_sum_dim_intlist(dims, keep_dim, work)?
    } else if p == 2.0 {
        sizes
            .f_mul(&sizes)?
            .f_sum_dim_intlist(dims, keep_dim, work)?
            .f_sqrt()?
    } else {
        sizes
            .f_pow(&number(p)?)?
            .f_sum_dim_intlist(dims, keep_dim, work)?
            .f_pow(&number(1.0 / p)?)?
    };
    result.f_to_kind(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_those_of_libtorch() {
        let tensor = Tensor::from_slice2(&[[3.0_f32, -4.0, 0.0], [1.0, 2.0, -2.0]]);
        for p in [0.0, 1.0, 2.0, 3.0, 0.5, f64::INFINITY, f64::NEG_INFINITY] {
            let ours = norm(&tensor, p, (&[1], false)).expect("a norm");
            let theirs = tensor
                .f_norm_scalaropt_dim(p, [1_i64], false)
                .expect("a norm");
            assert!(
                ours.allclose(&theirs, 1e-6, 1e-6, false),
                "{p}: {ours} {theirs}"
            );
        }
    }

    #[test]
    fn a_comparison_is_exact_whatever_the_type() {
        let equal = |tensor: &Tensor, value| {
            let (left, right) = compared(tensor, value).expect("operands");
            bool::try_from(left.f_eq_tensor(&right).expect("compared")).expect("one value")
        };
        // 1000 is 232 in eight bits; 2^53 + 1 is 2^53 in float64.
        assert!(!equal(&Tensor::from(-24_i8), 1000.0));
        assert!(!equal(
            &Tensor::from((1_i64 << 53) + 1),
            9_007_199_254_740_992.0
        ));
        assert!(!equal(&Tensor::from(1_i64), 1.5));
        assert!(equal(&Tensor::from(-100_i64), -100.0));
    }
}

//! Clipping by the common L2 norm of all gradients (field 18).

use anyhow::Result;
use tch::Tensor;

use crate::torch;

/// Scales gradients so that their norm is at most `max_norm`, and returns the norm before. `None` or a norm that is not
/// positive turns clipping off; then nothing is measured.
pub fn clip(parameters: &[Tensor], max_norm: Option<f64>) -> Result<Option<f64>> {
    match max_norm {
        Some(max_norm) if max_norm > 0.0 => torch::clip_gradients(parameters, max_norm).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::clip;
    use tch::Tensor;

    #[test]
    fn the_norm_is_over_all_gradients() {
        for (max_norm, expected) in [
            (Some(1.0), [0.6, 0.8]),
            (Some(10.0), [3.0, 4.0]),
            (Some(0.0), [3.0, 4.0]),
            (None, [3.0, 4.0]),
        ] {
            let parameters: Vec<_> = [3.0_f32, 4.0]
                .iter()
                .map(|_| Tensor::from(1.0_f32).set_requires_grad(true))
                .collect();
            (&parameters[0] * 3.0 + &parameters[1] * 4.0).backward();
            let norm = clip(&parameters, max_norm).expect("gradients");
            assert_eq!(norm, max_norm.filter(|norm| *norm > 0.0).map(|_| 5.0));
            for (parameter, expected) in parameters.iter().zip(expected) {
                assert!(
                    (parameter.grad().double_value(&[]) - expected).abs() < 1e-6,
                    "{max_norm:?}"
                );
            }
        }
    }
}

//! Parameter groups of the reference (spec 4.2): group 0 decays, group 1 does not; frozen parameters are in neither.

use tch::Tensor;

use super::ParameterGroup;
use crate::error::Failure;

/// A parameter as a model has it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Name in the state dict.
    pub name: &'a str,
    /// The leaf tensor.
    pub tensor: &'a Tensor,
    /// Whether weight decay applies: not a bias, not inside a LayerNorm.
    pub decay: bool,
}

/// Both groups in model order; an empty one is kept.
pub fn build(
    parameters: &[Member<'_>],
    learning_rate: f64,
    weight_decay: f64,
) -> Vec<ParameterGroup> {
    let group = |decay: bool, weight_decay: f64| {
        let members = || {
            parameters.iter().filter(move |parameter| {
                parameter.decay == decay && parameter.tensor.requires_grad()
            })
        };
        ParameterGroup {
            parameters: members()
                .map(|parameter| parameter.tensor.shallow_clone())
                .collect(),
            names: members()
                .map(|parameter| parameter.name.to_owned())
                .collect(),
            learning_rate,
            initial_learning_rate: learning_rate,
            weight_decay,
        }
    };
    vec![group(true, weight_decay), group(false, 0.0)]
}

/// What torch's constructors refuse.
pub(super) fn check(groups: &[ParameterGroup]) -> Result<(), Failure> {
    for group in groups {
        for (name, value) in [
            ("learning_rate", group.learning_rate),
            ("weight_decay", group.weight_decay),
        ] {
            if !value.is_finite() || value < 0.0 {
                return Err(Failure::usage(format!(
                    "{name} {value} is not a number of at least 0"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Member, build};
    use tch::Tensor;

    #[test]
    fn only_linear_weights_decay() {
        // Rows 70 and 82; `a.weight` is frozen.
        let frozen = Tensor::from_slice(&[1.0_f32, 2.0]);
        let trainable = frozen.copy().set_requires_grad(true);
        let member = |name, tensor, decay| Member {
            name,
            tensor,
            decay,
        };
        let parameters = [
            member("a.weight", &frozen, true),
            member("b.weight", &trainable, true),
            member("b.bias", &trainable, false),
            member("norm.weight", &trainable, false),
        ];
        let groups = build(&parameters, 0.5, 0.1);
        assert_eq!(groups[0].names, ["b.weight"]);
        assert_eq!(groups[1].names, ["b.bias", "norm.weight"]);
        assert_eq!([groups[0].weight_decay, groups[1].weight_decay], [0.1, 0.0]);
        let empty = build(&parameters[2..], 0.5, 0.1);
        assert_eq!(
            [
                empty.len(),
                empty[0].parameters.len(),
                empty[1].parameters.len()
            ],
            [2, 0, 2]
        );
    }
}

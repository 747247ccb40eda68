//! Python's `round(x, k)`: the nearest decimal, exact ties to even.

/// Rounds to `digits` decimals as Python does: both format the exact binary value correctly rounded.
pub fn round(value: f64, digits: usize) -> f64 {
    if !value.is_finite() {
        return value;
    }
    // Infallible: the text is a decimal number.
    format!("{value:.digits$}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn ties_go_to_even() {
        let cases = [
            (0.625, 2, 0.62),
            (0.875, 2, 0.88),
            (2.675, 2, 2.67),
            (0.693_021_7, 4, 0.693),
            (-0.125, 2, -0.12),
        ];
        for (value, digits, expected) in cases {
            assert_eq!(
                round(value, digits).to_bits(),
                f64::to_bits(expected),
                "round({value}, {digits})"
            );
        }
        assert!(round(f64::NAN, 4).is_nan());
    }
}

//! What a log entry says of speed (spec 3.7, 3.8): seconds, and samples and steps per second.

use std::time::Duration;

use super::round;

/// What was done, or planned, in some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub samples: u64,
    pub steps: u64,
}

/// `<prefix>_runtime` and, unless no time has passed, both speeds.
pub(super) fn metrics(prefix: &str, runtime: Duration, work: Work) -> Vec<(String, f64)> {
    let seconds = runtime.as_secs_f64();
    let mut metrics = vec![(format!("{prefix}_runtime"), round(seconds, 4))];
    if seconds > 0.0 {
        for (name, amount) in [("samples", work.samples), ("steps", work.steps)] {
            let speed = round(amount as f64 / seconds, 3);
            metrics.push((format!("{prefix}_{name}_per_second"), speed));
        }
    }
    metrics
}

/// `<prefix>_tokens_per_second`, if tokens were counted and time has passed.
pub(super) fn tokens(prefix: &str, runtime: Duration, count: Option<f64>) -> Option<(String, f64)> {
    let seconds = runtime.as_secs_f64();
    let speed = round(count.filter(|_| seconds > 0.0)? / seconds, 3);
    Some((format!("{prefix}_tokens_per_second"), speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_rounded_and_left_out_without_time() {
        let work = Work {
            samples: 64,
            steps: 8,
        };
        let expected = [
            ("eval_runtime".to_owned(), 3.0),
            ("eval_samples_per_second".to_owned(), 21.333),
            ("eval_steps_per_second".to_owned(), 2.667),
        ];
        assert_eq!(metrics("eval", Duration::from_secs(3), work), expected);
        assert_eq!(metrics("eval", Duration::ZERO, work).len(), 1);
    }
}

//! Factors by the step, from a rule (`piecewise`, which 4.34 documents and does not have; spec 4.1).

use anyhow::Result;

use super::{Schedule, ScheduleSettings};
use crate::error::Failure;
use crate::optim::Options;

#[derive(Debug)]
struct Piecewise {
    settings: ScheduleSettings,
    /// Factors with the step before which they hold, ascending.
    pieces: Vec<(f64, u64)>,
    last: f64,
}

/// The setting `rule`, such as `1:10,0.1:20,0.01`: factor 1 before step 10, 0.1 before step 20, then 0.01. While warm-up
/// lasts it counts alone.
pub fn schedule(settings: ScheduleSettings, options: &Options) -> Result<Box<dyn Schedule>> {
    options.only("piecewise", &["rule"])?;
    let Some(rule) = options.word("rule")? else {
        return Err(Failure::usage("piecewise needs a rule, such as rule=1:10,0.1:20,0.01").into());
    };
    let (pieces, last) = read(&rule).ok_or_else(|| {
        Failure::usage(format!(
            "rule {rule} is not factor:step,...,factor with ascending steps"
        ))
    })?;
    Ok(Box::new(Piecewise {
        settings,
        pieces,
        last,
    }))
}

fn read(rule: &str) -> Option<(Vec<(f64, u64)>, f64)> {
    let factor = |text: &str| {
        let factor: f64 = text.trim().parse().ok()?;
        (factor.is_finite() && factor >= 0.0).then_some(factor)
    };
    let (pieces, last) = match rule.rsplit_once(',') {
        Some((pieces, last)) => (pieces.split(',').collect(), last),
        None => (Vec::new(), rule),
    };
    let piece = |text: &str| {
        let (value, step) = text.split_once(':')?;
        Some((factor(value)?, step.trim().parse().ok()?))
    };
    let pieces = pieces.into_iter().map(piece).collect::<Option<Vec<_>>>()?;
    let ascends = pieces.windows(2).all(|pair| pair[0].1 < pair[1].1);
    ascends.then_some((pieces, factor(last)?))
}

impl Schedule for Piecewise {
    fn factor(&self, step: u64) -> f64 {
        self.settings.warmup(step).unwrap_or_else(|| {
            let piece = self.pieces.iter().find(|(_, end)| step < *end);
            piece.map_or(self.last, |(factor, _)| *factor)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn rules_are_read_or_refused() {
        let expected = (vec![(1.0, 10), (0.1, 20)], 0.01);
        assert_eq!(read("1:10,0.1:20,0.01"), Some(expected));
        assert_eq!(read("0.5"), Some((vec![], 0.5)));
        for rule in [
            "",
            "1:10",
            "1:10,0.1:10,0.01",
            "1:20,0.1:10,0",
            "x:1,0",
            "1:-1,0",
            "nan",
            "-1",
        ] {
            assert_eq!(read(rule), None, "{rule}");
        }
    }
}

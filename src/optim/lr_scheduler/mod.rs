//! Learning-rate schedules (spec 4.1): factors of the initial rate by the number of steps done, and one schedule that
//! waits for a metric. Rates are computed in f64 in the order of the reference's Python, so they are equal to the last
//! digit.

use anyhow::Result;

use super::{Options, ParameterGroup};
use crate::checkpoint::Stateful;
use crate::error::Failure;

mod adafactor;
mod constant;
mod constant_with_warmup;
mod cosine;
mod cosine_with_restarts;
mod exponential;
mod inverse_sqrt;
mod lambda;
mod linear;
mod piecewise;
mod plateau;
mod polynomial;
mod warmup_stable_decay;

pub use adafactor::AdafactorScheduler;
pub use lambda::LambdaScheduler;
pub use plateau::PlateauScheduler;

/// Sets the groups' learning rates during a run.
pub trait LrScheduler: Stateful {
    /// After an optimizer step. Nothing happens in a schedule that is [per evaluation](Self::is_per_evaluation).
    fn step(&mut self, groups: &mut [ParameterGroup]);
    /// After an evaluation, with the metric that is watched. Nothing happens in a schedule of steps.
    fn step_with_metric(&mut self, groups: &mut [ParameterGroup], metric: f64);
    /// Whether it is stepped with a metric.
    fn is_per_evaluation(&self) -> bool;
    /// The rates that it set last, one for each group.
    fn last_rates(&self) -> &[f64];
    /// Sets the groups to the rates of the present step; for the moment after loading a state.
    fn apply(&mut self, groups: &mut [ParameterGroup]);
}

/// A factor of the initial rate.
pub trait Schedule: std::fmt::Debug {
    /// The factor after `step` scheduler steps; 0 is the first optimizer step.
    fn factor(&self, step: u64) -> f64;
}

/// What schedules are made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleSettings {
    /// Steps in which the rate rises from 0.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
    /// Peak rate.
    pub learning_rate: f64,
}

impl ScheduleSettings {
    /// `s / max(1, w)` while `s < w`.
    fn warmup(&self, step: u64) -> Option<f64> {
        (step < self.warmup_steps).then(|| step as f64 / self.warmup_steps.max(1) as f64)
    }

    /// `(s - w) / max(1, T - w)`
    fn progress(&self, step: u64) -> f64 {
        (step - self.warmup_steps) as f64 / self.decay_steps()
    }

    /// `max(1, T - w)`
    fn decay_steps(&self) -> f64 {
        self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64
    }
}

/// How a schedule is made.
#[derive(Clone, Copy)]
enum Make {
    Steps(fn(ScheduleSettings, &Options) -> Result<Box<dyn Schedule>>),
    Plateau,
}

#[rustfmt::skip]
const BUILTIN: &[(&str, Make)] = &[
    ("linear", Make::Steps(linear::schedule)),
    ("cosine", Make::Steps(cosine::schedule)),
    ("cosine_with_restarts", Make::Steps(cosine_with_restarts::schedule)),
    ("polynomial", Make::Steps(polynomial::schedule)),
    ("constant", Make::Steps(constant::schedule)),
    ("constant_with_warmup", Make::Steps(constant_with_warmup::schedule)),
    ("inverse_sqrt", Make::Steps(inverse_sqrt::schedule)),
    ("reduce_lr_on_plateau", Make::Plateau),
    ("piecewise", Make::Steps(piecewise::schedule)),
    ("exponential", Make::Steps(exponential::schedule)),
    ("cosine_with_min_lr", Make::Steps(cosine::with_min_lr)),
    ("warmup_stable_decay", Make::Steps(warmup_stable_decay::schedule)),
];

/// The schedule with this name (field 21) and with what only it has (`lr_scheduler_kwargs`), with the groups set to the
/// rates of the first step.
pub fn create(
    (name, options): (&str, &Options),
    settings: ScheduleSettings,
    groups: &mut [ParameterGroup],
) -> Result<Box<dyn LrScheduler>> {
    match BUILTIN
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, make)| *make)
    {
        Some(Make::Steps(make)) => {
            let schedule = make(settings, options)?;
            Ok(Box::new(LambdaScheduler::new(schedule, groups)))
        }
        Some(Make::Plateau) => Ok(Box::new(PlateauScheduler::new(options, groups)?)),
        None => {
            let known: Vec<_> = BUILTIN.iter().map(|(known, _)| *known).collect();
            Err(Failure::usage(format!(
                "lr_scheduler_type {name:?} is not known; expected one of {}",
                known.join(", ")
            ))
            .into())
        }
    }
}

/// A saved schedule state that is not one of this schedule.
fn misfit(what: &str) -> Failure {
    Failure::data(format!("the schedule state does not fit: {what}"))
}

/// A list of numbers in a saved schedule state.
fn numbers(state: &serde_json::Value, key: &str) -> Option<Vec<f64>> {
    let values = state.get(key)?.as_array()?;
    values.iter().map(serde_json::Value::as_f64).collect()
}

#[cfg(test)]
mod tests {
    use super::{Options, ScheduleSettings, create};
    use crate::optim::ParameterGroup;
    use crate::optim::options::testing::options;
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn groups(learning_rate: f64) -> Vec<ParameterGroup> {
        let group = || ParameterGroup {
            parameters: Vec::new(),
            names: Vec::new(),
            learning_rate,
            initial_learning_rate: learning_rate,
            weight_decay: 0.0,
        };
        vec![group(), group()]
    }

    fn rates(name: &str, settings: ScheduleSettings, count: usize) -> Vec<f64> {
        let mut groups = groups(settings.learning_rate);
        let mut scheduler =
            create((name, &Options::default()), settings, &mut groups).expect("a schedule");
        let mut rates = Vec::new();
        for _ in 0..count {
            assert_eq!(
                scheduler.last_rates(),
                [groups[0].learning_rate, groups[1].learning_rate]
            );
            rates.push(groups[0].learning_rate);
            scheduler.step(&mut groups);
        }
        rates
    }

    const RECORDED: ScheduleSettings = ScheduleSettings {
        warmup_steps: 2,
        total_steps: 10,
        learning_rate: 10.0,
    };

    #[test]
    fn the_recorded_values_come_out() {
        // Row 72: the values of 4.1.

        // Spec 4.1: rate 10, warm-up 2, 10 steps.
        let cases: [(&str, [f64; 12]); 6] = [
            (
                "linear",
                [
                    0.0, 5.0, 10.0, 8.75, 7.5, 6.25, 5.0, 3.75, 2.5, 1.25, 0.0, 0.0,
                ],
            ),
            (
                "cosine",
                [
                    0.0, 5.0, 10.0, 9.619398, 8.535534, 6.913417, 5.0, 3.086583, 1.464466,
                    0.380602, 0.0, 0.380602,
                ],
            ),
            (
                "cosine_with_restarts",
                [
                    0.0, 5.0, 10.0, 9.619398, 8.535534, 6.913417, 5.0, 3.086583, 1.464466,
                    0.380602, 0.0, 0.0,
                ],
            ),
            ("constant", [10.0; 12]),
            (
                "constant_with_warmup",
                [
                    0.0, 5.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0,
                ],
            ),
            (
                "inverse_sqrt",
                [
                    0.0, 5.0, 10.0, 8.164966, 7.071068, 6.324555, 5.773503, 5.345225, 5.0,
                    4.714045, 4.472136, 4.264014,
                ],
            ),
        ];
        for (name, expected) in cases {
            for (step, (rate, expected)) in rates(name, RECORDED, 12)
                .into_iter()
                .zip(expected)
                .enumerate()
            {
                assert!(
                    (rate - expected).abs() < 1e-6,
                    "{name} {step}: {rate} {expected}"
                );
            }
        }
    }

    #[test]
    fn logged_rates_are_equal_to_the_last_digit() {
        // Recorded with torch: 25 steps at 1e-3, as logged after each step.
        let linear = [
            0.00096,
            0.00092,
            0.00088,
            0.00084,
            0.0008,
            0.00076,
            0.0007199999999999999,
            0.00068,
            0.00064,
            0.0006,
            0.0005600000000000001,
        ];
        let cosine = [
            0.0003333333333333333,
            0.0006666666666666666,
            0.001,
            0.0009949107209404665,
            0.0009797464868072487,
            0.0009548159976772592,
            0.0009206267664155906,
            0.0008778747871771292,
            0.0008274303669726426,
            0.0007703204087277988,
            0.0007077075065009433,
        ];
        let settings = |warmup_steps| ScheduleSettings {
            warmup_steps,
            total_steps: 25,
            learning_rate: 1e-3,
        };
        assert_eq!(rates("linear", settings(0), 12)[1..], linear);
        assert_eq!(rates("cosine", settings(3), 12)[1..], cosine);
    }

    /// Name, settings, recorded rates (`tests/fixtures/schedules/make.py`).
    fn recorded() -> Vec<(String, Options, Vec<f64>)> {
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/schedules/rates.json");
        let text = std::fs::read_to_string(fixture).expect("the fixture");
        let entries: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        let entry = |entry: &Value| {
            let name = entry["name"].as_str().expect("a name").to_owned();
            let rates = super::numbers(entry, "rates").expect("numbers");
            (name, options(entry["settings"].clone()), rates)
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn settings_give_the_recorded_rates_to_the_last_digit() {
        let settings = ScheduleSettings {
            warmup_steps: 3,
            total_steps: 20,
            learning_rate: 0.3,
        };
        let mut names = BTreeSet::new();
        for (name, options, expected) in recorded() {
            let mut groups = groups(0.3);
            let mut scheduler =
                create((&name, &options), settings, &mut groups).expect("a schedule");
            let mut rates = Vec::new();
            for evaluation in 0..expected.len() {
                if scheduler.is_per_evaluation() {
                    let relapse = if evaluation == 12 { 0.5 } else { 0.0 };
                    let first = 0.1 * evaluation.min(4) as f64;
                    let metric = 1.0 - first - 0.001 * evaluation as f64 + relapse;
                    scheduler.step_with_metric(&mut groups, metric);
                }
                rates.push(groups[0].learning_rate);
                scheduler.step(&mut groups);
            }
            assert_eq!(rates, expected, "{name} with {options:?}");
            names.insert(name);
        }
        let plain = ["linear", "constant", "constant_with_warmup"];
        let missing = super::BUILTIN
            .iter()
            .find(|(name, _)| !names.contains(*name) && !plain.contains(name));
        assert!(missing.is_none(), "{:?}", missing.map(|(name, _)| name));
    }

    #[test]
    fn settings_that_make_no_schedule_are_usage_errors() {
        let cases = [
            (
                "linear",
                json!({"power": 2}),
                "linear has no setting power; it has none",
            ),
            (
                "cosine_with_min_lr",
                json!({}),
                "cosine_with_min_lr needs either min_lr or min_lr_rate",
            ),
            (
                "cosine_with_min_lr",
                json!({"min_lr": 1.0, "min_lr_rate": 0.1}),
                "cosine_with_min_lr needs either min_lr or min_lr_rate",
            ),
            (
                "warmup_stable_decay",
                json!({}),
                "warmup_stable_decay needs num_decay_steps",
            ),
            (
                "warmup_stable_decay",
                json!({"num_decay_steps": 9}),
                "warmup_stable_decay: 2 steps of warm-up and num_decay_steps 9 are more than the 10 of the run",
            ),
            (
                "piecewise",
                json!({}),
                "piecewise needs a rule, such as rule=1:10,0.1:20,0.01",
            ),
            (
                "exponential",
                json!({"gamma": 0.5, "final_ratio": 0.5}),
                "exponential takes final_ratio or gamma, not both",
            ),
            (
                "polynomial",
                json!({"lr_end": 10}),
                "polynomial: learning_rate 10 is not above its end 10",
            ),
            (
                "reduce_lr_on_plateau",
                json!({"factor": 1}),
                "factor 1 is not at least 0 and below 1",
            ),
        ];
        for (name, settings, expected) in cases {
            let settings = options(settings);
            let Err(error) = create((name, &settings), RECORDED, &mut groups(10.0)) else {
                panic!("{name}: accepted")
            };
            assert_eq!(error.to_string(), expected);
            assert_eq!(crate::error::kind_of(&error), crate::error::Kind::Usage);
        }
    }

    #[test]
    fn any_schedule_goes_on_from_its_state() {
        for name in [
            "linear",
            "cosine",
            "cosine_with_restarts",
            "polynomial",
            "constant",
            "constant_with_warmup",
            "inverse_sqrt",
        ] {
            let whole = rates(name, RECORDED, 12);
            let mut first = groups(10.0);
            let mut scheduler =
                create((name, &Options::default()), RECORDED, &mut first).expect("a schedule");
            (0..5).for_each(|_| scheduler.step(&mut first));
            let state = scheduler.state().expect("a state");
            assert_eq!(state.json["last_epoch"], 5, "{name}");
            assert_eq!(state.json["_step_count"], 6, "{name}");

            let mut second = groups(10.0);
            let mut resumed =
                create((name, &Options::default()), RECORDED, &mut second).expect("a schedule");
            resumed.load_state(state).expect("it fits");
            resumed.apply(&mut second);
            assert_eq!(second[1].learning_rate, whole[5], "{name}");
            for expected in &whole[6..] {
                resumed.step(&mut second);
                assert_eq!(second[0].learning_rate, *expected, "{name}");
            }
        }
    }

    #[test]
    fn divisions_by_zero_and_unknown_names_are_usage_errors() {
        let cases = [
            (
                "polynomial",
                10,
                10,
                0.1,
                "polynomial: warmup_steps 10 leaves no step of the 10 to decay in",
            ),
            (
                "polynomial",
                0,
                10,
                1e-7,
                "polynomial: learning_rate 0.0000001 is not above its end 0.0000001",
            ),
            (
                "inverse_sqrt",
                0,
                10,
                0.1,
                "inverse_sqrt: warmup_steps 0 is not possible: it is also the time scale",
            ),
            (
                "cosine_with_min",
                0,
                10,
                0.1,
                "lr_scheduler_type \"cosine_with_min\" is not known; expected one of linear, cosine, cosine_with_restarts, \
                 polynomial, constant, constant_with_warmup, inverse_sqrt, reduce_lr_on_plateau, piecewise, exponential, \
                 cosine_with_min_lr, warmup_stable_decay",
            ),
        ];
        for (name, warmup_steps, total_steps, learning_rate, expected) in cases {
            let settings = ScheduleSettings {
                warmup_steps,
                total_steps,
                learning_rate,
            };
            let Err(error) = create(
                (name, &Options::default()),
                settings,
                &mut groups(learning_rate),
            ) else {
                panic!("{name}: accepted")
            };
            assert_eq!(error.to_string(), expected);
            assert_eq!(crate::error::kind_of(&error), crate::error::Kind::Usage);
        }
    }
}

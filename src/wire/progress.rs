//! The progress of a run: a bar with loss, rate, speed and time left on a terminal, plain lines otherwise. Always the
//! last callback.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::callback::{Callback, Context, Event, EventKind};
use crate::cli::output;
use crate::trainer::round;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A bar on standard error.
    Bar,
    /// A line for each log entry on standard error.
    Lines,
}

/// Shows progress.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    bar: Option<ProgressBar>,
    first_step: u64,
    last_loss: Option<f64>,
}

impl Progress {
    /// `Lines` if tqdm is disabled or standard error is no terminal.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            bar: None,
            first_step: 0,
            last_loss: None,
        }
    }

    fn begin(&mut self, context: &Context<'_>) {
        self.first_step = context.state.global_step;
        if self.mode == Mode::Bar {
            let bar = ProgressBar::with_draw_target(
                Some(context.state.max_steps),
                ProgressDrawTarget::stderr_with_hz(10),
            );
            let template = "{bar:30} {pos}/{len} steps  {msg}  {per_sec}  {eta} left";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_position(self.first_step);
            bar.reset_eta();
            self.bar = Some(bar);
        }
    }

    fn on_step(&self, context: &Context<'_>) {
        if let Some(bar) = &self.bar {
            bar.set_position(context.state.global_step);
            let rate = context.learning_rates.first().copied().unwrap_or(0.0);
            let loss = self
                .last_loss
                .map_or_else(String::new, |loss| format!("loss {loss:.4}  "));
            bar.set_message(format!("{loss}rate {rate:.2e}"));
        }
    }

    fn on_log(&mut self, logs: &[(String, f64)], context: &Context<'_>) {
        if let Some((_, loss)) = logs.iter().find(|(name, _)| name == "loss") {
            self.last_loss = Some(*loss);
        }
        let line = log_line(logs, context, self.first_step);
        match &self.bar {
            Some(bar) => bar.suspend(|| output::status(&line)),
            None => output::status(&line),
        }
    }
}

/// One log entry as text: step, epoch, values, and while training runs its speed and time left.
fn log_line(logs: &[(String, f64)], context: &Context<'_>, first_step: u64) -> String {
    let state = context.state;
    let mut line = format!("step {}/{}", state.global_step, state.max_steps);
    for (name, value) in logs.iter().filter(|(name, _)| name != "total_flos") {
        line.push_str(&format!("  {name} {}", short(*value)));
    }
    let steps = state.global_step.saturating_sub(first_step);
    let is_training = logs.iter().any(|(name, _)| name == "loss");
    if is_training && steps > 0 && context.elapsed_seconds > 0.0 {
        let speed = steps as f64 / context.elapsed_seconds;
        let left = Duration::from_secs_f64(
            state.max_steps.saturating_sub(state.global_step) as f64 / speed,
        );
        line.push_str(&format!("  {speed:.2} steps/s  {} left", clock(left)));
    }
    line
}

fn short(value: f64) -> String {
    let magnitude = value.abs();
    if value != 0.0 && magnitude < 1e-3 {
        format!("{value:.3e}")
    } else {
        round(value, 4).to_string()
    }
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!(
        "{}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

impl Callback for Progress {
    fn name(&self) -> &str {
        "progress"
    }

    fn wants(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::TrainBegin | EventKind::TrainEnd | EventKind::Log => true,
            EventKind::StepEnd => self.mode == Mode::Bar,
            _ => false,
        }
    }

    fn on_event(&mut self, event: Event<'_>, context: &mut Context<'_>) -> Result<()> {
        match event {
            Event::TrainBegin => self.begin(context),
            Event::StepEnd => self.on_step(context),
            Event::Log(logs) => self.on_log(logs, context),
            Event::TrainEnd => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::{Control, Parameters, TrainerState};

    #[test]
    fn a_line_has_the_values_the_speed_and_the_time_left() {
        let state = TrainerState {
            global_step: 10,
            max_steps: 30,
            ..TrainerState::new()
        };
        let mut control = Control::default();
        let context = Context {
            state: &state,
            control: &mut control,
            learning_rates: &[1e-5],
            gradient_norm: None,
            elapsed_seconds: 5.0,
            micro_step: 10,
            parameters: Parameters::default(),
        };
        let logs = [
            ("loss".to_owned(), 0.713_14),
            ("learning_rate".to_owned(), 4.6e-5),
            ("total_flos".to_owned(), 9e9),
        ];
        let line = log_line(&logs, &context, 0);
        assert_eq!(
            line,
            "step 10/30  loss 0.7131  learning_rate 4.600e-5  2.00 steps/s  0:00:10 left"
        );
        let evaluation = log_line(&[("eval_loss".to_owned(), 0.5)], &context, 0);
        assert_eq!(evaluation, "step 10/30  eval_loss 0.5");
    }
}

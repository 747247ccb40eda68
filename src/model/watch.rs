//! The watch for numbers that are not finite (`--debug underflow_overflow`, spec 3.13): what each module of a network got
//! and gave, smallest and largest magnitude, for the last frames before the first NaN or infinity.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::error::{Failure, Kind as FailureKind};

/// Frames that are kept, as in the reference.
const MAX_FRAMES: usize = 21;
const INDENT: &str = "                 ";
const HEADER: &str = "abs min  abs max  metadata";

/// What the modules of a network are told besides their inputs.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Dropout is on.
    pub training: bool,
    /// Told of each module; `None`: nobody watches, and it costs a comparison.
    pub watch: Option<Watch>,
}

/// A module that has just computed.
pub struct Seen<'a> {
    /// Name of the module, or of the one that it is part of.
    pub name: &'a str,
    /// Class name in PyTorch or the reference.
    pub class: &'a str,
    /// Its own parameters, by name.
    pub parameters: &'a [(&'a str, &'a Tensor)],
    /// Tensors it was called with, in order.
    pub inputs: &'a [&'a Tensor],
    /// What it returned.
    pub output: &'a Tensor,
}

impl Pass {
    /// Tells the watch, if there is one. An error if something is not finite.
    pub fn saw(&self, seen: &Seen<'_>) -> Result<()> {
        match &self.watch {
            Some(watch) => watch.see(seen),
            None => Ok(()),
        }
    }

    /// [`Pass::saw`] of the whole network: the batch has ended.
    pub fn saw_all(&self, seen: &Seen<'_>) -> Result<()> {
        match &self.watch {
            Some(watch) => watch.end_batch(seen),
            None => Ok(()),
        }
    }
}

/// Frames of modules; handles share them.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<Frames>>);

#[derive(Debug, Default)]
struct Frames {
    last: VecDeque<String>,
    batches_ended: u64,
    begun: bool,
}

impl Watch {
    fn see(&self, seen: &Seen<'_>) -> Result<()> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.see(seen)
    }

    fn end_batch(&self, seen: &Seen<'_>) -> Result<()> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.see(seen)?;
        frames.batches_ended += 1;
        frames.begun = false;
        Ok(())
    }
}

impl Frames {
    fn see(&mut self, seen: &Seen<'_>) -> Result<()> {
        let mut frame = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            let batch = self.batches_ended;
            writeln!(
                frame,
                "\n\n{INDENT} *** Starting batch number={batch} ***\n{HEADER}"
            )?;
        }
        write!(frame, "{INDENT} {} {}", seen.name, seen.class)?;
        let mut finite = true;
        let mut line = |tensor: &Tensor, what: &str| -> Result<()> {
            let (least, most) = magnitudes(tensor)?;
            finite &= least.is_finite() && most.is_finite();
            write!(frame, "\n{} {} {what}", scientific(least), scientific(most))?;
            Ok(())
        };
        for (name, parameter) in seen.parameters {
            line(parameter, name)?;
        }
        for (index, input) in seen.inputs.iter().enumerate() {
            line(input, &format!("input[{index}]"))?;
        }
        line(seen.output, "output")?;
        if self.last.len() == MAX_FRAMES {
            self.last.pop_front();
        }
        self.last.push_back(frame);
        if finite {
            Ok(())
        } else {
            Err(self.report(seen).into())
        }
    }

    fn report(&self, seen: &Seen<'_>) -> Failure {
        let frames: Vec<_> = self.last.iter().map(String::as_str).collect();
        let message = format!(
            "detected inf/nan during batch_number={} in {} {}\nLast {} forward frames:\n{HEADER}\n{}",
            self.batches_ended,
            seen.name,
            seen.class,
            frames.len(),
            frames.join("\n")
        );
        let hint = "read the frames from the end backwards: the numbers grow too large before they become inf or nan";
        Failure::new(FailureKind::Numeric, message).hint(hint)
    }
}

/// Smallest and largest absolute value; NaN if one is. Of an empty tensor: zero.
fn magnitudes(tensor: &Tensor) -> Result<(f64, f64)> {
    if tensor.numel() == 0 {
        return Ok((0.0, 0.0));
    }
    let tensor = tensor.f_detach()?;
    let tensor = if tensor.is_floating_point() {
        tensor
    } else {
        tensor.f_to_kind(Kind::Double)?
    };
    let (least, most) = tensor.f_abs()?.f_aminmax(None, false)?;
    Ok((least.f_double_value(&[])?, most.f_double_value(&[])?))
}

/// As Python's `{:8.2e}`.
fn scientific(value: f64) -> String {
    if value.is_nan() {
        return format!("{:>8}", "nan");
    }
    if value.is_infinite() {
        return format!("{:>8}", "inf");
    }
    let text = format!("{value:.2e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{:>8}", format!("{digits}e{sign}{:02}", exponent.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::kind_of;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let cases = [
            (0.0, "0.00e+00"),
            (2.17e-7, "2.17e-07"),
            (9.74e3, "9.74e+03"),
            (3.402_823_4e38, "3.40e+38"),
            (1e-300, "1.00e-300"),
            (f64::INFINITY, "     inf"),
            (f64::NAN, "     nan"),
        ];
        for (value, expected) in cases {
            assert_eq!(scientific(value), expected);
        }
    }

    #[test]
    fn the_last_frames_lead_to_the_first_that_is_not_finite() {
        let pass = Pass {
            training: true,
            watch: Some(Watch::default()),
        };
        let input = Tensor::from_slice(&[-3.0_f32, 0.5]);
        let weight = Tensor::from_slice(&[2_i64, -7]);
        let see = |name: &str, output: f32| {
            pass.saw(&Seen {
                name,
                class: "Linear",
                parameters: &[("weight", &weight)],
                inputs: &[&input],
                output: &Tensor::from(output),
            })
        };
        for index in 0..MAX_FRAMES {
            see(&format!("layer.{index}"), 1.5).expect("finite");
        }
        let error = see("last", f32::INFINITY).expect_err("it is found");
        assert_eq!(kind_of(&error), FailureKind::Numeric);
        let text = error.to_string();
        let expected = "detected inf/nan during batch_number=0 in last Linear\nLast 21 forward frames:\nabs min  abs max  metadata\n\
                        \u{20}                 layer.1 Linear\n2.00e+00 7.00e+00 weight\n5.00e-01 3.00e+00 input[0]\n\
                        1.50e+00 1.50e+00 output\n";
        assert!(text.starts_with(expected), "{text}");
        assert!(
            text.ends_with("5.00e-01 3.00e+00 input[0]\n     inf      inf output"),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_looked_at_without_a_watch() {
        let bad = Tensor::from(f32::NAN);
        let seen = Seen {
            name: "x",
            class: "Linear",
            parameters: &[],
            inputs: &[],
            output: &bad,
        };
        Pass::default().saw(&seen).expect("nobody watches");
    }
}

//! Segments whose activations are computed again in the backward pass instead of being kept: `torch.utils.checkpoint`.

use anyhow::Result;
use tch::Tensor;

use super::adopt;
use super::bridge::ffi;
use crate::error::told;

/// The forward pass of a segment, as C++ calls it in the backward pass. It is called and dropped on the thread that runs
/// the backward pass, or on one of libtorch's threads while that one waits for it.
pub struct Segment(Forward);

type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor>>;

impl Segment {
    /// The output for the tensor at `input`, which stays the caller's; the result is the caller's too.
    pub fn run(&self, input: usize) -> Result<usize, String> {
        // SAFETY: C++ passes the address of a live `at::Tensor`; the clone has its own handle.
        let input = unsafe { Tensor::clone_from_ptr(input as *mut _) };
        match (self.0)(&input) {
            Ok(output) => {
                let address = output.as_ptr() as usize;
                // C++ deletes it.
                std::mem::forget(output);
                Ok(address)
            }
            Err(error) => Err(told(&error)),
        }
    }
}

/// `forward(input)` without its history: the backward pass runs `forward` again, with the random draws and the autocast of
/// now. `forward` must be a function of its input, of parameters and of the default generators alone.
pub fn recomputed(
    input: &Tensor,
    forward: impl Fn(&Tensor) -> Result<Tensor> + 'static,
) -> Result<Tensor> {
    let address = input.as_ptr() as usize;
    let start = ffi::segment_start(address)?;
    let output = tch::no_grad(|| forward(input))?;
    let segment = Box::new(Segment(Box::new(forward)));
    let result = ffi::recompute_in_backward(&start, address, output.as_ptr() as usize, segment)?;
    Ok(adopt(result))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use tch::{Device, Kind, Tensor};

    use super::recomputed;
    use crate::torch::testing::seeded;

    fn tensor(size: i64) -> Tensor {
        Tensor::linspace(-1.0, 1.0, size * size, (Kind::Float, Device::Cpu)).view([size, size])
    }

    /// Gradients of the input and of a parameter, and what is drawn after the forward pass.
    fn gradients(recomputes: bool, input_needs_one: bool) -> Vec<Tensor> {
        seeded(3, || {
            let weight = tensor(4).set_requires_grad(true);
            let input = (tensor(4) * 0.5).set_requires_grad(input_needs_one);
            let own = weight.shallow_clone();
            let forward = move |input: &Tensor| {
                Ok(input
                    .f_matmul(&own)?
                    .f_dropout(0.5, true)?
                    .f_tanh()?
                    .f_matmul(&own)?)
            };
            let output = if recomputes {
                recomputed(&input, forward)
            } else {
                forward(&input)
            };
            let output = output.expect("a pass");
            let drawn = Tensor::rand([3], (Kind::Float, Device::Cpu));
            output.sum(Kind::Float).backward();
            let after = Tensor::rand([3], (Kind::Float, Device::Cpu));
            let mut all = vec![output.detach(), drawn, after, weight.grad()];
            if input_needs_one {
                all.push(input.grad());
            }
            all
        })
    }

    #[test]
    fn gradients_and_draws_are_those_of_the_plain_pass() {
        for input_needs_one in [true, false] {
            let plain = gradients(false, input_needs_one);
            let again = gradients(true, input_needs_one);
            assert_eq!(plain.len(), again.len());
            for (plain, again) in plain.iter().zip(&again) {
                assert!(plain.equal(again), "{plain} {again}");
            }
        }
    }

    #[test]
    fn errors_of_either_pass_come_back() {
        let input = tensor(2).set_requires_grad(true);
        let error = recomputed(&input, |_| bail!("no way")).expect_err("it fails");
        assert_eq!(error.to_string(), "no way");
        let calls = std::cell::Cell::new(0);
        let output = recomputed(&input, move |input| {
            calls.set(calls.get() + 1);
            if calls.get() > 1 {
                bail!("not twice");
            }
            Ok(input * 2.0)
        });
        let error = output.expect("a pass").sum(Kind::Float).f_backward();
        assert!(
            error
                .expect_err("it fails")
                .to_string()
                .contains("not twice")
        );
    }
}

//! Random generators: the default one of the CPU and private ones, bit for bit as PyTorch draws (spec 3.5).

use std::fmt;

use anyhow::{Context, Result};
use cxx::UniquePtr;
use tch::{Device, Kind, Tensor};

use super::adopt;
use super::bridge::ffi;

/// libtorch draws normal numbers in blocks of so many.
const NORMAL_BLOCK: u64 = 16;

/// A CPU generator (MT19937), like `torch.Generator()`.
pub struct Generator(UniquePtr<ffi::Generator>);

// SAFETY: an at::CPUGeneratorImpl is an owned object behind a unique pointer here; nothing in it is tied to a thread.
unsafe impl Send for Generator {}

impl fmt::Debug for Generator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Generator")
    }
}

impl Generator {
    /// `torch.Generator().manual_seed(seed)`.
    pub fn seeded(seed: u64) -> Result<Self> {
        Ok(Self(ffi::new_generator(seed)?))
    }

    /// `torch.default_generator`: a handle, so that what is drawn from it is drawn from the process's own.
    pub fn default_cpu() -> Result<Self> {
        Ok(Self(ffi::default_generator()?))
    }

    /// `torch.bernoulli(probabilities, generator=self)`: ones and zeros of the same shape and type.
    pub fn bernoulli(&mut self, probabilities: &Tensor) -> Result<Tensor> {
        let address = ffi::generator_bernoulli(self.0.pin_mut(), probabilities.as_ptr() as usize)?;
        Ok(adopt(address))
    }

    /// `torch.randint(low, high, shape, generator=self)`: int64 numbers from `low` to below `high`.
    pub fn randint(&mut self, low: i64, high: i64, shape: &[i64]) -> Result<Tensor> {
        let address = ffi::generator_randint(self.0.pin_mut(), low, high, shape)?;
        Ok(adopt(address))
    }

    /// The state, 5056 bytes, as `get_state()`.
    pub fn state(&self) -> Result<Vec<u8>> {
        Ok(ffi::generator_state(&self.0)?)
    }

    /// `set_state(state)`.
    pub fn set_state(&mut self, state: &[u8]) -> Result<()> {
        ffi::set_generator_state(self.0.pin_mut(), state)
            .context("the generator state is not one of libtorch's")
    }

    /// One int64, as `torch.empty((), dtype=torch.int64).random_(generator=self)`.
    pub fn random_int64(&mut self) -> Result<i64> {
        Ok(ffi::generator_random_int64(self.0.pin_mut())?)
    }

    /// `torch.randperm(n, generator=self)`.
    pub fn randperm(&mut self, n: usize) -> Result<Vec<usize>> {
        Ok(
            ffi::generator_randperm(self.0.pin_mut(), i64::try_from(n)?)?
                .into_iter()
                .map(|index| index as usize)
                .collect(),
        )
    }
}

/// `torch.manual_seed(seed)`: the CPU and all CUDA devices.
pub fn manual_seed(seed: u64) -> Result<()> {
    Ok(ffi::manual_seed(seed)?)
}

/// `torch.get_rng_state()`, 5056 bytes.
pub fn default_generator_state() -> Result<Vec<u8>> {
    Ok(ffi::default_generator_state()?)
}

/// `torch.set_rng_state(state)`.
pub fn set_default_generator_state(state: &[u8]) -> Result<()> {
    ffi::set_default_generator_state(state).context("the generator state is not one of libtorch's")
}

/// One int64 from the default generator, as `torch.empty((), dtype=torch.int64).random_()`.
pub fn default_random_int64() -> Result<i64> {
    Ok(ffi::default_random_int64()?)
}

/// Moves the default generator on as if a tensor of `count` elements had been drawn with `uniform_`.
pub fn skip_uniform(count: u64, kind: Kind) -> Result<()> {
    // A double takes two of the generator's 32-bit numbers, every other type one.
    let each = if kind == Kind::Double { 2 } else { 1 };
    Ok(ffi::skip_default_generator(count * each)?)
}

/// Moves the default generator on as if a tensor of `count` elements had been drawn with `normal_`.
pub fn skip_normal(count: u64, kind: Kind) -> Result<()> {
    if count < NORMAL_BLOCK {
        // Few numbers are drawn in pairs, one of which may wait in the generator.
        let _ =
            Tensor::f_empty([i64::try_from(count)?], (kind, Device::Cpu))?.f_normal_(0.0, 1.0)?;
        return Ok(());
    }
    // Numbers are drawn in blocks; if they do not come out even, the last block is drawn again.
    let rest = if count.is_multiple_of(NORMAL_BLOCK) {
        0
    } else {
        NORMAL_BLOCK
    };
    skip_uniform(count + rest, kind)
}

/// `torch.randperm(n)` from the default generator.
pub fn default_randperm(n: usize) -> Result<Vec<usize>> {
    Ok(ffi::default_randperm(i64::try_from(n)?)?
        .into_iter()
        .map(|index| index as usize)
        .collect())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::{Generator, default_generator_state, skip_normal, skip_uniform};
    use crate::torch::testing::seeded;

    /// Skipping leaves the generator where drawing leaves it.
    #[test]
    fn what_is_skipped_is_what_would_have_been_drawn() {
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16] {
            for count in [1_i64, 5, 15, 16, 17, 40, 63, 64, 1000] {
                let empty = || Tensor::empty([count], (kind, Device::Cpu));
                let after = |draw: &dyn Fn()| {
                    seeded(3, || {
                        draw();
                        default_generator_state().expect("a state")
                    })
                };
                let skipped = after(&|| skip_uniform(count as u64, kind).expect("skipped"));
                let drawn = after(&|| {
                    let _ = empty().uniform_(-0.5, 0.5);
                });
                assert!(skipped == drawn, "uniform, {count} of {kind:?}");
                let skipped = after(&|| skip_normal(count as u64, kind).expect("skipped"));
                let drawn = after(&|| {
                    let _ = empty().normal_(0.0, 0.02);
                });
                assert!(skipped == drawn, "normal, {count} of {kind:?}");
            }
        }
    }

    #[test]
    fn draws_and_permutations_are_pytorchs() {
        // Spec 3.5, measured: seed 42, n = 16, the first two epochs.
        let mut generator = Generator::seeded(42).expect("a generator");
        let base_seed = generator.random_int64().expect("a draw");
        let sampler_seed = generator.random_int64().expect("a draw");
        assert_eq!(
            (base_seed, sampler_seed),
            (6_909_045_637_428_952_499, 8_314_211_556_539_077_902)
        );
        let order = Generator::seeded(sampler_seed as u64)
            .and_then(|mut sampler| sampler.randperm(16))
            .expect("an order");
        assert_eq!(
            order,
            [0, 5, 7, 10, 3, 11, 8, 6, 1, 9, 12, 15, 14, 13, 2, 4]
        );
    }

    #[test]
    fn a_state_continues_where_it_was_taken() {
        let mut generator = Generator::seeded(7).expect("a generator");
        generator.random_int64().expect("a draw");
        let state = generator.state().expect("a state");
        let next = generator.random_int64().expect("a draw");
        let mut other = Generator::seeded(0).expect("a generator");
        other.set_state(&state).expect("the state fits");
        assert_eq!(other.random_int64().expect("a draw"), next);
        assert!(other.set_state(&[1, 2, 3]).is_err());
    }
}

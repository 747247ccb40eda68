//! Random numbers for plugins: a stream of BLAKE3 that follows from the run's seed, the plugin, the rank, a purpose and the
//! step, so that the same run draws the same numbers, whatever else was drawn before.

use tch::{Kind, Tensor};
use wasmtime::component::Resource;

use super::bindings::trainer::host::rng;
use super::fault::HostError;
use super::state::State;
use super::tensor;
use super::tensor::rules::Form;
use crate::data::Place;

/// A stream of random numbers.
pub struct Handle {
    stream: blake3::OutputReader,
    buffer: [u8; 512],
    next: usize,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Rng")
    }
}

impl Handle {
    /// The stream of one purpose at one step. `key` stands for the run, the plugin and the rank.
    pub(super) fn new(key: &[u8; 32], purpose: &str, step: u64) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher
            .update(b"rng")
            .update(&step.to_le_bytes())
            .update(purpose.as_bytes());
        Self {
            stream: hasher.finalize_xof(),
            buffer: [0; 512],
            next: 512,
        }
    }

    /// The stream of a batch that a collator makes.
    pub(super) fn of_batch(key: &[u8; 32], place: Place) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher
            .update(b"batch")
            .update(&place.epoch.to_le_bytes())
            .update(&(place.batch as u64).to_le_bytes());
        Self {
            stream: hasher.finalize_xof(),
            buffer: [0; 512],
            next: 512,
        }
    }

    fn next(&mut self) -> u64 {
        if self.next == self.buffer.len() {
            self.stream.fill(&mut self.buffer);
            self.next = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.buffer[self.next..self.next + 8]);
        self.next += 8;
        u64::from_le_bytes(bytes)
    }

    /// Uniform in [0, 1), 24 bits as PyTorch's float32.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in 0 .. bound: the high half of a product, whose bias is below 2^-64 * bound.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// The key of a plugin's streams.
pub(super) fn key(seed: u64, plugin: &str, rank: u32) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("host plugin rng 0.1");
    hasher
        .update(&seed.to_le_bytes())
        .update(&rank.to_le_bytes())
        .update(plugin.as_bytes());
    *hasher.finalize().as_bytes()
}

impl rng::Host for State {}

impl rng::HostRng for State {
    fn next_u64(&mut self, this: Resource<Handle>) -> wasmtime::Result<u64> {
        Ok(self.wasi.table.get_mut(&this)?.next())
    }

    fn uniform(
        &mut self,
        this: Resource<Handle>,
        shape: Vec<u64>,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        self.draw(
            &this,
            Form::of_guest(&shape, Kind::Float)?,
            |stream, count| {
                Ok(Tensor::f_from_slice(
                    &(0..count).map(|_| stream.unit()).collect::<Vec<f32>>(),
                )?)
            },
        )
    }

    fn bernoulli(
        &mut self,
        this: Resource<Handle>,
        shape: Vec<u64>,
        p: f64,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        if !(0.0..=1.0).contains(&p) {
            return Err(HostError::data(format!("{p} is not a probability")));
        }
        self.draw(
            &this,
            Form::of_guest(&shape, Kind::Bool)?,
            |stream, count| {
                Ok(Tensor::f_from_slice(
                    &(0..count)
                        .map(|_| f64::from(stream.unit()) < p)
                        .collect::<Vec<bool>>(),
                )?)
            },
        )
    }

    fn integers(
        &mut self,
        this: Resource<Handle>,
        shape: Vec<u64>,
        low: i64,
        high: i64,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        let span = high.wrapping_sub(low) as u64;
        if low >= high {
            return Err(HostError::data(format!(
                "there is no whole number in [{low}, {high})"
            )));
        }
        self.draw(
            &this,
            Form::of_guest(&shape, Kind::Int64)?,
            |stream, count| {
                let draw = |_| low.wrapping_add(stream.below(span) as i64);
                Ok(Tensor::f_from_slice(
                    &(0..count).map(draw).collect::<Vec<i64>>(),
                )?)
            },
        )
    }

    fn permutation(
        &mut self,
        this: Resource<Handle>,
        n: u64,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        self.draw(
            &this,
            Form::of_guest(&[n], Kind::Int64)?,
            |stream, count| {
                let mut order: Vec<i64> = (0..count as i64).collect();
                for last in (1..count).rev() {
                    order.swap(last, stream.below(last as u64 + 1) as usize);
                }
                Ok(Tensor::f_from_slice(&order)?)
            },
        )
    }

    fn drop(&mut self, this: Resource<Handle>) -> wasmtime::Result<()> {
        self.wasi.table.delete(this)?;
        Ok(())
    }
}

impl State {
    fn draw(
        &mut self,
        this: &Resource<Handle>,
        form: Form,
        fill: impl FnOnce(&mut Handle, usize) -> Result<Tensor, HostError>,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        let (count, dims) = (form.elements()? as usize, form.dims.clone());
        let stream = self.wasi.table.get_mut(this)?;
        // The numbers are drawn into memory of their own first.
        let scratch = form.bytes()?;
        self.tensors
            .create(form, scratch, || Ok(fill(stream, count)?.f_reshape(dims)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_follows_from_all_of_its_seed() {
        let draw = |key: &[u8; 32], purpose: &str, step| {
            let mut stream = Handle::new(key, purpose, step);
            (0..100).map(|_| stream.next()).collect::<Vec<u64>>()
        };
        let key_a = key(42, "a", 0);
        let base = draw(&key_a, "mask", 1);
        assert_eq!(base, draw(&key_a, "mask", 1));
        for other in [
            draw(&key_a, "mask", 2),
            draw(&key_a, "drop", 1),
            draw(&key(43, "a", 0), "mask", 1),
            draw(&key(42, "b", 0), "mask", 1),
            draw(&key(42, "a", 1), "mask", 1),
        ] {
            assert!(base.iter().zip(&other).all(|(left, right)| left != right));
        }
    }

    #[test]
    fn a_batch_draws_what_its_place_says_whoever_makes_it() {
        let place = |epoch, batch, worker| Place {
            epoch,
            batch,
            worker,
        };
        let first = |place| Handle::of_batch(&[7; 32], place).next();
        assert_eq!(first(place(5, 2, 0)), first(place(5, 2, 3)));
        assert_ne!(first(place(5, 2, 0)), first(place(5, 3, 0)));
        assert_ne!(first(place(5, 2, 0)), first(place(6, 2, 0)));
    }

    #[test]
    fn draws_are_uniform_enough() {
        let mut stream = Handle::new(&[1; 32], "", 0);
        let mut counts = [0_u32; 10];
        let mut sum = 0.0;
        for _ in 0..100_000 {
            counts[stream.below(10) as usize] += 1;
            sum += f64::from(stream.unit());
        }
        assert!(
            counts.iter().all(|count| (9_500..10_500).contains(count)),
            "{counts:?}"
        );
        assert!((sum / 100_000.0 - 0.5).abs() < 0.005);
    }
}

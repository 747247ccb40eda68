//! Orders of an epoch, draw for draw as the reference's (spec 3.5).

use std::cmp::Reverse;

use anyhow::{Context, Result, ensure};

use super::Sampler;
use crate::torch::{Generator, default_random_int64, default_randperm};

/// The rows as they are; draws nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential;

impl Sampler for Sequential {
    fn order(&mut self, len: usize) -> Result<Vec<usize>> {
        Ok((0..len).collect())
    }
}

/// A new permutation each epoch.
#[derive(Debug, Default)]
pub struct Random {
    own: Option<Generator>,
}

impl Random {
    /// Each epoch draws one int64 from the default generator and orders the rows by a generator seeded with it.
    pub fn new() -> Self {
        Self { own: None }
    }

    /// Orders by a generator of its own that lives across epochs and leaves the default one alone.
    pub fn seeded(data_seed: u64) -> Result<Self> {
        Ok(Self {
            own: Some(Generator::seeded(data_seed)?),
        })
    }
}

impl Sampler for Random {
    fn order(&mut self, len: usize) -> Result<Vec<usize>> {
        let Some(own) = &mut self.own else {
            let seed = default_random_int64()?;
            return Generator::seeded(seed as u64)?.randperm(len);
        };
        let order = own.randperm(len)?;
        // PyTorch's RandomSampler ends each pass with a second permutation that it does not use.
        own.randperm(len)?;
        Ok(order)
    }

    fn state(&self) -> Result<Option<Vec<u8>>> {
        self.own.as_ref().map(Generator::state).transpose()
    }

    fn load_state(&mut self, state: &[u8]) -> Result<()> {
        let own = self.own.as_mut().context(
            "the data order has a state, but this run has neither data_seed nor group_by_length",
        )?;
        own.set_state(state)
    }
}

/// Rows of similar length together, the longest batch first, from a permutation by the default generator.
#[derive(Clone, Debug)]
pub struct LengthGrouped {
    lengths: Vec<usize>,
    group: usize,
    /// Of the epoch that is resumed, if it was begun with another one.
    resumed: Option<usize>,
}

impl LengthGrouped {
    /// `group` is the rows of a step: the batch size times the accumulation steps.
    pub fn new(lengths: Vec<usize>, group: usize) -> Result<Self> {
        ensure!(group > 0, "grouping by length needs a batch size above 0");
        Ok(Self {
            lengths,
            group,
            resumed: None,
        })
    }

    fn arrange(&self, mut order: Vec<usize>, group: usize) -> Vec<usize> {
        let length = |row: &usize| self.lengths[*row];
        let multiple = (order.len() / (4 * group)).clamp(1, 50);
        let chunk = multiple * group;
        order
            .chunks_mut(chunk)
            .for_each(|rows| rows.sort_by_key(|row| Reverse(length(row))));
        // The longest row goes first, so that too large a batch fails at once; of equal ones the first.
        let heads = (0..order.len()).step_by(chunk);
        if let Some(longest) = heads.min_by_key(|head| Reverse(length(&order[*head]))) {
            order.swap(0, longest);
        }
        order
    }
}

impl Sampler for LengthGrouped {
    fn order(&mut self, len: usize) -> Result<Vec<usize>> {
        ensure!(
            len == self.lengths.len(),
            "{} lengths for a data set of {len} rows",
            self.lengths.len()
        );
        let group = self.resumed.take().unwrap_or(self.group);
        Ok(self.arrange(default_randperm(len)?, group))
    }

    /// The rows of a step: an epoch that was begun with another number of them is made again with that.
    fn state(&self) -> Result<Option<Vec<u8>>> {
        Ok(Some((self.group as u64).to_le_bytes().to_vec()))
    }

    fn load_state(&mut self, state: &[u8]) -> Result<()> {
        let bytes = state.try_into();
        let group = bytes
            .map(u64::from_le_bytes)
            .ok()
            .filter(|group| *group > 0);
        let group = group.context("the data order has a state that is not of group_by_length")?;
        self.resumed = Some(usize::try_from(group)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LengthGrouped, Random, Sampler, Sequential};
    use crate::torch::testing::seeded;
    use crate::torch::{default_generator_state, default_random_int64, default_randperm};

    /// Orders of epochs: before each, the loader's draw.
    fn epochs(sampler: &mut dyn Sampler, len: usize, count: usize) -> Vec<Vec<usize>> {
        let epoch = |_| {
            default_random_int64().expect("a draw");
            sampler.order(len).expect("an order")
        };
        (0..count).map(epoch).collect()
    }

    #[test]
    fn random_orders_are_the_references() {
        let expected = [
            [0, 5, 7, 10, 3, 11, 8, 6, 1, 9, 12, 15, 14, 13, 2, 4],
            [14, 15, 5, 11, 7, 8, 3, 10, 9, 12, 2, 1, 13, 4, 6, 0],
        ];
        assert_eq!(seeded(42, || epochs(&mut Random::new(), 16, 2)), expected);
    }

    #[test]
    fn an_evaluation_between_epochs_moves_the_stream() {
        let orders = seeded(42, || {
            let mut sampler = Random::new();
            let first = epochs(&mut sampler, 16, 1);
            epochs(&mut Sequential, 16, 1);
            [first, epochs(&mut sampler, 16, 1)].concat()
        });
        assert_eq!(
            orders[1],
            [8, 12, 13, 5, 6, 9, 4, 2, 15, 7, 1, 14, 11, 10, 3, 0]
        );
    }

    #[test]
    fn a_data_seed_leaves_the_default_generator_alone_and_continues_from_its_state() {
        seeded(42, || {
            let before = default_generator_state().expect("a state");
            let mut sampler = Random::seeded(7).expect("a sampler");
            let first = sampler.order(16).expect("an order");
            let state = sampler.state().expect("a state").expect("it has one");
            let second = sampler.order(16).expect("an order");
            assert_ne!(first, second);
            let mut other = Random::seeded(8).expect("a sampler");
            other.load_state(&state).expect("the state fits");
            assert_eq!(other.order(16).expect("an order"), second);
            assert_eq!(default_generator_state().expect("a state"), before);
        });
        assert!(Random::new().load_state(&[]).is_err());
    }

    #[test]
    fn groups_by_length_as_the_reference() {
        let lengths = vec![3, 9, 1, 7, 5, 8, 2, 6, 4, 10, 11, 0, 12, 15, 14, 13];
        let permutation = seeded(0, || default_randperm(16).expect("a permutation"));
        assert_eq!(
            permutation,
            [12, 10, 9, 6, 11, 8, 13, 5, 2, 14, 15, 0, 4, 3, 7, 1]
        );
        let cases = [
            (
                lengths,
                vec![13, 10, 9, 6, 12, 5, 8, 11, 14, 15, 0, 2, 1, 3, 7, 4],
            ),
            (vec![1, 1, 2, 2, 1, 1, 2, 2], vec![7, 0, 4, 3, 2, 5, 6, 1]),
        ];
        for (lengths, expected) in cases {
            let len = lengths.len();
            let mut sampler = LengthGrouped::new(lengths, 2).expect("a sampler");
            assert_eq!(
                seeded(0, || sampler.order(len).expect("an order")),
                expected
            );
        }
    }

    #[test]
    fn grouping_puts_the_longest_first_and_loses_no_row() {
        // Row 76.
        for len in [0, 1, 5, 16, 17, 100, 1000] {
            let lengths: Vec<usize> = (0..len).map(|row| row * 7919 % 101).collect();
            let mut sampler = LengthGrouped::new(lengths.clone(), 4).expect("a sampler");
            let mut order = seeded(1, || sampler.order(len).expect("an order"));
            assert_eq!(
                order.first().map(|row| lengths[*row]),
                lengths.iter().max().copied()
            );
            order.sort_unstable();
            assert_eq!(order, (0..len).collect::<Vec<_>>());
        }
        assert!(
            LengthGrouped::new(vec![1], 1)
                .expect("a sampler")
                .order(2)
                .is_err()
        );
    }

    /// An epoch that is resumed with steps of another size has the order that it began with, the next one its own.
    #[test]
    fn an_epoch_keeps_the_groups_that_it_began_with() {
        let lengths: Vec<usize> = (0..64).map(|row| row * 37 % 64).collect();
        let sampler = |group| LengthGrouped::new(lengths.clone(), group).expect("a sampler");
        let orders = |sampler: &mut LengthGrouped| seeded(3, || epochs(sampler, 64, 2));
        let (before, now) = (orders(&mut sampler(3)), orders(&mut sampler(8)));
        assert_ne!(before, now);
        let mut resumed = sampler(8);
        let state = sampler(3).state().expect("a state").expect("it has one");
        resumed.load_state(&state).expect("it fits");
        assert_eq!(orders(&mut resumed), [before[0].clone(), now[1].clone()]);
        assert!(resumed.load_state(&[1, 2]).is_err());
    }
}

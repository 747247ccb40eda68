//! Batches of outputs into whole tensors on the host (spec 3.8): used for predictions and for metrics over all rows.

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

/// What fills the second dimension of narrower batches.
pub const PADDING: i64 = -100;

/// Named tensors of successive batches. Pieces stay where they are until [`Accumulator::to_host`] or the end.
#[derive(Debug, Default)]
pub struct Accumulator {
    columns: Vec<(String, Vec<Tensor>)>,
    /// Pieces of each column that are on the host already.
    on_host: usize,
}

impl Accumulator {
    /// Nothing yet; the first batch fixes the names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches so far.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, |(_, pieces)| pieces.len())
    }

    /// True before the first batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends one batch: the same names in the same order as in the batches before. The tensors are detached, not
    /// copied.
    pub fn push(&mut self, fields: &[(String, Tensor)]) -> Result<()> {
        if self.is_empty() {
            self.columns = fields
                .iter()
                .map(|(name, _)| (name.clone(), Vec::new()))
                .collect();
        }
        let names = || self.columns.iter().map(|(name, _)| name);
        if !names().eq(fields.iter().map(|(name, _)| name)) {
            let found: Vec<&String> = fields.iter().map(|(name, _)| name).collect();
            bail!(
                "a batch has the outputs {found:?}; expected {:?} (as in the batches before)",
                names().collect::<Vec<_>>()
            );
        }
        let pieces = fields
            .iter()
            .zip(&self.columns)
            .map(|((name, tensor), (_, before))| {
                let piece = if tensor.dim() == 0 {
                    tensor.f_detach()?.f_reshape([1])?
                } else {
                    tensor.f_detach()?
                };
                check_shape(name, before.first(), &piece)?;
                Ok(piece)
            });
        let pieces: Vec<Tensor> = pieces.collect::<Result<_>>()?;
        self.columns
            .iter_mut()
            .zip(pieces)
            .for_each(|((_, column), piece)| column.push(piece));
        Ok(())
    }

    /// Bytes of what was pushed.
    pub fn bytes(&self) -> u64 {
        let pieces = self.columns.iter().flat_map(|(_, pieces)| pieces);
        let bytes = |piece: &Tensor| piece.numel() as u64 * piece.kind().elt_size_in_bytes() as u64;
        pieces.map(bytes).sum()
    }

    /// Moves what was pushed to the host, bfloat16 as float32.
    pub fn to_host(&mut self) -> Result<()> {
        for (name, pieces) in &mut self.columns {
            for piece in &mut pieces[self.on_host..] {
                *piece =
                    host(piece).with_context(|| format!("moving output {name:?} to the host"))?;
            }
        }
        self.on_host = self.len();
        Ok(())
    }

    /// The whole tensors, in the order of the first batch.
    pub fn finish(mut self) -> Result<Vec<(String, Tensor)>> {
        self.to_host()?;
        let whole = |(name, pieces): (String, Vec<Tensor>)| {
            let tensor =
                concatenate(pieces).with_context(|| format!("concatenating output {name:?}"))?;
            Ok((name, tensor))
        };
        self.columns.into_iter().map(whole).collect()
    }
}

fn check_shape(name: &str, first: Option<&Tensor>, piece: &Tensor) -> Result<()> {
    let Some(first) = first else { return Ok(()) };
    let (expected, found) = (first.size(), piece.size());
    let fits = expected.len() == found.len() && expected.iter().skip(2).eq(found.iter().skip(2));
    ensure!(
        fits,
        "output {name:?} has shape {found:?}, which does not follow {expected:?} of the batches before"
    );
    Ok(())
}

fn host(tensor: &Tensor) -> Result<Tensor> {
    let kind = if tensor.kind() == Kind::BFloat16 {
        Kind::Float
    } else {
        tensor.kind()
    };
    Ok(tensor.f_to_device(Device::Cpu)?.f_to_kind(kind)?)
}

fn concatenate(mut pieces: Vec<Tensor>) -> Result<Tensor> {
    let width = |piece: &Tensor| piece.size().get(1).copied();
    let widest = pieces.iter().filter_map(width).max();
    if let Some(widest) = widest {
        for piece in &mut pieces {
            let missing = widest - width(piece).unwrap_or(widest);
            if missing > 0 {
                *piece = pad(piece, missing)?;
            }
        }
    }
    match <[Tensor; 1]>::try_from(pieces) {
        Ok([only]) => Ok(only),
        Err(pieces) => Ok(Tensor::f_cat(&pieces, 0)?),
    }
}

fn pad(piece: &Tensor, missing: i64) -> Result<Tensor> {
    let mut shape = piece.size();
    shape[1] = missing;
    let padding = Tensor::f_full(&shape, PADDING, (piece.kind(), piece.device()))?;
    Ok(Tensor::f_cat(&[piece, &padding], 1)?)
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::Accumulator;

    fn whole(pieces: &[Tensor]) -> Tensor {
        let mut accumulator = Accumulator::new();
        for piece in pieces {
            accumulator
                .push(&[("logits".to_owned(), piece.shallow_clone())])
                .expect("the piece fits");
        }
        assert_eq!(accumulator.len(), pieces.len());
        accumulator.finish().expect("whole tensors").remove(0).1
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(tensor.to_kind(Kind::Double).reshape(-1)).expect("numbers")
    }

    #[test]
    fn narrower_batches_are_padded_on_the_right() {
        // Row 54.
        let first = Tensor::from_slice(&[1_i64, 1, 1, 1]).reshape([2, 2]);
        let second = Tensor::from_slice(&[0_i64, 0, 0]).reshape([1, 3]);
        let tensor = whole(&[first.shallow_clone(), second.shallow_clone()]);
        assert_eq!((tensor.size(), tensor.kind()), (vec![3, 3], Kind::Int64));
        assert_eq!(numbers(&tensor), [1., 1., -100., 1., 1., -100., 0., 0., 0.]);
        assert_eq!(
            numbers(&whole(&[second, first])),
            [0., 0., 0., 1., 1., -100., 1., 1., -100.]
        );
    }

    #[test]
    fn padding_is_on_the_second_of_three_dimensions() {
        let tensor = whole(&[
            Tensor::zeros([1, 2, 2], (Kind::Float, tch::Device::Cpu)),
            Tensor::ones([1, 1, 2], (Kind::Float, tch::Device::Cpu)),
        ]);
        assert_eq!(tensor.size(), [2, 2, 2]);
        assert_eq!(numbers(&tensor), [0., 0., 0., 0., 1., 1., -100., -100.]);
    }

    #[test]
    fn scalars_become_rows_and_bfloat16_becomes_float32() {
        let scalars = [Tensor::from(0.5_f32), Tensor::from(2.0_f32)];
        assert_eq!(
            (whole(&scalars).size(), numbers(&whole(&scalars))),
            (vec![2], vec![0.5, 2.0])
        );
        let half = whole(&[Tensor::from_slice(&[1.5_f32]).to_kind(Kind::BFloat16)]);
        assert_eq!((half.kind(), numbers(&half)), (Kind::Float, vec![1.5]));
    }

    #[test]
    fn what_is_gathered_is_counted() {
        let logits = Tensor::zeros([3, 5], (Kind::Float, tch::Device::Cpu));
        let labels = Tensor::from_slice(&[1_i64, 2, 3]);
        let mut gathered = Accumulator::new();
        gathered
            .push(&[("logits".to_owned(), logits), ("labels".to_owned(), labels)])
            .expect("a batch");
        assert_eq!(gathered.bytes(), 3 * 5 * 4 + 3 * 8);
    }

    #[test]
    fn other_structures_are_refused() {
        let matrix = || Tensor::zeros([2, 2, 2], (Kind::Float, tch::Device::Cpu));
        let cases = [
            vec![("scores".to_owned(), matrix())],
            vec![
                ("logits".to_owned(), matrix()),
                ("more".to_owned(), matrix()),
            ],
            vec![("logits".to_owned(), matrix().reshape([4, 2]))],
            vec![("logits".to_owned(), matrix().reshape([2, 1, 4]))],
        ];
        for fields in cases {
            let mut accumulator = Accumulator::new();
            accumulator
                .push(&[("logits".to_owned(), matrix())])
                .expect("the first batch");
            assert!(accumulator.push(&fields).is_err(), "{fields:?}");
            assert_eq!(accumulator.len(), 1);
        }
    }

    #[test]
    fn moving_to_the_host_early_changes_nothing() {
        // Row 54, with accumulation.
        let mut accumulator = Accumulator::new();
        for number in [1_i64, 2, 3] {
            accumulator
                .push(&[("x".to_owned(), Tensor::from_slice(&[number]))])
                .expect("it fits");
            accumulator.to_host().expect("it moves");
        }
        assert_eq!(
            numbers(&accumulator.finish().expect("whole")[0].1),
            [1., 2., 3.]
        );
    }
}

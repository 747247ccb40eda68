//! Between the bytes of a file and tensors, a piece at a time: no second copy of a large tensor ever exists.

use std::io;

use anyhow::{Context, Result, bail, ensure};
use tch::{Device, Kind, Tensor};

/// Elements moved at once. libtorch splits larger copies among threads, which costs more than it gains while a file is read.
const PIECE: usize = 1 << 15;

/// Elements of a shape, or `None` if their number overflows or a dimension is negative.
pub(super) fn num_elements(shape: &[i64]) -> Option<u64> {
    shape.iter().try_fold(1_u64, |product, &size| {
        product.checked_mul(u64::try_from(size).ok()?)
    })
}

/// Bytes of a tensor's elements.
pub(super) fn num_bytes(tensor: &Tensor) -> Result<u64> {
    Ok(tensor.numel() as u64 * tensor.f_kind()?.elt_size_in_bytes() as u64)
}

/// Moves bytes; keeps its buffer from tensor to tensor.
#[derive(Default)]
pub(super) struct Mover {
    piece: Vec<u8>,
}

impl Mover {
    /// A new CPU tensor whose bytes `fill` delivers in order. The caller has checked that the bytes exist, so a lying size
    /// cannot make this allocate more than a file holds.
    pub(super) fn read(
        &mut self,
        kind: Kind,
        shape: &[i64],
        mut fill: impl FnMut(&mut [u8]) -> io::Result<()>,
    ) -> Result<Tensor> {
        let count = num_elements(shape)
            .and_then(|count| usize::try_from(count).ok())
            .context("its shape overflows")?;
        let element = kind.elt_size_in_bytes();
        if count <= PIECE {
            let bytes = self.piece(count * element);
            fill(bytes)?;
            check_booleans(kind, bytes)?;
            return Ok(Tensor::f_from_data_size(bytes, shape, kind)?);
        }
        let tensor = Tensor::f_empty([count as i64], (kind, Device::Cpu))?;
        for start in (0..count).step_by(PIECE) {
            let length = PIECE.min(count - start);
            let bytes = self.piece(length * element);
            fill(bytes)?;
            check_booleans(kind, bytes)?;
            let piece = Tensor::f_from_data_size(bytes, &[length as i64], kind)?;
            tensor
                .f_narrow(0, start as i64, length as i64)?
                .f_copy_(&piece)?;
        }
        Ok(tensor.f_reshape(shape)?)
    }

    /// Hands the bytes of a tensor to `sink` in order. Tensors on another device or not contiguous are copied, one at a time.
    pub(super) fn write(
        &mut self,
        tensor: &Tensor,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let kind = tensor.f_kind()?;
        let element = kind.elt_size_in_bytes();
        let flat = tensor
            .f_detach()?
            .f_to_device(Device::Cpu)?
            .f_contiguous()?
            .f_reshape([-1])?;
        let count = flat.numel();
        for start in (0..count).step_by(PIECE) {
            let length = PIECE.min(count - start);
            let bytes = self.piece(length * element);
            flat.f_narrow(0, start as i64, length as i64)?
                .f_copy_data_u8(bytes, length)?;
            sink(bytes)?;
        }
        Ok(())
    }

    fn piece(&mut self, length: usize) -> &mut [u8] {
        if self.piece.len() < length {
            self.piece.resize(length, 0);
        }
        &mut self.piece[..length]
    }
}

/// A boolean of another value than 0 and 1 is undefined behaviour in C++.
fn check_booleans(kind: Kind, bytes: &[u8]) -> Result<()> {
    ensure!(
        kind != Kind::Bool || bytes.iter().all(|&byte| byte <= 1),
        "a boolean is neither 0 nor 1"
    );
    Ok(())
}

/// The bytes of a one-dimensional uint8 tensor.
pub(super) fn to_vec(tensor: &Tensor) -> Result<Vec<u8>> {
    if tensor.f_kind()? != Kind::Uint8 || tensor.size().len() != 1 {
        bail!(
            "expected bytes, found {:?} of shape {:?}",
            tensor.f_kind()?,
            tensor.size()
        );
    }
    let mut bytes = Vec::with_capacity(tensor.numel());
    Mover::default().write(tensor, |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_longer_than_a_piece_keep_their_bytes() {
        for count in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let tensor =
                Tensor::f_arange(count as i64, (Kind::Int64, Device::Cpu)).expect("a tensor");
            let mut bytes = Vec::new();
            let mut mover = Mover::default();
            mover
                .write(&tensor, |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })
                .expect("written");
            assert_eq!(bytes.len(), count * 8);
            let mut rest = bytes.as_slice();
            let again = mover
                .read(Kind::Int64, &[count as i64], |piece| {
                    std::io::Read::read_exact(&mut rest, piece)
                })
                .expect("read");
            assert!(again.f_equal(&tensor).expect("comparable"), "{count}");
        }
    }

    #[test]
    fn views_are_written_as_they_look() {
        let tensor = Tensor::f_arange(6, (Kind::Float, Device::Cpu))
            .and_then(|t| t.f_reshape([2, 3]))
            .expect("a tensor");
        let mut bytes = Vec::new();
        let view = tensor.f_transpose(0, 1).expect("a view");
        Mover::default()
            .write(&view, |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .expect("written");
        let values: Vec<f32> = bytes
            .chunks(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect();
        assert_eq!(values, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn a_boolean_is_zero_or_one() {
        let read = |bytes: &[u8]| {
            let mut rest = bytes;
            Mover::default().read(Kind::Bool, &[2], |piece| {
                std::io::Read::read_exact(&mut rest, piece)
            })
        };
        assert!(read(&[0, 1]).is_ok());
        assert!(read(&[0, 2]).is_err());
    }
}

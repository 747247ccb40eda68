//! The ways by which elements leave libtorch for a guest: each is checked against the call's share of bytes, then copied.

use tch::{Device, Kind, Tensor};
use wasmtime::component::Resource;

use super::{Handle, Tensors};
use crate::plugin::fault::{HostError, Violation};
use crate::plugin::limits::{Bytes, Limit};

impl Tensors {
    /// The value of a tensor with one element.
    pub(super) fn item(&mut self, handle: &Resource<Handle>) -> Result<f64, HostError> {
        let form = self.form(handle)?;
        if form.elements()? != 1 {
            return Err(HostError::data(format!(
                "a tensor of shape {:?} is not one value",
                form.dims
            )));
        }
        self.count_read(8)?;
        let tensor = self.get(handle)?;
        // libtorch's int64 does not pass through float64 by itself.
        Ok(match form.kind {
            Kind::Int64 => tensor.f_int64_value(&[])? as f64,
            _ => tensor.f_double_value(&[])?,
        })
    }

    /// Elements `offset .. offset + len` in row order as `T`, which is `kind`.
    pub(super) fn read<T: tch::kind::Element>(
        &mut self,
        handle: &Resource<Handle>,
        (offset, len): (u64, u64),
    ) -> Result<Vec<T>, HostError> {
        self.count_read(len.saturating_mul(T::KIND.elt_size_in_bytes() as u64))?;
        let part = self
            .part(handle, (offset, len))?
            .f_to_device(Device::Cpu)?
            .f_to_kind(T::KIND)?;
        let mut values = vec![T::ZERO; part.numel()];
        part.f_contiguous()?
            .f_copy_data(&mut values, part.numel())?;
        Ok(values)
    }

    /// Bytes `offset .. offset + len` of the elements in row order.
    pub(super) fn read_bytes(
        &mut self,
        handle: &Resource<Handle>,
        (offset, len): (u64, u64),
    ) -> Result<Vec<u8>, HostError> {
        self.count_read(len)?;
        let form = self.form(handle)?;
        let total = form.bytes()?;
        if offset.checked_add(len).is_none_or(|end| end > total) {
            return Err(HostError::data(format!(
                "bytes {offset} .. {offset} + {len} of {total}"
            )));
        }
        if len == 0 {
            return Ok(Vec::new());
        }
        let size = form.kind.elt_size_in_bytes() as u64;
        let (first, last) = (offset / size, (offset + len).div_ceil(size));
        let part = self
            .part(handle, (first, last - first))?
            .f_to_device(Device::Cpu)?
            .f_contiguous()?;
        let mut bytes = vec![0; part.numel() * size as usize];
        part.f_copy_data_u8(&mut bytes, part.numel())?;
        let skipped = (offset - first * size) as usize;
        bytes.drain(..skipped);
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    /// A flat piece of a tensor. Row order may need a copy of all of it.
    fn part(
        &mut self,
        handle: &Resource<Handle>,
        (offset, len): (u64, u64),
    ) -> Result<Tensor, HostError> {
        let form = self.form(handle)?;
        let total = form.elements()?;
        if offset.checked_add(len).is_none_or(|end| end > total) {
            return Err(HostError::data(format!(
                "elements {offset} .. {offset} + {len} of {total}"
            )));
        }
        // Held only until this function's copy is gone.
        let _scratch = match self.get(handle)?.is_contiguous() {
            true => None,
            false => Some(self.charge(form.bytes()?, 0)?),
        };
        Ok(self
            .get(handle)?
            .f_reshape([-1])?
            .f_narrow(0, offset as i64, len as i64)?)
    }

    /// Counts bytes that leave the host for the guest in this call.
    pub(in crate::plugin) fn hand_over(&mut self, bytes: u64) -> Result<(), HostError> {
        let wanted = self.read_in_call.saturating_add(bytes);
        if wanted > self.max_read {
            self.violation
                .get_or_insert(Violation::bytes(Limit::Reads, wanted));
            let (wanted, limit) = (Bytes(wanted), Bytes(self.max_read));
            return Err(HostError::limit(format!(
                "the call would have read {wanted}; the limit is {limit}"
            )));
        }
        self.read_in_call = wanted;
        Ok(())
    }

    /// The same for elements of a tensor: the device is waited for.
    fn count_read(&mut self, bytes: u64) -> Result<(), HostError> {
        self.hand_over(bytes)?;
        self.reads += 1;
        Ok(())
    }
}

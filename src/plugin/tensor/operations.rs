//! The operations of the `tensor` interface: each asks its rule, then the budget, then libtorch.

use tch::{Device, Kind, Tensor};
use wasmtime::component::Resource;

use super::constant::{compared, constant, filled, norm, number};
use super::rules::{self, Form, Plan};
use super::{Handle, Tensors};
use crate::plugin::bindings::trainer::host::tensor;
use crate::plugin::bindings::trainer::host::types::Dtype;
use crate::plugin::fault::HostError;
use crate::plugin::state::State;

type Owned = Resource<Handle>;
type Made = Result<Owned, HostError>;

pub(super) fn kind_of(dtype: Dtype) -> Result<Kind, HostError> {
    Ok(match dtype {
        Dtype::Boolean => Kind::Bool,
        Dtype::Unsigned8 => Kind::Uint8,
        Dtype::Signed8 => Kind::Int8,
        Dtype::Signed16 => Kind::Int16,
        Dtype::Signed32 => Kind::Int,
        Dtype::Signed64 => Kind::Int64,
        Dtype::Float16 => Kind::Half,
        Dtype::Brain16 => Kind::BFloat16,
        Dtype::Float32 => Kind::Float,
        Dtype::Float64 => Kind::Double,
        Dtype::Other => {
            return Err(HostError::unsupported(
                "no tensors of type `other` can be made",
            ));
        }
    })
}

fn dtype_of(kind: Kind) -> Dtype {
    match kind {
        Kind::Bool => Dtype::Boolean,
        Kind::Uint8 => Dtype::Unsigned8,
        Kind::Int8 => Dtype::Signed8,
        Kind::Int16 => Dtype::Signed16,
        Kind::Int => Dtype::Signed32,
        Kind::Int64 => Dtype::Signed64,
        Kind::Half => Dtype::Float16,
        Kind::BFloat16 => Dtype::Brain16,
        Kind::Float => Dtype::Float32,
        Kind::Double => Dtype::Float64,
        _ => Dtype::Other,
    }
}

impl Tensors {
    /// An operation on one tensor.
    fn unary(
        &mut self,
        this: &Owned,
        rule: impl FnOnce(&Form) -> Result<Plan, HostError>,
        operation: impl FnOnce(&Tensor) -> Result<Tensor, tch::TchError>,
    ) -> Made {
        let plan = rule(&self.form(this)?)?;
        self.derive(this, &plan, operation)
    }

    /// An operation on two tensors.
    fn binary(
        &mut self,
        (this, rhs): (&Owned, &Owned),
        rule: impl FnOnce(&Form, &Form) -> Result<Plan, HostError>,
        operation: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor, tch::TchError>,
    ) -> Made {
        let plan = rule(&self.form(this)?, &self.form(rhs)?)?;
        let right = self.get(rhs)?.shallow_clone();
        self.derive(this, &plan, |left| operation(left, &right))
    }

    fn topk(&mut self, this: &Owned, k: u64, dim: i32) -> Result<(Owned, Owned), HostError> {
        let (values, indices, dim) = rules::topk(&self.form(this)?, k, dim)?;
        let value_charge = self.charge(values.form.bytes()?, values.scratch)?;
        let index_charge = self.charge(indices.form.bytes()?, values.scratch)?;
        let (values, indices) = self.get(this)?.f_topk(k as i64, dim, true, true)?;
        Ok((
            self.insert(values, Some(value_charge), false)?,
            self.insert(indices, Some(index_charge), false)?,
        ))
    }

    fn bincount(&mut self, this: &Owned, classes: u64) -> Made {
        let form = self.form(this)?;
        let plan = rules::bincount(&form, classes)?;
        // libtorch makes room up to the largest element, whatever length is asked for: it must be known first.
        if form.elements()? > 0 {
            let (low, high) = self.get(this)?.f_aminmax(None, false)?;
            let (low, high) = (low.f_int64_value(&[])?, high.f_int64_value(&[])?);
            if low < 0 || high.unsigned_abs() >= classes {
                return Err(HostError::data(format!(
                    "bincount of elements from {low} to {high} with {classes} classes"
                )));
            }
        }
        self.derive(this, &plan, |tensor| {
            tensor
                .f_reshape([-1])?
                .f_bincount(None::<Tensor>, classes as i64)
        })
    }

    fn histogram(&mut self, this: &Owned, bins: u32, (low, high): (f64, f64)) -> Made {
        let plan = rules::histogram(&self.form(this)?, bins)?;
        if !(low < high && (high - low).is_finite()) {
            return Err(HostError::data(format!("[{low}, {high}] is not a range")));
        }
        self.derive(this, &plan, |tensor| {
            histogram(tensor, i64::from(bins), (low, high))
        })
    }

    fn join(
        &mut self,
        parts: &[Owned],
        rule: impl FnOnce(&[Form]) -> Result<(Plan, i64), HostError>,
        operation: impl FnOnce(&[Tensor], i64) -> Result<Tensor, tch::TchError>,
    ) -> Made {
        let forms = parts
            .iter()
            .map(|part| self.form(part))
            .collect::<Result<Vec<Form>, HostError>>()?;
        let (plan, dim) = rule(&forms)?;
        let tensors = parts.iter().map(|part| Ok(self.get(part)?.shallow_clone()));
        let tensors = tensors.collect::<Result<Vec<Tensor>, HostError>>()?;
        self.create(plan.form, plan.scratch, || Ok(operation(&tensors, dim)?))
    }

    fn keep(&mut self, this: &Owned) -> Made {
        let form = self.form(this)?;
        let charge = self.charge(form.bytes()?, 0)?;
        let original = self.get(this)?.f_detach()?;
        let mut copy = original.f_empty_like()?;
        copy.f_copy_(&original)?;
        self.insert(copy, Some(charge), true)
    }

    fn made_from_slice<T: tch::kind::Element>(&mut self, shape: &[u64], data: &[T]) -> Made {
        let form = Form::of_guest(shape, T::KIND)?;
        need_length(&form, data.len() as u64, form.elements()?)?;
        let dims = form.dims.clone();
        self.create(form, 0, || Ok(Tensor::f_from_slice(data)?.f_reshape(dims)?))
    }

    fn made_from_bytes(&mut self, kind: Kind, shape: &[u64], data: &[u8]) -> Made {
        let form = Form::of_guest(shape, kind)?;
        need_length(&form, data.len() as u64, form.bytes()?)?;
        if kind == Kind::Bool && data.iter().any(|byte| *byte > 1) {
            return Err(HostError::data("a boolean is a byte 0 or 1"));
        }
        let dims = form.dims.clone();
        self.create(form, 0, || Ok(Tensor::f_from_data_size(data, &dims, kind)?))
    }

    fn full(&mut self, kind: Kind, shape: &[u64], value: f64) -> Made {
        let form = Form::of_guest(shape, kind)?;
        rules::need_value(kind, value)?;
        let dims = form.dims.clone();
        self.create(form, 0, || {
            Ok(filled(&dims, &constant(kind, value, Device::Cpu)?)?)
        })
    }
}

/// Elements outside, NaN among them, go to one bin more, which is cut off.
fn histogram(tensor: &Tensor, bins: i64, (low, high): (f64, f64)) -> Result<Tensor, tch::TchError> {
    let number = |value| constant(Kind::Double, value, tensor.device());
    let values = tensor.f_reshape([-1])?.f_to_kind(Kind::Double)?;
    let outside = values
        .f_ge_tensor(&number(low)?)?
        .f_logical_and(&values.f_le_tensor(&number(high)?)?)?
        .f_logical_not()?;
    let bin = values
        .f_sub(&number(low)?)?
        .f_mul(&number(bins as f64 / (high - low))?)?
        .f_floor()?;
    let bin = bin
        .f_maximum(&number(0.0)?)?
        .f_minimum(&number((bins - 1) as f64)?)?;
    let bin = bin
        .f_masked_fill_tensor(&outside, &number(bins as f64)?)?
        .f_to_kind(Kind::Int64)?;
    bin.f_bincount(None::<Tensor>, bins + 1)?
        .f_narrow(0, 0, bins)?
        .f_contiguous()
}

fn need_length(form: &Form, given: u64, needed: u64) -> Result<(), HostError> {
    if given == needed {
        return Ok(());
    }
    Err(HostError::data(format!(
        "{given} values or bytes for shape {:?}, which needs {needed}",
        form.dims
    )))
}

impl tensor::Host for State {
    fn from_float32(&mut self, shape: Vec<u64>, data: Vec<f32>) -> Made {
        self.tensors.made_from_slice(&shape, &data)
    }

    fn from_float64(&mut self, shape: Vec<u64>, data: Vec<f64>) -> Made {
        self.tensors.made_from_slice(&shape, &data)
    }

    fn from_signed64(&mut self, shape: Vec<u64>, data: Vec<i64>) -> Made {
        self.tensors.made_from_slice(&shape, &data)
    }

    fn from_bytes(&mut self, dtype: Dtype, shape: Vec<u64>, data: Vec<u8>) -> Made {
        self.tensors.made_from_bytes(kind_of(dtype)?, &shape, &data)
    }

    fn full(&mut self, dtype: Dtype, shape: Vec<u64>, value: f64) -> Made {
        self.tensors.full(kind_of(dtype)?, &shape, value)
    }

    fn cat(&mut self, parts: Vec<Owned>, dim: i32) -> Made {
        self.tensors
            .join(&parts, |forms| rules::cat(forms, dim), Tensor::f_cat)
    }

    fn stack(&mut self, parts: Vec<Owned>, dim: i32) -> Made {
        self.tensors
            .join(&parts, |forms| rules::stack(forms, dim), Tensor::f_stack)
    }
}

impl tensor::HostTensor for State {
    fn shape(&mut self, this: Owned) -> Result<Vec<u64>, HostError> {
        Ok(self
            .tensors
            .get(&this)?
            .size()
            .into_iter()
            .map(|extent| extent as u64)
            .collect())
    }

    fn dtype(&mut self, this: Owned) -> Result<Dtype, HostError> {
        Ok(dtype_of(self.tensors.get(&this)?.f_kind()?))
    }

    fn dtype_name(&mut self, this: Owned) -> Result<String, HostError> {
        Ok(rules::name(self.tensors.get(&this)?.f_kind()?).to_owned())
    }

    fn device(&mut self, this: Owned) -> Result<String, HostError> {
        Ok(match self.tensors.get(&this)?.device() {
            Device::Cpu => "cpu".to_owned(),
            Device::Cuda(index) => format!("cuda:{index}"),
            other => format!("{other:?}").to_lowercase(),
        })
    }

    fn narrow(&mut self, this: Owned, dim: i32, start: i64, len: u64) -> Made {
        let (plan, dim, start) = rules::narrow(&self.tensors.form(&this)?, dim, start, len)?;
        self.tensors.derive(&this, &plan, |tensor| {
            tensor.f_narrow(dim, start, len as i64)
        })
    }

    fn select(&mut self, this: Owned, dim: i32, index: i64) -> Made {
        let (plan, dim) = rules::select(&self.tensors.form(&this)?, dim, index)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_select(dim, index))
    }

    fn reshape(&mut self, this: Owned, shape: Vec<i64>) -> Made {
        let contiguous = self.tensors.get(&this)?.is_contiguous();
        let plan = rules::reshape(&self.tensors.form(&this)?, &shape, contiguous)?;
        let dims = plan.form.dims.clone();
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_reshape(dims))
    }

    fn transpose(&mut self, this: Owned, a: i32, b: i32) -> Made {
        let (plan, a, b) = rules::transpose(&self.tensors.form(&this)?, a, b)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_transpose(a, b))
    }

    fn sum(&mut self, this: Owned, dims: Vec<i32>, keep_dim: bool) -> Made {
        let form = self.tensors.form(&this)?;
        let dims = rules::dimensions(&form, &dims)?;
        let plan = rules::sum(&form, &dims, keep_dim)?;
        self.tensors.derive(&this, &plan, |tensor| {
            tensor.f_sum_dim_intlist(&dims[..], keep_dim, plan.form.kind)
        })
    }

    fn mean(&mut self, this: Owned, dims: Vec<i32>, keep_dim: bool) -> Made {
        let form = self.tensors.form(&this)?;
        let dims = rules::dimensions(&form, &dims)?;
        let plan = rules::mean(&form, &dims, keep_dim)?;
        self.tensors.derive(&this, &plan, |tensor| {
            tensor.f_mean_dim(&dims[..], keep_dim, plan.form.kind)
        })
    }

    fn amax(&mut self, this: Owned, dims: Vec<i32>, keep_dim: bool) -> Made {
        let form = self.tensors.form(&this)?;
        let dims = rules::dimensions(&form, &dims)?;
        let plan = rules::extremum(&form, &dims, keep_dim)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_amax(&dims[..], keep_dim))
    }

    fn amin(&mut self, this: Owned, dims: Vec<i32>, keep_dim: bool) -> Made {
        let form = self.tensors.form(&this)?;
        let dims = rules::dimensions(&form, &dims)?;
        let plan = rules::extremum(&form, &dims, keep_dim)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_amin(&dims[..], keep_dim))
    }

    fn norm(&mut self, this: Owned, p: f64, dims: Vec<i32>, keep_dim: bool) -> Made {
        let form = self.tensors.form(&this)?;
        let dims = rules::dimensions(&form, &dims)?;
        let plan = rules::norm(&form, p, (&dims, keep_dim))?;
        self.tensors
            .derive(&this, &plan, |tensor| norm(tensor, p, (&dims, keep_dim)))
    }

    fn argmax(&mut self, this: Owned, dim: i32) -> Made {
        let (plan, dim) = rules::argmax(&self.tensors.form(&this)?, dim)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_argmax(dim, false))
    }

    fn topk(&mut self, this: Owned, k: u64, dim: i32) -> Result<(Owned, Owned), HostError> {
        self.tensors.topk(&this, k, dim)
    }

    fn count_non_finite(&mut self, this: Owned) -> Made {
        self.tensors
            .unary(&this, rules::count_non_finite, |tensor| {
                tensor.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)
            })
    }

    fn histogram(&mut self, this: Owned, bins: u32, low: f64, high: f64) -> Made {
        self.tensors.histogram(&this, bins, (low, high))
    }

    fn bincount(&mut self, this: Owned, classes: u64) -> Made {
        self.tensors.bincount(&this, classes)
    }

    fn to_dtype(&mut self, this: Owned, dtype: Dtype) -> Made {
        let kind = kind_of(dtype)?;
        self.tensors.unary(
            &this,
            |form| rules::to_dtype(form, kind),
            |tensor| tensor.f_to_kind(kind),
        )
    }

    fn softmax(&mut self, this: Owned, dim: i32) -> Made {
        let (plan, dim) = rules::softmax(&self.tensors.form(&this)?, dim)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_softmax(dim, None))
    }

    fn log_softmax(&mut self, this: Owned, dim: i32) -> Made {
        let (plan, dim) = rules::softmax(&self.tensors.form(&this)?, dim)?;
        self.tensors
            .derive(&this, &plan, |tensor| tensor.f_log_softmax(dim, None))
    }

    fn sigmoid(&mut self, this: Owned) -> Made {
        self.tensors
            .unary(&this, rules::to_float, Tensor::f_sigmoid)
    }

    fn abs(&mut self, this: Owned) -> Made {
        self.tensors.unary(&this, rules::same, Tensor::f_abs)
    }

    fn exp(&mut self, this: Owned) -> Made {
        self.tensors.unary(&this, rules::to_float, Tensor::f_exp)
    }

    fn log(&mut self, this: Owned) -> Made {
        self.tensors.unary(&this, rules::to_float, Tensor::f_log)
    }

    fn sqrt(&mut self, this: Owned) -> Made {
        self.tensors.unary(&this, rules::to_float, Tensor::f_sqrt)
    }

    fn add(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::arithmetic, |left, right| {
                left.f_add(right)
            })
    }

    fn sub(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::arithmetic, |left, right| {
                left.f_sub(right)
            })
    }

    fn mul(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::arithmetic, |left, right| {
                left.f_mul(right)
            })
    }

    fn div(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::quotient, |left, right| {
                left.f_div(right)
            })
    }

    fn matmul(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::matmul, |left, right| {
                left.f_matmul(right)
            })
    }

    fn pow_scalar(&mut self, this: Owned, exponent: f64) -> Made {
        self.tensors.unary(&this, rules::float, |tensor| {
            tensor.f_pow(&number(tensor, exponent)?)
        })
    }

    fn clamp(&mut self, this: Owned, low: f64, high: f64) -> Made {
        self.tensors.unary(&this, rules::float, |tensor| {
            let (low, high) = (number(tensor, low)?, number(tensor, high)?);
            tensor.f_clamp_tensor(Some(low), Some(high))
        })
    }

    fn add_scalar(&mut self, this: Owned, rhs: f64) -> Made {
        self.tensors.unary(
            &this,
            |form| rules::with_scalar(form, rhs),
            |tensor| tensor.f_add(&number(tensor, rhs)?),
        )
    }

    fn mul_scalar(&mut self, this: Owned, rhs: f64) -> Made {
        self.tensors.unary(
            &this,
            |form| rules::with_scalar(form, rhs),
            |tensor| tensor.f_mul(&number(tensor, rhs)?),
        )
    }

    fn equal(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::comparison, |left, right| {
                left.f_eq_tensor(right)
            })
    }

    fn less(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::comparison, |left, right| {
                left.f_lt_tensor(right)
            })
    }

    fn equal_scalar(&mut self, this: Owned, rhs: f64) -> Made {
        self.tensors.unary(
            &this,
            |form| rules::compared(form, rhs),
            |tensor| {
                let (left, right) = compared(tensor, rhs)?;
                left.f_eq_tensor(&right)
            },
        )
    }

    fn less_scalar(&mut self, this: Owned, rhs: f64) -> Made {
        self.tensors.unary(
            &this,
            |form| rules::compared(form, rhs),
            |tensor| {
                let (left, right) = compared(tensor, rhs)?;
                left.f_lt_tensor(&right)
            },
        )
    }

    fn greater_scalar(&mut self, this: Owned, rhs: f64) -> Made {
        self.tensors.unary(
            &this,
            |form| rules::compared(form, rhs),
            |tensor| {
                let (left, right) = compared(tensor, rhs)?;
                left.f_gt_tensor(&right)
            },
        )
    }

    fn logical_and(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::comparison, |left, right| {
                left.f_logical_and(right)
            })
    }

    fn logical_or(&mut self, this: Owned, rhs: Owned) -> Made {
        self.tensors
            .binary((&this, &rhs), rules::comparison, |left, right| {
                left.f_logical_or(right)
            })
    }

    fn logical_not(&mut self, this: Owned) -> Made {
        self.tensors
            .unary(&this, rules::mask, Tensor::f_logical_not)
    }

    fn where_self(&mut self, this: Owned, mask: Owned, otherwise: Owned) -> Made {
        let tensors = &mut self.tensors;
        let plan = rules::where_self(
            &tensors.form(&this)?,
            &tensors.form(&mask)?,
            &tensors.form(&otherwise)?,
        )?;
        let (mask, otherwise) = (
            tensors.get(&mask)?.shallow_clone(),
            tensors.get(&otherwise)?.shallow_clone(),
        );
        tensors.derive(&this, &plan, |tensor| {
            tensor.f_where_self(&mask, &otherwise)
        })
    }

    fn fill_where(&mut self, this: Owned, mask: Owned, value: f64) -> Made {
        let kind = self.tensors.form(&this)?.kind;
        let rule = |form: &Form, mask: &Form| rules::fill_where(form, mask, value);
        self.tensors.binary((&this, &mask), rule, |tensor, mask| {
            tensor.f_masked_fill_tensor(mask, &constant(kind, value, tensor.device())?)
        })
    }

    fn gather(&mut self, this: Owned, dim: i32, index: Owned) -> Made {
        let tensors = &mut self.tensors;
        let (plan, dim) = rules::gather(&tensors.form(&this)?, dim, &tensors.form(&index)?)?;
        let index = tensors.get(&index)?.shallow_clone();
        tensors.derive(&this, &plan, |tensor| tensor.f_gather(dim, &index, false))
    }

    fn item(&mut self, this: Owned) -> Result<f64, HostError> {
        self.tensors.item(&this)
    }

    fn read_float32(&mut self, this: Owned, offset: u64, len: u64) -> Result<Vec<f32>, HostError> {
        self.tensors.read(&this, (offset, len))
    }

    fn read_float64(&mut self, this: Owned, offset: u64, len: u64) -> Result<Vec<f64>, HostError> {
        self.tensors.read(&this, (offset, len))
    }

    fn read_signed64(&mut self, this: Owned, offset: u64, len: u64) -> Result<Vec<i64>, HostError> {
        self.tensors.read(&this, (offset, len))
    }

    fn read_bytes(&mut self, this: Owned, offset: u64, len: u64) -> Result<Vec<u8>, HostError> {
        self.tensors.read_bytes(&this, (offset, len))
    }

    fn keep(&mut self, this: Owned) -> Made {
        self.tensors.keep(&this)
    }

    fn drop(&mut self, this: Owned) -> wasmtime::Result<()> {
        self.tensors.release(&this);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::rules::is_float;
    use super::*;
    use crate::plugin::bindings::trainer::host::tensor::{Host as _, HostTensor as _};
    use crate::plugin::limits::Limits;
    use crate::plugin::state::Facts;

    const KINDS: [Kind; 10] = [
        Kind::Bool,
        Kind::Uint8,
        Kind::Int8,
        Kind::Int16,
        Kind::Int,
        Kind::Int64,
        Kind::Half,
        Kind::BFloat16,
        Kind::Float,
        Kind::Double,
    ];
    const SHAPES: [&[i64]; 6] = [&[], &[1], &[3], &[2, 3], &[0, 3], &[2, 1, 3]];

    fn state() -> State {
        let facts = Facts {
            name: "test".to_owned(),
            id: "test".to_owned(),
            version: String::new(),
            rank: 0,
            world_size: 1,
            random_key: [0; 32],
            arguments: serde_json::Map::new(),
            limits: Limits {
                handles: 100_000,
                ..Limits::default()
            },
            allowed: crate::plugin::allowed::Allowed::default(),
            tokenizer: std::sync::OnceLock::new(),
        };
        State::new(Arc::new(facts)).expect("nothing to open")
    }

    fn sample(kind: Kind, shape: &[i64]) -> Tensor {
        let count: i64 = shape.iter().product();
        let values = Tensor::f_arange(count, (Kind::Int64, Device::Cpu))
            .and_then(|range| range.f_remainder(2));
        values
            .and_then(|values| values.f_to_kind(kind))
            .and_then(|values| values.f_reshape(shape))
            .expect("a sample")
    }

    /// Runs an operation; what does not fit must be an error for the guest. `create` and `derive` compare form and rule.
    fn attempt<T>(name: &str, operands: &[&Tensor], outcome: Result<T, HostError>) -> bool {
        match outcome {
            Ok(_) => true,
            Err(HostError::Guest(_)) => false,
            Err(HostError::Trap(error)) => panic!("{name} on {operands:?}: {error:#}"),
        }
    }

    type Unary = (&'static str, fn(&mut State, Owned) -> Made);

    const UNARY: &[Unary] = &[
        ("narrow", |state, this| state.narrow(this, -1, 0, 1)),
        ("select", |state, this| state.select(this, 0, -1)),
        ("reshape", |state, this| state.reshape(this, vec![-1])),
        ("transpose", |state, this| state.transpose(this, 0, -1)),
        ("sum", |state, this| state.sum(this, vec![-1], true)),
        ("sum all", |state, this| state.sum(this, vec![], false)),
        ("mean", |state, this| state.mean(this, vec![0], false)),
        ("amax", |state, this| state.amax(this, vec![], false)),
        ("amin", |state, this| state.amin(this, vec![-1], true)),
        ("norm", |state, this| state.norm(this, 2.0, vec![], false)),
        ("norm inf", |state, this| {
            state.norm(this, f64::INFINITY, vec![-1], true)
        }),
        ("argmax", |state, this| state.argmax(this, -1)),
        ("topk", |state, this| {
            state.topk(this, 1, -1).map(|(values, _)| values)
        }),
        ("count_non_finite", |state, this| {
            state.count_non_finite(this)
        }),
        ("histogram", |state, this| {
            state.histogram(this, 4, 0.0, 1.0)
        }),
        ("bincount", |state, this| state.bincount(this, 5)),
        ("to_dtype", |state, this| {
            state.to_dtype(this, Dtype::Float16)
        }),
        ("softmax", |state, this| state.softmax(this, -1)),
        ("log_softmax", |state, this| state.log_softmax(this, 0)),
        ("sigmoid", |state, this| state.sigmoid(this)),
        ("abs", |state, this| state.abs(this)),
        ("exp", |state, this| state.exp(this)),
        ("log", |state, this| state.log(this)),
        ("sqrt", |state, this| state.sqrt(this)),
        ("add_scalar whole", |state, this| {
            state.add_scalar(this, 2.0)
        }),
        ("add_scalar large", |state, this| {
            state.add_scalar(this, 1000.0)
        }),
        ("full", |state, this| {
            let dtype = state.dtype(Resource::new_own(this.rep()))?;
            state.full(dtype, vec![2, 2], 3.0)
        }),
        ("add_scalar", |state, this| state.add_scalar(this, 0.5)),
        ("mul_scalar whole", |state, this| {
            state.mul_scalar(this, 3.0)
        }),
        ("mul_scalar", |state, this| state.mul_scalar(this, 1.5)),
        ("equal_scalar", |state, this| {
            state.equal_scalar(this, -100.0)
        }),
        ("less_scalar", |state, this| state.less_scalar(this, 0.5)),
        ("greater_scalar", |state, this| {
            state.greater_scalar(this, 1.0)
        }),
        ("logical_not", |state, this| state.logical_not(this)),
        ("pow_scalar", |state, this| state.pow_scalar(this, 1.5)),
        ("clamp", |state, this| state.clamp(this, 0.25, 0.5)),
        ("keep", |state, this| state.keep(this)),
    ];

    #[test]
    fn every_rule_on_one_tensor_says_what_libtorch_does() {
        let mut state = state();
        for (name, operation) in UNARY {
            let mut done = 0;
            for kind in KINDS {
                for shape in SHAPES {
                    let tensor = sample(kind, shape);
                    let this = state.tensors.lend(&tensor).expect("a handle");
                    done += usize::from(attempt(name, &[&tensor], operation(&mut state, this)));
                    // The same on a layout that is not contiguous.
                    let turned = if tensor.dim() < 2 {
                        tensor
                    } else {
                        tensor.f_transpose(0, -1).expect("turned")
                    };
                    let this = state.tensors.lend(&turned).expect("a handle");
                    done += usize::from(attempt(name, &[&turned], operation(&mut state, this)));
                }
                state = self::state();
            }
            assert!(done >= 30, "{name} worked {done} times only");
        }
    }

    type Binary = (&'static str, fn(&mut State, Owned, Owned) -> Made);

    const BINARY: &[Binary] = &[
        ("add", |state, left, right| state.add(left, right)),
        ("sub", |state, left, right| state.sub(left, right)),
        ("mul", |state, left, right| state.mul(left, right)),
        ("div", |state, left, right| state.div(left, right)),
        ("matmul", |state, left, right| {
            let turned = state.transpose(right, -1, -2)?;
            state.matmul(left, turned)
        }),
        ("equal", |state, left, right| state.equal(left, right)),
        ("less", |state, left, right| state.less(left, right)),
        ("logical_and", |state, left, right| {
            state.logical_and(left, right)
        }),
        ("logical_or", |state, left, right| {
            state.logical_or(left, right)
        }),
        ("gather", |state, left, right| state.gather(left, 0, right)),
        ("fill_where", |state, left, right| {
            state.fill_where(left, right, 1.0)
        }),
        ("where_self", |state, left, right| {
            let mask = state.full(Dtype::Boolean, vec![3], 1.0)?;
            state.where_self(left, mask, right)
        }),
        ("cat", |state, left, right| state.cat(vec![left, right], -1)),
        ("stack", |state, left, right| {
            state.stack(vec![left, right], 0)
        }),
    ];

    #[test]
    fn every_rule_on_two_tensors_says_what_libtorch_does() {
        let mut state = state();
        for (name, operation) in BINARY {
            let mut done = 0;
            for left_kind in KINDS {
                for right_kind in KINDS {
                    for left_shape in SHAPES {
                        for right_shape in SHAPES {
                            let (left, right) = (
                                sample(left_kind, left_shape),
                                sample(right_kind, right_shape),
                            );
                            let handles = [&left, &right]
                                .map(|tensor| state.tensors.lend(tensor).expect("a handle"));
                            let [this, rhs] = handles;
                            done += usize::from(attempt(
                                name,
                                &[&left, &right],
                                operation(&mut state, this, rhs),
                            ));
                        }
                    }
                    state = self::state();
                }
            }
            assert!(done >= 20, "{name} worked {done} times only");
        }
    }

    #[test]
    fn a_histogram_counts_what_is_inside_and_nothing_else() {
        let mut state = state();
        let tensor = Tensor::from_slice(&[
            -0.1_f32,
            0.0,
            0.24,
            0.25,
            0.5,
            1.0,
            1.1,
            f32::NAN,
            f32::INFINITY,
        ]);
        let this = state.tensors.lend(&tensor).expect("a handle");
        let bins = state.histogram(this, 4, 0.0, 1.0).expect("bins");
        assert_eq!(
            state.read_signed64(bins, 0, 4).expect("counts"),
            [2, 1, 1, 1]
        );
    }

    #[test]
    fn numbers_go_in_and_come_out_unchanged() {
        let mut state = state();
        let tensor = state
            .from_float32(vec![2, 2], vec![1.5, -2.0, 3.25, f32::MAX])
            .expect("made");
        let again = |tensor: &Owned| Resource::new_own(tensor.rep());
        assert_eq!(
            state.read_float32(again(&tensor), 1, 2).expect("read"),
            [-2.0, 3.25]
        );
        assert_eq!(
            state.read_bytes(again(&tensor), 2, 4).expect("read"),
            [&1.5_f32.to_le_bytes()[2..], &(-2.0_f32).to_le_bytes()[..2]].concat()
        );
        assert_eq!(
            state.read_signed64(again(&tensor), 0, 1).expect("read"),
            [1]
        );
        for outside in [(0, 5), (4, 1), (u64::MAX, 2)] {
            assert!(
                state
                    .read_float32(again(&tensor), outside.0, outside.1)
                    .is_err(),
                "{outside:?}"
            );
        }
        let large = state
            .from_signed64(vec![1], vec![(1 << 53) + 1])
            .expect("made");
        let equal = state
            .equal_scalar(again(&large), 9_007_199_254_740_992.0)
            .expect("compared");
        assert_eq!(
            state.item(equal).expect("read"),
            0.0,
            "whole numbers are compared as such"
        );
        for (shape, data) in [
            (vec![3], vec![0_u8, 1]),
            (vec![u64::MAX, 2], vec![]),
            (vec![2], vec![0, 2]),
        ] {
            assert!(
                state
                    .from_bytes(Dtype::Boolean, shape.clone(), data)
                    .is_err(),
                "{shape:?}"
            );
        }
    }

    #[test]
    fn inputs_are_never_changed() {
        let mut state = state();
        let tensor = Tensor::from_slice(&[1.0_f32, 2.0]);
        for (_, operation) in UNARY {
            let this = state.tensors.lend(&tensor).expect("a handle");
            let _ = operation(&mut state, this);
        }
        assert_eq!(Vec::<f32>::try_from(&tensor).expect("values"), [1.0, 2.0]);
        assert!(is_float(tensor.kind()));
    }
}

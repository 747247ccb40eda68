//! Tensors of the host. A handle is cheap, an operation runs in libtorch, and only `item` and `read_*` bring numbers here.

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Neg, Not, Sub};

use crate::error::Result;
use crate::hooks::host::tensor as host;

pub use crate::hooks::host::types::Dtype;

/// A tensor of the host. It ends with the hook call it was made in; [`Tensor::keep`] makes one that does not.
#[derive(Debug)]
pub struct Tensor(host::Tensor);

impl From<host::Tensor> for Tensor {
    fn from(handle: host::Tensor) -> Self {
        Self(handle)
    }
}

impl From<Tensor> for host::Tensor {
    fn from(tensor: Tensor) -> Self {
        tensor.0
    }
}

/// Methods without tensor arguments, as the WIT package has them.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*);)+) => {
        $($(#[$doc])* pub fn $name(&self, $($argument: $kind),*) -> Result<Tensor> {
            Ok(Tensor(self.0.$name($($argument),*)?))
        })+
    };
}

/// Methods with one more tensor.
macro_rules! binary_methods {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])* pub fn $name(&self, rhs: &Tensor) -> Result<Tensor> {
            Ok(Tensor(self.0.$name(&rhs.0)?))
        })+
    };
}

impl Tensor {
    /// A float32 tensor from numbers in row order.
    pub fn from_float32(shape: &[u64], data: &[f32]) -> Result<Self> {
        Ok(Self(host::from_float32(shape, data)?))
    }

    /// A float64 tensor from numbers in row order.
    pub fn from_float64(shape: &[u64], data: &[f64]) -> Result<Self> {
        Ok(Self(host::from_float64(shape, data)?))
    }

    /// A signed64 tensor from numbers in row order.
    pub fn from_signed64(shape: &[u64], data: &[i64]) -> Result<Self> {
        Ok(Self(host::from_signed64(shape, data)?))
    }

    /// A tensor from the bytes of its elements in row order, little endian.
    pub fn from_bytes(dtype: Dtype, shape: &[u64], data: &[u8]) -> Result<Self> {
        Ok(Self(host::from_bytes(dtype, shape, data)?))
    }

    /// A tensor with one value everywhere.
    pub fn full(dtype: Dtype, shape: &[u64], value: f64) -> Result<Self> {
        Ok(Self(host::full(dtype, shape, value)?))
    }

    /// Tensors one after the other along a dimension.
    pub fn cat(parts: &[&Tensor], dim: i32) -> Result<Self> {
        let parts: Vec<&host::Tensor> = parts.iter().map(|part| &part.0).collect();
        Ok(Self(host::cat(&parts, dim)?))
    }

    /// Tensors beside each other along a new dimension.
    pub fn stack(parts: &[&Tensor], dim: i32) -> Result<Self> {
        let parts: Vec<&host::Tensor> = parts.iter().map(|part| &part.0).collect();
        Ok(Self(host::stack(&parts, dim)?))
    }

    /// Extent of each dimension.
    pub fn shape(&self) -> Result<Vec<u64>> {
        Ok(self.0.shape()?)
    }

    /// Element type.
    pub fn dtype(&self) -> Result<Dtype> {
        Ok(self.0.dtype()?)
    }

    /// Element type as safetensors spells it.
    pub fn dtype_name(&self) -> Result<String> {
        Ok(self.0.dtype_name()?)
    }

    /// `cpu`, `cuda:0`, ...
    pub fn device(&self) -> Result<String> {
        Ok(self.0.device()?)
    }

    methods! {
        /// A piece of a dimension; a view.
        narrow(dim: i32, start: i64, len: u64);
        /// One index of a dimension, which goes; a view.
        select(dim: i32, index: i64);
        /// Other extents, one of which may be -1.
        reshape(shape: &[i64]);
        /// Two dimensions exchanged; a view.
        transpose(a: i32, b: i32);
        /// Sum over dimensions; none means all.
        sum(dims: &[i32], keep_dim: bool);
        /// Mean over dimensions.
        mean(dims: &[i32], keep_dim: bool);
        /// Largest elements over dimensions.
        amax(dims: &[i32], keep_dim: bool);
        /// Smallest elements over dimensions.
        amin(dims: &[i32], keep_dim: bool);
        /// p-norm over dimensions.
        norm(p: f64, dims: &[i32], keep_dim: bool);
        /// Index of the largest element along a dimension.
        argmax(dim: i32);
        /// How many elements are infinite or not a number.
        count_non_finite();
        /// Counts in bins of equal width.
        histogram(bins: u32, low: f64, high: f64);
        /// How often each of `0 .. classes` occurs.
        bincount(classes: u64);
        /// The same numbers as another type.
        to_dtype(dtype: Dtype);
        /// Softmax along a dimension.
        softmax(dim: i32);
        /// Logarithm of the softmax along a dimension.
        log_softmax(dim: i32);
        /// Logistic function.
        sigmoid();
        /// Absolute values.
        abs();
        /// Exponential.
        exp();
        /// Natural logarithm.
        log();
        /// Square root.
        sqrt();
        /// Adds a number.
        add_scalar(rhs: f64);
        /// Multiplies by a number.
        mul_scalar(rhs: f64);
        /// Each element to a power; floating point only.
        pow_scalar(exponent: f64);
        /// What lies outside of `low ..= high` becomes the nearer of them; floating point only.
        clamp(low: f64, high: f64);
        /// Where elements equal a number.
        equal_scalar(rhs: f64);
        /// Where elements are less than a number.
        less_scalar(rhs: f64);
        /// Where elements are greater than a number.
        greater_scalar(rhs: f64);
        /// Where elements are false or zero.
        logical_not();
        /// A copy that outlives the call.
        keep();
    }

    binary_methods! {
        /// Rows times columns.
        matmul;
        /// Where elements are equal.
        equal;
        /// Where elements are less.
        less;
        /// Where both hold.
        logical_and;
        /// Where one holds.
        logical_or;
    }

    /// The `k` largest elements along a dimension and their indices.
    pub fn topk(&self, k: u64, dim: i32) -> Result<(Tensor, Tensor)> {
        let (values, indices) = self.0.topk(k, dim)?;
        Ok((Tensor(values), Tensor(indices)))
    }

    /// These elements where `mask` holds, else those of `otherwise`.
    pub fn where_self(&self, mask: &Tensor, otherwise: &Tensor) -> Result<Tensor> {
        Ok(Tensor(self.0.where_self(&mask.0, &otherwise.0)?))
    }

    /// `value` where `mask` holds, else these elements.
    pub fn fill_where(&self, mask: &Tensor, value: f64) -> Result<Tensor> {
        Ok(Tensor(self.0.fill_where(&mask.0, value)?))
    }

    /// Elements picked along a dimension.
    pub fn gather(&self, dim: i32, index: &Tensor) -> Result<Tensor> {
        Ok(Tensor(self.0.gather(dim, &index.0)?))
    }

    /// Sum of all elements.
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum(&[], false)
    }

    /// The value of a tensor with one element. Waits for the device.
    pub fn item(&self) -> Result<f64> {
        Ok(self.0.item()?)
    }

    /// A piece of the elements in row order. Waits for the device.
    pub fn read_float32(&self, offset: u64, len: u64) -> Result<Vec<f32>> {
        Ok(self.0.read_float32(offset, len)?)
    }

    /// A piece of the elements in row order. Waits for the device.
    pub fn read_float64(&self, offset: u64, len: u64) -> Result<Vec<f64>> {
        Ok(self.0.read_float64(offset, len)?)
    }

    /// A piece of the elements in row order. Waits for the device.
    pub fn read_signed64(&self, offset: u64, len: u64) -> Result<Vec<i64>> {
        Ok(self.0.read_signed64(offset, len)?)
    }

    /// A piece of the elements' bytes in row order. Waits for the device.
    pub fn read_bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        Ok(self.0.read_bytes(offset, len)?)
    }

    /// The handle as the bindings have it.
    #[doc(hidden)]
    pub fn handle(&self) -> &host::Tensor {
        &self.0
    }
}

/// Operators give results: an operation can be over a limit or not fit.
macro_rules! operators {
    ($($trait:ident $method:ident $name:ident;)+) => {
        $(impl $trait<&Tensor> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, rhs: &Tensor) -> Result<Tensor> {
                Ok(Tensor(self.0.$name(&rhs.0)?))
            }
        })+
    };
}

operators! {
    Add add add;
    Sub sub sub;
    Mul mul mul;
    Div div div;
    BitAnd bitand logical_and;
    BitOr bitor logical_or;
}

impl Not for &Tensor {
    type Output = Result<Tensor>;
    fn not(self) -> Result<Tensor> {
        self.logical_not()
    }
}

impl Add<f64> for &Tensor {
    type Output = Result<Tensor>;
    fn add(self, rhs: f64) -> Result<Tensor> {
        self.add_scalar(rhs)
    }
}

impl Mul<f64> for &Tensor {
    type Output = Result<Tensor>;
    fn mul(self, rhs: f64) -> Result<Tensor> {
        self.mul_scalar(rhs)
    }
}

impl Sub<f64> for &Tensor {
    type Output = Result<Tensor>;
    fn sub(self, rhs: f64) -> Result<Tensor> {
        self.add_scalar(-rhs)
    }
}

impl Div<f64> for &Tensor {
    type Output = Result<Tensor>;
    fn div(self, rhs: f64) -> Result<Tensor> {
        self.mul_scalar(1.0 / rhs)
    }
}

impl Neg for &Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        self.mul_scalar(-1.0)
    }
}

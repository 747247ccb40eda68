//! Tensors in memory. Numbers are float64 whatever the element type, rounded to float32 for the narrower floating point
//! types; whole numbers are exact up to 2^53.

use std::rc::Rc;

use super::types::{Dtype, Error, data};

/// A tensor; a clone shares its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    numbers: Rc<Vec<f64>>,
}

/// A tensor and its name.
#[derive(Clone, Debug)]
pub struct NamedTensor {
    pub name: String,
    pub value: Tensor,
}

type Made = Result<Tensor, Error>;

fn is_float(dtype: Dtype) -> bool {
    use Dtype::{Brain16, Float16, Float32, Float64};
    matches!(dtype, Float16 | Brain16 | Float32 | Float64)
}

/// Booleans, then whole numbers by width, then floating point.
fn rank(dtype: Dtype) -> u8 {
    match dtype {
        Dtype::Boolean => 0,
        Dtype::Unsigned8 | Dtype::Signed8 => 1,
        Dtype::Signed16 => 2,
        Dtype::Signed32 => 3,
        Dtype::Signed64 => 4,
        Dtype::Float16 => 5,
        Dtype::Brain16 => 6,
        Dtype::Float32 => 7,
        Dtype::Float64 | Dtype::Other => 8,
    }
}

fn higher(left: Dtype, right: Dtype) -> Dtype {
    if rank(left) >= rank(right) {
        left
    } else {
        right
    }
}

/// Floating point, or float32 in the place of whole numbers.
fn real(dtype: Dtype) -> Dtype {
    match is_float(dtype) {
        true => dtype,
        false => Dtype::Float32,
    }
}

fn rounded(dtype: Dtype, number: f64) -> f64 {
    match dtype {
        Dtype::Float64 => number,
        Dtype::Boolean => f64::from(number != 0.0),
        other if is_float(other) => f64::from(number as f32),
        _ => number.trunc(),
    }
}

fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim] * shape[dim];
    }
    strides
}

/// Where an index stands in the row order of a shape: trailing dimensions match, missing and single ones repeat.
fn place(shape: &[usize], index: &[usize]) -> usize {
    let skipped = index.len() - shape.len();
    let place = |(dim, stride): (usize, &usize)| match shape[dim] {
        1 => 0,
        _ => index[skipped + dim] * stride,
    };
    strides(shape).iter().enumerate().map(place).sum()
}

/// Every index of a shape, in row order.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> + use<> {
    let shape = shape.to_vec();
    let count: usize = shape.iter().product();
    (0..count).map(move |mut flat| {
        let mut index = vec![0; shape.len()];
        for dim in (0..shape.len()).rev() {
            index[dim] = flat % shape[dim];
            flat /= shape[dim];
        }
        index
    })
}

impl Tensor {
    /// Numbers in row order.
    pub fn of(dtype: Dtype, shape: &[u64], numbers: Vec<f64>) -> Made {
        let shape: Vec<usize> = shape.iter().map(|extent| *extent as usize).collect();
        if shape.iter().product::<usize>() != numbers.len() {
            return data(format!("{} values for shape {shape:?}", numbers.len()));
        }
        Ok(Self::made(dtype, shape, numbers))
    }

    fn made(dtype: Dtype, shape: Vec<usize>, mut numbers: Vec<f64>) -> Self {
        for number in &mut numbers {
            *number = rounded(dtype, *number);
        }
        Self {
            dtype,
            shape,
            numbers: Rc::new(numbers),
        }
    }

    /// Each number to another.
    pub fn map(&self, dtype: Dtype, operation: impl Fn(f64) -> f64) -> Made {
        let numbers = self.numbers.iter().map(|number| operation(*number));
        Ok(Self::made(dtype, self.shape.clone(), numbers.collect()))
    }

    fn floating(&self) -> Result<&Self, Error> {
        match is_float(self.dtype) {
            true => Ok(self),
            false => data(format!(
                "needs a floating point tensor, not {:?}",
                self.dtype
            )),
        }
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.numbers[place(&self.shape, index)]
    }

    fn broadcast(&self, other: &Self) -> Result<Vec<usize>, Error> {
        let rank = self.shape.len().max(other.shape.len());
        let extent = |shape: &[usize], dim: usize| {
            (dim + shape.len())
                .checked_sub(rank)
                .map_or(1, |index| shape[index])
        };
        let both = |dim| match (extent(&self.shape, dim), extent(&other.shape, dim)) {
            (1, extent) | (extent, 1) => Some(extent),
            (extent, same) => (extent == same).then_some(extent),
        };
        match (0..rank).map(both).collect() {
            Some(shape) => Ok(shape),
            None => data(format!(
                "shapes {:?} and {:?} do not fit each other",
                self.shape, other.shape
            )),
        }
    }

    /// The type of an operation on two; a scalar counts only if its kind of number is a higher one.
    fn promoted(&self, other: &Self) -> Dtype {
        let (tensor, scalar) = match (self.shape.is_empty(), other.shape.is_empty()) {
            (false, true) => (self.dtype, other.dtype),
            (true, false) => (other.dtype, self.dtype),
            _ => return higher(self.dtype, other.dtype),
        };
        match tensor == Dtype::Boolean || (is_float(scalar) && !is_float(tensor)) {
            true => higher(tensor, scalar),
            false => tensor,
        }
    }

    fn zip(&self, other: &Self, dtype: Dtype, operation: impl Fn(f64, f64) -> f64) -> Made {
        let shape = self.broadcast(other)?;
        let numbers = indices(&shape).map(|index| operation(self.at(&index), other.at(&index)));
        Ok(Self::made(dtype, shape.clone(), numbers.collect()))
    }

    fn compare(&self, other: &Self, operation: impl Fn(f64, f64) -> bool) -> Made {
        self.zip(other, Dtype::Boolean, |left, right| {
            f64::from(operation(left, right))
        })
    }

    fn with_scalar(&self, rhs: f64, operation: impl Fn(f64, f64) -> f64) -> Made {
        let dtype = match (is_float(self.dtype), rhs.fract() == 0.0) {
            (true, _) => self.dtype,
            (false, false) => Dtype::Float32,
            (false, true) if self.dtype == Dtype::Boolean => Dtype::Signed64,
            (false, true) => self.dtype,
        };
        self.map(dtype, |number| operation(number, rhs))
    }

    fn dim(&self, dim: i32) -> Result<usize, Error> {
        let rank = self.shape.len().max(1) as i32;
        let wrapped = if dim < 0 { dim + rank } else { dim };
        match (0..rank).contains(&wrapped) {
            true => Ok(wrapped as usize),
            false => data(format!(
                "there is no dimension {dim} in shape {:?}",
                self.shape
            )),
        }
    }

    /// The numbers along a dimension, for each place of the others in row order.
    fn lines(&self, dim: usize) -> Vec<Vec<f64>> {
        if self.shape.is_empty() {
            return vec![self.numbers.to_vec()];
        }
        let mut others = self.shape.clone();
        let extent = std::mem::replace(&mut others[dim], 1);
        let line = |mut index: Vec<usize>| {
            let numbers = (0..extent).map(|place| {
                index[dim] = place;
                self.at(&index)
            });
            numbers.collect()
        };
        indices(&others).map(line).collect()
    }

    /// The inverse of [`Self::lines`].
    fn from_lines(&self, dtype: Dtype, dim: usize, lines: &[Vec<f64>]) -> Self {
        let mut shape = self.shape.clone();
        if let Some(extent) = shape.get_mut(dim) {
            *extent = lines.first().map_or(0, Vec::len);
        }
        let mut others = shape.clone();
        if let Some(extent) = others.get_mut(dim) {
            *extent = 1;
        }
        let number = |index: Vec<usize>| {
            let at = index.get(dim).copied().unwrap_or(0);
            lines[place(&others, &index)][at]
        };
        let numbers = indices(&shape).map(number).collect();
        Self::made(dtype, shape, numbers)
    }

    fn reduce(
        &self,
        dtype: Dtype,
        (dims, keep_dim): (&[i32], bool),
        fold: impl Fn(&[f64]) -> f64,
    ) -> Made {
        let dims = match dims.is_empty() {
            true => (0..self.shape.len()).collect::<Vec<_>>(),
            false => dims
                .iter()
                .map(|dim| self.dim(*dim))
                .collect::<Result<_, _>>()?,
        };
        let mut kept = self.shape.clone();
        for dim in &dims {
            if let Some(extent) = kept.get_mut(*dim) {
                *extent = 1;
            }
        }
        let mut groups = vec![Vec::new(); kept.iter().product()];
        for index in indices(&self.shape) {
            groups[place(&kept, &index)].push(self.at(&index));
        }
        let shape = match keep_dim {
            true => kept,
            false => {
                let extents = self.shape.iter().enumerate();
                let left = extents.filter(|(dim, _)| !dims.contains(dim));
                left.map(|(_, extent)| *extent).collect()
            }
        };
        let numbers = groups.iter().map(|group| fold(group)).collect();
        Ok(Self::made(dtype, shape, numbers))
    }
}

/// The interface of the WIT package.
impl Tensor {
    pub fn shape(&self) -> Result<Vec<u64>, Error> {
        Ok(self.shape.iter().map(|extent| *extent as u64).collect())
    }

    pub fn dtype(&self) -> Result<Dtype, Error> {
        Ok(self.dtype)
    }

    pub fn dtype_name(&self) -> Result<String, Error> {
        let name = match self.dtype {
            Dtype::Boolean => "BOOL",
            Dtype::Unsigned8 => "U8",
            Dtype::Signed8 => "I8",
            Dtype::Signed16 => "I16",
            Dtype::Signed32 => "I32",
            Dtype::Signed64 => "I64",
            Dtype::Float16 => "F16",
            Dtype::Brain16 => "BF16",
            Dtype::Float32 => "F32",
            Dtype::Float64 => "F64",
            Dtype::Other => "other",
        };
        Ok(name.to_owned())
    }

    pub fn device(&self) -> Result<String, Error> {
        Ok("cpu".to_owned())
    }

    pub fn narrow(&self, dim: i32, start: i64, len: u64) -> Made {
        let dim = self.dim(dim)?;
        let extent = self.shape.get(dim).copied().unwrap_or(0);
        let from = if start < 0 {
            start + extent as i64
        } else {
            start
        };
        if from < 0 || from as u64 + len > extent as u64 {
            return data(format!(
                "elements {start} .. {start} + {len} are outside of {:?}",
                self.shape
            ));
        }
        let mut shape = self.shape.clone();
        shape[dim] = len as usize;
        let number = |mut index: Vec<usize>| {
            index[dim] += from as usize;
            self.at(&index)
        };
        let numbers = indices(&shape).map(number).collect();
        Ok(Self::made(self.dtype, shape, numbers))
    }

    pub fn select(&self, dim: i32, index: i64) -> Made {
        let place = self.dim(dim)?;
        let mut one = self.narrow(dim, index, 1)?;
        one.shape.remove(place);
        Ok(one)
    }

    pub fn reshape(&self, shape: &[i64]) -> Made {
        let known: i64 = shape.iter().filter(|extent| **extent >= 0).product();
        let open = if known == 0 {
            0
        } else {
            self.numbers.len() as i64 / known
        };
        let extent = |extent: &i64| if *extent < 0 { open } else { *extent } as usize;
        let wanted: Vec<usize> = shape.iter().map(extent).collect();
        if wanted.iter().product::<usize>() != self.numbers.len() {
            return data(format!("shape {:?} cannot become {shape:?}", self.shape));
        }
        Ok(Self {
            shape: wanted,
            ..self.clone()
        })
    }

    pub fn transpose(&self, a: i32, b: i32) -> Made {
        let (a, b) = (self.dim(a)?, self.dim(b)?);
        let mut shape = self.shape.clone();
        if shape.is_empty() {
            return Ok(self.clone());
        }
        shape.swap(a, b);
        let number = |mut index: Vec<usize>| {
            index.swap(a, b);
            self.at(&index)
        };
        let numbers = indices(&shape).map(number).collect();
        Ok(Self::made(self.dtype, shape, numbers))
    }

    pub fn sum(&self, dims: &[i32], keep_dim: bool) -> Made {
        let dtype = if is_float(self.dtype) {
            self.dtype
        } else {
            Dtype::Signed64
        };
        self.reduce(dtype, (dims, keep_dim), |group| group.iter().sum())
    }

    pub fn mean(&self, dims: &[i32], keep_dim: bool) -> Made {
        let mean = |group: &[f64]| group.iter().sum::<f64>() / group.len() as f64;
        self.floating()?.reduce(self.dtype, (dims, keep_dim), mean)
    }

    pub fn amax(&self, dims: &[i32], keep_dim: bool) -> Made {
        let largest = |group: &[f64]| group.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.reduce(self.dtype, (dims, keep_dim), largest)
    }

    pub fn amin(&self, dims: &[i32], keep_dim: bool) -> Made {
        let smallest = |group: &[f64]| group.iter().copied().fold(f64::INFINITY, f64::min);
        self.reduce(self.dtype, (dims, keep_dim), smallest)
    }

    pub fn norm(&self, p: f64, dims: &[i32], keep_dim: bool) -> Made {
        let norm = |group: &[f64]| {
            let sizes = group.iter().map(|number| number.abs());
            match p {
                f64::INFINITY => sizes.fold(0.0, f64::max),
                0.0 => group.iter().filter(|number| **number != 0.0).count() as f64,
                _ => sizes.map(|size| size.powf(p)).sum::<f64>().powf(1.0 / p),
            }
        };
        self.floating()?.reduce(self.dtype, (dims, keep_dim), norm)
    }

    pub fn argmax(&self, dim: i32) -> Made {
        let largest = |line: &[f64]| {
            let better = |best: usize, index: usize| {
                if line[index] > line[best] {
                    index
                } else {
                    best
                }
            };
            (0..line.len()).fold(0, better) as f64
        };
        self.reduce(Dtype::Signed64, (&[self.dim(dim)? as i32], false), largest)
    }

    pub fn topk(&self, k: u64, dim: i32) -> Result<(Tensor, Tensor), Error> {
        let dim = self.dim(dim)?;
        let (mut values, mut places) = (Vec::new(), Vec::new());
        for line in self.lines(dim) {
            let mut order: Vec<usize> = (0..line.len()).collect();
            order.sort_by(|left, right| line[*right].total_cmp(&line[*left]));
            if k as usize > order.len() {
                return data(format!(
                    "{k} elements of dimension {dim} of {:?}",
                    self.shape
                ));
            }
            order.truncate(k as usize);
            values.push(order.iter().map(|place| line[*place]).collect());
            places.push(order.iter().map(|place| *place as f64).collect());
        }
        let indices = self.from_lines(Dtype::Signed64, dim, &places);
        Ok((self.from_lines(self.dtype, dim, &values), indices))
    }

    pub fn count_non_finite(&self) -> Made {
        let count =
            |group: &[f64]| group.iter().filter(|number| !number.is_finite()).count() as f64;
        self.reduce(Dtype::Signed64, (&[], false), count)
    }

    pub fn histogram(&self, bins: u32, low: f64, high: f64) -> Made {
        let mut counts = vec![0.0; bins as usize];
        let inside = self.floating()?.numbers.iter();
        for number in inside.filter(|number| (low..=high).contains(number)) {
            let bin = (number - low) * f64::from(bins) / (high - low);
            counts[(bin as usize).min(bins as usize - 1)] += 1.0;
        }
        Self::of(Dtype::Signed64, &[u64::from(bins)], counts)
    }

    pub fn bincount(&self, classes: u64) -> Made {
        let mut counts = vec![0.0; classes as usize];
        for number in self.numbers.iter() {
            match counts.get_mut(*number as usize) {
                Some(count) if *number >= 0.0 => *count += 1.0,
                _ => return data(format!("bincount of {number} with {classes} classes")),
            }
        }
        Self::of(Dtype::Signed64, &[classes], counts)
    }

    pub fn to_dtype(&self, dtype: Dtype) -> Made {
        self.map(dtype, |number| number)
    }

    pub fn softmax(&self, dim: i32) -> Made {
        self.log_softmax(dim)?.exp()
    }

    pub fn log_softmax(&self, dim: i32) -> Made {
        let dim = self.floating()?.dim(dim)?;
        let lines = self.lines(dim).into_iter().map(|line| {
            let largest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = line.iter().map(|number| (number - largest).exp()).sum();
            line.iter()
                .map(|number| number - largest - sum.ln())
                .collect()
        });
        Ok(self.from_lines(self.dtype, dim, &lines.collect::<Vec<_>>()))
    }

    pub fn sigmoid(&self) -> Made {
        self.map(real(self.dtype), |number| 1.0 / (1.0 + (-number).exp()))
    }

    pub fn abs(&self) -> Made {
        self.map(self.dtype, f64::abs)
    }

    pub fn exp(&self) -> Made {
        self.map(real(self.dtype), f64::exp)
    }

    pub fn log(&self) -> Made {
        self.map(real(self.dtype), f64::ln)
    }

    pub fn sqrt(&self) -> Made {
        self.map(real(self.dtype), f64::sqrt)
    }

    pub fn add(&self, rhs: &Tensor) -> Made {
        self.zip(rhs, self.promoted(rhs), |left, right| left + right)
    }

    pub fn sub(&self, rhs: &Tensor) -> Made {
        self.zip(rhs, self.promoted(rhs), |left, right| left - right)
    }

    pub fn mul(&self, rhs: &Tensor) -> Made {
        self.zip(rhs, self.promoted(rhs), |left, right| left * right)
    }

    pub fn div(&self, rhs: &Tensor) -> Made {
        self.zip(rhs, real(self.promoted(rhs)), |left, right| left / right)
    }

    pub fn matmul(&self, rhs: &Tensor) -> Made {
        let ([rows, inner], [height, columns]) = (&self.floating()?.shape[..], &rhs.shape[..])
        else {
            return data("in memory, matmul is of two dimensions: test more with the host");
        };
        if inner != height || self.dtype != rhs.dtype {
            return data(format!(
                "matmul of shapes {:?} and {:?}",
                self.shape, rhs.shape
            ));
        }
        let shape = vec![*rows, *columns];
        let product = |index: Vec<usize>| {
            (0..*inner)
                .map(|at| self.at(&[index[0], at]) * rhs.at(&[at, index[1]]))
                .sum()
        };
        let numbers = indices(&shape).map(product).collect();
        Ok(Self::made(self.dtype, shape, numbers))
    }

    pub fn pow_scalar(&self, exponent: f64) -> Made {
        self.floating()?
            .map(self.dtype, |number| number.powf(exponent))
    }

    pub fn clamp(&self, low: f64, high: f64) -> Made {
        self.floating()?
            .map(self.dtype, |number| number.max(low).min(high))
    }

    pub fn add_scalar(&self, rhs: f64) -> Made {
        self.with_scalar(rhs, |left, right| left + right)
    }

    pub fn mul_scalar(&self, rhs: f64) -> Made {
        self.with_scalar(rhs, |left, right| left * right)
    }

    pub fn equal(&self, rhs: &Tensor) -> Made {
        self.compare(rhs, |left, right| left == right)
    }

    pub fn less(&self, rhs: &Tensor) -> Made {
        self.compare(rhs, |left, right| left < right)
    }

    pub fn equal_scalar(&self, rhs: f64) -> Made {
        self.map(Dtype::Boolean, |number| f64::from(number == rhs))
    }

    pub fn less_scalar(&self, rhs: f64) -> Made {
        self.map(Dtype::Boolean, |number| f64::from(number < rhs))
    }

    pub fn greater_scalar(&self, rhs: f64) -> Made {
        self.map(Dtype::Boolean, |number| f64::from(number > rhs))
    }

    pub fn logical_and(&self, rhs: &Tensor) -> Made {
        self.compare(rhs, |left, right| left != 0.0 && right != 0.0)
    }

    pub fn logical_or(&self, rhs: &Tensor) -> Made {
        self.compare(rhs, |left, right| left != 0.0 || right != 0.0)
    }

    pub fn logical_not(&self) -> Made {
        self.map(Dtype::Boolean, |number| f64::from(number == 0.0))
    }

    pub fn where_self(&self, mask: &Tensor, otherwise: &Tensor) -> Made {
        let shape =
            Self::made(Dtype::Boolean, self.broadcast(mask)?, Vec::new()).broadcast(otherwise)?;
        let chosen = |index: Vec<usize>| match mask.at(&index) {
            0.0 => otherwise.at(&index),
            _ => self.at(&index),
        };
        let numbers = indices(&shape).map(chosen).collect();
        Ok(Self::made(self.promoted(otherwise), shape, numbers))
    }

    pub fn fill_where(&self, mask: &Tensor, value: f64) -> Made {
        let filler = Self::made(self.dtype, Vec::new(), vec![value]);
        let filled = filler.where_self(mask, self)?;
        match filled.shape == self.shape {
            true => Ok(filled),
            false => data(format!(
                "a mask of shape {:?} does not fit {:?}",
                mask.shape, self.shape
            )),
        }
    }

    pub fn gather(&self, dim: i32, index: &Tensor) -> Made {
        let dim = self.dim(dim)?;
        let mut numbers = Vec::with_capacity(index.numbers.len());
        for place in indices(&index.shape) {
            let wanted = index.at(&place);
            let mut place = place;
            if wanted < 0.0 || wanted as usize >= self.shape[dim] {
                return data(format!(
                    "index {wanted} is out of bounds for dimension {dim} of {:?}",
                    self.shape
                ));
            }
            place[dim] = wanted as usize;
            numbers.push(self.at(&place));
        }
        Ok(Self::made(self.dtype, index.shape.clone(), numbers))
    }

    pub fn item(&self) -> Result<f64, Error> {
        match self.numbers[..] {
            [number] => Ok(number),
            _ => data(format!(
                "a tensor of shape {:?} is not one value",
                self.shape
            )),
        }
    }

    fn part(&self, offset: u64, len: u64) -> Result<&[f64], Error> {
        let (from, to) = (offset as usize, (offset + len) as usize);
        match self.numbers.get(from..to) {
            Some(part) => Ok(part),
            None => data(format!(
                "elements {offset} .. {offset} + {len} of {}",
                self.numbers.len()
            )),
        }
    }

    pub fn read_float32(&self, offset: u64, len: u64) -> Result<Vec<f32>, Error> {
        Ok(self
            .part(offset, len)?
            .iter()
            .map(|number| *number as f32)
            .collect())
    }

    pub fn read_float64(&self, offset: u64, len: u64) -> Result<Vec<f64>, Error> {
        Ok(self.part(offset, len)?.to_vec())
    }

    pub fn read_signed64(&self, offset: u64, len: u64) -> Result<Vec<i64>, Error> {
        Ok(self
            .part(offset, len)?
            .iter()
            .map(|number| *number as i64)
            .collect())
    }

    pub fn read_bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let bytes: Vec<u8> = match self.dtype {
            Dtype::Float32 => self
                .numbers
                .iter()
                .flat_map(|number| (*number as f32).to_le_bytes())
                .collect(),
            Dtype::Float64 => self
                .numbers
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
            Dtype::Signed64 => self
                .numbers
                .iter()
                .flat_map(|number| (*number as i64).to_le_bytes())
                .collect(),
            Dtype::Boolean | Dtype::Unsigned8 => {
                self.numbers.iter().map(|number| *number as u8).collect()
            }
            other => return super::types::unsupported(format!("bytes of {other:?} in memory")),
        };
        match bytes.get(offset as usize..(offset + len) as usize) {
            Some(part) => Ok(part.to_vec()),
            None => data(format!(
                "bytes {offset} .. {offset} + {len} of {}",
                bytes.len()
            )),
        }
    }

    pub fn keep(&self) -> Made {
        Ok(self.clone())
    }
}

pub fn from_float32(shape: &[u64], data: &[f32]) -> Made {
    Tensor::of(
        Dtype::Float32,
        shape,
        data.iter().map(|number| f64::from(*number)).collect(),
    )
}

pub fn from_float64(shape: &[u64], data: &[f64]) -> Made {
    Tensor::of(Dtype::Float64, shape, data.to_vec())
}

pub fn from_signed64(shape: &[u64], data: &[i64]) -> Made {
    Tensor::of(
        Dtype::Signed64,
        shape,
        data.iter().map(|number| *number as f64).collect(),
    )
}

pub fn from_bytes(dtype: Dtype, shape: &[u64], bytes: &[u8]) -> Made {
    match dtype {
        Dtype::Boolean | Dtype::Unsigned8 => Tensor::of(
            dtype,
            shape,
            bytes.iter().map(|byte| f64::from(*byte)).collect(),
        ),
        other => super::types::unsupported(format!("bytes of {other:?} in memory")),
    }
}

pub fn full(dtype: Dtype, shape: &[u64], value: f64) -> Made {
    Tensor::of(
        dtype,
        shape,
        vec![value; shape.iter().product::<u64>() as usize],
    )
}

pub fn cat(parts: &[&Tensor], dim: i32) -> Made {
    let Some(first) = parts.first() else {
        return data("nothing to join");
    };
    let dim = first.dim(dim)?;
    let mut lines = first.lines(dim);
    let mut dtype = first.dtype;
    for part in &parts[1..] {
        let more = part.lines(dim);
        if more.len() != lines.len() {
            return data(format!(
                "shapes {:?} and {:?} cannot be joined",
                first.shape, part.shape
            ));
        }
        for (line, more) in lines.iter_mut().zip(more) {
            line.extend(more);
        }
        dtype = higher(dtype, part.dtype);
    }
    Ok(first.from_lines(dtype, dim, &lines))
}

pub fn stack(parts: &[&Tensor], dim: i32) -> Made {
    let Some(first) = parts.first() else {
        return data("nothing to stack");
    };
    let rank = first.shape.len() as i32 + 1;
    let place = if dim < 0 { dim + rank } else { dim };
    let raised = parts.iter().map(|part| {
        let mut shape: Vec<i64> = part.shape.iter().map(|extent| *extent as i64).collect();
        shape.insert(place as usize, 1);
        part.reshape(&shape)
    });
    let raised = raised.collect::<Result<Vec<_>, _>>()?;
    cat(&raised.iter().collect::<Vec<_>>(), place)
}

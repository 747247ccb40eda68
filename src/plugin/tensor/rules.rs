//! For each tensor operation: the shape, dtype and bytes of its result and the bytes it needs meanwhile, known before it
//! runs, so that a plugin's budget is asked before anything is allocated. Follows PyTorch 2.11; the tests compare every
//! rule with libtorch itself.

use tch::Kind;

use crate::plugin::fault::HostError;

type Outcome<T> = Result<T, HostError>;

/// Shape and element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Form {
    pub dims: Vec<i64>,
    pub kind: Kind,
}

/// What an operation will produce and need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plugin) struct Plan {
    /// Form of the result.
    pub form: Form,
    /// Bytes needed besides the result while the operation runs.
    pub scratch: u64,
    /// The result shares the bytes of the operand.
    pub view: bool,
}

impl Form {
    pub(super) fn of(tensor: &tch::Tensor) -> Outcome<Self> {
        Ok(Self {
            dims: tensor.size(),
            kind: tensor.f_kind()?,
        })
    }

    /// A form that a guest asks for.
    pub(in crate::plugin) fn of_guest(dims: &[u64], kind: Kind) -> Outcome<Self> {
        let dims = dims
            .iter()
            .map(|extent| i64::try_from(*extent).ok())
            .collect::<Option<Vec<i64>>>();
        let form = Self {
            dims: dims.ok_or_else(|| HostError::data("an extent is too large"))?,
            kind,
        };
        form.bytes()?;
        Ok(form)
    }

    /// Number of elements.
    pub(in crate::plugin) fn elements(&self) -> Outcome<u64> {
        let product = self
            .dims
            .iter()
            .try_fold(1_u64, |product, extent| product.checked_mul(*extent as u64));
        product.ok_or_else(|| {
            HostError::data(format!("a tensor of shape {:?} is too large", self.dims))
        })
    }

    /// Bytes of the elements.
    pub(in crate::plugin) fn bytes(&self) -> Outcome<u64> {
        let bytes = self
            .elements()?
            .checked_mul(self.kind.elt_size_in_bytes() as u64);
        // libtorch counts in signed 64 bits.
        let bytes = bytes.filter(|bytes| *bytes < 1 << 62);
        bytes.ok_or_else(|| {
            HostError::data(format!("a tensor of shape {:?} is too large", self.dims))
        })
    }

    fn with(&self, kind: Kind) -> Self {
        Self {
            dims: self.dims.clone(),
            kind,
        }
    }
}

impl Plan {
    fn fresh(form: Form) -> Self {
        Self {
            form,
            scratch: 0,
            view: false,
        }
    }

    fn view(form: Form) -> Self {
        Self {
            form,
            scratch: 0,
            view: true,
        }
    }

    fn scratch(mut self, bytes: u64) -> Self {
        self.scratch = bytes;
        self
    }
}

/// A dimension counted from the front. As in PyTorch, a scalar has a dimension 0 here.
pub(super) fn dimension(form: &Form, dim: i32) -> Outcome<usize> {
    let rank = form.dims.len().max(1) as i64;
    let wrapped = if dim < 0 {
        i64::from(dim) + rank
    } else {
        i64::from(dim)
    };
    if (0..rank).contains(&wrapped) {
        return Ok(wrapped as usize);
    }
    Err(HostError::data(format!(
        "there is no dimension {dim} in shape {:?}",
        form.dims
    )))
}

fn real_dimension(form: &Form, dim: i32) -> Outcome<usize> {
    if form.dims.is_empty() {
        return Err(HostError::data(
            "a scalar has no dimension to take a part of",
        ));
    }
    dimension(form, dim)
}

/// The dimensions of a reduction; none means all.
pub(super) fn dimensions(form: &Form, dims: &[i32]) -> Outcome<Vec<i64>> {
    if dims.is_empty() {
        return Ok((0..form.dims.len() as i64).collect());
    }
    let mut wrapped = Vec::with_capacity(dims.len());
    for dim in dims {
        let dim = dimension(form, *dim)? as i64;
        if wrapped.contains(&dim) {
            return Err(HostError::data(format!("dimension {dim} is named twice")));
        }
        wrapped.push(dim);
    }
    Ok(wrapped)
}

pub(super) fn narrow(form: &Form, dim: i32, start: i64, len: u64) -> Outcome<(Plan, i64, i64)> {
    let dim = real_dimension(form, dim)?;
    let extent = form.dims[dim];
    let from = if start < 0 {
        start.saturating_add(extent)
    } else {
        start
    };
    let length = i64::try_from(len).unwrap_or(i64::MAX);
    if from < 0 || from > extent || length > extent - from {
        return Err(HostError::data(format!(
            "elements {start} .. {start} + {len} are outside of dimension {dim} of {:?}",
            form.dims
        )));
    }
    let mut result = form.clone();
    result.dims[dim] = length;
    Ok((Plan::view(result), dim as i64, from))
}

pub(super) fn select(form: &Form, dim: i32, index: i64) -> Outcome<(Plan, i64)> {
    let dim = real_dimension(form, dim)?;
    let extent = form.dims[dim];
    if !(-extent..extent).contains(&index) {
        return Err(HostError::data(format!(
            "index {index} is outside of dimension {dim} of {:?}",
            form.dims
        )));
    }
    let mut result = form.clone();
    result.dims.remove(dim);
    Ok((Plan::view(result), dim as i64))
}

pub(super) fn reshape(form: &Form, shape: &[i64], contiguous: bool) -> Outcome<Plan> {
    let misfit = || HostError::data(format!("shape {:?} cannot become {shape:?}", form.dims));
    let elements = form.elements()?;
    let mut known = 1_u64;
    let mut open = None;
    for (position, extent) in shape.iter().enumerate() {
        match extent {
            -1 if open.is_none() => open = Some(position),
            0.. => known = known.checked_mul(*extent as u64).ok_or_else(misfit)?,
            _ => return Err(misfit()),
        }
    }
    let mut dims = shape.to_vec();
    if let Some(position) = open {
        if known == 0 || !elements.is_multiple_of(known) {
            return Err(misfit());
        }
        dims[position] = (elements / known) as i64;
    } else if known != elements {
        return Err(misfit());
    }
    let form = Form {
        dims,
        kind: form.kind,
    };
    // Some layouts that are not contiguous could be viewed as well; charging for a copy is the safe side.
    Ok(if contiguous {
        Plan::view(form)
    } else {
        Plan::fresh(form)
    })
}

pub(super) fn transpose(form: &Form, a: i32, b: i32) -> Outcome<(Plan, i64, i64)> {
    let (a, b) = (dimension(form, a)?, dimension(form, b)?);
    let mut result = form.clone();
    if !result.dims.is_empty() {
        result.dims.swap(a, b);
    }
    Ok((Plan::view(result), a as i64, b as i64))
}

fn reduced(form: &Form, dims: &[i64], keep_dim: bool, kind: Kind) -> Form {
    let mut result = Vec::with_capacity(form.dims.len());
    for (position, extent) in form.dims.iter().enumerate() {
        match dims.contains(&(position as i64)) {
            true if keep_dim => result.push(1),
            true => {}
            false => result.push(*extent),
        }
    }
    Form { dims: result, kind }
}

pub(super) fn sum(form: &Form, dims: &[i64], keep_dim: bool) -> Outcome<Plan> {
    let kind = if is_float(form.kind) {
        form.kind
    } else {
        Kind::Int64
    };
    Ok(Plan::fresh(reduced(form, dims, keep_dim, kind)))
}

/// The mean keeps the element type and needs floating point.
pub(super) fn mean(form: &Form, dims: &[i64], keep_dim: bool) -> Outcome<Plan> {
    need_float(form)?;
    Ok(Plan::fresh(reduced(form, dims, keep_dim, form.kind)))
}

/// The p-norm, which works on a copy in float32 or float64, its absolute values and their powers.
pub(super) fn norm(form: &Form, p: f64, (dims, keep_dim): (&[i64], bool)) -> Outcome<Plan> {
    let plan = if p.is_infinite() {
        extremum(form, dims, keep_dim)?
    } else {
        mean(form, dims, keep_dim)?
    };
    need_float(form)?;
    Ok(plan.scratch(form.elements()?.saturating_mul(3 * 8)))
}

/// Largest and smallest elements.
pub(super) fn extremum(form: &Form, dims: &[i64], keep_dim: bool) -> Outcome<Plan> {
    if dims
        .iter()
        .any(|dim| form.dims.get(*dim as usize) == Some(&0))
    {
        return Err(HostError::data(format!(
            "no elements to compare in shape {:?}",
            form.dims
        )));
    }
    Ok(Plan::fresh(reduced(form, dims, keep_dim, form.kind)))
}

pub(super) fn argmax(form: &Form, dim: i32) -> Outcome<(Plan, i64)> {
    let dim = dimension(form, dim)? as i64;
    let plan = extremum(&form.with(Kind::Int64), &[dim], false)?;
    Ok((plan, dim))
}

/// The plan of the values; the indices have the same shape and are whole numbers of 64 bits.
pub(super) fn topk(form: &Form, k: u64, dim: i32) -> Outcome<(Plan, Plan, i64)> {
    let dim = dimension(form, dim)?;
    let extent = form.dims.get(dim).copied().unwrap_or(1);
    if i64::try_from(k).map_or(true, |k| k > extent) {
        return Err(HostError::data(format!(
            "{k} elements of dimension {dim} of {:?}",
            form.dims
        )));
    }
    let mut values = form.clone();
    if let Some(extent) = values.dims.get_mut(dim) {
        *extent = k as i64;
    }
    let indices = values.with(Kind::Int64);
    // Pairs of value and index of one row, for each thread; a whole copy is the upper bound.
    let scratch = form
        .bytes()?
        .saturating_add(form.elements()?.saturating_mul(8));
    Ok((
        Plan::fresh(values).scratch(scratch),
        Plan::fresh(indices),
        dim as i64,
    ))
}

pub(super) fn count_non_finite(form: &Form) -> Outcome<Plan> {
    // isfinite makes absolute values and three masks.
    let scratch = form
        .bytes()?
        .saturating_add(form.elements()?.saturating_mul(4));
    Ok(Plan::fresh(Form {
        dims: Vec::new(),
        kind: Kind::Int64,
    })
    .scratch(scratch))
}

pub(super) fn histogram(form: &Form, bins: u32) -> Outcome<Plan> {
    need_float(form)?;
    if bins == 0 {
        return Err(HostError::data("a histogram needs at least one bin"));
    }
    // Masks, scaled values in float64 and bin numbers.
    let scratch = form
        .elements()?
        .saturating_mul(3 + 3 * 8)
        .saturating_add(u64::from(bins) * 8 + 8);
    Ok(Plan::fresh(Form {
        dims: vec![i64::from(bins)],
        kind: Kind::Int64,
    })
    .scratch(scratch))
}

pub(super) fn bincount(form: &Form, classes: u64) -> Outcome<Plan> {
    if is_float(form.kind) || form.kind == Kind::Bool {
        return Err(HostError::data(format!(
            "bincount needs whole numbers, not {}",
            name(form.kind)
        )));
    }
    let result = Form::of_guest(&[classes], Kind::Int64)?;
    Ok(Plan::fresh(result).scratch(form.bytes()?))
}

pub(super) fn to_dtype(form: &Form, kind: Kind) -> Outcome<Plan> {
    let result = form.with(kind);
    Ok(if kind == form.kind {
        Plan::view(result)
    } else {
        Plan::fresh(result)
    })
}

/// softmax and log_softmax.
pub(super) fn softmax(form: &Form, dim: i32) -> Outcome<(Plan, i64)> {
    need_float(form)?;
    Ok((Plan::fresh(form.clone()), dimension(form, dim)? as i64))
}

/// sigmoid, exp, log, sqrt: whole numbers become float32.
pub(super) fn to_float(form: &Form) -> Outcome<Plan> {
    let kind = if is_float(form.kind) {
        form.kind
    } else {
        Kind::Float
    };
    Ok(Plan::fresh(form.with(kind)))
}

/// Operations that keep shape and type.
pub(super) fn same(form: &Form) -> Outcome<Plan> {
    Ok(Plan::fresh(form.clone()))
}

/// The same for floating point tensors only.
pub(super) fn float(form: &Form) -> Outcome<Plan> {
    need_float(form)?;
    same(form)
}

/// Rows times columns; further dimensions in front must be equal.
pub(super) fn matmul(left: &Form, right: &Form) -> Outcome<Plan> {
    need_float(left)?;
    let misfit = || {
        HostError::data(format!(
            "matmul of {} of shape {:?} and {} of shape {:?}",
            name(left.kind),
            left.dims,
            name(right.kind),
            right.dims
        ))
    };
    let ([left_front @ .., rows, inner], [right_front @ .., height, columns]) =
        (&left.dims[..], &right.dims[..])
    else {
        return Err(misfit());
    };
    if left.kind != right.kind || left_front != right_front || inner != height {
        return Err(misfit());
    }
    let mut dims = left_front.to_vec();
    dims.extend([*rows, *columns]);
    // Operands whose layout does not suit are copied first.
    let scratch = left.bytes()?.saturating_add(right.bytes()?);
    let kind = left.kind;
    Ok(Plan::fresh(Form { dims, kind }).scratch(scratch))
}

/// add, sub and mul.
pub(super) fn arithmetic(left: &Form, right: &Form) -> Outcome<Plan> {
    let dims = broadcast(&left.dims, &right.dims)?;
    Ok(Plan::fresh(Form {
        dims,
        kind: result_kind(left, right),
    }))
}

/// div: a quotient of whole numbers is float32.
pub(super) fn quotient(left: &Form, right: &Form) -> Outcome<Plan> {
    let mut plan = arithmetic(left, right)?;
    if !is_float(plan.form.kind) {
        plan.form.kind = Kind::Float;
    }
    Ok(plan)
}

/// Comparisons and logic of two tensors.
pub(super) fn comparison(left: &Form, right: &Form) -> Outcome<Plan> {
    let dims = broadcast(&left.dims, &right.dims)?;
    // Operands of different types are converted first, element by element but in whole buffers on some devices.
    let scratch = if left.kind == right.kind {
        0
    } else {
        left.bytes()?.saturating_add(right.bytes()?)
    };
    Ok(Plan::fresh(Form {
        dims,
        kind: Kind::Bool,
    })
    .scratch(scratch))
}

/// Comparisons with a number; whole numbers are compared in 64 bits.
pub(super) fn compared(form: &Form, _value: f64) -> Outcome<Plan> {
    let scratch = if is_float(form.kind) {
        0
    } else {
        form.elements()?.saturating_mul(8)
    };
    Ok(mask(form)?.scratch(scratch))
}

/// logical-not.
pub(super) fn mask(form: &Form) -> Outcome<Plan> {
    Ok(Plan::fresh(form.with(Kind::Bool)))
}

/// add-scalar and mul-scalar.
pub(super) fn with_scalar(form: &Form, value: f64) -> Outcome<Plan> {
    let kind = match (is_float(form.kind), whole(value), form.kind) {
        (true, ..) => form.kind,
        (_, None, _) => Kind::Float,
        (_, Some(_), Kind::Bool) => Kind::Int64,
        _ => form.kind,
    };
    need_value(kind, value)?;
    Ok(Plan::fresh(form.with(kind)))
}

pub(super) fn where_self(form: &Form, mask: &Form, otherwise: &Form) -> Outcome<Plan> {
    need_bool(mask)?;
    let dims = broadcast(&broadcast(&form.dims, &mask.dims)?, &otherwise.dims)?;
    let kind = result_kind(form, otherwise);
    let scratch = if form.kind == otherwise.kind {
        0
    } else {
        form.bytes()?.saturating_add(otherwise.bytes()?)
    };
    Ok(Plan::fresh(Form { dims, kind }).scratch(scratch))
}

pub(super) fn fill_where(form: &Form, mask: &Form, value: f64) -> Outcome<Plan> {
    need_bool(mask)?;
    if broadcast(&form.dims, &mask.dims)? != form.dims {
        return Err(HostError::data(format!(
            "a mask of shape {:?} does not fit {:?}",
            mask.dims, form.dims
        )));
    }
    need_value(form.kind, value)?;
    Ok(Plan::fresh(form.clone()))
}

pub(super) fn gather(form: &Form, dim: i32, index: &Form) -> Outcome<(Plan, i64)> {
    let dim = dimension(form, dim)?;
    let fits =
        |(position, (extent, wanted)): (usize, (&i64, &i64))| position == dim || wanted <= extent;
    if index.kind != Kind::Int64 || index.dims.len() != form.dims.len() {
        let text = format!(
            "gather needs signed64 indices with {} dimensions",
            form.dims.len()
        );
        return Err(HostError::data(text));
    }
    if !form.dims.iter().zip(&index.dims).enumerate().all(fits) {
        return Err(HostError::data(format!(
            "indices of shape {:?} do not fit {:?}",
            index.dims, form.dims
        )));
    }
    Ok((Plan::fresh(index.with(form.kind)), dim as i64))
}

pub(super) fn cat(parts: &[Form], dim: i32) -> Outcome<(Plan, i64)> {
    let first = parts
        .first()
        .ok_or_else(|| HostError::data("nothing to join"))?;
    let dim = real_dimension(first, dim)?;
    let mut result = first.clone();
    for part in &parts[1..] {
        let alike =
            |(position, (left, right)): (usize, (&i64, &i64))| position == dim || left == right;
        let same_rank = part.dims.len() == first.dims.len();
        if !same_rank || !first.dims.iter().zip(&part.dims).enumerate().all(alike) {
            let text = format!(
                "shapes {:?} and {:?} cannot be joined along dimension {dim}",
                first.dims, part.dims
            );
            return Err(HostError::data(text));
        }
        result.dims[dim] = result.dims[dim].saturating_add(part.dims[dim]);
        result.kind = promote(result.kind, part.kind);
    }
    Ok((Plan::fresh(result), dim as i64))
}

pub(super) fn stack(parts: &[Form], dim: i32) -> Outcome<(Plan, i64)> {
    let first = parts
        .first()
        .ok_or_else(|| HostError::data("nothing to stack"))?;
    if let Some(other) = parts.iter().find(|part| part.dims != first.dims) {
        return Err(HostError::data(format!(
            "shapes {:?} and {:?} cannot be stacked",
            first.dims, other.dims
        )));
    }
    let mut room = first.clone();
    room.dims.push(1);
    let dim = dimension(&room, dim)?;
    let mut result = first.clone();
    result.dims.insert(dim, parts.len() as i64);
    result.kind = parts
        .iter()
        .fold(first.kind, |kind, part| promote(kind, part.kind));
    Ok((Plan::fresh(result), dim as i64))
}

/// The number as a whole one, if it is one that a signed 64-bit integer holds.
pub(super) fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9.2e18).then_some(value as i64)
}

pub(super) fn is_float(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double
    )
}

fn need_float(form: &Form) -> Outcome<()> {
    if is_float(form.kind) {
        return Ok(());
    }
    Err(HostError::data(format!(
        "needs a floating point tensor, not {}",
        name(form.kind)
    )))
}

/// Whether a type has a number: libtorch would wrap it around.
pub(super) fn need_value(kind: Kind, value: f64) -> Outcome<()> {
    let range = match kind {
        Kind::Bool => 0..=1,
        Kind::Uint8 => 0..=i64::from(u8::MAX),
        Kind::Int8 => i64::from(i8::MIN)..=i64::from(i8::MAX),
        Kind::Int16 => i64::from(i16::MIN)..=i64::from(i16::MAX),
        Kind::Int => i64::from(i32::MIN)..=i64::from(i32::MAX),
        Kind::Int64 => i64::MIN..=i64::MAX,
        _ => return Ok(()),
    };
    if whole(value).is_some_and(|whole| range.contains(&whole)) {
        return Ok(());
    }
    Err(HostError::data(format!(
        "{value} is not a value of {}",
        name(kind)
    )))
}

fn need_bool(form: &Form) -> Outcome<()> {
    if form.kind == Kind::Bool {
        return Ok(());
    }
    Err(HostError::data(format!(
        "a mask must be boolean, not {}",
        name(form.kind)
    )))
}

/// As safetensors spells it.
pub(super) fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "BOOL",
        Kind::Uint8 => "U8",
        Kind::Int8 => "I8",
        Kind::Int16 => "I16",
        Kind::Int => "I32",
        Kind::Int64 => "I64",
        Kind::Half => "F16",
        Kind::BFloat16 => "BF16",
        Kind::Float => "F32",
        Kind::Double => "F64",
        Kind::ComplexHalf => "C32",
        Kind::ComplexFloat => "C64",
        Kind::ComplexDouble => "C128",
        Kind::Float8e5m2 => "F8_E5M2",
        Kind::Float8e4m3fn => "F8_E4M3",
        Kind::Float8e5m2fnuz => "F8_E5M2FNUZ",
        Kind::Float8e4m3fnuz => "F8_E4M3FNUZ",
        Kind::QInt8 => "QI8",
        Kind::QUInt8 => "QU8",
        Kind::QInt32 => "QI32",
    }
}

fn broadcast(left: &[i64], right: &[i64]) -> Outcome<Vec<i64>> {
    let rank = left.len().max(right.len());
    let extent = |dims: &[i64], position: usize| {
        (position + dims.len())
            .checked_sub(rank)
            .map_or(1, |index| dims[index])
    };
    let mut dims = Vec::with_capacity(rank);
    for position in 0..rank {
        dims.push(match (extent(left, position), extent(right, position)) {
            (1, other) | (other, 1) => other,
            (same, other) if same == other => same,
            _ => {
                return Err(HostError::data(format!(
                    "shapes {left:?} and {right:?} do not fit each other"
                )));
            }
        });
    }
    Ok(dims)
}

/// The type of an operation on two tensors. A scalar only counts if its kind of number is a higher one.
fn result_kind(left: &Form, right: &Form) -> Kind {
    let (tensor, scalar) = match (left.dims.is_empty(), right.dims.is_empty()) {
        (false, true) => (left.kind, right.kind),
        (true, false) => (right.kind, left.kind),
        _ => return promote(left.kind, right.kind),
    };
    let higher = (is_float(scalar) && !is_float(tensor)) || tensor == Kind::Bool;
    if higher {
        promote(tensor, scalar)
    } else {
        tensor
    }
}

fn promote(left: Kind, right: Kind) -> Kind {
    use Kind::{BFloat16, Bool, Double, Float, Half, Int, Int8, Int16, Int64, Uint8};
    match (left, right) {
        _ if left == right => left,
        (Double, _) | (_, Double) => Double,
        (Float, _) | (_, Float) | (Half, BFloat16) | (BFloat16, Half) => Float,
        (Half, _) | (_, Half) => Half,
        (BFloat16, _) | (_, BFloat16) => BFloat16,
        (Bool, other) | (other, Bool) => other,
        (Int64, _) | (_, Int64) => Int64,
        (Int, _) | (_, Int) => Int,
        (Int16, _) | (_, Int16) | (Uint8, Int8) | (Int8, Uint8) => Int16,
        // Complex, quantised and 8-bit floating types have no operations here; `Tensors::form` refuses them.
        _ => left,
    }
}

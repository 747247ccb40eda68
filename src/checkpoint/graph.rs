//! What a pickle builds: values in an arena, tensors before their storages are read, and the few names that are known.

use std::rc::Rc;

use tch::Kind;

use super::bytes::num_elements;

/// A value's place in the arena.
pub(super) type Id = u32;

/// A value while the machine runs.
#[derive(Clone, Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits; only its presence matters.
    BigInt,
    Float(f64),
    Str(Rc<str>),
    Bytes(Rc<[u8]>),
    List(Vec<Id>),
    Tuple(Rc<[Id]>),
    Dict(Vec<(Id, Id)>),
    Name(Name),
    /// Index into [`Graph::storages`].
    Storage(usize),
    Tensor(Rc<TensorSpec>),
    Dtype(Rc<str>),
    Array(Option<Rc<Array>>),
}

/// The names that may be mentioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Kind),
    NumpyReconstruct,
    NumpyArray,
    NumpyDtype,
    Encode,
}

pub(super) const NAMES: &[(&str, &str, Name)] = &[
    ("collections", "OrderedDict", Name::OrderedDict),
    ("torch._utils", "_rebuild_tensor_v2", Name::RebuildTensor),
    ("torch._utils", "_rebuild_parameter", Name::RebuildParameter),
    ("torch", "Size", Name::Size),
    ("torch", "FloatStorage", Name::Storage(Kind::Float)),
    ("torch", "DoubleStorage", Name::Storage(Kind::Double)),
    ("torch", "HalfStorage", Name::Storage(Kind::Half)),
    ("torch", "BFloat16Storage", Name::Storage(Kind::BFloat16)),
    ("torch", "LongStorage", Name::Storage(Kind::Int64)),
    ("torch", "IntStorage", Name::Storage(Kind::Int)),
    ("torch", "ShortStorage", Name::Storage(Kind::Int16)),
    ("torch", "CharStorage", Name::Storage(Kind::Int8)),
    ("torch", "ByteStorage", Name::Storage(Kind::Uint8)),
    ("torch", "BoolStorage", Name::Storage(Kind::Bool)),
    (
        "numpy.core.multiarray",
        "_reconstruct",
        Name::NumpyReconstruct,
    ),
    (
        "numpy._core.multiarray",
        "_reconstruct",
        Name::NumpyReconstruct,
    ),
    ("numpy", "ndarray", Name::NumpyArray),
    ("numpy", "dtype", Name::NumpyDtype),
    ("_codecs", "encode", Name::Encode),
];

/// A tensor before its storage is read.
#[derive(Debug)]
pub(super) struct TensorSpec {
    pub(super) storage: usize,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

/// A block of elements that several tensors may share.
#[derive(Debug)]
pub(super) struct StorageSpec {
    pub(super) key: String,
    pub(super) kind: Kind,
    pub(super) elements: u64,
}

/// An array of numpy, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Kind and width, such as `u4`.
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// Elements in C order.
    pub data: Vec<u8>,
}

/// The result of a pickle.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    pub(super) storages: Vec<StorageSpec>,
    /// Bytes that were used, to the end of the STOP opcode.
    pub(super) length: usize,
}

impl Node {
    /// What it is, for messages.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::BigInt => "an integer",
            Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Name(_) => "a bare name",
            Self::Storage(_) => "a bare storage",
            Self::Tensor(_) => "a tensor",
            Self::Dtype(_) => "a numpy type",
            Self::Array(_) => "a numpy array",
        }
    }
}

impl TensorSpec {
    /// Number of elements, and one past the last element of the storage that is used. `None`: negative or overflowing.
    pub(super) fn reach(&self) -> Option<(u64, u64)> {
        let count = num_elements(&self.size)?;
        let mut last = u64::try_from(self.offset).ok()?;
        if self.size.len() != self.stride.len() {
            return None;
        }
        for (&size, &stride) in self.size.iter().zip(&self.stride) {
            let step = u64::try_from(stride).ok()?;
            last = last.checked_add(
                u64::try_from(size)
                    .ok()?
                    .saturating_sub(1)
                    .checked_mul(step)?,
            )?;
        }
        Some((count, if count == 0 { 0 } else { last.checked_add(1)? }))
    }
}

/// Bytes of a numpy element; `None` for types that are not plain numbers.
pub(super) fn width(code: &str) -> Option<u64> {
    let known = [
        "b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8",
    ];
    known
        .contains(&code)
        .then(|| u64::from(code.as_bytes()[1] - b'0'))
}

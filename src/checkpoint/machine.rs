//! A pickle machine that can build data and nothing else.
//!
//! The opcodes that torch writes, over a table of the few names that tensors need. Any other name is refused where it is
//! mentioned, any other opcode where it stands: nothing is ever looked up, imported or called. Values live in an arena and
//! refer to each other by number, so that sharing costs nothing; their number, and the bytes that are copied, are limited.

use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};

use super::bytes::num_elements;
use super::graph::{Array, Graph, Id, NAMES, Name, Node, StorageSpec, TensorSpec, width};
use super::opcode;

/// Values of one pickle.
const MAX_NODES: usize = 2_000_000;
/// Bytes that `_codecs.encode` may make in one pickle: a few bytes can ask for any number of copies.
const MAX_COPIED: usize = 64 << 20;
/// Values that are open at once.
const MAX_STACK: usize = 2 * MAX_NODES;
/// Nested openings of a tuple, list or dictionary.
const MAX_MARKS: usize = 1000;
/// libtorch's own limit of dimensions.
const MAX_DIMENSIONS: usize = 64;

/// Runs the first pickle in `bytes`. An error says at which byte.
pub(super) fn run(bytes: &[u8]) -> Result<Graph> {
    let mut machine = Machine {
        bytes,
        ..Machine::default()
    };
    loop {
        let position = machine.position;
        match machine
            .step()
            .with_context(|| format!("at byte {position} of the pickle"))?
        {
            Flow::Continue => {}
            Flow::Stop(root) => {
                let Machine {
                    nodes,
                    storages,
                    position: length,
                    ..
                } = machine;
                return Ok(Graph {
                    nodes,
                    root,
                    storages,
                    length,
                });
            }
        }
    }
}

enum Flow {
    Continue,
    Stop(Id),
}

#[derive(Default)]
struct Machine<'a> {
    bytes: &'a [u8],
    position: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    storages: Vec<StorageSpec>,
    storage_by_key: HashMap<String, usize>,
    copied: usize,
}

impl<'a> Machine<'a> {
    fn step(&mut self) -> Result<Flow> {
        let code = self.take(1)?[0];
        match code {
            opcode::STOP => return Ok(Flow::Stop(self.pop()?)),
            opcode::PROTO => {
                let version = self.take(1)?[0];
                ensure!(version <= 5, "pickle protocol {version} is unknown");
            }
            opcode::FRAME => {
                self.take(8)?;
            }
            opcode::MARK => {
                ensure!(
                    self.marks.len() < MAX_MARKS,
                    "values are nested more than {MAX_MARKS} deep"
                );
                self.marks.push(self.stack.len());
            }
            opcode::POP => {
                self.pop()?;
            }
            opcode::POP_MARK => {
                self.pop_to_mark()?;
            }
            opcode::BINPUT | opcode::LONG_BINPUT | opcode::MEMOIZE => self.memoize(code)?,
            opcode::BINGET | opcode::LONG_BINGET => {
                let index = if code == opcode::BINGET {
                    u32::from(self.take(1)?[0])
                } else {
                    self.length4()?
                };
                let id = *self
                    .memo
                    .get(&index)
                    .with_context(|| format!("memo {index} is empty"))?;
                self.push_id(id)?;
            }
            opcode::APPEND | opcode::APPENDS | opcode::SETITEM | opcode::SETITEMS => {
                self.extend(code)?
            }
            opcode::GLOBAL | opcode::STACK_GLOBAL => self.name(code)?,
            opcode::BINPERSID => self.storage()?,
            opcode::REDUCE => self.reduce()?,
            opcode::BUILD => self.build()?,
            _ => {
                let node = self.literal(code)?;
                self.push(node)?;
            }
        }
        Ok(Flow::Continue)
    }

    /// Values that need no other context than the bytes and the stack.
    fn literal(&mut self, code: u8) -> Result<Node> {
        Ok(match code {
            opcode::NONE => Node::None,
            opcode::NEWTRUE => Node::Bool(true),
            opcode::NEWFALSE => Node::Bool(false),
            opcode::BININT => Node::Int(i64::from(self.length4()?.cast_signed())),
            opcode::BININT1 => Node::Int(i64::from(self.take(1)?[0])),
            opcode::BININT2 => Node::Int(i64::from(u16::from_le_bytes(self.array()?))),
            opcode::LONG1 => {
                let length = usize::from(self.take(1)?[0]);
                long(self.take(length)?)
            }
            opcode::BINFLOAT => Node::Float(f64::from_be_bytes(self.array()?)),
            opcode::SHORT_BINUNICODE | opcode::BINUNICODE | opcode::BINUNICODE8 => {
                Node::Str(text(self.counted(code)?)?)
            }
            // Strings of Python 2: text if they can be, as in the reference's readers.
            opcode::SHORT_BINSTRING | opcode::BINSTRING => {
                let bytes = self.counted(code)?;
                text(bytes).map_or_else(|_| Node::Bytes(bytes.into()), Node::Str)
            }
            opcode::SHORT_BINBYTES | opcode::BINBYTES | opcode::BINBYTES8 => {
                Node::Bytes(self.counted(code)?.into())
            }
            opcode::EMPTY_LIST => Node::List(Vec::new()),
            opcode::EMPTY_DICT => Node::Dict(Vec::new()),
            opcode::EMPTY_TUPLE => Node::Tuple([].into()),
            opcode::LIST => Node::List(self.pop_to_mark()?),
            opcode::DICT => Node::Dict(pairs(&self.pop_to_mark()?)?),
            opcode::TUPLE => Node::Tuple(self.pop_to_mark()?.into()),
            opcode::TUPLE1 | opcode::TUPLE2 | opcode::TUPLE3 => {
                let count = usize::from(code - opcode::TUPLE1) + 1;
                ensure!(
                    self.stack.len() >= count + self.floor(),
                    "the stack is empty"
                );
                Node::Tuple(self.stack.split_off(self.stack.len() - count).into())
            }
            _ => match opcode::CODE.iter().find(|(byte, _)| *byte == code) {
                Some((_, name)) => bail!("refused: opcode {name} would run code"),
                None => bail!("refused: opcode {code:#04x} is not one that torch writes"),
            },
        })
    }

    fn memoize(&mut self, code: u8) -> Result<()> {
        let index = match code {
            opcode::BINPUT => u32::from(self.take(1)?[0]),
            opcode::LONG_BINPUT => self.length4()?,
            _ => u32::try_from(self.memo.len())?,
        };
        ensure!(
            self.memo.len() < MAX_NODES,
            "more than {MAX_NODES} values are remembered"
        );
        self.memo.insert(index, self.top()?);
        Ok(())
    }

    fn extend(&mut self, code: u8) -> Result<()> {
        let items = match code {
            opcode::APPEND => vec![self.pop()?],
            opcode::SETITEM => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        let target = self.top()? as usize;
        match (&mut self.nodes[target], code) {
            (Node::List(list), opcode::APPEND | opcode::APPENDS) => list.extend(items),
            (Node::Dict(dict), opcode::SETITEM | opcode::SETITEMS) => dict.extend(pairs(&items)?),
            _ => bail!("items are added to what is neither a list nor a dictionary"),
        }
        Ok(())
    }

    fn name(&mut self, code: u8) -> Result<()> {
        let (module, name) = if code == opcode::GLOBAL {
            (Rc::from(self.line()?), Rc::from(self.line()?))
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            (self.str(module)?, self.str(name)?)
        };
        let known = NAMES
            .iter()
            .find(|row| row.0 == &*module && row.1 == &*name);
        let Some((_, _, name)) = known else {
            let (module, name) = (module.escape_debug(), name.escape_debug());
            bail!(
                "refused: it names {module}.{name}, which is no part of a tensor and would run code"
            );
        };
        self.push(Node::Name(*name))
    }

    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let parts = self.tuple(id)?;
        ensure!(
            (5..=6).contains(&parts.len()),
            "a storage is described by {} values",
            parts.len()
        );
        ensure!(
            &*self.str(parts[0])? == "storage",
            "refused: an object of unknown kind stands outside of the pickle"
        );
        let Node::Name(Name::Storage(kind)) = self.nodes[parts[1] as usize] else {
            bail!("a storage has no element type")
        };
        let key = self.str(parts[2])?;
        let plain = !key.is_empty()
            && key.len() <= 64
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        ensure!(plain, "the storage key {key:?} is not a plain number");
        let elements =
            u64::try_from(self.int(parts[4])?).context("a storage has a negative size")?;
        let view = parts.get(5).map(|&id| &self.nodes[id as usize]);
        ensure!(
            matches!(view, None | Some(Node::None)),
            "views of storages are not supported; save it again with a newer torch"
        );
        let index = *self
            .storage_by_key
            .entry(key.to_string())
            .or_insert_with(|| {
                self.storages.push(StorageSpec {
                    key: key.to_string(),
                    kind,
                    elements,
                });
                self.storages.len() - 1
            });
        let known = &self.storages[index];
        ensure!(
            (known.kind, known.elements) == (kind, elements),
            "storage {key} is described in two ways"
        );
        self.push(Node::Storage(index))
    }

    fn reduce(&mut self) -> Result<()> {
        let arguments = self.pop()?;
        let arguments = self.tuple(arguments)?;
        let callee = self.pop()?;
        let Node::Name(name) = self.nodes[callee as usize] else {
            bail!("refused: calling a value would run code")
        };
        match (name, &arguments[..]) {
            (Name::OrderedDict, []) => self.push(Node::Dict(Vec::new())),
            (Name::OrderedDict, [items]) => {
                let items = self.sequence(*items)?;
                let pair = |id: &Id| match self.sequence(*id)?[..] {
                    [key, value] => Ok((key, value)),
                    _ => bail!("a dictionary is made from what are not pairs"),
                };
                let dict = items.iter().map(pair).collect::<Result<_>>()?;
                self.push(Node::Dict(dict))
            }
            (Name::RebuildTensor, arguments) => {
                let tensor = self.tensor(arguments)?;
                self.push(Node::Tensor(Rc::new(tensor)))
            }
            (Name::RebuildParameter, [tensor, ..]) => {
                ensure!(
                    matches!(self.nodes[*tensor as usize], Node::Tensor(_)),
                    "a parameter is made from what is no tensor"
                );
                self.push_id(*tensor)
            }
            (Name::Size, [sizes]) => {
                let sizes = self.sequence(*sizes)?;
                self.push(Node::Tuple(sizes.into()))
            }
            (Name::NumpyReconstruct, [class, ..]) => {
                let class = &self.nodes[*class as usize];
                ensure!(
                    matches!(class, Node::Name(Name::NumpyArray)),
                    "refused: an array of another class"
                );
                self.push(Node::Array(None))
            }
            (Name::NumpyDtype, [code, ..]) => {
                let code = self.str(*code)?;
                ensure!(
                    width(&code).is_some(),
                    "refused: numpy elements of type {code:?}"
                );
                self.push(Node::Dtype(code))
            }
            (Name::Encode, [text, encoding]) => {
                let bytes = self.encode(*text, *encoding)?;
                self.push(Node::Bytes(bytes))
            }
            _ => bail!(
                "refused: {name:?} is called with {} arguments",
                arguments.len()
            ),
        }
    }

    /// `_codecs.encode(text, 'latin1')`, which is how bytes are written in protocol 2.
    fn encode(&mut self, text: Id, encoding: Id) -> Result<Rc<[u8]>> {
        let (text, encoding) = (self.str(text)?, self.str(encoding)?);
        ensure!(
            ["latin1", "latin-1"].contains(&&*encoding),
            "refused: the encoding {encoding:?}"
        );
        self.copied += text.len();
        ensure!(
            self.copied <= MAX_COPIED,
            "more than {MAX_COPIED} bytes of text are encoded"
        );
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        Ok(bytes.context("a character is not latin-1")?.into())
    }

    /// The arguments of `_rebuild_tensor_v2`; every element that the tensor can reach is inside its storage.
    fn tensor(&self, arguments: &[Id]) -> Result<TensorSpec> {
        let ([storage, offset, size, stride, _, _] | [storage, offset, size, stride, _, _, _]) =
            arguments
        else {
            bail!("a tensor is made from {} values", arguments.len());
        };
        let extra = arguments.get(6).map(|&id| &self.nodes[id as usize]);
        let plain = extra.is_none_or(|node| {
            matches!(node, Node::None) || matches!(node, Node::Dict(d) if d.is_empty())
        });
        ensure!(plain, "conjugate and negative views are not supported");
        let Node::Storage(storage) = self.nodes[*storage as usize] else {
            bail!("a tensor without a storage")
        };
        let (size, stride) = (self.ints(*size)?, self.ints(*stride)?);
        let spec = TensorSpec {
            storage,
            offset: self.int(*offset)?,
            size,
            stride,
        };
        let available = self.storages[storage].elements;
        let inside = spec
            .reach()
            .is_some_and(|(count, end)| count <= available && end <= available);
        ensure!(
            inside,
            "a tensor of size {:?}, stride {:?} and offset {} lies outside of its storage of {available} elements",
            spec.size,
            spec.stride,
            spec.offset
        );
        Ok(spec)
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.nodes[target as usize].clone() {
            // Attributes of a dictionary, such as the `_metadata` of a state dict.
            Node::Dict(_) => Ok(()),
            Node::Dtype(code) => {
                let state = self.tuple(state)?;
                let order = state
                    .get(1)
                    .context("a numpy type without byte order")
                    .and_then(|&id| self.str(id))?;
                ensure!(
                    ["<", "|", "="].contains(&&*order),
                    "numpy elements {code:?} of byte order {order:?} are not supported"
                );
                Ok(())
            }
            Node::Array(None) => {
                let state = self.tuple(state)?;
                let array = self.array_state(&state)?;
                self.nodes[target as usize] = Node::Array(Some(Rc::new(array)));
                Ok(())
            }
            _ => bail!("refused: setting the state of this object would run code"),
        }
    }

    fn array_state(&mut self, state: &[Id]) -> Result<Array> {
        let [_version, shape, dtype, fortran, data] = state else {
            bail!("a numpy array has {} values", state.len())
        };
        let Node::Dtype(dtype) = &self.nodes[*dtype as usize] else {
            bail!("a numpy array without element type")
        };
        let Node::Bytes(data) = &self.nodes[*data as usize] else {
            bail!("a numpy array without data")
        };
        ensure!(
            matches!(self.nodes[*fortran as usize], Node::Bool(false)),
            "numpy arrays in Fortran order are not supported"
        );
        let shape = self.ints(*shape)?;
        let bytes = num_elements(&shape).and_then(|count| count.checked_mul(width(dtype)?));
        ensure!(
            bytes == Some(data.len() as u64),
            "a numpy array {dtype} {shape:?} has {} bytes",
            data.len()
        );
        let array = Array {
            dtype: dtype.to_string(),
            shape,
            data: data.to_vec(),
        };
        self.copied += array.data.len();
        ensure!(
            self.copied <= MAX_COPIED,
            "more than {MAX_COPIED} bytes of arrays"
        );
        Ok(array)
    }

    fn push(&mut self, node: Node) -> Result<()> {
        ensure!(self.nodes.len() < MAX_NODES, "more than {MAX_NODES} values");
        self.nodes.push(node);
        self.push_id(self.nodes.len() as Id - 1)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        ensure!(
            self.stack.len() < MAX_STACK,
            "more than {MAX_STACK} values are open"
        );
        self.stack.push(id);
        Ok(())
    }

    /// Where the innermost open mark begins.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id> {
        ensure!(self.stack.len() > self.floor(), "the stack is empty");
        self.stack.last().copied().context("the stack is empty")
    }

    fn pop(&mut self) -> Result<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().context("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&self, id: Id) -> Result<Rc<[Id]>> {
        match &self.nodes[id as usize] {
            Node::Tuple(ids) => Ok(Rc::clone(ids)),
            other => bail!("expected a tuple, found {}", other.what()),
        }
    }

    fn sequence(&self, id: Id) -> Result<Vec<Id>> {
        match &self.nodes[id as usize] {
            Node::Tuple(ids) => Ok(ids.to_vec()),
            Node::List(ids) => Ok(ids.clone()),
            other => bail!("expected a list, found {}", other.what()),
        }
    }

    fn str(&self, id: Id) -> Result<Rc<str>> {
        match &self.nodes[id as usize] {
            Node::Str(text) => Ok(Rc::clone(text)),
            other => bail!("expected text, found {}", other.what()),
        }
    }

    fn int(&self, id: Id) -> Result<i64> {
        match self.nodes[id as usize] {
            Node::Int(value) => Ok(value),
            ref other => bail!("expected an integer, found {}", other.what()),
        }
    }

    /// Sizes or strides.
    fn ints(&self, id: Id) -> Result<Vec<i64>> {
        let ids = self.tuple(id)?;
        ensure!(
            ids.len() <= MAX_DIMENSIONS,
            "{} dimensions; at most {MAX_DIMENSIONS} are possible",
            ids.len()
        );
        ids.iter().map(|&id| self.int(id)).collect()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.position..];
        let taken = rest
            .get(..count)
            .with_context(|| format!("{count} bytes are needed, {} are left", rest.len()))?;
        self.position += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into()?)
    }

    fn length4(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Bytes after a count whose width the opcode fixes.
    fn counted(&mut self, code: u8) -> Result<&'a [u8]> {
        let count = match code {
            opcode::SHORT_BINUNICODE | opcode::SHORT_BINSTRING | opcode::SHORT_BINBYTES => {
                u64::from(self.take(1)?[0])
            }
            opcode::BINUNICODE8 | opcode::BINBYTES8 => u64::from_le_bytes(self.array()?),
            _ => u64::from(self.length4()?),
        };
        self.take(usize::try_from(count)?)
    }

    fn line(&mut self) -> Result<&'a str> {
        let rest = &self.bytes[self.position..];
        let end = memchr::memchr(b'\n', rest).context("a name without an end")?;
        self.position += end + 1;
        std::str::from_utf8(&rest[..end]).context("a name is not UTF-8")
    }
}

/// A little-endian two's complement integer of any length.
fn long(bytes: &[u8]) -> Node {
    if bytes.len() > 8 {
        return Node::BigInt;
    }
    let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
    let mut padded = [if negative { 0xff } else { 0 }; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(padded))
}

fn text(bytes: &[u8]) -> Result<Rc<str>> {
    Ok(std::str::from_utf8(bytes)
        .context("text is not UTF-8")?
        .into())
}

fn pairs(ids: &[Id]) -> Result<Vec<(Id, Id)>> {
    ensure!(
        ids.len().is_multiple_of(2),
        "a dictionary has a key without a value"
    );
    Ok(ids.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

//! Foreign torch files as values, through a reader that can run nothing (B4).
//!
//! `machine` has the rules; `archive` the containers. Here the arena becomes a tree of bounded depth and size.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tch::Tensor;

use super::archive::{self, Loaded};
use super::graph::{Array, Id, Node};
use crate::error::{Failure, Kind};

/// Nesting of the result; torch's own files need 6.
const MAX_DEPTH: usize = 64;
/// Values of the result: sharing in the pickle is undone, which a few bytes can make exponential.
const MAX_VALUES: usize = 4_000_000;
/// Bytes of text and arrays of the result.
const MAX_BYTES: usize = 256 << 20;

/// What a pickle may hold.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of the types")]
pub enum PickleValue {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<PickleValue>),
    Tuple(Vec<PickleValue>),
    /// In order; a key that was set twice is there twice, the later one counts.
    Dict(Vec<(PickleValue, PickleValue)>),
    /// On the CPU; tensors of one storage share it.
    Tensor(Tensor),
    Array(Array),
}

impl PickleValue {
    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Str(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dictionary",
            Self::Tensor(_) => "a tensor",
            Self::Array(_) => "a numpy array",
        }
    }

    /// The value of a text key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dict(entries) = self else {
            return None;
        };
        entries
            .iter()
            .rev()
            .find(|(name, _)| matches!(name, Self::Str(name) if name == key))
            .map(|(_, value)| value)
    }

    /// Entries of a dictionary.
    pub fn entries(&self) -> Result<&[(Self, Self)]> {
        match self {
            Self::Dict(entries) => Ok(entries),
            other => bail!("expected a dictionary, found {}", other.what()),
        }
    }

    /// Items of a list or tuple.
    pub fn items(&self) -> Result<&[Self]> {
        match self {
            Self::List(items) | Self::Tuple(items) => Ok(items),
            other => bail!("expected a list, found {}", other.what()),
        }
    }
}

/// Reads a file of `torch.save`, current or older format. What is not plain data is refused by name and never run.
pub fn read_archive(path: &Path) -> Result<PickleValue> {
    let value = archive::load(path).and_then(|loaded| {
        let mut tree = Tree {
            loaded: &loaded,
            values: 0,
            bytes: 0,
        };
        tree.value(loaded.graph.root, 0)
    });
    value.map_err(|error| {
        let io = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<std::io::Error>());
        let is_device = io.is_some_and(|io| io.raw_os_error().is_some());
        let kind = if is_device { Kind::Io } else { Kind::Data };
        Failure::new(
            kind,
            format!("{} cannot be used: {error:#}", path.display()),
        )
        .into()
    })
}

struct Tree<'a> {
    loaded: &'a Loaded,
    values: usize,
    bytes: usize,
}

impl Tree<'_> {
    fn value(&mut self, id: Id, depth: usize) -> Result<PickleValue> {
        ensure!(
            depth < MAX_DEPTH,
            "values are nested more than {MAX_DEPTH} deep"
        );
        self.values += 1;
        ensure!(self.values <= MAX_VALUES, "more than {MAX_VALUES} values");
        let loaded = self.loaded;
        Ok(match &loaded.graph.nodes[id as usize] {
            Node::None => PickleValue::None,
            &Node::Bool(value) => PickleValue::Bool(value),
            &Node::Int(value) => PickleValue::Int(value),
            &Node::Float(value) => PickleValue::Float(value),
            Node::Str(text) => PickleValue::Str(self.count(text.len()).map(|()| text.to_string())?),
            Node::Bytes(bytes) => {
                PickleValue::Bytes(self.count(bytes.len()).map(|()| bytes.to_vec())?)
            }
            Node::Array(Some(array)) => {
                PickleValue::Array(self.count(array.data.len()).map(|()| Array::clone(array))?)
            }
            Node::List(ids) => PickleValue::List(self.all(ids, depth)?),
            Node::Tuple(ids) => PickleValue::Tuple(self.all(ids, depth)?),
            Node::Dict(pairs) => {
                let pair = |&(key, value): &(Id, Id)| {
                    Ok((self.value(key, depth + 1)?, self.value(value, depth + 1)?))
                };
                PickleValue::Dict(pairs.iter().map(pair).collect::<Result<_>>()?)
            }
            Node::Tensor(spec) => {
                let storage = &loaded.storages[spec.storage];
                let tensor = storage.f_as_strided(&spec.size, &spec.stride, spec.offset);
                PickleValue::Tensor(tensor.context("a tensor does not fit its storage")?)
            }
            other => bail!("{} stands where a value should be", other.what()),
        })
    }

    fn all(&mut self, ids: &[Id], depth: usize) -> Result<Vec<PickleValue>> {
        ids.iter().map(|&id| self.value(id, depth + 1)).collect()
    }

    fn count(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        ensure!(
            self.bytes <= MAX_BYTES,
            "more than {MAX_BYTES} bytes of text"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    /// `('storage', torch.<kind>Storage, key, 'cpu', elements)` as a persistent id.
    fn storage(kind: &str, key: &str, elements: u8) -> Vec<u8> {
        let key = [&[b'X', key.len() as u8, 0, 0, 0][..], key.as_bytes()].concat();
        let class = format!("ctorch\n{kind}Storage\n");
        [
            b"(X\x07\0\0\0storage",
            class.as_bytes(),
            &key,
            b"X\x03\0\0\0cpu",
            &[b'K', elements],
            b"tQ",
        ]
        .concat()
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, (size,), (stride,), False, OrderedDict())`.
    fn tensor(storage: &[u8], offset: i8, size: i8, stride: i8) -> Vec<u8> {
        let int = |value: i8| [&b"J"[..], &i32::from(value).to_le_bytes()].concat();
        let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(";
        let parts = [
            int(offset),
            int(size),
            b"\x85".to_vec(),
            int(stride),
            b"\x85".to_vec(),
        ]
        .concat();
        [
            rebuild,
            storage,
            &parts,
            b"\x89ccollections\nOrderedDict\n)RtR",
        ]
        .concat()
    }

    fn pickle(body: &[u8]) -> Vec<u8> {
        [b"\x80\x02", body, b"."].concat()
    }

    /// An archive of torch with these members in its folder `a`.
    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        archive_with(CompressionMethod::Stored, members)
    }

    fn archive_with(method: CompressionMethod, members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in members {
            let options = SimpleFileOptions::default().compression_method(method);
            writer.start_file(*name, options).expect("a member");
            writer.write_all(bytes).expect("written");
        }
        writer.finish().expect("finished").into_inner()
    }

    fn read(bytes: &[u8]) -> Result<PickleValue> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("pytorch_model.bin");
        fs::write(&path, bytes)?;
        read_archive(&path)
    }

    fn read_pickle(body: &[u8]) -> Result<PickleValue> {
        read(&archive(&[
            ("a/data.pkl", &pickle(body)),
            ("a/data/0", &[0; 16]),
        ]))
    }

    #[test]
    fn plain_values_are_read() {
        let cases: &[(&[u8], &str)] = &[
            (b"N", "None"),
            (b"\x88", "Bool(true)"),
            (b"K\x05", "Int(5)"),
            (b"J\xff\xff\xff\xff", "Int(-1)"),
            (b"\x8a\x02\x00\x80", "Int(-32768)"),
            (b"\x8a\x00", "Int(0)"),
            (b"G?\xf8\0\0\0\0\0\0", "Float(1.5)"),
            (b"X\x02\0\0\0ab", "Str(\"ab\")"),
            (b"](K\x01K\x02e", "List([Int(1), Int(2)])"),
            (b"K\x01K\x02\x86", "Tuple([Int(1), Int(2)])"),
            (b"}(K\x01NK\x02Nu", "Dict([(Int(1), None), (Int(2), None)])"),
            (
                b"ccollections\nOrderedDict\n)R}X\x09\0\0\0_metadata}sb",
                "Dict([])",
            ),
            (
                b"ccollections\nOrderedDict\n](K\x01K\x02\x86e\x85R",
                "Dict([(Int(1), Int(2))])",
            ),
            (b"ctorch\nSize\nK\x02\x85\x85R", "Tuple([Int(2)])"),
            (b"K\x07q\x00h\x00\x86", "Tuple([Int(7), Int(7)])"),
            (
                b"c_codecs\nencode\nX\x02\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86R",
                "Bytes([255])",
            ),
        ];
        for (body, expected) in cases {
            let value = read_pickle(body)
                .unwrap_or_else(|error| panic!("{}: {error:#}", body.escape_ascii()));
            assert_eq!(format!("{value:?}"), *expected, "{}", body.escape_ascii());
        }
    }

    #[test]
    fn tensors_share_their_storage() {
        let numbers: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let whole = tensor(&storage("Float", "0", 4), 0, 4, 1);
        let part = tensor(&storage("Float", "0", 4), 1, 2, 2);
        let body = [whole, part, b"\x86".to_vec()].concat();
        let value = read(&archive(&[
            ("a/data.pkl", &pickle(&body)),
            ("a/data/0", &numbers),
            ("a/version", b"3\n"),
        ]));
        let PickleValue::Tuple(items) = value.expect("readable") else {
            panic!("not a tuple")
        };
        let [PickleValue::Tensor(whole), PickleValue::Tensor(part)] = &items[..] else {
            panic!("not tensors")
        };
        assert_eq!(
            Vec::<f32>::try_from(part.contiguous()).expect("numbers"),
            [2.0, 4.0]
        );
        assert_eq!(part.data_ptr() as usize, whole.data_ptr() as usize + 4);
    }

    #[test]
    fn what_would_run_code_is_refused_by_name_and_not_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let canary = folder.path().join("canary");
        let command = format!("touch {}", canary.display());
        let text = [
            &[b'X', command.len() as u8, 0, 0, 0][..],
            command.as_bytes(),
        ]
        .concat();
        let call = |name: &str| [format!("c{name}\n").as_bytes(), &text, b"\x85R"].concat();
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (call("os\nsystem"), "os.system"),
            (call("posix\nsystem"), "posix.system"),
            (call("builtins\neval"), "builtins.eval"),
            (call("torch\nload"), "torch.load"),
            (
                call("torch._utils\n_rebuild_tensor"),
                "torch._utils._rebuild_tensor,",
            ),
            (
                call("numpy.core.multiarray\nscalar"),
                "numpy.core.multiarray.scalar",
            ),
            (call("os.path\n\u{1b}[2Jx"), "os.path.\\u{1b}[2Jx"),
            (
                [b"}X\x01\0\0\0a".to_vec(), call("os\nsystem"), b"s".to_vec()].concat(),
                "os.system",
            ),
            (
                [
                    b"ccollections\nOrderedDict\n".to_vec(),
                    call("os\nsystem"),
                    b"\x85R".to_vec(),
                ]
                .concat(),
                "os.system",
            ),
            (b"X\x02\0\0\0osX\x06\0\0\0system\x93".to_vec(), "os.system"),
            ([b"(", &text[..], b"ios\nsystem\n"].concat(), "opcode INST"),
            (
                b"ccollections\nOrderedDict\n)\x81".to_vec(),
                "opcode NEWOBJ",
            ),
            (b"(ccollections\nOrderedDict\no".to_vec(), "opcode OBJ"),
            (b"\x82\x01".to_vec(), "opcode EXT1"),
            (b"N)R".to_vec(), "calling a value would run code"),
            (b"]}b".to_vec(), "setting the state of this object"),
            (
                b"(X\x06\0\0\0moduleK\x00K\x00K\x00K\x00tQ".to_vec(),
                "an object of unknown kind",
            ),
            (
                b"cnumpy.core.multiarray\n_reconstruct\nccollections\nOrderedDict\n\x85R".to_vec(),
                "another class",
            ),
            (
                b"cnumpy\ndtype\nX\x02\0\0\0O8\x89\x88\x87R".to_vec(),
                "numpy elements of type \"O8\"",
            ),
            (
                b"c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0rot\x86R".to_vec(),
                "the encoding \"rot\"",
            ),
            (b"cnumpy\nndarray\n)R".to_vec(), "NumpyArray is called"),
        ];
        for (body, expected) in cases {
            let error = read_pickle(&body).map(|_| ()).expect_err("refused");
            let message = error.to_string();
            assert!(
                message.contains("refused") && message.contains(expected),
                "{}: {message}",
                body.escape_ascii()
            );
            assert!(
                message.contains("pytorch_model.bin") && message.contains("byte "),
                "{message}"
            );
            assert_eq!(crate::error::kind_of(&error), Kind::Data);
        }
        assert!(!canary.exists(), "something ran");
    }

    #[test]
    fn tensors_outside_of_their_storage_are_refused() {
        let four = storage("Float", "0", 4);
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (tensor(&four, 0, 5, 1), "outside of its storage"),
            (tensor(&four, 1, 4, 1), "outside of its storage"),
            (tensor(&four, -1, 1, 1), "outside of its storage"),
            (tensor(&four, 0, -1, 1), "outside of its storage"),
            (tensor(&four, 3, 2, -1), "outside of its storage"),
            (tensor(&four, 0, 3, 2), "outside of its storage"),
            (tensor(&four, 0, 100, 0), "outside of its storage"),
            (
                tensor(&storage("Float", "0", 5), 0, 1, 1),
                "the archive 16 bytes",
            ),
            (
                tensor(&storage("Double", "0", 4), 0, 1, 1),
                "the archive 16 bytes",
            ),
            (
                tensor(&storage("Float", "1", 4), 0, 1, 1),
                "no member a/data/1",
            ),
            (
                tensor(&storage("Float", "../data/0", 4), 0, 1, 1),
                "not a plain number",
            ),
            (
                [
                    tensor(&four, 0, 1, 1),
                    tensor(&storage("Int", "0", 4), 0, 1, 1),
                    b"\x86".to_vec(),
                ]
                .concat(),
                "two ways",
            ),
            (
                four.clone(),
                "a bare storage stands where a value should be",
            ),
            (
                b"ctorch\nFloatStorage\n".to_vec(),
                "a bare name stands where a value should be",
            ),
        ];
        for (body, expected) in cases {
            let error = read_pickle(&body).map(|_| ()).expect_err(expected);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn archives_that_are_more_than_torchs_are_refused() {
        let data = pickle(b"N");
        let zeros = vec![0; 1 << 20];
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (
                archive(&[("a/data.pkl", &data), ("../evil", b"x")]),
                "\"../evil\" leaves the archive",
            ),
            (
                archive(&[("a/data.pkl", &data), ("a/../../evil", b"x")]),
                "leaves the archive",
            ),
            (
                archive(&[("a/data.pkl", &data), ("a\\evil", b"x")]),
                "leaves the archive",
            ),
            (
                archive(&[("a/data.pkl", &data), ("b/data.pkl", &data)]),
                "two pickles",
            ),
            (
                archive(&[("a/data.pkl", &data), ("a/constants.pkl", b"")]),
                "TorchScript",
            ),
            (
                archive(&[("a/data.pkl", &data), ("a/code/__torch__.py", b"")]),
                "TorchScript",
            ),
            (
                archive(&[("a/data.pkl", &data), ("a/byteorder", b"big")]),
                "big-endian",
            ),
            (archive(&[("a/other", b"x")]), "no data.pkl"),
            (
                archive_with(CompressionMethod::Deflated, &[("a/data.pkl", &zeros)]),
                "compressed",
            ),
            (
                archive(&[("a/data.pkl", &archive(&[("a/data.pkl", &data)]))]),
                "opcode",
            ),
            (b"PK\x03\x04 no archive".to_vec(), "archive is damaged"),
            (b"hello".to_vec(), "it begins with \"hell\""),
            (Vec::new(), "it begins with \"\""),
        ];
        for (bytes, expected) in cases {
            let error = read(&bytes).map(|_| ()).expect_err(expected);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn few_bytes_cannot_ask_for_much_memory() {
        // Each value is a pair of the one before: 2^40 values in 120 bytes.
        let mut doubling = b"Nq\x00".to_vec();
        (0..40).for_each(|_| doubling.extend(b"h\x00h\x00\x86q\x00"));
        // Each value is a pair of the one before, wide and flat: 8^7 values at depth 7.
        let mut wide = b"Nq\x00".to_vec();
        for _ in 0..8 {
            wide.push(b'(');
            (0..8).for_each(|_| wide.extend(b"h\x00"));
            wide.extend(b"tq\x00");
        }
        let text = [
            b"X\0\0\x10\0",
            &vec![b'a'; 1 << 20][..],
            b"q\x00X\x06\0\0\0latin1q\x01c_codecs\nencode\nq\x020",
        ]
        .concat();
        let encode = [
            text.clone(),
            b"h\x02h\x00h\x01\x86R".repeat(100),
            b"N".to_vec(),
        ]
        .concat();
        let texts = [b"(".to_vec(), text, b"h\x00".repeat(400), b"t".to_vec()].concat();
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (doubling, "values"),
            (wide, "more than"),
            (encode, "bytes of text are encoded"),
            (texts, "bytes of text"),
            (b"]q\x00h\x00a".to_vec(), "nested more than 64 deep"),
            (b"(".repeat(2000), "nested more than 1000 deep"),
            (
                [b"]".repeat(100), b"a".repeat(99)].concat(),
                "nested more than 64 deep",
            ),
            (b"N".repeat(2_100_000), "more than 2000000 values"),
            (
                [b"N".to_vec(), b"\x94".repeat(2_100_000)].concat(),
                "are remembered",
            ),
            (b"X\xff\xff\xff\xffabc".to_vec(), "bytes are needed"),
            (
                b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc".to_vec(),
                "bytes are needed",
            ),
            (b"\x8b\xff\xff\xff\x7f".to_vec(), "opcode 0x8b"),
        ];
        for (body, expected) in cases {
            let error = read_pickle(&body).map(|_| ()).expect_err(expected);
            assert!(error.to_string().contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn damaged_pickles_and_archives_never_panic() {
        let body = [
            b"}X\x01\0\0\0wq\x01".to_vec(),
            tensor(&storage("Float", "0", 4), 0, 4, 1),
            b"s".to_vec(),
        ]
        .concat();
        let whole = pickle(&body);
        for length in 0..whole.len() {
            let error = read(&archive(&[("a/data.pkl", &whole[..length])]))
                .map(|_| ())
                .expect_err("cut");
            assert!(error.to_string().contains("byte"), "{error}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            read(&archive(&[
                ("a/data.pkl", &flipped),
                ("a/data/0", &[0; 16]),
            ]))
            .ok();
        }
        let file = archive(&[("a/data.pkl", &whole), ("a/data/0", &[1; 16])]);
        for length in 0..file.len() {
            read(&file[..length]).map(|_| ()).expect_err("cut");
        }
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            read(&flipped).ok();
        }
    }

    #[test]
    fn a_flipped_bit_of_a_storage_is_noticed() {
        let body = tensor(&storage("Float", "0", 4), 0, 4, 1);
        let mut file = archive(&[("a/data.pkl", &pickle(&body)), ("a/data/0", &[0x5a; 16])]);
        let position = file
            .windows(16)
            .position(|window| window == [0x5a; 16])
            .expect("stored");
        read(&file).expect("readable");
        file[position + 3] ^= 1;
        let error = read(&file).map(|_| ()).expect_err("another checksum");
        assert!(error.to_string().contains("storage 0"), "{error}");
    }

    /// A file of torch before 1.6.
    fn legacy(elements: u64, data: &[u8]) -> Vec<u8> {
        let storage = [&storage("Float", "94", 4)[..], b""].concat();
        // The older persistent id has a sixth value, the view.
        let storage = [&storage[..storage.len() - 2], b"NtQ"].concat();
        let parts = [
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(),
            b"\x80\x02M\xe9\x03.".to_vec(),
            b"\x80\x02}X\x0d\0\0\0little_endian\x88s.".to_vec(),
            pickle(
                &[
                    b"}X\x01\0\0\0w".to_vec(),
                    tensor(&storage, 0, 4, 1),
                    b"s".to_vec(),
                ]
                .concat(),
            ),
            b"\x80\x02]X\x02\0\0\094a.".to_vec(),
            elements.to_le_bytes().to_vec(),
            data.to_vec(),
        ];
        parts.concat()
    }

    #[test]
    fn the_older_format_is_read_by_the_same_rules() {
        let data: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        let whole = legacy(4, &data);
        let value = read(&whole).expect("readable");
        let Some(PickleValue::Tensor(tensor)) = value.get("w") else {
            panic!("no tensor")
        };
        assert_eq!(
            Vec::<f32>::try_from(tensor).expect("numbers"),
            [1.0, 2.0, 3.0, 4.0]
        );
        for length in 0..whole.len() {
            read(&whole[..length]).map(|_| ()).expect_err("cut");
        }
        assert!(
            read(&legacy(5, &data))
                .expect_err("a lie")
                .to_string()
                .contains("5")
        );
        assert!(
            read(&legacy(4, &data[1..]))
                .expect_err("cut")
                .to_string()
                .contains("beyond the end")
        );
    }

    #[test]
    fn an_absent_file_is_an_io_error() {
        let error = read_archive(Path::new("/no/such/file.bin"))
            .map(|_| ())
            .expect_err("absent");
        assert_eq!(crate::error::kind_of(&error), Kind::Io);
        assert!(File::open("/no/such/file.bin").is_err());
    }
}

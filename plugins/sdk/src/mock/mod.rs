//! The host in memory, in the place of the bindings wherever a plugin is not built for WebAssembly: for the unit tests of
//! plugins. Tensors compute with float64 and round to float32 where they are narrower; nothing has limits, and there is no
//! graph. [`crate::testing`] makes what hooks are given.

pub mod data;
pub mod run;
pub mod tensor;

/// As the WIT package has them.
pub mod types {
    /// Element types.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Dtype {
        Boolean,
        Unsigned8,
        Signed8,
        Signed16,
        Signed32,
        Signed64,
        Float16,
        Brain16,
        Float32,
        Float64,
        Other,
    }

    /// Kinds of errors.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ErrorKind {
        Config,
        Data,
        Denied,
        Limit,
        Stale,
        Transient,
        Unsupported,
        Fatal,
        Other,
    }

    /// An error.
    #[derive(Clone, Debug)]
    pub struct Error {
        pub kind: ErrorKind,
        pub message: String,
    }

    /// Levels of log lines.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Level {
        Trace,
        Debug,
        Info,
        Warn,
        Error,
    }

    /// Which values of a metric are better.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Better {
        High,
        Low,
        Neither,
    }

    /// This batch or file cannot be used.
    pub fn data<T>(message: impl Into<String>) -> Result<T, Error> {
        Err(Error {
            kind: ErrorKind::Data,
            message: message.into(),
        })
    }

    /// There is no such thing in memory.
    pub fn unsupported<T>(message: impl Into<String>) -> Result<T, Error> {
        Err(Error {
            kind: ErrorKind::Unsupported,
            message: message.into(),
        })
    }
}

/// Lines go to standard error.
pub mod log {
    use super::types::Level;

    pub fn log(level: Level, message: &str, _fields: &[(String, String)]) {
        eprintln!("{level:?}: {message}");
    }
}

/// A stream of numbers from a seed; not the one of the host.
pub mod rng {
    use std::cell::Cell;

    use super::tensor::Tensor;
    use super::types::{Dtype, Error};

    #[derive(Debug)]
    pub struct Rng(Cell<u64>);

    impl Rng {
        pub fn new(seed: u64) -> Self {
            Self(Cell::new(seed))
        }

        /// SplitMix64.
        pub fn next_u64(&self) -> u64 {
            self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut bits = self.0.get();
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bits ^ (bits >> 31)
        }

        fn unit(&self) -> f64 {
            (self.next_u64() >> 40) as f64 / (1_u64 << 24) as f64
        }

        fn draw(
            &self,
            dtype: Dtype,
            shape: &[u64],
            value: impl Fn() -> f64,
        ) -> Result<Tensor, Error> {
            let count = shape.iter().product::<u64>();
            Tensor::of(dtype, shape, (0..count).map(|_| value()).collect())
        }

        pub fn uniform(&self, shape: &[u64]) -> Result<Tensor, Error> {
            self.draw(Dtype::Float32, shape, || self.unit())
        }

        pub fn bernoulli(&self, shape: &[u64], p: f64) -> Result<Tensor, Error> {
            self.draw(Dtype::Boolean, shape, || f64::from(self.unit() < p))
        }

        pub fn integers(&self, shape: &[u64], low: i64, high: i64) -> Result<Tensor, Error> {
            let span = (high - low) as u64;
            self.draw(Dtype::Signed64, shape, || {
                (low + (self.next_u64() % span) as i64) as f64
            })
        }

        pub fn permutation(&self, n: u64) -> Result<Tensor, Error> {
            let mut order: Vec<f64> = (0..n).map(|index| index as f64).collect();
            for last in (1..order.len()).rev() {
                order.swap(last, (self.next_u64() % (last as u64 + 1)) as usize);
            }
            Tensor::of(Dtype::Signed64, &[n], order)
        }
    }
}

/// A tokenizer with the special tokens that a test gives it, and no text.
pub mod tokenizer {
    use std::cell::RefCell;

    use super::tensor::Tensor;
    use super::types::{Dtype, Error, unsupported};

    thread_local! {
        static SPECIAL: RefCell<Vec<(String, i64)>> = const { RefCell::new(Vec::new()) };
    }

    /// Names and numbers of the special tokens, for this thread.
    pub fn set_special(tokens: &[(&str, i64)]) {
        let tokens = tokens.iter().map(|(name, id)| ((*name).to_owned(), *id));
        SPECIAL.replace(tokens.collect());
    }

    pub fn decode(_ids: &Tensor, _skip_special: bool) -> Result<Vec<String>, Error> {
        unsupported("there is no text in memory: test what decodes with the host")
    }

    pub fn encode(_texts: &[String]) -> Result<Vec<Vec<i64>>, Error> {
        unsupported("there is no text in memory: test what encodes with the host")
    }

    pub fn special_id(name: &str) -> Result<Option<i64>, Error> {
        Ok(SPECIAL.with_borrow(|tokens| {
            let known = tokens.iter().find(|(known, _)| known == name);
            known.map(|(_, id)| *id)
        }))
    }

    pub fn special_mask(ids: &Tensor) -> Result<Tensor, Error> {
        let special = SPECIAL.with_borrow(|tokens| {
            let ids = tokens.iter().map(|(_, id)| *id as f64);
            ids.collect::<Vec<f64>>()
        });
        ids.map(Dtype::Boolean, |id| f64::from(special.contains(&id)))
    }
}

/// No secret is bound.
pub mod secrets {
    pub fn available(_name: &str) -> bool {
        false
    }
}

/// A checkpoint whose files a test gives.
pub mod artifact {
    use super::types::{Error, data, unsupported};

    #[derive(Debug, Default)]
    pub struct Artifact {
        pub name: String,
        pub files: Vec<(String, Vec<u8>)>,
    }

    impl Artifact {
        pub fn name(&self) -> String {
            self.name.clone()
        }

        pub fn size(&self) -> u64 {
            self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
        }

        pub fn files(&self) -> Result<Vec<(String, u64)>, Error> {
            let files = self.files.iter();
            Ok(files
                .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
                .collect())
        }

        pub fn sha256(&self, _file: &str) -> Result<String, Error> {
            unsupported("files in memory have no digest: test it with the host")
        }

        pub fn read(&self, file: &str, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
            let Some((_, bytes)) = self.files.iter().find(|(name, _)| name == file) else {
                return data(format!("the file `{file}` does not exist"));
            };
            let rest = bytes.iter().skip(offset as usize).take(len as usize);
            Ok(rest.copied().collect())
        }
    }
}

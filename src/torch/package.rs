//! AOT packages: models that `torch.compile`'s inductor has compiled in advance, as machine code in a zip file.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};
use cxx::UniquePtr;
use rustix::fs::{MemfdFlags, memfd_create};
use tch::Tensor;

use super::bridge::ffi;
use super::{addresses, adopt};
use crate::error::without_frames;

/// The code of a package names libtorch.so among its libraries, an empty one that brings the CPU's and the GPU's half in. This
/// one is called the same and brings nothing: both halves are there if the run needs them, and the GPU's need not exist.
const UMBRELLA: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libtorch.so"));

fn open_umbrella() -> Result<()> {
    let mut file = File::from(memfd_create("libtorch.so", MemfdFlags::CLOEXEC)?);
    file.write_all(UMBRELLA)?;
    Ok(ffi::load_library(&format!(
        "/proc/self/fd/{}",
        file.as_raw_fd()
    ))?)
}

/// A loaded package. Loading unpacks its code to a temporary folder and runs it.
pub struct Package(UniquePtr<ffi::Package>);

impl fmt::Debug for Package {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Package")
    }
}

fn explained(error: &cxx::Exception) -> anyhow::Error {
    let text = without_frames(error.what());
    anyhow!("{}", text.lines().next().unwrap_or_default().trim())
}

impl Package {
    /// Loads a file that `torch._inductor.aoti_compile_and_package` wrote.
    pub fn load(path: &Path) -> Result<Self> {
        static OPENED: OnceLock<()> = OnceLock::new();
        let text = path.to_str().context("the path is not valid UTF-8")?;
        if OPENED.get().is_none() {
            open_umbrella().context("loading the library that packages refer to")?;
            OPENED.get_or_init(|| ());
        }
        Ok(Self(
            ffi::package_load(text).map_err(|error| explained(&error))?,
        ))
    }

    /// How its inputs and its outputs are arranged: two texts of `torch.utils._pytree.treespec_dumps`.
    pub fn call_spec(&self) -> Result<Vec<String>> {
        Ok(ffi::package_call_spec(&self.0)?)
    }

    /// The kind of device that it was compiled for: `cpu` or `cuda`.
    pub fn device(&self) -> Result<String> {
        Ok(ffi::package_device(&self.0)?)
    }

    /// Runs it. It checks number, types and shapes of its inputs only if `AOTI_RUNTIME_CHECK_INPUTS` is 1 in the environment.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let outputs = ffi::package_run(&self.0, &addresses(inputs));
        let outputs = outputs.map_err(|error| explained(&error))?;
        Ok(outputs.into_iter().map(adopt).collect())
    }
}

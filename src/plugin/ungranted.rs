//! Host interfaces that need a grant or belong to a hook that this version does not call: linked, so that components of
//! languages that import all of an interface load, and answered with `denied` or `unsupported`.

use wasmtime::component::Resource;

use super::bindings::trainer::host::{data, tokenizer};
use super::fault::HostError;
use super::state::State;
use super::tensor;

/// Marks the `features` resource, of which this version makes none.
#[derive(Debug)]
pub enum Features {}

fn no_tokenizer<T>() -> Result<T, HostError> {
    Err(HostError::denied(
        "needs the grant tokenizer, which this version cannot give",
    ))
}

fn no_features<T>() -> Result<T, HostError> {
    Err(HostError::unsupported(
        "collators are not called by this version",
    ))
}

impl tokenizer::Host for State {
    fn decode(&mut self, _: Resource<tensor::Handle>, _: bool) -> Result<Vec<String>, HostError> {
        no_tokenizer()
    }

    fn encode(&mut self, _: Vec<String>) -> Result<Vec<Vec<i64>>, HostError> {
        no_tokenizer()
    }

    fn special_id(&mut self, _: String) -> wasmtime::Result<Option<i64>> {
        Ok(None)
    }

    fn special_mask(
        &mut self,
        _: Resource<tensor::Handle>,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        no_tokenizer()
    }
}

impl data::HostFeatures for State {
    fn len(&mut self, _: Resource<Features>) -> wasmtime::Result<u64> {
        Ok(0)
    }

    fn columns(&mut self, _: Resource<Features>) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn has(&mut self, _: Resource<Features>, _: String) -> wasmtime::Result<bool> {
        Ok(false)
    }

    fn stacked(
        &mut self,
        _: Resource<Features>,
        _: String,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        no_features()
    }

    fn lengths(&mut self, _: Resource<Features>, _: String) -> Result<Vec<u64>, HostError> {
        no_features()
    }

    fn padded(
        &mut self,
        _: Resource<Features>,
        _: String,
        _: f64,
        _: u32,
        _: bool,
    ) -> Result<Resource<tensor::Handle>, HostError> {
        no_features()
    }

    fn text(&mut self, _: Resource<Features>, _: String, _: u64) -> Result<String, HostError> {
        no_features()
    }

    fn bytes(&mut self, _: Resource<Features>, _: String, _: u64) -> Result<Vec<u8>, HostError> {
        no_features()
    }

    fn json(&mut self, _: Resource<Features>, _: String, _: u64) -> Result<String, HostError> {
        no_features()
    }

    fn drop(&mut self, _: Resource<Features>) -> wasmtime::Result<()> {
        Ok(())
    }
}

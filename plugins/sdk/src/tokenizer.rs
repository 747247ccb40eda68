//! The run's tokenizer. Metrics and collators have it; other hooks need the capability `tokenizer`.

use crate::error::Result;
use crate::hooks::host::tokenizer as host;
use crate::tensor::Tensor;

/// The text of token numbers of shape `[tokens]` or `[rows, tokens]`; numbers below 0 are left out.
pub fn decode(ids: &Tensor, skip_special: bool) -> Result<Vec<String>> {
    Ok(host::decode(ids.handle(), skip_special)?)
}

/// Token numbers of texts, with special tokens and truncated as the run's rows are.
pub fn encode(texts: &[String]) -> Result<Vec<Vec<i64>>> {
    Ok(host::encode(texts)?)
}

/// The number of `bos`, `eos`, `unk`, `sep`, `pad`, `cls` or `mask`, if the tokenizer has it.
pub fn special_id(name: &str) -> Result<Option<i64>> {
    Ok(host::special_id(name)?)
}

/// Where a token stands for no text: boolean.
pub fn special_mask(ids: &Tensor) -> Result<Tensor> {
    Ok(host::special_mask(ids.handle())?.into())
}

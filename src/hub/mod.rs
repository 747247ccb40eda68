//! The Hugging Face Hub through the `hf-hub` crate: models and data sets from there, uploads to it. It knows files and
//! names, and nothing of runs.
//!
//! | file | owns |
//! | --- | --- |
//! | [`download`] | what is fetched into the cache, and that it is what the Hub has |
//! | [`upload`] | the thread that uploads, its queue, what became of it |
//! | [`view`] | files as they were when their upload was asked for |
//! | `fault.rs` | what went wrong, in words, and what to do about it |

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use hf_hub::{HFClient, HFClientSync};

use crate::error::Failure;

pub mod download;
mod fault;
pub mod upload;
pub mod view;

use fault::Doing;

/// A server that does not take the connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection on which nothing comes.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// Attempts after the first one of each request, 0.2 to 1.6 seconds apart.
const RETRIES: usize = 4;

/// Where the Hub is, and as whom it is asked.
#[derive(Clone)]
pub struct Access {
    /// Its address.
    pub endpoint: String,
    /// Folder of downloads, laid out as the Python client does.
    pub cache: PathBuf,
    /// As whom to ask; `None`: as nobody.
    pub token: Option<String>,
    /// Ask nobody.
    pub offline: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Access")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("has_token", &self.token.is_some())
            .field("offline", &self.offline)
            .finish()
    }
}

/// The Hub.
#[derive(Clone, Debug)]
pub struct Client {
    inner: HFClientSync,
    access: Access,
}

impl Client {
    /// Connects to nothing yet.
    pub fn new(access: Access) -> Result<Self> {
        let product = concat!("host/", env!("CARGO_PKG_VERSION"));
        let transport = reqwest::Client::builder()
            .user_agent(product)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .context("the HTTP client cannot be made")?;
        let mut builder = HFClient::builder()
            .endpoint(&access.endpoint)
            .cache_dir(&access.cache)
            .user_agent(product)
            .client(transport)
            .retry_max_attempts(RETRIES);
        if let Some(token) = &access.token {
            builder = builder.token(token);
        }
        let inner = builder
            .build_sync()
            .map_err(|error| Failure::usage(format!("HF_ENDPOINT: {error}")))?;
        Ok(Self { inner, access })
    }

    /// The address of a model's page.
    pub fn page(&self, name: &str) -> String {
        format!("{}/{name}", self.access.endpoint)
    }

    fn doing<'a>(&'a self, what: &'a str, repository: &'a str) -> Doing<'a> {
        Doing {
            what,
            repository,
            access: &self.access,
        }
    }
}

//! What went wrong with the Hub: one sentence with a subject, and a remedy. The client's own texts are not shown, because
//! they hold addresses, and addresses can hold secrets.

use std::error::Error;
use std::io;

use anyhow::Chain;
use hf_hub::HFError;

use super::Access;
use crate::error::{Failure, Kind};

/// Characters of a server's own explanation that are shown.
const MAX_EXPLANATION: usize = 300;

/// The kind of a failure, what failed, what to do about it.
type Explained = (Kind, String, Option<String>);

/// What was being done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing<'a> {
    /// `fetching owner/name (main)`.
    pub what: &'a str,
    pub repository: &'a str,
    pub access: &'a Access,
}

impl Doing<'_> {
    /// The failure as the user reads it.
    pub fn failed(&self, error: &HFError) -> anyhow::Error {
        let (kind, message, hint) = self.explain(error);
        let mut failure = Failure::new(kind, message);
        if let Some(hint) = hint {
            failure = failure.hint(hint);
        }
        anyhow::Error::from(failure).context(self.what.to_owned())
    }

    fn explain(&self, error: &HFError) -> Explained {
        match error {
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => self.explain_refusal(error),
            HFError::RevisionNotFound {
                context: Some(context),
                ..
            } if context.error_code.as_deref() == Some("RepoNotFound") => self.no_repository(),
            HFError::RepoNotFound { .. } => self.no_repository(),
            HFError::RevisionNotFound { revision, .. } => (
                Kind::Usage,
                format!(
                    "{} has no branch, tag or commit {revision}",
                    self.repository
                ),
                Some("check the revision".to_owned()),
            ),
            HFError::EntryNotFound { path, .. } => (
                Kind::Usage,
                format!("{} has no file {path}", self.repository),
                Some("check the path".to_owned()),
            ),
            HFError::Request { source, .. } => self.explain_request(source),
            HFError::Io(error) => self.explain_io(error),
            HFError::Xet { source, .. } => self.explain_xet(&**source),
            HFError::Json(_) | HFError::MalformedResponse { .. } => self.no_hub(),
            other => self.explain_answer(other),
        }
    }

    /// Who asks may not have it.
    fn explain_refusal(&self, error: &HFError) -> Explained {
        let (repository, host) = (self.repository, &self.access.endpoint);
        let (message, hint) = match error {
            HFError::Forbidden { context } => (
                format!(
                    "the token may not do this with {repository}{}",
                    said(context.server_message.as_deref())
                ),
                "use a token that may, or ask for access on the page of the repository",
            ),
            _ if self.access.token.is_none() => (
                format!("{repository} does not exist, or is private or gated and needs a token"),
                "check the name; for a private one set HF_TOKEN or log in with `hf auth login`",
            ),
            _ => (
                format!("{host} does not accept the token"),
                "it may be expired or revoked: make a new one, and set HF_TOKEN or log in with `hf auth login`",
            ),
        };
        (Kind::Policy, message, Some(hint.to_owned()))
    }

    /// Answers that say that something is wrong.
    fn explain_answer(&self, error: &HFError) -> Explained {
        let (repository, host) = (self.repository, &self.access.endpoint);
        let mut hint = None;
        let message = match error {
            HFError::RateLimited { retry_after, .. } => {
                hint = Some("try again later; with a token the limits are higher".to_owned());
                let asked = retry_after.map(|wait| wait.as_secs());
                let asked = asked.map(|wait| format!(" and asks to wait {wait} seconds"));
                let asked = asked.unwrap_or_default();
                format!("{host} limits how often it may be asked{asked}")
            }
            HFError::Conflict { context } => {
                let said = said(context.server_message.as_deref());
                format!("{repository} was changed by somebody else{said}")
            }
            HFError::Http { context } => {
                let said = said(context.server_message.as_deref());
                format!("{host} answered {}{said}", context.status)
            }
            other => redacted(&other.to_string()),
        };
        (Kind::Io, message, hint)
    }

    fn no_repository(&self) -> Explained {
        let (repository, host) = (self.repository, &self.access.endpoint);
        let message = format!("{repository} does not exist on {host}, or the token may not see it");
        (Kind::Usage, message, Some("check the name".to_owned()))
    }

    fn no_hub(&self) -> Explained {
        let message = format!("the answer of {} is not one of a Hub", self.access.endpoint);
        let hint = "check HF_ENDPOINT, and proxies in between";
        (Kind::Io, message, Some(hint.to_owned()))
    }

    fn explain_request(&self, error: &reqwest::Error) -> Explained {
        let host = &self.access.endpoint;
        let cause = innermost(error);
        let message = if error.is_connect() {
            format!("{host} cannot be reached: {cause}")
        } else if error.is_timeout() {
            format!("{host} does not answer")
        } else if has_cause::<serde_json::Error>(error) {
            return self.no_hub();
        } else {
            format!("the connection to {host} broke off: {cause}")
        };
        (Kind::Io, message, Some("check the network".to_owned()))
    }

    fn explain_io(&self, error: &io::Error) -> Explained {
        let cache = self.access.cache.display();
        let is_full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if is_full.contains(&error.kind()) {
            let hint = "free space, or set HF_HUB_CACHE to a folder on another volume";
            let message = format!("the volume of {cache} is full");
            return (Kind::Io, message, Some(hint.to_owned()));
        }
        (
            Kind::Io,
            format!("a file could not be read or written ({cache} is the cache): {error}"),
            None,
        )
    }

    /// Errors of the store for large files come as texts around those of the transport and the disk.
    fn explain_xet(&self, error: &(dyn Error + 'static)) -> Explained {
        let io = Chain::new(error).find_map(|cause| cause.downcast_ref::<io::Error>());
        if let Some(error) = io {
            return self.explain_io(error);
        }
        let host = &self.access.endpoint;
        (
            Kind::Io,
            format!(
                "the store of large files of {host} failed: {}",
                redacted(&error.to_string())
            ),
            None,
        )
    }
}

/// Whether waiting may help.
pub(super) fn is_passing(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::RateLimited { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

fn said(message: Option<&str>) -> String {
    let shown: String = message
        .unwrap_or_default()
        .chars()
        .take(MAX_EXPLANATION)
        .collect();
    match shown.trim() {
        "" => String::new(),
        text => format!(": {}", redacted(text)),
    }
}

fn has_cause<E: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    Chain::new(error).skip(1).any(|cause| cause.is::<E>())
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let cause = Chain::new(error).skip(1).last();
    cause.map_or_else(String::new, |cause| redacted(&cause.to_string()))
}

/// `text` without what follows the path of an address, where signatures are, and without user names in front of hosts.
fn redacted(text: &str) -> String {
    let words = text.split(' ').map(|word| {
        let Some((scheme, rest)) = word.split_once("://") else {
            return word.to_owned();
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}{path}")
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn addresses_are_shown_without_their_secrets() {
        for (text, expected) in [
            ("no address", "no address"),
            (
                "get https://u:p@h/a/b?X-Sig=s#f failed",
                "get https://h/a/b failed",
            ),
            ("(http://h:1)", "(http://h:1)"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }
}

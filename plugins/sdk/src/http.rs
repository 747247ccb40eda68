//! Requests over HTTP, which the host makes if the user granted `net` for their origin. Redirects are not followed. The
//! host adds secrets that were granted for the origin.

use std::time::Duration;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme,
};
use wasip2::io::streams::StreamError;

use crate::error::{Error, ErrorKind, Result};
use crate::hooks::host::secrets;

/// What one write of a body may hold.
const CHUNK: usize = 4096;
/// How the host's error about a body that is over the limit `network` reads; it has no code in `wasi:http`.
const OVER_LIMIT: &str = "body size exceeds limit";
/// What one read of a body asks for.
const READ: u64 = 64 << 10;

/// A request, sent by [`Request::send`].
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// With scheme and host.
    pub url: &'a str,
    /// Without `Host` and `Content-Length`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Empty: no body.
    pub body: &'a [u8],
    /// How long to wait for the answer to begin; the host may wait less.
    pub timeout: Duration,
}

/// What came back, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value).ok()
    }
}

/// Whether the user bound a secret of this name. Its value never comes here.
pub fn has_secret(name: &str) -> bool {
    secrets::available(name)
}

impl Request<'_> {
    /// Sends it and reads the whole answer. What may work when tried again is [`ErrorKind::Transient`].
    pub fn send(&self) -> Result<Response> {
        let (scheme, authority, path) = split(self.url)?;
        let refuse = |what: &str| self.error(ErrorKind::Data, what);
        let headers = Fields::new();
        for (name, value) in self.headers {
            let added = headers.append(name, value.as_bytes());
            added.map_err(|error| refuse(&format!("the header {name}: {error}")))?;
        }
        let length = self.body.len().to_string();
        headers
            .append("content-length", length.as_bytes())
            .map_err(|error| refuse(&error.to_string()))?;
        let request = OutgoingRequest::new(headers);
        let set = request.set_method(&method(self.method)).is_ok()
            && request.set_scheme(Some(&scheme)).is_ok()
            && request.set_authority(Some(authority)).is_ok()
            && request.set_path_with_query(Some(path)).is_ok();
        if !set {
            return Err(refuse("not a request that can be sent"));
        }
        let failed = |error: ErrorCode| self.failure(&error);
        let nanos = u64::try_from(self.timeout.as_nanos()).unwrap_or(u64::MAX);
        let options = RequestOptions::new();
        for set in [
            options.set_connect_timeout(Some(nanos)),
            options.set_first_byte_timeout(Some(nanos)),
        ] {
            set.map_err(|()| refuse("the time cannot be limited"))?;
        }
        let body = request.body().map_err(|()| refuse("has no body"))?;
        let answer = outgoing_handler::handle(request, Some(options)).map_err(failed)?;
        // A refused request also breaks the stream of its body: the answer says why.
        let written = write(&body, self.body);
        if written {
            OutgoingBody::finish(body, None).map_err(failed)?;
        } else {
            drop(body);
        }
        answer.subscribe().block();
        match answer.get() {
            Some(Ok(Ok(response))) => read(&response).map_err(|reason| {
                let kind = if reason.contains(OVER_LIMIT) {
                    ErrorKind::Limit
                } else {
                    ErrorKind::Transient
                };
                self.error(kind, &reason)
            }),
            Some(Ok(Err(error))) => Err(failed(error)),
            _ => Err(self.error(ErrorKind::Transient, "no answer")),
        }
    }

    fn error(&self, kind: ErrorKind, reason: &str) -> Error {
        Error::of(kind, format!("{} {}: {reason}", self.method, self.url))
    }

    fn failure(&self, error: &ErrorCode) -> Error {
        let kind = match error {
            ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => ErrorKind::Denied,
            ErrorCode::HttpRequestBodySize(_) | ErrorCode::HttpResponseBodySize(_) => {
                ErrorKind::Limit
            }
            _ => ErrorKind::Transient,
        };
        self.error(kind, &format!("{error:?}"))
    }
}

/// Scheme, authority and path of a URL.
fn split(url: &str) -> Result<(Scheme, &str, &str)> {
    let (scheme, rest) = match url.split_once("://") {
        Some(("http", rest)) => (Scheme::Http, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        _ => {
            return Err(Error::config(format!(
                "`{url}` is not a URL with http or https"
            )));
        }
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    Ok((scheme, authority, if path.is_empty() { "/" } else { path }))
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        other => Method::Other(other.to_owned()),
    }
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> bool {
    let Ok(stream) = body.write() else {
        return false;
    };
    bytes
        .chunks(CHUNK)
        .all(|chunk| stream.blocking_write_and_flush(chunk).is_ok())
}

/// The whole answer, or why it broke off.
fn read(response: &IncomingResponse) -> std::result::Result<Response, String> {
    let status = response.status();
    let headers = response.headers().entries();
    let incoming = response.consume().map_err(|()| "it was read before")?;
    let stream = incoming.stream().map_err(|()| "it was read before")?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(READ) {
            Ok(bytes) => body.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                // The host's backtrace may follow on the first line.
                let text = error.to_debug_string();
                return Err(text.lines().next().unwrap_or_default().to_owned());
            }
        }
    }
    Ok(Response {
        status,
        headers,
        body,
    })
}

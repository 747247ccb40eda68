//! Requests to registries and other servers: time limits, bounded retries, redirects by hand. Credentials go to the
//! origin that they were meant for and to no other, and never over plain HTTP except to this machine or where the user
//! asks for it.

use std::io::Read;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::Body;
use ureq::config::Config;
use ureq::http::{self, HeaderMap, Method, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use url::{Host, Url};

use super::credentials::Secret;
use super::name::shown;
use crate::error::{Failure, Kind};

/// Redirects in a row.
const MAX_REDIRECTS: usize = 5;
/// Attempts when the server is busy or cannot be reached.
const ATTEMPTS: u32 = 4;
/// A slower answer is cut off; downloads go on in the next attempt.
const MAX_BODY_TIME: Duration = Duration::from_secs(20 * 60);
/// The longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// One request.
pub struct Request<'a> {
    /// `GET`, `HEAD`, `POST`, `PUT`.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The header `Accept`, if it matters.
    pub accept: Option<&'a str>,
    /// The header `Authorization`; for the origin of `url` only.
    pub authorization: Option<Secret>,
    /// Only the bytes from here on.
    pub from: u64,
    /// Body and its type.
    pub body: Option<(&'a [u8], &'a str)>,
}

impl<'a> Request<'a> {
    /// A plain `GET`.
    pub fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            accept: None,
            authorization: None,
            from: 0,
            body: None,
        }
    }

    /// With a body.
    pub fn with_body(method: Method, url: Url, body: &'a [u8], media_type: &'a str) -> Self {
        Self {
            method,
            body: Some((body, media_type)),
            ..Self::get(url)
        }
    }
}

/// An answer, whatever its status.
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// Where the answer came from, after redirects.
    pub url: Url,
    body: Body,
}

impl Response {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body, if it is not longer than `limit` bytes.
    pub fn bytes(self, limit: u64) -> Result<Vec<u8>> {
        let url = self.url.clone();
        let too_long =
            || Failure::data(format!("the answer of {url} is longer than {limit} bytes"));
        if self.length().is_some_and(|length| length > limit) {
            bail!(too_long());
        }
        let expected = self.length();
        let mut bytes = Vec::new();
        let reader = self.reader();
        reader
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .with_context(|| broken(&url))?;
        if bytes.len() as u64 > limit {
            bail!(too_long());
        }
        if expected.is_some_and(|length| length != bytes.len() as u64) {
            bail!(broken(&url));
        }
        Ok(bytes)
    }

    /// The body as it comes.
    pub fn reader(self) -> impl Read {
        // The callers count what they take; this limit only replaces the library's own.
        self.body.into_with_config().limit(u64::MAX).reader()
    }

    fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }
}

fn broken(url: &Url) -> Failure {
    Failure::new(Kind::Io, format!("the answer of {url} is not complete"))
}

/// Sends one request with or without a body, over connections that it keeps.
type Sender =
    Box<dyn Fn(http::request::Builder, Option<&[u8]>) -> Result<http::Response<Body>, ureq::Error>>;

/// Sends requests.
pub struct Client {
    sender: Sender,
    /// No proxy stands between a machine and itself.
    direct: Sender,
    plain_http: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

fn sender(config: Config) -> Sender {
    let connections = config.new_agent();
    Box::new(move |builder, body| match body {
        Some(body) => connections.run(builder.body(body)?),
        None => connections.run(builder.body(())?),
    })
}

impl Client {
    /// `plain_http`: the user asked for HTTP without TLS to any host.
    pub fn new(plain_http: bool) -> Self {
        let config = || {
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::PlatformVerifier)
                .build();
            Config::builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .tls_config(tls)
                .user_agent(concat!("host/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(Duration::from_secs(15)))
                .timeout_recv_response(Some(Duration::from_secs(60)))
                .timeout_recv_body(Some(MAX_BODY_TIME))
                .timeout_per_read(Some(Duration::from_secs(30)))
                .timeout_per_write(Some(Duration::from_secs(30)))
        };
        Self {
            sender: sender(config().build()),
            direct: sender(config().proxy(None).build()),
            plain_http,
        }
    }

    /// `https`, or `http` for a registry on this machine or where the user asked for it.
    pub fn scheme(&self, registry: &str) -> &'static str {
        let is_local =
            Url::parse(&format!("http://{registry}/")).is_ok_and(|url| is_loopback(&url));
        if self.plain_http || is_local {
            "http"
        } else {
            "https"
        }
    }

    /// Whether a request may go there at all.
    pub fn admit(&self, url: &Url) -> Result<()> {
        let safe = match url.scheme() {
            "https" => true,
            "http" => self.plain_http || is_loopback(url),
            _ => false,
        };
        if safe && url.has_host() && url.username().is_empty() && url.password().is_none() {
            return Ok(());
        }
        let text = format!("{} is not asked: it is not https", shown(url.as_str()));
        Err(Failure::new(Kind::Policy, text)
            .hint("plain HTTP is used for this machine only, or with --plain-http")
            .into())
    }

    /// The answer to a request, after redirects and retries.
    pub fn send(&self, request: &Request<'_>) -> Result<Response> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.admit(&url)?;
            // Another origin gets the request, but no credentials.
            let own = origin(&url) == origin(&request.url);
            let response = self.send_patiently(request, &url, own)?;
            if !is_redirect(response.status) {
                return Ok(response);
            }
            let location = response.header("location").unwrap_or_default();
            if !matches!(request.method, Method::GET | Method::HEAD) {
                let text = format!(
                    "{url} sends uploads elsewhere ({}), which is not followed",
                    shown(location)
                );
                bail!(Failure::data(text));
            }
            url = url.join(location).map_err(|_| {
                Failure::data(format!(
                    "{url} redirects to `{}`, which is no address",
                    shown(location)
                ))
            })?;
        }
        let text = format!("{} redirects more than {MAX_REDIRECTS} times", request.url);
        Err(Failure::data(text).into())
    }

    fn send_patiently(&self, request: &Request<'_>, url: &Url, own: bool) -> Result<Response> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = attempt == ATTEMPTS;
            let wait = Duration::from_millis(100 << attempt);
            match self.send_once(request, url, own) {
                Ok(response) if is_busy(response.status) && !last => {
                    let asked = response
                        .header("retry-after")
                        .and_then(|text| text.parse().ok());
                    let wait = asked.map_or(wait, Duration::from_secs);
                    if wait > MAX_WAIT {
                        return Ok(response);
                    }
                    tracing::info!("{url} answers {}; asked again", response.status);
                    sleep(wait);
                }
                Ok(response) => return Ok(response),
                Err(error) if is_transient(&error) && !last => {
                    tracing::info!("{url}: {error}; asked again");
                    sleep(wait);
                }
                Err(error) => {
                    let text = format!("{} cannot be reached: {error}", shown(url.as_str()));
                    return Err(Failure::new(Kind::Io, text)
                        .hint("check address and network; what was downloaded is kept and gone on with")
                        .into());
                }
            }
        }
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        url: &Url,
        own: bool,
    ) -> Result<Response, ureq::Error> {
        let mut builder = http::Request::builder()
            .method(request.method.clone())
            .uri(url.as_str());
        if let Some(accept) = request.accept {
            builder = builder.header("accept", accept);
        }
        if let Some(authorization) = request.authorization.as_ref().filter(|_| own) {
            builder = builder.header("authorization", authorization.reveal());
        }
        if request.from > 0 {
            builder = builder.header("range", format!("bytes={}-", request.from));
        }
        if let Some((_, media_type)) = request.body {
            builder = builder.header("content-type", media_type);
        }
        let send = match is_loopback(url) {
            true => &self.direct,
            false => &self.sender,
        };
        let answer = send(builder, request.body.map(|(body, _)| body))?;
        let (parts, body) = answer.into_parts();
        Ok(Response {
            status: parts.status,
            headers: parts.headers,
            url: url.clone(),
            body,
        })
    }
}

/// Scheme, host and port.
pub fn origin(url: &Url) -> (String, Option<String>, Option<u16>) {
    (
        url.scheme().to_owned(),
        url.host_str().map(str::to_owned),
        url.port_or_known_default(),
    )
}

/// Whether a URL means this machine, by an address or by the name that every system keeps for it.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

fn is_transient(error: &ureq::Error) -> bool {
    matches!(
        error,
        ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_or_where_it_is_asked_for() {
        for (url, admitted) in [
            ("https://example.org/v2/", true),
            ("http://127.0.0.1:5000/", true),
            ("http://[::1]:5000/", true),
            ("http://localhost/", true),
            ("http://example.org/", false),
            ("http://localhost.example.org/", false),
            ("http://127.0.0.1.example.org/", false),
            ("https://user@example.org/", false),
            ("file:///etc/passwd", false),
        ] {
            let url = Url::parse(url).expect("a URL");
            assert_eq!(Client::new(false).admit(&url).is_ok(), admitted, "{url}");
        }
        let asked = Client::new(true);
        asked
            .admit(&Url::parse("http://example.org/").expect("a URL"))
            .expect("asked for");
        assert_eq!(asked.scheme("example.org"), "http");
        assert_eq!(Client::new(false).scheme("example.org"), "https");
        assert_eq!(Client::new(false).scheme("localhost:5000"), "http");
    }
}

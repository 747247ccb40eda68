//! HTTP for plugins: `wasi:http` as every language's client speaks it, answered by the host. A request leaves only if
//! `egress` lets it; secrets are added here, where the guest cannot see them; nothing takes longer than the call may take
//! or moves more bytes than the limit `network`.
//!
//! Redirects are not followed: a client in the guest that follows one makes a new request, which is checked anew.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use super::allowed::{Allowed, Reach, Secret};
use super::bindings::trainer::host::secrets;
use super::egress::{Resolve, addresses, check_request, system_resolver};
use super::fault::Violation;
use super::limits::Limit;
use super::origin::Origin;
use super::requests::HOST_HEADERS;
use super::state::{Facts, State};
use super::text::printable;

/// What a connection may take to be made.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Refused requests that are told of, for each store.
const TOLD_REFUSALS: u32 = 10;

type Sent = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

/// HTTP in one store.
pub(super) struct Http {
    context: WasiHttpCtx,
    egress: Egress,
}

/// Decides about requests and sends them.
struct Egress {
    facts: Arc<Facts>,
    resolve: Resolve,
    deadline: Instant,
    budget: Arc<Budget>,
    refused: u32,
}

/// Bytes that one call may still move, in both directions together.
#[derive(Debug)]
struct Budget {
    left: AtomicU64,
    over: AtomicBool,
}

impl Budget {
    fn new(bytes: u64) -> Self {
        Self {
            left: AtomicU64::new(bytes),
            over: AtomicBool::new(false),
        }
    }

    /// Whether so many bytes may be moved.
    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(bytes)
            });
        if taken.is_err() {
            self.over.store(true, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Http {
    pub(super) fn new(facts: &Arc<Facts>) -> Self {
        Self {
            context: WasiHttpCtx::new(),
            egress: Egress {
                facts: facts.clone(),
                resolve: system_resolver,
                deadline: Instant::now(),
                budget: Arc::new(Budget::new(0)),
                refused: 0,
            },
        }
    }

    /// A call begins whose requests end then.
    pub(super) fn begin_call(&mut self, deadline: Instant) {
        let network = self.egress.facts.limits.network;
        self.egress.deadline = deadline;
        self.egress.budget = Arc::new(Budget::new(network));
    }

    /// Whether the call moved more than it may.
    pub(super) fn take_violation(&mut self) -> Option<Violation> {
        let Egress { budget, facts, .. } = &self.egress;
        let over = budget.over.swap(false, Ordering::Relaxed);
        over.then(|| Violation::bytes(Limit::Network, facts.limits.network.saturating_add(1)))
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.http.egress,
            table: &mut self.wasi.table,
            ctx: &mut self.http.context,
        }
    }
}

impl secrets::Host for State {
    fn available(&mut self, name: String) -> wasmtime::Result<bool> {
        let secrets = &self.facts.allowed.secrets;
        Ok(secrets.iter().any(|secret| secret.name == name))
    }
}

impl Egress {
    /// What a request needs to be sent, or why it is not.
    fn admit(&self, request: &Request<WasiBody>) -> Result<Route, String> {
        let origin = Origin::of_url(&request.uri().to_string())?;
        let allowed = &self.facts.allowed;
        let reach = check_request(&allowed.origins, request.method().as_str(), &origin)?;
        Ok(Route {
            reach: reach.clone(),
            resolve: self.resolve,
            deadline: self.deadline.into(),
            budget: self.budget.clone(),
        })
    }

    fn tell(&mut self, reason: &str) {
        self.refused += 1;
        if self.refused <= TOLD_REFUSALS {
            let name = &self.facts.name;
            tracing::warn!(
                "plugin `{name}`: a request was refused: {}",
                printable(reason, 512)
            );
        }
    }
}

impl WasiHttpHooks for Egress {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        is_forbidden(name)
    }

    fn forbidden_header_filter(&mut self) -> wasmtime_wasi_http::ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        match self.admit(&request) {
            Ok(route) => {
                add_secrets(&mut request, &route.reach.origin, &self.facts.allowed);
                Box::new(route.send(request, options.unwrap_or_default()))
            }
            Err(reason) => {
                self.tell(&reason);
                Box::new(async { Err(Error::HttpRequestDenied) })
            }
        }
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        if error.is_user() {
            // Only the body of the request is ours: it was over the limit, or too late.
            ErrorCode::HttpRequestBodySize(None)
        } else if error.is_timeout() {
            ErrorCode::HttpResponseTimeout
        } else if error.is_incomplete_message() {
            ErrorCode::HttpResponseIncomplete
        } else if error.is_closed() || error.is_canceled() {
            ErrorCode::ConnectionTerminated
        } else {
            ErrorCode::HttpProtocolError
        }
    }

    fn p2_error_from_connect(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::ConnectionRefused
    }

    fn p2_error_from_tls(&mut self, _: &std::io::Error) -> ErrorCode {
        ErrorCode::TlsProtocolError
    }
}

fn is_forbidden(name: &HeaderName) -> bool {
    // A length is checked against the body by `wasi:http` itself.
    let is_length = name == http::header::CONTENT_LENGTH;
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || HOST_HEADERS.contains(&name.as_str()) && !is_length
}

/// The guest cannot set the header of a secret for its origin: what it wrote is replaced.
fn add_secrets(request: &mut Request<WasiBody>, origin: &Origin, allowed: &Allowed) {
    for secret in allowed
        .secrets
        .iter()
        .filter(|secret| secret.origin == *origin)
    {
        if let (Ok(name), Some(value)) =
            (HeaderName::try_from(&secret.header), header_value(secret))
        {
            request.headers_mut().insert(name, value);
        }
    }
}

fn header_value(secret: &Secret) -> Option<HeaderValue> {
    let value = secret.value.trim();
    let text = match secret.scheme.as_str() {
        "" => value.to_owned(),
        scheme if scheme.eq_ignore_ascii_case("basic") => {
            format!("Basic {}", base64(value.as_bytes()))
        }
        scheme => format!("{scheme} {value}"),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The way of one admitted request.
struct Route {
    reach: Reach,
    resolve: Resolve,
    deadline: tokio::time::Instant,
    budget: Arc<Budget>,
}

impl Route {
    async fn send(
        self,
        mut request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Sent, Error> {
        let now = tokio::time::Instant::now();
        let by = |time: Duration| {
            now.checked_add(time)
                .map_or(self.deadline, |end| end.min(self.deadline))
        };
        let connect_time = options
            .connect_timeout
            .unwrap_or(CONNECT_TIME)
            .min(CONNECT_TIME);
        let connected = timeout_at(by(connect_time), self.connect()).await;
        let stream = connected.map_err(|_| Error::ConnectionTimeout)??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;

        // On the wire stands only the path; the authority is in the header `Host`.
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let uri: Uri = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
        *request.uri_mut() = uri;
        let answer_time = options.first_byte_timeout.unwrap_or(Duration::MAX);
        let budget = self.budget.clone();
        let deadline = self.deadline;
        let request = request.map(|body| Metered::new(body, budget.clone(), deadline));

        // The connection has to be driven while the response is waited for.
        let connection = wasmtime_wasi::runtime::spawn(connection);
        let answered = timeout_at(by(answer_time), sender.send_request(request));
        let response = answered.await.map_err(|_| Error::ConnectionReadTimeout)??;
        let response = response.map(|body| {
            let body = body.map_err(Error::from);
            Metered::new(body, budget, deadline).boxed_unsync()
        });
        let io = async move {
            // The sender must live as long as the body is read.
            let _sender = sender;
            connection.await.map_err(Error::from)
        };
        Ok((response, Box::new(io)))
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Error> {
        let (reach, resolve) = (self.reach.clone(), self.resolve);
        // The system's resolver blocks.
        let found = tokio::task::spawn_blocking(move || addresses(&reach, resolve)).await;
        let addresses = match found {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(reason)) => {
                tracing::warn!(
                    "a plugin's request to {} was refused: {}",
                    self.reach.origin,
                    printable(&reason, 512)
                );
                return Err(Error::DestinationIpProhibited);
            }
            Err(_) => return Err(Error::InternalError(None)),
        };
        let stream = first(&addresses).await?;
        if !self.reach.origin.secure {
            return Ok(Box::new(stream));
        }
        let config = TLS.as_ref().map_err(|_| Error::ConfigurationError)?;
        let name = ServerName::try_from(self.reach.origin.host.clone())
            .map_err(|_| Error::HttpRequestUriInvalid)?;
        let stream = TlsConnector::from(config.clone())
            .connect(name, stream)
            .await;
        Ok(Box::new(stream.map_err(Error::Tls)?))
    }
}

/// Connects to the first address that answers.
async fn first(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Error::Connect(error),
        }
    }
    Err(last)
}

/// Certificates are judged as the system judges them.
static TLS: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> = LazyLock::new(|| {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(Arc::new(config))
});

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A body whose bytes are counted, and that ends with the call.
struct Metered<B> {
    body: B,
    budget: Arc<Budget>,
    deadline: Pin<Box<Sleep>>,
}

impl<B> Metered<B> {
    fn new(body: B, budget: Arc<Budget>, deadline: tokio::time::Instant) -> Self {
        Self {
            body,
            budget,
            deadline: Box::pin(sleep_until(deadline)),
        }
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Metered<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.deadline.as_mut().poll(context));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
        };
        let size = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        if self.budget.take(size as u64) {
            Poll::Ready(frame)
        } else {
            Poll::Ready(Some(Err(Error::HttpResponseBodySize(None))))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_goes_only_to_its_origin_and_replaces_what_the_guest_wrote() {
        let secret = |name: &str, origin: &str, header: &str, scheme: &str| Secret {
            name: name.to_owned(),
            origin: origin.parse().expect("an origin"),
            header: header.to_owned(),
            scheme: scheme.to_owned(),
            value: "s3cret".to_owned(),
        };
        let allowed = Allowed {
            secrets: vec![
                secret("A", "https://a.example", "authorization", "Bearer"),
                secret("B", "https://a.example", "x-api-key", ""),
                secret("C", "https://b.example", "authorization", "basic"),
            ],
            ..Allowed::default()
        };
        let sent = |url: &str| {
            let body = http_body_util::Empty::new()
                .map_err(Error::from)
                .boxed_unsync();
            let mut request = Request::builder()
                .uri(url)
                .header("authorization", "of the guest")
                .body(body)
                .expect("a request");
            let origin = Origin::of_url(url).expect("an origin");
            add_secrets(&mut request, &origin, &allowed);
            let text = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .map(|value| format!("{:?}", value.as_bytes()))
            };
            (text("authorization"), text("x-api-key"))
        };
        let shown = |text: &str| Some(format!("{:?}", text.as_bytes()));
        assert_eq!(
            sent("https://a.example/x"),
            (shown("Bearer s3cret"), shown("s3cret"))
        );
        assert_eq!(sent("https://b.example/x"), (shown("Basic czNjcmV0"), None));
        assert_eq!(
            sent("https://a.example:8443/x"),
            (shown("of the guest"), None)
        );
        assert_eq!(format!("{allowed:?}").matches("s3cret").count(), 0);
    }

    #[test]
    fn a_budget_is_for_both_directions_and_remembers_that_it_was_too_small() {
        let budget = Budget::new(10);
        assert!(budget.take(6) && budget.take(4));
        assert!(!budget.over.load(Ordering::Relaxed));
        assert!(!budget.take(1) && budget.over.load(Ordering::Relaxed));
    }
}

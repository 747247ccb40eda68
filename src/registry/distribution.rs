//! One repository of a registry, by the OCI distribution API: manifests, blobs, tags, referrers, with the token service
//! that a registry names.
//!
//! Written on an HTTP client instead of a crate for registries: those follow every redirect and `Location` with the
//! credentials, read manifests of any size, and hide status and `Retry-After`.

use std::cell::RefCell;
use std::io::Read;

use anyhow::{Context, Result, bail};
use http_auth::ChallengeParser;
use serde::Deserialize;
use ureq::http::{Method, StatusCode};
use url::Url;

use super::artifact::{self, Descriptor, EMPTY_CONFIG, INDEX, MANIFEST, MAX_MANIFEST};
use super::credentials::{Credentials, Secret};
use super::http::{Client, Request, Response, is_loopback, origin};
use super::name::{Digest, Reference, is_tag, shown};
use super::store::{MAX_SIGNATURES, Store};
use crate::error::{Failure, Kind};

/// Answers of token services and lists of tags may be so long.
const MAX_ANSWER: u64 = 1 << 20;
/// Pages of tags.
const MAX_PAGES: usize = 64;
/// Attempts to go on with a download that ends early.
const ATTEMPTS: usize = 5;

/// A repository and what opens it.
pub struct Repository<'a> {
    client: &'a Client,
    place: Reference,
    base: Url,
    credentials: Option<Credentials>,
    /// The value of `Authorization` that the registry accepted last.
    authorization: RefCell<Option<Secret>>,
}

impl<'a> Repository<'a> {
    /// The repository of `place`.
    pub fn new(
        client: &'a Client,
        place: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        let scheme = client.scheme(&place.registry);
        // Docker's registry answers under another name than people write.
        let host = match place.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let base = Url::parse(&format!("{scheme}://{host}/v2/"))
            .with_context(|| Failure::usage(format!("`{}` is no registry", shown(host))))?;
        client.admit(&base)?;
        Ok(Self {
            client,
            place: place.clone(),
            base,
            credentials,
            authorization: RefCell::new(None),
        })
    }

    /// The manifest that `wanted` (a tag or digest) names, and its digest. A digest that was asked for is checked.
    pub fn manifest(&self, wanted: &str) -> Result<(Vec<u8>, Digest)> {
        let accept = [MANIFEST, INDEX].join(", ");
        let request = Request {
            accept: Some(&accept),
            ..Request::get(self.url(&["manifests", wanted])?)
        };
        let response = self.ask(request, "pull")?;
        let response = self.succeeded(response, &[StatusCode::OK])?;
        let claimed = response.header("docker-content-digest").map(str::to_owned);
        let bytes = response.bytes(MAX_MANIFEST)?;
        let digest = Digest::of(&bytes);
        let expected = [
            wanted.parse::<Digest>().ok().map(String::from),
            claimed.filter(|claimed| claimed.starts_with("sha256:")),
        ];
        if let Some(other) = expected
            .into_iter()
            .flatten()
            .find(|other| *other != digest.as_str())
        {
            let text = format!(
                "the manifest of {} is not what it should be: {} was asked for, {digest} was received",
                self.place.source(),
                shown(&other)
            );
            return Err(Failure::data(text)
                .hint("the registry or something on the way changed it; nothing was kept")
                .into());
        }
        Ok((bytes, digest))
    }

    /// The content of a blob. What the store lacks is downloaded into it, from where an earlier attempt ended.
    pub fn download(&self, blob: &Descriptor, store: &Store) -> Result<Vec<u8>> {
        if let Ok(bytes) = store.get(&blob.digest) {
            return Ok(bytes);
        }
        let mut download = store.download(&blob.digest)?;
        if download.have() > blob.size {
            download.restart()?;
        }
        for attempt in 1.. {
            if download.have() == blob.size {
                break;
            }
            let request = Request {
                from: download.have(),
                ..Request::get(self.url(&["blobs", blob.digest.as_str()])?)
            };
            let response = self.ask(request, "pull")?;
            let response =
                self.succeeded(response, &[StatusCode::OK, StatusCode::PARTIAL_CONTENT])?;
            if response.status == StatusCode::OK || !continues(&response, download.have()) {
                download.restart()?;
            }
            let ended = match receive(response, &mut download, blob.size) {
                Err(error) if error.is::<Failure>() => return Err(error),
                Err(error) => format!(" ({error:#})"),
                Ok(()) => String::new(),
            };
            if attempt == ATTEMPTS && download.have() < blob.size {
                let text = format!(
                    "{} gave {} of {} bytes of {}{ended}",
                    self.place.registry,
                    download.have(),
                    blob.size,
                    blob.digest
                );
                return Err(Failure::new(Kind::Io, text)
                    .hint("try again: it goes on where it ended")
                    .into());
            }
        }
        download.commit(store)?;
        store.get(&blob.digest)
    }

    /// Uploads a blob, unless it is there.
    pub fn upload(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let probe = Request {
            method: Method::HEAD,
            ..Request::get(self.url(&["blobs", digest.as_str()])?)
        };
        if self.ask(probe, "pull,push")?.status == StatusCode::OK {
            return Ok(digest);
        }
        let begin = Request::with_body(
            Method::POST,
            self.url(&["blobs", "uploads", ""])?,
            b"",
            "application/octet-stream",
        );
        let begun = self.succeeded(self.ask(begin, "pull,push")?, &[StatusCode::ACCEPTED])?;
        let location = begun.header("location").unwrap_or_default().to_owned();
        let mut url = begun.url.join(&location).map_err(|_| {
            Failure::data(format!(
                "the registry names no place for the upload: `{}`",
                shown(&location)
            ))
        })?;
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let put = Request::with_body(Method::PUT, url, bytes, "application/octet-stream");
        self.succeeded(self.ask(put, "pull,push")?, &[StatusCode::CREATED])?;
        Ok(digest)
    }

    /// Gives a manifest a tag.
    pub fn put_manifest(&self, manifest: &[u8], tag: &str) -> Result<Digest> {
        let url = self.url(&["manifests", tag])?;
        let put = Request::with_body(Method::PUT, url, manifest, MANIFEST);
        self.succeeded(self.ask(put, "pull,push")?, &[StatusCode::CREATED])?;
        Ok(Digest::of(manifest))
    }

    /// All tags.
    pub fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let mut url = self.url(&["tags", "list"])?;
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let response = self.succeeded(
                self.ask(Request::get(url.clone()), "pull")?,
                &[StatusCode::OK],
            )?;
            let next = response
                .header("link")
                .and_then(next_page)
                .map(str::to_owned);
            let bytes = response.bytes(MAX_ANSWER)?;
            let page: Tags = serde_json::from_slice(&bytes).map_err(|_| {
                Failure::data(format!("{url} answers with something else than tags"))
            })?;
            all.extend(
                page.tags
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|tag| is_tag(tag)),
            );
            match next.and_then(|next| url.join(&next).ok()) {
                Some(next) if origin(&next) == origin(&self.base) => url = next,
                _ => break,
            }
        }
        Ok(all)
    }

    /// The signatures of a manifest: from the tag where every registry can keep them, and from its list of referrers.
    pub fn signatures(&self, manifest: &Digest) -> Result<Vec<String>> {
        let mut found = self.signatures_of(&artifact::signature_tag(manifest))?;
        let request = Request {
            accept: Some(INDEX),
            ..Request::get(self.url(&["referrers", manifest.as_str()])?)
        };
        let response = self.ask(request, "pull")?;
        // Not every registry has such a list.
        if response.status == StatusCode::OK {
            for digest in artifact::signature_manifests(&response.bytes(MAX_MANIFEST)?) {
                found.extend(self.signatures_of(digest.as_str())?);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn signatures_of(&self, wanted: &str) -> Result<Vec<String>> {
        let request = Request {
            accept: Some(MANIFEST),
            ..Request::get(self.url(&["manifests", wanted])?)
        };
        let response = self.ask(request, "pull")?;
        if response.status == StatusCode::NOT_FOUND {
            return Ok(Vec::new());
        }
        let response = self.succeeded(response, &[StatusCode::OK])?;
        let manifest = response.bytes(MAX_MANIFEST)?;
        let mut found = Vec::new();
        for layer in artifact::signature_layers(&manifest) {
            let request = Request::get(self.url(&["blobs", layer.digest.as_str()])?);
            let response = self.succeeded(self.ask(request, "pull")?, &[StatusCode::OK])?;
            let bytes = response.bytes(MAX_SIGNATURES)?;
            // A damaged signature proves nothing; a good one beside it may.
            if Digest::of(&bytes) == layer.digest {
                found.extend(String::from_utf8(bytes).ok());
            }
        }
        Ok(found)
    }

    /// Adds a signature of a manifest of `size` bytes to those that are there.
    pub fn sign(&self, manifest: &Digest, size: u64, signature: &str) -> Result<()> {
        let tag = artifact::signature_tag(manifest);
        let mut all = self.signatures_of(&tag)?;
        if !all.iter().any(|present| present == signature) {
            all.push(signature.to_owned());
        }
        for text in &all {
            self.upload(text.as_bytes())?;
        }
        self.upload(EMPTY_CONFIG)?;
        self.put_manifest(&artifact::signatures(manifest, size, &all)?, &tag)?;
        Ok(())
    }

    /// An error unless the registry takes the credentials.
    pub fn check_credentials(&self) -> Result<()> {
        let response = self.ask(Request::get(self.base.clone()), "")?;
        self.succeeded(response, &[StatusCode::OK]).map(|_| ())
    }

    fn url(&self, parts: &[&str]) -> Result<Url> {
        let mut url = self.base.clone();
        let mut path = url
            .path_segments_mut()
            .map_err(|()| Failure::usage("this is no registry"))?;
        path.pop_if_empty()
            .extend(self.place.repository.split('/'))
            .extend(parts);
        drop(path);
        Ok(url)
    }

    /// Sends a request, and again with credentials if the registry wants some.
    fn ask(&self, mut request: Request<'_>, actions: &str) -> Result<Response> {
        // The place of an upload may be another server.
        let own = origin(&request.url) == origin(&self.base);
        request.authorization = self.authorization.borrow().clone().filter(|_| own);
        let response = self.client.send(&request)?;
        if response.status != StatusCode::UNAUTHORIZED
            || !own
            || origin(&response.url) != origin(&self.base)
        {
            return Ok(response);
        }
        let Some(authorization) = self.authorize(&response, actions)? else {
            return Ok(response);
        };
        request.authorization = Some(authorization.clone());
        let response = self.client.send(&request)?;
        if response.status != StatusCode::UNAUTHORIZED {
            *self.authorization.borrow_mut() = Some(authorization);
        }
        Ok(response)
    }

    /// What to show the registry after it refused a request; `None` if there is nothing.
    fn authorize(&self, refusal: &Response, actions: &str) -> Result<Option<Secret>> {
        let challenges = refusal.headers.get_all("www-authenticate").iter();
        let challenges = challenges.filter_map(|value| value.to_str().ok());
        for text in challenges {
            for challenge in ChallengeParser::new(text).filter_map(Result::ok) {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    let basic = self.credentials.as_ref().and_then(Credentials::basic);
                    if basic.is_some() {
                        return Ok(basic);
                    }
                }
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let parameter = |name: &str| {
                        let mut all = challenge.params.iter();
                        let found = all.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                        Some(found.1.to_unescaped())
                    };
                    let realm = parameter("realm").unwrap_or_default();
                    let scope = match actions {
                        "" => None,
                        actions => Some(format!("repository:{}:{actions}", self.place.repository)),
                    };
                    return self.token(&realm, parameter("service"), scope).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// Asks the service that the registry names for a token. It gets the credentials, because the registry would get
    /// them too; but never without TLS, unless it is this machine.
    fn token(&self, realm: &str, service: Option<String>, scope: Option<String>) -> Result<Secret> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let wrong = || {
            let text = format!("the registry names no token service: `{}`", shown(realm));
            Failure::data(text)
        };
        let mut url = Url::parse(realm).map_err(|_| wrong())?;
        self.client.admit(&url)?;
        if is_loopback(&url) && !is_loopback(&self.base) {
            let text = format!(
                "{} names a token service on this machine",
                self.place.registry
            );
            bail!(Failure::new(Kind::Policy, text));
        }
        let query: Vec<(&str, String)> = [("service", service), ("scope", scope)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(&query);
        let form = match &self.credentials {
            Some(Credentials::Refresh(token)) => form
                .extend_pairs([("grant_type", "refresh_token"), ("client_id", "host")])
                .append_pair("refresh_token", token.reveal())
                .finish(),
            _ => form.finish(),
        };
        let request = match &self.credentials {
            Some(Credentials::Refresh(_)) => {
                let media_type = "application/x-www-form-urlencoded";
                Request::with_body(Method::POST, url, form.as_bytes(), media_type)
            }
            credentials => {
                url.set_query(Some(&form));
                Request {
                    authorization: credentials.as_ref().and_then(Credentials::basic),
                    ..Request::get(url)
                }
            }
        };
        let response = self.succeeded(self.client.send(&request)?, &[StatusCode::OK])?;
        let bytes = response.bytes(MAX_ANSWER)?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let token = token.token.or(token.access_token).ok_or_else(wrong)?;
        let plain = token.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        if !plain {
            bail!(wrong());
        }
        Ok(Secret::new(format!("Bearer {token}")))
    }

    /// The response, if its status is one of these; else an error that says what to do.
    fn succeeded(&self, response: Response, wanted: &[StatusCode]) -> Result<Response> {
        if wanted.contains(&response.status) {
            return Ok(response);
        }
        let (status, url) = (response.status, response.url.clone());
        let told = response.bytes(MAX_ANSWER).unwrap_or_default();
        let reason = reason(&told);
        let registry = &self.place.registry;
        let place = self.place.source();
        let failure = match status.as_u16() {
            401 => Failure::new(Kind::Policy, format!("{registry} wants other credentials{reason}"))
                .hint(format!("give them with `host plugin login {registry}`")),
            403 => Failure::new(Kind::Policy, format!("{registry} does not allow this for {place}{reason}"))
                .hint(format!("log in as somebody who may: `host plugin login {registry}`")),
            404 => Failure::data(format!("{place}: not found{reason}")).hint(format!(
                "check name and tag; some registries hide what needs a login (`host plugin login {registry}`)"
            )),
            429 => Failure::new(Kind::Io, format!("{registry} takes no more requests for now{reason}"))
                .hint("try again later, or log in"),
            code if code >= 500 => Failure::new(Kind::Io, format!("{registry} failed ({status}){reason}"))
                .hint("try again later; what was downloaded is kept and gone on with"),
            _ => Failure::data(format!("{} answers {status}{reason}", shown(url.as_str()))),
        };
        Err(failure.into())
    }
}

/// Whether an answer with a part begins where the download ended.
fn continues(response: &Response, have: u64) -> bool {
    let range = response
        .header("content-range")
        .and_then(|text| text.strip_prefix("bytes "));
    let first = range.and_then(|range| range.split_once('-'));
    first.is_some_and(|(first, _)| first.parse() == Ok(have))
}

/// Takes what comes, and no more than there should be.
fn receive(response: Response, download: &mut super::store::Download, size: u64) -> Result<()> {
    let url = response.url.clone();
    let mut reader = response.reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = reader
            .read(&mut buffer)
            .with_context(|| format!("the answer of {url} ends early"))?;
        if length == 0 {
            return Ok(());
        }
        if download.have() + length as u64 > size {
            download.restart()?;
            let text = format!("{url} sends more than the {size} bytes that the manifest names");
            bail!(Failure::data(text));
        }
        download.add(&buffer[..length])?;
    }
}

/// The first message of an error document.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Document {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        code: String,
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Document>(body) {
        Ok(Document { errors }) => errors.first().map_or_else(String::new, |error| {
            format!(" ({}: {})", shown(&error.code), shown(&error.message))
        }),
        Err(_) => String::new(),
    }
}

/// `</v2/...>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (address, rest) = link.strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then_some(address)
}

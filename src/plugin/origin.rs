//! Origins of HTTP: scheme, host and port, in the one form in which they are compared.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::{Host, Url};

/// Where a request goes. Its text has the port only if it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// `https` instead of `http`.
    pub secure: bool,
    /// A name in lower case (Punycode), or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The origin of a URL, whatever its path.
    pub fn of_url(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        let secure = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(format!("the scheme is `{other}`; it must be http or https")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user name or a password".to_owned());
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.trim_end_matches('.').to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        };
        if host.is_empty() || host.contains('*') {
            return Err("it names no single host".to_owned());
        }
        let port = url.port_or_known_default().unwrap_or_default();
        Ok(Self { secure, host, port })
    }

    /// The address, if the host is written as one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Host and port as they stand in a URL and in the header `Host`.
    pub fn authority(&self) -> String {
        let host = match self.address() {
            Some(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        let own = if self.secure { 443 } else { 80 };
        if self.port == own {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    /// Refuses paths, so that nobody believes that a path restricts anything.
    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| error.to_string())?;
        if url.path().len() > 1 || url.query().is_some() || url.fragment().is_some() {
            return Err("it has a path; only scheme, host and port can be granted".to_owned());
        }
        Self::of_url(text)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_origin_is_one() {
        for (text, canonical) in [
            ("https://Example.ORG", "https://example.org"),
            ("https://example.org.:443/", "https://example.org"),
            ("http://example.org:443", "http://example.org:443"),
            ("http://2130706433", "http://127.0.0.1"),
            ("http://0x7f.1", "http://127.0.0.1"),
            (
                "http://[::FFFF:127.0.0.1]:81",
                "http://[::ffff:127.0.0.1]:81",
            ),
            (
                "https://b\u{fc}cher.example",
                "https://xn--bcher-kva.example",
            ),
        ] {
            assert_eq!(text.parse::<Origin>().expect(text).to_string(), canonical);
        }
        for text in [
            "example.org",
            "file:///etc/passwd",
            "https://",
            "https://a.org/path",
            "https://a.org?x",
            "https://u:p@a.org",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}

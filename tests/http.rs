//! What the HTTP servers of the tests share: a port on loopback, and requests of HTTP/1.1 as they come. What is answered, and
//! which faults there are, is each server's own.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The next request of a connection; none if it ends before one is complete.
    pub fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let first = line(reader)?;
        let mut words = first.split_whitespace().map(str::to_owned);
        let mut request = Self {
            method: words.next()?,
            path: words.next()?,
            headers: Vec::new(),
            body: Vec::new(),
        };
        while let Some((name, value)) = line(reader)?.split_once(':') {
            let header = (name.to_ascii_lowercase(), value.trim().to_owned());
            request.headers.push(header);
        }
        if request.header("transfer-encoding") == Some("chunked") {
            while read_chunk(reader, &mut request.body)? > 0 {}
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().expect("a length");
            request.body.resize(length, 0);
            reader.read_exact(&mut request.body).ok()?;
        }
        Some(request)
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known == name)?;
        Some(&header.1)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).ok()?;
    (read > 0).then_some(line)
}

/// Its size; the last one has none.
fn read_chunk(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> Option<usize> {
    let size = usize::from_str_radix(line(reader)?.trim(), 16).ok()?;
    let start = body.len();
    body.resize(start + size, 0);
    reader.read_exact(&mut body[start..]).ok()?;
    line(reader)?;
    Some(size)
}

/// Serves each connection to a new port on its own thread, until the process ends. `serve` is told the port's address.
pub fn listen(serve: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream, address));
        }
    });
    address
}

/// An address that nobody listens on.
pub fn unused_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

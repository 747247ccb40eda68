//! A server of HTTP on loopback that answers as a test says and remembers what it was asked.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::http::{Request, listen};

/// Runs until the test ends.
pub struct Server {
    pub url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// What is answered are raw bytes, so that a test can answer anything.
    pub fn start(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let address = listen(move |stream, _| serve(&stream, &answer, &seen));
        Self {
            url: format!("http://{address}"),
            asked,
        }
    }

    /// Requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().expect("not poisoned").clone()
    }
}

/// A whole answer with a body.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend(body);
    bytes
}

fn serve(mut stream: &TcpStream, answer: &dyn Fn(&Request) -> Vec<u8>, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    while let Some(asked) = Request::read(&mut reader) {
        seen.lock().expect("not poisoned").push(asked.clone());
        if stream.write_all(&answer(&asked)).is_err() {
            return;
        }
    }
}

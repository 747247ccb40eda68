//! HTTP/1.1 on loopback, one request a connection, and the ways in which a server can fail.

use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::http::{Request, listen};

/// What a client gets.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::new(200, value.to_string()).with("content-type", "application/json")
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// How a request is not answered.
#[derive(Clone, Debug)]
pub enum Fault {
    /// With this instead.
    Answer(Answer),
    /// The connection breaks off before an answer.
    Reset,
    /// The connection breaks off after so many bytes of the body.
    Cut(usize),
    /// One byte of the body is another one; its length stays.
    Damage,
    /// Later.
    Delay(Duration),
}

/// A fault, and which requests it befalls.
#[derive(Clone, Debug)]
struct Planned {
    method: &'static str,
    part: String,
    times: usize,
    fault: Fault,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Vec<Request>>,
    faults: Mutex<Vec<Planned>>,
}

/// A server that goes away with the process.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Answers with `handle`.
    pub fn start(handle: impl Fn(&Request, SocketAddr) -> Answer + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let address = listen(move |stream, address| {
            // A client that goes away is not the server's concern.
            let _ = serve(stream, &own, &|request| handle(request, address));
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` requests with this method and this part in their path meet a fault.
    pub fn plan(&self, times: usize, (method, part): (&'static str, &str), fault: Fault) {
        self.shared
            .faults
            .lock()
            .expect("unpoisoned")
            .push(Planned {
                method,
                part: part.to_owned(),
                times,
                fault,
            });
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.shared.seen.lock().expect("unpoisoned").clone()
    }

    /// How many requests had this method and this part in their path.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let seen = self.seen();
        let is_counted =
            |request: &&Request| request.method == method && request.path.contains(part);
        seen.iter().filter(is_counted).count()
    }
}

fn serve(
    mut stream: TcpStream,
    shared: &Shared,
    handle: &dyn Fn(&Request) -> Answer,
) -> std::io::Result<()> {
    let Some(request) = Request::read(&mut BufReader::new(stream.try_clone()?)) else {
        return Ok(());
    };
    shared
        .seen
        .lock()
        .expect("unpoisoned")
        .push(request.clone());
    let fault = {
        let mut faults = shared.faults.lock().expect("unpoisoned");
        let befallen = faults.iter_mut().find(|planned| {
            planned.times > 0
                && planned.method == request.method
                && request.path.contains(&planned.part)
        });
        befallen.map(|planned| {
            planned.times -= 1;
            planned.fault.clone()
        })
    };
    let mut answer = match &fault {
        Some(Fault::Reset) => return stream.shutdown(Shutdown::Both),
        Some(Fault::Answer(answer)) => answer.clone(),
        Some(Fault::Delay(time)) => {
            thread::sleep(*time);
            handle(&request)
        }
        _ => handle(&request),
    };
    let length = answer.body.len();
    let sent = match fault {
        Some(Fault::Cut(sent)) => sent.min(length),
        _ => length,
    };
    if let (Some(Fault::Damage), Some(byte)) = (&fault, answer.body.get_mut(length / 2)) {
        *byte ^= 0x55;
    }
    let mut head = format!("HTTP/1.1 {} Answer\r\nconnection: close\r\n", answer.status);
    let has_length = answer
        .headers
        .iter()
        .any(|(name, _)| name == "content-length");
    if !has_length && answer.status != 304 {
        head.push_str(&format!("content-length: {length}\r\n"));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&answer.body[..sent])?;
    }
    stream.flush()?;
    stream.shutdown(Shutdown::Both)
}

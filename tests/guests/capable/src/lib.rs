//! Tries what needs a capability and says what came of it, as the text of an error.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use serde::Deserialize;
use trainer_sdk::http::{Request, Response, has_secret};
use trainer_sdk::{Batch, Error, ErrorKind, Plugin, Result, Run, Setup, WholeMetrics};

#[derive(Deserialize)]
struct Config {
    /// Each a word and what it applies to, split at blanks.
    attempts: Vec<String>,
    /// Filled from the environment.
    word: Option<String>,
}

struct Capable(Config);

impl Plugin for Capable {
    type Config = Config;

    fn init(config: Config, _: &Run<'_>, _: &Setup<'_>) -> Result<Self> {
        Ok(Self(config))
    }
}

impl WholeMetrics for Capable {
    fn compute_metrics(&mut self, _: &Batch<'_>) -> Result<Vec<(String, f64)>> {
        let attempts = self.0.attempts.iter().map(|attempt| tell(attempt));
        let word = self.0.word.iter().map(|word| format!("word: {word}"));
        let told: Vec<String> = attempts.chain(word).collect();
        // Of this kind the host says which limit it was.
        let over = told.iter().any(|told| told.contains("ErrorKind::Limit"));
        Err(Error {
            kind: if over {
                ErrorKind::Limit
            } else {
                ErrorKind::Data
            },
            message: told.join("; "),
        })
    }
}

fn tell(attempt: &str) -> String {
    let words: Vec<&str> = attempt.split(' ').collect();
    let outcome = match words[..] {
        ["read", path] => fs::read_to_string(path).map_err(|error| error.to_string()),
        ["write", path, text] => done(fs::write(path, text)),
        ["append", path, text] => done(append(path, text)),
        ["link", from, to] => done(fs::hard_link(from, to)),
        ["rename", from, to] => done(fs::rename(from, to)),
        ["truncate", path] => done(
            fs::OpenOptions::new()
                .write(true)
                .truncate(true)
                .open(path)
                .map(drop),
        ),
        ["list", path] => list(path).map_err(|error| error.to_string()),
        ["env"] => Ok(env::vars()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(",")),
        ["year"] => Ok((1970 + seconds() / 31_556_952).to_string()),
        ["sleep", millis] => Ok(sleep(millis.parse().unwrap_or(0))),
        ["secret", name] => Ok(has_secret(name).to_string()),
        [method @ ("GET" | "POST"), url] => request(method, url, &[], b""),
        ["POST", url, body] => request("POST", url, &[], body.as_bytes()),
        ["flood", url, mebibytes] => request(
            "POST",
            url,
            &[],
            &vec![b'x'; mebibytes.parse::<usize>().unwrap_or(0) << 20],
        ),
        ["header", url, name, value] => {
            request("GET", url, &[(name, &value.replace("CRLF", "\r\n"))], b"")
        }
        ["follow", url] => follow(url),
        _ => Err("not known".to_owned()),
    };
    match outcome {
        Ok(text) => format!("{}: ok {text}", words[0]),
        Err(text) => format!("{}: failed {text}", words[0]),
    }
}

fn done(result: std::io::Result<()>) -> std::result::Result<String, String> {
    result
        .map(|()| "done".to_owned())
        .map_err(|error| error.to_string())
}

fn append(path: &str, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn list(path: &str) -> std::io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(","))
}

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

fn sleep(millis: u64) -> String {
    let begin = Instant::now();
    std::thread::sleep(Duration::from_millis(millis));
    format!("{}", begin.elapsed() >= Duration::from_millis(millis))
}

fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
    let request = Request {
        method,
        url,
        headers,
        body,
        timeout: Duration::from_secs(2),
    };
    request.send()
}

fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::result::Result<String, String> {
    let response = send(method, url, headers, body)
        .map_err(|error| format!("{:?} {}", error.kind, error.message))?;
    Ok(format!(
        "{} {}",
        response.status,
        String::from_utf8_lossy(&response.body)
    ))
}

/// What a client that follows redirects does.
fn follow(url: &str) -> std::result::Result<String, String> {
    let response = send("GET", url, &[], b"").map_err(|error| error.message)?;
    match response.header("location") {
        Some(location) => request("GET", location, &[], b""),
        None => Err("no redirect".to_owned()),
    }
}

trainer_sdk::manifest!("../manifest.json");
trainer_sdk::export!(Capable: whole_metrics);

//! Against a real registry server (Debian's `docker-registry`), where the machine has one.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::User;
use crate::http::unused_address;
use crate::support::{Requirement, requires, wait_for};

/// The server, ended with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let address = unused_address().to_string();
        let files = folder.join("registry");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n",
            files.display()
        );
        let path = folder.join("registry.yml");
        fs::write(&path, config).expect("written");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let server = Self { child, address };
        wait_for("the registry", Duration::from_secs(20), || {
            TcpStream::connect(&server.address).is_ok()
        });
        server
    }

    /// A manifest as the server gives it to any client.
    fn manifest(&self, repository: &str, tag: &str) -> Value {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        let request = format!(
            "GET /v2/{repository}/manifests/{tag} HTTP/1.0\r\nHost: {}\r\n\
             Accept: application/vnd.oci.image.manifest.v1+json\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("received");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_plugin_goes_through_a_real_registry() {
    if !requires(Requirement::DockerRegistry) {
        return;
    }
    let user = User::new();
    let server = Server::start(user.host.folder());
    let place = format!("oci://{}/team/acme/stop", server.address);
    user.trust_key(&user.key("key"));
    user.plugin("1.0.0", json!({}));
    let pushed = user.json(&format!("plugin push stop.wasm {place} --sign key"));
    let manifest = server.manifest("team/acme/stop", "1.0.0");
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["digest"], pushed["wasm"]);
    user.succeeds(&format!("plugin add {place}:1.0.0"));
    assert_eq!(user.locked()["manifest"], pushed["manifest"]);
    user.plugin("1.1.0", json!({}));
    user.succeeds(&format!("plugin push stop.wasm {place} --sign key"));
    user.succeeds("plugin update");
    assert_eq!(user.locked()["version"], "1.1.0");
    user.empty_store();
    user.succeeds("plugin lock");
    user.succeeds(&format!("plugin pull {place}:1.0.0 -o pulled.wasm"));
    let pulled = fs::read(user.host.path("pulled.wasm")).expect("the component");
    assert_eq!(super::server::digest(&pulled), pushed["wasm"]);
}

//! A server on loopback that speaks the hub's protocol and answers with faults on request.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The commit of the branch `main`.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const NAME: &str = "owner/model";

/// A fault in a server's answer.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Status(u16),
    /// The last byte of a file is wrong.
    Corrupt,
    /// The connection ends in the middle of a file.
    Break,
}

/// ETag and content by name.
type Files = BTreeMap<String, (String, Vec<u8>)>;

/// The server; it ends with the process.
#[derive(Clone, Default)]
pub(crate) struct FakeHub {
    pub(crate) address: String,
    files: Arc<Mutex<Files>>,
    /// The faults of the next answers; each waits for the next answer that it fits.
    faults: Arc<Mutex<VecDeque<Fault>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeHub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub =
            FakeHub { address: format!("http://{}", listener.local_addr().unwrap()), ..Default::default() };
        let server = hub.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| server.serve(stream)));
        hub
    }

    pub(crate) fn file(self, name: &str, etag: &str, content: &[u8]) -> Self {
        self.files.lock().unwrap().insert(name.to_owned(), (etag.to_owned(), content.to_vec()));
        self
    }

    pub(crate) fn faults(self, faults: &[Fault]) -> Self {
        self.faults.lock().unwrap().extend(faults);
        self
    }

    /// Method, path and headers of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let request = lines.collect::<Vec<_>>().join("\n");
        self.requests.lock().unwrap().push(request.clone());
        let path = request.split(' ').nth(1).unwrap_or_default();
        let mut lines = request.lines().map(str::to_lowercase);
        let range = lines.find_map(|line| line.strip_prefix("range: bytes=").map(str::to_owned));
        let range = range.unwrap_or_default();
        let is_content = path.contains("/resolve/") && range != "0-0";
        let mut faults = self.faults.lock().unwrap();
        let fault = match faults.front() {
            Some(Fault::Status(_)) => faults.pop_front(),
            Some(_) if is_content => faults.pop_front(),
            _ => None,
        };
        let (status, headers, mut body) = self.answer(path, &range);
        let (mut status, length) = (status, body.len());
        match fault {
            Some(Fault::Status(given)) => (status, body) = (given, vec![0; length]),
            Some(Fault::Corrupt) => body[length - 1] ^= 1,
            Some(Fault::Break) => body.truncate(length / 2),
            None => {}
        }
        let head =
            format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
        // A client that disconnected is not a failure of the server.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }

    /// Status, headers and body.
    fn answer(&self, path: &str, range: &str) -> (u16, String, Vec<u8>) {
        let files = self.files.lock().unwrap();
        if ["main", COMMIT].iter().any(|at| path == format!("/api/models/{NAME}/revision/{at}")) {
            let names: Vec<String> =
                files.keys().map(|name| format!(r#"{{"rfilename":"{name}"}}"#)).collect();
            let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, names.join(","));
            return (200, String::new(), body.into_bytes());
        }
        let name = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/")).unwrap_or_default();
        let Some((etag, content)) = files.get(name) else { return (404, String::new(), Vec::new()) };
        let (from, to) = range.split_once('-').unwrap_or(("0", ""));
        let from: usize = from.parse().unwrap();
        let to = to.parse().map_or(content.len(), |last: usize| last + 1);
        let range = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, content.len());
        (206, format!("{range}ETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n"), content[from..to].to_vec())
    }
}

//! A server on loopback that speaks the hub's download protocol, with faults at will.

use sha1::{Digest as _, Sha1};
use stage::files::{digest_of, hex};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The commit that `main` is at.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const NAME: &str = "owner/model";

/// Which requests a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A revision's commit.
    Revision,
    /// A file's description (HEAD).
    Description,
    /// A file's bytes, here or where a redirect leads.
    Content,
}

/// What happens instead of the right answer, once.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection ends after so many bytes.
    Drop(usize),
    /// Nothing comes after so many bytes, and the connection stays.
    Stall(usize),
    /// The rest comes a while after so many bytes.
    Pause(usize),
    /// All comes, whatever range was asked for.
    IgnoreRange,
    /// One byte is another.
    Corrupt,
    /// More comes than was promised.
    Excess,
    /// This status with these headers.
    Status(u16, Vec<(&'static str, String)>),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

struct Stored {
    content: Vec<u8>,
    large: bool,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Stored>,
    faults: VecDeque<(Of, Fault)>,
    requests: Vec<Request>,
    /// The address that large files are redirected to.
    elsewhere: Option<String>,
    /// The token without which nothing is given.
    token: Option<String>,
}

/// The server; it ends with the process.
#[derive(Clone)]
pub(crate) struct Hub {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Hub {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let hub = Hub { address, state: Arc::default() };
        let server = hub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        hub
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A file that git keeps itself: its ETag is git's object id.
    pub(crate) fn small(self, name: &str, content: &[u8]) -> Self {
        self.store(name, content, false)
    }

    /// A file in large storage: its ETag is a SHA-256, and it comes by a redirect where there is an elsewhere.
    pub(crate) fn large(self, name: &str, content: &[u8]) -> Self {
        self.store(name, content, true)
    }

    fn store(self, name: &str, content: &[u8], large: bool) -> Self {
        let content = content.to_vec();
        self.state.lock().unwrap().files.insert(name.to_owned(), Stored { content, large });
        self
    }

    /// Large files are redirected to that server, which has the same files.
    pub(crate) fn elsewhere(self, other: &Hub) -> Self {
        self.state.lock().unwrap().elsewhere = Some(other.address.clone());
        self
    }

    pub(crate) fn gated(self, token: &str) -> Self {
        self.state.lock().unwrap().token = Some(token.to_owned());
        self
    }

    /// The next request of this kind goes wrong.
    pub(crate) fn fault(self, of: Of, fault: Fault) -> Self {
        self.state.lock().unwrap().faults.push_back((of, fault));
        self
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The ranges that content was asked for in.
    pub(crate) fn ranges(&self) -> Vec<Option<String>> {
        let content = |request: &Request| of(request) == Of::Content;
        let requests = self.requests().into_iter().filter(content);
        requests.map(|request| request.header("range").map(str::to_owned)).collect()
    }

    fn serve(&self, stream: TcpStream) {
        let Some(request) = read(&stream) else { return };
        let fault = self.state.lock().unwrap().take(&request);
        let answer = match &fault {
            Some(Fault::Status(status, headers)) => Answer::new(*status, headers.clone()),
            _ => self.state.lock().unwrap().answer(&request, matches!(fault, Some(Fault::IgnoreRange))),
        };
        answer.send(stream, request.method == "HEAD", fault);
    }
}

impl State {
    /// Notes the request; the fault that is for it.
    fn take(&mut self, request: &Request) -> Option<Fault> {
        self.requests.push(request.clone());
        let position = self.faults.iter().position(|(kind, _)| *kind == of(request))?;
        self.faults.remove(position).map(|(_, fault)| fault)
    }

    fn answer(&self, request: &Request, whole: bool) -> Answer {
        let path = request.path.split('?').next().unwrap_or_default();
        if let Some(name) = path.strip_prefix("/storage/") {
            return self
                .files
                .get(name)
                .map_or_else(|| Answer::new(404, vec![]), |file| file.content(request, whole));
        }
        let path = path.replacen("/old/name", "/owner/model", 1);
        if path != request.path.split('?').next().unwrap_or_default() {
            return Answer::new(307, vec![("Location", path)]);
        }
        if let Some(token) = &self.token {
            match request.header("authorization") {
                None => return refusal(401, "GatedRepo", "Access to model owner/model is restricted."),
                Some(sent) if sent != format!("Bearer {token}") => {
                    return refusal(401, "", &format!("Invalid credentials in {sent}"));
                }
                Some(_) => {}
            }
        }
        if let Some(revision) = path.strip_prefix(&format!("/api/models/{NAME}/revision/")) {
            return match revision {
                "main" | COMMIT => {
                    Answer::json(&format!(r#"{{"_id": "1", "id": "{NAME}", "sha": "{COMMIT}"}}"#))
                }
                _ => refusal(404, "RevisionNotFound", "Invalid rev id"),
            };
        }
        let Some(name) = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/")) else {
            return refusal(404, "RepoNotFound", "Repository not found");
        };
        match (self.files.get(name), &self.elsewhere) {
            (None, _) => refusal(404, "EntryNotFound", "Entry not found"),
            (Some(file), Some(elsewhere)) if file.large => {
                let location = format!("{elsewhere}/storage/{name}?X-Amz-Signature=signed");
                Answer::new(302, [file.headers(), vec![("Location", location)]].concat())
            }
            (Some(file), _) => file.content(request, whole).with(file.headers()),
        }
    }
}

impl Stored {
    fn headers(&self) -> Vec<(&'static str, String)> {
        let content = &self.content;
        let oid =
            hex(&Sha1::new_with_prefix(format!("blob {}\0", content.len())).chain_update(content).finalize());
        let mut headers = vec![("X-Repo-Commit", COMMIT.to_owned())];
        headers.extend(match self.large {
            false => vec![("ETag", format!("\"{oid}\""))],
            true => vec![
                ("ETag", "\"of-the-pointer\"".to_owned()),
                ("X-Linked-Etag", format!("\"{}\"", digest_of(content))),
                ("X-Linked-Size", content.len().to_string()),
            ],
        });
        headers
    }

    fn content(&self, request: &Request, whole: bool) -> Answer {
        let from = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match from {
            Some(from) if !whole => {
                let length = self.content.len();
                let range = ("Content-Range", format!("bytes {from}-{}/{length}", length - 1));
                Answer { status: 206, headers: vec![range], body: self.content[from..].to_vec() }
            }
            _ => Answer { status: 200, headers: vec![], body: self.content.clone() },
        }
    }
}

fn of(request: &Request) -> Of {
    match request.method.as_str() {
        _ if request.path.starts_with("/api/") => Of::Revision,
        "HEAD" => Of::Description,
        _ => Of::Content,
    }
}

fn refusal(status: u16, code: &str, message: &str) -> Answer {
    Answer::new(status, vec![("X-Error-Code", code.to_owned()), ("X-Error-Message", message.to_owned())])
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16, headers: Vec<(&'static str, String)>) -> Self {
        Answer { status, headers, body: Vec::new() }
    }

    fn json(text: &str) -> Self {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Answer { status: 200, headers, body: text.as_bytes().to_vec() }
    }

    fn with(mut self, headers: Vec<(&'static str, String)>) -> Self {
        self.headers.extend(headers);
        self
    }

    fn send(mut self, mut stream: TcpStream, head_only: bool, fault: Option<Fault>) {
        if let (Some(Fault::Corrupt), Some(byte)) = (&fault, self.body.last_mut()) {
            *byte ^= 1;
        }
        if let Some(Fault::Excess) = &fault {
            self.body.extend([0; 100]);
        }
        let mut head = format!(
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.status,
            self.body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let sent = match fault {
            _ if head_only => 0,
            Some(Fault::Drop(bytes) | Fault::Stall(bytes) | Fault::Pause(bytes)) => bytes,
            _ => self.body.len(),
        };
        // A client that has gone is no failure of the server.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&self.body[..sent]));
        match fault {
            Some(Fault::Stall(_)) => std::thread::sleep(Duration::from_secs(600)),
            Some(Fault::Pause(_)) => {
                std::thread::sleep(Duration::from_millis(300));
                let _ = stream.write_all(&self.body[sent..]);
            }
            _ => {}
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream.take(1 << 16)).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let header =
        |line: String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers = lines.take_while(|line| !line.is_empty()).filter_map(header).collect();
    Some(Request { method, path, headers })
}

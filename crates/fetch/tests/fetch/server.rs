//! A server on loopback that publishes files, with faults at will.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A fault that a server gives instead of the right answer.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// This status.
    Status(u16),
    /// The last byte is another.
    Corrupt,
    /// The connection ends in the middle.
    Break,
    /// The whole file, whatever part was asked for.
    NoRange,
}

/// The server; it ends with the process.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    files: Arc<BTreeMap<String, Vec<u8>>>,
    /// One for each of the next answers.
    faults: Arc<Mutex<VecDeque<Option<Fault>>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) fn start(files: &[(&str, &[u8])], faults: &[Option<Fault>]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            address: format!("http://{}", listener.local_addr().unwrap()),
            files: Arc::new(files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect()),
            faults: Arc::new(Mutex::new(faults.iter().copied().collect())),
            requests: Arc::default(),
        };
        let serving = server.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serving.serve(stream)));
        server
    }

    /// Path and range (`-` where none was asked for) of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
        let lines: Vec<String> = lines.map(|line| line.to_lowercase()).collect();
        let path = lines[0].split(' ').nth(1).unwrap_or_default();
        let range = lines.iter().find_map(|line| line.strip_prefix("range: bytes=")).unwrap_or("-");
        self.requests.lock().unwrap().push(format!("{path} {range}"));
        let fault = self.faults.lock().unwrap().pop_front().flatten();
        let from = range.trim_end_matches('-').parse().unwrap_or(0);
        let (head, body) = self.answer(path, from, fault);
        // A client that has gone is no failure of the server.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }

    fn answer(&self, path: &str, from: usize, fault: Option<Fault>) -> (String, Vec<u8>) {
        let (status, mut body) = match (self.files.get(path), fault) {
            (_, Some(Fault::Status(status))) => (status, Vec::new()),
            (None, _) => (404, Vec::new()),
            (Some(content), Some(Fault::NoRange)) => (200, content.clone()),
            (Some(content), _) => (if from > 0 { 206 } else { 200 }, content[from..].to_vec()),
        };
        let length = body.len();
        match fault {
            Some(Fault::Corrupt) => body[length - 1] ^= 1,
            Some(Fault::Break) => body.truncate(length / 2),
            _ => {}
        }
        (format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"), body)
    }
}

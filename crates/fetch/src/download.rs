//! The download of one file: continued, tried again, and compared with its digest.

use program::Progress;
use stage::files::{Temporary, digest};
use stage::{Error, Kind, Result};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::Agent;

use crate::Wanted;

/// The number of attempts to download a file before its failure is reported.
const ATTEMPTS: u32 = 4;

pub(crate) struct Client {
    agent: Agent,
    pause: Duration,
}

enum Failure {
    /// Another attempt may succeed.
    Passing(String),
    /// The publisher will not give the file.
    Final(String),
    /// This machine cannot write.
    Here(Error),
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(404 | 410) => {
                Failure::Final("not found, the publisher may have moved or removed it".to_owned())
            }
            ureq::Error::StatusCode(status @ (408 | 416 | 429 | 500..)) => {
                Failure::Passing(format!("the server answered {status}"))
            }
            ureq::Error::StatusCode(status) => Failure::Final(format!("the server answered {status}")),
            ureq::Error::Io(error) => Failure::Passing(error.to_string()),
            other => Failure::Passing(other.to_string()),
        }
    }
}

impl Failure {
    fn into_error(self, address: &str, target: &Path) -> Error {
        let said = match self {
            Failure::Here(error) => return error,
            Failure::Passing(said) | Failure::Final(said) => said,
        };
        let hint = format!(
            "check the connection (HTTPS_PROXY names a proxy, DSOM_MIRROR a mirror) and run the same command again, or bring \
             the file from elsewhere to {}",
            target.display()
        );
        Error::new(Kind::Io, format!("{address}: {said}")).hint(hint)
    }
}

impl Client {
    pub(crate) fn new(pause: Duration) -> Self {
        let [connecting, waiting] = [30, 60].map(|seconds| Some(Duration::from_secs(seconds)));
        let config = Agent::config_builder().timeout_connect(connecting).timeout_recv_response(waiting);
        Client { agent: config.timeout_per_read(waiting).build().into(), pause }
    }

    /// Downloads a file to `target`, and returns its digest and size.
    pub(crate) fn bring(&self, wanted: &Wanted, target: &Path) -> Result<(String, u64)> {
        let mut part = Part(Temporary::open(target, "part")?);
        self.complete(wanted, &mut part).map_err(|failure| failure.into_error(&wanted.address, target))?;
        let seen = digest(&part.0.path)?;
        if !wanted.is(&seen) {
            std::fs::remove_file(&part.0.path).map_err(|e| Error::io(&part.0.path, e))?;
            return Err(other_than_published(wanted, &seen).at(target));
        }
        part.0.rename()?;
        Ok(seen)
    }

    fn complete(&self, wanted: &Wanted, part: &mut Part) -> Result<(), Failure> {
        let mut pause = self.pause;
        for _ in 1..ATTEMPTS {
            match self.attempt(wanted, part) {
                Err(Failure::Passing(said)) => {
                    tracing::warn!("{}: {said}: trying again", wanted.address);
                }
                settled => return settled,
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        self.attempt(wanted, part)
    }

    /// Requests the bytes that the part lacks.
    fn attempt(&self, wanted: &Wanted, part: &mut Part) -> Result<(), Failure> {
        let have = part.length()?;
        if wanted.bytes == Some(have) {
            return Ok(());
        }
        // A server that compresses would count other bytes than we do.
        let mut request = self.agent.get(&wanted.address).header("Accept-Encoding", "identity");
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
        }
        let answer = request.call();
        if matches!(answer, Err(ureq::Error::StatusCode(416))) {
            part.restart()?;
        }
        let mut response = answer?;
        // A server without support for ranges sends the whole file.
        let have = if response.status() == 206 { have } else { part.restart()? };
        let total = response.body().content_length().map(|rest| have + rest);
        let progress =
            Progress::of_bytes(wanted.place.to_string_lossy(), wanted.bytes.or(total).unwrap_or(0));
        progress.start_at(have);
        // One byte too many is enough to show that the file is wrong.
        let most = wanted.bytes.map_or(u64::MAX, |bytes| bytes - have.min(bytes) + 1);
        let length = part.append(response.body_mut().as_reader().take(most), &progress)?;
        match total.or(wanted.bytes) {
            Some(total) if length < total => {
                Err(Failure::Passing(format!("the connection ended after {length} of {total} bytes")))
            }
            _ => Ok(()),
        }
    }
}

fn other_than_published(wanted: &Wanted, (sha256, bytes): &(String, u64)) -> Error {
    let known = wanted.sha256.as_deref().unwrap_or("unknown");
    let sizes = wanted.bytes.map_or(String::new(), |known| format!(" ({bytes} bytes for {known})"));
    Error::data(format!("its SHA-256 is {sha256}, but that of the published file is {known}{sizes}")).hint(format!(
        "it was removed: run the same command again; if it stays so, {} has changed, so take the file from elsewhere or without \
         DSOM_MIRROR",
        wanted.address
    ))
}

/// The downloaded part of a file, under a temporary name that later starts find again.
struct Part(Temporary);

impl Part {
    fn failure(&self, error: std::io::Error) -> Failure {
        Failure::Here(Error::io(&self.0.path, error))
    }

    fn length(&self) -> Result<u64, Failure> {
        self.0.file.metadata().map(|part| part.len()).map_err(|e| self.failure(e))
    }

    /// Discards the downloaded bytes; returns 0, the new length.
    fn restart(&mut self) -> Result<u64, Failure> {
        self.0.file.set_len(0).map_err(|e| self.failure(e))?;
        Ok(0)
    }

    /// Appends the received bytes and returns the new length.
    fn append(&mut self, mut from: impl Read, progress: &Progress) -> Result<u64, Failure> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            match from.read(&mut buffer).map_err(|error| Failure::Passing(error.to_string()))? {
                0 => return self.length(),
                n => {
                    self.0.file.write_all(&buffer[..n]).map_err(|e| self.failure(e))?;
                    progress.advance(n as u64);
                }
            }
        }
    }
}

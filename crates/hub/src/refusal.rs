//! What the hub says where it does not give what was asked for, as errors that say what to do.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use stage::{Error, Kind};
use std::time::Duration;

use crate::patience::Failure;
use crate::settings::Token;

/// What to do where there is no connection, or no permission.
pub(crate) const ELSEWHERE: &str = "or download the files elsewhere: give their folder by --text-model or \
    --image-model, or copy that machine's HF_HOME";

/// An answer that is no success.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The hub's `X-Error-Code`.
    pub(crate) code: Option<String>,
    /// The hub's `X-Error-Message`.
    pub(crate) message: Option<String>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.to_owned());
        let seconds = text(RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
        Refusal {
            status,
            code: text("x-error-code"),
            message: text("x-error-message"),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    /// As an error about `subject`, which names repository and host.
    pub(crate) fn failure(&self, subject: &str, token: Option<&Token>) -> Failure {
        let code = self.code.as_deref().unwrap_or_default();
        match (self.status, code) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) | (_, "GatedRepo") => {
                self.denied(subject, token).into()
            }
            (StatusCode::NOT_FOUND, _) => {
                let error =
                    Error::missing(format!("{subject}: {}{}", what_is_missing(code), self.said(token)));
                error.hint("check the names and the revision; without a token, private repositories seem to be missing").into()
            }
            (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => self.again(subject, token),
            (status, _) if status.is_server_error() => self.again(subject, token),
            _ => self.unexpected(subject, token).into(),
        }
    }

    fn denied(&self, subject: &str, token: Option<&Token>) -> Error {
        let (sent, hint) = match token {
            None => (
                "no token was sent",
                "set HF_TOKEN if it is private or gated, and check its name: the hub denies what does not exist, too",
            ),
            Some(_) if self.status == StatusCode::UNAUTHORIZED => {
                ("the token that was sent is not accepted", "check HF_TOKEN, and the repository's name")
            }
            Some(_) => (
                "the token that was sent does not open it",
                "the repository may be gated: accept its terms on its page, with the account of HF_TOKEN",
            ),
        };
        let message =
            format!("{subject}: access denied ({}), {sent}{}", self.status.as_u16(), self.said(token));
        Error::missing(message).hint(format!("{hint}; {ELSEWHERE}"))
    }

    fn again(&self, subject: &str, token: Option<&Token>) -> Failure {
        Failure::Again { error: self.unexpected(subject, token), after: self.retry_after }
    }

    fn unexpected(&self, subject: &str, token: Option<&Token>) -> Error {
        let message = format!("{subject}: the server answered {}{}", self.status, self.said(token));
        Error::new(Kind::Io, message).hint(format!("try again later, {ELSEWHERE}"))
    }

    /// The server's own words, which must not give away the token either.
    fn said(&self, token: Option<&Token>) -> String {
        match (&self.message, token) {
            (None, _) => String::new(),
            (Some(message), None) => format!(": {message}"),
            (Some(message), Some(token)) => format!(": {}", message.replace(token.secret(), "…")),
        }
    }
}

fn what_is_missing(code: &str) -> &'static str {
    match code {
        "RepoNotFound" => "there is no such repository",
        "RevisionNotFound" => "the repository has no such revision",
        "EntryNotFound" => "the repository has no such file",
        _ => "not found (404)",
    }
}

/// A request that brought no answer, or half of one: no connection, or one that broke.
pub(crate) fn unanswered(subject: &str, error: reqwest::Error) -> Failure {
    // Addresses of redirects hold signatures. The innermost reason is the one that says something.
    let error = error.without_url();
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    let message = format!("{subject}: no whole answer: {reason}");
    Failure::again(Error::new(Kind::Io, message).hint(format!(
        "check the connection and HF_ENDPOINT, set HF_HUB_OFFLINE=1 to use what is cached, {ELSEWHERE}"
    )))
}

/// Nothing came for a long time.
pub(crate) fn silent(subject: &str, waited: Duration) -> Failure {
    let message = format!("{subject}: nothing came for {} s", waited.as_secs());
    Failure::again(Error::new(Kind::Io, message).hint(format!("check the connection, {ELSEWHERE}")))
}

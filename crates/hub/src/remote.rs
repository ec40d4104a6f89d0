//! The hub's side: a revision's commit through hf-hub, a file's description and content by requests of our own.

use hf_hub::{HFClient, HFError, HFRepository, RepoTypeModel};
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue,
};
use reqwest::header::{CONTENT_RANGE, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use stage::{Error, Kind, Result};
use std::time::Duration;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::patience::{Failure, Patience, patiently};
use crate::refusal::{Refusal, silent, unanswered};
use crate::repository::{Repository, is_commit};
use crate::settings::{Settings, Token};

/// An answer, or the next part of one, comes within this time.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// Redirects within the hub, as for repositories that were renamed.
const REDIRECTS: usize = 5;
const AGENT: &str = concat!("dsom/", env!("CARGO_PKG_VERSION"));

const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// One repository on the hub.
pub(crate) struct Remote<'a> {
    settings: &'a Settings,
    repository: &'a Repository,
    host: String,
    hub: HFRepository<RepoTypeModel>,
    /// Follows redirects: to another host without the token.
    client: Client,
    /// Follows none.
    direct: Client,
}

/// What the hub says of a file.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) name: String,
    /// Its digest, and the name of its blob.
    pub(crate) etag: String,
    pub(crate) bytes: u64,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(settings: &'a Settings, repository: &'a Repository) -> Result<Self> {
        let headers = headers(settings.token.as_ref())?;
        let builder = || {
            let builder = Client::builder().user_agent(AGENT).default_headers(headers.clone());
            builder.connect_timeout(CONNECT).read_timeout(PATIENCE)
        };
        let build = |builder: reqwest::ClientBuilder| builder.build().map_err(unprepared);
        let hub = HFClient::builder().endpoint(&settings.endpoint).user_agent(AGENT).headers(headers.clone());
        // It would look for a token by itself, and send it unmarked. This one is no value of a header, so it sends none
        // but that of ours. Trying again is `Patience`'s.
        let hub = hub.token("\n").retry_max_attempts(0).build().map_err(unprepared)?;
        let (owner, name) = hf_hub::split_id(&repository.name);
        Ok(Remote {
            settings,
            repository,
            host: settings.host()?,
            hub: hub.model(owner, name),
            client: build(builder())?,
            direct: build(builder().redirect(Policy::none()))?,
        })
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.settings.back_off)
    }

    /// The commit that the revision is at.
    pub(crate) async fn commit(&self) -> Result<String> {
        patiently(self.patience(), async || self.ask_commit().await).await
    }

    /// What the hub says of a file; none where the commit has no such file.
    pub(crate) async fn describe(&self, commit: &str, name: &str) -> Result<Option<Description>> {
        patiently(self.patience(), async || self.ask_description(commit, name).await).await
    }

    async fn ask_commit(&self) -> Result<String, Failure> {
        let subject = format!("`{}` at {}", self.repository, self.host);
        tracing::debug!("asking for the commit of {subject}");
        let request =
            self.hub.info().revision(&self.repository.revision).expand(vec!["sha".to_owned()]).send();
        // What it logs as errors is tried again.
        let answer = tokio::time::timeout(PATIENCE, request.with_subscriber(NoSubscriber::new())).await;
        let info = answer.map_err(|_| silent(&subject, PATIENCE))?;
        let info = info.map_err(|error| self.failure(&subject, error))?;
        let commit = info.sha.filter(|sha| is_commit(sha));
        Ok(commit.ok_or_else(|| Error::data(format!("{subject}: the answer has no commit hash")))?)
    }

    fn failure(&self, subject: &str, error: HFError) -> Failure {
        let (context, retry_after) = match error {
            HFError::Request { source, .. } => return unanswered(subject, source),
            HFError::RateLimited { retry_after, context } => (context, retry_after),
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Http { context } => (context, None),
            HFError::RevisionNotFound { context: Some(context), .. } => (context, None),
            // Nothing else is known to come; its text may hold addresses, and the token is in none of them.
            other => return Error::new(Kind::Io, format!("{subject}: {other}")).into(),
        };
        let (code, message) = (context.error_code, context.server_message);
        let refusal = Refusal { status: context.status, code, message, retry_after };
        refusal.failure(subject, self.settings.token.as_ref())
    }

    async fn ask_description(&self, commit: &str, name: &str) -> Result<Option<Description>, Failure> {
        let subject = self.subject(name);
        let answer = self.head(self.address(commit, name)?, &subject).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return match answer.headers().get("x-error-code").and_then(|code| code.to_str().ok()) {
                None | Some("EntryNotFound") => Ok(None),
                Some(_) => Err(self.refused(&subject, &answer)),
            };
        }
        if !answer.status().is_success() && !answer.status().is_redirection() {
            return Err(self.refused(&subject, &answer));
        }
        match description(name, answer.status(), answer.headers()) {
            Some(description) => Ok(Some(description)),
            None => Err(Error::data(format!("{subject}: the answer has no ETag or no size of the file"))
                .hint("does HF_ENDPOINT speak the protocol of the hub?")
                .into()),
        }
    }

    /// A HEAD request, by way of redirects within the hub alone: the answer that leads elsewhere has the description.
    async fn head(&self, mut address: Url, subject: &str) -> Result<Response, Failure> {
        for _ in 0..REDIRECTS {
            let request = self.direct.request(Method::HEAD, address.clone());
            let answer = self.send(request, subject).await?;
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| address.join(location).ok());
            match next.filter(|next| answer.status().is_redirection() && next.origin() == address.origin()) {
                Some(next) if !answer.headers().contains_key(LINKED_ETAG) => address = next,
                _ => return Ok(answer),
            }
        }
        Err(Error::data(format!("{subject}: more than {REDIRECTS} redirects")).into())
    }

    /// The content from byte `from` on: where the server does so, else from the beginning. The answer, and where it begins.
    pub(crate) async fn content(
        &self,
        commit: &str,
        name: &str,
        from: u64,
    ) -> Result<(Response, u64), Failure> {
        let mut request = self.client.get(self.address(commit, name)?);
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        let subject = self.subject(name);
        let answer = self.send(request, &subject).await?;
        match answer.status() {
            StatusCode::OK => Ok((answer, 0)),
            StatusCode::PARTIAL_CONTENT if begins_at(answer.headers(), from) => Ok((answer, from)),
            // An address elsewhere is signed and holds for minutes: the next one will do.
            StatusCode::FORBIDDEN if self.is_elsewhere(answer.url()) => {
                let message = format!("{subject}: the redirect was denied (403)");
                Err(Failure::again(Error::new(Kind::Io, message)))
            }
            _ => Err(self.refused(&subject, &answer)),
        }
    }

    fn is_elsewhere(&self, address: &Url) -> bool {
        Url::parse(&self.settings.endpoint).is_ok_and(|endpoint| endpoint.origin() != address.origin())
    }

    async fn send(&self, request: RequestBuilder, subject: &str) -> Result<Response, Failure> {
        tracing::debug!("asking for {subject}");
        request.send().await.map_err(|error| unanswered(subject, error))
    }

    fn refused(&self, subject: &str, answer: &Response) -> Failure {
        let refusal = Refusal::new(answer.status(), answer.headers());
        refusal.failure(subject, self.settings.token.as_ref())
    }

    /// A file in messages.
    pub(crate) fn subject(&self, name: &str) -> String {
        self.subject_of(&format!("`{name}`"))
    }

    /// Files in messages.
    pub(crate) fn subject_of(&self, names: &str) -> String {
        format!("{names} of `{}` at {}", self.repository, self.host)
    }

    fn address(&self, commit: &str, name: &str) -> Result<Url> {
        let address = format!("{}/{}/resolve/{commit}/{name}", self.settings.endpoint, self.repository.name);
        Url::parse(&address).map_err(|_| Error::usage("HF_ENDPOINT is no address"))
    }
}

/// What every request of ours says.
fn headers(token: Option<&Token>) -> Result<HeaderMap> {
    // Compressed, a file has no size in advance.
    let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {}", token.secret()));
        let mut value =
            value.map_err(|_| Error::usage("the token of the hub holds letters that no token has"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn unprepared(error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unexpected, format!("cannot prepare requests to the hub: {error}"))
}

fn description(name: &str, status: StatusCode, headers: &HeaderMap) -> Option<Description> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text(&LINKED_ETAG).or_else(|| text(&ETAG))?;
    let etag = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    // A redirect's own length is not the file's.
    let length = || text(&CONTENT_LENGTH).filter(|_| status.is_success());
    let bytes = text(&LINKED_SIZE).or_else(length)?.parse().ok()?;
    // It becomes the name of a file.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let named = !etag.is_empty() && etag.len() <= 128 && etag.bytes().all(plain);
    named.then(|| Description { name: name.to_owned(), etag: etag.to_owned(), bytes })
}

fn begins_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(status: StatusCode, pairs: &[(&'static str, &'static str)]) -> Option<(String, u64)> {
        let pairs = pairs
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let description = description("x", status, &pairs.collect())?;
        Some((description.etag, description.bytes))
    }

    #[test]
    fn large_files_are_described_by_the_redirect() {
        let linked = [
            ("x-linked-etag", "\"abc\""),
            ("x-linked-size", "7"),
            ("etag", "\"def\""),
            ("content-length", "99"),
        ];
        assert_eq!(described(StatusCode::FOUND, &linked), Some(("abc".to_owned(), 7)));
        assert_eq!(described(StatusCode::OK, &linked[2..]), Some(("def".to_owned(), 99)));
        assert_eq!(
            described(StatusCode::OK, &[("etag", "W/\"def\""), ("content-length", "9")]),
            Some(("def".to_owned(), 9))
        );
        assert_eq!(described(StatusCode::FOUND, &linked[2..]), None);
    }

    #[test]
    fn an_etag_that_could_leave_the_cache_is_none() {
        for etag in ["\"../x\"", "\"\"", "\"a/b\"", "\".\""] {
            assert_eq!(described(StatusCode::OK, &[("etag", etag), ("content-length", "9")]), None, "{etag}");
        }
    }
}

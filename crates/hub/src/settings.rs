//! Where the hub is, where its cache lies and who asks.

use stage::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

const ENDPOINT: &str = "https://huggingface.co";
/// The first pause before trying again; each further one is twice as long.
const BACK_OFF: Duration = Duration::from_millis(500);

/// What the environment says of the hub (see the table of [this crate](crate)).
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// The folder of the cache that all tools of the hub share.
    pub cache: PathBuf,
    /// What is sent to the endpoint's host, and to no other.
    pub token: Option<Token>,
    /// Whether only what is in the cache may be used.
    pub offline: bool,
    /// The first pause before a failed request is made again; each further one is twice as long.
    pub back_off: Duration,
}

impl Settings {
    /// What the environment of this process says.
    pub fn from_environment() -> Result<Self> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let settings = Settings {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache: hf_hub::resolve_cache_dir(),
            token: token(),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().any(is_set),
            back_off: BACK_OFF,
        };
        settings.host()?;
        Ok(settings)
    }

    /// The endpoint's host, with its port where it has one, for messages: an address may hold a password.
    pub fn host(&self) -> Result<String> {
        let url = reqwest::Url::parse(&self.endpoint).ok().filter(|url| url.scheme().starts_with("http"));
        let host = url.as_ref().and_then(|url| Some((url.host_str()?, url.port())));
        match host {
            Some((host, Some(port))) => Ok(format!("{host}:{port}")),
            Some((host, None)) => Ok(host.to_owned()),
            None => Err(Error::usage("HF_ENDPOINT is no http:// or https:// address")),
        }
    }
}

/// A secret: it is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token; white space around it, as files have it, is no part of it. None where nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        Some(text.trim()).filter(|text| !text.is_empty()).map(|text| Token(text.to_owned()))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// From where hf-hub takes it, which does not give it away.
fn token() -> Option<Token> {
    if is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return None;
    }
    let files = [variable("HF_TOKEN_PATH").map(PathBuf::from), Some(hf_hub::hf_home().join("token"))];
    let mut stored = files.into_iter().flatten().filter_map(|path| std::fs::read_to_string(path).ok());
    let given = variable("HF_TOKEN").and_then(|text| Token::new(&text));
    given.or_else(|| stored.find_map(|text| Token::new(&text)))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// What Python's huggingface_hub takes for true.
fn is_set(name: &str) -> bool {
    let value = variable(name).unwrap_or_default().to_uppercase();
    ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> Settings {
        let token = Token::new(" secret\n");
        Settings { endpoint: endpoint.into(), cache: "c".into(), token, offline: false, back_off: BACK_OFF }
    }

    #[test]
    fn messages_name_a_host_and_no_password() {
        assert_eq!(settings("https://huggingface.co").host().unwrap(), "huggingface.co");
        assert_eq!(settings("http://me:pass@127.0.0.1:8080/hub").host().unwrap(), "127.0.0.1:8080");
        for endpoint in ["", "huggingface.co", "ftp://x", "http://"] {
            assert_eq!(settings(endpoint).host().unwrap_err().kind(), stage::Kind::Usage, "{endpoint}");
        }
    }

    #[test]
    fn a_token_is_trimmed_and_not_shown() {
        assert_eq!(Token::new(" secret\n").unwrap().secret(), "secret");
        assert_eq!(Token::new(" \n"), None);
        assert!(!format!("{:?}", settings("http://x")).contains("secret"));
    }
}

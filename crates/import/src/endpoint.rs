//! The service's `POST /v1/batches`: its URL, the access token, and the request.

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::{
    Body, Client, RequestBuilder, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue},
    redirect::Policy,
};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;

use crate::error::Error;

/// The media type of requests and answers.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Results, or the problem of the whole request.
const ACCEPTED: &str = "application/x-ndjson, application/problem+json";

const CONNECT_S_MAX: u64 = 10;
/// The number of pieces of a request that wait for the connection.
const PIECES_MAX: usize = 2;

/// The access token.
#[derive(Clone, Debug)]
pub enum Token {
    /// The service has no access control.
    None,
    /// A token.
    Value(SecretString),
    /// A file with the token. It is read again for each request, so that a renewed token is used.
    File(PathBuf),
}

/// How the service shows results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultForm {
    /// Without receipts and problems (`Prefer: return=minimal`).
    Minimal,
    /// With the receipt or the problem of each command.
    Full,
}

/// The service that executes the commands.
pub struct Endpoint {
    http: Client,
    url: Url,
    token: Token,
    form: ResultForm,
    /// The token of the last request.
    used_token: Option<SecretString>,
}

impl Endpoint {
    /// The endpoint of the service at `url`.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] or [`Error::Client`].
    pub fn new(url: &str, token: Token, form: ResultForm) -> Result<Self, Error> {
        let invalid = || Error::InvalidUrl(url.to_owned());
        let mut url = Url::parse(url).map_err(|_| invalid())?;
        let is_valid = matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        if !is_valid {
            return Err(invalid());
        }
        url.set_path(&format!("{}/v1/batches", url.path().trim_end_matches('/')));
        let http = Client::builder()
            .no_proxy()
            // A compressed answer would wait in the compressor of a proxy.
            .no_gzip()
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(CONNECT_S_MAX))
            // The connection of an interrupted request is not used again.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("passbook-import/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Client(error.to_string()))?;
        Ok(Self { http, url, token, form, used_token: None })
    }

    /// The URL, without the path of the operation.
    pub(crate) fn base_url(&self) -> String {
        self.url.as_str().trim_end_matches("/v1/batches").to_owned()
    }

    /// A new request, and the sender of its body. The body ends when the sender is dropped.
    ///
    /// # Errors
    /// [`Error::TokenFile`] or [`Error::InvalidToken`].
    pub(crate) fn request(&mut self) -> Result<(RequestBuilder, mpsc::Sender<Bytes>), Error> {
        let (pieces, mut waiting) = mpsc::channel(PIECES_MAX);
        let body = stream::poll_fn(move |context| waiting.poll_recv(context));
        let body = StreamBody::new(body.map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece))));
        let request = self.http.post(self.url.clone()).body(Body::wrap(body));
        let mut request = request.header(CONTENT_TYPE, NDJSON).header(ACCEPT, ACCEPTED);
        if self.form == ResultForm::Minimal {
            request = request.header("prefer", "return=minimal");
        }
        self.used_token = self.read_token()?;
        if let Some(token) = &self.used_token {
            let bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
            let mut bearer = bearer.map_err(|_| Error::InvalidToken)?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        Ok((request, pieces))
    }

    /// Whether the file of the token holds another token than that of the last request.
    ///
    /// # Errors
    /// [`Error::TokenFile`].
    pub(crate) fn is_token_renewed(&self) -> Result<bool, Error> {
        let expose = |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
        Ok(expose(&self.read_token()?) != expose(&self.used_token))
    }

    fn read_token(&self) -> Result<Option<SecretString>, Error> {
        match &self.token {
            Token::None => Ok(None),
            Token::Value(token) => Ok(Some(token.clone())),
            Token::File(path) => match fs::read_to_string(path) {
                Ok(text) => Ok(Some(text.trim().into())),
                Err(source) => Err(Error::TokenFile { path: path.clone(), source }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::install_crypto_provider;

    #[test]
    fn only_the_url_of_a_service_is_accepted() {
        install_crypto_provider();
        let base_url =
            |url: &str| Endpoint::new(url, Token::None, ResultForm::Full).map(|endpoint| endpoint.base_url());
        assert_eq!(base_url("http://127.0.0.1:8080/").expect("valid"), "http://127.0.0.1:8080");
        assert_eq!(base_url("https://bank.example/passbook").expect("valid"), "https://bank.example/passbook");
        for invalid in ["", "127.0.0.1:8080", "ftp://bank", "http://ada:pw@bank", "http://bank?x=1", "http://"] {
            assert!(matches!(base_url(invalid), Err(Error::InvalidUrl(_))), "{invalid}");
        }
    }
}

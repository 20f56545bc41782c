//! Development tokens: signed with a key of this machine, to try access control without a provider.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::Ed25519KeyPair,
};
use sha2::{Digest, Sha256};

use crate::{caller::now_s, claims::NewClaims, ring_provider, scope::Scope};

/// The file name of the key in the data folder.
pub const KEY_FILE: &str = "development.key";

/// The header of an Ed25519 key in PKCS #8 version 1 (RFC 8410, section 7); the 32 bytes of the key follow.
const PKCS8_ED25519: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// The claims of a development token.
#[derive(Clone, Debug)]
pub struct TokenClaims<'a> {
    /// The subject.
    pub subject: &'a str,
    /// The scopes, separated by spaces.
    pub scope: &'a str,
    /// How long the token is valid, in seconds.
    pub valid_s: u32,
    /// The issuer, if the service requires one.
    pub issuer: Option<&'a str>,
    /// The audience, if the service requires one.
    pub audience: Option<&'a str>,
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says it")]
pub enum Error {
    #[error("{path} cannot be read or written: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is not an Ed25519 key made by this command: name another file with --key")]
    NotDevelopmentKey(PathBuf),
    #[error("there is no scope {0:?}; the scopes are: {list}", list = Scope::ALL.map(Scope::name).join(", "))]
    UnknownScope(String),
}

/// Signs a token with the key in `key_file`, which is created if it does not exist.
/// Returns the token and the JWKS file that holds the public key.
///
/// # Errors
/// A file cannot be read or written, the key is not a development key, or a scope is unknown.
pub fn token(key_file: &Path, claims: &TokenClaims<'_>) -> Result<(String, PathBuf), Error> {
    if let Some(unknown) = claims.scope.split_whitespace().find(|name| Scope::from_name(name).is_none()) {
        return Err(Error::UnknownScope(unknown.to_owned()));
    }
    ring_provider::install();
    let der = read_or_create(key_file)?;
    let not_development_key = |_| Error::NotDevelopmentKey(key_file.to_owned());
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| Error::NotDevelopmentKey(key_file.to_owned()))?;
    let key = EncodingKey::from_ed_der(&der);
    let mut public = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(not_development_key)?;
    let id = hex::encode(&Sha256::digest(serde_json::to_string(&public.algorithm).unwrap_or_default())[..8]);
    (public.common.key_id, public.common.public_key_use) = (Some(id.clone()), Some(PublicKeyUse::Signature));

    let jwks_file = key_file.with_extension("jwks.json");
    let jwks = serde_json::to_string_pretty(&JwkSet { keys: vec![public] }).unwrap_or_default();
    fs::write(&jwks_file, jwks + "\n").map_err(at(&jwks_file))?;

    let header = Header { kid: Some(id), ..Header::new(Algorithm::EdDSA) };
    let now = now_s();
    let claims = NewClaims {
        sub: claims.subject,
        scope: claims.scope,
        iat: now,
        exp: now + u64::from(claims.valid_s),
        iss: claims.issuer,
        aud: claims.audience,
    };
    Ok((encode(&header, &claims, &key).map_err(not_development_key)?, jwks_file))
}

/// The key in this file, as PKCS #8. The file is readable by its owner only.
fn read_or_create(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        read => read.map_err(at(path)),
    }
}

fn create(path: &Path) -> Result<Vec<u8>, Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    }
    let key = generate_key().map_err(at(path))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    file.write_all(&key).map_err(at(path))?;
    Ok(key)
}

/// A new Ed25519 key, as PKCS #8 without its public key, which is the form that `jsonwebtoken` accepts.
///
/// # Errors
/// The system has no random numbers.
pub fn generate_key() -> io::Result<Vec<u8>> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok([&PKCS8_ED25519[..], &seed].concat())
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

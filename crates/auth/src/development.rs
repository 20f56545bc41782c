//! A key of this machine's own and tokens signed with it, for trying out access control without a provider.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::signature::Ed25519KeyPair;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse},
};
use sha2::{Digest, Sha256};

use super::{caller::now_s, claims::NewClaims, scope::Scope};

/// What the key is called in the data folder.
pub const KEY_FILE: &str = "development.key";

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Who.
    pub subject: &'a str,
    /// For what, words with spaces between.
    pub scope: &'a str,
    /// For how long.
    pub lasts_s: u32,
    /// By whom, where the service asks for that.
    pub issuer: Option<&'a str>,
    /// For whom, where the service asks for that.
    pub audience: Option<&'a str>,
}

/// Why there is no token. Each is a sentence.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant says it in its sentence")]
pub enum Error {
    #[error("{path} cannot be read or written: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{0} is not a key that this command has made: name another file with --key")]
    NotOurs(PathBuf),
    #[error("there is no scope {0:?}; there are: {list}", list = Scope::ALL.map(Scope::word).join(", "))]
    NoScope(String),
}

/// A token signed with the key in this file, which is made if it is not there, and where its public half lies.
pub fn token(key_file: &Path, wanted: &Wanted<'_>) -> Result<(String, PathBuf), Error> {
    if let Some(unknown) = wanted.scope.split_whitespace().find(|word| Scope::of(word).is_none()) {
        return Err(Error::NoScope(unknown.to_owned()));
    }
    let der = read_or_make(key_file)?;
    let not_ours = |_| Error::NotOurs(key_file.to_owned());
    Ed25519KeyPair::from_pkcs8(&der).map_err(|_| Error::NotOurs(key_file.to_owned()))?;
    let key = EncodingKey::from_ed_der(&der);
    let mut public = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(not_ours)?;
    let id = hex::encode(&Sha256::digest(serde_json::to_string(&public.algorithm).unwrap_or_default())[..8]);
    (public.common.key_id, public.common.public_key_use) = (Some(id.clone()), Some(PublicKeyUse::Signature));

    let jwks_file = key_file.with_extension("jwks.json");
    let jwks = serde_json::to_string_pretty(&JwkSet { keys: vec![public] }).unwrap_or_default();
    fs::write(&jwks_file, jwks + "\n").map_err(at(&jwks_file))?;

    let header = Header { kid: Some(id), ..Header::new(Algorithm::EdDSA) };
    let now = now_s();
    let claims = NewClaims {
        sub: wanted.subject,
        scope: wanted.scope,
        iat: now,
        exp: now + u64::from(wanted.lasts_s),
        iss: wanted.issuer,
        aud: wanted.audience,
    };
    Ok((encode(&header, &claims, &key).map_err(not_ours)?, jwks_file))
}

/// The key of this file. Only its owner can read it.
fn read_or_make(path: &Path) -> Result<Vec<u8>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        read => read.map_err(at(path)),
    }
}

fn make(path: &Path) -> Result<Vec<u8>, Error> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at(folder))?;
    }
    let key = Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1());
    let key = key.map_err(|_| at(path)(io::Error::other("no random numbers")))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at(path))?;
    file.write_all(key.as_ref()).map_err(at(path))?;
    Ok(key.as_ref().to_vec())
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

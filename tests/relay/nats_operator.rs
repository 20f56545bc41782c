//! Files for a NATS server in operator mode: accounts and users are JWTs signed by an operator, as `nsc` creates them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Writes the server's configuration and the credentials of a user who may use JetStream. Returns both paths.
pub fn write(folder: &Path) -> (PathBuf, PathBuf) {
    let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
    let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
    let unlimited = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), json!(-1))).collect::<Value>();
    let (connecting, storing) = (["subs", "data", "payload", "conn"], ["mem_storage", "disk_storage"]);
    let operator_jwt = signed_jwt(&operator, &operator, &json!({"type": "operator", "version": 2}));
    // The server requires a system account, which may not store data.
    let accounts = [(&system, unlimited(&connecting)), (&account, unlimited(&[&connecting[..], &storing].concat()))];
    let accounts = accounts.map(|(account, limits)| {
        let jwt = signed_jwt(&operator, account, &json!({"type": "account", "version": 2, "limits": limits}));
        format!("{}: {jwt:?}", account.public_key())
    });
    let user_jwt =
        signed_jwt(&account, &user, &json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let (settings, credentials) = (folder.join("nats.conf"), folder.join("relay.creds"));
    let configuration = format!(
        "operator: {operator_jwt:?}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n}}\n",
        system.public_key(),
        accounts.join("\n")
    );
    fs::write(&settings, configuration).unwrap();
    let seed = user.seed().unwrap();
    let user_credentials = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(&credentials, user_credentials).unwrap();
    (settings, credentials)
}

fn signed_jwt(issuer: &KeyPair, subject: &KeyPair, nats_claims: &Value) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}).to_string().as_bytes());
    let claims = json!({
        "jti": subject.public_key(), "iat": 1, "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats_claims
    });
    let message = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let signature = encode(&issuer.sign(message.as_bytes()).unwrap());
    format!("{message}.{signature}")
}

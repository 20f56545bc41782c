//! A NATS server whose users are named by an operator's signatures, as `nsc` writes them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Writes the server's settings and the credentials of a user who may use JetStream; the files of both.
pub fn write(folder: &Path) -> (PathBuf, PathBuf) {
    let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
    let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
    let unlimited = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), json!(-1))).collect::<Value>();
    let (connecting, storing) = (["subs", "data", "payload", "conn"], ["mem_storage", "disk_storage"]);
    let of_operator = signed(&operator, &operator, &json!({"type": "operator", "version": 2}));
    // The server's own account has to be there, and stores nothing.
    let kept = [(&system, unlimited(&connecting)), (&account, unlimited(&[&connecting[..], &storing].concat()))];
    let kept = kept.map(|(account, limits)| {
        let signed = signed(&operator, account, &json!({"type": "account", "version": 2, "limits": limits}));
        format!("{}: {signed:?}", account.public_key())
    });
    let of_user =
        signed(&account, &user, &json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let (settings, credentials) = (folder.join("nats.conf"), folder.join("relay.creds"));
    let told = format!(
        "operator: {of_operator:?}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}\n}}\n",
        system.public_key(),
        kept.join("\n")
    );
    fs::write(&settings, told).unwrap();
    let seed = user.seed().unwrap();
    let told = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    fs::write(&credentials, told).unwrap();
    (settings, credentials)
}

fn signed(issuer: &KeyPair, subject: &KeyPair, what: &Value) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let head = encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}).to_string().as_bytes());
    let claims = json!({
        "jti": subject.public_key(), "iat": 1, "iss": issuer.public_key(), "sub": subject.public_key(), "nats": what
    });
    let said = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let signature = encode(&issuer.sign(said.as_bytes()).unwrap());
    format!("{said}.{signature}")
}

//! An app with access control, and clients with tokens for it.

use std::fs;

use jsonwebtoken::Algorithm;
use tempfile::TempDir;

use crate::{
    ApiClient, App, spawn_app_with,
    tokens::{AUDIENCE, ISSUER, Signer, claims, jwks},
};

/// An app that accepts the tokens of one signer.
pub struct AuthApp {
    /// The running app.
    pub app: App,
    /// Signs the tokens that the app accepts.
    pub signer: Signer,
    _folder: TempDir,
}

/// Starts an app that accepts Ed25519 tokens of one issuer for one audience.
pub async fn spawn_auth_app() -> AuthApp {
    spawn_auth_app_with(&[]).await
}

/// Like [`spawn_auth_app`], with more flags.
pub async fn spawn_auth_app_with(flags: &[&str]) -> AuthApp {
    let signer = Signer::new("key-1", Algorithm::EdDSA);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    fs::write(&file, jwks(&[signer.jwk()])).unwrap();
    let file = format!("--auth-jwks-file={}", file.display());
    let (issuer, audience) = (format!("--auth-issuer={ISSUER}"), format!("--auth-audience={AUDIENCE}"));
    let app = spawn_app_with(&[&[&*file, &*issuer, &*audience], flags].concat()).await;
    AuthApp { app, signer, _folder: folder }
}

impl AuthApp {
    /// A client with a token for this subject and these scopes.
    pub fn client_with_scope(&self, subject: &str, scope: &str) -> ApiClient {
        self.client_with_token(&self.signer.sign(&claims(subject, scope)))
    }

    /// A client that may read and write the accounts of its subject.
    pub fn customer(&self, subject: &str) -> ApiClient {
        self.client_with_scope(subject, "accounts:read accounts:write")
    }

    /// A client that may read, write and freeze any account.
    pub fn clerk(&self) -> ApiClient {
        self.client_with_scope("clerk", "accounts:read:any accounts:write:any accounts:freeze")
    }

    /// A client of the bank's staff that may place holds, reverse transactions and set limits.
    pub fn back_office(&self) -> ApiClient {
        self.client_with_scope("back-office", "accounts:holds accounts:reverse accounts:limits")
    }

    /// A client that sends this text as its bearer token.
    pub fn client_with_token(&self, token: &str) -> ApiClient {
        self.app.client().with_header("authorization", &format!("Bearer {token}"))
    }
}

//! A bank with access control on, and people with tokens.

use std::fs;

use jsonwebtoken::Algorithm;
use tempfile::TempDir;

use super::{
    App, Teller, spawn_app_with,
    tokens::{AUDIENCE, ISSUER, Signer, claims, jwks},
};

/// A bank that takes the tokens of one signer.
pub struct Guarded {
    pub app: App,
    pub signer: Signer,
    _folder: TempDir,
}

/// A bank that takes Ed25519 tokens of an issuer for an audience.
pub async fn spawn_guarded() -> Guarded {
    spawn_guarded_with(&[]).await
}

/// The same with settings of its own.
pub async fn spawn_guarded_with(others: &[&str]) -> Guarded {
    let signer = Signer::new("key-1", Algorithm::EdDSA);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    fs::write(&file, jwks(&[signer.jwk()])).unwrap();
    let file = format!("--auth-jwks-file={}", file.display());
    let (issuer, audience) = (format!("--auth-issuer={ISSUER}"), format!("--auth-audience={AUDIENCE}"));
    let app = spawn_app_with(&[&[&*file, &*issuer, &*audience], others].concat()).await;
    Guarded { app, signer, _folder: folder }
}

impl Guarded {
    /// Somebody with a token for these scopes.
    pub fn holder(&self, subject: &str, scope: &str) -> Teller {
        self.bearer(&self.signer.sign(&claims(subject, scope)))
    }

    /// Somebody with accounts of their own.
    pub fn customer(&self, subject: &str) -> Teller {
        self.holder(subject, "accounts:read accounts:write")
    }

    /// Somebody at the counter, for whom every account is there.
    pub fn clerk(&self) -> Teller {
        self.holder("clerk", "accounts:read:any accounts:write:any accounts:freeze")
    }

    /// Somebody with whatever stands in a token's place.
    pub fn bearer(&self, token: &str) -> Teller {
        self.app.teller().with("authorization", &format!("Bearer {token}"))
    }
}

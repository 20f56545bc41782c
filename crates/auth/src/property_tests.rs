//! Property tests of token verification: arbitrary input never panics, and only tokens signed by the key are accepted.

use std::{path::PathBuf, sync::LazyLock};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::{
    Caller, Settings, TokenError, TokenVerifier,
    development::{self, TokenClaims},
};

/// A verifier with one key, that key, and a valid token.
struct Fixture {
    verifier: TokenVerifier,
    key: EncodingKey,
    id: String,
    valid: String,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    let claims = TokenClaims { subject: "ada", scope: "audit:read", valid_s: 36_000, issuer: None, audience: None };
    let (valid, jwks_file): (String, PathBuf) = development::token(&file, &claims).expect("a token");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let settings = Settings { jwks_file: Some(jwks_file), ..Settings::default() };
    let verifier = runtime.block_on(TokenVerifier::new(settings));
    let verifier = verifier.map_err(|error| error.to_string()).expect("a verifier");
    let id = jsonwebtoken::decode_header(&valid).expect("a header").kid.expect("an id");
    let key = EncodingKey::from_ed_der(&std::fs::read(&file).expect("a key"));
    Fixture { verifier, key, id, valid, runtime, _folder: folder }
});

fn verify(token: &str) -> Result<Caller, TokenError> {
    FIXTURE.runtime.block_on(FIXTURE.verifier.verify(token))
}

fn signed(claims: &Value) -> String {
    encode(&Header { kid: Some(FIXTURE.id.clone()), ..Header::new(Algorithm::EdDSA) }, claims, &FIXTURE.key)
        .expect("a token")
}

/// A valid claim, or any other value.
fn claim() -> impl Strategy<Value = Value> {
    let odd =
        select(vec![json!(null), json!(true), json!(-1), json!(1e300), json!(0), json!([]), json!({}), json!("")]);
    let time = (0..8_000_000_000u64).prop_map(Value::from);
    prop_oneof![odd, time, "\\PC{0,300}".prop_map(Value::from), vec("[a-z:]{0,14}", 0..4).prop_map(Value::from)]
}

proptest! {
    #[test]
    fn arbitrary_text_is_refused(text in prop_oneof!["\\PC{0,400}", "[A-Za-z0-9_=-]{0,90}\\.[A-Za-z0-9_=-]{0,90}\\.[A-Za-z0-9_=-]{0,90}"]) {
        prop_assert!(verify(&text).is_err(), "{text}");
    }

    #[test]
    fn arbitrary_changes_of_a_token_are_refused(
        at in any::<prop::sample::Index>(), to in select((33u8..127).map(char::from).collect::<Vec<_>>()), how in 0..3
    ) {
        let valid = &FIXTURE.valid;
        let at = at.index(valid.len());
        let mut token: Vec<char> = valid.chars().collect();
        match how {
            0 => token[at] = to,
            1 => token.insert(at, to),
            _ => drop(token.remove(at)),
        }
        let token: String = token.into_iter().collect();
        prop_assert_eq!(verify(&token).is_ok(), token == *valid, "{}", token);
    }

    #[test]
    fn arbitrary_headers_without_a_valid_signature_are_refused(
        header in "\\{\"alg\": ?\"(none|None|HS256|EdDSA|RS256|ES256)\"(, ?\"(kid|crit|jwk|jku|typ|x5c)\": ?(\"[a-z0-9]{0,9}\"|\\[\"exp\"\\]|null)){0,3}\\}",
        signature in "[A-Za-z0-9_-]{0,90}"
    ) {
        let claims = FIXTURE.valid.split('.').nth(1).expect("claims");
        let token = format!("{}.{claims}.{signature}", base64url(header.as_bytes()));
        prop_assert!(verify(&token).is_err(), "{header} {token}");
    }

    #[test]
    fn arbitrary_signed_claims_need_a_subject_and_valid_times(
        sub in option::of(claim()), exp in option::of(claim()), nbf in option::of(claim()), iss in option::of(claim()),
        scope in option::of(claim())
    ) {
        let claims = [("sub", sub), ("exp", exp), ("nbf", nbf), ("iss", iss), ("scope", scope)];
        let claims: Value = claims.into_iter().filter_map(|(name, claim)| Some((name.to_owned(), claim?))).collect();
        if let Ok(caller) = verify(&signed(&claims)) {
            let subject = claims["sub"].as_str().expect("a text");
            prop_assert_eq!(&**caller.subject(), subject);
            prop_assert!((1..=255).contains(&subject.chars().count()) && !crate::RESERVED_SUBJECTS.contains(&subject));
            let now_s = crate::caller::now_s() as f64;
            prop_assert!(claims["exp"].as_f64().expect("a number") > now_s - 61.0, "{claims}");
            prop_assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf < now_s + 61.0), "{claims}");
        }
    }
}

/// Base64 with the URL-safe alphabet and without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let chunks = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        (0..=chunk.len()).map(move |at| char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]))
    });
    chunks.collect()
}

//! Tokens, fed with anything: nothing panics, and only what our key has signed as the contract says is believed.

use std::{path::PathBuf, sync::LazyLock};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::{
    Authority, Caller, Refused, Settings,
    development::{self, Wanted},
};

/// An authority with one key, that key, and where it lies.
struct Bank {
    authority: Authority,
    key: EncodingKey,
    id: String,
    good: String,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

static BANK: LazyLock<Bank> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    let wanted = Wanted { subject: "ada", scope: "audit:read", lasts_s: 36_000, issuer: None, audience: None };
    let (good, jwks_file): (String, PathBuf) = development::token(&file, &wanted).expect("a token");
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let settings = Settings { jwks_file: Some(jwks_file), ..Settings::default() };
    let authority = runtime.block_on(Authority::establish(settings));
    let authority = authority.map_err(|error| error.to_string()).expect("an authority");
    let id = jsonwebtoken::decode_header(&good).expect("a header").kid.expect("an id");
    let key = EncodingKey::from_ed_der(&std::fs::read(&file).expect("a key"));
    Bank { authority, key, id, good, runtime, _folder: folder }
});

fn verify(token: &str) -> Result<Caller, Refused> {
    BANK.runtime.block_on(BANK.authority.verify(token))
}

fn signed(claims: &Value) -> String {
    encode(&Header { kid: Some(BANK.id.clone()), ..Header::new(Algorithm::EdDSA) }, claims, &BANK.key).expect("a token")
}

/// A claim as it should be, or anything else.
fn claim() -> impl Strategy<Value = Value> {
    let odd =
        select(vec![json!(null), json!(true), json!(-1), json!(1e300), json!(0), json!([]), json!({}), json!("")]);
    let time = (0..8_000_000_000u64).prop_map(Value::from);
    prop_oneof![odd, time, "\\PC{0,300}".prop_map(Value::from), vec("[a-z:]{0,14}", 0..4).prop_map(Value::from)]
}

proptest! {
    #[test]
    fn whatever_text_is_no_token_nobody_sent_it(text in prop_oneof!["\\PC{0,400}", "[A-Za-z0-9_=-]{0,90}\\.[A-Za-z0-9_=-]{0,90}\\.[A-Za-z0-9_=-]{0,90}"]) {
        prop_assert!(verify(&text).is_err(), "{text}");
    }

    #[test]
    fn whatever_place_of_a_token_is_changed_it_is_not_believed(
        at in any::<prop::sample::Index>(), to in select((33u8..127).map(char::from).collect::<Vec<_>>()), how in 0..3
    ) {
        let good = &BANK.good;
        let at = at.index(good.len());
        let mut token: Vec<char> = good.chars().collect();
        match how {
            0 => token[at] = to,
            1 => token.insert(at, to),
            _ => drop(token.remove(at)),
        }
        let token: String = token.into_iter().collect();
        prop_assert_eq!(verify(&token).is_ok(), token == *good, "{}", token);
    }

    #[test]
    fn whatever_header_a_token_has_without_a_signature_it_is_not_believed(
        header in "\\{\"alg\": ?\"(none|None|HS256|EdDSA|RS256|ES256)\"(, ?\"(kid|crit|jwk|jku|typ|x5c)\": ?(\"[a-z0-9]{0,9}\"|\\[\"exp\"\\]|null)){0,3}\\}",
        signature in "[A-Za-z0-9_-]{0,90}"
    ) {
        let claims = BANK.good.split('.').nth(1).expect("claims");
        let token = format!("{}.{claims}.{signature}", base64url(header.as_bytes()));
        prop_assert!(verify(&token).is_err(), "{header} {token}");
    }

    #[test]
    fn whatever_claims_are_signed_only_a_customer_of_today_is_let_in(
        sub in option::of(claim()), exp in option::of(claim()), nbf in option::of(claim()), iss in option::of(claim()),
        scope in option::of(claim())
    ) {
        let claims = [("sub", sub), ("exp", exp), ("nbf", nbf), ("iss", iss), ("scope", scope)];
        let claims: Value = claims.into_iter().filter_map(|(name, claim)| Some((name.to_owned(), claim?))).collect();
        if let Ok(caller) = verify(&signed(&claims)) {
            let subject = claims["sub"].as_str().expect("a text");
            prop_assert_eq!(&**caller.subject(), subject);
            prop_assert!((1..=255).contains(&subject.chars().count()) && subject != super::ANONYMOUS);
            let now_s = super::caller::now_s() as f64;
            prop_assert!(claims["exp"].as_f64().expect("a number") > now_s - 61.0, "{claims}");
            prop_assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf < now_s + 61.0), "{claims}");
        }
    }
}

/// Base64 with the URL's alphabet and without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let chunks = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        (0..=chunk.len()).map(move |at| char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]))
    });
    chunks.collect()
}

//! Signatures of JSON Web Tokens by ring, so that the process has one crypto provider for TLS and for tokens.
//!
//! `jsonwebtoken` ships providers for aws-lc-rs and RustCrypto only. Symmetric algorithms (HMAC) are left out on purpose: a
//! shared secret must never verify a token here. Key thumbprints and public keys in DER are not used either.

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind, Result},
    jwk::EllipticCurve,
    signature::{self, Signer, Verifier},
};
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
        RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
        RSA_PSS_2048_8192_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
        RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
    },
};

/// Signs and verifies with ring.
static RING: CryptoProvider = CryptoProvider {
    signer_factory,
    verifier_factory,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key,
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::InvalidAlgorithm.into()),
        ec_pub_components_from_private_key,
        ed_pub_components_from_private_key,
        compute_digest: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    },
};

/// A private key that is ready to sign.
enum SigningKey {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

struct RingSigner {
    algorithm: Algorithm,
    key: SigningKey,
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        let random = SystemRandom::new();
        match &self.key {
            SigningKey::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            SigningKey::Ecdsa(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| signature::Error::new())?;
                Ok(signature.as_ref().to_vec())
            }
            SigningKey::Rsa(pair, padding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*padding, &random, message, &mut signature).map_err(|_| signature::Error::new())?;
                Ok(signature)
            }
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn signer_factory(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    require_family(*algorithm, key.family())?;
    let der = key.as_bytes();
    let key = match algorithm {
        Algorithm::EdDSA => SigningKey::Ed25519(ed25519(der)?),
        Algorithm::ES256 => SigningKey::Ecdsa(ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, der)?),
        Algorithm::ES384 => SigningKey::Ecdsa(ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, der)?),
        Algorithm::RS256 => SigningKey::Rsa(rsa(der)?, &RSA_PKCS1_SHA256),
        Algorithm::RS384 => SigningKey::Rsa(rsa(der)?, &RSA_PKCS1_SHA384),
        Algorithm::RS512 => SigningKey::Rsa(rsa(der)?, &RSA_PKCS1_SHA512),
        Algorithm::PS256 => SigningKey::Rsa(rsa(der)?, &RSA_PSS_SHA256),
        Algorithm::PS384 => SigningKey::Rsa(rsa(der)?, &RSA_PSS_SHA384),
        Algorithm::PS512 => SigningKey::Rsa(rsa(der)?, &RSA_PSS_SHA512),
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(RingSigner { algorithm: *algorithm, key }))
}

/// The check that an algorithm makes of a signature.
enum Check {
    /// Over the bytes of a public key.
    Bytes(&'static dyn VerificationAlgorithm),
    /// Over an RSA key, which may be given as modulus and exponent.
    Rsa(&'static RsaParameters),
}

struct RingVerifier {
    algorithm: Algorithm,
    check: Check,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let verified = match (&self.check, self.key.kind()) {
            (Check::Bytes(check), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*check, key).verify(message, signature)
            }
            (Check::Rsa(check), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(*check, key).verify(message, signature)
            }
            (Check::Rsa(check), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                rsa::PublicKeyComponents { n, e }.verify(check, message, signature)
            }
            (Check::Bytes(_), DecodingKeyKind::RsaModulusExponent { .. }) => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

fn verifier_factory(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    require_family(*algorithm, key.family())?;
    let check = match algorithm {
        Algorithm::EdDSA => Check::Bytes(&ED25519),
        Algorithm::ES256 => Check::Bytes(&ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Check::Bytes(&ECDSA_P384_SHA384_FIXED),
        Algorithm::RS256 => Check::Rsa(&RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Check::Rsa(&RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Check::Rsa(&RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Check::Rsa(&RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Check::Rsa(&RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Check::Rsa(&RSA_PSS_2048_8192_SHA512),
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier { algorithm: *algorithm, check, key: key.clone() }))
}

/// A key of one family is never tried with an algorithm of another.
fn require_family(algorithm: Algorithm, family: AlgorithmFamily) -> Result<()> {
    if family.algorithms().contains(&algorithm) { Ok(()) } else { Err(ErrorKind::InvalidKeyFormat.into()) }
}

fn ed25519(der: &[u8]) -> Result<Ed25519KeyPair> {
    // These keys hold no public key (PKCS #8 version 1), so there is none to check.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| ErrorKind::InvalidEddsaKey.into())
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, der: &[u8]) -> Result<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).map_err(|_| ErrorKind::InvalidEcdsaKey.into())
}

fn rsa(der: &[u8]) -> Result<RsaKeyPair> {
    RsaKeyPair::from_der(der).map_err(|error| Error::from(ErrorKind::InvalidRsaKey(error.to_string())))
}

fn rsa_pub_components_from_private_key(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let components = rsa::PublicKeyComponents::<Vec<u8>>::from(rsa(der)?.public());
    Ok((components.n, components.e))
}

fn ec_pub_components_from_private_key(der: &[u8], algorithm: Algorithm) -> Result<(EllipticCurve, Vec<u8>, Vec<u8>)> {
    let (pair, curve, coordinate_bytes) = match algorithm {
        Algorithm::ES256 => (ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, der)?, EllipticCurve::P256, 32),
        Algorithm::ES384 => (ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, der)?, EllipticCurve::P384, 48),
        _ => return Err(ErrorKind::InvalidEcdsaKey.into()),
    };
    // An uncompressed point (SEC 1, section 2.3.3): 0x04, then both coordinates.
    match pair.public_key().as_ref() {
        [4, point @ ..] if point.len() == 2 * coordinate_bytes => {
            let (x, y) = point.split_at(coordinate_bytes);
            Ok((curve, x.to_vec(), y.to_vec()))
        }
        _ => Err(ErrorKind::InvalidEcdsaKey.into()),
    }
}

fn ed_pub_components_from_private_key(der: &[u8], curve: &EllipticCurve) -> Result<Vec<u8>> {
    match curve {
        EllipticCurve::Ed25519 => Ok(ed25519(der)?.public_key().as_ref().to_vec()),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

/// Makes ring the crypto provider of this process, for tokens and for TLS. Later calls change nothing.
pub fn install() {
    // Both return an error where a provider is installed already, by an earlier call or by the program.
    let _ = RING.install_default();
    let _ = rustls::crypto::ring::default_provider().install_default();
}

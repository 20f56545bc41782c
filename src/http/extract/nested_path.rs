//! Path segments below an account: a hold by its id, and a transaction by its version.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};
use uuid::Uuid;

use super::parameters::{path_parameters, uuid};
use crate::http::{error_code::ErrorCode, problem::Problem};

/// The ids of an account and of one of its holds.
#[derive(Clone, Copy, Debug)]
pub struct PathHold {
    /// The account.
    pub account_id: Uuid,
    /// The hold. Whether the account has it is not checked.
    pub hold_id: Uuid,
}

/// The id of an account and the version of one of its transactions.
#[derive(Clone, Copy, Debug)]
pub struct PathTransaction {
    /// The account.
    pub account_id: Uuid,
    /// The version of the transaction's event in the account's stream, at least 1.
    pub version: i64,
}

impl<S: Send + Sync> FromRequestParts<S> for PathHold {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = path_parameters(parts, state).await?;
        Ok(Self {
            account_id: uuid("account_id", segment(&path, "account_id")?)?,
            hold_id: uuid("hold_id", segment(&path, "hold_id")?)?,
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PathTransaction {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = path_parameters(parts, state).await?;
        Ok(Self {
            account_id: uuid("account_id", segment(&path, "account_id")?)?,
            version: transaction_version(segment(&path, "version")?)?,
        })
    }
}

fn segment<'a>(path: &'a RawPathParams, name: &str) -> Result<&'a str, Problem> {
    let found = path.iter().find(|(segment, _)| *segment == name);
    found.map(|(_, text)| text).ok_or_else(|| Problem::from_code(ErrorCode::NotFound))
}

/// A version in its only notation: a key identifies the path of its request, so that `7` and `07` would be two requests.
///
/// # Errors
/// 400 `invalid_parameter` if the text is not the version of a transaction.
pub fn transaction_version(text: &str) -> Result<i64, Problem> {
    let parsed = text.parse().ok().filter(|version: &i64| *version > 0 && version.to_string() == text);
    parsed.ok_or_else(|| {
        let detail =
            "version must be the version of a transaction, such as 2. GET the transactions of the account to find it.";
        Problem::invalid_parameter("version", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::transaction_version;

    #[test]
    fn a_version_has_one_notation() {
        assert_eq!(transaction_version("1").ok(), Some(1));
        assert_eq!(transaction_version("9223372036854775807").ok(), Some(i64::MAX));
        for invalid in ["", "0", "-1", "+1", "01", "1.0", "1e0", " 1", "9223372036854775808", "x"] {
            assert!(transaction_version(invalid).is_err(), "{invalid:?}");
        }
    }
}

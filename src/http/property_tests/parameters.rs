//! Values in queries and bodies: days, times, ids, amounts, currencies, channels and texts.

use proptest::prelude::*;

use super::{super::extract::parameters::*, mutated};
use passbook_domain::money::MINOR_UNITS_MAX;

fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

/// A number in a body, parsed as an amount and as an initial deposit.
fn minor_units(json: &str) -> Option<(Option<i64>, Option<i64>)> {
    let number: MinorUnits = serde_json::from_str(json).ok()?;
    Some((number.amount().ok().map(i64::from), number.zero_or_more("initial_deposit").ok()))
}

proptest! {
    #[test]
    fn arbitrary_text_is_a_formatted_day_or_rejected(
        text in prop_oneof![any_text(), mutated("[0-9]{4}-[01][0-9]-[0-3][0-9]")]
    ) {
        if let Ok(day) = date("from", Some(&text)) {
            let day = day.expect("a value");
            prop_assert_eq!(day.to_string(), text);
            prop_assert!(*day.format("%Y").to_string() >= *"0001");
        }
    }

    #[test]
    fn arbitrary_times_are_parsed_back(
        text in prop_oneof![any_text(), mutated("[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:[0-5][0-9])")]
    ) {
        if let Ok(parsed) = time("as_of", Some(&text)) {
            let time_in_utc = parsed.expect("a value");
            // With an offset, the time in UTC can be outside the years of four digits, which RFC 3339 cannot write.
            let year = chrono::Datelike::year(&time_in_utc);
            prop_assert!((-1..=10_000).contains(&year), "{text}");
            if (0..=9_999).contains(&year) {
                prop_assert_eq!(time("as_of", Some(&time_in_utc.to_rfc3339())).ok().flatten(), Some(time_in_utc));
            }
        }
    }

    #[test]
    fn arbitrary_text_is_a_hyphenated_id_or_rejected(
        text in prop_oneof![any_text(), mutated("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")]
    ) {
        if let Ok(id) = uuid("account_id", &text) {
            prop_assert_eq!(id.to_string(), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn arbitrary_numbers_are_amounts_in_digits_or_rejected(
        text in prop_oneof![any_text(), "-?[0-9]{1,20}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?", "\"[0-9]{1,4}\""]
    ) {
        let text = text.trim();
        if let Some((amount, initial_deposit)) = minor_units(text) {
            for accepted in [amount, initial_deposit].into_iter().flatten() {
                prop_assert_eq!(accepted.to_string(), text);
                prop_assert!((0..=MINOR_UNITS_MAX).contains(&accepted));
            }
            prop_assert_ne!(amount, Some(0));
        }
    }

    #[test]
    fn arbitrary_valid_amounts_are_accepted(amount in 1..=MINOR_UNITS_MAX) {
        prop_assert_eq!(minor_units(&amount.to_string()), Some((Some(amount), Some(amount))));
    }

    #[test]
    fn arbitrary_text_is_a_currency_or_channel_by_name_or_rejected(
        text in prop_oneof![any_text(), "[A-Z]{3}", mutated("(branch|atm|online|EUR)")]
    ) {
        if let Ok(currency) = currency(&text) {
            prop_assert_eq!(currency.code(), &*text);
        }
        if channel(&text).is_ok() {
            prop_assert!(["branch", "atm", "online"].contains(&&*text), "{text}");
        }
    }

    #[test]
    fn arbitrary_texts_are_storable_or_rejected(sent in prop_oneof![any::<String>(), "\\PC{490,510}", "[a\\x00]{250,260}"]) {
        let is_unchanged = |text: &str, max: usize| text == sent && text.chars().count() <= max && !text.contains('\0');
        let is_storable = !sent.contains('\0');
        match text("reference", Some(sent.clone())) {
            Ok(accepted) => prop_assert!(is_unchanged(&accepted.expect("a value"), TEXT_CHARS_MAX)),
            Err(_) => prop_assert!(!is_storable || sent.chars().count() > TEXT_CHARS_MAX),
        }
        match owner(sent.clone()) {
            Ok(accepted) => prop_assert!(!accepted.is_empty() && is_unchanged(&accepted, OWNER_CHARS_MAX)),
            Err(_) => prop_assert!(!is_storable || !(1..=OWNER_CHARS_MAX).contains(&sent.chars().count())),
        }
    }

    #[test]
    fn arbitrary_limits_are_within_bounds_or_rejected(requested in any::<i64>()) {
        prop_assert_eq!(limit(Some(requested)).ok(), Some(requested).filter(|limit| (1..=1_000).contains(limit)));
    }
}

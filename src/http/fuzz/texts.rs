//! Days, times, ids, amounts and words of queries and bodies.

use proptest::prelude::*;

use super::{super::parameters::*, mutated};
use passbook_domain::money::MINOR_UNITS_MAX;

fn anything() -> impl Strategy<Value = String> {
    "\\PC{0,60}"
}

/// What is taken of a number in a body, as an amount and as an initial deposit.
fn minor_units(json: &str) -> Option<(Option<i64>, Option<i64>)> {
    let number: MinorUnits = serde_json::from_str(json).ok()?;
    Some((number.amount().ok().map(i64::from), number.initial_deposit().ok()))
}

proptest! {
    #[test]
    fn whatever_is_taken_for_a_day_is_written_in_one_way(
        text in prop_oneof![anything(), mutated("[0-9]{4}-[01][0-9]-[0-3][0-9]")]
    ) {
        if let Ok(day) = date("from", Some(&text)) {
            let day = day.expect("there is one");
            prop_assert_eq!(day.to_string(), text);
            prop_assert!(*day.format("%Y").to_string() >= *"0001");
        }
    }

    #[test]
    fn whatever_is_taken_for_a_time_is_read_back(
        text in prop_oneof![anything(), mutated("[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,12})?(Z|[+-][0-2][0-9]:[0-5][0-9])")]
    ) {
        if let Ok(taken) = time("as_of", Some(&text)) {
            let taken = taken.expect("there is one");
            // With an offset it may lie just before or behind the years of four digits, which nothing is written in.
            let year = chrono::Datelike::year(&taken);
            prop_assert!((-1..=10_000).contains(&year), "{text}");
            if (0..=9_999).contains(&year) {
                prop_assert_eq!(time("as_of", Some(&taken.to_rfc3339())).ok().flatten(), Some(taken));
            }
        }
    }

    #[test]
    fn whatever_is_taken_for_an_id_has_hyphens(
        text in prop_oneof![anything(), mutated("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")]
    ) {
        if let Ok(id) = uuid("account_id", &text) {
            prop_assert_eq!(id.to_string(), text.to_ascii_lowercase());
        }
    }

    #[test]
    fn whatever_number_is_taken_for_money_is_written_in_digits(
        text in prop_oneof![anything(), "-?[0-9]{1,20}(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,3})?", "\"[0-9]{1,4}\""]
    ) {
        let text = text.trim();
        if let Some((amount, initial_deposit)) = minor_units(text) {
            for taken in [amount, initial_deposit].into_iter().flatten() {
                prop_assert_eq!(taken.to_string(), text);
                prop_assert!((0..=MINOR_UNITS_MAX).contains(&taken));
            }
            prop_assert_ne!(amount, Some(0));
        }
    }

    #[test]
    fn whatever_amount_is_of_the_contract_is_taken(amount in 1..=MINOR_UNITS_MAX) {
        prop_assert_eq!(minor_units(&amount.to_string()), Some((Some(amount), Some(amount))));
    }

    #[test]
    fn whatever_is_taken_for_a_currency_or_a_channel_is_its_word(
        text in prop_oneof![anything(), "[A-Z]{3}", mutated("(branch|atm|online|EUR)")]
    ) {
        if let Ok(currency) = currency(&text) {
            prop_assert_eq!(currency.code(), &*text);
        }
        if channel(&text).is_ok() {
            prop_assert!(["branch", "atm", "online"].contains(&&*text), "{text}");
        }
    }

    #[test]
    fn whatever_text_is_kept_can_be_kept(given in prop_oneof![any::<String>(), "\\PC{490,510}", "[a\\x00]{250,260}"]) {
        let kept = |taken: &str, chars_max| taken == given && taken.chars().count() <= chars_max && !taken.contains('\0');
        let storable = !given.contains('\0');
        match text("reference", Some(given.clone())) {
            Ok(taken) => prop_assert!(kept(&taken.expect("there is one"), TEXT_CHARS_MAX)),
            Err(_) => prop_assert!(!storable || given.chars().count() > TEXT_CHARS_MAX),
        }
        match owner(given.clone()) {
            Ok(taken) => prop_assert!(!taken.is_empty() && kept(&taken, OWNER_CHARS_MAX)),
            Err(_) => prop_assert!(!storable || !(1..=OWNER_CHARS_MAX).contains(&given.chars().count())),
        }
    }

    #[test]
    fn whatever_limit_is_taken_is_within_bounds(asked in any::<i64>()) {
        prop_assert_eq!(limit(Some(asked)).ok(), Some(asked).filter(|asked| (1..=1_000).contains(asked)));
    }
}

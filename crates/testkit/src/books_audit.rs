//! Folds the books from the events without any code of the service, and compares every row of the ledger totals with the fold.

use std::collections::{BTreeMap, HashMap};

use chrono::NaiveDate;
use sqlx::{PgConnection, query_as};
use uuid::Uuid;

use crate::{audit::balance_change, log::Event};

/// The ledger account of what the bank owes its customers.
pub const CUSTOMER_DEPOSITS: &str = "liabilities:customer-deposits";

/// A movement of money with its two ledger accounts.
#[derive(Clone, Debug, PartialEq)]
pub struct Booking {
    /// The event.
    pub event_id: Uuid,
    /// The UTC day on which it was recorded.
    pub day: NaiveDate,
    /// The ISO 4217 code.
    pub currency: String,
    /// What the customer's account gained, in minor units; negative for a loss.
    pub change: i64,
    /// The ledger account on the other side.
    pub other: String,
}

/// The debits and credits of each currency and ledger account.
pub type Sums = BTreeMap<(String, String), (i128, i128)>;

impl Booking {
    /// Adds the two sides to the sums.
    pub fn add_to(&self, sums: &mut Sums) {
        let amount = i128::from(self.change.abs());
        let mut post = |account: &str, is_debit: bool| {
            let (debit, credit) = sums.entry((self.currency.clone(), account.to_owned())).or_default();
            *(if is_debit { debit } else { credit }) += amount;
        };
        post(CUSTOMER_DEPOSITS, self.change < 0);
        post(&self.other, self.change > 0);
    }
}

/// The currency of each account.
pub fn currencies(events: &[Event]) -> HashMap<Uuid, String> {
    let openings = events.iter().filter(|event| event.event_type == "AccountOpened");
    openings.map(|event| (event.stream_id, event.json()["currency"].as_str().unwrap().to_owned())).collect()
}

/// The movements of money in the order of the events. A reversal has the other side of the movement that it reverses.
pub fn bookings(events: &[Event]) -> Vec<Booking> {
    let currencies = currencies(events);
    let mut others: HashMap<(Uuid, i64), String> = HashMap::new();
    let booking = |event: &Event| {
        let data = event.json();
        let other = match (event.event_type.as_str(), data["transfer_id"].is_string()) {
            (_, true) => "liabilities:transfers-in-transit".to_owned(),
            ("HoldCaptured", _) => "liabilities:captures".to_owned(),
            ("MovementReversed", _) => others[&(event.stream_id, data["reverses_version"].as_i64().unwrap())].clone(),
            _ => format!("assets:cash:{}", data["channel"].as_str().unwrap_or("unspecified")),
        };
        others.insert((event.stream_id, event.version), other.clone());
        Booking {
            event_id: event.id,
            day: event.recorded_at.date_naive(),
            currency: currencies[&event.stream_id].clone(),
            change: balance_change(event),
            other,
        }
    };
    events.iter().filter(|event| balance_change(event) != 0).map(booking).collect()
}

/// The sums of all movements up to the end of a day; `None`: of all. A currency without movements has customer deposits of 0.
pub fn sums_until(events: &[Event], day: Option<NaiveDate>) -> Sums {
    let is_included = |date: NaiveDate| day.is_none_or(|day| date <= day);
    let mut sums = Sums::new();
    let opened: Vec<Event> =
        events.iter().filter(|event| is_included(event.recorded_at.date_naive())).cloned().collect();
    for currency in currencies(&opened).into_values() {
        sums.entry((currency, CUSTOMER_DEPOSITS.to_owned())).or_default();
    }
    for booking in bookings(events).iter().filter(|booking| is_included(booking.day)) {
        booking.add_to(&mut sums);
    }
    sums
}

/// Compares every row of the ledger totals with the fold.
pub(crate) async fn check_ledger(connection: &mut PgConnection, events: &[Event]) {
    type Totals = BTreeMap<(NaiveDate, String, String), (i128, i128, i64)>;
    let rows: Vec<(NaiveDate, String, String, String, String, i64)> = query_as(
        "SELECT day, currency, ledger_account, sum(debit)::text, sum(credit)::text, sum(event_count)::bigint
         FROM ledger_total JOIN projection USING (partition, generation)
         WHERE name = 'ledger_totals' AND state = 'live'
         GROUP BY day, currency, ledger_account",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let totals: Totals = rows
        .into_iter()
        .map(|(day, currency, account, debit, credit, count)| {
            ((day, currency, account), (debit.parse().unwrap(), credit.parse().unwrap(), count))
        })
        .collect();
    let currencies = currencies(events);
    let mut expected = Totals::new();
    for event in events {
        // The streams of other aggregates have no currency.
        let Some(currency) = currencies.get(&event.stream_id).cloned() else { continue };
        let day = event.recorded_at.date_naive();
        expected.entry((day, currency, CUSTOMER_DEPOSITS.to_owned())).or_default().2 += 1;
    }
    for booking in bookings(events) {
        let mut sums = Sums::new();
        booking.add_to(&mut sums);
        for ((currency, account), (debit, credit)) in sums {
            let total = expected.entry((booking.day, currency, account)).or_default();
            *total = (total.0 + debit, total.1 + credit, total.2);
        }
    }
    assert_eq!(totals, expected, "ledger_total equals the fold");
}

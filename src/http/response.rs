//! Responses that succeed: receipts of commands and results of queries, with the headers that describe them.

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    commands::Target,
    header_names::{IDEMPOTENCY_REPLAYED, PASSBOOK_POSITION},
};
use passbook_audit::EventRecord;
use passbook_bank::{AccountReceipt, CommandOutcome, TransferReceipt};
use passbook_event_store::Position;
use passbook_read_model::{
    Positioned,
    accounts::AccountView,
    daily_balances::DailyBalance,
    holds::HoldView,
    transactions::{AccountTransactionView, TransactionView},
};
use passbook_webhooks::{Delivery, Webhook};

/// The receipt of a command.
pub fn receipt(target: Target, outcome: &CommandOutcome) -> Response {
    let CommandOutcome { receipt, replayed } = outcome;
    let mut headers = HeaderMap::new();
    insert(&mut headers, PASSBOOK_POSITION, &receipt.position().to_string());
    if let Some(account) = target.tagged_account(receipt) {
        insert(&mut headers, header::ETAG, &receipt_etag(account));
    }
    if let Some(location) = target.location(receipt) {
        insert(&mut headers, header::LOCATION, &location);
    }
    if *replayed {
        insert(&mut headers, IDEMPOTENCY_REPLAYED, "true");
    }
    (target.status(), headers, Json(receipt)).into_response()
}

/// The ETag of an account after a command: its version.
fn receipt_etag(account: &AccountReceipt) -> String {
    format!("\"{}\"", account.version)
}

/// The receipt of a command that may change two accounts.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only the derive reads it")]
pub enum CommandReceipt {
    /// One account changed.
    Account(AccountReceipt),
    /// Money moved between two accounts.
    Transfer(Box<TransferReceipt>),
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    /// The rows. There can be fewer than `limit`, or none, although `next` is not `null`.
    pub data: Vec<T>,
    /// The cursor of the next page, to be passed as `after`; `null` only at the end of the list.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page whose cursor is made from its last row. The cursor is absent unless `has_more` rows follow.
    pub fn new(data: Vec<T>, has_more: bool, cursor: impl FnOnce(&T) -> String) -> Self {
        let next = data.last().filter(|_| has_more).map(cursor);
        Self { data, next }
    }

    /// A page of the read model. `cursor` makes the cursor of the key after which the next page starts.
    pub fn of<K>(page: passbook_read_model::Page<T, K>, cursor: impl FnOnce(K) -> String) -> Self {
        Self { data: page.rows, next: page.next.map(cursor) }
    }
}

/// Declares the schemas of pages: that of a generic [`Page`] would repeat the schema of its rows instead of referring to it.
macro_rules! page_schemas {
    ($($name:ident of $row:ident,)+) => {$(
        /// A page of a list.
        #[derive(ToSchema)]
        #[expect(dead_code, reason = "only the derive reads it")]
        pub struct $name {
            /// The rows.
            data: Vec<$row>,
            /// The cursor of the next page, to be passed as `after`; `null` on the last page.
            #[schema(required = true)]
            next: Option<String>,
        }
    )+};
}

page_schemas! {
    AccountPage of AccountView,
    HoldPage of HoldView,
    TransactionPage of TransactionView,
    AccountTransactionPage of AccountTransactionView,
    DailyBalancePage of DailyBalance,
    AccountEventPage of EventRecord,
    WebhookPage of Webhook,
    DeliveryPage of Delivery,
}

/// The result of a query as JSON, with the position up to which its view has read.
pub fn json_view<T: Serialize>(view: Positioned<T>) -> Response {
    (position_header(&view.position), Json(view.value)).into_response()
}

/// The header with the position up to which a view has read.
pub fn position_header(position: &Position) -> [(HeaderName, String); 1] {
    [(PASSBOOK_POSITION, position.to_string())]
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

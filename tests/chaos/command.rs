//! The commands that clients send.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// A command. Every attempt sends the same request.
#[derive(Clone, Debug)]
pub struct Command {
    /// The request id. Events carry it as the correlation id in their metadata.
    pub key: String,
    /// Whether `key` is also sent as the idempotency key. Only then is a retry after an unknown outcome safe.
    pub is_keyed: bool,
    pub method: Method,
    pub path: String,
    pub body: Value,
    pub if_match: Option<i64>,
    /// The accounts that the command names.
    pub accounts: Vec<Uuid>,
    /// The hold that the command captures or voids.
    pub hold: Option<Uuid>,
    /// The commands of a batch of which all or none is executed.
    pub items: Vec<Command>,
    /// The id of the request that sent the command together with others; `None` if the command has a request of its own.
    pub request: Option<String>,
    /// The type of the event that it records in each account. Expiries of holds may precede it, and the reversal of a transfer
    /// records its event in both accounts.
    pub event_types: &'static [&'static str],
}

impl Command {
    pub fn open(key: String, account: Uuid, initial_deposit: u64) -> Self {
        let body =
            json!({"account_id": account, "currency": "EUR", "owner": "chaos", "initial_deposit": initial_deposit});
        Self::new(key, "/v1/accounts".to_owned(), body, vec![account], &["AccountOpened"])
    }

    pub fn deposit(key: String, account: Uuid, amount: u64) -> Self {
        Self::on(key, account, "deposits", json!({"amount": amount}), &["MoneyDeposited"])
    }

    pub fn withdrawal(key: String, account: Uuid, amount: u64) -> Self {
        Self::on(key, account, "withdrawals", json!({"amount": amount, "reference": "ätm"}), &["MoneyWithdrawn"])
    }

    pub fn transfer(key: String, from: Uuid, to: Uuid, amount: u64) -> Self {
        let body = json!({"from": from, "to": to, "amount": amount});
        Self::new(key, "/v1/transfers".to_owned(), body, vec![from, to], &["TransferSent", "TransferReceived"])
    }

    pub fn freeze(key: String, account: Uuid) -> Self {
        Self::on(key, account, "freeze", json!({"reason": "chaos"}), &["AccountFrozen"])
    }

    pub fn unfreeze(key: String, account: Uuid) -> Self {
        Self::on(key, account, "unfreeze", json!({"reason": "chaos"}), &["AccountUnfrozen"])
    }

    pub fn close(key: String, account: Uuid) -> Self {
        Self::on(key, account, "close", json!({"reason": "chaos"}), &["AccountClosed"])
    }

    pub fn place_hold(key: String, account: Uuid, amount: u64, expires_in_seconds: u64) -> Self {
        let body = json!({"amount": amount, "expires_in_seconds": expires_in_seconds, "reference": "order"});
        Self::on(key, account, "holds", body, &["HoldPlaced"])
    }

    /// Captures a hold; `body` is the request. With `to`, the money is transferred to that account.
    pub fn capture(key: String, account: Uuid, hold: Uuid, body: Value) -> Self {
        let to = body["to"].as_str().map(|to| to.parse::<Uuid>().unwrap());
        let types: &[&str] = if to.is_some() { &["TransferSent", "TransferReceived"] } else { &["HoldCaptured"] };
        let mut command = Self::on(key, account, &format!("holds/{hold}/capture"), body, types);
        command.accounts.extend(to);
        Self { hold: Some(hold), ..command }
    }

    pub fn void(key: String, account: Uuid, hold: Uuid) -> Self {
        let command = Self::on(key, account, &format!("holds/{hold}/void"), json!({}), &["HoldReleased"]);
        Self { hold: Some(hold), ..command }
    }

    /// Reverses the movement of this version. Without an amount, all that is left of it.
    pub fn reversal(key: String, account: Uuid, version: i64, amount: Option<u64>) -> Self {
        let body = amount.map_or(json!({}), |amount| json!({"amount": amount}));
        Self::on(key, account, &format!("transactions/{version}/reversal"), body, &["MovementReversed"])
    }

    /// Sets the limits of an account; `body` is the request.
    pub fn set_limits(key: String, account: Uuid, body: Value) -> Self {
        Self { method: Method::PUT, ..Self::on(key, account, "limits", body, &["LimitsSet"]) }
    }

    /// A batch of which all or none of the commands is executed.
    pub fn atomic(key: String, items: Vec<Self>) -> Self {
        let commands: Vec<Value> = items.iter().map(Self::as_item).collect();
        let body = json!({"mode": "atomic", "commands": commands});
        Self { items, ..Self::new(key, "/v1/batches".to_owned(), body, vec![], &[]) }
    }

    /// A command on one account.
    fn on(key: String, account: Uuid, operation: &str, body: Value, event_types: &'static [&'static str]) -> Self {
        Self::new(key, format!("/v1/accounts/{account}/{operation}"), body, vec![account], event_types)
    }

    fn new(key: String, path: String, body: Value, accounts: Vec<Uuid>, event_types: &'static [&'static str]) -> Self {
        Self {
            key,
            is_keyed: true,
            method: Method::POST,
            path,
            body,
            if_match: None,
            accounts,
            hold: None,
            items: vec![],
            request: None,
            event_types,
        }
    }

    /// The command as an item of a batch: its name, the parameters of its path and the fields of its body.
    pub fn as_item(&self) -> Value {
        let path: Vec<&str> = self.path.trim_start_matches("/v1/").split('/').collect();
        let mut item = match path[..] {
            ["accounts"] => json!({"command": "open"}),
            ["transfers"] => json!({"command": "transfer"}),
            ["accounts", account, operation] => {
                let command = match operation {
                    "deposits" => "deposit",
                    "withdrawals" => "withdraw",
                    "holds" => "place_hold",
                    "limits" => "set_limits",
                    status => status,
                };
                json!({"command": command, "account_id": account})
            }
            ["accounts", account, "holds", hold, operation] => {
                json!({"command": format!("{operation}_hold"), "account_id": account, "hold_id": hold})
            }
            ["accounts", account, "transactions", version, "reversal"] => {
                json!({"command": "reverse", "account_id": account, "version": version.parse::<i64>().unwrap()})
            }
            _ => panic!("no item of a batch: {self:?}"),
        };
        item.as_object_mut().unwrap().extend(self.body.as_object().unwrap().clone());
        item
    }

    /// Whether the request may carry `If-Match`: the path names the account.
    pub fn accepts_condition(&self) -> bool {
        self.path.starts_with("/v1/accounts/")
    }

    /// Whether the command can record events of these types, in this order.
    pub fn records(&self, types: &[&str]) -> bool {
        types == self.event_types || (self.event_types == ["MovementReversed"] && types == ["MovementReversed"; 2])
    }

    /// Whether a batch can record events of these types, in any order: those of all its commands. Of the reversal of a transfer there
    /// is one more.
    pub fn records_all(&self, types: &[&str]) -> bool {
        let expected: Vec<&str> = self.items.iter().flat_map(|item| item.event_types).copied().collect();
        let count = |types: &[&str], wanted: &str| types.iter().filter(|name| **name == wanted).count();
        types.iter().chain(&expected).all(|name| {
            let (found, least) = (count(types, name), count(&expected, name));
            found == least || (*name == "MovementReversed" && (least..=2 * least).contains(&found))
        })
    }
}

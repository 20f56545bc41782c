//! The trial balance.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use chrono::{Days, NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::{
    extract::parameters::{QueryParameters, date, min_position},
    openapi::PositionText,
    problem::Problem,
    response::json_view,
    state::AppState,
};
use passbook_auth::{Caller, Scope};
use passbook_read_model::{
    MoneySum,
    ledger_totals::{LedgerBalance, TrialBalance},
};

/// The query parameters of the trial balance.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TrialBalanceQuery {
    /// The trial balance at the end of this day (UTC). Default: now.
    #[param(example = "2026-01-31", format = Date, nullable = false)]
    date: Option<String>,
    /// Wait until the view has read up to this position (a `Passbook-Position`), at most 2 s.
    #[param(value_type = Option<PositionText>, nullable = false)]
    min_position: Option<String>,
}

/// The trial balance.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TrialBalance)]
pub struct TrialBalanceBody {
    /// The day at whose end the sums hold; `null`: now.
    #[schema(required = true)]
    date: Option<NaiveDate>,
    /// The ledger accounts with postings, by currency and name.
    data: Vec<LedgerBalance>,
    /// The sums of each currency. Debits equal credits.
    totals: Vec<LedgerTotals>,
}

/// The sums of all ledger accounts of a currency.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LedgerTotals {
    /// The currency (ISO 4217).
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: String,
    /// The sum of all debits, in minor units, as digits.
    #[schema(value_type = String, example = "15500", pattern = "^[0-9]+$")]
    debit: MoneySum,
    /// The sum of all credits, in minor units, as digits.
    #[schema(value_type = String, example = "15500", pattern = "^[0-9]+$")]
    credit: MoneySum,
}

impl TrialBalanceBody {
    fn new(date: Option<NaiveDate>, TrialBalance { lines }: TrialBalance) -> Self {
        let mut totals: BTreeMap<&str, (i128, i128)> = BTreeMap::new();
        for line in &lines {
            let (debit, credit) = totals.entry(&line.currency).or_default();
            *debit += line.debit.0;
            *credit += line.credit.0;
        }
        let total = |(currency, (debit, credit)): (&str, _)| LedgerTotals {
            currency: currency.to_owned(),
            debit: MoneySum(debit),
            credit: MoneySum(credit),
        };
        let totals = totals.into_iter().map(total).collect();
        Self { date, data: lines, totals }
    }
}

/// Get the trial balance
///
/// For each currency and ledger account the sums of all debits and credits, at the end of a day or now. Debits equal credits in
/// every currency. The trial balance of a day that is over is final: no later command changes it. That of the current or a later
/// day contains no event recorded after now.
///
/// `liabilities:customer-deposits` is the sum of all balances of customers, as a credit. A transfer goes through
/// `liabilities:transfers-in-transit`, whose balance is 0 at the end of every day.
#[utoipa::path(
    get, path = "/v1/books/trial-balance", tag = "Queries", security(("bearer" = ["accounts:read:any"])),
    params(TrialBalanceQuery),
    responses(
        (status = 200, description = "The trial balance.", body = TrialBalanceBody),
    ),
)]
pub async fn get_trial_balance(
    State(app): State<AppState>,
    caller: Caller,
    QueryParameters(query): QueryParameters<TrialBalanceQuery>,
) -> Result<Response, Problem> {
    caller.require(Scope::AccountsReadAny)?;
    let date = date("date", query.date.as_deref())?;
    let minimum = min_position(query.min_position.as_deref())?;
    let end = date.and_then(|date| date.checked_add_days(Days::new(1)));
    let minimum = match end {
        Some(end) => app.read_model.settled_in_all_before(end.and_time(NaiveTime::MIN).and_utc(), minimum).await?,
        None => minimum,
    };
    let view = app.read_model.trial_balance(date, minimum.as_ref()).await?;
    Ok(json_view(view.map(|balance| TrialBalanceBody::new(date, balance))))
}

//! A statement as a journal of hledger. Each transaction asserts the balance of the account.

use super::{
    body::{StatementFormat, Unrepresentable},
    content::{Content, kind_label},
};
use crate::hledger::{self, description, on_one_line};
use passbook_read_model::transactions::{Totals, TransactionView};

/// Writes a statement as a journal.
pub(super) struct Hledger(pub(super) Content);

impl StatementFormat for Hledger {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = &*self;
        let period = content.statement.period;
        let opening = content.statement.opening_balance;
        let text = format!(
            "; Statement of account {account}, owner {owner}, from {from}, before {to}\n\
             {head}{commodity}\n\
             {from} * opening balance\n    {name}  {opening} {currency} = {opening} {currency}\n    \
             equity:opening balances\n\n",
            head = hledger::HEAD,
            commodity = hledger::commodity(content.currency),
            account = content.statement.account_id,
            owner = on_one_line(&content.owner),
            from = period.from,
            to = period.to,
            currency = content.currency.code(),
            name = self.account(),
            opening = content.decimal(opening),
        );
        bytes.extend(text.as_bytes());
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        for line in lines {
            bytes.extend(self.transaction(line).as_bytes());
        }
        Ok(())
    }

    fn write_end(&mut self, _: Totals, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let text = format!(
            "{} * closing balance\n    {name}  0 {currency} = {} {currency}\n",
            self.0.last_day(),
            self.0.decimal(self.0.statement.closing_balance),
            name = self.account(),
            currency = self.0.currency.code(),
        );
        bytes.extend(text.as_bytes());
        Ok(())
    }
}

impl Hledger {
    fn account(&self) -> String {
        format!("assets:{}", self.0.statement.account_id)
    }

    fn transaction(&self, line: &TransactionView) -> String {
        let Self(content) = self;
        let reference = line.reference.as_deref().map(description).filter(|reference| !reference.is_empty());
        let transfer = line.transfer_id.map(|id| format!(", transfer:{id}")).unwrap_or_default();
        format!(
            "{day} * ({version}) {description}\n    ; kind:{kind}, event:{event}{transfer}\n    {name}  {amount} {currency} = \
             {balance} {currency}\n    {other}\n\n",
            day = line.recorded_at.date_naive(),
            version = line.version,
            description = reference.unwrap_or_else(|| kind_label(line)),
            kind = line.kind,
            event = line.event_id,
            name = self.account(),
            amount = content.decimal(line.balance_change()),
            balance = content.decimal(line.balance_after),
            currency = content.currency.code(),
            other = other_account(line),
        )
    }
}

/// The account on the other side.
fn other_account(line: &TransactionView) -> String {
    match (line.counterparty_account_id, line.balance_change() < 0) {
        (Some(counterparty), _) => format!("equity:transfers:{counterparty}"),
        (None, true) => "equity:withdrawals".to_owned(),
        (None, false) => "equity:deposits".to_owned(),
    }
}

//! A statement as a bank-to-customer statement of ISO 20022, camt.053.001.08. Elements are in the order of its schema.

use chrono::{DateTime, NaiveDate, SecondsFormat, Utc};
use uuid::Uuid;

use super::{
    body::{StatementFormat, Unrepresentable},
    content::{Content, kind_label, on_one_line, parts},
    xml::Xml,
};
use passbook_read_model::transactions::{Totals, TransactionView};

/// The longest unstructured part of a remittance information (`Max140Text`).
const TEXT_CHARS_MAX: usize = 140;

/// Writes a statement as camt.053.
pub(super) struct Camt053(pub(super) Content);

impl StatementFormat for Camt053 {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = self;
        let period = content.statement.period;
        let mut xml = Xml(bytes);
        xml.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        xml.open("Document xmlns=\"urn:iso:std:iso:20022:tech:xsd:camt.053.001.08\"");
        xml.open("BkToCstmrStmt");
        xml.open("GrpHdr");
        xml.text("MsgId", &Uuid::now_v7().simple().to_string());
        xml.text("CreDtTm", &time(content.created_at));
        xml.close("GrpHdr");
        xml.open("Stmt");
        xml.text("Id", &format!("{}-{}", period.from.format("%Y%m%d"), period.to.format("%Y%m%d")));
        xml.text("CreDtTm", &time(content.created_at));
        xml.open("FrToDt");
        xml.text("FrDtTm", &format!("{}T00:00:00Z", period.from));
        xml.text("ToDtTm", &format!("{}T00:00:00Z", period.to));
        xml.close("FrToDt");
        xml.open("Acct");
        xml.nested(&["Id", "Othr", "Id"], &content.account());
        xml.text("Ccy", content.currency.code());
        xml.nested(&["Ownr", "Nm"], &first(&content.owner));
        xml.close("Acct");
        let last_day = content.last_day();
        balance(&mut xml, content, ("OPBD", period.from), content.statement.opening_balance);
        balance(&mut xml, content, ("CLBD", last_day), content.statement.closing_balance);
        balance(&mut xml, content, ("CLAV", last_day), content.available_balance);
        xml.raw("\n");
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let mut xml = Xml(bytes);
        lines.iter().for_each(|line| entry(&mut xml, &self.0, line));
        Ok(())
    }

    fn write_end(&mut self, _: Totals, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let mut xml = Xml(bytes);
        ["Stmt", "BkToCstmrStmt", "Document"].iter().for_each(|name| xml.close(name));
        xml.raw("\n");
        Ok(())
    }
}

fn balance(xml: &mut Xml<'_>, content: &Content, (code, day): (&str, NaiveDate), minor_units: i64) {
    xml.open("Bal");
    xml.nested(&["Tp", "CdOrPrtry", "Cd"], code);
    amount(xml, content, minor_units);
    xml.nested(&["Dt", "Dt"], &day.to_string());
    xml.close("Bal");
}

/// The magnitude of an amount, and whether it is a credit.
fn amount(xml: &mut Xml<'_>, content: &Content, minor_units: i64) {
    let tag = format!("Amt Ccy=\"{}\"", content.currency.code());
    xml.text(&tag, &content.decimal(minor_units.unsigned_abs()));
    xml.text("CdtDbtInd", if minor_units < 0 { "DBIT" } else { "CRDT" });
}

fn entry(xml: &mut Xml<'_>, content: &Content, line: &TransactionView) {
    let change = line.balance_change();
    xml.open("Ntry");
    xml.text("NtryRef", &line.version.to_string());
    amount(xml, content, change);
    if line.reverses_version.is_some() {
        xml.text("RvslInd", "true");
    }
    xml.nested(&["Sts", "Cd"], "BOOK");
    xml.nested(&["BookgDt", "DtTm"], &time(line.recorded_at));
    xml.nested(&["ValDt", "DtTm"], &time(line.recorded_at));
    let event_id = line.event_id.simple().to_string();
    xml.text("AcctSvcrRef", &event_id);
    transaction_code(xml, line);
    xml.open("NtryDtls");
    xml.open("TxDtls");
    xml.open("Refs");
    if let Some(batch_id) = line.batch_id {
        xml.text("MsgId", &batch_id.simple().to_string());
    }
    xml.text("AcctSvcrRef", &event_id);
    if let Some(transfer_id) = line.transfer_id {
        xml.text("EndToEndId", &transfer_id.simple().to_string());
    }
    xml.close("Refs");
    amount(xml, content, change);
    if let Some(counterparty) = line.counterparty_account_id {
        xml.open("RltdPties");
        let role = if change < 0 { "CdtrAcct" } else { "DbtrAcct" };
        xml.nested(&[role, "Id", "Othr", "Id"], &counterparty.simple().to_string());
        xml.close("RltdPties");
    }
    if let Some(reference) = line.reference.as_deref().filter(|reference| !reference.is_empty()) {
        xml.open("RmtInf");
        parts(reference, TEXT_CHARS_MAX).iter().for_each(|part| xml.text("Ustrd", part));
        xml.close("RmtInf");
    }
    xml.close("TxDtls");
    xml.close("NtryDtls");
    xml.text("AddtlNtryInf", &kind_label(line));
    xml.close("Ntry");
    xml.raw("\n");
}

/// The code of the external code list for bank transactions, and the kind.
fn transaction_code(xml: &mut Xml<'_>, line: &TransactionView) {
    let (family, sub_family) = match (line.kind.as_str(), line.transfer_id.is_some(), line.balance_change() < 0) {
        ("capture", false, _) => ("ICDT", "OTHR"),
        (_, true, true) => ("ICDT", "BOOK"),
        (_, true, false) => ("RCDT", "BOOK"),
        (_, false, true) => ("CNTR", "CWDL"),
        (_, false, false) => ("CNTR", "CDPT"),
    };
    xml.open("BkTxCd");
    xml.open("Domn");
    xml.text("Cd", "PMNT");
    xml.open("Fmly");
    xml.text("Cd", family);
    xml.text("SubFmlyCd", sub_family);
    xml.close("Fmly");
    xml.close("Domn");
    xml.nested(&["Prtry", "Cd"], &line.kind);
    xml.close("BkTxCd");
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// As much of a text as one element can contain.
fn first(text: &str) -> String {
    parts(&on_one_line(text), TEXT_CHARS_MAX).into_iter().next().unwrap_or_default()
}

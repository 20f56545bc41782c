//! A statement as Open Financial Exchange, OFX 2.2.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, NaiveDate, Utc};

use super::{
    body::{StatementFormat, Unrepresentable},
    content::{Content, kind_label, on_one_line, parts},
    xml::Xml,
};
use passbook_read_model::transactions::{Totals, TransactionView};

/// The longest memo (`A-255`).
const MEMO_CHARS_MAX: usize = 255;

/// Writes a statement as OFX.
pub(super) struct Ofx(pub(super) Content);

impl StatementFormat for Ofx {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = self;
        let mut xml = Xml(bytes);
        xml.raw("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        xml.raw(
            "<?OFX OFXHEADER=\"200\" VERSION=\"220\" SECURITY=\"NONE\" OLDFILEUID=\"NONE\" NEWFILEUID=\"NONE\"?>\n",
        );
        xml.open("OFX");
        xml.open("SIGNONMSGSRSV1");
        xml.open("SONRS");
        success(&mut xml);
        xml.text("DTSERVER", &time(content.created_at));
        xml.text("LANGUAGE", "ENG");
        xml.close("SONRS");
        xml.close("SIGNONMSGSRSV1");
        xml.open("BANKMSGSRSV1");
        xml.open("STMTTRNRS");
        xml.text("TRNUID", "0");
        success(&mut xml);
        xml.open("STMTRS");
        xml.text("CURDEF", content.currency.code());
        xml.open("BANKACCTFROM");
        xml.text("BANKID", "PASSBOOK");
        // An account has at most 22 characters: as many as the bytes of the id in base64.
        xml.text("ACCTID", &URL_SAFE_NO_PAD.encode(content.statement.account_id));
        xml.text("ACCTTYPE", "CHECKING");
        xml.close("BANKACCTFROM");
        xml.open("BANKTRANLIST");
        xml.text("DTSTART", &start_of(content.statement.period.from));
        xml.text("DTEND", &start_of(content.statement.period.to));
        xml.raw("\n");
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let mut xml = Xml(bytes);
        for line in lines {
            let change = line.balance_change();
            xml.open("STMTTRN");
            xml.text("TRNTYPE", transaction_type(line));
            xml.text("DTPOSTED", &time(line.recorded_at));
            xml.text("TRNAMT", &self.0.decimal(change));
            xml.text("FITID", &line.event_id.to_string());
            xml.text("REFNUM", &line.version.to_string());
            xml.text("NAME", &kind_label(line));
            let memo = parts(&on_one_line(line.reference.as_deref().unwrap_or_default()), MEMO_CHARS_MAX);
            if let Some(memo) = memo.first().filter(|memo| !memo.trim().is_empty()) {
                xml.text("MEMO", memo);
            }
            xml.close("STMTTRN");
            xml.raw("\n");
        }
        Ok(())
    }

    fn write_end(&mut self, _: Totals, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = self;
        let mut xml = Xml(bytes);
        xml.close("BANKTRANLIST");
        for (name, minor_units) in
            [("LEDGERBAL", content.statement.closing_balance), ("AVAILBAL", content.available_balance)]
        {
            xml.open(name);
            xml.text("BALAMT", &content.decimal(minor_units));
            xml.text("DTASOF", &start_of(content.statement.period.to));
            xml.close(name);
        }
        ["STMTRS", "STMTTRNRS", "BANKMSGSRSV1", "OFX"].iter().for_each(|name| xml.close(name));
        xml.raw("\n");
        Ok(())
    }
}

fn success(xml: &mut Xml<'_>) {
    xml.open("STATUS");
    xml.text("CODE", "0");
    xml.text("SEVERITY", "INFO");
    xml.close("STATUS");
}

fn transaction_type(line: &TransactionView) -> &'static str {
    match (line.transfer_id, line.reverses_version, line.balance_change() < 0) {
        (Some(_), _, _) => "XFER",
        (None, Some(_), true) | (None, None, true) => "DEBIT",
        (None, Some(_), false) => "CREDIT",
        (None, None, false) => "DEP",
    }
}

fn time(time: DateTime<Utc>) -> String {
    time.format("%Y%m%d%H%M%S%.3f[0:GMT]").to_string()
}

fn start_of(day: NaiveDate) -> String {
    day.format("%Y%m%d000000.000[0:GMT]").to_string()
}

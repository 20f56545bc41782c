//! A statement as a web page that is made to be printed. It has no script.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    body::{StatementFormat, Unrepresentable},
    content::{Content, kind_label, on_one_line},
};
use passbook_read_model::transactions::{Totals, TransactionView};

/// The head of the table is repeated on each page, and no line is divided between two pages.
const STYLE: &str = "body{font:12px/1.5 system-ui,sans-serif;color:#111;background:#fff;margin:2rem auto;max-width:60rem;padding:0 1rem}\
    h1{font-size:1.5rem}dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dt{color:#555}dd{margin:0}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #ccc;\
    vertical-align:top;overflow-wrap:anywhere}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
    thead{display:table-header-group}tr{break-inside:avoid}tfoot{display:table-row-group}tfoot th,tfoot td{border-bottom:0}\
    @page{margin:15mm}@media print{body{margin:0;max-width:none}}";

/// Writes a statement as a page.
pub(super) struct Html(pub(super) Content);

impl StatementFormat for Html {
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = self;
        let period = content.statement.period;
        let currency = content.currency.code();
        let title = format!("Statement {} to {}", period.from, content.last_day());
        let head = html! {
            (DOCTYPE)
            (PreEscaped("<html lang=\"en\">"))
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            (PreEscaped("<body>"))
            h1 { "Statement" }
            dl {
                dt { "Account" } dd { (content.statement.account_id) }
                dt { "Owner" } dd { bdi { (on_one_line(&content.owner)) } }
                dt { "Currency" } dd { (currency) }
                dt { "Period" } dd { (period.from) " to " (content.last_day()) " (UTC)" }
            }
            (PreEscaped("<table>"))
            thead {
                tr {
                    th scope="col" { "Date (UTC)" } th scope="col" { "Transaction" } th scope="col" { "Details" }
                    th scope="col" class="n" { "Amount" } th scope="col" class="n" { "Balance" }
                }
            }
            (PreEscaped("<tbody>"))
            tr {
                td { (period.from) } td colspan="3" { "Opening balance" }
                td class="n" { (content.decimal(content.statement.opening_balance)) }
            }
        };
        write(bytes, &head);
        Ok(())
    }

    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        lines.iter().for_each(|line| write(bytes, &self.row(line)));
        Ok(())
    }

    fn write_end(&mut self, totals: Totals, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable> {
        let Self(content) = self;
        let total = |label: &str, amount: String| {
            html! { tr { th scope="row" colspan="3" { (label) } td class="n" { (amount) } td {} } }
        };
        let end = html! {
            (PreEscaped("</tbody>"))
            tfoot {
                (total("Money in", content.decimal(totals.total_in)))
                (total("Money out", content.decimal(-totals.total_out)))
                tr {
                    th scope="row" colspan="4" { "Closing balance on " (content.last_day()) }
                    td class="n" { (content.decimal(content.statement.closing_balance)) " " (content.currency.code()) }
                }
            }
            (PreEscaped("</table></body></html>\n"))
        };
        write(bytes, &end);
        Ok(())
    }
}

impl Html {
    fn row(&self, line: &TransactionView) -> Markup {
        let Self(content) = self;
        html! {
            tr {
                td { (line.recorded_at.format("%Y-%m-%d %H:%M")) }
                td { (kind_label(line)) }
                td {
                    @if let Some(reference) = &line.reference { bdi { (on_one_line(reference)) } br; }
                    @if let Some(counterparty) = line.counterparty_account_id { "Account " (counterparty) }
                    @if let Some(version) = line.reverses_version { " Reverses transaction " (version) }
                }
                td class="n" { (content.decimal(line.balance_change())) }
                td class="n" { (content.decimal(line.balance_after)) }
            }
        }
    }
}

fn write(bytes: &mut Vec<u8>, markup: &Markup) {
    bytes.extend(markup.0.as_bytes());
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn policies_permit_the_style_of_the_page() {
        let hash = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(STYLE)));
        let policies = include_str!("../middleware/security_headers.rs");
        assert_eq!(policies.matches(&hash).count(), 2, "the policies of statements and console need {hash}");
    }
}

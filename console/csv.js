// CSV for people's spreadsheets: written with a byte order mark and without formulas, as the service's statements are; and read,
// as spreadsheets write it.

/** Spreadsheets take a file that starts with it for UTF-8. */
const BYTE_ORDER_MARK = '\ufeff';
/** What some programs drop before they look for a formula: blanks, controls, quotes and characters without a width. */
const IGNORED_PREFIX = /^[\s\p{Cc}"'`\u2018-\u201f\u200b-\u200f\u2060\ufeff]*/u;
const FORMULA_STARTS = ['=', '+', '-', '@', '\uff1d', '\uff0b', '\uff0d', '\uff20'];

/**
 * A text that no spreadsheet executes (OWASP, CSV Injection): an apostrophe precedes each part that starts like a formula, also
 * behind blanks and quotes. Without the apostrophes it is the original text.
 */
export function defused(text) {
  const prefixOf = (cell) => IGNORED_PREFIX.exec(cell)[0];
  const isFormula = (cell) => FORMULA_STARTS.includes(cell[prefixOf(cell).length]);
  // Some program takes each of these characters for the end of a cell or row.
  const cells = text.split(/(?<=[;\t\r\n])/);
  const startsWithControl = /\p{Cc}/u.test(prefixOf(cells[0]));
  return cells.map((cell, n) => (isFormula(cell) || (n === 0 && startsWithControl) ? `'${cell}` : cell)).join('');
}

/** A cell that the console itself wrote, such as an amount: a minus sign at its start is no formula. */
export class Figure {
  constructor(text) {
    this.text = text;
  }
}

/** @param {(string | number | null | undefined | Figure)[][]} rows the first one names the columns */
export function toCsv(rows) {
  const cell = (value) => {
    const text = value instanceof Figure ? value.text : defused(String(value ?? ''));
    return /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return BYTE_ORDER_MARK + rows.map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

/**
 * The rows of a CSV text (RFC 4180). The separator is the first of tab, semicolon and comma that occurs in the first line, so that
 * cells pasted from a spreadsheet and files of every locale are read.
 * @returns {{line: number, cells: string[]}[]} without empty rows
 */
export function parseCsv(text) {
  const input = text.replace(/^\ufeff/, '');
  const [head] = input.split('\n', 1);
  const separator = ['\t', ';', ','].find((each) => head.includes(each)) ?? ',';
  const rows = [];
  let cells = [];
  let cell = '';
  let isQuoted = false;
  let line = 1;
  let startLine = 1;
  const endRow = () => {
    cells.push(cell);
    if (cells.some((each) => each.trim() !== '')) rows.push({ line: startLine, cells: cells.map((each) => each.trim()) });
    cells = [];
    cell = '';
  };
  for (let n = 0; n < input.length; n++) {
    const character = input[n];
    if (isQuoted) {
      if (character === '"' && input[n + 1] === '"') cell += input[++n];
      else if (character === '"') isQuoted = false;
      else cell += character;
    } else if (character === '"' && cell.trim() === '') (isQuoted = true), (cell = '');
    else if (character === separator) cells.push(cell), (cell = '');
    else if (character === '\n') endRow(), (startLine = line + 1);
    else if (character !== '\r') cell += character;
    if (character === '\n') line++;
  }
  endRow();
  return rows;
}

/** Starts the browser's download of a file. */
export function saveFile(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

// The export of a list as CSV: all its rows, also those that the page has not loaded yet.

import { html, useState } from './components.js';
import { Figure, saveFile, toCsv } from './csv.js';
import { decimal } from './money.js';
import { describe } from './problems.js';

const PAGE_ROWS = 1000;
/** More rows are not exported: statements and the feed of events are made for them. */
const ROWS_MAX = 20_000;

/** All rows of a list up to a number: `loadPage(after, limit)` resolves to `{data, next}`. */
export async function readAll(loadPage, rowsMax) {
  const rows = [];
  let after;
  do {
    const { data, next } = await loadPage(after, PAGE_ROWS);
    rows.push(...data);
    after = next;
  } while (after && rows.length < rowsMax);
  return { rows, isComplete: !after };
}

/**
 * @param {object} props
 * @param {(after: string | undefined, limit: number) => Promise<{data: object[], next: string | null}>} props.loadPage
 * @param {[string, (row: object) => any][]} props.columns the name and the content of each column
 * @param {string} props.name the name of the file without its end
 */
export function ExportButton({ loadPage, columns, name }) {
  const [state, setState] = useState({});
  const run = async () => {
    setState({ isBusy: true });
    try {
      const { rows, isComplete } = await readAll(loadPage, ROWS_MAX);
      const table = [columns.map(([title]) => title), ...rows.map((row) => columns.map(([, content]) => content(row)))];
      saveFile(new Blob([toCsv(table)], { type: 'text/csv;charset=utf-8' }), `${name}.csv`);
      setState(isComplete ? {} : { text: `The list is longer: the file has its first ${rows.length} rows. Narrow the filters for the others.` });
    } catch (error) {
      setState({ text: describe(error) });
    }
  };
  return html`<button type="button" class="secondary small" disabled=${state.isBusy} onClick=${run}>${state.isBusy ? 'Exporting…' : 'Export as CSV'}</button>
    <span role="status" class="muted">${state.text}</span>`;
}

/** An amount in major units as a cell; empty until the list of currencies is loaded. */
export const moneyCell = (minor, currency) => (currency && minor !== null && minor !== undefined ? new Figure(decimal(minor, currency.digits)) : '');

/** A time as spreadsheets read it, in UTC. */
export const timeCell = (at) => new Figure(at ? at.slice(0, 19).replace('T', ' ') : '');

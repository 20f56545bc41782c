// Reads the commands of a batch from rows of a spreadsheet: columns become the fields of each command, amounts minor units.

import { parseCsv } from './csv.js';
import { readMoney } from './money.js';
import { ACCOUNT_ID } from './route.js';

/** The API's maximum number of commands. */
const COMMANDS_MAX = 1000;
const HOUR_S = 3600;

/** The fields of each command: those that it requires, then the others. */
const FIELDS = {
  open: [['currency'], ['account_id', 'owner', 'initial_deposit']],
  deposit: [['account_id', 'amount', 'currency'], ['reference', 'channel']],
  withdraw: [['account_id', 'amount', 'currency'], ['reference', 'channel']],
  transfer: [['from', 'to', 'amount', 'currency'], ['reference']],
  place_hold: [['account_id', 'amount', 'currency'], ['expires_in_hours', 'reference']],
  capture_hold: [['account_id', 'hold_id'], ['amount', 'to', 'reference']],
  void_hold: [['account_id', 'hold_id'], ['reason']],
  reverse: [['account_id', 'version'], ['amount', 'reason']],
  freeze: [['account_id'], ['reason']],
  unfreeze: [['account_id'], ['reason']],
  close: [['account_id'], ['reason']],
};

/** What a cell of a column contains, where it is no text. */
const KINDS = { account_id: 'id', from: 'id', to: 'id', hold_id: 'id', amount: 'money', initial_deposit: 'money', version: 'number', expires_in_hours: 'number' };
/** Commands whose API field `currency` checks the currency of the account. For the others it only gives the digits of amounts. */
const SENDS_CURRENCY = ['open', 'deposit', 'withdraw', 'transfer', 'place_hold'];

export const COLUMNS = ['command', ...new Set(Object.values(FIELDS).flat(2))];

export const EXAMPLE = [
  ['command', 'account_id', 'from', 'to', 'amount', 'currency', 'reference'],
  ['deposit', '00000000-0000-0000-0000-000000000001', '', '', '12.50', 'EUR', 'invoice 17'],
  ['transfer', '', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002', '5.00', 'EUR', ''],
].map((row) => row.join('\t')).join('\n');

/**
 * @param {string} text CSV, or cells pasted from a spreadsheet
 * @param {Map<string, {code: string, digits: number}>} currencies
 * @returns {{rows: {line: number, command: object, currency?: object}[], errors: {line: number, text: string}[]}}
 */
export function readCommands(text, currencies) {
  const [head, ...body] = parseCsv(text);
  const columns = head.cells.map((name) => name.toLowerCase());
  const unknown = columns.filter((name) => name !== '' && !COLUMNS.includes(name));
  if (!columns.includes('command')) return { rows: [], errors: [{ line: head.line, text: 'The first row must name the columns, and one of them must be “command”.' }] };
  if (unknown.length > 0) return { rows: [], errors: [{ line: head.line, text: `There is no column “${unknown[0]}”.` }] };
  if (body.length > COMMANDS_MAX) return { rows: [], errors: [{ line: body[COMMANDS_MAX].line, text: `A batch has at most ${COMMANDS_MAX} commands.` }] };
  const rows = [];
  const errors = [];
  for (const { line, cells } of body) {
    try {
      const values = Object.fromEntries(columns.map((name, n) => [name, cells[n] ?? '']).filter(([name, value]) => name && value !== ''));
      rows.push({ line, ...readCommand(values, currencies) });
    } catch (error) {
      if (!(error instanceof RowError)) throw error;
      errors.push({ line, text: error.message });
    }
  }
  return { rows, errors };
}

class RowError extends Error {}

function readCommand({ command: name, ...values }, currencies) {
  const fields = FIELDS[name?.toLowerCase()];
  if (!fields) throw new RowError(name ? `There is no command “${name}”. The commands are ${Object.keys(FIELDS).join(', ')}.` : 'The command is missing.');
  const [required, optional] = fields;
  const command = name.toLowerCase();
  const missing = required.find((field) => values[field] === undefined);
  if (missing) throw new RowError(`The command ${command} needs the column “${missing}”.`);
  const surplus = Object.keys(values).find((field) => field !== 'currency' && !required.includes(field) && !optional.includes(field));
  if (surplus) throw new RowError(`The command ${command} has no “${surplus}”.`);
  const currency = values.currency && currencies.get(values.currency.toUpperCase());
  if (values.currency && !currency) throw new RowError(`There is no currency “${values.currency}”.`);
  const entries = Object.entries(values).filter(([field]) => field !== 'currency').map(([field, text]) => [field, readCell(field, text, currency)]);
  const read = Object.fromEntries(entries);
  if (read.expires_in_hours !== undefined) {
    read.expires_in_seconds = read.expires_in_hours * HOUR_S;
    delete read.expires_in_hours;
  }
  return { currency, command: { command, ...read, ...(SENDS_CURRENCY.includes(command) && currency && { currency: currency.code }) } };
}

function readCell(field, text, currency) {
  if (KINDS[field] === 'id' && !ACCOUNT_ID.test(text)) throw new RowError(`“${field}” must be a full ID.`);
  if (KINDS[field] === 'number') {
    if (!/^[1-9][0-9]{0,8}$/.test(text)) throw new RowError(`“${field}” must be a whole number above zero.`);
    return Number(text);
  }
  if (KINDS[field] !== 'money') return text;
  if (!currency) throw new RowError('An amount needs the column “currency”.');
  const { minor, error, question } = readMoney(text, currency, field === 'initial_deposit');
  if (minor === undefined) throw new RowError(`${text}: ${error ?? `${question} Write the decimals, for example 1234.00 or 1.23.`}`);
  return minor;
}

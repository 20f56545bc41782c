// Reads the text of the search field: what it can be is searched for.

import { readMoney } from './money.js';
import { ACCOUNT_ID } from './route.js';

/** A shorter text is no part of an ID for the API, but it can be the beginning of an owner. */
const AMOUNT = /^(?:([A-Z]{3})\s+)?([0-9][0-9.,' ]*)(?:\s+([A-Z]{3}))?$/i;

/**
 * @param {string} text
 * @param {Map<string, {code: string, digits: number, withdrawn: boolean}>} currencies
 * @returns {{text: string, id?: string, canBePart: boolean, amounts: {currency: string, minor: number}[], hasCurrency: boolean}}
 *   `amounts` are the readings of the text as an amount, by currency
 */
export function readQuery(text, currencies) {
  const typed = text.trim();
  const id = ACCOUNT_ID.test(typed) ? typed.toLowerCase() : undefined;
  const [, before, digits, after] = AMOUNT.exec(typed) ?? [];
  const code = (before ?? after)?.toUpperCase();
  const named = code && currencies.get(code);
  const candidates = named ? [named] : code || digits === undefined ? [] : [...currencies.values()];
  const readings = candidates.map((currency) => ({ currency: currency.code, minor: readMoney(digits, currency).minor }));
  return { text: typed, id, canBePart: typed !== '', amounts: readings.filter(({ minor }) => minor !== undefined), hasCurrency: named !== undefined && named !== '' };
}

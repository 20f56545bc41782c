// Forms that send a command. While one is on its way the form stands still; what is refused is told beside its field, in the
// API's own words; what was typed stays until it was carried out.

import { Field, Money, described, html, said, sentence, useCurrencies, useEffect, useRef, useState } from './parts.js';
import { send } from './commands.js';
import { formatMoney, readMoney } from './money.js';

/** A click so soon behind a success is the second half of a double click. */
const AFTERCLICK_MS = 600;

/** What is wrong with a field, before anything was sent. */
class Unfit extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/**
 * @param {object} form
 * @param {(values: object, way: {amount: Function, send: Function}) => Promise<any>} form.submit reads the values, sends, and
 *   answers what is then said
 * @param {Record<string, string>} [form.fieldOf] the field that a refusal of this code is about
 * @param {(refusal: Error) => string} [form.explain] what else a refusal tells
 */
export function useForm({ submit, fieldOf = {}, explain = () => '' }) {
  const [errors, setErrors] = useState({});
  const [outcome, setOutcome] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const element = useRef(null);
  // Known at once, and not only when the button has been drawn anew: a second click finds it.
  const busy = useRef(false);
  const doneAt = useRef(-Infinity);
  const isGone = useRef(false);
  useEffect(() => () => void (isGone.current = true), []);

  /** Where the keyboard goes on, once the form can be used again. */
  const next = useRef(null);
  useEffect(() => {
    if (isBusy || next.current === null || !element.current) return;
    const place = element.current.elements[next.current] ?? element.current.querySelector('button:not([type])');
    next.current = null;
    place.focus();
  }, [isBusy]);

  const show = (error, names) => {
    const field = error.field ?? error.fields?.map(({ field }) => field).find((name) => names.includes(name)) ?? fieldOf[error.code];
    const text = error.field ? error.message : [error.title && `${error.title}:`, said(error), explain(error)].filter(Boolean).join(' ');
    const place = names.includes(field) ? field : 'form';
    setErrors({ [place]: text });
    next.current = place;
  };

  const onSubmit = async (event) => {
    event.preventDefault();
    if (busy.current || performance.now() - doneAt.current < AFTERCLICK_MS) return;
    busy.current = true;
    const names = [...element.current.elements].map(({ name }) => name).filter(Boolean);
    const values = Object.fromEntries(names.map((name) => [name, element.current.elements[name].value]));
    setErrors({});
    setBusy(true);
    try {
      // What was done before stays told until there is something new to send.
      const result = await submit(values, { amount, send: (command) => (setOutcome(null), send(command, () => isGone.current)) });
      doneAt.current = performance.now();
      element.current?.reset();
      next.current = 'form';
      setOutcome(result);
    } catch (error) {
      show(error, names);
    } finally {
      busy.current = false;
      setBusy(false);
    }
  };
  return { element, errors, outcome, isBusy, onSubmit, clear: () => setErrors({}) };
}

function amount(field, text, currency, zero) {
  if (!currency) throw new Unfit(field, 'The currency is not known yet. Try again in a moment.');
  const read = readMoney(text, currency, zero);
  if (read.minor === undefined) throw new Unfit(field, read.error ?? sentence(read.question));
  return read.minor;
}

export function Form({ form, button, danger, children }) {
  return html`<form ref=${form.element} onSubmit=${form.onSubmit} novalidate aria-busy=${form.isBusy}>
    <fieldset disabled=${form.isBusy} class="bare">${children}
      <button class=${danger ? 'danger' : ''}>${form.isBusy ? 'Sending…' : button}</button>
    </fieldset>
    <div role="status" class="outcome">${form.outcome && html`<p class="notice good">${form.outcome}</p>`}</div>
    <div role="alert">${form.errors.form && html`<p class="notice bad">${form.errors.form}</p>`}</div>
  </form>`;
}

/** A field for an amount, which says how it is read while it is typed, and asks where there are two ways. */
export function AmountField({ id, name = 'amount', label = 'Amount', hint, form, currency, zero }) {
  const [text, setText] = useState('');
  const input = useRef(null);
  const read = currency && text.trim() !== '' ? readMoney(text, currency, zero) : {};
  useEffect(() => void (form.outcome && setText('')), [form.outcome]);
  const choose = (reading) => {
    input.current.value = reading;
    setText(reading);
    form.clear();
    input.current.focus();
  };
  const note = read.question ? html`<${Question} read=${read} currency=${currency} choose=${choose} zero=${zero} />`
    : read.error ? html`<p class="faint">${read.error}</p>`
      : read.minor !== undefined && html`<p class="faint">Read as <${Money} minor=${read.minor} currency=${currency.code} /></p>`;
  const error = form.errors[name];
  return html`<${Field} id=${id} label=${currency ? `${label} in ${currency.code}` : label} error=${read.question ? undefined : error} note=${note} hint=${hint}>
    <input ref=${input} ...${described(id, error, hint)} name=${name} inputmode="decimal" autocomplete="off" class="amount"
      onInput=${(event) => (setText(event.target.value), form.clear())} />
  </${Field}>`;
}

function Question({ read, currency, choose, zero }) {
  return html`<p class="error">${read.question}</p>
    <p class="buttons">${read.readings.map((reading) => html`<button type="button" class="quiet" onClick=${() => choose(reading)}>
      ${formatMoney(readMoney(reading, currency, zero).minor, currency)}</button>`)}</p>`;
}

export { useCurrencies };

// Forms that send a command. While the command is being sent, the form is disabled. An error is shown beside its field. Input is
// kept until the command has succeeded.

import { Field, Money, html, inputProps, useEffect, useRef, useState } from './components.js';
import { send } from './command_results.js';
import { formatMoney, readMoney } from './money.js';
import { describe, toSentence } from './problems.js';

/** A click this soon after a success counts as the second half of a double click. */
const DOUBLE_CLICK_MS = 600;

/** An invalid field that is found before the command is sent. */
export class FieldError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

/**
 * The state and the event handlers of a form.
 * @param {object} form
 * @param {(values: object, helpers: {readAmount: Function, send: Function}) => Promise<any>} form.submit reads the values, sends
 *   the command and resolves to the success message
 * @param {Record<string, string>} [form.fieldOf] maps error codes to the field that caused them
 * @param {() => import('./problems.js').Context} [form.context] what the texts of errors need to know
 */
export function useForm({ submit, fieldOf = {}, context = () => ({}) }) {
  const [errors, setErrors] = useState({});
  const [outcome, setOutcome] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const element = useRef(null);
  // A ref changes immediately, before the button is rendered as disabled, so it also stops a second click.
  const busy = useRef(false);
  const doneAt = useRef(-Infinity);
  const isUnmounted = useRef(false);
  useEffect(() => () => void (isUnmounted.current = true), []);

  /** The name of the field that gets the focus when the form is enabled again. */
  const focusNext = useRef(null);
  useEffect(() => {
    if (isBusy || focusNext.current === null || !element.current) return;
    const target = element.current.elements[focusNext.current] ?? element.current.querySelector('button:not([type])');
    focusNext.current = null;
    target.focus();
  }, [isBusy]);

  const showError = (error, names) => {
    const field = error.field ?? error.fields?.map(({ field }) => field).find((name) => names.includes(name)) ?? fieldOf[error.code];
    const text = error.field ? error.message : describe(error, context());
    const target = names.includes(field) ? field : 'form';
    setErrors({ [target]: text });
    focusNext.current = target;
  };

  const onSubmit = async (event) => {
    event.preventDefault();
    if (busy.current || performance.now() - doneAt.current < DOUBLE_CLICK_MS) return;
    busy.current = true;
    const names = [...element.current.elements].map(({ name }) => name).filter(Boolean);
    const values = Object.fromEntries(names.map((name) => [name, element.current.elements[name].value]));
    setErrors({});
    setBusy(true);
    try {
      // The previous success message stays until the next command is sent.
      const result = await submit(values, { readAmount, send: (command) => (setOutcome(null), send({ ...command, context: context() }, () => isUnmounted.current)) });
      doneAt.current = performance.now();
      element.current?.reset();
      focusNext.current = 'form';
      setOutcome(result);
    } catch (error) {
      showError(error, names);
    } finally {
      busy.current = false;
      setBusy(false);
    }
  };
  return { element, errors, outcome, isBusy, onSubmit, clearErrors: () => setErrors({}) };
}

function readAmount(field, text, currency, zero) {
  if (!currency) throw new FieldError(field, 'The currency list is still loading. Try again in a moment.');
  const amount = readMoney(text, currency, zero);
  if (amount.minor === undefined) throw new FieldError(field, amount.error ?? toSentence(amount.question));
  return amount.minor;
}

export function Form({ form, button, danger, children }) {
  return html`<form ref=${form.element} onSubmit=${form.onSubmit} novalidate aria-busy=${form.isBusy}>
    <fieldset disabled=${form.isBusy} class="plain">${children}
      <button class=${danger ? 'danger' : ''}>${form.isBusy ? 'Sending…' : button}</button>
    </fieldset>
    <div role="status" class="outcome">${form.outcome && html`<p class="notice good">${form.outcome}</p>`}</div>
    <div role="alert">${form.errors.form && html`<p class="notice bad">${form.errors.form}</p>`}</div>
  </form>`;
}

/** An amount field. It shows the amount as it will be sent, and offers the alternatives if the input is ambiguous. */
export function AmountField({ id, name = 'amount', label = 'Amount', hint, initial = '', form, currency, zero }) {
  const [text, setText] = useState(initial);
  const input = useRef(null);
  const amount = currency && text.trim() !== '' ? readMoney(text, currency, zero) : {};
  useEffect(() => void (form.outcome && setText('')), [form.outcome]);
  const choose = (reading) => {
    input.current.value = reading;
    setText(reading);
    form.clearErrors();
    input.current.focus();
  };
  const note = amount.question ? html`<${AmountChoice} amount=${amount} currency=${currency} choose=${choose} zero=${zero} />`
    : amount.error ? html`<p class="muted">${amount.error}</p>`
      : amount.minor !== undefined && html`<p class="muted">Entered: <${Money} minor=${amount.minor} currency=${currency.code} /></p>`;
  const error = form.errors[name];
  return html`<${Field} id=${id} label=${currency ? `${label} (${currency.code})` : label} error=${amount.question ? undefined : error} note=${note} hint=${hint}>
    <input ref=${input} ...${inputProps(id, error, hint)} name=${name} inputmode="decimal" autocomplete="off" class="amount" defaultValue=${initial}
      onInput=${(event) => (setText(event.target.value), form.clearErrors())} />
  </${Field}>`;
}

/** One button for each possible reading of an ambiguous amount. */
function AmountChoice({ amount, currency, choose, zero }) {
  return html`<p class="error">${amount.question}</p>
    <p class="buttons">${amount.readings.map((reading) => html`<button type="button" class="secondary" onClick=${() => choose(reading)}>
      ${formatMoney(readMoney(reading, currency, zero).minor, currency)}</button>`)}</p>`;
}

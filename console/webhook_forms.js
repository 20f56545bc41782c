// The form that registers a webhook, and the secret that is shown this once.

import { CopyButton, Field, html, inputProps, useEffect, useIsUnmounted, useRef, useState } from './components.js';
import { FieldError, Form, useForm } from './form.js';
import { EVENT_TYPES, eventLabel } from './labels.js';
import { ACCOUNT_ID, webhookAddress } from './route.js';
import { findSame, listWebhooks, sendUntilAnswered, webhookPath } from './webhook_requests.js';

const URL_CHARS_MAX = 2048;
const OWNER_CHARS_MAX = 255;
/** Why a secret cannot be stored is known only to the service. */
export const SECRET_CONTEXT = { keepDetailOf: ['storage_unavailable'] };

/** The secret of a webhook. It exists only in the state of the page, and is gone when the page is left. */
export function Secret({ secret, done }) {
  const heading = useRef(null);
  useEffect(() => heading.current.focus(), [secret]);
  // The button is removed with the secret, so the focus moves to the heading of the page.
  const finish = () => (done(), document.querySelector('h1').focus());
  return html`<div class="secret">
    <h3 tabindex="-1" ref=${heading}>Secret of this webhook</h3>
    <p>Copy it now: it is shown this once. With it the endpoint verifies the signatures of deliveries.</p>
    <p><code class="break">${secret}</code></p>
    <p class="buttons"><${CopyButton} text=${secret} label="Copy secret" /></p>
    <p class="buttons"><button type="button" class="secondary" onClick=${finish}>I have stored it</button></p>
  </div>`;
}

/** Where the deliveries begin. */
const STARTS = [['now', 'From now on'], ['first', 'From the first event'], ['cursor', 'After a position']];

/** @param {{onRegistered: () => void}} props */
export function RegisterForm({ onRegistered }) {
  const [registered, setRegistered] = useState(null);
  const [existing, setExisting] = useState(null);
  const [isWaiting, setWaiting] = useState(false);
  const [start, setStart] = useState('now');
  const [types, setTypes] = useState([]);
  const isAbandoned = useIsUnmounted();
  const form = useForm({
    context: () => SECRET_CONTEXT,
    async submit(values) {
      setExisting(null);
      const body = registrationOf(values, start, types);
      try {
        setRegistered(await sendUntilAnswered({ path: webhookPath(), body }, { onLost: () => setWaiting(true), isAbandoned }));
        onRegistered();
      } catch (error) {
        if (error.code !== 'webhook_exists') throw error;
        setExisting({ wasLost: error.wasLost, webhook: await listWebhooks().then(({ data }) => findSame(data, body), () => undefined) });
        onRegistered();
        throw error.wasLost ? new FieldError('form', 'The webhook is registered, but the response with its secret was lost.') : error;
      } finally {
        setWaiting(false);
      }
    },
  });
  const again = () => (setRegistered(null), setTypes([]), setStart('now'));
  if (registered) return html`<p class="notice good">Registered: <a class="break" href=${webhookAddress(registered.webhook_id)}>${registered.url}</a></p><${Secret} secret=${registered.secret} done=${again} />`;
  return html`<${Form} form=${form} button="Register">
    <${Field} id="webhook-url" label="URL" error=${form.errors.url} hint="Begins with https://, and its host has a public address">
      <input ...${inputProps('webhook-url', form.errors.url, true)} name="url" inputmode="url" maxlength=${URL_CHARS_MAX} autocomplete="off" spellcheck="false" class="id" onInput=${form.clearErrors} />
    </${Field}>
    <div class="row">
      <${FilterField} id="webhook-owner" name="owner" label="Owner" hint="Optional: only events of this owner’s accounts" maxlength=${OWNER_CHARS_MAX} form=${form} />
      <${FilterField} id="webhook-account" name="account_id" label="Account ID" hint="Optional: only events of this account" form=${form} />
    </div>
    <${TypeChoice} types=${types} setTypes=${setTypes} />
    <${StartChoice} start=${start} setStart=${setStart} form=${form} />
    <div role="status">${isWaiting && html`<p class="notice warn">The service has not answered. The console sends the registration again until it does. It is never registered twice.</p>`}</div>
    ${existing && html`<${Existing} ...${existing} />`}
  </${Form}>`;
}

function FilterField({ id, name, label, hint, form, ...attributes }) {
  const error = form.errors[name];
  return html`<${Field} id=${id} label=${label} error=${error} hint=${hint}>
    <input ...${inputProps(id, error, true)} name=${name} autocomplete="off" spellcheck="false" onInput=${form.clearErrors} ...${attributes} />
  </${Field}>`;
}

function TypeChoice({ types, setTypes }) {
  const toggle = (type) => setTypes(types.includes(type) ? types.filter((each) => each !== type) : [...types, type]);
  return html`<details class="types"><summary>Types of events: ${types.length === 0 ? 'all' : types.length}</summary>
    <fieldset class="plain checks"><legend class="hint">None chosen: all of them</legend>
      ${EVENT_TYPES.map((type) => html`<label key=${type}><input type="checkbox" checked=${types.includes(type)} onChange=${() => toggle(type)} /> ${eventLabel(type)}</label>`)}
    </fieldset></details>`;
}

function StartChoice({ start, setStart, form }) {
  return html`<fieldset class="choice plain"><legend class="label">Send events</legend>
      ${STARTS.map(([name, label]) => html`<label key=${name}><input type="radio" name="start" value=${name} checked=${start === name} onChange=${() => setStart(name)} /> ${label}</label>`)}
    </fieldset>
    ${start === 'cursor' && html`<${CursorField} id="webhook-after" form=${form} />`}`;
}

export function CursorField({ id, form, onValue, note }) {
  const error = form.errors.after;
  const onInput = (event) => (onValue?.(event.target.value), form.clearErrors());
  return html`<${Field} id=${id} label="Position or cursor" error=${error} note=${note} hint="The position of the last event that the endpoint has, or a cursor of the event feed">
    <input ...${inputProps(id, error, true)} name="after" autocomplete="off" spellcheck="false" class="id" onInput=${onInput} />
  </${Field}>`;
}

/** The body of a registration. */
function registrationOf(values, start, types) {
  const [url, owner, account] = [values.url, values.owner, values.account_id].map((text) => text.trim());
  if (url === '') throw new FieldError('url', 'Enter the URL that receives the events.');
  if (account && !ACCOUNT_ID.test(account)) throw new FieldError('account_id', 'Enter the full account ID.');
  return { url, ...(types.length > 0 && { types }), ...(owner && { owner }), ...(account && { account_id: account }), ...(start !== 'now' && { after: start === 'first' ? '0' : requireCursor(values) }) };
}

/** The cursor that was entered. */
export function requireCursor({ after }) {
  const text = after.trim();
  if (text === '') throw new FieldError('after', 'Enter a position, such as 42.');
  return text;
}

/** The webhook that a registration found: the response to an earlier attempt was lost, or someone has registered it before. */
function Existing({ webhook, wasLost }) {
  return html`<p class="notice warn">${wasLost
    ? 'To get a secret that you can see, rotate it on the page of the webhook. No endpoint uses the lost one.'
    : 'If nobody has its secret any more, rotate it on the page of the webhook.'}
    ${webhook && html` <a class="break" href=${webhookAddress(webhook.webhook_id)}>Open the webhook</a>`}</p>`;
}

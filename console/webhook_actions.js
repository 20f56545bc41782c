// The commands on one webhook: pause, resume, test, new secret, replay and deletion.

import { formatNumber, html, useIsUnmounted, useRef, useState } from './components.js';
import { Form, useForm } from './form.js';
import { describe } from './problems.js';
import { navigate, webhookAddress } from './route.js';
import { CursorField, SECRET_CONTEXT, Secret, requireCursor } from './webhook_forms.js';
import { UnknownOutcome, deleteWebhook, sendOnce, sendUntilAnswered, webhookPath } from './webhook_requests.js';
import { replayEffect, resultOf } from './webhook_texts.js';

/** @param {{webhook: object, onChange: (webhook?: object) => void}} props */
export function WebhookActions({ webhook, onChange }) {
  const sections = [['New secret', RotateForm], ['Replay', ReplayForm], ['Delete', DeleteForm]];
  return html`<section class="card actions" aria-labelledby="actions"><h2 id="actions">Actions</h2>
    <${SimpleCommands} webhook=${webhook} onChange=${onChange} />
    ${sections.map(([title, Section]) => html`<details key=${title} name="action"><summary>${title}</summary><${Section} webhook=${webhook} onChange=${onChange} /></details>`)}
  </section>`;
}

/** Pause or resume, and a test. */
function SimpleCommands({ webhook, onChange }) {
  const [outcome, setOutcome] = useState({});
  const isBusy = useRef(false);
  const isAbandoned = useIsUnmounted();
  const run = async (running, work) => {
    if (isBusy.current) return;
    isBusy.current = true;
    setOutcome({ running });
    try {
      setOutcome(await work());
    } catch (error) {
      setOutcome({ error });
    } finally {
      isBusy.current = false;
      onChange();
    }
  };
  const change = (command, text) => run(`${text}…`, async () => {
    onChange(await sendUntilAnswered({ path: webhookPath(webhook.webhook_id, command) }, { isAbandoned, onLost: () => setOutcome({ running: 'The service has not answered. The console sends it again…' }) }));
    return {};
  });
  const test = () => run('Waiting for the endpoint…', async () => {
    const tested = await sendOnce({ path: webhookPath(webhook.webhook_id, 'test') });
    onChange(tested);
    return { tested };
  });
  const isActive = webhook.state === 'active';
  const { running, tested, error } = outcome;
  return html`<p class="buttons">
      ${isActive
        ? html`<button type="button" key="pause" class="secondary" aria-disabled=${Boolean(running)} onClick=${() => change('pause', 'Pausing')}>Pause</button>`
        : html`<button type="button" key="resume" aria-disabled=${Boolean(running)} onClick=${() => change('resume', 'Resuming')}>Resume</button>`}
      <button type="button" class="secondary" aria-disabled=${Boolean(running)} onClick=${test}>Send a test event</button>
    </p>
    <div role="status">${running && html`<p class="muted">${running}</p>`}
      ${tested && html`<p class=${`notice ${tested.last_error ? 'bad' : 'good'}`}>Test event: ${resultOf({ status: tested.last_status, error: tested.last_error })}</p>`}</div>
    <div role="alert">${error && html`<p class="notice bad">${describe(error, SECRET_CONTEXT)}</p>`}</div>`;
}

/** Sent once only: the rotation after an unanswered one would end the secret that the endpoint has. */
function RotateForm({ webhook, onChange }) {
  const [secret, setSecret] = useState(null);
  const [isUnknown, setUnknown] = useState(false);
  const form = useForm({
    context: () => SECRET_CONTEXT,
    async submit() {
      try {
        const rotated = await sendOnce({ path: webhookPath(webhook.webhook_id, 'rotate-secret') });
        setUnknown(false);
        setSecret(rotated.secret);
        onChange();
      } catch (error) {
        setUnknown(error instanceof UnknownOutcome || isUnknown);
        throw error;
      }
    },
  });
  if (secret) return html`<${Secret} secret=${secret} done=${() => setSecret(null)} />`;
  return html`<${Form} form=${form} button="Make a new secret">
    <p class="muted">For 24 hours deliveries are signed with the new secret and with the present one. Give the endpoint the new one in that time.</p>
    ${isUnknown && html`<p class="notice warn">The response was lost. If the secret was rotated, nobody has the new one, and deliveries are also signed with the one before for 24 hours. A further rotation ends that one at once: make it when you can give the endpoint the new secret immediately.</p>`}
  </${Form}>`;
}

/** Which events a replay sends. */
const STARTS = [['first', 'From the first event'], ['cursor', 'After a position']];

function ReplayForm({ webhook, onChange }) {
  const [start, setStart] = useState('cursor');
  const [after, setAfter] = useState('');
  const question = questionOf(start === 'first' ? '0' : after, webhook);
  const form = useForm({
    async submit(values) {
      const cursor = start === 'first' ? '0' : requireCursor(values);
      const path = webhookPath(webhook.webhook_id, 'replay');
      onChange(await sendOnce({ path, body: { after: cursor } }));
      setAfter('');
      return webhook.state === 'active' ? 'The events are being sent.' : 'The position is set. Resume the webhook to send the events.';
    },
  });
  return html`<${Form} form=${form} button=${question.button} danger>
    <p class="muted">Sets the position of the webhook, which is at ${webhook.position}. The endpoint must ignore events that it has already processed: their <code>webhook-id</code> is the same.</p>
    <fieldset class="choice plain"><legend class="visually-hidden">Which events are sent</legend>
      ${STARTS.map(([name, label]) => html`<label key=${name}><input type="radio" name="start" value=${name} checked=${start === name} onChange=${() => (setStart(name), form.clearErrors())} /> ${label}</label>`)}
    </fieldset>
    ${start === 'cursor' && html`<${CursorField} id="replay-after" form=${form} onValue=${setAfter} />`}
    <p class=${question.skips ? 'warn-text' : undefined} role="status">${question.text}</p>
  </${Form}>`;
}

/** What the replay would do, as a question, and the button that answers it. */
function questionOf(after, { position }) {
  const effect = replayEffect(after, position);
  const events = (count) => `${formatNumber(count)} ${count === 1n ? 'event' : 'events'}`;
  if (effect?.skipped) return { skips: true, button: 'Skip events', text: `Skip ${events(effect.skipped)}? The endpoint never receives them.` };
  if (effect?.again !== undefined) return { button: 'Send again', text: `Send again what the filters select of ${events(effect.again)}?` };
  return { button: 'Set the position', text: after.trim() ? 'Send all events after this position, also those that were sent?' : '' };
}

function DeleteForm({ webhook }) {
  const isAbandoned = useIsUnmounted();
  const form = useForm({
    async submit() {
      await deleteWebhook(webhook.webhook_id, { isAbandoned });
      navigate(webhookAddress());
    },
  });
  return html`<${Form} form=${form} button="Delete this webhook" danger>
    <p class="muted">No further event is sent to ${new URL(webhook.url).host}. Its position and its secret are gone: a webhook that is registered again starts anew.</p>
  </${Form}>`;
}

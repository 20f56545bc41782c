// The page of one webhook: what its state means, its facts, the commands on it, and the last deliveries.

import { AccountLink, CopyButton, ErrorNotice, ListFooter, OwnerLink, StaleNotice, Time, formatNumber, formatTime, html, useEffect, useInterval, useLoad, usePages, useState } from './components.js';
import { eventLabel } from './labels.js';
import { setTitle, webhookAddress } from './route.js';
import { WebhookActions } from './webhook_actions.js';
import { listDeliveries, readWebhook } from './webhook_requests.js';
import { explanation, resultOf, stateOf } from './webhook_texts.js';
import { State, lagOf, lastResponseOf } from './webhooks.js';

const REFRESH_MS = 2_000;
const PAGE_ROWS = 25;

export function Webhook({ id }) {
  const loaded = useLoad((signal) => readWebhook(id, signal), [id]);
  // A command answers with the webhook, which is newer than the last poll.
  const [answered, setAnswered] = useState(null);
  useEffect(() => setAnswered(null), [loaded.data]);
  const isGone = loaded.error?.status === 404;
  useInterval(REFRESH_MS, () => loaded.isLoading || isGone || loaded.error?.status === 403 || loaded.reload());
  const webhook = answered ?? loaded.data;
  useEffect(() => setTitle(webhook ? `Webhook ${new URL(webhook.url).host}` : 'Webhook'), [webhook?.url]);
  const onChange = (next) => (next && setAnswered(next), loaded.reload());
  const back = html`<p><a href=${webhookAddress()}>All webhooks</a></p>`;
  if (!webhook || isGone) return html`<h1 tabindex="-1">Webhook</h1>${back}
    ${isGone ? html`<p class="notice bad" role="alert">There is no webhook with this ID. It may have been deleted.</p>` : html`<${ErrorNotice} error=${loaded.error} retry=${loaded.reload} />`}`;
  return html`<div class=${loaded.error ? 'stale' : undefined}><h1 tabindex="-1" class="break">${webhook.url}</h1>
      <p class="muted"><span role="status"><${State} webhook=${webhook} /></span> Registered <${Time} at=${webhook.registered_at} /></p>${back}</div>
    <${StaleNotice} resource=${loaded} />
    <${Explanation} webhook=${webhook} />
    <div class="account">
      <div><${WebhookActions} webhook=${webhook} onChange=${onChange} /></div>
      <div>
        <section class="card" aria-labelledby="facts"><h2 id="facts">Endpoint</h2><${Facts} webhook=${webhook} /></section>
        <${Deliveries} id=${id} />
      </div>
    </div>`;
}

const KINDS = { failing: 'bad', retrying: 'warn', paused: 'warn' };

/** In words what the state means, and what to do. */
function Explanation({ webhook }) {
  const kind = webhook.last_error && stateOf(webhook) === 'active' ? 'warn' : KINDS[stateOf(webhook)];
  const text = explanation(webhook, formatTime);
  return kind ? html`<p class=${`notice ${kind}`}><strong>${{ failing: 'Failing.', retrying: 'Retrying.', paused: 'Paused.' }[stateOf(webhook)]}</strong> ${text}</p>` : html`<p class="muted">${text}</p>`;
}

function Facts({ webhook }) {
  const fact = (label, value, className) => html`<dt>${label}</dt><dd class=${className}>${value}</dd>`;
  return html`<dl class="facts">
    ${fact('Events', webhook.types.length === 0 ? 'All types' : webhook.types.map(eventLabel).join(', '))}
    ${webhook.owner !== null && fact('Owner', html`<${OwnerLink} owner=${webhook.owner} />`, 'break')}
    ${webhook.account_id !== null && fact('Account', html`<${AccountLink} id=${webhook.account_id} full />`, 'break')}
    ${fact('Position', webhook.position, 'break')}
    ${fact('Behind', lagOf(webhook))}
    ${fact('Last response', lastResponseOf(webhook))}
    ${webhook.last_error !== null && fact('Last error', webhook.last_error, 'break')}
    ${webhook.failing_since !== null && fact('Failing since', html`<${Time} at=${webhook.failing_since} />`)}
    ${fact('Webhook ID', html`${webhook.webhook_id} <${CopyButton} text=${webhook.webhook_id} />`, 'id break')}
  </dl>`;
}

function Deliveries({ id }) {
  const list = usePages((after, signal) => listDeliveries(id, after, PAGE_ROWS, signal), [id]);
  const [isKnown, setKnown] = useState(false);
  useEffect(() => void (!list.isLoading && !list.error && setKnown(true)), [list.isLoading]);
  useInterval(REFRESH_MS, () => list.isLoading || list.error || list.refresh((row) => row.delivery_id).catch(() => {}));
  return html`<section class="card" aria-labelledby="deliveries"><h2 id="deliveries">Deliveries</h2>
    <p class="muted">The attempts of the last 30 days, newest first.</p>
    ${list.rows.length > 0 && html`<div class="table-scroll" tabindex="0" role="group" aria-label="Deliveries"><table>
      <caption class="visually-hidden">Attempts to deliver an event, newest first</caption>
      <thead><tr><th scope="col">Time</th><th scope="col">Event</th><th scope="col" class="end">Position</th><th scope="col">Result</th><th scope="col" class="end">Duration</th></tr></thead>
      <tbody>${list.rows.map((row) => html`<${DeliveryRow} key=${row.delivery_id} row=${row} />`)}</tbody>
    </table></div>`}
    ${isKnown && list.rows.length === 0 && !list.next && !list.error && html`<p class="muted">No deliveries yet.</p>`}
    <${ListFooter} list=${list} itemsLabel="deliveries" />
  </section>`;
}

function DeliveryRow({ row }) {
  return html`<tr>
    <td><${Time} at=${row.attempted_at} /></td>
    <td title=${row.event_id}>${row.event_type === 'WebhookTest' ? 'Test event' : eventLabel(row.event_type)}</td>
    <td class="end">${row.position ?? '–'}</td>
    <td class=${`text${row.error ? ' error' : ''}`}>${resultOf(row)}</td>
    <td class="end">${formatNumber(row.duration_ms)} ms</td>
  </tr>`;
}

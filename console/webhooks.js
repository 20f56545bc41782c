// The list of webhooks, and the form that registers one.

import { ErrorNotice, StaleNotice, Time, formatNumber, formatTime, html, useEffect, useInterval, useLoad, useState } from './components.js';
import { eventLabel } from './labels.js';
import { OperationsTabs } from './operations.js';
import { setTitle, webhookAddress } from './route.js';
import { RegisterForm } from './webhook_forms.js';
import { listWebhooks } from './webhook_requests.js';
import { explanation, stateOf } from './webhook_texts.js';

const REFRESH_MS = 2_000;

export function Webhooks({ query }) {
  const list = useLoad(listWebhooks, []);
  useInterval(REFRESH_MS, () => list.isLoading || list.error?.status === 403 || list.reload());
  useEffect(() => setTitle('Webhooks'), []);
  const rows = list.data?.data;
  return html`<h1 tabindex="-1">Webhooks</h1><${OperationsTabs} current="webhooks" />
    ${rows ? html`<${StaleNotice} resource=${list} />` : html`<${ErrorNotice} error=${list.error} retry=${list.reload} />`}
    ${rows?.length === 0 && query.register !== 'yes' && html`<section class="card" aria-labelledby="first"><h2 id="first">No webhooks yet</h2>
      <p class="muted">A webhook sends the events of the log to a URL: each one at least once, in order for each account, and signed.</p>
      <p class="buttons"><a class="button" href="#/operations/webhooks?register=yes">Register the first webhook</a></p></section>`}
    ${rows?.length > 0 && html`<section class=${`card${list.error ? ' stale' : ''}`} aria-labelledby="webhooks"><h2 id="webhooks">Endpoints</h2><${WebhookTable} rows=${rows} /></section>`}
    ${rows && (rows.length > 0 || query.register === 'yes') && html`<${RegisterCard} isOpen=${query.register === 'yes'} onRegistered=${list.reload} />`}`;
}

/** `isOpen` only at the beginning: afterwards the user opens and closes it. */
function RegisterCard({ isOpen, onRegistered }) {
  const [opensAtStart] = useState(isOpen);
  return html`<details class="card" open=${opensAtStart}><summary>Register a webhook</summary><${RegisterForm} onRegistered=${onRegistered} /></details>`;
}

function WebhookTable({ rows }) {
  return html`<div class="table-scroll" tabindex="0" role="group" aria-label="Webhooks"><table class="stacked webhooks" role="table">
      <caption class="visually-hidden">Webhooks in the order of their registration</caption>
      <thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">URL</th><th scope="col" role="columnheader">State</th><th scope="col" role="columnheader" class="end">Behind</th><th scope="col" role="columnheader">Last response</th><th scope="col" role="columnheader">Failing since</th></tr></thead>
      <tbody role="rowgroup">${rows.map((row) => html`<${WebhookRow} key=${row.webhook_id} row=${row} />`)}</tbody>
    </table></div>`;
}

function WebhookRow({ row }) {
  return html`<tr role="row">
    <th scope="row" role="rowheader" class="text"><a class="break" href=${webhookAddress(row.webhook_id)}>${row.url}</a><span class="hint">${filtersOf(row)}</span></th>
    <td role="cell"><${State} webhook=${row} /></td>
    <td role="cell" class="end">${lagOf(row)}</td>
    <td role="cell" class="text">${lastResponseOf(row)}${stateOf(row) !== 'active' && html`<span class="hint">${explanation(row, formatTime)}</span>`}</td>
    <td role="cell">${row.failing_since && html`<span class="phone-only muted">Failing since </span><${Time} at=${row.failing_since} />`}</td>
  </tr>`;
}

export function State({ webhook }) {
  const state = stateOf(webhook);
  return html`<span class=${`status ${state}`}>${state}</span>`;
}

/** The events after the position count, although the filters may select none of them. */
export const lagOf = ({ lag_events: lag }) => (lag === 0 ? 'up to date' : `${formatNumber(lag)} ${lag === 1 ? 'event' : 'events'}`);

export const lastResponseOf = ({ last_status: status, last_error: error }) => (status === null ? (error ? 'none' : '–') : `status ${status}`);

/** Which events a webhook gets, as text. */
export function filtersOf({ types, account_id: account, owner }) {
  const kinds = types.length === 0 ? 'All events' : types.map(eventLabel).join(', ');
  const of = [owner !== null && `accounts of ${owner}`, account !== null && `account ${account}`].filter(Boolean);
  return [kinds, ...of].join(' · ');
}

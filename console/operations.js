// The page for operators: view status and rebuilds, the head of the log, and verification of one account.

import { ErrorNotice, Field, StaleNotice, formatNumber, html, inputProps, useInterval, useLoad, useRef, useState } from './components.js';
import { read, request, toApiError, url } from './api.js';
import { eventCount } from './position.js';
import { permissions } from './permissions.js';
import { describe } from './problems.js';
import { ACCOUNT_ID, webhookAddress } from './route.js';

const REFRESH_MS = 1_000;

export function Operations() {
  const views = useLoad((signal) => read('/v1/projections', {}, { signal, fresh: false }), []);
  const log = useLoad((signal) => (permissions.audit() ? read('/v1/log/head', {}, { signal, fresh: false }) : Promise.resolve()), []);
  useInterval(REFRESH_MS, () => [views, log].forEach((resource) => resource.isLoading || resource.error?.status === 403 || resource.reload()));
  return html`<h1 tabindex="-1">Operations</h1><${OperationsTabs} current="views" />
    <section class="card" aria-labelledby="views"><h2 id="views">Views</h2>
      <p class="muted">Queries read these views. Each view follows the event log. A rebuild creates the next generation of a view while the live generation serves queries.</p>
      ${views.data ? html`<${StaleNotice} resource=${views} />` : html`<${ErrorNotice} error=${views.error} retry=${views.reload} />`}
      ${views.data && html`<${ViewTable} rows=${views.data.data} heads=${log.data?.data ?? []} reload=${views.reload} />`}
    </section>
    ${permissions.audit() && html`<div class="columns">
      <section class="card" aria-labelledby="log"><h2 id="log">Log head</h2>
        <p class="muted">Store this head outside the database. Later, <code>passbook verify --expect-head</code> checks that the log still contains the same events up to this head.</p>
        ${log.data ? html`<${StaleNotice} resource=${log} />` : html`<${ErrorNotice} error=${log.error} retry=${log.reload} />`}
        ${log.data && html`<${LogHeadTable} rows=${log.data.data} />`}
      </section>
      <section class="card" aria-labelledby="verify"><h2 id="verify">Verify an account</h2><${VerifyForm} /></section>
    </div>`}`;
}

/** The pages for operators that the scopes permit; nothing if there is only one. */
export function OperationsTabs({ current }) {
  const tabs = [permissions.operations() && ['views', '#/operations', 'Views and log'], permissions.webhooks() && ['webhooks', webhookAddress(), 'Webhooks']].filter(Boolean);
  if (tabs.length < 2) return null;
  return html`<nav class="tabs" aria-label="Pages for operators">${tabs.map(([name, address, label]) => html`<a key=${name} href=${address} aria-current=${name === current ? 'page' : undefined}>${label}</a>`)}</nav>`;
}

function ViewTable({ rows, heads, reload }) {
  const [outcome, setOutcome] = useState({});
  const [verifyRows, setVerifyRows] = useState(false);
  const isLive = ({ name, generation }) => rows.some((row) => row.name === name && row.state === 'live' && row.generation >= generation);
  // The table shows the new generation, so the message is removed.
  const isOver = outcome.started && isLive(outcome.started);
  const building = new Set(rows.filter((row) => row.state === 'building').map((row) => row.name));
  const rebuild = async (name) => {
    setOutcome({ text: `Starting the rebuild of ${name}…` });
    try {
      const response = await request(url(`/v1/projections/${name}/rebuild`, { verify: verifyRows ? 'true' : '' }), { method: 'POST' });
      if (!response.ok) throw await toApiError(response);
      const { generation } = await response.json();
      setOutcome({ text: `Generation ${generation} of ${name} is being built.`, started: { name, generation } });
    } catch (error) {
      setOutcome({ error });
    }
    reload();
  };
  return html`<div class="table-scroll" tabindex="0" role="group" aria-label="Views"><table>
      <caption class="visually-hidden">Views with their state and their lag behind the log</caption>
      <thead><tr><th scope="col">View</th><th scope="col" class="end">Generation</th><th scope="col">State</th><th scope="col" class="end">Events applied</th><th scope="col" class="end">Lag</th><th scope="col">Rebuild</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${`${row.name} ${row.generation}`}>
        <th scope="row">${row.name}</th><td class="end">${row.generation}</td>
        <td><span class=${`status ${row.state}`}>${row.state}</span>${row.failure && html` <span class="error">${row.failure}</span>`}</td>
        <td class="end">${formatNumber(eventCount(row.position))}</td>
        <td class="end"><${ViewLag} row=${row} head=${heads.reduce((sum, { position }) => sum + eventCount(position), 0)} /></td>
        <td>${row.state === 'live' && html`<button type="button" class="secondary" disabled=${building.has(row.name)} onClick=${() => rebuild(row.name)}>Rebuild<span class="visually-hidden"> ${row.name}</span></button>`}</td>
      </tr>`)}</tbody>
    </table></div>
    <p><label><input type="checkbox" checked=${verifyRows} onChange=${(event) => setVerifyRows(event.target.checked)} /> Verify every row against the log before a new generation goes live</label></p>
    <div role="status">${outcome.text && !isOver && html`<p class="notice good">${outcome.text}</p>`}</div>
    <div role="alert">${outcome.error && html`<p class="notice bad">${describe(outcome.error)}</p>`}</div>`;
}

function ViewLag({ row, head }) {
  const text = row.lag_events === 0 ? 'none' : `${formatNumber(row.lag_events)} events, ${row.lag_seconds.toFixed(1)} s`;
  if (row.state !== 'building' || !head) return text;
  const done = Math.max(0, head - row.lag_events);
  return html`<progress max=${head} value=${done} aria-label=${`Building ${row.name}`}></progress> ${text}`;
}

function LogHeadTable({ rows }) {
  return html`<table><caption class="visually-hidden">The last event of each partition</caption>
    <thead><tr><th scope="col">Partition</th><th scope="col" class="end">Position</th><th scope="col">Hash</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.partition}><td>${row.partition}</td><td class="end">${row.position}</td><td class="id break">${row.hash}</td></tr>`)}</tbody></table>`;
}

function VerifyForm() {
  const [state, setState] = useState({});
  const form = useRef(null);
  const submit = async (event) => {
    event.preventDefault();
    const id = form.current.elements.account.value.trim();
    if (!ACCOUNT_ID.test(id)) return setState({ error: 'Enter the full account ID.' });
    setState({ isBusy: true });
    read(`/v1/accounts/${id}/verification`, {}, { fresh: false }).then((result) => setState({ result }), (error) => setState({ error: describe(error) }));
  };
  return html`<form ref=${form} onSubmit=${submit} novalidate>
    <p class="muted">Checks the hash chain of the account and compares its view with its events.</p>
    <${Field} id="verify-account" label="Account ID" error=${state.error}>
      <input ...${inputProps('verify-account', state.error)} name="account" autocomplete="off" spellcheck="false" class="id" />
    </${Field}>
    <button disabled=${state.isBusy}>${state.isBusy ? 'Verifying…' : 'Verify'}</button>
    <div role="status">${state.result && html`<p class=${`notice ${state.result.verified ? 'good' : 'bad'}`}>
      ${state.result.verified ? `✓ Verified: ${formatNumber(state.result.events)} events are unchanged, and the view matches them.` : `✗ Verification failed: ${state.result.finding}`}</p>`}</div>
  </form>`;
}

// For whoever runs the bank: the views and how far they are, rebuilding, and the log's head.

import { Failure, Field, described, html, number, said, useEvery, useLoad, useRef, useState } from './parts.js';
import { read, refusalOf, request, url } from './api.js';
import { ID } from './accounts.js';
import { total } from './position.js';

const REFRESH_MS = 1_000;

export function Operations() {
  const views = useLoad((signal) => read('/v1/projections', {}, { signal, fresh: false }), []);
  const log = useLoad((signal) => read('/v1/log/head', {}, { signal, fresh: false }), []);
  useEvery(REFRESH_MS, () => [views, log].forEach((each) => each.isLoading || each.error?.status === 403 || each.reload()));
  return html`<h1 tabindex="-1">Operations</h1>
    <section class="card" aria-labelledby="views"><h2 id="views">Views</h2>
      <p class="faint">What queries read. Each follows the log; a rebuild makes its next generation beside the one that serves.</p>
      <${Failure} error=${views.error} retry=${views.reload} />
      ${views.data && html`<${Views} rows=${views.data.data} heads=${log.data?.data ?? []} reload=${views.reload} />`}
    </section>
    <div class="columns">
      <section class="card" aria-labelledby="log"><h2 id="log">The log's head</h2>
        <p class="faint">Write it down somewhere else: <code>passbook verify --witness</code> proves later that the log still holds what it held now.</p>
        <${Failure} error=${log.error} retry=${log.reload} />
        ${log.data && html`<${Heads} rows=${log.data.data} />`}
      </section>
      <section class="card" aria-labelledby="verify"><h2 id="verify">Verify an account</h2><${Verify} /></section>
    </div>`;
}

function Views({ rows, heads, reload }) {
  const [outcome, setOutcome] = useState({});
  const [isThorough, setThorough] = useState(false);
  const building = new Set(rows.filter((row) => row.state === 'building').map((row) => row.name));
  const rebuild = async (name) => {
    setOutcome({ text: `Asking for the next generation of ${name}…` });
    try {
      const response = await request(url(`/v1/projections/${name}/rebuild`, { verify: isThorough ? 'true' : '' }), { method: 'POST' });
      if (!response.ok) throw await refusalOf(response);
      const { generation } = await response.json();
      setOutcome({ text: `Generation ${generation} of ${name} is being built.` });
    } catch (error) {
      setOutcome({ error });
    }
    reload();
  };
  return html`<div class="wide" tabindex="0" role="group" aria-label="Views"><table>
      <caption class="unseen">Views, their state and how far behind the log they are</caption>
      <thead><tr><th scope="col">View</th><th scope="col" class="end">Generation</th><th scope="col">State</th><th scope="col" class="end">Has read</th><th scope="col" class="end">Behind</th><th scope="col">Rebuild</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${`${row.name} ${row.generation}`}>
        <th scope="row">${row.name}</th><td class="end">${row.generation}</td>
        <td><span class=${`status ${row.state}`}>${row.state}</span>${row.failure && html` <span class="error">${row.failure}</span>`}</td>
        <td class="end">${number(total(row.position))}</td>
        <td class="end"><${Behind} row=${row} head=${heads.reduce((sum, { position }) => sum + position, 0)} /></td>
        <td>${row.state === 'live' && html`<button type="button" class="quiet" disabled=${building.has(row.name)} onClick=${() => rebuild(row.name)}>Rebuild<span class="unseen"> ${row.name}</span></button>`}</td>
      </tr>`)}</tbody>
    </table></div>
    <p><label><input type="checkbox" checked=${isThorough} onChange=${(event) => setThorough(event.target.checked)} /> Compare every row with the log before a new generation serves</label></p>
    <div role="status">${outcome.text && html`<p class="notice good">${outcome.text}</p>`}</div>
    <div role="alert">${outcome.error && html`<p class="notice bad">${outcome.error.title && html`<strong>${outcome.error.title}. </strong>`}${said(outcome.error)}</p>`}</div>`;
}

function Behind({ row, head }) {
  const text = row.lag_events === 0 ? 'nothing' : `${number(row.lag_events)} events, ${row.lag_seconds.toFixed(1)} s`;
  if (row.state !== 'building' || !head) return text;
  const done = Math.max(0, head - row.lag_events);
  return html`<progress max=${head} value=${done} aria-label=${`Building ${row.name}`}></progress> ${text}`;
}

function Heads({ rows }) {
  return html`<table><caption class="unseen">The last event of each partition</caption>
    <thead><tr><th scope="col">Partition</th><th scope="col" class="end">Position</th><th scope="col">Hash</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.partition}><td>${row.partition}</td><td class="end">${row.position}</td><td class="id break">${row.hash}</td></tr>`)}</tbody></table>`;
}

function Verify() {
  const [state, setState] = useState({});
  const form = useRef(null);
  const submit = async (event) => {
    event.preventDefault();
    const id = form.current.elements.account.value.trim();
    if (!ID.test(id)) return setState({ wrong: 'Write the whole id of an account.' });
    setState({ isBusy: true });
    read(`/v1/accounts/${id}/verification`, {}, { fresh: false }).then((found) => setState({ found }), (error) => setState({ wrong: said(error) }));
  };
  return html`<form ref=${form} onSubmit=${submit} novalidate>
    <p class="faint">Recomputes its links in the hash chain, and compares its view with its events.</p>
    <${Field} id="verify-account" label="Account id" error=${state.wrong}>
      <input ...${described('verify-account', state.wrong)} name="account" autocomplete="off" spellcheck="false" class="id" />
    </${Field}>
    <button disabled=${state.isBusy}>${state.isBusy ? 'Verifying…' : 'Verify'}</button>
    <div role="status">${state.found && html`<p class=${`notice ${state.found.verified ? 'good' : 'bad'}`}>
      ${state.found.verified ? `✓ Verified: ${number(state.found.events)} events are as they were recorded, and the view agrees.` : `✗ Not in order: ${state.found.finding}`}</p>`}</div>
  </form>`;
}

// The page frame: navigation, the current caller, pending commands and the token dialog.

import { Fragment, errorText, html, render, useEffect, useRef, useState } from './components.js';
import { access } from './api.js';
import { outbox, results } from './command_results.js';
import { navigate, useRoute } from './route.js';
import { Overview } from './overview.js';
import { ACCOUNT_ID, Accounts } from './accounts.js';
import { Account } from './account.js';
import { Operations } from './operations.js';

function Page({ route }) {
  const [section, id] = route.path;
  if (section === undefined) return html`<${Overview} />`;
  if (section === 'accounts' && ACCOUNT_ID.test(id)) return html`<${Account} key=${id} id=${id} query=${route.query} />`;
  if (section === 'accounts' && id === undefined) return html`<${Accounts} query=${route.query} />`;
  if (section === 'operations') return html`<${Operations} />`;
  return html`<h1 tabindex="-1">Page not found</h1><p><a href="#/">Go to the overview</a></p>`;
}

const TITLES = { accounts: 'Accounts', operations: 'Operations' };

function Console() {
  const route = useRoute();
  useChanges(access);
  const section = route.path[0];
  const path = route.path.join('/');
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${route.path[1] ? 'Account' : (TITLES[section] ?? 'Overview')} – Passbook`;
    // Moving the focus to the heading makes screen readers announce the new page.
    if (!isFirst.current) {
      scrollTo(0, 0);
      document.querySelector('h1')?.focus({ preventScroll: true });
    }
    isFirst.current = false;
  }, [path]);
  const link = (to, name, label) => html`<a href=${to} aria-current=${section === name ? 'page' : undefined}>${label}</a>`;
  return html`<${Fragment}>
    <a class="skip" href="#main" onClick=${skipToContent}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/"><img src="/console/icon.svg" alt="" width="24" height="24" /> Passbook</a>
      <nav aria-label="Pages">
        ${link('#/', undefined, 'Overview')} ${link('#/accounts', 'accounts', 'Accounts')}
        ${link('#/operations', 'operations', 'Operations')}
      </nav>
      <div class="top-end"><a href="/swagger-ui/">API</a> <${Caller} /></div>
    </header>
    <${PendingCommands} />
    <main id="main"><${Page} key=${access.callerChanges()} route=${route} /></main>
    <${TokenDialog} />
  </${Fragment}>`;
}

function skipToContent(event) {
  event.preventDefault();
  document.querySelector('h1')?.focus();
}

/** Renders the component again when `source` changes. */
function useChanges(source) {
  const [, setChanges] = useState(0);
  useEffect(() => source.onChange(() => setChanges((count) => count + 1)), []);
}

/** The subject of the current token, and the button to enter or remove a token. */
function Caller() {
  useChanges(access);
  if (!access.hasToken()) return html`<button type="button" class="link" onClick=${access.prompt}>Enter token</button>`;
  return html`<span class="caller">${access.subject() || 'token'}</span>
    <button type="button" class="link" onClick=${access.removeToken}>Remove token</button>`;
}

/** Commands without a response, and results of commands whose form is no longer open. */
function PendingCommands() {
  useChanges(outbox);
  useChanges(results);
  useChanges(access);
  const unanswered = outbox.pending().filter(({ unknownAt, needsOriginalCaller }) => unknownAt !== null && !needsOriginalCaller);
  const blocked = outbox.pending().filter(({ needsOriginalCaller }) => needsOriginalCaller);
  return html`<div class="pending-commands" role="status">
    ${unanswered.map((command) => html`<p key=${command.key} class="notice warn">
      <strong>Waiting for confirmation: ${command.label}.</strong> The console retries until the service responds. The command is never carried out twice.
    </p>`)}
    ${blocked.map(({ key, label, subject }) => html`<p key=${key} class="notice bad">
      <strong>Result unknown: ${label}.</strong> Only ${subject || 'the user who sent it'} can check the result, with a token that has the required scope.
      ${' '}<button type="button" class="secondary" disabled=${access.subject() !== subject} onClick=${() => results.retry(key)}>Check result</button>
      ${' '}<button type="button" class="secondary" onClick=${() => outbox.discard(key)}>I checked the account: dismiss</button>
    </p>`)}
    ${results.all().map(({ key, label, error }) => html`<p key=${key} class=${`notice ${error ? 'bad' : 'good'}`}>
      <strong>${label}:</strong> ${error ? errorText(error) : 'completed.'}
      ${' '}<button type="button" class="secondary" onClick=${() => results.dismiss(key)}>Dismiss</button>
    </p>`)}
  </div>`;
}

/** A modal dialog that asks for an access token. The page behind it keeps all input. */
function TokenDialog() {
  useChanges(access);
  const dialog = useRef(null);
  const reason = access.promptReason;
  const isOpen = reason !== undefined;
  useEffect(() => {
    if (isOpen && !dialog.current.open) dialog.current.showModal();
    if (!isOpen && dialog.current.open) dialog.current.close();
  }, [isOpen]);
  const submit = (event) => {
    event.preventDefault();
    const field = event.target.elements.token;
    if (field.value.trim()) access.setToken(field.value);
    field.value = '';
  };
  return html`<dialog ref=${dialog} aria-labelledby="token-title" onCancel=${(event) => (event.preventDefault(), access.decline())}>
    <form onSubmit=${submit}>
      <h2 id="token-title">Paste an access token</h2>
      ${reason && html`<p class="error" role="alert">${errorText({ status: 401, message: reason })}</p>`}
      <p>This service requires an access token from your identity provider. The token is stored for this browser tab only. Your input on this page is kept, unless the token belongs to another user.</p>
      <label for="token">Access token</label>
      <input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required />
      <div class="buttons"><button>Use this token</button> <button type="button" class="secondary" onClick=${access.decline}>Not now</button></div>
    </form>
  </dialog>`;
}

if (!location.hash) navigate('#/', true);
results.resume();
render(html`<${Console} />`, document.getElementById('console'));

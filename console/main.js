// The page frame: navigation, the current caller, pending commands and the token dialog.

import { Fragment, html, render, useChanges, useEffect, useRef } from './components.js';
import { access } from './api.js';
import { outbox, results } from './command_results.js';
import { Owner } from './owner.js';
import { permissions } from './permissions.js';
import { describe } from './problems.js';
import { ACCOUNT_ID, UUID, navigate, setTitle, useRoute } from './route.js';
import { Overview } from './overview.js';
import { Accounts } from './accounts.js';
import { Account } from './account.js';
import { Batches } from './batches.js';
import { Operations } from './operations.js';
import { Search, SearchField } from './search.js';
import { Webhook } from './webhook.js';
import { Webhooks } from './webhooks.js';
import { returnFromProvider } from './sign_in.js';
import { Caller, SignInDialog } from './sign_in_dialog.js';

function Page({ route }) {
  const [section, id] = route.path;
  // A customer may not see the whole bank, but their own accounts.
  if (section === undefined) return permissions.readAny() ? html`<${Overview} />` : html`<${Accounts} query=${route.query} />`;
  if (section === 'accounts' && ACCOUNT_ID.test(id)) return html`<${Account} key=${id} id=${id} query=${route.query} />`;
  if (section === 'accounts' && id === undefined) return html`<${Accounts} query=${route.query} />`;
  if (section === 'owners' && id !== undefined) return html`<${Owner} key=${id} owner=${id} />`;
  if (section === 'search') return html`<${Search} key=${route.query.q} text=${route.query.q ?? ''} />`;
  if (section === 'batch') return html`<${Batches} />`;
  if (section === 'operations') return html`<${OperationsPage} route=${route} />`;
  return html`<${NotFound} />`;
}

function OperationsPage({ route: { path: [, name, id], query } }) {
  // A caller who may see only the webhooks lands there.
  if (name === undefined && permissions.webhooks() && !permissions.operations()) return html`<${Webhooks} query=${query} />`;
  if (name === undefined) return html`<${Operations} />`;
  if (name === 'webhooks' && id === undefined) return html`<${Webhooks} query=${query} />`;
  if (name === 'webhooks' && UUID.test(id)) return html`<${Webhook} key=${id} id=${id} />`;
  return html`<${NotFound} />`;
}

const NotFound = () => html`<h1 tabindex="-1">Page not found</h1><p><a href="#/">Go to the overview</a></p>`;

const TITLES = { accounts: 'Accounts', batch: 'Batch', operations: 'Operations' };

function Console() {
  const route = useRoute();
  useChanges(access);
  const section = route.path[0];
  const path = `${route.path.join('/')} ${section === 'search' ? route.query.q : ''}`;
  const isFirst = useRef(true);
  useEffect(() => {
    // A page of one account or owner sets its own title.
    if (!route.path[1]) setTitle(TITLES[section] ?? 'Overview');
    // Moving the focus to the heading makes screen readers announce the new page.
    if (!isFirst.current) {
      scrollTo(0, 0);
      document.querySelector('h1')?.focus({ preventScroll: true });
    }
    isFirst.current = false;
  }, [path]);
  const link = (to, name, label) => html`<a href=${to} aria-current=${(section === 'owners' ? 'accounts' : section) === name ? 'page' : undefined}>${label}</a>`;
  return html`<${Fragment}>
    <a class="skip" href="#main" onClick=${skipToContent}>Skip to content</a>
    <header class="top">
      <a class="brand" href="#/"><img src="/console/icon.svg" alt="" width="24" height="24" /> Passbook</a>
      <nav aria-label="Pages">
        ${permissions.readAny() && link('#/', undefined, 'Overview')} ${link('#/accounts', 'accounts', 'Accounts')}
        ${permissions.batches() && link('#/batch', 'batch', 'Batch')} ${(permissions.operations() || permissions.webhooks()) && link('#/operations', 'operations', 'Operations')}
      </nav>
      <${SearchField} query=${section === 'search' ? route.query.q : undefined} />
      <div class="top-end"><a href="/docs/">Help</a> <a href="/swagger-ui/">API</a> <${Caller} /></div>
    </header>
    <${PendingCommands} />
    <main id="main"><${Page} key=${access.callerChanges()} route=${route} /></main>
    <${SignInDialog} />
  </${Fragment}>`;
}

function skipToContent(event) {
  event.preventDefault();
  document.querySelector('h1')?.focus();
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
    ${results.all().map(({ key, label, error, context }) => html`<p key=${key} class=${`notice ${error ? 'bad' : 'good'}`}>
      <strong>${label}:</strong> ${error ? describe(error, context) : 'completed.'}
      ${' '}<button type="button" class="secondary" onClick=${() => results.dismiss(key)}>Dismiss</button>
    </p>`)}
  </div>`;
}

if (!returnFromProvider()) {
  if (!location.hash) navigate('#/', true);
  results.resume();
  render(html`<${Console} />`, document.getElementById('console'));
}

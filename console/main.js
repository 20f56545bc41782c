// The frame around the pages: where one is, who one is, and what is on its way.

import { Fragment, html, render, said, useEffect, useRef, useState } from './parts.js';
import { access } from './api.js';
import { outgoing, results } from './commands.js';
import { go, useRoute } from './route.js';
import { Overview } from './overview.js';
import { Accounts, ID } from './accounts.js';
import { Account } from './account.js';
import { Operations } from './operations.js';

function Page({ route }) {
  const [section, id] = route.path;
  if (section === undefined) return html`<${Overview} />`;
  if (section === 'accounts' && ID.test(id)) return html`<${Account} key=${id} id=${id} query=${route.query} />`;
  if (section === 'accounts' && id === undefined) return html`<${Accounts} query=${route.query} />`;
  if (section === 'operations') return html`<${Operations} />`;
  return html`<h1 tabindex="-1">There is no such page</h1><p><a href="#/">To the overview</a></p>`;
}

const TITLES = { accounts: 'Accounts', operations: 'Operations' };

function Console() {
  const route = useRoute();
  useChange(access);
  const section = route.path[0];
  const place = route.path.join('/');
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${route.path[1] ? 'Account' : (TITLES[section] ?? 'Overview')} – Passbook`;
    // Whoever cannot see that the page has changed is brought to its beginning.
    if (!isFirst.current) {
      scrollTo(0, 0);
      document.querySelector('h1')?.focus({ preventScroll: true });
    }
    isFirst.current = false;
  }, [place]);
  const link = (to, name, word) => html`<a href=${to} aria-current=${section === name ? 'page' : undefined}>${word}</a>`;
  return html`<${Fragment}>
    <a class="skip" href="#main" onClick=${skip}>To the content</a>
    <header class="top">
      <a class="mark" href="#/"><img src="/console/icon.svg" alt="" width="24" height="24" /> Passbook</a>
      <nav aria-label="Pages">
        ${link('#/', undefined, 'Overview')} ${link('#/accounts', 'accounts', 'Accounts')}
        ${link('#/operations', 'operations', 'Operations')}
      </nav>
      <div class="aside"><a href="/swagger-ui/">API</a> <${Caller} /></div>
    </header>
    <${OnItsWay} />
    <main id="main"><${Page} key=${access.callers()} route=${route} /></main>
    <${TokenQuestion} />
  </${Fragment}>`;
}

function skip(event) {
  event.preventDefault();
  document.querySelector('h1')?.focus();
}

function useChange(source) {
  const [, turn] = useState(0);
  useEffect(() => source.onChange(() => turn((n) => n + 1)), []);
}

/** Who the token names, and the way to another. */
function Caller() {
  useChange(access);
  if (!access.has()) return html`<button type="button" class="link" onClick=${access.ask}>Token</button>`;
  return html`<span class="caller">${access.subject() || 'token'}</span>
    <button type="button" class="link" onClick=${access.forget}>Forget token</button>`;
}

/** Commands without an answer yet, and the answers to those whose form is gone. */
function OnItsWay() {
  useChange(outgoing);
  useChange(results);
  useChange(access);
  const lost = outgoing.waiting().filter(({ lostAt, isStranded }) => lostAt !== null && !isStranded);
  const stranded = outgoing.waiting().filter(({ isStranded }) => isStranded);
  return html`<div class="onitsway" role="status">
    ${lost.map((command) => html`<p key=${command.key} class="notice warn">
      <strong>No answer yet: ${command.says}.</strong> It is asked again until there is one. Nothing is done twice.
    </p>`)}
    ${stranded.map(({ key, says, subject }) => html`<p key=${key} class="notice bad">
      <strong>Not known whether it was done: ${says}.</strong> Only ${subject || 'whoever sent it'} can ask, with a token that may.
      ${' '}<button type="button" class="quiet" disabled=${access.subject() !== subject} onClick=${() => results.again(key)}>Ask again</button>
      ${' '}<button type="button" class="quiet" onClick=${() => outgoing.drop(key)}>I have looked at the account: ask no more</button>
    </p>`)}
    ${results.all().map(({ key, says, error }) => html`<p key=${key} class=${`notice ${error ? 'bad' : 'good'}`}>
      <strong>${says}:</strong> ${error ? said(error) : 'recorded.'}
      ${' '}<button type="button" class="quiet" onClick=${() => results.drop(key)}>Close this</button>
    </p>`)}
  </div>`;
}

/** Asks for a token before the page, which keeps all that was typed. */
function TokenQuestion() {
  useChange(access);
  const dialog = useRef(null);
  const reason = access.question;
  const isAsked = reason !== undefined;
  useEffect(() => {
    if (isAsked && !dialog.current.open) dialog.current.showModal();
    if (!isAsked && dialog.current.open) dialog.current.close();
  }, [isAsked]);
  const submit = (event) => {
    event.preventDefault();
    const field = event.target.elements.token;
    if (field.value.trim()) access.give(field.value);
    field.value = '';
  };
  return html`<dialog ref=${dialog} aria-labelledby="token-title" onCancel=${(event) => (event.preventDefault(), access.decline())}>
    <form onSubmit=${submit}>
      <h2 id="token-title">A token, please</h2>
      ${reason && html`<p class="error" role="alert">${said({ status: 401, message: reason })}</p>`}
      <p>This bank controls access. Paste the access token that your provider gave you. It is kept for this tab alone, and what you have typed stays unless it names somebody else.</p>
      <label for="token">Access token</label>
      <input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required />
      <div class="buttons"><button>Use this token</button> <button type="button" class="quiet" onClick=${access.decline}>Not now</button></div>
    </form>
  </dialog>`;
}

if (!location.hash) go('#/', true);
results.resume();
render(html`<${Console} />`, document.getElementById('console'));

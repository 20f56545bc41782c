// The current caller in the page frame, and the dialog in which a user signs in or pastes a token.

import { html, useChanges, useEffect, useLoad, useRef, useState } from './components.js';
import { access } from './api.js';
import { toSentence } from './problems.js';
import { signIn, signInConfiguration } from './sign_in.js';

/** The provider of the sign-in; `null` if there is none, `undefined` while it is being read. */
const useProvider = () => useLoad(signInConfiguration, []).data;

/** The subject of the current token, and the button to sign in or out. */
export function Caller() {
  useChanges(access);
  const provider = useProvider();
  if (!access.hasToken()) return html`<button type="button" class="link" onClick=${access.prompt}>${provider ? 'Sign in' : 'Enter token'}</button>`;
  return html`<span class="caller">${access.subject() || 'token'}</span>
    <button type="button" class="link" onClick=${access.removeToken}>${provider ? 'Sign out' : 'Remove token'}</button>`;
}

/** A modal dialog for the access token. The page behind it keeps all input. */
export function SignInDialog() {
  useChanges(access);
  const dialog = useRef(null);
  const provider = useProvider();
  const reason = access.promptReason;
  const isOpen = reason !== undefined;
  useEffect(() => {
    if (isOpen && !dialog.current.open) dialog.current.showModal();
    if (!isOpen && dialog.current.open) dialog.current.close();
  }, [isOpen]);
  return html`<dialog ref=${dialog} aria-labelledby="token-title" onCancel=${(event) => (event.preventDefault(), access.decline())}>
    ${provider
      ? html`<${ProviderSignIn} provider=${provider} reason=${reason} /><details><summary>Paste an access token instead</summary><${TokenForm} /></details>`
      : html`<h2 id="token-title">Paste an access token</h2>
        ${reason && html`<p class="error" role="alert">${toSentence(reason)}</p>`}
        <p>This service requires an access token from your identity provider. The token is stored for this browser tab only. Your input on this page is kept, unless the token belongs to another user.</p>
        <${TokenForm} />`}
  </dialog>`;
}

function ProviderSignIn({ provider, reason }) {
  const [error, setError] = useState('');
  const [isBusy, setBusy] = useState(false);
  const start = async () => {
    setBusy(true);
    setError('');
    await signIn().then(access.setToken, (failure) => setError(failure.message));
    setBusy(false);
  };
  return html`<h2 id="token-title">Sign in</h2>
    ${(error || reason) && html`<p class="error" role="alert">${error || toSentence(reason)}</p>`}
    <p>You sign in at <strong class="break">${new URL(provider.issuer).host}</strong>, in a window of its own. Your input on this page is kept, unless you sign in as another user.</p>
    <div class="buttons"><button type="button" onClick=${start} disabled=${isBusy}>${isBusy ? 'Waiting for the other window…' : 'Sign in'}</button>
      ${' '}<button type="button" class="secondary" onClick=${access.decline}>Not now</button></div>`;
}

function TokenForm() {
  const submit = (event) => {
    event.preventDefault();
    const field = event.target.elements.token;
    if (field.value.trim()) access.setToken(field.value);
    field.value = '';
  };
  return html`<form onSubmit=${submit}>
    <label for="token">Access token</label>
    <input id="token" name="token" type="password" autocomplete="off" spellcheck="false" required />
    <div class="buttons"><button>Use this token</button> <button type="button" class="secondary" onClick=${access.decline}>Not now</button></div>
  </form>`;
}

// Sign-in with an OpenID Connect provider: authorization code with PKCE, as a public client. The provider's page opens in a window
// of its own, so that the input on this page is kept. The library `oauth4webapi` builds and validates the messages.
//
// The window returns to this address with a code. It hands its URL to the page that opened it, over a channel of this origin, and
// closes. Only that page has the code verifier, so the code is of no use to any other.

const CHANNEL = 'passbook.sign-in';
const WINDOW = 'popup,width=520,height=720';
/** How often the page looks whether the user has closed the window. */
const CLOSED_CHECK_MS = 500;

let configuration;
let refreshToken;

/** The provider, as the service names it: `{issuer, client_id, audience, scopes}`; `null` if users paste a token. */
export function signInConfiguration() {
  configuration ??= fetch('/console/sign-in.json').then((response) => (response.ok ? response.json() : Promise.reject(new Error('no configuration')))).catch((error) => {
    configuration = undefined;
    throw error;
  });
  return configuration;
}

/** In the window of the provider, after its redirect: hands the URL to the page that opened it. Returns whether this is that window. */
export function returnFromProvider() {
  const parameters = new URLSearchParams(location.search);
  if (!parameters.has('state') || !(parameters.has('code') || parameters.has('error'))) return false;
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage({ url: location.href });
  // The code does not stay in the history.
  history.replaceState(null, '', '/');
  channel.close();
  close();
  return true;
}

/**
 * Opens the provider's window and resolves to an access token. Call it from the handler of a click: browsers block other windows.
 * @throws {SignInError} with a sentence for the user
 */
export async function signIn() {
  const provider = open('about:blank', '', WINDOW);
  if (!provider) throw new SignInError('The browser blocked the window of the identity provider. Permit it for this page, and try again.');
  try {
    const flow = await startFlow();
    provider.location = flow.address;
    const url = await returned(provider, flow.state);
    return await finishFlow(flow, url);
  } catch (error) {
    provider.close();
    if (error instanceof SignInError) throw error;
    if (error.error === 'access_denied') throw new SignInError('The sign-in was refused or cancelled at the identity provider.');
    throw new SignInError(`The sign-in failed: ${error.error_description ?? error.error ?? error.message}`);
  }
}

/** A new access token without the user, if the provider gave a refresh token; otherwise `null`. */
export async function renew() {
  if (!refreshToken) return null;
  const used = refreshToken;
  refreshToken = undefined;
  try {
    const { oauth, server, client, options } = await prepare();
    const response = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), used, options);
    return accept(await oauth.processRefreshTokenResponse(server, client, response));
  } catch {
    return null;
  }
}

/** Forgets the refresh token, when the user signs out. */
export const forget = () => void (refreshToken = undefined);

export class SignInError extends Error {}

const redirectUri = () => `${location.origin}/`;

/** The library, and what it needs to know about the provider. */
async function prepare() {
  const [oauth, { issuer, client_id }] = await Promise.all([import('./vendor/oauth4webapi.js'), signInConfiguration()]);
  const address = new URL(issuer);
  // The service accepts an issuer without TLS only on a loopback address.
  const options = { [oauth.allowInsecureRequests]: address.protocol === 'http:' };
  const discovered = await oauth.discoveryRequest(address, { ...options, algorithm: 'oidc' });
  const server = await oauth.processDiscoveryResponse(address, discovered);
  return { oauth, server, client: { client_id }, options };
}

async function startFlow() {
  const [prepared, { client_id, audience, scopes }] = await Promise.all([prepare(), signInConfiguration()]);
  const { oauth, server } = prepared;
  const verifier = oauth.generateRandomCodeVerifier();
  const [state, nonce] = [oauth.generateRandomState(), oauth.generateRandomNonce()];
  // A provider that lists its scopes may refuse others.
  const known = server.scopes_supported ? scopes.filter((scope) => server.scopes_supported.includes(scope)) : scopes;
  const address = new URL(server.authorization_endpoint);
  const parameters = {
    client_id, state, nonce, redirect_uri: redirectUri(), response_type: 'code', scope: ['openid', ...known].join(' '),
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256', ...(audience && { audience }),
  };
  Object.entries(parameters).forEach(([name, value]) => address.searchParams.set(name, value));
  return { ...prepared, verifier, state, nonce, address: address.href };
}

/** The URL with which the window returned. */
function returned(provider, state) {
  return new Promise((resolve, reject) => {
    const channel = new BroadcastChannel(CHANNEL);
    const end = (settle, value) => (clearInterval(timer), channel.close(), settle(value));
    channel.onmessage = ({ data }) => {
      const url = new URL(data.url);
      if (url.searchParams.get('state') === state) end(resolve, url);
    };
    let closedChecks = 0;
    // The message of a window that closes itself may arrive after it has closed.
    const timer = setInterval(() => (closedChecks = provider.closed ? closedChecks + 1 : 0) > 1 && end(reject, new SignInError('The window was closed before the sign-in was complete.')), CLOSED_CHECK_MS);
  });
}

async function finishFlow({ oauth, server, client, options, verifier, state, nonce }, url) {
  const parameters = oauth.validateAuthResponse(server, client, url, state);
  const response = await oauth.authorizationCodeGrantRequest(server, client, oauth.None(), parameters, redirectUri(), verifier, options);
  const algorithms = server.id_token_signing_alg_values_supported ?? ['RS256'];
  const result = await oauth.processAuthorizationCodeResponse(server, { ...client, ...(algorithms.length === 1 && { id_token_signed_response_alg: algorithms[0] }) }, response, { expectedNonce: nonce, requireIdToken: true });
  return accept(result);
}

function accept({ access_token, refresh_token }) {
  refreshToken = refresh_token ?? undefined;
  return access_token;
}

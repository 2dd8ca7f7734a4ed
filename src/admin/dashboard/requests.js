// Requests that failed, and why: asked for by the viewer only, since a question makes the server take down more
// of each request for a minute.

import { Refused, ask } from './server.js';
import { byId, capital, clock, make, milliseconds, plural, say } from './page.js';
import { inform } from './actions.js';

const SHOWN = 20;

byId('ask-failed').addEventListener('click', async () => {
  const place = byId('failed');
  try {
    const { requests, matched } = await ask(`/v1/requests?failed=true&limit=${SHOWN}`);
    place.replaceChildren(...(requests.length > 0 ? requests.map(item) : [make('li', { class: 'muted' }, 'None that is remembered.')]));
    if (matched > requests.length) place.append(make('li', { class: 'muted' }, `and ${matched - requests.length} before`));
    say(byId('ask-failed'), 'Look again');
  } catch (error) {
    place.replaceChildren(make('li', { class: 'refused' }, wordsOf(error)));
  }
});

function item(request) {
  const { request_id: id, time, method, host, path, kept, upstream } = request;
  const what = outcomeOf(request);
  const button = make('button', { type: 'button', 'aria-label': `Why did ${method} ${path} fail?`, onclick: () => explain(id) }, 'Why?');
  const text = make('span', {}, make('b', {}, what), ` ${method} ${host}${path}`, make('span', { class: 'muted' }, upstream ? ` by ${upstream}` : ' by no upstream'));
  return make('li', { class: kept === 'failed' ? 'bad' : 'warn' }, make('time', { datetime: time }, clock(time)), text, button);
}

async function explain(id) {
  try {
    // A client may have chosen the id; one that is a step in a path is nobody's.
    const request = await ask(`/v1/explain/${/^\.+$/.test(id) ? '' : encodeURIComponent(id)}`);
    inform(`Why ${request.request.method} ${request.request.path} got ${request.status}`, explanation(request));
  } catch (error) {
    inform('Not known', [make('p', { class: 'refused' }, wordsOf(error))]);
  }
}

/** A gRPC call has a status of its own: its client saw 200 in any case. */
const outcomeOf = ({ status, reason, grpc_status: code }) => `${status}${code == null ? '' : `, grpc-status ${code}`}${reason ? ` ${reason}` : ''}`;

const wordsOf = (error) => (error instanceof Refused ? error.sentences : 'The server did not answer.');

/** As elements: outcome, route, each attempt, and who could not be asked. */
function explanation(request) {
  const { route, pool, attempts, attempts_omitted: omitted, nobody, timings } = request;
  const outcome = `${outcomeOf(request)} after ${milliseconds(timings.duration_ms)}, at ${clock(request.time)}`;
  const taken = route ? `${route.name}${route.why ? `: ${route.why.join('; ')}` : ''}` : 'none took it';
  const facts = [
    ['Outcome', outcome],
    ['What to do', request.help && `${capital(request.help)}.`],
    ['Route', taken],
    ['Pool', pool],
    ['Request', request.request_id],
  ].filter(([, text]) => text);
  const elements = [make('dl', { class: 'facts' }, ...facts.map(([term, text]) => make('div', {}, make('dt', {}, term), make('dd', {}, text))))];
  if (attempts.length > 0) elements.push(make('h3', {}, plural(attempts.length + omitted, 'attempt')), make('ol', { class: 'events' }, ...attempts.map(attemptItem)));
  if (nobody) elements.push(make('h3', {}, attempts.length > 0 ? 'Nobody was left for another attempt' : 'Nobody could be picked'), make('ul', { class: 'plain' }, ...excludedOf(nobody).map((text) => make('li', {}, text))));
  elements.push(make('p', { class: 'muted' }, 'All of it: ', make('code', {}, `evener explain ${request.request_id}`)));
  return elements;
}

function attemptItem({ upstream, detail, status, took_ms: took, then, candidates }) {
  const answered = status ? ` (${status})` : '';
  const follows = then ? ` ${capital(then)}.` : '';
  // How everybody stood when it was picked; what is known of later moments says nothing about this choice.
  const others = candidates?.moment === 'pick' ? ` Then could not be picked: ${excludedOf(candidates).join('; ') || 'none'}.` : '';
  return make('li', { class: status && status < 500 ? 'ok' : 'bad' }, make('span', {}, make('b', {}, upstream), ` after ${milliseconds(took)}: ${detail}${answered}.${follows}${others}`));
}

const excludedOf = ({ excluded, upstreams }) => excluded.map(({ upstreams: count, why_not_detail: why }) => `${count} of ${plural(upstreams, 'upstream')}: ${why}`);

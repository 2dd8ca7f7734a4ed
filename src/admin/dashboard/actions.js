// What a viewer may change: said first, done when confirmed, and refused in the server's words.

import { Refused, ask, askTagged, change } from './server.js';
import { entryOf } from './events.js';
import { byId, capital, clock, make, plural, say, show } from './page.js';

const SCOPES = ['read', 'operate', 'write'];
const STRATEGIES = ['round_robin', 'least_connections', 'latency_weighted', 'random_two', 'consistent_hash'];

const dialog = byId('dialog');
const form = byId('dialog-form');
/** What the button of the open dialog does. */
let confirmed = null;

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const act = confirmed;
  if (!act) return;
  byId('dialog-go').disabled = true;
  show(byId('dialog-error'), false);
  try {
    const why = byId('why').value.trim();
    const said = await act(why ? { 'X-Evener-Reason': encodeReason(why) } : {});
    // Whoever closed the dialog meanwhile may have opened another.
    if (confirmed === act) dialog.close();
    speak(said, true);
  } catch (error) {
    if (confirmed === act) refuse(error);
    else speak(`Not done: ${error.message}`, true);
  } finally {
    if (confirmed === act) byId('dialog-go').disabled = false;
  }
});
byId('dialog-cancel').addEventListener('click', () => dialog.close());
dialog.addEventListener('close', () => (confirmed = null));

/** A header takes plain characters only. */
function encodeReason(text) {
  return text.normalize('NFKD').replace(/[^\x20-\x7e]/g, '?');
}

function refuse(error) {
  const box = byId('dialog-error');
  box.replaceChildren();
  if (error instanceof Refused) {
    const mistakes = error.mistakes.map((one) => make('li', {}, `line ${one.line}: ${one.message}`));
    box.append(make('b', {}, `Refused: ${error.title}. `), error.sentences, ...(mistakes.length > 0 ? [make('ul', {}, ...mistakes)] : []));
  } else {
    box.append(make('b', {}, 'The server did not answer. '), 'Whether it was done is not known; look before you try again.');
  }
  show(box, true);
}

/** Told to screen readers; what the viewer did is shown for a while, too. */
export function speak(text, isShown = false) {
  const line = byId('spoken');
  line.classList.toggle('unseen', !isShown);
  say(line, text);
  clearTimeout(speak.timer);
  speak.timer = setTimeout(() => {
    line.classList.add('unseen');
    say(line, '');
  }, 8_000);
}

/** Shows something that nothing is done about. */
export function inform(title, body) {
  confirm({ title, body, label: '', hasReason: false, act: null });
}

/** Opens the dialog. `act` gets further headers, and answers with what was done; null: there is nothing to do. */
function confirm({ title, body = [], effect = '', label, hasReason = true, act }) {
  say(byId('dialog-title'), title);
  byId('dialog-body').replaceChildren(...body);
  say(byId('dialog-effect'), effect);
  say(byId('dialog-go'), label);
  show(byId('dialog-go'), act !== null);
  byId('dialog-go').disabled = false;
  say(byId('dialog-cancel'), act === null ? 'Close' : 'Cancel');
  show(byId('dialog-reason'), hasReason);
  show(byId('dialog-error'), false);
  byId('why').value = '';
  confirmed = act;
  dialog.showModal();
}

const part = encodeURIComponent;
const pathOf = (pool, address) => `/v1/pools/${part(pool)}/upstreams/${part(address)}`;

/** What the viewer may do. `state` has `scope`, `isStale` and `figures`. */
export function actions(state) {
  const may = (scope) => !state.isStale() && SCOPES.indexOf(state.scope()) >= SCOPES.indexOf(scope);
  const poolOf = (name) => state.figures.now.pools.find((pool) => pool.name === name);

  return {
    mayRead: () => may('read'),
    mayOperate: () => may('operate'),
    mayWrite: () => may('write'),

    upstream(poolName, address) {
      const pool = poolOf(poolName);
      const upstream = pool?.upstreams.find((one) => one.address === address);
      if (!upstream) return;
      if (!may('operate')) {
        inform(`${address} in ${poolName}`, []);
        showTimeline(poolName, address);
        return;
      }
      const choice = make('fieldset', {}, make('legend', {}, 'State'));
      for (const [word, label] of [['ready', 'Ready: takes requests'], ['drain', 'Drain: no new requests, those in flight finish'], ['maintenance', 'Maintenance: no requests, no health checks']]) {
        const id = `state-${word}`;
        choice.append(make('p', {}, make('input', { type: 'radio', name: 'state', id, value: word, checked: upstream.state === word }), make('label', { for: id }, label)));
      }
      const weight = make('input', { type: 'number', id: 'weight', min: 0, max: 65_535, step: 1, required: true, value: upstream.weight });
      const body = [choice, make('p', {}, make('label', { for: 'weight' }, 'Weight'), weight)];
      const picked = () => {
        const state = choice.querySelector(':checked')?.value ?? upstream.state;
        return { ...(state === upstream.state ? {} : { state }), ...(Number(weight.value) === upstream.weight ? {} : { weight: Number(weight.value) }) };
      };
      const tell = () => {
        const patch = picked();
        say(byId('dialog-effect'), effectOf(pool, upstream, patch));
        say(byId('dialog-go'), labelOf(address, patch));
        byId('dialog-go').disabled = Object.keys(patch).length === 0;
      };
      for (const element of body) element.addEventListener('input', tell);
      confirm({
        title: `Change ${address} in ${poolName}`,
        body,
        label: '',
        act: async (headers) => {
          const patch = picked();
          await change('PATCH', pathOf(poolName, address), patch, headers);
          return `Done: ${labelOf(address, patch)}`;
        },
      });
      tell();
      showTimeline(poolName, address);
    },

    strategy(poolName) {
      const pool = poolOf(poolName);
      if (!pool) return;
      const select = make('select', { id: 'strategy' });
      for (const word of STRATEGIES) select.append(make('option', { value: word, selected: word === pool.strategy }, word));
      const tell = () => {
        const isSame = select.value === pool.strategy;
        say(byId('dialog-effect'), isSame ? `${pool.strategy} is what runs.` : `Pool ${poolName}: ${pool.strategy} becomes ${select.value}. Requests in flight are not touched.`);
        byId('dialog-go').disabled = isSame;
      };
      select.addEventListener('input', tell);
      confirm({
        title: `Strategy of ${poolName}`,
        body: [make('p', {}, make('label', { for: 'strategy' }, 'Strategy'), select)],
        label: 'Change the strategy',
        act: async (headers) => {
          await change('PATCH', `/v1/pools/${part(poolName)}`, { strategy: select.value }, headers);
          return `Done: ${poolName} picks by ${select.value}`;
        },
      });
      tell();
    },

    check(poolName) {
      const count = poolOf(poolName)?.upstreams.length ?? 0;
      confirm({
        title: `Check health of ${poolName} now`,
        effect: `${plural(count, 'upstream')} of ${poolName} ${count === 1 ? 'is' : 'are'} asked at once, and the answers count as those of any health check.`,
        label: 'Check now',
        hasReason: false,
        act: async () => {
          const pool = await change('POST', `/v1/pools/${part(poolName)}/health-check`);
          const failed = pool.upstreams.filter((upstream) => upstream.last_check && !upstream.last_check.ok).length;
          return `Checked ${poolName}: ${failed === 0 ? 'all passed' : `${failed} of ${pool.upstreams.length} failed`}`;
        },
      });
    },

    async rollBack() {
      const body = make('fieldset', {}, make('legend', {}, 'Back to'));
      let entries, generation, etag;
      try {
        const history = await askTagged('/v1/config/history');
        [etag, generation] = [history.etag, history.body.generation];
        entries = history.body.entries.filter((entry) => !entry.current && entry.generation > 0);
      } catch (error) {
        inform('Roll back', []);
        refuse(error);
        return;
      }
      const to = () => Number(body.querySelector(':checked')?.value);
      entries.forEach((entry, index) => {
        const id = `generation-${entry.generation}`;
        const text = `Generation ${entry.generation}, ${clock(entry.at)}: ${entry.what}${entry.who === entry.what ? '' : ` by ${entry.who}`}${entry.why ? ` (${entry.why})` : ''}`;
        body.append(make('p', {}, make('input', { type: 'radio', name: 'generation', id, value: entry.generation, checked: index === 0 }), make('label', { for: id }, text)));
      });
      const tell = () => {
        if (entries.length > 0) say(byId('dialog-effect'), `Generation ${generation} runs. File and overrides become those of generation ${to()}; requests in flight are not touched.`);
      };
      body.addEventListener('input', tell);
      confirm({
        title: 'Roll back',
        body: entries.length > 0 ? [body] : [make('p', {}, 'Nothing ran before what runs now.')],
        label: 'Roll back',
        hasReason: entries.length > 0,
        act:
          entries.length === 0
            ? null
            : async (headers) => {
                // What the viewer saw is what they go back from.
                await change('POST', '/v1/config/rollback', { generation: to() }, { ...headers, 'If-Match': etag });
                return `Done: generation ${to()} runs again`;
              },
      });
      tell();
    },
  };
}

/** What became of an upstream, the latest first, below what else the dialog says. */
async function showTimeline(pool, address) {
  const place = make('div');
  byId('dialog-body').append(place);
  try {
    const { entries } = await ask(`${pathOf(pool, address)}/timeline`);
    const items = entries.reverse().map((entry) => {
      const { level, text } = entryOf(entry);
      const last = entry.times > 1 ? ` It came last at ${clock(entry.last_at)}.` : '';
      return make('li', { class: level }, make('time', { datetime: entry.at }, clock(entry.at)), make('span', {}, text + last));
    });
    place.append(make('h3', { id: 'timeline-title' }, 'What became of it'), make('ol', { id: 'timeline', class: 'events', tabindex: 0, 'aria-labelledby': 'timeline-title' }, ...items));
  } catch (error) {
    place.append(make('p', { class: 'muted' }, `What became of it is not known: ${error.message}.`));
  }
}

const DOES = { ready: 'make ready', drain: 'drain', maintenance: 'take into maintenance' };

function labelOf(address, { state, weight }) {
  const words = [];
  if (state) words.push(DOES[state]);
  if (weight !== undefined) words.push(`give weight ${weight}`);
  return words.length === 0 ? 'Nothing changes' : capital(`${words.join(', ')}: ${address}`);
}

function effectOf(pool, upstream, { state, weight }) {
  const isOut = (state && state !== 'ready') || weight === 0;
  const others = pool.upstreams.filter((one) => one !== upstream && !one.why_not).length;
  const sentences = [];
  if (isOut && others === 0) sentences.push(`Careful: nobody else in ${pool.name} takes requests. They will be refused with 503.`);
  if (isOut) sentences.push(`It gets no new requests; ${plural(upstream.in_flight, 'request')} in flight may finish; ${plural(others, 'other')} of ${pool.name} ${others === 1 ? 'takes' : 'take'} its share.`);
  if (state === 'maintenance') sentences.push('Nobody asks how it is.');
  if (state === 'ready') sentences.push(upstream.health === 'up' ? 'It takes requests at once.' : 'It takes requests when its health checks pass.');
  if (weight !== undefined && weight > 0) sentences.push(`Weight ${upstream.weight} becomes ${weight}.`);
  if (sentences.length > 0) sentences.push('This is kept beside the file, over reloads and restarts.');
  return sentences.join(' ');
}

// The page: hears the server, and draws what it hears.

import { Chart } from './charts.js';
import { Figures, isError } from './figures.js';
import { Refused, STALE_AFTER_MS, Stream, ask, token } from './server.js';
import { actions, speak } from './actions.js';
import { SYMBOLS, ago, countsOf, isAtRest, isByHand, isSick, judge, perilOf, usersOf } from './verdicts.js';
import { harmOf, windowOf } from './users.js';
import { drawPools } from './pools.js';
import { briefly, levelOf, sentence, tellOnce } from './events.js';
import './requests.js';
import { byId, bytes, clock, day, dress, duration, facts, list, make, milliseconds, number, plural, say, share, show } from './page.js';

/** Troubles that are listed; of more, the number is told. */
const TROUBLES_MAX = 12;
/** So many upstreams of a pool that are sick in the same way are listed one by one; more would hide all others. */
const ALIKE_MAX = 4;
/** Events that are kept, and that are shown at first. */
const EVENTS_MAX = 256;
const EVENTS_SHOWN = 20;
/** A certificate that ends within this time is trouble. */
const CERTIFICATE_DAYS = 21;
/** Sick ones are spoken of at most so often. */
const SPEAK_MS = 10_000;
/** Lines for reasons: more are not told apart. */
const REASONS_MAX = 5;

const figures = new Figures();
const events = [];
let you = null;
let isLearningWho = false;
let heardAt = 0;
let trouble = null;
let version = null;
let differs = { of: null, list: [] };
let eventsShown = EVENTS_SHOWN;
let knownSick = null;
let spokenAt = 0;

const isStale = () => Date.now() - heardAt > STALE_AFTER_MS;
const acts = actions({ scope: () => you?.scope ?? 'read', isStale, figures });
const now = () => Date.parse(figures.now.at) + (Date.now() - heardAt);

const perSecond = (value) => `${number(value)}/s`;
const rateChart = new Chart('Requests per second', perSecond, [
  { name: 'requests', look: 'line a', of: (point) => point.rate },
  { name: 'errors', look: 'line bad', of: (point) => point.errors },
]);
const latencyChart = new Chart('Latency', milliseconds, [
  { name: '50 %', look: 'line a', of: (point) => point.p50 },
  { name: '90 %', look: 'line b', of: (point) => point.p90 },
  { name: '99 %', look: 'line c', of: (point) => point.p99 },
]);
const reasonChart = new Chart('Failed and refused, by reason', perSecond, []);
byId('charts').append(rateChart.element, latencyChart.element, reasonChart.element);

const stream = new Stream(hear, lose);

// Hearing.

function hear(kind, data) {
  if (kind === 'figures') {
    figures.take(data);
    heardAt = Date.now();
    trouble = null;
    open();
    draw();
  } else if (kind === 'missed') {
    note({ at: new Date().toISOString(), kind, missed: data.missed });
  } else {
    note({ ...data, kind });
  }
}

function note(event) {
  events.unshift({ ...event, key: `${event.at} ${note.count++}` });
  events.length = Math.min(events.length, EVENTS_MAX);
  if (figures.now) drawEvents();
}
note.count = 0;

function lose(error, pause) {
  if (pause === null) {
    you = null;
    askForToken(error);
    return;
  }
  // A stream that ended in order is opened again at once.
  trouble = error;
  if (figures.now) draw();
  else drawConnection();
}

/** Asked when the stream is open: what that is refused with is told once. */
async function learnWho() {
  isLearningWho = true;
  const secret = token.get();
  try {
    const status = await ask('/v1/status');
    if (secret === token.get()) you = status.you;
  } catch {
    // With the next figures again.
  }
  isLearningWho = false;
  if (!you) return;
  draw();
  remember();
}

/** What the server remembers of the last hour, where it does. */
async function remember() {
  try {
    figures.remember(pointsOf(await ask('/v1/stats/history?window=1h&step=10s&of=total')));
    drawCharts();
  } catch {
    // Then the lines begin now.
  }
}

/** From the first step that is known: nobody looks at the time before the process. */
function pointsOf({ period, series }) {
  const first = series.findIndex((step) => step.requests !== null);
  return (first < 0 ? [] : series.slice(first)).map((step) => ({
    seconds: Date.parse(step.at) / 1000 + period.step_seconds,
    rate: step.requests_per_second ?? undefined,
    errors: step.errors === null ? undefined : step.errors / period.step_seconds,
    p50: step.latency_ms.p50,
    p90: step.latency_ms.p90,
    p99: step.latency_ms.p99,
  }));
}

// The door.

function askForToken(error) {
  stream.close();
  show(byId('board'), false);
  show(byId('banner'), false);
  show(byId('gate'), true);
  show(byId('forget'), false);
  drawStatus('off', 'A token is needed');
  say(byId('connection'), 'not connected');
  say(byId('you'), '');
  const isFirst = !token.get();
  say(byId('gate-said'), isFirst ? 'This side port shows itself to those with a token only.' : error.sentences);
  dress(byId('gate-said'), isFirst ? '' : 'refused');
  byId('token').focus();
}

byId('gate').addEventListener('submit', (event) => {
  event.preventDefault();
  token.set(byId('token').value.trim());
  byId('token').value = '';
  stream.open();
});

byId('forget').addEventListener('click', () => {
  token.forget();
  location.reload();
});

document.addEventListener('visibilitychange', () => {
  // What was missed meanwhile.
  if (document.visibilityState === 'visible' && figures.now && isStale()) remember();
});

function open() {
  show(byId('gate'), false);
  show(byId('board'), true);
  show(byId('forget'), token.get() !== null);
  if (!you && !isLearningWho) learnWho();
}

// Drawing.

function draw() {
  const live = figures.now;
  const users = usersOf(live.pools);
  const judged = live.pools.map((pool) => ({ pool, verdicts: judge(pool, figures, users, now()), recent: figures.recentOf(pool.name) }));
  const troubles = troublesOf(live, judged);
  drawConnection();
  drawTop(live, judged, troubles);
  drawUsers();
  drawTroubles(live, judged, troubles);
  drawTiles(live);
  drawCharts();
  drawPools(judged, now(), acts);
  drawConfiguration(live.status);
  drawListeners(live.status);
  drawProcess(live);
  drawEvents();
}

function drawConnection() {
  if (!figures.now) {
    if (trouble) banner(`${trouble instanceof Refused ? trouble.sentences : 'No answer from the server.'} Trying again.`);
    return;
  }
  const isOld = isStale();
  document.body.classList.toggle('stale', isOld);
  say(byId('connection'), isOld ? '✕ not live' : '✓ live');
  dress(byId('connection'), isOld ? 'bad' : 'ok');
  say(byId('you'), you ? `signed in as ${you.name}, ${MAY[you.scope] ?? ''} (${you.scope})` : '');
  const why = trouble instanceof Refused ? ` The server says: ${trouble.sentences}` : '';
  if (isOld) banner(`Not live: these figures are of ${clock(figures.now.at)}. The server does not answer; trying again by itself.${why}`);
  else if (version !== null && version !== figures.now.status.version) banner(`Evener is now ${figures.now.status.version}, and this page is of ${version}. Reload it.`);
  else show(byId('banner'), false);
}

function banner(text) {
  say(byId('banner'), text);
  show(byId('banner'), true);
}

const MAY = { read: 'may look', operate: 'may operate', write: 'may change' };

const CONDITIONS = {
  ok: ['ok', '✓ All is well'],
  degraded: ['warn', '▲ Degraded'],
  down: ['bad', '✕ No upstream left'],
  starting: ['off', '‖ Starting'],
  draining: ['off', '‖ Draining'],
};

function drawTop({ status }, judged, troubles) {
  version ??= status.version;
  const all = judged.flatMap(({ verdicts }) => verdicts);
  const sick = all.filter(isSick);
  const [level, word] = standing(status, judged, sick, troubles);
  if (isStale()) drawStatus('off', '? Not known');
  else drawStatus(level, all.every((verdict) => verdict.kind === 'ok') ? word : `${word}: ${countsOf(all)}`);
  say(byId('about'), `${status.version} · up ${duration(status.uptime_seconds)} · generation ${status.generation} · ${plural(status.pools, 'pool')}, ${plural(status.upstreams, 'upstream')}`);
  const title = isStale() ? '? Evener' : sick.length > 0 ? `✕ ${sick.length} sick · Evener` : 'Evener';
  if (document.title !== title) document.title = title;
  announce(sick);
}

/** Level and word for all of it; worst first. */
function standing({ status }, judged, sick, troubles) {
  const isOver = (level) => troubles.some((trouble) => trouble.level === level);
  if (!['ok', 'degraded'].includes(status)) return CONDITIONS[status] ?? ['warn', status];
  if (judged.some((one) => one.pool.eligible === 0 || perilOf(one))) return ['bad', '✕ Critical'];
  if (status === 'degraded' || sick.length > 0) return CONDITIONS.degraded;
  if (isOver('bad') || isOver('warn')) return ['warn', '▲ Needs a look'];
  const isUntested = judged.length > 0 && judged.every(({ verdicts }) => verdicts.every((verdict) => verdict.kind !== 'ok'));
  return isUntested ? ['off', '○ No requests yet'] : CONDITIONS.ok;
}

function drawUsers() {
  const { level, text } = isStale() ? { level: 'off', text: 'Users: not known' } : harmOf(figures);
  say(byId('users'), text);
  dress(byId('users'), `users ${level}`);
}

function drawStatus(level, text) {
  const badge = byId('status').firstElementChild;
  dress(badge, `badge ${level}`);
  say(badge, text);
}

/** Whoever listens hears what changed, not every figure. */
function announce(sick) {
  const names = new Map(sick.map((verdict) => [`${verdict.pool.name} ${verdict.upstream.address}`, verdict]));
  if (knownSick === null) {
    knownSick = names;
    return;
  }
  if (Date.now() - spokenAt < SPEAK_MS) return;
  const fell = [...names].filter(([name, verdict]) => knownSick.get(name)?.kind !== verdict.kind);
  const rose = [...knownSick.keys()].filter((name) => !names.has(name));
  knownSick = names;
  if (fell.length + rose.length === 0) return;
  spokenAt = Date.now();
  const words = fell.slice(0, 3).map(([name, verdict]) => `${name} is ${verdict.word.toLowerCase()}`);
  if (fell.length > 3) words.push(`and ${fell.length - 3} more`);
  if (rose.length > 0) words.push(rose.length === 1 ? `${rose[0]} is well again` : `${rose.length} are well again`);
  speak(`${words.join(', ')}.`);
}

function drawTroubles(live, judged, troubles) {
  const byHand = troubles.filter((trouble) => trouble.isByHand);
  show(byId('by-hand-part'), byHand.length > 0);
  listTroubles(byId('by-hand'), cut(byHand));
  const shown = cut(troubles.filter((trouble) => !trouble.isByHand));
  if (shown.length === 0) {
    const text = atRest(live, judged, byHand.length > 0);
    if (isStale()) shown.push({ key: 'unknown', level: 'off', word: 'Not known', where: '', text: 'The server does not answer. When it last did, nothing was wrong.' });
    else shown.push({ key: 'nothing', level: 'ok', word: 'Nothing', where: '', text });
  }
  listTroubles(byId('troubles'), shown);
}

/** Nothing is wrong: how much of that is known. */
function atRest({ status, pools }, judged, isByHand) {
  const untested = judged.flatMap(({ verdicts }) => verdicts).filter((verdict) => verdict.kind === 'untested').length;
  if (untested > 0) return `No upstream is in trouble; ${untested} ${untested === 1 ? 'is' : 'are'} not tested yet.`;
  const orNot = pools.some((pool) => pool.upstreams.some((upstream) => upstream.backup)) ? ', or stand by' : '';
  if (isByHand) return `All others serve${orNot}.`;
  return status.upstreams === 1 ? 'The upstream serves.' : `All ${status.upstreams} upstreams serve${orNot}.`;
}

function cut(all) {
  const shown = all.slice(0, TROUBLES_MAX);
  if (all.length > shown.length) {
    const left = all.length - shown.length;
    shown.push({ key: 'more', level: all[TROUBLES_MAX].level, word: `${left} more`, where: '', text: 'See the pools below.' });
  }
  return shown;
}

function listTroubles(parent, shown) {
  list(parent, shown, (one) => one.key, newTrouble, (item, one) => {
    const [badge, where, text, more, check] = item.children;
    dress(item, one.level);
    dress(badge, `badge ${one.level}`);
    say(badge, `${SYMBOLS[one.level]} ${one.word}`);
    say(where, one.where);
    say(text, one.text);
    show(more, Boolean(one.more));
    say(more.lastChild, one.more ?? '');
    item.checks = one.checks;
    show(check, one.checks !== undefined && acts.mayOperate());
    check.setAttribute('aria-label', `Check health of ${one.checks} now`);
  });
}

function newTrouble() {
  const more = make('details', {}, make('summary', {}, 'All mistakes'), make('pre'));
  const check = make('button', { type: 'button', onclick: () => acts.check(item.checks) }, 'Check now');
  const item = make('li', {}, make('span', { class: 'badge' }), make('b', { class: 'where' }), make('span', { class: 'text' }), more, check);
  return item;
}

/** What a person should know, worst first. */
function troublesOf({ status, process }, judged) {
  const troubles = [];
  const add = (key, level, word, where, text, rank, more = {}) => troubles.push({ key, level, word, where, text, rank, ...more });
  for (const { pool, verdicts, recent } of judged) {
    const peril = perilOf({ pool, verdicts });
    if (pool.eligible === 0) add(`pool ${pool.name}`, 'bad', 'No upstream left', `pool ${pool.name}`, refusing(pool, recent), -2);
    else if (peril) add(`peril ${pool.name}`, 'bad', 'Critical', `pool ${pool.name}`, remaining(pool, peril), -1.5);
    for (const [kind, alike] of byKind(verdicts)) {
      const [{ level, word, rank, upstream, why }] = alike;
      const more = { isByHand: isByHand(alike[0]), checks: CHECKED.includes(kind) && pool.health_check !== null ? pool.name : undefined };
      if (kind === 'alarm') {
        add(`alarm ${pool.name}`, level, alike.length === 1 ? 'Alarm' : plural(alike.length, 'alarm'), `pool ${pool.name}`, `${alarmed(alike)} ${alike.length === 1 ? 'It serves' : 'All of them serve'}.${reasonOf(pool)}`, rank);
        continue;
      }
      if (alike.length > ALIKE_MAX) {
        add(`kind ${pool.name} ${kind}`, level, `${alike.length} × ${word}`, `pool ${pool.name}`, `${upstream.address} and ${alike.length - 1} others. ${upstream.address}: ${why}`, rank, more);
        continue;
      }
      for (const one of alike) add(`upstream ${pool.name} ${one.upstream.address}`, level, word, `${pool.name} / ${one.upstream.address}`, one.why, rank, more);
    }
    if (pool.waiting > 0) add(`queue ${pool.name}`, 'warn', 'Waiting', `pool ${pool.name}`, `${pool.waiting} of at most ${pool.waiting_max} requests wait for room.`, 4);
  }
  for (const listener of status.listeners) {
    for (const certificate of listener.certificates) {
      const days = (Date.parse(certificate.not_after) - now()) / 86_400_000;
      if (days > CERTIFICATE_DAYS) continue;
      const [level, word] = days < 0 ? ['bad', 'Expired'] : ['warn', 'Expires soon'];
      const when = `${days < 0 ? 'expired' : 'expires'} ${day(certificate.not_after)} (${days < 0 ? ago(certificate.not_after, now()) : `in ${duration(days * 86_400)}`})`;
      add(`certificate ${listener.name} ${certificate.file}`, level, word, certificate.file, `The certificate for ${certificate.names.join(', ')} ${when}.`, days < 0 ? -1 : 7.5);
    }
  }
  if (status.last_refusal) {
    const { at, who, reason } = status.last_refusal;
    const text = `What runs is unchanged (generation ${status.generation}). A change by ${who}, tried at ${clock(at)}, was refused: ${brief(reason)}${isLong(reason) ? '.' : ''}`;
    add('refusal', 'warn', 'Refused', 'configuration', text, 7.6, { more: isLong(reason) ? reason : undefined });
  }
  if (status.last_failed_upgrade) add('upgrade', 'warn', 'Failed', 'upgrade', `${ago(status.last_failed_upgrade.at, now())}: ${brief(status.last_failed_upgrade.reason)}`, 7.7);
  if (status.guard) add('guard', 'off', 'Watched', 'configuration', 'A change is under guard: it is rolled back by itself when errors or latency rise.', 7.8);
  const files = process.open_files_max ? process.open_files / process.open_files_max : 0;
  if (files > 0.8) add('files', 'warn', 'Few left', 'process', `${process.open_files} of ${process.open_files_max} file descriptors are in use.`, 3.5);
  return troubles.sort((one, other) => one.rank - other.rank);
}

/** Those that are not as they should be, by what they are. */
function byKind(verdicts) {
  const kinds = new Map();
  for (const verdict of verdicts) {
    if (isAtRest(verdict)) continue;
    if (!kinds.has(verdict.kind)) kinds.set(verdict.kind, []);
    kinds.get(verdict.kind).push(verdict);
  }
  return kinds;
}

/** What a health check that passes would end. */
const CHECKED = ['down', 'unchecked'];

/** Nobody is left: what that does to requests. */
function refusing(pool, recent) {
  const times = pool.upstreams.map((upstream) => upstream.why_not_since).filter(Boolean).sort();
  const isKnown = times.length > 0 && times.length === pool.upstreams.length;
  const since = isKnown ? ` since ${clock(times.at(-1))} (${duration((now() - Date.parse(times.at(-1))) / 1000)})` : '';
  const count = recent?.errors > 0 ? `: ${number(recent.errors)} failed in the last ${windowOf(recent)}` : '';
  return `${pool.upstreams.length === 0 ? 'It has no upstreams. ' : ''}Every request to it is refused with 503${since}${count}.`;
}

/** Few are left: who has to do for all. */
function remaining(pool, { left, count }) {
  if (left.length === 0) return `None of ${plural(count, 'upstream')} is left; only backups serve.`;
  const [{ upstream: last }] = left;
  const who = left.length === 1 ? `: ${last.address} has to do for all` : '';
  return `${left.length} of ${plural(count, 'upstream')} left${who}.`;
}

/** Who has which alarm, in one sentence. */
function alarmed(verdicts) {
  const words = verdicts.slice(0, 3).flatMap(({ upstream }) => upstream.alarms.map((alarm) => `${upstream.address} ${alarm.detail.replace(/^it (is eligible and )?/, '')}`));
  return `${words.join('; ')}${verdicts.length > 3 ? `; and ${verdicts.length - 3} others` : ''}.`;
}

/** What makes traffic uneven, and is no fault. */
function reasonOf({ strategy }) {
  if (strategy === 'consistent_hash') return ' With consistent_hash and few clients that is to be expected: each stays at one upstream.';
  return ' Do the weights and the strategy mean it so?';
}

const isLong = (reason) => reason.trim().split('\n').length > 2;

/** Of a report with a page of mistakes, how many they are. */
function brief(reason) {
  const lines = reason.trim().split('\n');
  return isLong(reason) ? (/^\d+ mistakes?/.exec(lines.at(-1))?.[0] ?? lines.at(-1)) : reason;
}

function drawTiles({ status, latency_ms: latency }) {
  const recent = figures.total.recent();
  const { isRefusing } = figures;
  const said = (value) => (isRefusing ? ['– only refusals', 'note'] : [milliseconds(value)]);
  say(byId('window'), recent ? `of the last ${windowOf(recent)}, as clients see it` : '');
  const connections = status.listeners.reduce((sum, listener) => sum + listener.connections, 0);
  facts(byId('tiles'), [
    ['Requests', recent ? perSecond(recent.rate) : '–'],
    ['Errors', ...(recent?.requests === 0 ? ['– no requests', 'note'] : [share(recent?.errorRate), recent?.errors > 0 ? 'hot' : ''])],
    ['Latency, median', ...said(latency?.p50)],
    ['Latency, 90 %', ...said(latency?.p90)],
    ['Latency, 99 %', ...said(latency?.p99)],
    ['In flight now', number(status.totals.in_flight)],
    ['Connections now', number(connections)],
  ]);
}

function drawCharts() {
  const marks = events.filter((event) => levelOf(event)).map((event) => ({
    key: event.key,
    seconds: Date.parse(event.at) / 1000,
    level: levelOf(event),
    text: sentence(event),
    brief: briefly(event),
  }));
  const start = (Date.parse(figures.now.at) / 1000) - figures.now.status.uptime_seconds;
  rateChart.update(figures.points, marks, start);
  latencyChart.update(figures.points, marks, start);
  const reasons = figures.reasons().slice(0, REASONS_MAX);
  const series = reasons.map((reason, index) => ({
    name: reason,
    look: `line ${isError(reason) ? 'bad' : 'a'} dash${index}`,
    of: (point) => (point.reasons ? (point.reasons[reason] ?? 0) : undefined),
  }));
  const name = figures.points.at(-1)?.reasons ? 'no failures' : 'counting …';
  const none = [{ name, look: 'line a', isBare: true, of: (point) => (point.reasons ? 0 : undefined) }];
  reasonChart.update(figures.points, marks, start, series.length > 0 ? series : none);
}

// What happened.

function drawEvents() {
  const told = tellOnce(events);
  const shown = told.slice(0, eventsShown);
  list(
    byId('events'),
    shown.length > 0 ? shown : [{ key: 'none', kind: 'none' }],
    (event) => event.key,
    (event) =>
      event.kind === 'none'
        ? make('li', { class: 'muted' }, 'Nothing yet, since this process runs.')
        : make('li', { class: levelOf(event) ?? '' }, make('time', { datetime: event.at }, clock(event.at)), make('span', {}, sentence(event))),
    () => {},
  );
  show(byId('more-events'), told.length > eventsShown);
}

byId('more-events').addEventListener('click', () => {
  eventsShown += 50;
  drawEvents();
});

// The rest.

function drawConfiguration(status) {
  facts(byId('config'), [
    ['Generation', String(status.generation)],
    ['File', status.config ?? 'none: started by arguments'],
    ['Overrides', String(status.overrides)],
  ]);
  show(byId('rollback'), acts.mayWrite());
  byId('rollback').disabled = status.generation <= 1;
  show(byId('no-rollback'), acts.mayWrite() && status.generation <= 1);
  const stamp = `${status.generation} ${status.overrides}`;
  if (differs.of !== stamp) {
    differs = { of: stamp, list: status.overrides > 0 ? null : [] };
    if (status.overrides > 0) learnOverrides(stamp);
    else drawOverrides();
  }
}

async function learnOverrides(stamp) {
  try {
    const { overrides } = await ask('/v1/overrides');
    if (differs.of === stamp) differs.list = overrides;
    drawOverrides();
  } catch {
    // With the next figures again.
    differs.of = null;
  }
}

const text = (value) => (value === null || value === undefined ? 'nothing' : typeof value === 'object' ? JSON.stringify(value) : String(value));

function drawOverrides() {
  const parent = byId('overrides');
  if (differs.list.length === 0) {
    parent.replaceChildren(make('p', { class: 'muted' }, 'Nothing was changed at run time.'));
    return;
  }
  const items = differs.list.slice(0, 100).map((one) => {
    const where = one.upstream ? `${one.pool} / ${one.upstream}` : one.pool;
    const whatItSays = `${one.setting} is ${text(one.value)}; the file says ${text(one.file)}`;
    return make('li', {}, make('b', {}, where), ` ${whatItSays} `, make('span', { class: 'muted' }, `by ${one.by}, ${clock(one.at)}`));
  });
  if (differs.list.length > items.length) items.push(make('li', {}, `and ${differs.list.length - items.length} more`));
  parent.replaceChildren(make('ul', { class: 'plain', 'aria-labelledby': 'overrides-title' }, ...items));
}

function drawListeners(status) {
  list(
    byId('listeners'),
    status.listeners,
    (listener) => listener.name,
    (listener) => make('li', {}, make('b', {}, listener.name), make('span', { class: 'about' }), make('ul', { class: 'plain' })),
    (item, listener) => {
      const sockets = listener.upgraded_connections > 0 ? `, of them ${plural(listener.upgraded_connections, 'WebSocket')}` : '';
      say(item.children[1], ` ${listener.address} · ${plural(listener.connections, 'connection')}${sockets}`);
      const tls = listener.certificates.map((certificate) => ({ ...certificate, days: (Date.parse(certificate.not_after) - now()) / 86_400_000 }));
      list(item.children[2], tls, (one) => one.file, () => make('li'), (line, one) => {
        dress(line, one.days < 0 ? 'bad' : one.days < CERTIFICATE_DAYS ? 'warn' : '');
        say(line, `${one.names.join(', ')}: ${one.days < 0 ? 'expired' : 'expires'} ${day(one.not_after)} (${one.days < 0 ? ago(one.not_after, now()) : `in ${duration(one.days * 86_400)}`})`);
      });
    },
  );
}

function drawProcess({ status, process }) {
  const before = drawProcess.before;
  drawProcess.before = { seconds: now() / 1000, cpu: process.cpu_seconds };
  const cpu = before && process.cpu_seconds !== null && now() / 1000 > before.seconds ? (process.cpu_seconds - before.cpu) / (now() / 1000 - before.seconds) : null;
  if (cpu !== null) drawProcess.cpu = drawProcess.cpu === undefined ? cpu : drawProcess.cpu * 0.8 + cpu * 0.2;
  facts(byId('process'), [
    ['CPU', drawProcess.cpu === undefined ? '–' : `${number(Math.max(0, drawProcess.cpu))} cores`],
    ['Memory', bytes(process.resident_bytes)],
    ['Open files', process.open_files === null ? null : `${process.open_files}${process.open_files_max ? ` of ${number(process.open_files_max)}` : ''}`],
    ['Threads', process.threads === null ? null : String(process.threads)],
    ['Process', `${status.pid}`],
    ['Program', status.executable],
  ]);
}

byId('rollback').addEventListener('click', () => acts.rollBack());
for (const control of ['find', 'sick']) byId(control).addEventListener('input', () => figures.now && draw());
document.addEventListener('redraw', () => figures.now && draw());
// While nothing comes, ages grow and the banner appears.
setInterval(() => figures.now && isStale() && draw(), 1_000);

stream.open();

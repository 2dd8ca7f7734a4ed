// How an upstream is, in words: what a person has to know first. No clock and no page in here.

import { capital, clock, duration, milliseconds, plural, share } from './page.js';

/** An upstream is called slow when it takes so many times as long as the others do, and so much longer. */
const SLOW_TIMES = 3;
const SLOW_MS = 20;
/** And failing when so many of its answers are errors, of so many at least. */
const FAILING = 0.1;
const FAILING_OF = 10;

/** Sick ones first: what nobody wanted, before what somebody did, before what is well. */
const RANKS = ['down', 'ejected', 'probation', 'failing', 'full', 'slow', 'alarm', 'unchecked', 'draining', 'maintenance', 'weight_0', 'ok', 'untested', 'backup'];
const WORDS = {
  down: 'Down',
  ejected: 'Ejected',
  probation: 'On trial',
  failing: 'Failing',
  full: 'Overloaded',
  slow: 'Slow',
  alarm: 'Serving, alarm',
  unchecked: 'Unchecked',
  draining: 'Draining',
  maintenance: 'Maintenance',
  weight_0: 'Weight 0',
  backup: 'Standby',
  untested: 'Not tested yet',
  ok: 'Serving',
};
const LEVELS = {
  down: 'bad',
  ejected: 'bad',
  probation: 'warn',
  failing: 'bad',
  full: 'warn',
  slow: 'warn',
  alarm: 'warn',
  unchecked: 'warn',
  draining: 'off',
  maintenance: 'off',
  weight_0: 'off',
  backup: 'off',
  untested: 'off',
  ok: 'ok',
};
/** How requests fail. */
const FAILURES = {
  status_5xx: 'with status 5xx',
  connect_failed: 'without a connection (refused or unreachable)',
  connect_timed_out: 'without a connection in time',
  no_answer: 'without an answer (cut off, too late or no HTTP)',
};
/** What a person does about it. */
const CURES = {
  status_5xx: 'See its log.',
  connect_failed: 'Is it running, and reachable from here?',
  connect_timed_out: 'Is it overloaded, or behind a firewall?',
  no_answer: 'Does it hang? See its log.',
};
/** The same by what a health check met. */
const CHECK_CURES = [
  [/^connection refused/, 'Nothing listens there: start it.'],
  [/^status /, 'It runs and says that it is not well: see its log.'],
  [/in time/, 'Does it hang, or is it behind a firewall?'],
  [/^no route|^cannot connect/, 'Is its machine up and reachable from here?'],
  [/^TLS/, 'Compare its certificate with `tls` of the pool.'],
];
/** For those who do not see colours. */
export const SYMBOLS = { bad: '✕', warn: '▲', off: '‖', ok: '✓' };
/** Somebody wanted it so. */
const BY_HAND = ['draining', 'maintenance', 'weight_0'];
/** In trouble, and without requests for it. */
const LOST = ['down', 'ejected', 'probation', 'unchecked'];

/** By address, the pools that send requests there, or still have some in flight. */
export function usersOf(pools) {
  const users = new Map();
  for (const pool of pools) {
    for (const upstream of pool.upstreams) {
      const isOut = upstream.state !== 'ready' || upstream.weight === 0;
      if (isOut && upstream.in_flight === 0) continue;
      users.set(upstream.address, [...(users.get(upstream.address) ?? []), pool.name]);
    }
  }
  return users;
}

/**
 * Every upstream of a pool with its verdict: kind, word, level, symbol, why, rank, and what it gets of the
 * traffic against what would be fair. `users` are those of all pools.
 */
export function judge(pool, figures, users, now) {
  const recents = pool.upstreams.map((upstream) => figures.recentOf(pool.name, upstream.address));
  const total = recents.reduce((sum, recent) => sum + (recent?.requests ?? 0), 0);
  const serving = pool.upstreams.filter((upstream) => !upstream.why_not);
  const weights = serving.reduce((sum, upstream) => sum + upstream.weight, 0);
  const latencies = serving.filter((upstream) => upstream.ewma_ms !== undefined).map((upstream) => upstream.ewma_ms);
  latencies.sort((one, other) => one - other);
  return pool.upstreams.map((upstream, index) => {
    const recent = recents[index];
    const usual = medianWithout(latencies, upstream.ewma_ms);
    const kind = kindOf(upstream, recent, usual);
    return {
      pool,
      upstream,
      recent,
      kind,
      rank: RANKS.indexOf(kind),
      word: WORDS[kind] ?? kind,
      level: LEVELS[kind] ?? 'warn',
      symbol: kind === 'untested' ? '○' : SYMBOLS[LEVELS[kind] ?? 'warn'],
      why: [why(kind, upstream, { pool, recent, usual, users: users.get(upstream.address) ?? [], now }), ...alarmsOf(upstream)].filter(Boolean).join(' '),
      // An estimate of long ago says nothing about who gets no requests.
      latency: recent?.requests === 0 && upstream.in_flight === 0 ? undefined : upstream.ewma_ms,
      share: total > 0 && recent ? recent.requests / total : null,
      fair: upstream.why_not || weights === 0 ? 0 : upstream.weight / weights,
    };
  });
}

/** The median of sorted values, one of them left out; null when there is no other. */
function medianWithout(sorted, value) {
  if (value === undefined) return null;
  const index = sorted.indexOf(value);
  const count = sorted.length - (index >= 0 ? 1 : 0);
  if (count === 0) return null;
  const middle = Math.floor((count - 1) / 2);
  return sorted[index >= 0 && middle >= index ? middle + 1 : middle];
}

function kindOf(upstream, recent, usual) {
  if (upstream.why_not) return RANKS.includes(upstream.why_not) ? upstream.why_not : 'weight_0';
  if (recent && recent.requests >= FAILING_OF && recent.errorRate >= FAILING) return 'failing';
  const isSlow = usual !== null && upstream.ewma_ms >= SLOW_TIMES * usual && upstream.ewma_ms >= usual + SLOW_MS;
  if (isSlow) return 'slow';
  if (upstream.alarms) return 'alarm';
  return upstream.requests + upstream.in_flight === 0 && !upstream.last_check ? 'untested' : 'ok';
}

/** `Starved: it is eligible and got 0 requests in a minute, 300 would be fair.` */
function alarmsOf(upstream) {
  return (upstream.alarms ?? []).map((alarm) => `${capital(alarm.kind.replaceAll('_', ' '))}: ${alarm.detail}.`);
}

/** One sentence or two: the facts first, then what ends it, in the server's words. */
function why(kind, upstream, { pool, recent, usual, users, now }) {
  const since = sinceOf(upstream, now);
  const flying = plural(upstream.in_flight, 'request');
  switch (kind) {
    case 'down':
      return `${since}${checked(pool, upstream, now)} ${untilUp(pool, upstream)}`;
    case 'ejected': {
      const left = (Date.parse(upstream.ejected_until) - now) / 1000;
      const when = left > 0 ? `Next try at ${clock(upstream.ejected_until)} (in ${duration(left)})` : 'About to be tried again';
      const how = pool.health_check === null ? ', with a request: there is no health check.' : ', with a request.';
      return `${since}Too many requests in a row failed${causes(recent, upstream)}. ${cureOf(recent, upstream)}${when}${how}`;
    }
    case 'full':
      return `At its limit, ${upstream.in_flight} of at most ${plural(upstream.max_connections, 'request')} in flight (max_connections). Takes the next when one ends; till then ${othersDo(pool)}.`;
    case 'failing':
      return `${share(recent.errorRate)} of its requests in the last ten seconds failed${causes(recent, upstream)}. ${cureOf(recent, upstream)}`;
    case 'slow':
      return `Takes ${milliseconds(upstream.ewma_ms)} on average; the others take ${milliseconds(usual)}.`;
    case 'draining':
      if (upstream.in_flight > 0) return `${since}No new requests. ${flying} in flight still ${upstream.in_flight === 1 ? 'finishes' : 'finish'}.`;
      if (users.length > 0) return `${since}No new requests from here, none in flight. Not safe to stop: ${andOthers(users)} ${users.length === 1 ? 'uses' : 'use'} it too.`;
      return `${since}No new requests, none in flight: safe to stop.`;
    case 'maintenance':
      return upstream.in_flight > 0 ? `${since}${flying} in flight still ${upstream.in_flight === 1 ? 'finishes' : 'finish'}.` : `${since}No requests, no health checks.`;
    case 'untested':
      return `${pool.health_check === null ? 'No health check' : 'No result'}, and no requests so far.`;
    default:
      return upstream.why_not_detail ? `${since}${capital(upstream.why_not_detail)}.` : '';
  }
}

/** How its requests failed: `: 3 with status 5xx`. Of the last seconds, or else since the start. */
function causes(recent, upstream) {
  const told = (counts) => counts.filter(([kind, count]) => count > 0 && FAILURES[kind]).map(([kind, count]) => `${count} ${FAILURES[kind]}`);
  const lately = told(recent?.failures ?? []);
  if (lately.length > 0) return `: ${lately.join(', ')}`;
  const all = told(Object.entries(upstream.failures ?? {}));
  return all.length > 0 ? `; since the start: ${all.join(', ')}` : '';
}

/** `Since 07:00:56 (6 s). ` */
function sinceOf({ why_not_since: since }, now) {
  return since ? `Since ${clock(since)} (${duration((now - Date.parse(since)) / 1000)}). ` : '';
}

/** By how most of its requests failed, with a blank. */
function cureOf(recent, upstream) {
  const counts = Object.entries({ ...upstream.failures, ...Object.fromEntries((recent?.failures ?? []).filter(([, count]) => count > 0)) });
  const [kind] = counts.filter(([, count]) => count > 0).sort((one, other) => other[1] - one[1])[0] ?? [];
  return CURES[kind] ? `${CURES[kind]} ` : '';
}

/** What becomes of requests that one is too busy for. */
function othersDo(pool) {
  if (pool.upstreams.some((upstream) => !upstream.why_not)) return 'the others take them';
  return pool.waiting_max > 0 ? 'they wait' : 'they are refused';
}

function untilUp({ rise }, { flapping }) {
  if (!flapping) return `Takes traffic again after ${plural(rise ?? 1, 'pass', 'passes')} in a row.`;
  return `It went down again and again, so it takes traffic after ${flapping.passes_needed} passes in a row; it has ${flapping.passes}.`;
}

const andOthers = ([first, ...others]) => `pool ${first}${others.length > 0 ? ` and ${plural(others.length, 'other')}` : ''}`;

/** What the last health check met. */
function checked({ health_check: question }, { last_check: check }, now) {
  if (!check) return 'Health checks failed.';
  if (check.ok) return `The last health check passed ${ago(check.at, now)}, those before failed.`;
  const cure = CHECK_CURES.find(([pattern]) => pattern.test(check.error ?? ''))?.[1] ?? '';
  return `Health check (${question}) failed, last ${ago(check.at, now)}: ${check.error ?? 'no reason is known'}. ${cure}`.trimEnd();
}

export function ago(at, now) {
  const seconds = (now - Date.parse(at)) / 1000;
  return seconds < 1 ? 'just now' : `${duration(seconds)} ago`;
}

/** There is something that nobody wanted. */
export const isOdd = (verdict) => verdict.level === 'bad' || verdict.level === 'warn';

/** It is out because somebody wanted it so. */
export const isByHand = (verdict) => BY_HAND.includes(verdict.kind);

/** There is nothing to say about it. */
export const isAtRest = (verdict) => verdict.kind === 'ok' || verdict.kind === 'untested' || verdict.kind === 'backup';

/** How many are what, in words that add up: `4 sick · 2 taken out · 3 healthy`. */
export function countsOf(verdicts) {
  const count = (is) => verdicts.filter(is).length;
  const counts = [
    [count(isSick), 'sick'],
    [count((verdict) => verdict.kind === 'alarm'), 'with an alarm'],
    [count(isByHand), 'taken out'],
    [count((verdict) => verdict.kind === 'ok'), 'healthy'],
    [count((verdict) => verdict.kind === 'untested'), 'not tested yet'],
    [count((verdict) => verdict.kind === 'backup'), 'standing by'],
  ];
  return counts.filter(([number]) => number > 0).map(([number, word]) => `${number} ${word}`).join(' · ');
}

/**
 * How near a pool is to an outage that nobody wanted; null: not near. `left` are those that still serve, of
 * `count` that should.
 */
export function perilOf({ pool, verdicts }) {
  const wanted = verdicts.filter((verdict) => !isByHand(verdict) && !verdict.upstream.backup);
  const left = wanted.filter((verdict) => !LOST.includes(verdict.kind));
  const [count, lost] = [wanted.length, wanted.length - left.length];
  if (pool.eligible === 0 || lost === 0) return null;
  const isNear = lost * 2 > count || (left.length === 1 && verdicts.length >= 3);
  return isNear ? { left, count } : null;
}

/** It does not serve as it should; an alarm alone is about its share of the traffic. */
export const isSick = (verdict) => isOdd(verdict) && verdict.kind !== 'alarm';

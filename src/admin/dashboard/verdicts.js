// How an upstream is, in words: what a person has to know first. No clock and no page in here.

import { capital, duration, milliseconds, plural, share } from './page.js';

/** An upstream is called slow when it takes so many times as long as the others do, and so much longer. */
const SLOW_TIMES = 3;
const SLOW_MS = 20;
/** And failing when so many of its answers are errors, of so many at least. */
const FAILING = 0.1;
const FAILING_OF = 10;

/** Sick ones first: what nobody wanted, before what somebody did, before what is well. */
const RANKS = ['down', 'ejected', 'probation', 'failing', 'full', 'slow', 'alarm', 'unchecked', 'draining', 'maintenance', 'weight_0', 'ok', 'backup'];
const WORDS = {
  down: 'Down',
  ejected: 'Ejected',
  probation: 'On trial',
  failing: 'Failing',
  full: 'Overloaded',
  slow: 'Slow',
  alarm: 'Alarm',
  unchecked: 'Unchecked',
  draining: 'Draining',
  maintenance: 'Maintenance',
  weight_0: 'Weight 0',
  backup: 'Standby',
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
  ok: 'ok',
};
/** How requests fail. */
const FAILURES = {
  status_5xx: 'with status 5xx',
  connect_failed: 'without a connection (refused or unreachable)',
  connect_timed_out: 'without a connection in time',
  no_answer: 'without an answer (cut off, too late or no HTTP)',
};
/** For those who do not see colours. */
const SYMBOLS = { bad: '✕', warn: '▲', off: '‖', ok: '✓' };

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
      symbol: SYMBOLS[LEVELS[kind] ?? 'warn'],
      why: [why(kind, upstream, { recent, usual, users: users.get(upstream.address) ?? [], now }), ...alarmsOf(upstream)].filter(Boolean).join(' '),
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
  return upstream.alarms ? 'alarm' : 'ok';
}

/** `Starved: it is eligible and got 0 of about 300 requests in a minute.` */
function alarmsOf(upstream) {
  return (upstream.alarms ?? []).map((alarm) => `${capital(alarm.kind.replaceAll('_', ' '))}: ${alarm.detail}.`);
}

/** One sentence or two: the facts first, then what ends it, in the server's words. */
function why(kind, upstream, { recent, usual, users, now }) {
  const flying = plural(upstream.in_flight, 'request');
  switch (kind) {
    case 'down':
      return `${checked(upstream, now)} ${untilUp(upstream)}`;
    case 'ejected': {
      const left = (Date.parse(upstream.ejected_until) - now) / 1000;
      const when = left > 0 ? ` Tried again in ${duration(left)}.` : ' About to be tried again.';
      return `Too many requests in a row failed${causes(recent, upstream)}.${when}`;
    }
    case 'full':
      return `${upstream.in_flight} of at most ${plural(upstream.max_connections, 'request')} in flight. Takes the next when one ends.`;
    case 'failing':
      return `${share(recent.errorRate)} of its requests in the last ten seconds failed${causes(recent, upstream)}.`;
    case 'slow':
      return `Takes ${milliseconds(upstream.ewma_ms)}; the others take ${milliseconds(usual)}.`;
    case 'draining':
      if (upstream.in_flight > 0) return `No new requests. ${flying} in flight still finish.`;
      if (users.length > 0) return `No new requests from here, none in flight. Not safe to stop: ${andOthers(users)} ${users.length === 1 ? 'uses' : 'use'} it too.`;
      return 'No new requests, none in flight: safe to stop.';
    case 'maintenance':
      return upstream.in_flight > 0 ? `Taken out by hand. ${flying} in flight still finish.` : 'Taken out by hand: no requests, no health checks.';
    default:
      return upstream.why_not_detail ? `${capital(upstream.why_not_detail)}.` : '';
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

function untilUp({ flapping }) {
  if (!flapping) return 'Takes traffic again when enough checks in a row pass.';
  return `It went down again and again, so it takes traffic after ${flapping.passes_needed} passes in a row; it has ${flapping.passes}.`;
}

const andOthers = ([first, ...others]) => `pool ${first}${others.length > 0 ? ` and ${plural(others.length, 'other')}` : ''}`;

/** What the last health check met. */
function checked(upstream, now) {
  const check = upstream.last_check;
  if (!check) return 'Health checks failed.';
  if (check.ok) return `The last health check passed ${ago(check.at, now)}, those before failed.`;
  return `Health check failed ${ago(check.at, now)}: ${check.error ?? 'no reason is known'}.`;
}

export function ago(at, now) {
  const seconds = (now - Date.parse(at)) / 1000;
  return seconds < 1 ? 'just now' : `${duration(seconds)} ago`;
}

/** There is something that nobody wanted. */
export const isOdd = (verdict) => verdict.level === 'bad' || verdict.level === 'warn';

/** It does not serve as it should; an alarm alone is about its share of the traffic. */
export const isSick = (verdict) => isOdd(verdict) && verdict.kind !== 'alarm';

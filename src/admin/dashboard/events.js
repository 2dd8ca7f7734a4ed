// What happened, in words. No clock and no page in here.

import { capital, duration, plural } from './page.js';

/** How much it matters; null: it is no event for the time line. */
export function levelOf(event) {
  switch (event.kind) {
    case 'health':
      return event.to === 'up' ? 'ok' : 'bad';
    case 'ejection':
      return { admitted: 'ok', ejected: 'bad' }[event.to] ?? 'warn';
    case 'alarm':
      return event.raised ? 'warn' : 'ok';
    case 'config':
    case 'guard':
    case 'state':
    case 'upgrade':
      return 'off';
    default:
      return null;
  }
}

/** The same on a chart: who became what. */
export function briefly(event) {
  const who = event.upstream ?? event.pool ?? '';
  switch (event.kind) {
    case 'health':
      return `${who} ${event.to}`;
    case 'ejection':
      return `${who} ${TRAFFIC[event.to] ?? event.to}`;
    case 'state':
      return `${who} ${event.to}`;
    case 'alarm':
      return `${who} ${event.alarm.replaceAll('_', ' ')}${event.raised ? '' : ' over'}`;
    case 'config':
      return event.result === 'refused' ? 'change refused' : `generation ${event.generation}`;
    default:
      return event.kind;
  }
}

/** Without the changes of the configuration that the state of an upstream, beside them, tells in full. */
export function tellOnce(events) {
  const isTold = (event, index) => {
    if (event.kind !== 'config' || event.result === 'refused') return false;
    const near = [...events.slice(Math.max(0, index - SAME_CHANGE_MAX), index), ...events.slice(index + 1, index + 1 + SAME_CHANGE_MAX)];
    return near.some((other) => other.kind === 'state' && other.who === event.who && other.why === event.why && event.what.includes(other.upstream) && Math.abs(Date.parse(other.at) - Date.parse(event.at)) < 1_000);
  };
  return events.filter((event, index) => !isTold(event, index));
}

/** Events of one change stand so near to each other. */
const SAME_CHANGE_MAX = 4;

export function sentence(event) {
  const where = event.upstream ? `${event.pool} / ${event.upstream}` : (event.pool ?? '');
  const by = `by ${event.who}${event.why ? ` (${event.why})` : ''}`;
  switch (event.kind) {
    case 'health':
      return `${where} is ${event.to}${event.from === 'unknown' ? ' at the first check' : ''}${after(event.error)}`;
    case 'config':
      return event.result === 'refused' ? `Refused: ${event.what} ${by}${after(event.reason)}` : `Generation ${event.generation}: ${event.what} ${by}`;
    case 'ejection': {
      const time = event.ejected_for_ms === null ? '' : ` for ${duration(event.ejected_for_ms / 1000)}`;
      return `${where}: ${TRAFFIC[event.to] ?? event.to}${time}${after(event.cause)}`;
    }
    case 'state':
      return `${where}: ${event.what} ${event.from} → ${event.to} ${by}`;
    case 'alarm': {
      const alarm = event.alarm.replaceAll('_', ' ');
      return event.raised ? `${where}: alarm, ${alarm}${after(event.detail)}` : `${where}: no longer ${alarm}`;
    }
    case 'guard':
      return `Guarded change to generation ${event.generation}: ${event.outcome.replaceAll('_', ' ')}${after(event.detail)}`;
    case 'upgrade':
      return `Upgrade ${by}: ${event.result.replaceAll('_', ' ')}${after(event.reason)}`;
    case 'missed':
      return `${plural(event.missed, 'event')} came too fast to be told`;
    default:
      // Of a kind that is newer than this page.
      return [capital(event.kind), where].filter(Boolean).join(' · ');
  }
}

const after = (text) => (text ? `: ${text}` : '');

/** What traffic says of an upstream. */
const TRAFFIC = { admitted: 'readmitted', ejected: 'ejected', probation: 'on trial' };

/** What an entry of an upstream's time line is about. */
const TRACKS = { presence: 'configuration', health: 'health', ejection: 'traffic', state: 'state', weight: 'weight' };

/** An entry of an upstream's time line: level and sentence. */
export function entryOf({ kind, from, to, cause, times, duration_ms: lasted, is_current: isCurrent, share_before: had }) {
  const level = { up: 'ok', down: 'bad', admitted: 'ok', ejected: 'bad', probation: 'warn' }[to] ?? 'off';
  const once = isCurrent ? 'since then' : `for ${duration(lasted / 1000)}`;
  const time = times > 1 ? `${times} times, ${duration(lasted / 1000)} in all` : once;
  const before = had ? ` It had ${Math.round(had * 100)} % of the pool's requests before.` : '';
  return { level, text: `${capital(TRACKS[kind] ?? kind)}: ${from} → ${to}, ${time}: ${cause}.${before}` };
}

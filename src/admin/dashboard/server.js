// The side port: asking it, and hearing it.

import { capital } from './page.js';

const TOKEN = 'evener.token';

/** Time between figures. */
const EVERY_SECONDS = 1;
/** Without figures for so long, what is shown is called old. */
export const STALE_AFTER_MS = 4_000;
/** Without a byte for so long, the stream is given up and opened anew. */
const SILENT_MS = 15_000;
const RETRY_MS = [500, 1_000, 2_000, 4_000, 8_000];
/** A tab that nobody sees lets go of its stream: a browser has six connections to one port, for all its tabs. */
const HIDDEN_MS = 30_000;
/** An event that is longer than this is no event. */
const EVENT_CHARACTERS_MAX = 64 * 1024 * 1024;

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (secret) => sessionStorage.setItem(TOKEN, secret),
  forget: () => sessionStorage.removeItem(TOKEN),
};

function headers(more = {}) {
  const secret = token.get();
  return secret ? { ...more, Authorization: `Bearer ${secret}` } : more;
}

/** A refusal, in the server's words. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? problem.title ?? `the server answered ${status}`);
    this.status = status;
    this.title = problem.title ?? '';
    this.help = problem.help ?? '';
    this.mistakes = problem.errors ?? [];
  }

  /** What happened, and what to do, as sentences. */
  get sentences() {
    return [this.message, this.help].filter(Boolean).map((text) => `${capital(text)}.`).join(' ');
  }
}

async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Something between us answered.
  }
  return new Refused(response.status, problem && typeof problem === 'object' ? problem : {});
}

/** The JSON at `path`. Throws what it is refused with. */
export async function ask(path) {
  return (await askTagged(path)).body;
}

/** The same with its entity tag. */
export async function askTagged(path) {
  const response = await fetch(path, { headers: headers(), cache: 'no-store' });
  if (!response.ok) throw await refusal(response);
  return { body: await response.json(), etag: response.headers.get('ETag') };
}

/** Changes something; `more` are further headers. */
export async function change(method, path, body, more = {}) {
  const sent = body === undefined ? {} : { 'Content-Type': 'application/json' };
  const response = await fetch(path, {
    method,
    headers: headers({ ...sent, ...more }),
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: 'no-store',
  });
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/**
 * Hears the server until told to stop: `told(kind, data)` for each event, `lost(error)` whenever the stream
 * ends. A 401 or 403 ends it for good. EventSource would do, could it send a token.
 */
export class Stream {
  #told;
  #lost;
  #last = null;
  #failures = 0;
  #abort = null;
  #timer = null;
  #hidden = null;

  constructor(told, lost) {
    this.#told = told;
    this.#lost = lost;
    document.addEventListener('visibilitychange', () => this.#seen(document.visibilityState === 'visible'));
  }

  open() {
    this.close();
    this.#abort = new AbortController();
    this.#run(this.#abort);
  }

  close() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  #seen(isSeen) {
    clearTimeout(this.#hidden);
    if (!isSeen) this.#hidden = setTimeout(() => this.close(), HIDDEN_MS);
    else if (!this.#abort && this.isWanted) this.open();
  }

  /** Whether a tab that is seen again should hear on. */
  isWanted = false;

  async #run(abort) {
    this.isWanted = true;
    let error = null;
    try {
      await this.#hear(abort);
    } catch (thrown) {
      error = thrown;
    }
    if (abort.signal.aborted && abort !== this.#abort) return;
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
      this.isWanted = false;
      this.close();
      this.#lost(error, null);
      return;
    }
    const pause = error ? RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] : 100;
    if (error) this.#failures += 1;
    this.#lost(error, pause);
    this.#timer = setTimeout(() => this.open(), pause * (0.8 + 0.4 * Math.random()));
  }

  async #hear(abort) {
    let watch = null;
    const alive = () => {
      clearTimeout(watch);
      watch = setTimeout(() => abort.abort(), SILENT_MS);
    };
    try {
      alive();
      const more = this.#last ? { 'Last-Event-ID': this.#last } : {};
      const response = await fetch(`/v1/live?every=${EVERY_SECONDS}s`, {
        headers: headers(more),
        cache: 'no-store',
        signal: abort.signal,
      });
      if (!response.ok) throw await refusal(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        alive();
        text += value;
        // Only what is new can hold the end, or the half of it.
        let from = Math.max(0, text.length - value.length - 1);
        let end;
        while ((end = text.indexOf('\n\n', from)) >= 0) {
          this.#take(text.slice(0, end));
          [text, from] = [text.slice(end + 2), 0];
        }
        if (text.length > EVENT_CHARACTERS_MAX) throw new Error('the stream makes no sense');
      }
    } finally {
      clearTimeout(watch);
    }
  }

  #take(block) {
    let [kind, data] = ['message', ''];
    for (const line of block.split('\n')) {
      if (line.startsWith('event: ')) kind = line.slice(7);
      else if (line.startsWith('data: ')) data += line.slice(6);
      else if (line.startsWith('id: ')) this.#last = line.slice(4);
    }
    if (data) {
      this.#failures = 0;
      this.#told(kind, JSON.parse(data));
    }
  }
}

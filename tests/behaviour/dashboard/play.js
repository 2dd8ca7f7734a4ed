// Plays of a person with a browser: a real Chromium, driven by playwright-core, on the dashboard of a real Evener.
//
//   node play.js SCENE ADMIN [JSON]      "pause NAME" asks the other side to do something, "done" is the end
//
// With EVENER_SCREENSHOTS=FOLDER it leaves pictures there.

const assert = require('node:assert');
const path = require('node:path');
const readline = require('node:readline');
const { chromium } = require(path.join(__dirname, '../../../target/playwright/node_modules/playwright-core'));

/** For anything to appear, on a machine under load. */
const PATIENCE = 60_000;

const [scene, admin, given = '{}'] = process.argv.slice(2);
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function pause(name) {
  console.log(`pause ${name}`);
  assert.ok(!(await lines.next()).done, 'the other side is gone');
}

let browser;
/** What no page may do: say that something was blocked, throw, or ask elsewhere. */
const offences = [];

async function newPage({ width = 1280, height = 900, scheme = 'light', at = '/' } = {}) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme, reducedMotion: 'reduce' });
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', (error) => offences.push(error.stack));
  page.on('console', (message) => /Content.Security|Refused to/i.test(message.text()) && offences.push(message.text()));
  page.on('request', (request) => request.url().startsWith(`http://${admin}/`) || request.url().startsWith('data:') || offences.push(request.url()));
  page.on('dialog', (dialog) => offences.push(`a dialog: ${dialog.message()}`));
  await page.goto(`http://${admin}${at}`);
  return page;
}

async function openBoard(options) {
  const page = await newPage(options);
  await page.locator('#board').waitFor();
  return page;
}

async function picture(page, name, isWhole = false) {
  const folder = process.env.EVENER_SCREENSHOTS;
  if (folder) await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: isWhole });
}

/** Asks the side port itself, beside the browser. */
async function api(method, at, body, token) {
  const headers = { ...(body ? { 'Content-Type': 'application/json' } : {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(`http://${admin}${at}`, { method, headers, body: body && JSON.stringify(body) });
  assert.ok(response.ok, `${method} ${at}: ${response.status}`);
  return response.json();
}

async function until(what, isSo) {
  const end = Date.now() + PATIENCE;
  while (!(await isSo())) {
    assert.ok(Date.now() < end, `in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const row = (page, address) => page.locator('tbody tr', { has: page.getByText(address, { exact: true }) });
const upstreamAt = (address) => api('GET', `/v1/pools/app/upstreams/${encodeURIComponent(address)}`);

/** Texts whose contrast to what lies behind them is below 4.5 to 1. */
function paleTexts() {
  const channels = (text) => (text.match(/[\d.]+/g) ?? []).map(Number);
  const read = (text) => {
    if (!text.startsWith('color(')) {
      const [r, g, b, a = 1] = channels(text);
      return [r, g, b, a];
    }
    const [r, g, b, a = 1] = channels(text.replace(/^color\(\S+/, ''));
    return [r * 255, g * 255, b * 255, a];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a), 1];
  const ground = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(read(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((value) => (value / 255 <= 0.03928 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = [];
  for (const element of document.querySelectorAll('body *')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !element.checkVisibility() || element.closest('.unseen, button:disabled, noscript')) continue;
    const below = ground(element);
    const [one, other] = [luminance(over(read(getComputedStyle(element).color), below)), luminance(below)];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) pale.push(`${element.textContent.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return pale;
}

/** Controls and landmarks without a name. */
function nameless() {
  const named = (element) =>
    element.getAttribute('aria-label')?.trim() ||
    (element.getAttribute('aria-labelledby') ?? '').split(' ').some((id) => document.getElementById(id)?.textContent.trim()) ||
    element.labels?.length > 0 ||
    (element.tagName === 'BUTTON' && element.textContent.trim());
  return [...document.querySelectorAll('button, input, select, meter, section, dialog[open], svg[role=img], table')]
    .filter((element) => element.checkVisibility() && !named(element))
    .map((element) => element.outerHTML.slice(0, 120));
}

const scenes = {
  /** Each sick state is told in words: among what is wrong, and in its row, the sick ones first. */
  async sick({ states }) {
    const page = await openBoard();
    for (const [address, { word, why, isByHand }] of Object.entries(states)) {
      const trouble = page.locator(isByHand ? '#by-hand li' : '#troubles li', { hasText: address });
      await trouble.filter({ hasText: word }).waitFor();
      await until(`${address}: ${why}`, async () => new RegExp(why).test(await trouble.textContent()));
      const at = row(page, address);
      await at.filter({ hasText: word }).waitFor();
      assert.match(await at.locator('.why').textContent(), new RegExp(why));
    }
    const words = await page.locator('tbody .badge').allTextContents();
    const firstWell = words.findIndex((word) => word.includes('Serving'));
    assert.ok(firstWell > 0 && words.slice(firstWell).every((word) => word.includes('Serving')), words.join());
    assert.match(await page.title(), /sick/);
    // How many are what adds up, and what users notice stands right below.
    await until('counts that add up', async () => {
      const [, sick, healthy] = /: (\d) sick · 2 taken out · (\d) healthy$/.exec(await page.locator('#status').textContent()) ?? [];
      return Number(sick) + Number(healthy) === 7;
    });
    await page.locator('.pool .badge', { hasText: '4 of 9 take requests' }).waitFor();
    await page.locator('#users', { hasText: /^Users: no errors in the last \d+ s.*1 in 100? requests takes \d.* s or longer/ }).waitFor();
    await page.locator('#troubles li', { hasText: 'Down' }).getByRole('button', { name: 'Check health of app now' }).waitFor();
    // What is wrong is on the first screen of a laptop.
    for (const item of await page.locator('#wrong li').all()) {
      const box = await item.boundingBox();
      assert.ok(box.y + box.height <= 900, await item.textContent());
    }
    await until('a rate', async () => /[1-9]/.test(await page.locator('#tiles dd').first().textContent()));
    await until('latency', async () => / m?s/.test(await page.locator('#tiles dd').nth(2).textContent()));
    await picture(page, 'sick-first-screen');
    await picture(page, 'sick', true);
    await looksRight(page, 'light');
    const dark = await openBoard({ scheme: 'dark' });
    await dark.locator('tbody tr').first().waitFor();
    await looksRight(dark, 'dark');
    await picture(dark, 'sick-dark', true);
    const phone = await openBoard({ width: 360, height: 740 });
    await phone.locator('tbody tr').first().waitFor();
    await phone.locator('#users', { hasText: 'no errors' }).waitFor();
    const [badge, users, about] = await Promise.all(['#status', '#users', '#about'].map((id) => phone.locator(id).boundingBox()));
    assert.ok(badge.y < users.y && users.y < about.y, 'what users notice comes first');
    await looksRight(phone, 'phone');
    const wide = () => [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > 360 && !element.closest('.unseen')).map((element) => element.outerHTML.slice(0, 120));
    assert.ok((await phone.evaluate(() => document.documentElement.scrollWidth)) <= 360, `a phone scrolls sideways: ${(await phone.evaluate(wide)).join('\n')}`);
    await picture(phone, 'sick-phone-first-screen');
    await picture(phone, 'sick-phone', true);
    const darkPhone = await openBoard({ width: 390, height: 844, scheme: 'dark' });
    await darkPhone.locator('tbody tr').first().waitFor();
    await looksRight(darkPhone, 'dark phone');
    await picture(darkPhone, 'sick-dark-phone', true);
  },

  /** Why those are ejected that nobody asks how they are. */
  async causes({ causes, left }) {
    const page = await openBoard();
    // One step from an outage: who is left, in red and first of all.
    await page.locator('#status .bad', { hasText: 'Critical: 3 sick · 1 healthy' }).waitFor();
    const critical = page.locator('#troubles li').first();
    await critical.filter({ hasText: 'Critical' }).filter({ hasText: `1 of ${left.count} upstreams left: ${left.address}` }).waitFor();
    for (const [address, cause] of Object.entries(causes)) {
      const trouble = page.locator('#troubles li', { hasText: address }).filter({ hasText: 'Ejected' });
      await trouble.filter({ hasText: new RegExp(cause) }).waitFor();
      await row(page, address).filter({ hasText: new RegExp(cause) }).waitFor();
    }
    await page.locator('#users', { hasText: /no requests in the last \d+ s\. Since the start: \d+ requests, \d+ failed; \d+ failed attempts? (was|were) made again\./ }).waitFor();
    await picture(page, 'causes');
    const dark = await openBoard({ scheme: 'dark' });
    await row(dark, Object.keys(causes)[0]).waitFor();
    // Before anything was counted here, nobody says that nothing failed.
    const early = await dark.locator('#users').textContent();
    if (early.includes('counting')) assert.match(early, /Since the start: \d+ requests, [1-9]\d* failed/);
    await dark.locator('#window', { hasText: 'of the last' }).waitFor();
    await picture(dark, 'causes-dark');
    const phone = await openBoard({ width: 390, height: 844 });
    await row(phone, Object.keys(causes)[0]).waitFor();
    await phone.locator('#window', { hasText: 'of the last' }).waitFor();
    await picture(phone, 'causes-phone');
  },

  /** What users notice, in one sentence, and beside the pool. */
  async users({ users, pool }) {
    const page = await openBoard();
    await page.locator('#users', { hasText: new RegExp(users) }).waitFor();
    await page.locator('.pool .about', { hasText: new RegExp(pool) }).waitFor();
  },

  /** Nothing happens before it is confirmed; then it does, and the page says so. */
  async actions({ address, other }) {
    const page = await openBoard();
    const open = async () => {
      await row(page, address).getByRole('button', { name: 'Change' }).click();
      await page.getByRole('dialog').waitFor();
    };
    await open();
    const go = page.locator('#dialog-go');
    assert.ok(await go.isDisabled(), 'nothing is picked yet');
    await page.getByLabel('Drain').check();
    assert.match(await page.locator('#dialog-effect').textContent(), /no new requests/);
    await picture(page, 'dialog-drain');
    assert.deepEqual(await page.evaluate(nameless), []);
    await page.keyboard.press('Escape');
    assert.equal((await upstreamAt(address)).state, 'ready');

    // What was not picked in one dialog does not stand in the way of the next.
    await open();
    assert.ok(await go.isDisabled());
    await page.locator('#dialog-cancel').click();
    await page.getByRole('button', { name: 'Check health of app' }).click();
    assert.ok(await go.isEnabled());
    await page.locator('#dialog-cancel').click();

    await open();
    await page.getByLabel('Drain').check();
    assert.equal((await upstreamAt(address)).state, 'ready');
    await page.getByLabel('Why').fill('new version');
    await go.click();
    await until('a drain', async () => (await upstreamAt(address)).state === 'drain');
    await row(page, address).filter({ hasText: 'Draining' }).waitFor();
    await page.locator('#overrides', { hasText: 'state is drain; the file says ready' }).waitFor();
    await page.locator('#events', { hasText: 'new version' }).waitFor();

    // Whoever takes out the last one is warned.
    await row(page, other).getByRole('button', { name: 'Change' }).click();
    await page.getByLabel('Maintenance').check();
    assert.match(await page.locator('#dialog-effect').textContent(), /Careful: nobody else/);
    await page.locator('#dialog-cancel').click();
    assert.equal((await upstreamAt(other)).state, 'ready');

    // By keyboard alone.
    await row(page, address).getByRole('button', { name: 'Change' }).focus();
    await page.keyboard.press('Enter');
    await page.getByLabel('Ready').focus();
    await page.keyboard.press('Space');
    await page.getByLabel('Weight').fill('7');
    await page.keyboard.press('Enter');
    await until('ready, with a weight', async () => {
      const { state, weight } = await upstreamAt(address);
      return state === 'ready' && weight === 7;
    });
    await row(page, address).filter({ hasText: 'weight 7' }).waitFor();

    await page.getByRole('button', { name: 'Strategy of app' }).click();
    await page.locator('#strategy').selectOption('least_connections');
    assert.equal((await api('GET', '/v1/pools/app')).strategy, 'round_robin');
    await go.click();
    await until('a strategy', async () => (await api('GET', '/v1/pools/app')).strategy === 'least_connections');
    await page.locator('.pool', { hasText: 'least_connections' }).waitFor();

    const checked = async () => (await upstreamAt(address)).last_check.at;
    const before = await checked();
    await page.getByRole('button', { name: 'Check health of app' }).click();
    assert.equal(await checked(), before);
    await go.click();
    await page.locator('#spoken', { hasText: 'all passed' }).waitFor();
    assert.notEqual(await checked(), before);

    // Somebody else was faster: refused, in the server's words, and the dialog stays.
    await page.getByRole('button', { name: 'Roll back' }).click();
    await page.getByRole('dialog').getByText('Generation 1').waitFor();
    await api('PATCH', `/v1/pools/app/upstreams/${other}`, { weight: 3 });
    await go.click();
    const refused = page.locator('#dialog-error');
    await refused.waitFor();
    assert.match(await refused.textContent(), /If-Match/);
    await picture(page, 'dialog-refused');
    await page.locator('#dialog-cancel').click();

    await page.getByRole('button', { name: 'Roll back' }).click();
    await page.getByRole('dialog').getByLabel('Generation 1,').check();
    await go.click();
    await until('what ran first', async () => {
      const { state, weight } = await upstreamAt(address);
      return state === 'ready' && weight === 1 && (await api('GET', '/v1/pools/app')).strategy === 'round_robin';
    });
  },

  /** Who may not look sees nothing; who may only look has no buttons. */
  async tokens({ address, read, operate, write }) {
    const page = await newPage();
    const gate = page.locator('#gate');
    await gate.waitFor();
    assert.ok(!(await page.locator('body').textContent()).includes(address));
    await picture(page, 'token');
    assert.deepEqual(await page.evaluate(nameless), []);
    const enter = async (token) => {
      await page.getByLabel('Token', { exact: true }).fill(token);
      await page.keyboard.press('Enter');
    };
    await enter('s3cret-of-nobody-at-all');
    await page.locator('#gate-said', { hasText: 'no token of the configuration has this secret' }).waitFor();
    const expected = [
      [read, 'read', false, false],
      [operate, 'operate', true, false],
      [write, 'write', true, true],
    ];
    for (const [token, scope, mayOperate, mayWrite] of expected) {
      await enter(token);
      await page.locator('#you', { hasText: `(${scope})` }).waitFor();
      await until('the buttons that are allowed', async () => {
        const shown = [row(page, address).getByRole('button', { name: 'Change' }), page.getByRole('button', { name: 'Check health' }), page.getByRole('button', { name: 'Strategy of' }), page.getByRole('button', { name: 'Roll back' })];
        const visible = await Promise.all(shown.map((button) => button.isVisible()));
        return visible.join() === [mayOperate, mayOperate, mayWrite, mayWrite].join();
      });
      assert.ok(!page.url().includes(token));
      // Who may only look does look.
      await row(page, address).getByRole('button').click();
      await page.locator('#timeline', { hasText: 'the process began with it' }).waitFor();
      assert.equal(await page.getByLabel('Drain').isVisible(), mayOperate);
      await page.keyboard.press('Escape');
      // It is kept when the page is loaded again, and forgotten when asked.
      await page.reload();
      await page.locator('#you', { hasText: `(${scope})` }).waitFor();
      await page.getByRole('button', { name: 'Forget token' }).click();
      await gate.waitFor();
    }
  },

  /** Names, reasons and errors are text, whatever they say. */
  async hostile({ texts }) {
    const page = await openBoard();
    for (const text of texts) await page.locator('#board li, #board th').filter({ hasText: text }).first().waitFor();
    await page.getByRole('button', { name: 'Change' }).first().click();
    await page.getByRole('dialog').waitFor();
    assert.equal(await page.evaluate(() => document.querySelectorAll('img, iframe, script:not([src]), b > i').length), 0);
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    // And if one were run as markup after all, the browser would not obey.
    const blocked = await page.evaluate(async () => {
      const refused = [];
      const attempt = (act) => {
        try {
          act();
        } catch (error) {
          refused.push(error.name);
        }
      };
      attempt(() => (document.createElement('div').innerHTML = '<img src=x onerror="window.hacked = 1">'));
      const script = document.createElement('script');
      attempt(() => (script.textContent = 'window.hacked = 2'));
      script.append('window.hacked = 3');
      document.body.append(script);
      await new Promise((resolve) => setTimeout(resolve, 200));
      return { refused: refused.length, hacked: window.hacked };
    });
    assert.deepEqual(blocked, { refused: 2, hacked: undefined });
    assert.ok(offences.splice(0).every((text) => /Content.Security|Refused to/i.test(text)));
    await picture(page, 'hostile', true);
  },

  /** A thousand upstreams: the sick ones are there at once, any other is found, and the page stays small. */
  async many({ count, sick, far, alike }) {
    const page = await openBoard();
    await page.locator('.pool', { hasText: `of ${count} take requests` }).waitFor();
    const rows = page.locator('tbody tr');
    const size = () => page.evaluate(() => document.querySelectorAll('*').length);
    for (const address of sick) await row(page, address).waitFor();
    assert.ok((await rows.count()) <= 20, `${await rows.count()} rows`);
    assert.ok((await size()) < 2_000, `${await size()} elements`);
    // Nobody says that those serve whom nobody asked, and who had no request.
    await page.locator('#status', { hasText: `No requests yet: ${sick.length} taken out · ${count - sick.length} not tested yet` }).waitFor();
    await page.locator('#troubles', { hasText: 'Nothing' }).waitFor();
    await page.locator('#users', { hasText: /^Users: no requests in the last \d+ s\.$/ }).waitFor();
    await page.locator('#tiles', { hasText: '– no requests' }).waitFor();
    assert.ok(!(await page.locator('tbody').textContent()).includes('Serving'));
    await picture(page, 'thousand', true);
    await page.getByLabel('Find').fill(far);
    await row(page, far).waitFor();
    assert.equal(await rows.count(), 1);
    await page.getByLabel('Find').fill('');
    await page.getByLabel('only what does not serve well').check();
    await until('the sick ones alone', async () => (await rows.count()) === sick.length);
    await page.getByLabel('only what does not serve well').uncheck();
    await page.getByRole('button', { name: /^Show 50 more/ }).click();
    await until('more rows', async () => (await rows.count()) >= 50);
    assert.ok((await rows.count()) <= 70);
    await page.getByRole('button', { name: 'Fold' }).click();
    await until('few rows', async () => (await rows.count()) <= 20);
    // Many of one kind are told together.
    for (const address of alike) await api('PATCH', `/v1/pools/app/upstreams/${address}`, { weight: 0 });
    const together = page.locator('#by-hand li', { hasText: `${alike.length} × Weight 0` });
    await together.filter({ hasText: `${alike[0]} and ${alike.length - 1} others` }).waitFor();
    assert.equal(await page.locator('#by-hand li').count(), sick.length + 1);
    const phone = await openBoard({ width: 360, height: 740 });
    await row(phone, sick[0]).waitFor();
    await picture(phone, 'thousand-phone');
  },

  /** Beyond upstreams: a pool of which nobody serves, why requests fail, and what will end. */
  async troubles({ certificate }) {
    const page = await openBoard();
    const troubles = page.locator('#troubles li');
    await troubles.filter({ hasText: 'No upstream left' }).filter({ hasText: /pool app.*refused with 503 since \d\d:\d\d:\d\d \(.+\): \d+ failed in the last/ }).waitFor();
    await page.locator('#users.bad', { hasText: /^Users: 100 % of requests failed in the last \d+ s, with 503 \(no upstream left\)\.$/ }).waitFor();
    await page.locator('.pool .about', { hasText: /[1-9].* requests\/s, 100 % failed/ }).waitFor();
    await page.locator('#tiles', { hasText: '– only refusals' }).waitFor();
    await page.getByRole('img', { name: 'Latency, now: 50 % unknown, 90 % unknown, 99 % unknown' }).waitFor();
    await troubles.filter({ hasText: 'Down' }).filter({ hasText: /connection refused\. Nothing listens there: start it\./ }).waitFor();
    await troubles.filter({ hasText: 'Expires soon' }).filter({ hasText: certificate }).filter({ hasText: /expires \d{4}-\d\d-\d\d \(in / }).waitFor();
    const refused = troubles.filter({ hasText: 'Refused' }).filter({ hasText: /What runs is unchanged \(generation 1\)\. A change by loopback, tried at .* was refused: 3 mistakes\./ });
    await refused.getByText('All mistakes').click();
    await refused.locator('pre', { hasText: 'the file has no listener' }).filter({ hasText: 'pols' }).waitFor();
    assert.ok(await page.getByRole('button', { name: 'Roll back' }).isDisabled());
    await page.getByText('Nothing to go back to').waitFor();
    await page.locator('#listeners', { hasText: certificate }).waitFor();
    await page.locator('#status', { hasText: 'No upstream left' }).waitFor();
    await page.locator('.legend', { hasText: 'no_eligible_upstream' }).waitFor();
    await page.getByRole('img', { name: /Failed and refused, by reason, now: no_eligible_upstream/ }).waitFor();
    await page.locator('#tiles .hot', { hasText: 'Errors' }).waitFor();
    await picture(page, 'troubles', true);
  },

  /** After a sick spell: the chart, the events and the time line of the upstream tell of it. */
  async past({ address }) {
    const opened = Date.now();
    const page = await openBoard();
    // The line of the rate begins before the page was there.
    const began = () =>
      page.evaluate(() => {
        const chart = document.querySelector('.chart');
        const [from, to] = [...chart.querySelectorAll('.times span:not(.told)')].map((end) => Date.parse(`1970-01-01T${end.textContent.slice(-8)}Z`) / 1000);
        const first = /^M([\d.]+)/.exec(chart.querySelector('.plot path.line')?.getAttribute('d') ?? '');
        const span = (to - from + 86_400) % 86_400;
        return first ? (1 - Number(first[1]) / 600) * span : 0;
      });
    await until('points of the past', async () => (await began()) > (Date.now() - opened) / 1000 + 8);
    // The marks tell of whom, in the colour of the worst that happened; the label is that of the last.
    await page.locator('.mark.bad title', { hasText: `${address} is down` }).first().waitFor({ state: 'attached' });
    await page.locator('.told', { hasText: address }).first().waitFor();
    for (const text of [`app / ${address} is down: status 503`, `app / ${address} is up at the first check`]) {
      await page.locator('#events li', { hasText: text }).first().waitFor();
    }
    await row(page, address).getByRole('button', { name: 'Change' }).click();
    const entries = page.locator('#timeline li');
    await entries.filter({ hasText: /Health: down → up, since then: 2 health checks in a row passed\./ }).waitFor();
    await entries.filter({ hasText: /Health: up → down, for .+: 3 health checks in a row failed: .*503.*It had \d+ % of the pool's requests before/ }).waitFor();
    assert.deepEqual(await page.evaluate(nameless), []);
    assert.deepEqual(await page.evaluate(paleTexts), []);
    await picture(page, 'timeline');
    await page.keyboard.press('Escape');
    await picture(page, 'past', true);
  },

  /** Who gets nothing though it could, and who gets all: told in words, at the upstream and in its pool. */
  async alarm({ starved, imbalance }) {
    const page = await openBoard();
    await page.locator('.pool .about', { hasText: '2 with an alarm' }).waitFor();
    await page.locator('.pool .badge.ok', { hasText: '2 of 2 take requests' }).waitFor();
    await page.locator('#status', { hasText: 'Needs a look: 2 with an alarm' }).waitFor();
    // One sentence for what is one thing.
    const uneven = page.locator('#troubles li');
    await uneven.filter({ hasText: new RegExp(`${imbalance} got 100 % of the requests in a minute, 50 % would be fair`) }).filter({ hasText: new RegExp(`${starved} got 0 requests in a minute, \\d+ would be fair`) }).filter({ hasText: 'few clients that is to be expected' }).waitFor();
    assert.equal(await uneven.count(), 1);
    for (const [address, why] of [
      [starved, /Starved: it is eligible and got 0 requests in a minute, \d+ would be fair\./],
      [imbalance, /Imbalance: it got 100 % of the requests in a minute, 50 % would be fair\./],
    ]) {
      await row(page, address).filter({ hasText: why }).waitFor();
    }
    await page.locator('#events li', { hasText: `app / ${starved}: alarm, starved: it is eligible` }).waitFor();
    await picture(page, 'alarms', true);
  },

  /** From a failed request to why it failed, on demand only. */
  async requests({ upstream, path: hostile }) {
    const page = await openBoard();
    const asked = [];
    page.on('request', (request) => /requests|explain/.test(request.url()) && asked.push(request.url()));
    await page.locator('#events').waitFor();
    await page.getByRole('button', { name: 'Show the latest' }).click();
    const failed = page.locator('#failed li');
    await failed.filter({ hasText: '502 bad_response' }).filter({ hasText: hostile }).waitFor();
    await failed.filter({ hasText: '404 no_route' }).waitFor();
    assert.equal(asked.length, 1);
    await failed.filter({ hasText: hostile }).first().getByRole('button').click();
    const dialog = page.getByRole('dialog');
    await dialog.getByText('what came back is not valid HTTP').waitFor();
    await dialog.getByText(upstream).waitFor();
    await dialog.getByText('it takes every host').waitFor();
    assert.equal(await page.evaluate(() => document.querySelectorAll('img, script:not([src])').length), 0);
    assert.deepEqual(await page.evaluate(nameless), []);
    assert.deepEqual(await page.evaluate(paleTexts), []);
    await picture(page, 'explanation');
    await page.getByRole('button', { name: 'Close' }).click();
    // Nobody asks again by himself.
    const about = await page.locator('#about').textContent();
    await until('other figures', async () => (await page.locator('#about').textContent()) !== about);
    assert.equal(asked.length, 2);
    await picture(page, 'failed-requests', true);
  },

  /** One that is drained in one pool, and used by another. */
  async shared({ address }) {
    const page = await openBoard();
    const inPool = (name) => page.getByRole('table', { name, exact: true }).locator('tbody tr', { hasText: address });
    await inPool('app').filter({ hasText: 'Not safe to stop: pool api uses it too' }).waitFor();
    await api('PATCH', `/v1/pools/api/upstreams/${address}`, { state: 'drain' });
    for (const pool of ['app', 'api']) await inPool(pool).filter({ hasText: 'none in flight: safe to stop' }).waitFor();
  },

  /** What is shown is called old as soon as nothing new comes, and is live again by itself. */
  async stale({ address }) {
    const page = await openBoard();
    await page.locator('#connection', { hasText: 'not live' }).waitFor({ state: 'detached' });
    await row(page, address).waitFor();
    await pause('end');
    await page.locator('#banner', { hasText: 'Not live' }).waitFor();
    await page.locator('#connection', { hasText: 'not live' }).waitFor();
    await page.locator('#status', { hasText: 'Not known' }).waitFor();
    // Nobody acts on old figures.
    await row(page, address).getByRole('button').waitFor({ state: 'hidden' });
    await picture(page, 'stale');
    assert.deepEqual(await page.evaluate(nameless), []);
    await pause('start');
    await page.locator('#banner').waitFor({ state: 'hidden' });
    await row(page, address).getByRole('button').waitFor();
    assert.match(await page.locator('#connection').textContent(), /✓ live/);
  },

  /** Three upstreams, all well. */
  async well() {
    const page = await openBoard();
    await page.locator('#troubles', { hasText: 'Nothing' }).waitFor();
    await page.locator('#troubles', { hasText: 'All 3 upstreams serve' }).waitFor();
    await until('latency', async () => / m?s/.test(await page.locator('#tiles dd').nth(2).textContent()));
    await until('shares', async () => /3\d %/.test(await page.locator('td[data-label=Share]').first().textContent()));
    // The first stop of the keyboard jumps over the top, and landmarks have names.
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to problems');
    for (const name of ['What is wrong', 'Traffic', 'Pools', 'What happened', 'Configuration']) {
      await page.getByRole('region', { name }).waitFor();
    }
    await page.getByRole('main').waitFor();
    await page.getByRole('banner').waitFor();
    await page.getByRole('table', { name: 'app' }).getByRole('columnheader', { name: 'In flight' }).waitFor();
    await picture(page, 'three-light', true);
    const dark = await openBoard({ scheme: 'dark' });
    await until('a line', async () => (await dark.locator('.plot path.line').count()) > 0);
    await picture(dark, 'three-dark', true);
    const phone = await openBoard({ width: 360, height: 740 });
    await phone.getByRole('table', { name: 'app' }).getByRole('cell', { name: /Serving/ }).first().waitFor();
    await picture(phone, 'three-phone', true);
  },
};

async function looksRight(page, name) {
  assert.deepEqual(await page.evaluate(paleTexts), [], name);
  assert.deepEqual(await page.evaluate(nameless), [], name);
}

async function main() {
  // A sandbox needs a user namespace, which the machines of CI do not always grant; what is visited is ours.
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  try {
    await scenes[scene](JSON.parse(given));
    assert.deepEqual(offences, []);
  } finally {
    await browser.close();
  }
  console.log('done');
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);

// Two people chat through the demo page, each in a browser context of their own; see README.md here.
'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
const readline = require('node:readline');
const { chromium } = require('playwright-core');

const { JINDOU_API: api, JINDOU_DEMO: demo, JINDOU_CHROMIUM: executablePath, JINDOU_FOLDER: folder } = process.env;
/** How long something that must come may take. */
const PATIENCE = 30_000;
const GROUP = 'club';
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const say = (line) => process.stdout.write(line + '\n');
const ask = async (what) => {
  say(`ask: ${what}`);
  assert.equal((await answers.next()).value, 'done');
};

/** Asks again until it holds. */
async function holds(what, probe) {
  const end = Date.now() + PATIENCE;
  let last;
  for (;;) {
    try {
      return await probe();
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: ${last.message}`);
    await new Promise((wake) => setTimeout(wake, 50));
  }
}

/** A person in front of a browser. */
class Person {
  static async come(browser, uid) {
    const person = new Person();
    const context = await browser.newContext({ locale: 'en-GB' });
    Object.assign(person, { uid, hosts: new Set(), complaints: [], page: await context.newPage() });
    person.page.setDefaultTimeout(PATIENCE);
    context.on('request', (request) => person.hosts.add(new URL(request.url()).hostname));
    person.page.on('websocket', (socket) => person.hosts.add(new URL(socket.url()).hostname));
    person.page.on('pageerror', (error) => person.complaints.push(String(error)));
    person.page.on('console', (message) => person.complaints.push(message.text()));
    return person;
  }

  async logIn(password) {
    await this.page.goto(`${demo}/login`);
    await this.page.getByLabel('User').fill(this.uid);
    await this.page.getByLabel('Password (token)').fill(password);
    await this.page.getByRole('button', { name: 'Log in' }).click();
    await this.sees('status', 'online');
  }

  sees(id, text) {
    return holds(`${this.uid} sees ${text}`, async () => assert.equal(await this.page.locator(`#${id}`).textContent(), text));
  }

  async open(kind, id) {
    await this.page.getByLabel('Kind of chat').selectOption({ label: kind });
    await this.page.getByLabel('Chat with').fill(id);
    await this.page.getByRole('button', { name: 'Open', exact: true }).click();
    await this.page.locator('#talk').waitFor();
  }

  /** Opens a chat of the list. */
  choose(name) {
    return this.entry(name).getByRole('button').click();
  }

  entry(name) {
    return this.page.locator('#chats li').filter({ has: this.page.locator('.name', { hasText: new RegExp(`^${name}$`) }) });
  }

  async send(text) {
    await this.page.getByLabel('Message').fill(text);
    await this.page.getByLabel('Message').press('Enter');
  }

  texts() {
    return this.page.locator('#lines .text').allTextContents();
  }

  reads(texts) {
    return holds(`${this.uid} reads`, async () => {
      assert.deepEqual(await this.texts(), texts);
      assert.equal(await this.page.locator('#lines li:not([data-state="sent"])').count(), 0, 'all were sent');
    });
  }

  unread(name, count) {
    return holds(`${this.uid} has ${count} unread of ${name}`, async () => {
      const badge = this.entry(name).locator('.unread');
      assert.equal(await badge.isVisible() ? Number(await badge.textContent()) : 0, count);
    });
  }

  title(text) {
    return holds(`the title of ${this.uid}`, async () => assert.equal(await this.page.title(), text));
  }
}

async function post(path, body) {
  const reply = await fetch(api + path, { method: 'POST', body: JSON.stringify(body) });
  assert.equal(reply.status, 200, `${path}: ${await reply.text()}`);
}

/** One after the other, so that they are in order. */
async function sendByApi(texts) {
  for (const content of texts) {
    const payload = Buffer.from(JSON.stringify({ type: 1, content })).toString('base64');
    await post('/message/send', { header: { red_dot: 1 }, from_uid: 'ann', channel_id: GROUP, channel_type: 2, payload });
  }
}

async function main(browser, people) {
  const [ann, bob] = [await Person.come(browser, 'ann'), await Person.come(browser, 'bob')];
  people.push(ann, bob);
  await ann.logIn('');
  await bob.logIn("bob's secret");
  say('held: both log in');

  const chat = ['hello Bob', '你好 Ann 🦀', '<img src=x onerror="document.title=1">'];
  await ann.open('Person', 'bob');
  await ann.send(chat[0]);
  await bob.unread('ann', 1);
  await bob.title('(1) Jindou chat');
  await bob.choose('ann');
  await bob.reads(chat.slice(0, 1));
  await bob.unread('ann', 0);
  await bob.send(chat[1]);
  await ann.reads(chat.slice(0, 2));
  await ann.send(chat[2]);
  await bob.reads(chat);
  say('held: a person chat both ways');

  await bob.open('Group', GROUP);
  await ann.open('Group', GROUP);
  await ann.send('hello all');
  await bob.reads(['hello all']);
  await bob.send('hello from Bob');
  await ann.reads(['hello all', 'hello from Bob']);
  say('held: a group chat both ways');

  // Bob looks at the group meanwhile.
  await ann.choose('bob');
  chat.push('are you there?', 'hm');
  await ann.send(chat[3]);
  await ann.send(chat[4]);
  await bob.unread('ann', 2);
  await bob.page.reload();
  await bob.sees('status', 'online');
  await bob.unread('ann', 2);
  await bob.title('(2) Jindou chat');
  await bob.choose('ann');
  await bob.reads(chat);
  await bob.title('Jindou chat');
  await bob.page.reload();
  await bob.sees('status', 'online');
  await bob.unread('ann', 0);
  await bob.choose('ann');
  await bob.reads(chat);
  say('held: history and unread counts over a reload');

  const many = Array.from({ length: 75 }, (_, n) => `line ${n}`);
  await sendByApi(many);
  await bob.unread(`Group ${GROUP}`, 75);
  await bob.page.reload();
  await bob.sees('status', 'online');
  await bob.choose(`Group ${GROUP}`);
  await holds('the newest page is shown', async () => {
    const texts = await bob.texts();
    assert.equal(texts.at(-1), 'line 74');
    assert.ok(texts.length < many.length, `${texts.length} lines`);
  });
  const whole = ['hello all', 'hello from Bob', ...many];
  await holds('scrolling brings all', async () => {
    await bob.page.locator('#scroll').evaluate((element) => (element.scrollTop = 0));
    assert.deepEqual(await bob.texts(), whole);
  });
  say('held: history by scrolling');

  await ask('kill');
  for (const person of people) await person.sees('status', 'connection lost, trying again …');
  await bob.choose('ann');
  await bob.page.locator('#talk-error').filter({ hasText: 'cannot be reached' }).waitFor();
  chat.push('sent while the node was down', 'back again');
  await bob.send(chat[5]);
  await ask('start');
  for (const person of people) await person.sees('status', 'online');
  await bob.reads(chat.slice(0, 6));
  await ann.reads(chat.slice(0, 6));
  await ann.send(chat[6]);
  await bob.reads(chat);
  say('held: both are back after the node restarted');

  // Refused connections while the node was down are all that browsers may have complained about.
  for (const person of people) {
    const complaints = person.complaints.filter((text) => !/net::ERR_(CONNECTION|EMPTY|SOCKET)|WebSocket connection to/.test(text));
    assert.deepEqual(complaints, [], person.uid);
    assert.deepEqual([...person.hosts], ['127.0.0.1'], `${person.uid} reached other hosts`);
  }
  const refused = await bob.page.evaluate(async () => {
    const violation = new Promise((told) => document.addEventListener('securitypolicyviolation', (event) => told(event.effectiveDirective)));
    await fetch('http://example.invalid/').catch(() => undefined);
    return violation;
  });
  assert.equal(refused, 'connect-src');
  say('held: no other host was reached, and the page may not');

  await bob.page.getByRole('button', { name: 'Log out' }).click();
  await bob.page.getByLabel('User').waitFor();
  await bob.page.reload();
  await bob.page.getByLabel('User').waitFor();
  say('held: log out');
}

async function run() {
  // Names lead nowhere: whatever the page asked for, nothing leaves the machine.
  const args = ['--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1'];
  const browser = await chromium.launch({ executablePath, args });
  const people = [];
  try {
    await main(browser, people);
  } catch (error) {
    for (const { uid, page } of people) {
      const file = path.join(folder, `${uid}.png`);
      await page.screenshot({ path: file }).then(() => console.error(`see ${file}`), () => undefined);
    }
    throw error;
  } finally {
    await browser.close();
  }
}

run().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});

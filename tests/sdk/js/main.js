// The round trip of npm wukongimjssdk; see ../README.md.
'use strict';
const assert = require('node:assert/strict');
const readline = require('node:readline');
const { load } = require('./load.js');

const { JINDOU_API: api, JINDOU_WS: ws, JINDOU_RUN: run } = process.env;
const [ann, bob, cat, group, stream] = ['ann', 'bob', 'cat', 'group', 'stream'].map((name) => `${name}-${run}`);
const PERSON = 1, GROUP = 2, WEB = 1;
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const say = (line) => process.stdout.write(line + '\n');
const ask = async (what) => {
  say(`ask: ${what}`);
  assert.equal((await answers.next()).value, 'done');
};

async function post(path, body) {
  const reply = await fetch(api + path, { method: 'POST', body: JSON.stringify(body) });
  const text = await reply.text();
  assert.equal(reply.status, 200, `${path}: ${text}`);
  return JSON.parse(text);
}

const register = (uid, device_level = 1) => post('/user/token', { uid, token: `t-${uid}`, device_flag: WEB, device_level });
const content = (text) => Buffer.from(JSON.stringify({ type: 1, content: text })).toString('base64');
/** Appends to the stream; whose it is the node knows. */
const append = (event_id, event_type, payload) => post('/message/event', { channel_id: group, channel_type: GROUP, client_msg_no: stream, event_id, event_type, payload });

/** One user with what the SDK told about it. `take` waits for something that was told and has not been taken yet. */
class User {
  constructor(uid, token = `t-${uid}`) {
    this.told = [];
    this.waiting = [];
    this.sdk = load().default.shared();
    Object.assign(this.sdk.config, { uid, token, addr: ws });
    this.sdk.connectManager.addConnectStatusListener((status, reason) => this.tell({ status, reason }));
    this.sdk.chatManager.addMessageListener((m) => m.send || this.tell({ from: m.fromUID, channel: m.channel.channelID, type: m.channel.channelType, text: m.content.text, seq: m.messageSeq }));
    this.sdk.chatManager.addMessageStatusListener((a) => this.tell({ acked: a.clientSeq, seq: a.messageSeq, ackReason: a.reasonCode }));
  }

  tell(thing) {
    this.told.push(thing);
    for (const wake of this.waiting.splice(0)) wake();
  }

  async take(what, wanted, ms = 20000) {
    const end = Date.now() + ms;
    for (;;) {
      const place = this.told.findIndex(wanted);
      if (place >= 0) return this.told.splice(place, 1)[0];
      if (Date.now() >= end) throw new Error(`${what} did not come; there were ${JSON.stringify(this.told)}`);
      await new Promise((wake) => {
        this.waiting.push(wake);
        setTimeout(wake, Math.max(1, end - Date.now()));
      });
    }
  }

  async connect() {
    this.sdk.connect();
    await this.take('connection', (x) => x.status === 1);
    return this;
  }

  /** Sends and waits for the SENDACK. */
  async send(channel, type, text) {
    const message = await this.sdk.chatManager.send(this.sdk.newMessageText(text), this.sdk.newChannel(channel, type));
    const ack = await this.take(`SENDACK of ${text}`, (x) => x.acked === message.clientSeq);
    assert.equal(ack.ackReason, 1);
    return { text, seq: ack.seq };
  }

  async gets(from, channel, type, sent) {
    const got = await this.take(`RECV of ${sent.text}`, (x) => x.text === sent.text);
    assert.deepEqual(got, { from, channel, type, text: sent.text, seq: sent.seq });
  }
}

async function history(login_uid, channel_id, channel_type) {
  const { messages } = await post('/channel/messagesync', { login_uid, channel_id, channel_type, limit: 1000 });
  return messages.map((m) => ({ text: JSON.parse(Buffer.from(m.payload, 'base64')).content, seq: m.message_seq }));
}

async function main() {
  await Promise.all([register(ann), register(bob)]);
  await post('/channel', { channel_id: group, channel_type: GROUP, subscribers: [ann, bob] });
  const a = await new User(ann).connect();
  let b = await new User(bob).connect();
  const chat = [], talk = [];

  chat.push(await a.send(bob, PERSON, 'hello Bob'));
  await b.gets(ann, ann, PERSON, chat[0]);
  chat.push(await b.send(ann, PERSON, '你好 Ann 🦀'));
  await a.gets(bob, bob, PERSON, chat[1]);
  say('held: person chat');

  talk.push(await b.send(group, GROUP, 'hello group'));
  await a.gets(bob, group, GROUP, talk[0]);
  say('held: group chat');

  b.sdk.disconnect();
  for (let i = 0; i < 3; i++) chat.push(await a.send(bob, PERSON, `offline ${i}`));
  b = await new User(bob).connect();
  const [conversation] = (await post('/conversation/sync', { uid: bob, msg_count: 10 })).filter((c) => c.channel_id === ann);
  assert.deepEqual([conversation.unread, conversation.last_msg_seq], [3, 5]);
  assert.deepEqual(await history(bob, ann, PERSON), chat);
  say('held: offline, then sync');

  const second = await new User(bob).connect();
  await b.take('kick', (x) => x.status === 4 && x.reason === 12);
  b.sdk.disconnect();
  b = second;
  say('held: kicked by the same device');

  const stranger = new User(ann, 'wrong');
  stranger.sdk.connect();
  await stranger.take('refusal', (x) => x.status === 3 && x.reason === 2);
  stranger.sdk.disconnect();
  say('held: token refused');

  // This SDK does not know EVENT and must not be disturbed by it; the text comes with the history.
  await post('/message/send', { header: { red_dot: 1 }, is_stream: 1, client_msg_no: stream, from_uid: 'bot', channel_id: group, channel_type: GROUP, payload: content('stream') });
  talk.push({ text: 'stream', seq: 2 });
  const words = ['Hel', 'lo ', '你好 🦀'];
  for (const [i, delta] of words.entries()) await append(`e${i}`, 'stream.delta', { kind: 'text', delta });
  await append('end', 'stream.close', { end_reason: 0 });
  for (const u of [a, b]) await u.gets('bot', group, GROUP, talk.at(-1));
  const { messages } = await post('/channel/messagesync', { login_uid: bob, channel_id: group, channel_type: GROUP, limit: 10 });
  assert.equal(Buffer.from(messages.at(-1).stream_data, 'base64').toString(), words.join(''));
  say('held: stream');

  await register(cat, 0);
  const devices = [await new User(cat).connect(), await new User(cat).connect()];
  const both = await a.send(cat, PERSON, 'to both');
  for (const device of devices) await device.gets(ann, ann, PERSON, both);
  const one = await devices[0].send(ann, PERSON, 'from one');
  await a.gets(cat, cat, PERSON, one);
  for (const device of devices) device.sdk.disconnect();
  say('held: several devices');

  await post('/message/send', { header: { sync_once: 1, red_dot: 1 }, from_uid: ann, channel_id: group, channel_type: GROUP, payload: content('refresh') });
  await b.gets(ann, group, GROUP, { text: 'refresh', seq: 1 });
  say('held: command');

  const unread = async () => (await post('/conversation/sync', { uid: bob, msg_count: 1 })).filter((c) => c.channel_id === ann).map((c) => c.unread);
  const withAnn = { uid: bob, channel_id: ann, channel_type: PERSON };
  chat.push(await a.send(bob, PERSON, 'unread'));
  await b.gets(ann, ann, PERSON, chat.at(-1));
  assert.deepEqual(await unread(), [4]);
  await post('/conversations/setUnread', { ...withAnn, unread: 2 });
  assert.deepEqual(await unread(), [2]);
  await post('/conversations/clearUnread', withAnn);
  assert.deepEqual(await unread(), [0]);
  await post('/conversations/delete', withAnn);
  assert.deepEqual(await unread(), []);
  say('held: conversations');

  await ask('kill');
  await Promise.all([a, b].map((u) => u.take('loss of connection', (x) => x.status === 0)));
  await ask('start');
  await Promise.all([a, b].map((u) => u.take('connection after the kill', (x) => x.status === 1, 60000)));
  chat.push(await a.send(bob, PERSON, 'after the kill'));
  await b.gets(ann, ann, PERSON, chat.at(-1));
  say('held: reconnected after the kill');

  assert.deepEqual(await history(bob, ann, PERSON), chat);
  assert.deepEqual(await history(ann, group, GROUP), talk);
  say('held: nothing acknowledged is missing');
}

main().then(() => process.exit(0), (e) => {
  console.error(e);
  process.exit(1);
});

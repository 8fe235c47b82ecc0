// The demo's course: log in, keep up with the server, show it.

import { Api, ApiError, GROUP } from './api';
import { type Chat, Chats, lineOf, merge, mergeNewest } from './chats';
import { Client, type Got } from './client';
import { find, showChat, showChats, showError, showLines, showLogin, showStatus } from './page';
import { translate, word } from './words';

/** Where a tab keeps who is logged in, over a reload. */
const SESSION = 'jindou-demo';
/** Why the page came back to the log-in. */
const FAREWELL = 'jindou-demo-farewell';
/** The token of who leaves the password empty, as in v2.2.5's demo. */
const TOKEN = 'default111111';
/** So near to the first line, older ones are loaded; in pixels. */
const NEAR_TOP = 120;

const describe = (kind: string) => `[${word('other')} ${kind}]`;

/** The address of the API: of the page's query, as the server wrote it. */
function apiAddress(): string | undefined {
  const given = new URLSearchParams(location.search).get('apiurl') ?? `${location.protocol}//${location.hostname}:5001`;
  try {
    const url = new URL(given);
    return /^https?:$/.test(url.protocol) ? given.replace(/\/+$/, '') : undefined;
  } catch {
    return undefined;
  }
}

function explain(error: unknown): string {
  if (!(error instanceof ApiError)) return String(error);
  if (error.kind === 'guarded') return word('guarded');
  return error.kind === 'away' ? `${word('unreachable')} ${error.message}` : error.message;
}

class Session {
  private readonly chats = new Chats();
  private open: Chat | undefined;
  private isLoading = false;
  private readonly client: Client;

  constructor(private readonly api: Api, token: string) {
    this.client = new Client(api.uid, token, () => api.route(), {
      status: (status) => {
        showStatus(status);
        if (status === 'online') void this.catchUp();
      },
      ended: (why, reason) => leave(why === 'kicked' ? word('kicked') : `${word('refused')} ${reason}`),
      got: (message) => this.got(message),
      sent: (clientNo, seq, ok) => {
        const found = this.chats.waiting(clientNo);
        if (!found) return;
        merge(found.chat, [{ ...found.line, seq, state: ok ? 'sent' : 'failed' }]);
        this.show();
      },
    });
    find('open-form').onsubmit = (event) => {
      event.preventDefault();
      const id = find<HTMLInputElement>('open-id').value.trim();
      const type = Number(find<HTMLSelectElement>('open-type').value);
      if (id) void this.openNew(id, type);
    };
    find('send-form').onsubmit = (event) => {
      event.preventDefault();
      this.send();
    };
    find('back').onclick = () => this.choose(undefined);
    find('scroll').onscroll = () => void this.loadOlder();
    find('log-out').onclick = () => leave('');
    document.onvisibilitychange = () => this.read();
  }

  connect(address: string): void {
    showChat(this.api.uid);
    this.show();
    this.client.connect(address);
  }

  private show(): void {
    showChats(this.chats.sorted(), this.open, (chat) => this.choose(chat));
    showLines(this.open, this.api.uid);
  }

  /** Shows a failure of the API; the page goes on. */
  private async attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      showError('');
    } catch (error) {
      showError(explain(error));
    }
  }

  /** After each connection: what came meanwhile. */
  private catchUp(): Promise<void> {
    return this.attempt(async () => {
      for (const told of await this.api.conversations()) {
        const chat = this.chats.of(told.channel_id, told.channel_type);
        chat.unread = told.unread;
        chat.time = told.timestamp;
        const last = told.recents?.at(-1);
        if (last) chat.digest = lineOf(last, describe).text;
      }
      if (this.open) await this.loadNewest(this.open);
      this.read();
      this.show();
    });
  }

  private got(message: Got): void {
    const chat = this.chats.of(message.channel.id, message.channel.type);
    const { seq, clientNo, from, text, time } = message;
    merge(chat, [{ seq, clientNo, from, text, time, state: 'sent' }]);
    if (message.countsAsUnread && from !== this.api.uid) chat.unread += 1;
    this.read();
    this.show();
  }

  /** Who looks at a chat has read it. */
  private read(): void {
    const chat = this.open;
    if (!chat || chat.unread === 0 || document.visibilityState !== 'visible') return;
    chat.unread = 0;
    this.show();
    void this.attempt(async () => void (await this.api.read(chat.id, chat.type)));
  }

  private choose(chat: Chat | undefined): void {
    this.open = chat;
    showError('');
    this.show();
    if (!chat) return;
    this.read();
    find('text').focus();
    void this.attempt(() => this.loadNewest(chat));
  }

  /** Opening a group by its id joins it. */
  private async openNew(id: string, type: number): Promise<void> {
    const chat = this.chats.of(id, type);
    find<HTMLInputElement>('open-id').value = '';
    this.choose(chat);
    if (type === GROUP) await this.attempt(async () => void (await this.api.join(id)));
  }

  private async loadNewest(chat: Chat): Promise<void> {
    const page = await this.api.history(chat.id, chat.type);
    mergeNewest(chat, page.map((stored) => lineOf(stored, describe)));
    this.show();
  }

  private async loadOlder(): Promise<void> {
    const chat = this.open;
    const first = chat?.lines[0]?.seq;
    if (!chat || !first || chat.isWhole || this.isLoading || find('scroll').scrollTop > NEAR_TOP) return;
    this.isLoading = true;
    await this.attempt(async () => {
      const page = await this.api.history(chat.id, chat.type, first);
      merge(chat, page.map((stored) => lineOf(stored, describe)));
      chat.isWhole = (page[0]?.message_seq ?? 1) <= 1;
    });
    this.isLoading = false;
    this.show();
  }

  private send(): void {
    const field = find<HTMLInputElement>('text');
    const text = field.value;
    if (!this.open || !text.trim()) return;
    field.value = '';
    const clientNo = this.client.send(this.open, text);
    const time = Math.floor(Date.now() / 1000);
    merge(this.open, [{ seq: 0, clientNo, from: this.api.uid, text, time, state: 'sending' }]);
    this.show();
    find('scroll').scrollTop = find('scroll').scrollHeight;
  }
}

/** Back to the log-in. The SDK keeps all in one place, so a new page it is. */
function leave(why: string): void {
  sessionStorage.removeItem(SESSION);
  sessionStorage.setItem(FAREWELL, why);
  location.reload();
}

async function logIn(base: string, uid: string, token: string): Promise<void> {
  const api = new Api(base, uid);
  await api.register(token);
  const address = await api.route();
  sessionStorage.setItem(SESSION, JSON.stringify({ uid, token }));
  new Session(api, token).connect(address);
}

function main(): void {
  translate();
  const base = apiAddress();
  const field = find<HTMLInputElement>('api');
  field.value = base ?? '';
  // The server lets the page speak only with the API that its address names: another one is another page.
  field.onchange = () => {
    if (field.reportValidity()) location.search = new URLSearchParams({ apiurl: field.value }).toString();
  };
  const begin = (uid: string, token: string) => {
    if (!base) return showLogin(word('badAddress'));
    logIn(base, uid, token).catch((error) => showLogin(explain(error)));
  };
  find('login-form').onsubmit = (event) => {
    event.preventDefault();
    begin(find<HTMLInputElement>('uid').value.trim(), find<HTMLInputElement>('token').value || TOKEN);
  };
  const kept = sessionStorage.getItem(SESSION);
  if (kept) {
    const { uid, token } = JSON.parse(kept);
    begin(uid, token);
  } else {
    showLogin(base ? (sessionStorage.getItem(FAREWELL) ?? '') : word('badAddress'));
    sessionStorage.removeItem(FAREWELL);
    find('uid').focus();
  }
}

main();

// What the page knows of chats: who with, how many are unread, and the lines that are loaded.

import type { Stored } from './api';

/** Lines that a chat keeps; older ones are loaded again by scrolling. */
const LINES_MAX = 1000;

export type Line = {
  /** 0 until the server has answered. */
  seq: number;
  clientNo: string;
  from: string;
  text: string;
  /** Unix seconds. */
  time: number;
  state: 'sending' | 'sent' | 'failed';
};

export type Chat = {
  id: string;
  type: number;
  unread: number;
  /** Unix seconds of the last message. */
  time: number;
  digest: string;
  /** By seq; what waits for its answer stands at the end. */
  lines: Line[];
  /** All from the first message on is loaded. */
  isWhole: boolean;
};

export const keyOf = (chat: { id: string; type: number }): string => `${chat.type} ${chat.id}`;

export class Chats {
  private readonly all = new Map<string, Chat>();

  /** The chat, made if it is new. */
  of(id: string, type: number): Chat {
    const key = keyOf({ id, type });
    const chat = this.all.get(key) ?? { id, type, unread: 0, time: 0, digest: '', lines: [], isWhole: false };
    this.all.set(key, chat);
    return chat;
  }

  /** Those with the newest message first. */
  sorted(): Chat[] {
    return [...this.all.values()].sort((a, b) => b.time - a.time);
  }

  unread(): number {
    return [...this.all.values()].reduce((sum, chat) => sum + chat.unread, 0);
  }

  /** Finds what waits for its answer. */
  waiting(clientNo: string): { chat: Chat; line: Line } | undefined {
    for (const chat of this.all.values()) {
      const line = chat.lines.find((line) => line.clientNo === clientNo);
      if (line) return { chat, line };
    }
    return undefined;
  }
}

/** Adds lines, each once. */
export function merge(chat: Chat, added: Line[]): void {
  for (const line of added) {
    const known = chat.lines.find((l) => (l.clientNo && l.clientNo === line.clientNo) || (l.seq > 0 && l.seq === line.seq));
    if (known) Object.assign(known, line);
    else chat.lines.push(line);
  }
  // The sort is stable: what waits keeps its order.
  chat.lines.sort((a, b) => (a.seq || Infinity) - (b.seq || Infinity) || 0);
  const last = chat.lines.at(-1);
  if (last && last.time >= chat.time) Object.assign(chat, { time: last.time, digest: last.text });
  if (chat.lines.length > LINES_MAX && added.length === 1) {
    chat.lines.splice(0, chat.lines.length - LINES_MAX);
    chat.isWhole = false;
  }
}

/** Takes the newest page in. What is known and does not reach up to it goes: there may be more between. */
export function mergeNewest(chat: Chat, page: Line[]): void {
  const first = page[0]?.seq ?? 0;
  const known = chat.lines.filter((line) => line.seq > 0).at(-1)?.seq ?? 0;
  if (known + 1 < first) {
    chat.lines = chat.lines.filter((line) => line.seq === 0);
    chat.isWhole = false;
  }
  merge(chat, page);
  if (first <= 1) chat.isWhole = true;
}

/** A stored message as a line. Its payload is JSON in base64, or anything else. */
export function lineOf(stored: Stored, describe: (kind: string) => string): Line {
  return {
    seq: stored.message_seq,
    clientNo: stored.client_msg_no,
    from: stored.from_uid,
    text: textOf(stored.payload, describe),
    time: stored.timestamp,
    state: 'sent',
  };
}

function textOf(payload: string, describe: (kind: string) => string): string {
  try {
    const bytes = Uint8Array.from(atob(payload), (c) => c.charCodeAt(0));
    const content = JSON.parse(new TextDecoder().decode(bytes));
    return content.type === 1 ? String(content.content ?? '') : describe(String(content.type ?? '?'));
  } catch {
    return describe('?');
  }
}

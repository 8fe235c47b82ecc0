// The routes of the HTTP API that the page uses.

/** How long a call may take. */
const CALL_MS = 15_000;
/** Lines of one page of history. */
const PAGE = 30;

export const PERSON = 1;
export const GROUP = 2;

/** A message as the API tells it. */
export type Stored = {
  message_seq: number;
  client_msg_no: string;
  from_uid: string;
  timestamp: number;
  payload: string;
};

export type Conversation = {
  channel_id: string;
  channel_type: number;
  unread: number;
  timestamp: number;
  recents: Stored[] | null;
};

/** A call that failed: `guarded` when a manager token is wanted, `away` when nobody answered. */
export class ApiError extends Error {
  constructor(readonly kind: 'guarded' | 'away' | 'refused', message: string) {
    super(message);
  }
}

export class Api {
  constructor(readonly base: string, readonly uid: string) {}

  private async call<T>(path: string, body?: object): Promise<T> {
    let reply: Response, text: string;
    try {
      reply = await fetch(this.base + path, {
        method: body ? 'POST' : 'GET',
        headers: body ? { 'Content-Type': 'application/json' } : {},
        body: body ? JSON.stringify(body) : null,
        credentials: 'omit',
        signal: AbortSignal.timeout(CALL_MS),
      });
      text = await reply.text();
    } catch {
      throw new ApiError('away', this.base);
    }
    if (reply.status === 401) throw new ApiError('guarded', text);
    let value: { msg?: string };
    try {
      value = JSON.parse(text);
    } catch {
      throw new ApiError('refused', `${path}: ${reply.status}`);
    }
    if (!reply.ok) throw new ApiError('refused', value.msg ?? `${path}: ${reply.status}`);
    return value as T;
  }

  /** Registers the token that the connection will show: device flag 1 is web. */
  register(token: string): Promise<unknown> {
    return this.call('/user/token', { uid: this.uid, token, device_flag: 1, device_level: 0 });
  }

  /** Where to connect. An address without a host is on the API's. */
  async route(): Promise<string> {
    type Route = { ws_addr: string; wss_addr: string };
    const { ws_addr, wss_addr } = await this.call<Route>(`/route?uid=${encodeURIComponent(this.uid)}`);
    return (wss_addr || ws_addr).replace('://:', `://${new URL(this.base).hostname}:`);
  }

  conversations(): Promise<Conversation[]> {
    return this.call('/conversation/sync', { uid: this.uid, msg_count: 1 });
  }

  /** The newest page, or the one that ends below a seq; ascending. */
  async history(channel_id: string, channel_type: number, below = 0): Promise<Stored[]> {
    if (below === 1) return [];
    const { messages } = await this.call<{ messages: Stored[] | null }>('/channel/messagesync', {
      login_uid: this.uid,
      channel_id,
      channel_type,
      start_message_seq: below ? below - 1 : 0,
      end_message_seq: 0,
      pull_mode: 0,
      limit: PAGE,
    });
    return messages ?? [];
  }

  read(channel_id: string, channel_type: number): Promise<unknown> {
    return this.call('/conversations/setUnread', { uid: this.uid, channel_id, channel_type, unread: 0 });
  }

  join(channel_id: string): Promise<unknown> {
    return this.call('/channel/subscriber_add', { channel_id, channel_type: GROUP, subscribers: [this.uid] });
  }
}

// The connection: npm wukongimjssdk, the binary protocol over WebSocket.

import WKSDK from 'wukongimjssdk';
import { ConnectStatus } from 'wukongimjssdk/lib/connect_manager';
import { MessageContentType } from 'wukongimjssdk/lib/const';
import type { Message } from 'wukongimjssdk/lib/model';
import type { SendPacket } from 'wukongimjssdk/lib/proto';

/** SENDACK and CONNACK: it went well. */
const SUCCESS = 1;

export type Got = {
  channel: { id: string; type: number };
  seq: number;
  clientNo: string;
  from: string;
  text: string;
  time: number;
  countsAsUnread: boolean;
};

export type Listener = {
  status(status: 'connecting' | 'online' | 'offline'): void;
  /** The server ended the session, and no new one is begun. */
  ended(why: 'kicked' | 'refused', reason: number): void;
  got(message: Got): void;
  sent(clientNo: string, seq: number, ok: boolean): void;
};

export class Client {
  private readonly sdk = WKSDK.shared();
  /** Sends without an answer, in order. */
  private readonly unanswered = new Map<number, SendPacket>();
  private address = '';

  constructor(uid: string, token: string, route: () => Promise<string>, private readonly listener: Listener) {
    const { config, connectManager, chatManager } = this.sdk;
    Object.assign(config, { uid, token });
    // Asked before every connection: another node may serve by then. The SDK tries again by itself
    // when the address it was given does not answer, so it is always given one.
    config.provider.connectAddrCallback = (connect) => {
      const connectTo = (address: string) => {
        this.address = address;
        connect(address);
      };
      route().then(connectTo, () => connectTo(this.address));
    };
    connectManager.addConnectStatusListener((status, reason) => this.changed(status, reason ?? 0));
    chatManager.addMessageListener((message) => this.got(message));
    chatManager.addMessageStatusListener((answer) => {
      const packet = this.unanswered.get(answer.clientSeq);
      this.unanswered.delete(answer.clientSeq);
      if (packet) listener.sent(packet.clientMsgNo, answer.messageSeq, answer.reasonCode === SUCCESS);
    });
  }

  connect(address: string): void {
    this.address = address;
    this.listener.status('connecting');
    this.sdk.connect();
  }

  /** Sends now, or when there is a connection again; gives the message's number. */
  send(channel: { id: string; type: number }, text: string): string {
    const content = this.sdk.newMessageText(text);
    const packet = this.sdk.chatManager.getSendPacket(content, this.sdk.newChannel(channel.id, channel.type));
    this.unanswered.set(packet.clientSeq, packet);
    if (this.sdk.connectManager.connected()) this.sdk.connectManager.sendPacket(packet);
    return packet.clientMsgNo;
  }

  private changed(status: ConnectStatus, reason: number): void {
    if (status === ConnectStatus.Connected) {
      // What was sent before the connection broke may have arrived: the server tells by its number.
      for (const packet of this.unanswered.values()) this.sdk.connectManager.sendPacket(packet);
      this.listener.status('online');
    } else if (status === ConnectStatus.ConnectKick) {
      this.listener.ended('kicked', reason);
    } else if (status === ConnectStatus.ConnectFail) {
      this.listener.ended('refused', reason);
    } else {
      this.listener.status('offline');
    }
  }

  private got(message: Message): void {
    const { channel, content, contentType } = message;
    this.listener.got({
      channel: { id: channel.channelID, type: channel.channelType },
      seq: message.messageSeq,
      clientNo: message.clientMsgNo,
      from: message.fromUID,
      text: contentType === MessageContentType.text ? String(content.text ?? '') : `[${contentType}]`,
      time: message.timestamp,
      countsAsUnread: message.header.reddot,
    });
  }
}

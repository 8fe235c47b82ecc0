// What stands on the page. Texts of users are only ever set as text.

import { GROUP } from './api';
import { type Chat, keyOf, type Line } from './chats';
import { type Word, word } from './words';

export const find = <T extends HTMLElement>(id: string): T => {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element ${id}`);
  return element as T;
};

/** How near to the end counts as being there, in pixels. */
const NEAR = 40;

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: 'short', timeStyle: 'short' });

function make(tag: string, className: string): HTMLElement {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

/** Makes the children of a list those of `items`, in order, and keeps the ones that are there. */
function sync<T>(list: HTMLElement, items: T[], key: (item: T) => string, fill: (element: HTMLElement, item: T) => void): void {
  const known = new Map([...list.children].map((child) => [(child as HTMLElement).dataset.key, child as HTMLElement]));
  let place = list.firstElementChild;
  for (const item of items) {
    let element = known.get(key(item));
    known.delete(key(item));
    if (!element) {
      element = document.createElement('li');
      element.dataset.key = key(item);
    }
    fill(element, item);
    if (element === place) place = place.nextElementSibling;
    else list.insertBefore(element, place);
  }
  for (const gone of known.values()) gone.remove();
}

function part(element: HTMLElement, tag: string, className: string): HTMLElement {
  const found = element.querySelector<HTMLElement>(`.${className}`);
  if (found) return found;
  const made = make(tag, className);
  element.append(made);
  return made;
}

export function showLogin(error: string): void {
  find('chat').hidden = true;
  find('login').hidden = false;
  find('login-error').textContent = error;
}

export function showChat(uid: string): void {
  find('login').hidden = true;
  find('chat').hidden = false;
  find('me').textContent = uid;
}

export function showStatus(status: Word): void {
  find('status').textContent = word(status);
  find('status').dataset.status = status;
}

export function showError(text: string): void {
  find('talk-error').textContent = text;
}

export function showChats(chats: Chat[], open: Chat | undefined, choose: (chat: Chat) => void): void {
  sync(find('chats'), chats, keyOf, (element, chat) => {
    const button = part(element, 'button', 'chat');
    button.onclick = () => choose(chat);
    button.ariaCurrent = String(chat === open);
    part(button, 'span', 'name').textContent = chat.type === GROUP ? `${word('group')} ${chat.id}` : chat.id;
    const time = part(button, 'time', 'time');
    time.textContent = chat.time ? clock.format(chat.time * 1000) : '';
    part(button, 'span', 'digest').textContent = chat.digest;
    const unread = part(button, 'span', 'unread');
    unread.hidden = chat.unread === 0;
    unread.textContent = String(chat.unread);
    unread.ariaLabel = `${chat.unread} ${word('unread')}`;
  });
  const unread = chats.reduce((sum, chat) => sum + chat.unread, 0);
  document.title = unread ? `(${unread}) ${word('title')}` : word('title');
}

/** Shows the lines of a chat. Who reads the end stays there, who reads above keeps the place. */
export function showLines(chat: Chat | undefined, uid: string): void {
  find('talk').hidden = !chat;
  find('nothing-open').hidden = Boolean(chat);
  if (!chat) return;
  const scroll = find('scroll');
  const list = find('lines');
  const isOther = list.dataset.chat !== keyOf(chat);
  if (isOther) {
    list.dataset.chat = keyOf(chat);
    list.replaceChildren();
  }
  const below = scroll.scrollHeight - scroll.scrollTop;
  const isAtEnd = isOther || below - scroll.clientHeight < NEAR;
  const firstBefore = list.firstElementChild;
  find('peer').textContent = chat.type === GROUP ? `${word('group')} ${chat.id}` : chat.id;
  sync(list, chat.lines, (line) => line.clientNo || String(line.seq), (element, line) => {
    element.classList.toggle('own', line.from === uid);
    element.dataset.state = line.state;
    part(element, 'span', 'from').textContent = describe(line);
    part(element, 'p', 'text').textContent = line.text;
    part(element, 'span', 'state').textContent = line.state === 'sent' ? '' : word(line.state);
  });
  if (isAtEnd) scroll.scrollTop = scroll.scrollHeight;
  else if (list.firstElementChild !== firstBefore) scroll.scrollTop = scroll.scrollHeight - below;
}

const describe = (line: Line): string => `${line.from} · ${clock.format(line.time * 1000)}`;

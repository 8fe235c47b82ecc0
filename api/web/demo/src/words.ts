// The page's words, in English and Chinese.

const english = {
  title: 'Jindou chat',
  uid: 'User',
  token: 'Password (token)',
  apiAddress: 'API address',
  logIn: 'Log in',
  logOut: 'Log out',
  conversations: 'Conversations',
  kind: 'Kind of chat',
  person: 'Person',
  group: 'Group',
  chatWith: 'Chat with',
  open: 'Open',
  back: 'Back',
  message: 'Message',
  send: 'Send',
  nothingOpen: 'Open a chat to read and write.',
  connecting: 'connecting …',
  online: 'online',
  offline: 'connection lost, trying again …',
  sending: 'sending …',
  failed: 'not sent',
  other: 'message of kind',
  unread: 'unread',
  kicked: 'This user has logged in elsewhere.',
  refused: 'The server refused the log-in, reason',
  badAddress: 'This is no address like http://host:5001.',
  unreachable: 'The API cannot be reached at',
  guarded: 'This server asks API calls for its manager token; the demo cannot be used with it.',
};

const chinese: typeof english = {
  title: 'Jindou 聊天',
  uid: '登录账号',
  token: '登录密码（token）',
  apiAddress: 'API基地址',
  logIn: '登录',
  logOut: '退出',
  conversations: '会话',
  kind: '会话类型',
  person: '单聊',
  group: '群聊',
  chatWith: '与谁会话？',
  open: '打开',
  back: '返回',
  message: '消息',
  send: '发送',
  nothingOpen: '打开一个会话开始聊天。',
  connecting: '连接中……',
  online: '连接成功',
  offline: '连接已断开，正在重连……',
  sending: '发送中……',
  failed: '发送失败',
  other: '消息类型',
  unread: '未读',
  kicked: '该账号已在其他地方登录。',
  refused: '服务器拒绝登录，原因',
  badAddress: '地址格式应为 http://host:5001。',
  unreachable: '无法访问 API：',
  guarded: '此服务器的 API 需要 managerToken，演示页面无法使用。',
};

export type Word = keyof typeof english;

const isChinese = navigator.language.toLowerCase().startsWith('zh');
const words = isChinese ? chinese : english;

export const word = (name: Word): string => words[name];

/** Writes the words into the page. */
export function translate(): void {
  document.documentElement.lang = isChinese ? 'zh' : 'en';
  document.title = words.title;
  for (const element of document.querySelectorAll<HTMLElement>('[data-word], [data-label]')) {
    const { word: text, label, hint } = element.dataset;
    if (text) element.textContent = words[text as Word];
    if (label) element.ariaLabel = words[label as Word];
    if (hint) element.setAttribute('placeholder', words[hint as Word]);
  }
}

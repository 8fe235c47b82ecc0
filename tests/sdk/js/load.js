// Loads the published package as it is. Its files are ES modules without file extensions and without "type": "module", which node
// alone cannot load and bundlers can; so each file is turned into CommonJS while it is read.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const ts = require('typescript');
const { WebSocket } = require('ws');

const lib = path.join(path.dirname(require.resolve('wukongimjssdk/package.json')), 'lib') + path.sep;
const plain = require.extensions['.js'];
require.extensions['.js'] = (module, file) => {
  if (!file.startsWith(lib)) return plain(module, file);
  const { outputText } = ts.transpileModule(fs.readFileSync(file, 'utf8'), {
    compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2019, esModuleInterop: true },
  });
  module._compile(outputText, file);
};

// The browser's globals that the SDK uses.
globalThis.WebSocket = WebSocket;
console.log = console.error;

/** A fresh copy of the SDK: it keeps everything in singletons, so each user needs a copy of their own. */
exports.load = () => {
  for (const file of Object.keys(require.cache)) if (file.startsWith(lib)) delete require.cache[file];
  return require('wukongimjssdk');
};

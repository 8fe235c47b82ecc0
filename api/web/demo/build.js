// Builds dist/ from src/ and static/. `node build.js --check` only compares: CI runs it, so what is committed
// and embedded in the binary is what the sources give.
import { build } from 'esbuild';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

process.chdir(path.dirname(fileURLToPath(import.meta.url)));

const { outputFiles, metafile } = await build({
  entryPoints: ['src/main.ts'],
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  target: 'es2022',
  charset: 'utf8',
  legalComments: 'none',
  // The SDK writes messages to the console.
  drop: ['console'],
  define: { global: 'globalThis' },
  logLevel: 'warning',
});

/** The licences of the packages that the bundle holds. */
function licences() {
  const packages = Object.keys(metafile.inputs).map((file) => /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]);
  return [...new Set(packages.filter(Boolean))].sort().map((name) => {
    const folder = path.join('node_modules', name);
    const { version, license } = JSON.parse(fs.readFileSync(path.join(folder, 'package.json'), 'utf8'));
    const file = fs.readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file ? fs.readFileSync(path.join(folder, file), 'utf8').trim() : '';
    return `${name} ${version}, ${license}\n${text && `\n${text}\n`}`;
  }).join('\n----\n\n').replaceAll('\r\n', '\n');
}

const made = new Map(fs.readdirSync('static').map((name) => [name, fs.readFileSync(path.join('static', name))]));
made.set('app.js', Buffer.from(outputFiles[0].contents));
made.set('licences.txt', Buffer.from(licences()));

if (process.argv.includes('--check')) {
  const stale = [...made].filter(([name, bytes]) => {
    const file = path.join('dist', name);
    return !fs.existsSync(file) || !fs.readFileSync(file).equals(bytes);
  });
  const extra = fs.readdirSync('dist').filter((name) => !made.has(name));
  const names = [...stale.map(([name]) => name), ...extra];
  if (names.length) {
    console.error(`api/web/demo/dist is not what its sources give (${names.join(', ')}): run \`npm ci && npm run build\` there`);
    process.exit(1);
  }
} else {
  fs.rmSync('dist', { recursive: true, force: true });
  fs.mkdirSync('dist');
  for (const [name, bytes] of made) fs.writeFileSync(path.join('dist', name), bytes);
}

// hapi: its hub, and a session of codex that is driven over the hub's HTTP interface, as its pages
// and apps do: a prompt, a command that it asks for, another prompt.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { mkdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const name = `@twsxtd/hapi-${process.platform}-${process.arch}`;
const packaged = createRequire(import.meta.url).resolve(`${name}/package.json`);
const HAPI = path.join(path.dirname(packaged), 'bin', 'hapi');
const TOKEN = 'a-token-of-a-test';
const PATIENCE = 60_000;

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function eventually(look, what) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const found = await look().catch(() => undefined);
    if (found) return found;
    if (Date.now() > end) throw new Error(`not seen: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const port = await freePort();
const url = `http://127.0.0.1:${port}`;
const home = path.join(process.env.HOME, 'hapi');
mkdirSync(home, { recursive: true });
const environ = {
  ...process.env,
  PATH: `${path.dirname(process.env.CODEX)}:${process.env.PATH}`,
  HAPI_HOME: home,
  HAPI_API_URL: url,
  HAPI_LISTEN_HOST: '127.0.0.1',
  HAPI_LISTEN_PORT: String(port),
  CLI_API_TOKEN: TOKEN,
};
const quiet = { cwd: process.env.WORK, env: environ, stdio: ['ignore', 'ignore', 'inherit'] };
const hub = spawn(HAPI, ['hub'], quiet);
await eventually(async () => (await fetch(`${url}/health`)).ok, 'the hub');
const session = spawn(HAPI, ['codex', '--started-by', 'runner'], quiet);
process.on('exit', () => [session, hub].forEach((each) => each.kill('SIGKILL')));

let jwt = '';
async function ask(method, where, body) {
  const headers = { 'content-type': 'application/json', authorization: `Bearer ${jwt}` };
  const answer = await fetch(`${url}${where}`, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${where}: ${answer.status} ${text}`);
  return JSON.parse(text);
}

jwt = (await ask('POST', '/api/auth', { accessToken: TOKEN })).token;
const { id } = await eventually(async () => {
  const { sessions } = await ask('GET', '/api/sessions');
  return sessions.find((each) => each.active);
}, 'a session');

async function said() {
  const { messages } = await ask('GET', `/api/sessions/${id}/messages?limit=50`);
  return JSON.stringify(messages);
}

for (const [text, answer] of [['say hello', 'Hello to you.'], ['run it', 'It ran.']]) {
  await ask('POST', `/api/sessions/${id}/messages`, { text });
  await eventually(async () => {
    const { session: now } = await ask('GET', `/api/sessions/${id}`);
    for (const [request, what] of Object.entries(now.agentState?.requests ?? {})) {
      console.log('asked', what.tool, JSON.stringify(what.arguments?.command));
      await ask('POST', `/api/sessions/${id}/permissions/${request}/approve`, {});
    }
    return !now.thinking && (await said()).includes(answer);
  }, answer);
  console.log(text, '->', answer);
}
await ask('POST', `/api/sessions/${id}/archive`);
await new Promise((resolve) => session.once('exit', resolve));
process.exit(0);

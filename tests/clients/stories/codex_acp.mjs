// @agentclientprotocol/codex-acp, as an editor uses it: a session, a prompt, an approval, a session
// that a second adapter loads again. The editor is written here: ACP is JSON-RPC, a line a message.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const ADAPTER = fileURLToPath(import.meta.resolve('@agentclientprotocol/codex-acp'));

class Editor {
  constructor() {
    const environ = { ...process.env, CODEX_PATH: process.env.CODEX, NO_BROWSER: '1', INITIAL_AGENT_MODE: 'read-only' };
    this.process = spawn(process.execPath, [ADAPTER], {
      env: environ,
      cwd: process.env.WORK,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.waiting = new Map();
    this.heard = [];
    this.last = 0;
    createInterface({ input: this.process.stdout }).on('line', (line) => this.hear(JSON.parse(line)));
  }

  hear(message) {
    if (message.method === undefined) {
      this.waiting.get(message.id)(message);
    } else if (message.method === 'session/request_permission') {
      const { options, toolCall } = message.params;
      console.log('asked', toolCall.kind, toolCall.title, JSON.stringify(options.map((o) => o.kind)));
      const { optionId } = options.find((option) => option.kind === 'allow_once');
      this.send({ id: message.id, result: { outcome: { outcome: 'selected', optionId } } });
    } else if (message.id !== undefined) {
      this.send({ id: message.id, error: { code: -32601, message: 'not here' } });
    } else if (message.method === 'session/update') {
      this.heard.push(message.params.update);
    }
  }

  send(message) {
    this.process.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  }

  async ask(method, params) {
    this.last += 1;
    const id = this.last;
    const answered = new Promise((resolve) => this.waiting.set(id, resolve));
    this.send({ id, method, params });
    const answer = await answered;
    if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
    return answer.result;
  }

  async start() {
    const capabilities = { fs: { readTextFile: false, writeTextFile: false }, terminal: false };
    return this.ask('initialize', { protocolVersion: 1, clientCapabilities: capabilities });
  }

  async say(sessionId, text) {
    const since = this.heard.length;
    const prompt = [{ type: 'text', text }];
    const { stopReason } = await this.ask('session/prompt', { sessionId, prompt });
    const updates = this.heard.slice(since);
    const said = updates.filter((each) => each.sessionUpdate === 'agent_message_chunk');
    console.log(text, '->', stopReason, said.map((each) => each.content.text).join(''));
  }

  async leave() {
    this.process.stdin.end();
    await new Promise((resolve) => this.process.once('exit', resolve));
  }
}

const where = { cwd: process.env.WORK, mcpServers: [] };
const editor = new Editor();
const { agentInfo } = await editor.start();
console.log(agentInfo?.name);
const { sessionId } = await editor.ask('session/new', where);
await editor.say(sessionId, 'say hello');
await editor.say(sessionId, 'run it');
await editor.leave();

const later = new Editor();
await later.start();
await later.ask('session/load', { sessionId, ...where });
const loaded = later.heard.map((each) => each.sessionUpdate);
console.log(loaded.filter((kind) => /^(user|agent|tool)_/.test(kind)).join(' '));
await later.say(sessionId, 'say hello');
await later.leave();
process.exit(0);

// ai-sdk-provider-codex-cli: its app-server mode, with an approval, and a thread that is kept.
import { createCodexAppServer } from 'ai-sdk-provider-codex-cli';

const asked = [];
const provider = createCodexAppServer({
  defaultSettings: {
    codexPath: process.env.CODEX,
    cwd: process.env.WORK,
    minCodexVersion: '0.153.0',
    approvalPolicy: 'on-request',
    configOverrides: { model_reasoning_effort: 'low' },
    logger: false,
    serverRequests: {
      onCommandExecutionApproval: async (params) => {
        asked.push(params.command);
        return { decision: 'accept' };
      },
    },
  },
});
const model = provider('scripted');

async function say(text, own) {
  const prompt = [{ role: 'user', content: [{ type: 'text', text }] }];
  const providerOptions = { 'codex-app-server': own };
  const { stream } = await model.doStream({ prompt, providerOptions });
  let said = '';
  let thread;
  for await (const part of stream) {
    if (part.type === 'text-delta') said += part.delta;
    if (part.type === 'error') said += ` error: ${part.error}`;
    thread ??= part.providerMetadata?.['codex-app-server']?.threadId;
  }
  console.log(text, '->', said);
  return thread;
}

await say('say hello', {});
const thread = await say('run it', { threadMode: 'persistent' });
console.log(thread !== undefined, asked);
await say('say hello', { threadId: thread });
console.log((await provider.listModels()).models.length > 0);
await provider.close();
process.exit(0);

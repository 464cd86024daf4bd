// ai-sdk-provider-codex-app-server: two prompts in one thread, streamed.
import { createCodexAppServer } from 'ai-sdk-provider-codex-app-server';

const provider = createCodexAppServer({
  defaultSettings: {
    codexPath: process.env.CODEX,
    cwd: process.env.WORK,
    approvalMode: 'never',
    sandboxMode: 'workspace-write',
    threadMode: 'persistent',
    logger: false,
  },
});
const model = provider('scripted');

for (const text of ['say hello', 'look around']) {
  const prompt = [{ role: 'user', content: [{ type: 'text', text }] }];
  const { stream } = await model.doStream({ prompt });
  const kinds = new Map();
  let said = '';
  for await (const part of stream) {
    kinds.set(part.type, (kinds.get(part.type) ?? 0) + 1);
    if (part.type === 'text-delta') said += part.delta;
  }
  console.log(said, JSON.stringify([...kinds]));
}
await provider.close?.();
process.exit(0);

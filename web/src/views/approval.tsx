// What waits for a word, above the keyboard: all that one must know, and the request's own buttons.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { answer } from "../approvals/answering.ts";
import {
  askingFor,
  type Choice,
  choicesOf,
  COMMAND,
  FORM,
  GUARD_MS,
  PERMISSIONS,
  plainCommand,
  PressGuard,
  QUESTION,
  refusal,
  type Request,
  riskOf,
} from "../approvals/requests.ts";
import { send } from "../composer/sending.ts";
import { rpc } from "../connection/runtime.ts";
import { cantAct, scopes } from "../state.ts";
import type { FileView } from "./changes.ts";
import { FileDiff } from "./diff.tsx";
import { ago, shortPath } from "./format.ts";
import { FormCard } from "./form.tsx";
import { Icon, now, Strange } from "./parts.tsx";
import { QuestionCard } from "./question.tsx";
import { hostName } from "./status.tsx";

/** How often it is looked whether the card has moved. */
const LOOK_MS = 60;

export interface Guarded {
  down: () => void;
  /** Runs the action if the press counts. */
  press: (action: () => void) => void;
  still: boolean;
}

/** Watches a card: no press counts for half a second after it appeared, moved or changed. */
export function useGuard(id: unknown, ref: { current: HTMLElement | null }, content: string): Guarded {
  const guard = useRef<PressGuard | null>(null);
  guard.current ??= new PressGuard(id, performance.now());
  const [still, setStill] = useState(false);
  const changed = (): void => {
    guard.current!.changed(id, performance.now());
    setStill(false);
  };
  useLayoutEffect(changed, [id, content]);
  useEffect(() => {
    let place = placeOf(ref.current);
    let since = performance.now();
    const timer = setInterval(() => {
      const next = placeOf(ref.current);
      if (next !== place) {
        place = next;
        since = performance.now();
        changed();
      } else if (performance.now() - since >= GUARD_MS) setStill(true);
    }, LOOK_MS);
    return () => clearInterval(timer);
  }, [id, content]);
  return {
    still,
    down: () => guard.current!.down(performance.now()),
    press: (action) => {
      if (guard.current!.press(id, performance.now())) action();
    },
  };
}

/** Where a card's answer buttons are. Scrolling its text moves them not. */
function placeOf(element: HTMLElement | null): string {
  const box = element?.getBoundingClientRect();
  return box ? `${Math.round(box.top)} ${Math.round(box.left)} ${Math.round(box.height)}` : "";
}

export function ApprovalCard(props: { request: Request; files: FileView[] }): JSX.Element {
  const { request, files } = props;
  const answers = useRef<HTMLDivElement>(null);
  const [busy, setBusy] = useState(false);
  const [saying, setSaying] = useState(false);
  const content = JSON.stringify([request.params, files.length, saying]);
  const guard = useGuard(request.id, answers, content);
  const may = scopes.value.has("approve");
  const blocked = !may ? "This device may watch, but not approve." : cantAct.value;
  const reply = async (result: unknown): Promise<boolean> => {
    setBusy(true);
    const done = await answer(rpc(), request, result);
    setBusy(false);
    return done;
  };
  const asked = askingFor({ method: request.method, files });
  return (
    <section class="approval" aria-label={asked}>
      <header class="approval-head">
        <h2>{asked}</h2>
        <span class="quiet">{ago(request.since, now.value)}</span>
      </header>
      {request.method === QUESTION || request.method === FORM ? (
        <p class="quiet asked-where">
          on <Strange text={hostName()} />, in <Strange text={shortPath(request.directory)} />
        </p>
      ) : (
        <div class="approval-body" tabIndex={0} role="region" aria-label="What it is about">
          {files.length > 0 && <Facts request={request} />}
          <Subject request={request} files={files} />
          {request.reason && (
            <p class="reason">
              <Strange text={request.reason} />
            </p>
          )}
          {!files.length && <Facts request={request} />}
        </div>
      )}
      <div class="answers" ref={answers}>
        {blocked && (
          <p class="blocked" role="status">
            {blocked}
          </p>
        )}
        {request.method === QUESTION ? (
          <QuestionCard request={request} guard={guard} blocked={!!blocked || busy} reply={reply} />
        ) : request.method === FORM ? (
          <FormCard request={request} guard={guard} blocked={!!blocked || busy} reply={reply} />
        ) : saying ? (
          <Why request={request} blocked={!!blocked || busy} reply={reply} onStop={() => setSaying(false)} />
        ) : (
          <Buttons
            request={request}
            guard={guard}
            blocked={!!blocked || busy}
            reply={reply}
            onSay={() => setSaying(true)}
          />
        )}
      </div>
    </section>
  );
}

function Subject(props: { request: Request; files: FileView[] }): JSX.Element | null {
  const { request, files } = props;
  const { params } = request;
  if (request.method === COMMAND) {
    const command = request.command ?? params.command;
    const network = params.networkApprovalContext;
    return (
      <>
        {network && (
          <p class="strong">
            Reach <Strange text={network.host} /> by {network.protocol}
          </p>
        )}
        {command && (
          <pre class="what">
            <code>
              <Strange text={plainCommand(command)} />
            </code>
          </pre>
        )}
      </>
    );
  }
  if (files.length) {
    return (
      <>
        {files.map((each) => (
          <FileDiff key={each.path} file={each} directory={request.directory} />
        ))}
      </>
    );
  }
  if (request.method === PERMISSIONS) {
    return (
      <pre class="what">
        <Strange text={permissionWords(params.permissions)} />
      </pre>
    );
  }
  return null;
}

function permissionWords(asked: any): string {
  const lines: string[] = [];
  if (asked?.network?.enabled) lines.push("use the network");
  for (const path of asked?.fileSystem?.read ?? []) lines.push(`read ${path}`);
  for (const path of asked?.fileSystem?.write ?? []) lines.push(`write ${path}`);
  for (const each of asked?.fileSystem?.entries ?? []) {
    const path = each.path.path ?? each.path.pattern ?? each.path.value?.kind;
    lines.push(`${each.access} ${path}`);
  }
  return lines.join("\n") || JSON.stringify(asked, null, 2);
}

function Facts({ request }: { request: Request }): JSX.Element {
  const directory = request.cwd ?? request.directory;
  const policy = request.policy !== "first";
  return (
    <dl class="facts">
      <div>
        <dt>on</dt>
        <dd>
          <Strange text={hostName()} />
        </dd>
      </div>
      {directory && (
        <div>
          <dt>in</dt>
          <dd>
            <Strange text={directory} />
          </dd>
        </div>
      )}
      {request.params.grantRoot && (
        <div>
          <dt>opens</dt>
          <dd>
            <Strange text={request.params.grantRoot} /> for writing
          </dd>
        </div>
      )}
      {request.risks.length > 0 && (
        <div>
          <dt>risk</dt>
          <dd>
            {request.risks.map((each) => (
              <span key={each} class="tag warn">
                {riskOf(each)}
              </span>
            ))}
          </dd>
        </div>
      )}
      {(policy || request.votes.length > 0) && (
        <div>
          <dt>waits for</dt>
          <dd>
            {request.waitsFor}
            {request.votes.map((each, index) => (
              <span key={index} class="tag">
                <Strange text={each.name} />: {each.decision}
              </span>
            ))}
          </dd>
        </div>
      )}
    </dl>
  );
}

function Buttons(props: {
  request: Request;
  guard: Guarded;
  blocked: boolean;
  reply: (result: unknown) => Promise<boolean>;
  onSay: () => void;
}): JSX.Element {
  const { request, guard, blocked, reply } = props;
  const choices = choicesOf(request);
  const rank = { yes: 0, more: 1, no: 2, stop: 3 };
  const main = choices.filter((each) => each.kind === "yes");
  const noes = choices.filter((each) => each.kind === "no" || each.kind === "stop");
  const first = [...main, ...noes.slice(0, 1)];
  const rest = choices.filter((each) => !first.includes(each)).sort((a, b) => rank[a.kind] - rank[b.kind]);
  const button = (each: Choice): JSX.Element => (
    <button
      key={each.key}
      type="button"
      class={`button answer-${each.kind}${each.kind === "yes" ? " primary" : ""}${guard.still ? "" : " settling"}`}
      disabled={blocked}
      onPointerDown={guard.down}
      onClick={() => guard.press(() => void reply(each.result))}
    >
      <Strange text={each.label} />
    </button>
  );
  if (!choices.length) {
    return <p class="quiet">This page can’t answer that yet. A terminal can.</p>;
  }
  return (
    <>
      <div class="answers-first">{first.map(button)}</div>
      <div class="answers-more">
        {rest.map(button)}
        {refusal(request) !== null && scopes.value.has("drive") && (
          <button type="button" class="button" disabled={blocked} onClick={props.onSay}>
            Decline and say why
          </button>
        )}
      </div>
    </>
  );
}

function Why(props: {
  request: Request;
  blocked: boolean;
  reply: (result: unknown) => Promise<boolean>;
  onStop: () => void;
}): JSX.Element {
  const [text, setText] = useState("");
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    const { request } = props;
    const done = await props.reply(refusal(request));
    if (done && text.trim()) {
      const thread = request.rootThreadId ?? request.threadId;
      await send(thread, { text: text.trim(), pictures: [] }, "steer");
    }
  };
  return (
    <form class="why" onSubmit={submit}>
      <label class="field">
        <span>What should it do instead?</span>
        <textarea
          rows={2}
          value={text}
          autoFocus
          onInput={(event) => setText(event.currentTarget.value)}
        />
      </label>
      <div class="answers-first">
        <button type="submit" class="button danger" disabled={props.blocked || !text.trim()}>
          Decline and send
        </button>
        <button type="button" class="button" onClick={props.onStop}>
          Back
        </button>
      </div>
    </form>
  );
}

export function Settled({ text }: { text: string }): JSX.Element {
  return (
    <p class="settled" role="status">
      <Icon name="check" size={18} /> {text}
    </p>
  );
}

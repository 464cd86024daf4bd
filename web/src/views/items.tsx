// The items of a thread, one component a kind. Each renders again only when its own item changes.

import { useState } from "preact/hooks";
import type { ComponentChildren, JSX } from "preact";
import { decided, plainCommand } from "../approvals/requests.ts";
import { type Decision, type Item, type ThreadState } from "../journal/thread.ts";
import { outputOf, summaryOf, textOf } from "../journal/reading.ts";
import { personOf } from "../people.ts";
import { threadPath } from "../route.ts";
import { requests } from "../state.ts";
import { looking } from "../threads/files.ts";
import type { FollowedThread } from "../threads/follow.ts";
import type { ThreadItem } from "../wire.ts";
import { spans } from "./ansi.ts";
import { fileView } from "./changes.ts";
import { FileDiff } from "./diff.tsx";
import { lasted, within } from "./format.ts";
import { Markdown } from "./markdown.tsx";
import { Icon, Link, Strange } from "./parts.tsx";

/** Lines of an output that is folded: its end is what is looked for. */
const FOLDED = 6;
/** Of what is opened, no more than this is shown: the end of it. */
const OUTPUT_MOST = 100_000;
/** Characters of one line of output. */
const LINE_MOST = 2000;

/** Rendered again when its own item changes, and with no other: it reads that one signal. */
export function ItemView(props: {
  thread: FollowedThread;
  id: string;
  said: string;
}): JSX.Element | null {
  void props.thread.item(props.id).value;
  const item = props.thread.state.items.get(props.id);
  if (!item) return null;
  const { state, following } = props.thread;
  return <Content item={item} state={state} said={props.said} gradual={following} />;
}

function Content(props: { item: Item; state: ThreadState; said: string; gradual: boolean }): JSX.Element | null {
  const { item, state, gradual } = props;
  const { item: content } = item;
  switch (content.type) {
    case "userMessage":
      return <UserMessage content={content} said={props.said} threadId={state.id} />;
    case "agentMessage":
      return (
        <article class={`agent${item.running ? " streams" : ""}`} aria-label="Agent">
          <Markdown text={textOf(item)} gradual={gradual} />
        </article>
      );
    case "reasoning":
      return <Reasoning item={item} />;
    case "commandExecution":
      return <Command item={item} content={content} state={state} />;
    case "fileChange":
      return <Files item={item} content={content} state={state} />;
    case "plan":
      return (
        <article class="card plan-text" aria-label="Plan">
          <header class="card-head">Plan</header>
          <Markdown text={textOf(item)} />
        </article>
      );
    case "mcpToolCall":
      return (
        <Tool
          name={`${content.server} · ${content.tool}`}
          status={content.status}
          input={content.arguments}
          output={mcpOutput(content, item)}
          ms={content.durationMs}
          failed={content.status === "failed" || content.error !== null}
        />
      );
    case "dynamicToolCall":
      return (
        <Tool
          name={content.namespace ? `${content.namespace} · ${content.tool}` : content.tool}
          status={content.status}
          input={content.arguments}
          output={(content.contentItems ?? [])
            .map((each) => (each.type === "inputText" ? each.text : `(${each.type})`))
            .join("\n")}
          ms={content.durationMs}
          failed={content.success === false}
        />
      );
    case "webSearch":
      return (
        <Aside icon="globe">
          Searched the web{content.query && ": "}
          <Strange text={content.query} />
        </Aside>
      );
    case "imageView":
      return (
        <Aside icon="image">
          Looked at <Strange text={within(content.path, state.thread?.cwd ?? "")} />
        </Aside>
      );
    case "imageGeneration":
      return <Picture content={content} />;
    case "contextCompaction":
      return <Divider>The context was compacted</Divider>;
    case "enteredReviewMode":
      return <Divider>Review began</Divider>;
    case "exitedReviewMode":
      return (
        <article class="card" aria-label="Review">
          <header class="card-head">Review</header>
          <Markdown text={content.review} />
        </article>
      );
    case "collabAgentToolCall":
      return (
        <Aside icon="people">
          {COLLAB[content.tool] ?? content.tool}
          {content.prompt && <span class="quiet"> “<Strange text={content.prompt.slice(0, 140)} />”</span>}
          {content.receiverThreadIds.map((id) => (
            <Link key={id} to={threadPath(id)} class="inline-link">
              open
            </Link>
          ))}
        </Aside>
      );
    case "subAgentActivity":
      return (
        <Aside icon="people">
          A sub-agent {content.kind === "interacted" ? "was written to" : content.kind}{" "}
          <Link to={threadPath(content.agentThreadId)} class="inline-link">
            open
          </Link>
        </Aside>
      );
    case "sleep":
      return <Aside icon="clock">Waited {lasted(content.durationMs)}</Aside>;
    case "hookPrompt":
      return <Aside icon="bolt">A hook spoke: <Strange text={content.fragments.map((each) => each.text).join(" ").slice(0, 300)} /></Aside>;
    default:
      return <Aside icon="tool">{(content as { type: string }).type}</Aside>;
  }
}

const COLLAB: Record<string, string> = {
  spawnAgent: "Started a sub-agent",
  sendInput: "Wrote to a sub-agent",
  sendMessage: "Wrote to a sub-agent",
  wait: "Waited for sub-agents",
  closeAgent: "Ended a sub-agent",
  resumeAgent: "Resumed a sub-agent",
  followupTask: "Gave a sub-agent more to do",
  interruptAgent: "Interrupted a sub-agent",
  listAgents: "Listed the sub-agents",
};

type Of<Type extends ThreadItem["type"]> = Extract<ThreadItem, { type: Type }>;

function UserMessage(props: { content: Of<"userMessage">; said: string; threadId: string }): JSX.Element {
  const { content, said, threadId } = props;
  return (
    <article class="user" aria-label={`Message of ${said || "a person"}`}>
      <div class="bubble">
        {content.content.map((each, index) => {
          if (each.type === "text") return <p key={index}><Strange text={each.text} /></p>;
          if (each.type === "image") {
            const url = "url" in each ? each.url : "";
            return /^data:image\/(?:png|jpe?g|gif|webp);/.test(url) ? (
              <img key={index} src={url} alt="A picture that was sent" loading="lazy" />
            ) : (
              <p key={index} class="quiet">picture: <Strange text={url || "a file"} /></p>
            );
          }
          if (each.type === "localImage") {
            const { path } = each;
            return (
              <button key={index} type="button" class="to-file" onClick={() => (looking.value = { threadId, path })}>
                picture: <Strange text={path.slice(path.lastIndexOf("/") + 1)} />
              </button>
            );
          }
          const name = "name" in each ? each.name : each.type;
          return <p key={index} class="quiet">{each.type}: <Strange text={name} /></p>;
        })}
      </div>
      {said && <p class="who">{said}</p>}
    </article>
  );
}

function Reasoning({ item }: { item: Item }): JSX.Element | null {
  const text = summaryOf(item);
  const heading = /\*\*(.+?)\*\*/.exec(text)?.[1] ?? (item.running ? "Thinking" : "Thought");
  if (!text) return item.running ? <Aside icon="eye">Thinking …</Aside> : null;
  return (
    <details class="reasoning">
      <summary>
        <Strange text={heading} />
      </summary>
      <Markdown text={text} />
    </details>
  );
}

function Command(props: {
  item: Item;
  content: Of<"commandExecution">;
  state: ThreadState;
}): JSX.Element {
  const { item, content, state } = props;
  const output = outputOf(item);
  const failed = content.status === "failed" || (content.exitCode ?? 0) !== 0;
  const elsewhere = state.thread && content.cwd !== state.thread.cwd;
  return (
    <article class={`card command${failed ? " failed" : ""}`} aria-label="Command">
      <div class="command-line">
        <span class="prompt" aria-hidden="true">
          $
        </span>
        <code>
          <Strange text={plainCommand(content.command)} />
        </code>
      </div>
      {output && <Output text={output} follows={item.running} />}
      <footer class="card-foot">
        <CommandState content={content} running={item.running} decision={state.decisions.get(item.id)} />
        {content.durationMs !== null && content.durationMs >= 1000 && (
          <span>{lasted(content.durationMs)}</span>
        )}
        {elsewhere && (
          <span class="where">
            in <Strange text={content.cwd} />
          </span>
        )}
      </footer>
    </article>
  );
}

function CommandState(props: {
  content: Of<"commandExecution">;
  running: boolean;
  decision: Decision | undefined;
}): JSX.Element {
  const { content, running, decision } = props;
  const by = decision?.by ? ` by ${personOf(decision.by)}` : "";
  const said = decision ? <span class="quiet">{decided(decision.decision)}{by}</span> : null;
  const asked = [...requests.value.values()].some((each) => each.itemId === content.id);
  if (asked) return <span class="running-words">waits for an answer</span>;
  if (running) return <><span class="running-words">running</span>{said}</>;
  if (content.status === "declined") return <span class="bad">declined{by}</span>;
  if (content.exitCode === null) {
    return <><span>{content.status === "failed" ? "failed" : "ended"}</span>{said}</>;
  }
  return (
    <>
      <span class={content.exitCode === 0 ? "good" : "bad"}>exit {content.exitCode}</span>
      {said}
    </>
  );
}

export function Output({ text, follows }: { text: string; follows?: boolean }): JSX.Element {
  const [open, setOpen] = useState(false);
  const whole = text.endsWith("\n") ? text.slice(0, -1) : text;
  // Only the end is looked at, so that a long output costs no more than what is shown of it.
  const lines = tail(whole, FOLDED + 1);
  const folded = lines.length > FOLDED && !open;
  const shown = open ? whole.slice(-OUTPUT_MOST) : lines.slice(-FOLDED).join("\n");
  const cut = open && whole.length > OUTPUT_MOST;
  return (
    <div class="output">
      {folded && (
        <button type="button" class="fold" onClick={() => setOpen(true)}>
          Show what came before
        </button>
      )}
      {open && lines.length > FOLDED && (
        <button type="button" class="fold" onClick={() => setOpen(false)}>
          {cut ? "Show less (its end is below)" : "Show less"}
        </button>
      )}
      <pre tabIndex={0} role="region" aria-label="Output" aria-live={follows ? "off" : undefined}>
        {spans(shortened(shown)).map((span, index) => (
          <span key={index} class={span.style}>
            <Strange text={span.text} />
          </span>
        ))}
      </pre>
    </div>
  );
}

function tail(text: string, most: number): string[] {
  let start = text.length;
  for (let found = 0; found < most && start > 0; found++) {
    start = text.lastIndexOf("\n", start - 1);
    if (start < 0) return text.split("\n");
  }
  return text.slice(start + 1).split("\n");
}

function shortened(text: string): string {
  return text
    .split("\n")
    .map((line) =>
      line.length > LINE_MOST
        ? `${line.slice(0, LINE_MOST)} … ${(line.length - LINE_MOST).toLocaleString()} more characters`
        : line,
    )
    .join("\n");
}

function Files(props: { item: Item; content: Of<"fileChange">; state: ThreadState }): JSX.Element {
  const { item, content, state } = props;
  const decision = state.decisions.get(item.id);
  const by = decision?.by ? ` by ${personOf(decision.by)}` : "";
  return (
    <article class="files" aria-label="Changed files">
      {content.changes.map((each) => (
        <FileDiff
          key={each.path}
          file={fileView(each)}
          directory={state.thread?.cwd ?? ""}
          open={content.status !== "inProgress"}
          onFile={content.status === "completed" ? (path) => (looking.value = { threadId: state.id, path }) : undefined}
        />
      ))}
      {(content.status !== "completed" || decision) && (
        <p class="card-foot">
          {content.status === "inProgress" && <span class="running-words">not applied yet</span>}
          {content.status === "declined" && <span class="bad">declined{by}</span>}
          {content.status === "failed" && <span class="bad">couldn’t be applied</span>}
          {content.status === "completed" && decision && (
            <span class="quiet">
              {decided(decision.decision)}
              {by}
            </span>
          )}
        </p>
      )}
    </article>
  );
}

function Tool(props: {
  name: string;
  status: string;
  input: unknown;
  output: string;
  ms: number | null;
  failed: boolean;
}): JSX.Element {
  return (
    <article class={`card tool${props.failed ? " failed" : ""}`} aria-label="Tool call">
      <details>
        <summary>
          <Icon name="tool" size={16} />
          <Strange text={props.name} />
          <span class={props.failed ? "bad" : "quiet"}>
            {props.status === "inProgress" ? "running" : props.failed ? "failed" : ""}
          </span>
        </summary>
        <pre tabIndex={0} role="region" aria-label="What it was called with">
          <Strange text={JSON.stringify(props.input, null, 2) ?? ""} />
        </pre>
      </details>
      {props.output && <Output text={props.output} />}
    </article>
  );
}

function mcpOutput(content: Of<"mcpToolCall">, item: Item): string {
  if (content.error) return content.error.message;
  const parts = (content.result?.content ?? []) as { type?: string; text?: string }[];
  if (!parts.length) return item.output;
  return parts.map((each) => each.text ?? `(${each.type ?? "data"})`).join("\n");
}

function Picture({ content }: { content: Of<"imageGeneration"> }): JSX.Element {
  const safe = /^[A-Za-z0-9+/=\s]+$/.test(content.result);
  return (
    <article class="card" aria-label="Picture">
      {content.result && safe ? (
        <img class="made" src={`data:image/png;base64,${content.result}`} alt={content.revisedPrompt ?? "A picture that was made"} />
      ) : (
        <Aside icon="image">A picture: {content.status}</Aside>
      )}
    </article>
  );
}

function Aside({ icon, children }: { icon: string; children: ComponentChildren }): JSX.Element {
  return (
    <p class="aside">
      <Icon name={icon} size={16} />
      <span>{children}</span>
    </p>
  );
}

function Divider({ children }: { children: ComponentChildren }): JSX.Element {
  return <p class="divider"><span>{children}</span></p>;
}

// One thread: its conversation, what it asks, and what one says to it.

import { useEffect, useState } from "preact/hooks";
import type { JSX } from "preact";
import { rpc, threads } from "../connection/runtime.ts";
import type { Request } from "../approvals/requests.ts";
import type { ThreadState } from "../journal/thread.ts";
import { back } from "../route.ts";
import { inbox, phase, requests, settled } from "../state.ts";
import { looking, readFiles } from "../threads/files.ts";
import type { FollowedThread } from "../threads/follow.ts";
import { titleOf } from "../threads/inbox.ts";
import { ApprovalCard, Settled } from "./approval.tsx";
import { Composer } from "./composer.tsx";
import { shortPath } from "./format.ts";
import { Menu } from "./menu.tsx";
import { type FileView, fileView, fileViewOf } from "./changes.ts";
import { IconButton, Strange } from "./parts.tsx";
import { Banner, connectionWords, hostName } from "./status.tsx";
import { Timeline } from "./timeline.tsx";

export function ThreadView({ id }: { id: string }): JSX.Element {
  const [thread, setThread] = useState<FollowedThread>(() => threads.get(id));
  const [menu, setMenu] = useState(false);
  useEffect(() => {
    setThread(threads.open(id, Date.now()));
  }, [id, phase.value === "live"]);
  const over = [...thread.state.turns.values()].filter((each) => each.status !== "inProgress").length;
  useEffect(() => {
    if (phase.value === "live" && rpc()) void readFiles(rpc()!, id);
  }, [id, phase.value === "live", over]);
  useEffect(() => () => void (looking.value = null), [id]);
  const row = inbox.value.threads.get(id);
  const version = thread.version.value;
  const meta = thread.state.thread;
  const title = titleOf({
    title: meta?.name ?? row?.title ?? "",
    preview: meta?.preview || row?.preview || "",
  });
  const directory = meta?.cwd ?? row?.directory ?? "";
  const asks = [...requests.value.values()].filter(
    (each) => each.threadId === id || each.rootThreadId === id,
  );
  return (
    <section class="thread" aria-label="Thread">
      <header class="bar">
        <IconButton icon="back" label="Back to the inbox" class="only-narrow" onClick={back} />
        <div class="bar-title">
          <h1>
            <Strange text={title} />
          </h1>
          <p class="bar-sub">
            <Strange text={hostName()} />
            <span class="sep">·</span>
            <span title={directory}>
              <Strange text={shortPath(directory)} />
            </span>
            <span class="sep">·</span>
            <span class={`state state-${phase.value}`}>
              <span class="dot" aria-hidden="true" />
              {connectionWords()}
            </span>
          </p>
        </div>
        <IconButton icon="more" label="Menu of this thread" onClick={() => setMenu(true)} />
      </header>
      <div class="only-narrow">
        <Banner />
      </div>
      <Timeline thread={thread} version={version} asks={asks.length > 0} />
      <div class="dock">
        {asks.map((each) => (
          <ApprovalCard key={each.id} request={each} files={filesOf(each, thread.state)} />
        ))}
        {!asks.length && [...settled.value].slice(-1).map(([key, text]) => (
          <Settled key={key} text={text} />
        ))}
        <Composer thread={thread} id={id} asks={asks.length > 0} />
      </div>
      {menu && <Menu thread={thread} id={id} onClose={() => setMenu(false)} />}
    </section>
  );
}

/** The files of a request. Very long changes the broker doesn't repeat: the thread has them. */
function filesOf(request: Request, state: ThreadState): FileView[] {
  if (request.files.length) return request.files.map(fileViewOf);
  const item = request.itemId === null ? undefined : state.items.get(request.itemId)?.item;
  return item?.type === "fileChange" ? item.changes.map(fileView) : [];
}

// The conversation as one scrolls through it: it follows its end, holds what one reads where it is,
// and has no more of a long thread on the page than some screens.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";
import { threads } from "../connection/runtime.ts";
import { phase } from "../state.ts";
import type { FollowedThread } from "../threads/follow.ts";
import { ago } from "./format.ts";
import { Icon, now } from "./parts.tsx";
import { Turns } from "./turns.tsx";
import { atEnd, downwards, rangeOf, surplus, upwards, type Window } from "./window.ts";

/** So near to the end, one is at the end. */
const NEAR = 60;

/** So near to either edge of what is shown, more is shown. */
const EARLY = 1200;

/** What one reads, and where it stood. */
interface Anchor {
  element: Element;
  top: number;
}

export function Timeline(props: { thread: FollowedThread; version: number; asks: boolean }): JSX.Element {
  const { thread, version, asks } = props;
  const { state } = thread;
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const pinned = useRef(true);
  /** The last item that was there when one was at the end. */
  const seen = useRef<string | undefined>(undefined);
  const shown = useRef<Window>({ first: null, last: null });
  const anchor = useRef<Anchor | null>(null);
  const widening = useRef(0);
  const [fresh, setFresh] = useState(0);
  const [, draw] = useState(0);
  const drawn = useRef<string | undefined>(undefined);
  if (pinned.current) shown.current = atEnd(shown.current, state, drawn.current);
  drawn.current = state.order.at(-1);
  thread.following = pinned.current;
  const range = rangeOf(shown.current, state);

  const toEnd = (): void => {
    pinned.current = true;
    seen.current = state.order.at(-1);
    setFresh(0);
    if (shown.current.last !== null) {
      shown.current = { first: null, last: null };
      draw((before) => before + 1);
    }
    const box = scroller.current;
    if (box) box.scrollTop = box.scrollHeight;
  };
  const change = (next: Window): void => {
    if (next.first === shown.current.first && next.last === shown.current.last) return;
    // At the end so much and no more is shown.
    if (pinned.current && atEnd(next, thread.state).first !== next.first) return;
    anchor.current = anchorOf(scroller.current!, content.current!);
    shown.current = next;
    draw((before) => before + 1);
  };
  /** Near an edge of what is shown there must be more, if the thread has it. */
  const widen = (): void => {
    widening.current = 0;
    const box = scroller.current;
    if (!box || anchor.current) return;
    const { from, to } = rangeOf(shown.current, thread.state);
    const below = box.scrollHeight - box.scrollTop - box.clientHeight;
    if (to < thread.state.order.length && below < EARLY) change(downwards(shown.current, thread.state));
    else if (box.scrollTop < (pinned.current ? NEAR : EARLY)) {
      if (from === 0) void threads.older(thread);
      else change(upwards(shown.current, thread.state));
    }
  };
  const soon = (): void => {
    widening.current ||= requestAnimationFrame(widen);
  };
  const onScroll = (): void => {
    const box = scroller.current;
    if (!box) return; // the view has gone before its last scrolling was told
    const whole = shown.current.last === null;
    const below = box.scrollHeight - box.scrollTop - box.clientHeight;
    pinned.current = whole && below < NEAR;
    if (pinned.current) {
      seen.current = state.order.at(-1);
      if (fresh) setFresh(0);
    }
    if (box.scrollTop < EARLY || (!whole && below < EARLY)) soon();
  };
  useLayoutEffect(toEnd, [state]);
  useLayoutEffect(() => {
    if (pinned.current) {
      thread.forget(surplus(shown.current, state));
      toEnd();
    } else setFresh(after(state.order, seen.current));
  }, [version]);
  useLayoutEffect(() => {
    const box = scroller.current;
    const held = anchor.current;
    anchor.current = null;
    if (!box) return;
    // What is put before what one reads mustn't move it.
    if (pinned.current) box.scrollTop = box.scrollHeight;
    else if (held?.element.isConnected) box.scrollTop += topOf(held.element, box) - held.top;
    soon();
  }, [range.from, range.to, state.order.length, state.older]);
  useEffect(() => {
    const watch = new ResizeObserver(() => {
      if (pinned.current && scroller.current) {
        scroller.current.scrollTop = scroller.current.scrollHeight;
      }
    });
    watch.observe(content.current!);
    watch.observe(scroller.current!);
    return () => {
      watch.disconnect();
      cancelAnimationFrame(widening.current);
    };
  }, []);

  return (
    <div class="timeline-frame">
      <div
        class="timeline"
        ref={scroller}
        onScroll={onScroll}
        tabIndex={0}
        role="region"
        aria-label="Conversation"
      >
        <div class="timeline-content" ref={content}>
          <div class="timeline-start">
            {range.from === 0 ? <Start thread={thread} /> : <p class="quiet centered">Loading …</p>}
          </div>
          <Turns thread={thread} version={version} asks={asks} range={range} />
        </div>
      </div>
      {fresh > 0 && (
        <button type="button" class="fresh" onClick={toEnd}>
          {fresh} new <Icon name="down" size={16} />
        </button>
      )}
    </div>
  );
}

/** How many items came after one; older ones, which come when one scrolls up, don't count. */
function after(order: string[], id: string | undefined): number {
  return order.length - 1 - (id === undefined ? -1 : order.lastIndexOf(id));
}

/** The first item that can be seen, at least in part. */
function anchorOf(box: Element, content: Element): Anchor | null {
  for (const element of content.children) {
    if (element.getBoundingClientRect().bottom > box.getBoundingClientRect().top + 1) {
      return { element, top: topOf(element, box) };
    }
  }
  return null;
}

function topOf(element: Element, box: Element): number {
  return element.getBoundingClientRect().top - box.getBoundingClientRect().top;
}

function Start({ thread }: { thread: FollowedThread }): JSX.Element | null {
  const state = thread.read();
  if (thread.keptAt.value) {
    return (
      <p class="quiet centered" role="status">
        As it was {ago(thread.keptAt.value, now.value)}
        {phase.value !== "offline" && ". Loading …"}
      </p>
    );
  }
  if (thread.trouble.value) {
    return (
      <p class="trouble centered" role="alert">
        {thread.trouble.value}
      </p>
    );
  }
  if (thread.loading.value) {
    return (
      <p class="quiet centered" role="status">
        Loading …
      </p>
    );
  }
  if (state.older !== null) {
    return (
      <button type="button" class="button small centered" onClick={() => void threads.older(thread)}>
        Older
      </button>
    );
  }
  if (!state.order.length) return <p class="quiet centered">Nothing was said here yet.</p>;
  return <p class="quiet centered begun">The beginning</p>;
}

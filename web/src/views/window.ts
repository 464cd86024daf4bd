// Which items of a long thread are on the page: some screens around where one reads. So what a
// thread costs is what is looked at, however long it is. Pure functions over the thread's order.

import type { Item, ThreadState } from "../journal/thread.ts";

/** Characters that weigh as much as an item that is only a line or two: a third of a phone's screen. */
const HEAVY = 1_000;
/** What the changes of one file weigh: they are folded past a screenful. */
const CHANGE = 3;

/** What is shown at first, and of much that came at once: some screens, drawn in a frame or two. */
const SHOWN = 8;
/** What is added at once, when one scrolls: it has to be drawn within a frame. */
const STEP = 3;
/** More than this isn't shown at once: what is farthest from where one reads goes. */
const MOST = 64;
/** Above what is shown, more than this isn't even kept in memory while one reads the end. */
const KEPT = 60;

/** The first item that is shown, and the last one: null while that is the thread's last one. */
export interface Window {
  first: string | null;
  last: string | null;
}

/** A half-open range of places in the thread's order. */
export interface Range {
  from: number;
  to: number;
}

export function weightOf(item: Item): number {
  const said = item.item;
  let length = item.text.length;
  if (said.type === "agentMessage" || said.type === "plan") length = Math.max(length, said.text.length);
  else if (said.type === "fileChange") return 1 + said.changes.length * CHANGE;
  return 1 + length / HEAVY;
}

/** Where the window stands in the order. What it began or ended with may have gone. */
export function rangeOf(window: Window, state: ThreadState): Range {
  const { order } = state;
  const last = window.last === null ? -1 : order.lastIndexOf(window.last);
  const to = last < 0 ? order.length : last + 1;
  const first = window.first === null ? -1 : order.indexOf(window.first);
  return { from: first < 0 ? back(state, to, SHOWN) : Math.min(first, to), to };
}

/**
 * The window at the thread's end. Its beginning stays where it is for as long as that isn't much, and
 * what came after the item that was drawn last isn't, either.
 */
export function atEnd(window: Window, state: ThreadState, drawn?: string): Window {
  const { from, to } = rangeOf({ first: window.first, last: null }, state);
  const fresh = drawn === undefined ? to : state.order.lastIndexOf(drawn) + 1;
  const light = from < to && weighed(state, from, to) <= MOST && weighed(state, fresh, to) <= SHOWN;
  return named(state, { from: light ? from : back(state, to, SHOWN), to });
}

/** The window with some more above, and less below if it gets too large. */
export function upwards(window: Window, state: ThreadState): Window {
  const { from, to } = rangeOf(window, state);
  const above = back(state, from, STEP);
  let end = to;
  // What stood at the top is what is read.
  while (end > from + 1 && weighed(state, above, end) > MOST) end--;
  return named(state, { from: above, to: end });
}

/** The window with some more below, and less above if it gets too large. */
export function downwards(window: Window, state: ThreadState): Window {
  const { from, to } = rangeOf(window, state);
  let end = to;
  for (let weight = 0; end < state.order.length && weight < STEP; end++) weight += weightAt(state, end);
  let start = from;
  while (start < to - 1 && weighed(state, start, end) > MOST) start++;
  return named(state, { from: start, to: end });
}

/** How many of the oldest items needn't be kept while the window is at the end. */
export function surplus(window: Window, state: ThreadState): number {
  const { from } = rangeOf(window, state);
  return weighed(state, 0, from) > KEPT ? from : 0;
}

function named(state: ThreadState, { from, to }: Range): Window {
  const { order } = state;
  return { first: order[from] ?? null, last: to >= order.length ? null : order[to - 1]! };
}

/** The place from which so much weight leads up to `to`; one item at least. */
function back(state: ThreadState, to: number, weight: number): number {
  let from = to;
  for (let found = 0; from > 0 && found < weight; from--) found += weightAt(state, from - 1);
  return from;
}

function weighed(state: ThreadState, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to && sum <= MOST; at++) sum += weightAt(state, at);
  return sum;
}

function weightAt(state: ThreadState, at: number): number {
  return weightOf(state.items.get(state.order[at]!)!);
}

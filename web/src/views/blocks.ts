// A long markdown text in parts, so that one that streams is drawn again at its end only.

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const ITEM = /^(?:[-*+] |\d{1,9}[.)] )/;
const GOES_ON = /^(?:\s|[-*+] |\d{1,9}[.)] )/;

/** Characters of a list that stays one block: a longer one is cut between its items. */
const LIST = 2_000;

/** Cut at blank lines, but not within code, short lists, or what is indented under something. */
export function blocks(text: string): string[] {
  const found: string[] = [];
  let current: string[] = [];
  let fence = "";
  let blank = false;
  let size = 0;
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line)?.[1];
    const over = blank && line.trim() && !GOES_ON.test(line);
    if (!fence && current.length && (over || (size > LIST && ITEM.test(line)))) {
      found.push(current.join("\n"));
      current = [];
      size = 0;
    }
    size += line.length + 1;
    if (mark && !fence) fence = mark;
    else if (mark && line.trim().startsWith(fence) && /^[`~\s]*$/.test(line)) fence = "";
    blank = !line.trim();
    current.push(line);
  }
  if (current.length) found.push(current.join("\n"));
  return found;
}

/** Characters of a part: some screens, so that few parts are looked at and each is soon drawn. */
const PART = 4_000;

/** Some blocks together. One that is `whole` won't change any more, and is the same object then. */
export interface Part {
  blocks: string[];
  whole: boolean;
}

/** The beginning of a text in parts: so many characters of it, and the block that they end in. */
export function upTo(parts: Part[], most: number): Part[] {
  let size = 0;
  for (const [at, part] of parts.entries()) {
    const end = part.blocks.findIndex((each) => (size += each.length + 1) > most);
    if (end >= 0 && end < part.blocks.length - 1) {
      return [...parts.slice(0, at), { blocks: part.blocks.slice(0, end + 1), whole: false }];
    }
    if (end >= 0) return parts.slice(0, at + 1);
  }
  return parts;
}

/** The parts of a text that grows: those that are whole aren't looked at again. */
export class GrowingText {
  #whole: Part[] = [];
  #prefix = "";
  #size: number;

  constructor(size = PART) {
    this.#size = size;
  }

  of(text: string): Part[] {
    if (!text.startsWith(this.#prefix)) {
      this.#whole = [];
      this.#prefix = "";
    }
    let rest = blocks(text.slice(this.#prefix.length));
    for (;;) {
      let size = 0;
      // The last one, and what it begins with, may still change.
      const end = rest.findIndex((each, at) => (size += each.length + 1) > this.#size && at < rest.length - 1);
      if (end < 0) break;
      this.#whole.push({ blocks: rest.slice(0, end + 1), whole: true });
      this.#prefix = text.slice(0, this.#prefix.length + size);
      rest = rest.slice(end + 1);
    }
    return [...this.#whole, { blocks: rest, whole: false }];
  }
}

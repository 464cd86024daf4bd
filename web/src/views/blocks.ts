// A long markdown text in parts, so that one that streams is drawn again at its end only.

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const GOES_ON = /^(?:\s|[-*+] |\d{1,9}[.)] )/;

/** Cut at blank lines, but not within code, lists, or what is indented under something. */
export function blocks(text: string): string[] {
  const found: string[] = [];
  let current: string[] = [];
  let fence = "";
  let blank = false;
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line)?.[1];
    if (!fence && blank && current.length && line.trim() && !GOES_ON.test(line)) {
      found.push(current.join("\n"));
      current = [];
    }
    if (mark && !fence) fence = mark;
    else if (mark && line.trim().startsWith(fence) && /^[`~\s]*$/.test(line)) fence = "";
    blank = !line.trim();
    current.push(line);
  }
  if (current.length) found.push(current.join("\n"));
  return found;
}

/** The blocks of a text that grows: those that are complete aren't looked at again. */
export class GrowingBlocks {
  #complete: string[] = [];
  #prefix = "";

  of(text: string): string[] {
    if (!text.startsWith(this.#prefix)) {
      this.#complete = [];
      this.#prefix = "";
    }
    const rest = blocks(text.slice(this.#prefix.length));
    // The last one, and what it begins with, may still change.
    const done = rest.slice(0, -1);
    if (done.length) {
      this.#complete = [...this.#complete, ...done];
      const length = done.reduce((sum, each) => sum + each.length + 1, 0);
      this.#prefix = text.slice(0, this.#prefix.length + length);
    }
    return [...this.#complete, ...rest.slice(-1)];
  }
}

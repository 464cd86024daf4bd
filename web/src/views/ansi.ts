// A command's output: ANSI colours become spans, every other escape is dropped.

export interface Span {
  text: string;
  /** CSS classes, as `red bold`. */
  style: string;
}

const COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// CSI … final byte; OSC … BEL or ST; other escapes of two characters.
const ESCAPE =
  /\u001b(?:\[([0-9;:?<=>]*)[ -/]*([@-~])|\](?:[^\u0007\u001b]*)(?:\u0007|\u001b\\)?|[PX^_][^\u001b]*(?:\u001b\\)?|[ -/]*[0-~])/g;

/** Cut an output into spans. A line that was written over by CR shows what it ended as. */
export function spans(text: string): Span[] {
  const found: Span[] = [];
  let state = { bold: false, dim: false, italic: false, underline: false, color: "" };
  let last = 0;
  const push = (piece: string): void => {
    const seen = overwritten(piece);
    if (seen) found.push({ text: seen, style: classes(state) });
  };
  for (const match of text.matchAll(ESCAPE)) {
    push(text.slice(last, match.index));
    last = match.index + match[0].length;
    if (match[2] === "m") state = styled(state, match[1] ?? "");
  }
  push(text.slice(last));
  return found;
}

function overwritten(text: string): string {
  if (!text.includes("\r")) return text;
  return text.replaceAll("\r\n", "\n").replace(/[^\n\r]*\r(?=[^\n])/g, "").replaceAll("\r", "");
}

type State = { bold: boolean; dim: boolean; italic: boolean; underline: boolean; color: string };

function styled(before: State, codes: string): State {
  let state = { ...before };
  const numbers = codes.split(/[;:]/).map((each) => Number(each || 0));
  for (let i = 0; i < numbers.length; i++) {
    const code = numbers[i]!;
    if (code === 0) state = { bold: false, dim: false, italic: false, underline: false, color: "" };
    else if (code === 1) state.bold = true;
    else if (code === 2) state.dim = true;
    else if (code === 3) state.italic = true;
    else if (code === 4) state.underline = true;
    else if (code === 22) state.bold = state.dim = false;
    else if (code === 23) state.italic = false;
    else if (code === 24) state.underline = false;
    else if (code >= 30 && code <= 37) state.color = COLORS[code - 30]!;
    else if (code >= 90 && code <= 97) state.color = COLORS[code - 90]!;
    else if (code === 39) state.color = "";
    else if (code === 38 || code === 48) {
      if (numbers[i + 1] === 5) {
        const index = numbers[i + 2] ?? -1;
        if (code === 38) state.color = COLORS[index % 8] && index < 16 ? COLORS[index % 8]! : "";
        i += 2;
      } else if (numbers[i + 1] === 2) i += 4;
    }
  }
  return state;
}

function classes(state: State): string {
  const found: string[] = [];
  if (state.color) found.push(`ansi-${state.color}`);
  for (const name of ["bold", "dim", "italic", "underline"] as const) {
    if (state[name]) found.push(`ansi-${name}`);
  }
  return found.join(" ");
}

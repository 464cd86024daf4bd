// Times, paths and sizes in words.

export function ago(ms: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  if (seconds < 45) return "just now";
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min ago`;
  const hours = Math.round(minutes / 60);
  if (hours < 24) return `${hours} h ago`;
  const days = Math.round(hours / 24);
  if (days < 7) return days === 1 ? "yesterday" : `${days} days ago`;
  return new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

/** How long something has lasted: `12 s`, `3 min 5 s`, `2 h 4 min`. */
export function lasted(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 ? `${minutes} min ${seconds % 60} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** A path's last two parts. The whole is in the title beside it. */
export function shortPath(path: string): string {
  const parts = path.split("/").filter(Boolean);
  return parts.length > 2 ? `…/${parts.slice(-2).join("/")}` : path;
}

/** A file's path as seen from the thread's directory. */
export function within(path: string, directory: string): string {
  const base = directory.endsWith("/") ? directory : `${directory}/`;
  return directory && path.startsWith(base) ? path.slice(base.length) : path;
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString()} ${number === 1 ? one : many}`;
}

export function tokens(number: number): string {
  if (number < 1000) return String(number);
  if (number < 1_000_000) return `${(number / 1000).toFixed(number < 10_000 ? 1 : 0)} k`;
  return `${(number / 1_000_000).toFixed(1)} M`;
}

/** A file's size: `840 B`, `5.1 KB`, `2.4 GB`. */
export function bytes(number: number): string {
  let size = number;
  for (const unit of ["B", "KB", "MB"]) {
    if (size < 1000) return `${size < 10 && unit !== "B" ? size.toFixed(1) : Math.round(size)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} GB`;
}

const HIDDEN: Record<string, string> = {
  "\u200e": "LRM", "\u200f": "RLM", "\u061c": "ALM", "\u200b": "ZWSP", "\u200c": "ZWNJ",
  "\u200d": "ZWJ", "\u2060": "WJ", "\ufeff": "BOM", "\u00ad": "SHY", "\u2028": "LS", "\u2029": "PS",
  "\u202a": "LRE", "\u202b": "RLE", "\u202c": "PDF", "\u202d": "LRO", "\u202e": "RLO",
  "\u2066": "LRI", "\u2067": "RLI", "\u2068": "FSI", "\u2069": "PDI", "\u115f": "HF",
  "\u1160": "HF", "\u3164": "HF", "\u180e": "MVS",
};

/** A text in pieces: what can be read as it stands, and marks for what couldn't be seen. */
export type Piece = { text: string } | { mark: string };

const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\u3164\ufeff\u{e0000}-\u{e007f}]/gu;

/** Show control characters and bidi controls as such, so that nothing reads as something else. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let last = 0;
  for (const match of text.matchAll(UNSEEN)) {
    if (match.index > last) found.push({ text: text.slice(last, match.index) });
    found.push({ mark: nameOf(match[0]) });
    last = match.index + match[0].length;
  }
  if (last < text.length) found.push({ text: text.slice(last) });
  return found;
}

function nameOf(character: string): string {
  const code = character.codePointAt(0)!;
  if (code === 0x1b) return "ESC";
  if (code === 0x0d) return "CR";
  return HIDDEN[character] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}

/** A text without what can't be seen, for places that hold plain text only (titles). */
export function plain(text: string): string {
  return text.replace(UNSEEN, "\ufffd");
}

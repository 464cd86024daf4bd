// The model's text. It is a stranger's: it is read into tokens, and each token becomes an element
// that stands here. No HTML is made of it or parsed, so there is nothing to sanitise; nothing is
// loaded from elsewhere, and links open without an opener. It is cut into blocks, so that a long
// text that streams is drawn again at its end only.

import { Lexer, type MarkedToken, type Token } from "marked";
import { h } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ComponentChildren, JSX } from "preact";
import { GrowingText, type Part, upTo } from "./blocks.ts";
import { open } from "../route.ts";
import { filesIn, looking, named } from "../threads/files.ts";
import { plainEntities } from "./entities.ts";
import { pieces } from "./format.ts";
import { memo } from "./parts.tsx";

/** A block longer than this is shown as plain text: nobody reads it, and it would block the page. */
const BLOCK_MOST = 50_000;

/** Characters of a long text that are drawn at once, and how many more each frame draws. */
const AT_ONCE = 3_000;
const STEP = 1_500;

const SAFE_LINK = /^(?:https?:|mailto:)/i;

const LANGUAGE = /^[\w+#.-]{1,20}$/;

function drawn(tokens: Token[] | undefined): ComponentChildren {
  return tokens?.map(one);
}

function one(token: Token): ComponentChildren {
  const said = token as MarkedToken;
  switch (said.type) {
    case "heading":
      // The page has the first two levels for itself.
      return h(`h${Math.min(6, said.depth + 2)}`, { dir: "auto" }, drawn(said.tokens));
    case "paragraph":
      return <p dir="auto">{drawn(said.tokens)}</p>;
    case "text":
      return "tokens" in said && said.tokens ? drawn(said.tokens) : visible(plainEntities(said.text));
    case "strong":
      return <strong>{drawn(said.tokens)}</strong>;
    case "em":
      return <em>{drawn(said.tokens)}</em>;
    case "del":
      return <del>{drawn(said.tokens)}</del>;
    case "codespan":
      return <InCode text={said.text} />;
    case "br":
      return <br />;
    case "link":
      return <Away href={said.href}>{drawn(said.tokens)}</Away>;
    case "image":
      return <Away href={said.href}>{"picture: "}{visible(plainEntities(said.text || said.href))}</Away>;
    case "code": {
      const name = LANGUAGE.test(said.lang ?? "") ? ` in ${said.lang}` : "";
      return (
        <pre tabIndex={0} role="region" aria-label={`Code${name}`}>
          <code>{visible(said.text)}</code>
        </pre>
      );
    }
    case "list":
      return h(
        said.ordered ? "ol" : "ul",
        said.ordered && said.start !== 1 ? { start: said.start } : null,
        said.items.map((each) => <li class={each.task ? "task" : undefined}>{drawn(each.tokens)}</li>),
      );
    case "checkbox":
      return (
        <>
          <input type="checkbox" disabled checked={said.checked} aria-label={said.checked ? "done" : "to do"} />{" "}
        </>
      );
    case "blockquote":
      return <blockquote>{drawn(said.tokens)}</blockquote>;
    case "table":
      return (
        <div class="table" tabIndex={0} role="region" aria-label="Table">
          <table>
            <thead>
              <tr>{said.header.map((each) => <th align={each.align ?? undefined}>{drawn(each.tokens)}</th>)}</tr>
            </thead>
            <tbody>
              {said.rows.map((row) => (
                <tr>{row.map((each) => <td align={each.align ?? undefined}>{drawn(each.tokens)}</td>)}</tr>
              ))}
            </tbody>
          </table>
        </div>
      );
    case "hr":
      return <hr />;
    case "space":
    case "def":
      return null;
    default:
      // HTML, and what else there may be: as it was written.
      return visible((said as Token).raw);
  }
}

/** Bidi controls and what can't be seen are written out; joiners stay, as emoji are made of them. */
function visible(text: string): string {
  return pieces(text)
    .map((each) => {
      if ("text" in each) return each.text;
      if (each.mark === "ZWJ") return "\u200d";
      if (each.mark === "ZWNJ") return "\u200c";
      return each.mark === "CR" ? "" : `‹${each.mark}›`;
    })
    .join("");
}

/** Something in the text that names one of the thread's files leads to it. */
function ToFile(props: { names: string; children: ComponentChildren }): JSX.Element {
  const threadId = open.value;
  const file = threadId === null ? undefined : named(filesIn(threadId), props.names);
  if (!file) return <>{props.children}</>;
  const path = file.path;
  return (
    <button type="button" class="to-file" title={path} onClick={() => (looking.value = { threadId: threadId!, path })}>
      {props.children}
    </button>
  );
}

function InCode({ text }: { text: string }): JSX.Element {
  return <ToFile names={text}><code>{visible(text)}</code></ToFile>;
}

/** A link to elsewhere, or to a file; its text alone where it leads to anything else. */
function Away({ href, children }: { href: string; children: ComponentChildren }): JSX.Element {
  if (!SAFE_LINK.test(href)) return <ToFile names={href}>{children}</ToFile>;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  );
}

const Block = memo(function Block({ text }: { text: string }): JSX.Element {
  if (text.length > BLOCK_MOST) return <pre class="plain">{visible(text)}</pre>;
  return <>{drawn(new Lexer({ gfm: true }).lex(text))}</>;
});

const PartView = memo(function PartView({ part }: { part: Part }): JSX.Element {
  return (
    <div class={part.whole ? "part whole" : "part"}>
      {part.blocks.map((each, index) => (
        <Block key={index} text={each} />
      ))}
    </div>
  );
});

/**
 * A text. `gradual`: of a long one that comes at once each frame draws some more, so that a tap is heard
 * meanwhile; it is for who is at its end, as what stands below it moves.
 */
export function Markdown({ text, gradual }: { text: string; gradual?: boolean }): JSX.Element {
  const cut = useRef<GrowingText | null>(null);
  cut.current ??= new GrowingText();
  const most = useRef(AT_ONCE);
  const [, draw] = useState(0);
  const parts = cut.current.of(text);
  const more = !!gradual && text.length > most.current;
  if (!more) most.current = Math.max(most.current, text.length + STEP);
  useEffect(() => {
    if (!more) return undefined;
    const frame = requestAnimationFrame(() => {
      most.current += STEP;
      draw((before) => before + 1);
    });
    return () => cancelAnimationFrame(frame);
  });
  return (
    <div class="markdown">
      {(more ? upTo(parts, most.current) : parts).map((each, index) => (
        <PartView key={index} part={each} />
      ))}
    </div>
  );
}

// The model's text. It is a stranger's: no HTML, nothing loaded from elsewhere, links that open
// without an opener. It is cut into blocks, so that a long text that streams renders its end only.

import DOMPurify from "dompurify";
import { Marked } from "marked";
import { useRef } from "preact/hooks";
import type { JSX } from "preact";
import { GrowingBlocks } from "./blocks.ts";
import { pieces } from "./format.ts";
import { memo } from "./parts.tsx";

/** A block longer than this is shown as plain text: nobody reads it, and it would block the page. */
const BLOCK_MOST = 50_000;

const SAFE_LINK = /^(?:https?:|mailto:)/i;

// What the page's policy for documents (CSP) names; the sanitiser makes none of its own.
const policy = globalThis.trustedTypes?.createPolicy("appmux-html", {
  createHTML: (html: string) => html,
  createScriptURL: () => {
    throw new TypeError("the sanitiser makes no script's address");
  },
});

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "input", "li",
    "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: [
    "href", "start", "align", "class", "tabindex", "role", "aria-label", "type", "checked",
    "disabled", "target", "rel", "dir",
  ],
  // Of any attribute: what has a scheme must have one of these.
  ALLOWED_URI_REGEXP: /^(?:(?:https?|mailto):|[^a-z]|[a-z+.\-]+(?:[^a-z+.\-:]|$))/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_TRUSTED_TYPE: policy !== undefined,
  ...(policy && { TRUSTED_TYPES_POLICY: policy as never }),
};

function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}

function link(href: string, inner: string): string {
  if (!SAFE_LINK.test(href)) return inner;
  return `<a href="${escaped(href)}" target="_blank" rel="noopener noreferrer nofollow">${inner}</a>`;
}

const marked = new Marked({
  gfm: true,
  async: false,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => link(href, `picture: ${escaped(text || href)}`),
    link(token) {
      return link(token.href, this.parser.parseInline(token.tokens));
    },
    heading(token) {
      // The page has the first two levels for itself.
      const level = Math.min(6, token.depth + 2);
      return `<h${level} dir="auto">${this.parser.parseInline(token.tokens)}</h${level}>`;
    },
    paragraph(token) {
      return `<p dir="auto">${this.parser.parseInline(token.tokens)}</p>`;
    },
    code: ({ text, lang }) => {
      const name = /^[\w+#.-]{1,20}$/.test(lang ?? "") ? ` in ${lang}` : "";
      return `<pre tabindex="0" role="region" aria-label="Code${name}"><code>${escaped(text)}</code></pre>`;
    },
    checkbox: ({ checked }) =>
      `<input type="checkbox" disabled${checked ? " checked" : ""} aria-label="${checked ? "done" : "to do"}"> `,
  },
  hooks: {
    postprocess: (html) =>
      html
        .replaceAll("<table>", '<div class="table" tabindex="0" role="region" aria-label="Table"><table>')
        .replaceAll("</table>", "</table></div>"),
  },
});

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

/** The sanitised HTML of a markdown text. */
export function html(text: string): string {
  const made = marked.parse(visible(text)) as string;
  return DOMPurify.sanitize(made, ALLOWED) as unknown as string;
}

const Block = memo(function Block({ text }: { text: string }): JSX.Element {
  if (text.length > BLOCK_MOST) return <pre class="plain">{text}</pre>;
  return <div class="block" dangerouslySetInnerHTML={{ __html: html(text) }} />;
});

export function Markdown({ text }: { text: string }): JSX.Element {
  const cut = useRef(new GrowingBlocks());
  return (
    <div class="markdown">
      {cut.current.of(text).map((each, index) => (
        <Block key={index} text={each} />
      ))}
    </div>
  );
}

// By what a browser asks to be let in: a ticket, in a link, or eight letters that are typed.

export type Invitation = { ticket: string } | { letters: string };

/** Letters as a person types them, in the form in which they are sent. */
export function tidyLetters(typed: string): string {
  return typed.toUpperCase().replace(/[^A-Z0-9]/g, "");
}

/** The ticket or the letters in what a person pasted or scanned: a link, or the code itself. */
export function readInvitation(text: string): Invitation | null {
  const link = /[#?&](?:pair|ticket)=([\w-]+)/.exec(text);
  if (link) return { ticket: link[1]! };
  const letters = tidyLetters(text);
  return letters.length === 8 && text.trim().length < 16 ? { letters } : null;
}

// Pictures as input: read, bounded, and as data that goes with the message. A large photograph is
// scaled down here, unless one says otherwise. What isn't such a picture, or is too large, is a file,
// which is uploaded.

import { PICTURE_BYTES } from "./sending.ts";

/** What an app-server takes as a picture. */
const TYPES = /^image\/(?:png|jpeg|gif|webp)$/;

/** What is scaled: a GIF may move, and would stand still. */
const SCALED = /^image\/(?:png|jpeg|webp)$/;

/** The longer side of a photograph that is sent: a model looks at no more than that. */
const SIDE = 2048;

/** A picture of fewer bytes goes as it is: scaling would save nothing that one notices. */
const SMALL_BYTES = 700 * 1024;

const QUALITY = 0.85;

export interface Read {
  pictures: string[];
  /** What has to be uploaded. */
  files: File[];
}

export const isPicture = (type: string): boolean => TYPES.test(type);

/** The photographs that were scaled down, by what became of them, for as long as the page is open. */
const originals = new Map<string, File>();

/** The photograph itself of a picture that was scaled down here. */
export function originalOf(picture: string): File | undefined {
  return originals.get(picture);
}

export async function readPictures(
  files: Iterable<File>,
  already: string[],
  whole = false,
): Promise<Read> {
  const read: Read = { pictures: [], files: [] };
  let size = already.reduce((sum, each) => sum + bytesOf(each), 0);
  // A list of an input's is emptied with it, while the first picture is being read.
  for (const file of [...files]) {
    const smaller = whole ? null : await scaled(file);
    const taken = smaller ?? file;
    if (!isPicture(taken.type) || size + taken.size > PICTURE_BYTES) {
      read.files.push(file);
      continue;
    }
    size += taken.size;
    const picture = await dataUrl(taken);
    if (smaller) originals.set(picture, file);
    read.pictures.push(picture);
  }
  return read;
}

/** A large photograph made smaller; null if it isn't one, or wouldn't get smaller. */
async function scaled(file: File): Promise<Blob | null> {
  if (!SCALED.test(file.type) || file.size <= SMALL_BYTES) return null;
  try {
    const picture = await createImageBitmap(file);
    const share = Math.min(1, SIDE / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(picture.width * share);
    canvas.height = Math.round(picture.height * share);
    const context = canvas.getContext("2d")!;
    // What can be seen through becomes white, as a JPEG has nothing else for it.
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    picture.close();
    const made = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    return made && made.size < file.size ? made : null;
  } catch {
    // No picture, whatever its name says: it goes as it is.
    return null;
  }
}

/** The bytes of what a data URL holds. */
export function bytesOf(url: string): number {
  return Math.floor(((url.length - url.indexOf(",") - 1) * 3) / 4);
}

function dataUrl(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// Pictures as input: read, bounded, and as data that goes with the message.

import { PICTURE_BYTES } from "./sending.ts";

/** What an app-server takes as a picture. */
const TYPES = /^image\/(?:png|jpeg|gif|webp)$/;

export interface Read {
  pictures: string[];
  refused: string[];
}

export async function readPictures(files: Iterable<File>, already: string[]): Promise<Read> {
  const read: Read = { pictures: [], refused: [] };
  let size = already.reduce((sum, each) => sum + bytesOf(each), 0);
  // A list of an input's is emptied with it, while the first picture is being read.
  for (const file of [...files]) {
    if (!TYPES.test(file.type)) {
      read.refused.push(
        file.type.startsWith("image/")
          ? `${file.name}: pictures are PNG, JPEG, GIF or WebP.`
          : `${file.name}: only pictures can be sent yet, other files can’t.`,
      );
    } else if (size + file.size > PICTURE_BYTES) {
      read.refused.push(`${file.name}: more than 8 MiB of pictures in one message.`);
    } else {
      size += file.size;
      read.pictures.push(await dataUrl(file));
    }
  }
  return read;
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

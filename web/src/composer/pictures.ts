// Pictures as input: read, bounded, and as data that goes with the message. What isn't such a
// picture, or is too large, is a file, which is uploaded.

import { PICTURE_BYTES } from "./sending.ts";

/** What an app-server takes as a picture. */
const TYPES = /^image\/(?:png|jpeg|gif|webp)$/;

export interface Read {
  pictures: string[];
  /** What has to be uploaded. */
  files: File[];
}

export async function readPictures(files: Iterable<File>, already: string[]): Promise<Read> {
  const read: Read = { pictures: [], files: [] };
  let size = already.reduce((sum, each) => sum + bytesOf(each), 0);
  // A list of an input's is emptied with it, while the first picture is being read.
  for (const file of [...files]) {
    if (!TYPES.test(file.type) || size + file.size > PICTURE_BYTES) {
      read.files.push(file);
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

// Uploads a file by tus-js-client: node upload.js ENDPOINT FILE THREAD TOKEN PAUSE_AT [CHUNK]
// At PAUSE_AT bytes it gives up, as a page that is closed does; a second run goes on from there.
const fs = require("node:fs");
const path = require("node:path");
const tus = require("tus-js-client");

const [endpoint, file, thread, token, pauseAt, chunk] = process.argv.slice(2);
const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint,
  chunkSize: Number(chunk ?? 64 * 1024),
  uploadSize: fs.statSync(file).size,
  headers: token ? { authorization: `Bearer ${token}` } : {},
  metadata: { filename: path.basename(file), filetype: "application/octet-stream", thread },
  urlStorage: new tus.FileUrlStorage(`${file}.urls`),
  fingerprint: () => Promise.resolve("one-file"),
  onError: (error) => {
    console.error(String(error));
    process.exit(1);
  },
  onChunkComplete: (_size, accepted) => {
    if (accepted >= Number(pauseAt)) {
      console.log(`paused at ${accepted}`);
      process.exit(3);
    }
  },
  onSuccess: () => console.log(`done ${upload.url}`),
});
upload.findPreviousUploads().then((previous) => {
  if (previous.length > 0) {
    console.log("resumes");
    upload.resumeFromPreviousUpload(previous[0]);
  }
  upload.start();
});

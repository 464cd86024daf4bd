// Builds the page into mux/web/static: hashed assets, the shell that names them, the worker that
// keeps them. `--tests` builds the unit tests instead, `--sizes` says how large the page is.

import { build } from "esbuild";
import { createHash } from "node:crypto";
import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { icon } from "./icons.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const BUILT = process.env.APPMUX_PAGE_OUT ?? join(HERE, "..", "mux", "web", "static");
// Built beside it and put in its place when it is whole: a broker may be serving it meanwhile.
const OUT = `${BUILT}.new`;
const ICONS = [180, 192, 512];
const BROWSERS = ["chrome111", "safari16.4", "firefox115"];

/**
 * What the first screen needs becomes one file: each view that is loaded later is told to need all of it,
 * which it does, as it runs in it. Else what two of them share would be a file of its own each time, and
 * each file takes a phone a connection or a round trip.
 */
const oneShell = {
  name: "one-shell",
  setup(build) {
    const main = join(HERE, "src", "main.tsx");
    const later = new Set();
    build.onResolve({ filter: /^\.\.?\// }, (each) => {
      if (each.kind === "dynamic-import") later.add(join(each.resolveDir, each.path));
      return undefined;
    });
    build.onLoad({ filter: /\.tsx?$/ }, async ({ path }) => {
      if (!later.has(path)) return undefined;
      const contents = `import ${JSON.stringify(main)};\n${await readFile(path, "utf8")}`;
      return { contents, loader: path.endsWith("x") ? "tsx" : "ts" };
    });
  },
};

if (process.argv.includes("--tests")) await tests();
else {
  await page();
  if (process.argv.includes("--sizes")) await sizes();
  await rm(BUILT, { recursive: true, force: true });
  await rename(OUT, BUILT);
}

async function version() {
  const source = await readFile(join(HERE, "..", "mux", "__init__.py"), "utf8");
  return /__version__\s*(?::[^=]+)?=\s*"([^"]+)"/.exec(source)?.[1] ?? "0";
}

async function page() {
  await rm(OUT, { recursive: true, force: true });
  await mkdir(OUT, { recursive: true });
  const define = { __VERSION__: JSON.stringify(await version()) };
  const result = await build({
    absWorkingDir: HERE,
    entryPoints: ["src/main.tsx", "src/style.css"],
    outdir: join(OUT, "assets"),
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    bundle: true,
    splitting: true,
    format: "esm",
    minify: true,
    target: BROWSERS,
    jsx: "automatic",
    jsxImportSource: "preact",
    legalComments: "none",
    metafile: true,
    plugins: [oneShell],
    define,
  });
  const named = (entry) =>
    "/" + relative(OUT, join(HERE, Object.entries(result.metafile.outputs)
      .find(([, each]) => each.entryPoint === entry)[0]));
  const script = await oneScript(result.metafile);
  const style = named("src/style.css");
  await cp(join(HERE, "public"), OUT, { recursive: true });
  for (const size of ICONS) await writeFile(join(OUT, `icon-${size}.png`), icon(size));
  for (const name of ["index.html", "reset.html"]) {
    const shell = await readFile(join(HERE, "public", name), "utf8");
    await writeFile(join(OUT, name), shell.replaceAll("%SCRIPT%", script).replace("%STYLE%", style));
  }
  const files = (await listed(OUT)).map((each) => "/" + each);
  const kept = files.filter((each) => !["/index.html", "/reset.html", "/reset.js"].includes(each));
  const digest = createHash("sha256");
  for (const each of files.sort()) digest.update(each).update(await readFile(join(OUT, each)));
  await build({
    absWorkingDir: HERE,
    entryPoints: ["src/worker.ts"],
    outfile: join(OUT, "worker.js"),
    bundle: true,
    format: "iife",
    minify: true,
    target: BROWSERS,
    legalComments: "none",
    define: {
      ...define,
      __FILES__: JSON.stringify(["/", ...kept]),
      __BUILD__: JSON.stringify(digest.digest("hex").slice(0, 12)),
    },
  });
}

/** The file with all that the first screen needs; what only names it goes. */
async function oneScript(metafile) {
  const [name, main] = Object.entries(metafile.outputs).find(([, each]) => each.entryPoint === "src/main.tsx");
  const needed = main.imports.filter((each) => each.kind === "import-statement");
  if (needed.length !== 1) throw new Error(`the first screen is in ${needed.length + 1} files`);
  await rm(join(HERE, name));
  return "/" + relative(OUT, join(HERE, needed[0].path));
}

async function tests() {
  const out = join(HERE, ".tests");
  await rm(out, { recursive: true, force: true });
  const entries = (await readdir(join(HERE, "tests"))).filter((each) => each.endsWith(".test.ts"));
  await build({
    absWorkingDir: HERE,
    entryPoints: entries.map((each) => join("tests", each)),
    outdir: out,
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    define: { __VERSION__: '"0"' },
  });
}

async function listed(folder, under = "") {
  const found = [];
  for (const each of await readdir(join(folder, under), { withFileTypes: true })) {
    const path = join(under, each.name);
    if (each.isDirectory()) found.push(...(await listed(folder, path)));
    else found.push(path);
  }
  return found;
}

/** Prints the compressed sizes: of what the first screen loads, and of everything. */
async function sizes() {
  const shell = await readFile(join(OUT, "index.html"), "utf8");
  const first = new Set([...shell.matchAll(/"(\/assets\/[^"]+)"/g)].map((each) => each[1].slice(1)));
  const sum = { script: 0, first: 0, all: gzipSync(shell).length };
  for (const each of await listed(OUT)) {
    const size = gzipSync(await readFile(join(OUT, each))).length;
    if (each.endsWith(".js") && each !== "reset.js") sum.script += size;
    if (first.has(each) && each.endsWith(".js")) sum.first += size;
    if (first.has(each)) sum.all += size;
    if (/\.(js|css)$/.test(each)) console.log(String(size).padStart(7), each);
  }
  console.log(JSON.stringify({ firstScript: sum.first, firstLoad: sum.all, allScript: sum.script }));
}

// Draws the icon as PNG, for the platforms that take no SVG: the strokes of public/icon.svg as
// distances, so that no picture has to be kept in the repository.

import { deflateSync } from "node:zlib";

const GROUND = [0x1d, 0x1f, 0x24];
const BLUE = [0x7f, 0xb2, 0xff];
const WHITE = [0xf4, 0xf5, 0xf7];
const WIDTH = 20;
const SUPERSAMPLED = 3;

const upper = curve([136, 160], [232, 160], [224, 256], [280, 256]);
const lower = upper.map(([x, y]) => [x, 512 - y]);
const LAYERS = [
  { color: BLUE, covers: (x, y) => near(upper, x, y) < WIDTH },
  { color: BLUE, covers: (x, y) => near(lower, x, y) < WIDTH },
  { color: WHITE, covers: (x, y) => near([[136, 256], [376, 256]], x, y) < WIDTH },
  { color: WHITE, covers: (x, y) => Math.hypot(x - 376, y - 256) < 34 },
  { color: GROUND, covers: (x, y) => Math.hypot(x - 376, y - 256) < 13 },
];

/** The icon as a PNG of `size` by `size` pixels. */
export function icon(size) {
  const rows = [];
  for (let row = 0; row < size; row++) {
    const line = Buffer.alloc(1 + 3 * size);
    for (let column = 0; column < size; column++) line.set(pixel(column, row, size), 1 + 3 * column);
    rows.push(line);
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(size, 0);
  head.writeUInt32BE(size, 4);
  head.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]),
    chunk("IHDR", head),
    chunk("IDAT", deflateSync(Buffer.concat(rows), { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function pixel(column, row, size) {
  const sum = [0, 0, 0];
  for (let i = 0; i < SUPERSAMPLED ** 2; i++) {
    const x = ((column + ((i % SUPERSAMPLED) + 0.5) / SUPERSAMPLED) * 512) / size;
    const y = ((row + (Math.floor(i / SUPERSAMPLED) + 0.5) / SUPERSAMPLED) * 512) / size;
    const top = LAYERS.findLast((each) => each.covers(x, y));
    (top?.color ?? GROUND).forEach((value, channel) => (sum[channel] += value));
  }
  return sum.map((value) => Math.round(value / SUPERSAMPLED ** 2));
}

function curve(a, b, c, d) {
  const points = [];
  for (let step = 0; step <= 24; step++) {
    const t = step / 24;
    const u = 1 - t;
    points.push([0, 1].map((i) =>
      u ** 3 * a[i] + 3 * u * u * t * b[i] + 3 * u * t * t * c[i] + t ** 3 * d[i]));
  }
  return points;
}

function near(points, x, y) {
  let least = Infinity;
  for (let i = 1; i < points.length; i++) {
    const [ax, ay] = points[i - 1];
    const [bx, by] = points[i];
    const [dx, dy] = [bx - ax, by - ay];
    const along = ((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy);
    const t = Math.max(0, Math.min(1, along));
    least = Math.min(least, Math.hypot(x - ax - t * dx, y - ay - t * dy));
  }
  return least;
}

function chunk(name, data) {
  const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
  const whole = Buffer.alloc(8 + body.length);
  whole.writeUInt32BE(data.length, 0);
  body.copy(whole, 4);
  whole.writeUInt32BE(crc(body), 4 + body.length);
  return whole;
}

function crc(bytes) {
  let value = ~0;
  for (const byte of bytes) {
    value ^= byte;
    for (let bit = 0; bit < 8; bit++) value = (value >>> 1) ^ (0xedb88320 & -(value & 1));
  }
  return ~value >>> 0;
}

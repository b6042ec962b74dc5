/** Zip archives as far as this page needs them: listed and read, and written without compression. */

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
/** Of the comment and the record at the end of an archive. */
const LONGEST_END = 65_557;
const MOST_ENTRIES = 20_000;
const AUDIO = /\.(wav|flac|mp3|ogg|oga|opus|m4a|mp4|webm|weba|aac|aiff?|aifc|au|caf|amr|3gp|wma|mka)$/i;

const view = async (blob) => new DataView(await blob.arrayBuffer());

/** Whether a file begins as a zip does. */
export async function isZip(file) {
  return file.size > 4 && (await view(file.slice(0, 4))).getUint32(0, true) === LOCAL;
}

/** The recordings in a zip, each read when it is first asked for; none if it cannot be read. */
export async function unzip(file) {
  try {
    const tail = await view(file.slice(-LONGEST_END));
    let at = tail.byteLength - 22;
    while (at >= 0 && tail.getUint32(at, true) !== END) at -= 1;
    const size = tail.getUint32(at + 12, true);
    const start = tail.getUint32(at + 16, true);
    const list = await view(file.slice(start, start + size));
    const found = [];
    for (let i = 0; i + 46 <= size && found.length < MOST_ENTRIES && list.getUint32(i, true) === ENTRY;) {
      const [nameSize, extraSize, noteSize] = [28, 30, 32].map((o) => list.getUint16(i + o, true));
      const name = new TextDecoder().decode(new Uint8Array(list.buffer, i + 46, nameSize));
      const entry = {
        name, method: list.getUint16(i + 10, true), packed: list.getUint32(i + 20, true),
        at: list.getUint32(i + 42, true),
      };
      if (AUDIO.test(name)) found.push({ name, read: () => member(file, entry) });
      i += 46 + nameSize + extraSize + noteSize;
    }
    return found;
  } catch {
    return [];
  }
}

async function member(file, { name, method, packed, at }) {
  const head = await view(file.slice(at, at + 30));
  const start = at + 30 + head.getUint16(26, true) + head.getUint16(28, true);
  let body = file.slice(start, start + packed);
  if (method === 8) {
    body = await new Response(body.stream().pipeThrough(new DecompressionStream("deflate-raw"))).blob();
  }
  return new File([body], name.split("/").pop());
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c;
});

const crc32 = (bytes) =>
  (bytes.reduce((c, byte) => TABLE[(c ^ byte) & 255] ^ (c >>> 8), 0xffffffff) ^ 0xffffffff) >>> 0;

/** Write a zip of `[name, Blob]` pairs. */
export async function zip(entries) {
  const parts = [];
  const list = [];
  let offset = 0;
  for (const [name, blob] of entries) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const title = new TextEncoder().encode(name);
    const head = new DataView(new ArrayBuffer(46));
    // 20: version; 0x800: names in UTF-8; 0: stored
    const common = (at) => {
      [[0, 20], [2, 0x800], [4, 0], [22, title.length]].forEach(([o, v]) => head.setUint16(at + o, v, true));
      [[10, crc32(bytes)], [14, bytes.length], [18, bytes.length]]
        .forEach(([o, v]) => head.setUint32(at + o, v, true));
    };
    head.setUint32(0, LOCAL, true);
    common(4);
    parts.push(head.buffer.slice(0, 30), title, bytes);
    head.setUint32(0, ENTRY, true);
    head.setUint16(4, 20, true);
    common(6);
    head.setUint32(42, offset, true);
    list.push(head.buffer, title);
    offset += 30 + title.length + bytes.length;
  }
  const size = list.reduce((sum, part) => sum + part.byteLength, 0);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, END, true);
  [8, 10].forEach((o) => end.setUint16(o, entries.length, true));
  end.setUint32(12, size, true);
  end.setUint32(16, offset, true);
  return new Blob([...parts, ...list, end], { type: "application/zip" });
}

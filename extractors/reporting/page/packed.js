// The packed data: base64 of gzip of JSON, each block unpacked when it is first needed.

const byId = (id) => document.getElementById(id);
const thousands = (n) => n.toLocaleString('en-US');

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

async function unpacked(id) {
  const holder = byId(id);
  const plain = new Blob([bytesOf(holder.textContent)]).stream().pipeThrough(new DecompressionStream('gzip'));
  const value = JSON.parse(await new Response(plain).text());
  holder.remove();
  return value;
}

// Gives the browser a turn, so that typing and scrolling go on during long work.
function pause() {
  if (globalThis.scheduler?.yield) return scheduler.yield();
  return new Promise((go) => setTimeout(go, 0));
}

// All records by position. Pieces are unpacked once, and what a search looks at is made with them.
class Records {
  constructor(sizes) {
    this.starts = [];
    this.count = 0;
    for (const size of sizes) {
      this.starts.push(this.count);
      this.count += size;
    }
    this.loading = sizes.map(() => null);
    this.loaded = 0;
    this.held = new Array(this.count);
    this.hay = new Array(this.count);
  }

  piece(number) {
    this.loading[number] ??= this.unpack(number);
    return this.loading[number];
  }

  async unpack(number) {
    const records = await unpacked(`piece-${number}`);
    records.forEach((record, place) => {
      this.held[this.starts[number] + place] = record;
      this.hay[this.starts[number] + place] = haystack(record);
    });
    this.loaded += 1;
  }

  async at(position) {
    let number = this.starts.length - 1;
    while (this.starts[number] > position) number -= 1;
    await this.piece(number);
    return this.held[position];
  }

  // Every piece, one after the other, with a turn for the browser between them.
  async all(wanted, tell) {
    for (let number = 0; number < this.starts.length; number++) {
      if (!wanted()) return;
      if (!this.held[this.starts[number]]) {
        await this.piece(number);
        tell?.(this.loaded, this.starts.length);
        await pause();
      }
    }
  }
}

function haystack(record) {
  const parts = [record.id];
  for (const [, piece] of record.text ?? []) parts.push(piece);
  const gather = (value) => {
    if (typeof value === 'string') parts.push(value);
    else if (Array.isArray(value)) value[0] === 'l' ? value[1].forEach(gather) : value[0] === 'o' ? value[1].forEach((pair) => gather(pair[1])) : parts.push(value[1]);
  };
  record.values?.forEach(gather);
  record.kept?.forEach(gather);
  if (record.message) parts.push(record.message);
  for (const problem of record.problems ?? []) parts.push(problem[0], problem[2]);
  for (const reply of record.replies ?? []) parts.push(reply[3] ?? '');
  return parts.join('\n').toLowerCase();
}

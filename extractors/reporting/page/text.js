// A source text with its evidence marked. Offsets are code points; JavaScript counts UTF-16 units.

// A DOM element. Texts become text nodes, whatever is in them.
function node(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === true) made.setAttribute(key, '');
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    made.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
  return made;
}

// Control characters as their signs: they would not be seen, and some would be dropped.
function visible(text) {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, (one) => one === '\u007f' ? '\u2421' : String.fromCharCode(0x2400 + one.charCodeAt(0)));
}

// What others wrote, isolated: its direction does not reach beyond it.
const foreign = (text, attributes) => node('bdi', { class: 'data', ...attributes }, text);

// Code-point offsets (sorted, from `start`) into `text` as UTF-16 offsets.
function unitsOf(text, start, points) {
  const units = [];
  let unit = 0;
  let point = start;
  for (const wanted of points) {
    while (point < wanted && unit < text.length) {
      unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
      point += 1;
    }
    units.push(unit);
  }
  return units;
}

// `pieces` are [start, text], `spans` {start, end, quote, number, hue, label}. A span whose text is not its quote is
// not marked, and `span.lost` says so.
function markedText(pieces, length, spans) {
  const body = node('pre', { class: 'source data', tabindex: 0, 'aria-label': 'Source text', dir: 'auto' });
  let shown = 0;
  for (const [start, piece] of pieces) {
    if (start > shown) body.append(node('span', { class: 'gap' }, ` … ${thousands(start - shown)} characters left out … `));
    const points = [...piece].length;
    const mine = spans.filter((span) => span.start >= start && span.end <= start + points);
    const edges = [...new Set(mine.flatMap((span) => [span.start, span.end]))].sort((a, b) => a - b);
    const units = new Map(unitsOf(piece, start, edges).map((unit, place) => [edges[place], unit]));
    const good = mine.filter((span) => {
      span.lost = piece.slice(units.get(span.start), units.get(span.end)) !== span.quote;
      return !span.lost;
    });
    let from = 0;
    for (let place = 0; place < edges.length; place++) {
      const to = units.get(edges[place]);
      if (to > from) body.append(stretch(piece.slice(from, to), good.filter((span) => units.get(span.start) <= from && units.get(span.end) >= to)));
      from = to;
    }
    if (from < piece.length) body.append(stretch(piece.slice(from), []));
    shown = start + points;
  }
  if (shown < length) body.append(node('span', { class: 'gap' }, ` … ${thousands(length - shown)} more characters`));
  return body;
}

function stretch(text, spans) {
  if (!spans.length) return document.createTextNode(visible(text));
  // Of values that stand inside each other the shortest gives its colour.
  spans.sort((a, b) => a.end - a.start - (b.end - b.start));
  return node('mark', { class: `h${spans[0].hue}`, 'data-spans': ` ${spans.map((span) => span.number).join(' ')} `, title: visible(spans.map((span) => span.label).join(', ')) }, text);
}

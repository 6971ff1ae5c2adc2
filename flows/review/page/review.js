"use strict";
// Everything from the data enters the page as text, never as markup.

const $ = (id) => document.getElementById(id);
const state = { queue: null, queues: new Map(), entries: [], shown: [], at: -1, record: null, busy: false };

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

let toastTimer = 0;
function toast(words, seconds = 4) {
  $("toast").textContent = words;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $("toast").textContent = ""; }, seconds * 1000);
}

async function ask(path, query = {}) {
  const reply = await fetch(`api/${path}?${new URLSearchParams(query)}`);
  return read(reply);
}

async function act(name, more = {}) {
  const { kind, record_id, occurrence, sequence } = state.record;
  const body = JSON.stringify({ queue: state.queue, kind, record_id, occurrence, sequence, ...more });
  const reply = await fetch(`api/${name}`, {
    method: "POST", body, headers: { "Content-Type": "application/json", "X-Quarry-Review": "1" },
  });
  return read(reply);
}

async function read(reply) {
  const told = reply.headers.get("Content-Type")?.startsWith("application/json") ? await reply.json() : { error: await reply.text() };
  if (!reply.ok) throw Object.assign(new Error(told.error || `${reply.status}`), { problems: told.problems || [] });
  return told;
}

// The list ---------------------------------------------------------------------------------------

const PAGE = 300;

async function load(keep = 0) {
  state.entries = (await ask("queue", { queue: state.queue })).entries;
  filter(keep);
}

function filter(at = 0) {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  state.shown = state.entries.filter((one) => {
    const text = `${one.record_id} ${one.kind} ${one.reason} ${one.message}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const failures = state.entries.filter((one) => one.kind === "failure").length;
  $("counts").textContent = `${count(failures, "failure")}, ${count(state.entries.length - failures, "row")} waiting` +
    (words.length ? `; ${state.shown.length} match` : "");
  draw();
  choose(Math.min(at, state.shown.length - 1));
}

function draw(most = PAGE) {
  const items = state.shown.slice(0, most).map((one, place) => {
    const button = make("button", { type: "button", tabindex: "-1" },
      make("span", { class: `tag ${one.kind}` }, one.reason), make("div", { class: "id" }, one.record_id), make("div", { class: "why" }, one.message));
    button.addEventListener("click", () => choose(place));
    return button;
  });
  if (state.shown.length > most) {
    const more = make("button", { type: "button" }, `${state.shown.length - most} more …`);
    more.addEventListener("click", () => { draw(most + PAGE); mark(); });
    items.push(more);
  }
  $("list").replaceChildren(...items);
}

function mark() {
  [...$("list").children].forEach((button, place) => {
    if (place === state.at) { button.setAttribute("aria-current", "true"); button.scrollIntoView({ block: "nearest" }); }
    else button.removeAttribute("aria-current");
  });
}

async function choose(at) {
  state.at = at;
  if (at >= $("list").children.length - 1 && state.shown.length > at + 1) draw(at + PAGE);
  mark();
  const entry = state.shown[at];
  $("shown").hidden = !entry;
  $("nothing").hidden = Boolean(entry);
  if (!entry) { state.record = null; return; }
  try {
    const { kind, record_id, occurrence } = entry;
    const record = await ask("record", { queue: state.queue, kind, record_id, occurrence });
    if (state.shown[state.at] === entry) show(entry, record);
  } catch (error) { toast(error.message, 10); }
}

// One record -------------------------------------------------------------------------------------

function show(entry, record) {
  state.record = record;
  $("title").textContent = record.record_id + (record.occurrence ? ` (${record.occurrence + 1})` : "");
  $("message").textContent = record.kind === "failure" ? `${record.reason}: ${record.message}` : entry.message;
  $("message").className = record.kind === "failure" ? "" : "quiet";
  highlight(record);
  fields(entry, record);
  $("form-error").textContent = "";
  for (const [id, on] of [["confirm", record.kind === "row"], ["retry", record.kind === "failure"], ["model-label", record.kind === "failure"],
    ["ignore", record.kind === "failure"], ["promote", record.kind === "row"]]) $(id).hidden = !on;
  calls(record);
  table($("kept"), "Source columns", Object.entries(record.kept));
  table($("decisions"), count(record.decisions.length, "decision"), record.decisions.map((one) => [`${one.action} by ${one.who}, ${one.decided_at}`, one.note]));
  $("record").scrollTop = 0;
}

// Offsets count code points; a JavaScript string counts UTF-16 units.
function highlight(record) {
  const place = $("source");
  if (record.text === null) { place.replaceChildren(make("em", {}, record.text_missing)); return; }
  const points = Array.from(record.text);
  const spans = record.evidence.filter((one) => one.start !== null && one.end > one.start).sort((a, b) => a.start - b.start || a.end - b.end);
  const parts = [];
  let done = 0;
  for (const one of spans) {
    if (one.start < done) continue;
    parts.push(points.slice(done, one.start).join(""));
    parts.push(make("mark", { class: one.match === "fuzzy" ? "fuzzy" : "", title: `${one.path} (${one.match})`, "data-path": one.path }, points.slice(one.start, one.end).join("")));
    done = one.end;
  }
  parts.push(points.slice(done).join(""));
  place.replaceChildren(...parts);
}

function kindOf(schema) {
  const branches = (schema.anyOf || schema.oneOf || []).filter((one) => one.type !== "null");
  const inner = branches.length === 1 ? { ...schema, ...branches[0] } : schema;
  const nullable = (schema.anyOf || schema.oneOf || []).some((one) => one.type === "null") || (Array.isArray(schema.type) && schema.type.includes("null"));
  const type = Array.isArray(inner.type) ? inner.type.find((one) => one !== "null") : inner.type;
  if (inner.enum) return { kind: "choice", choices: inner.enum.filter((one) => one !== null), nullable: nullable || inner.enum.includes(null) };
  if (type === "boolean") return { kind: "choice", choices: [true, false], nullable };
  if (type === "integer" || type === "number") return { kind: "number", nullable };
  if (type === "string" && branches.length < 2) return { kind: "text", nullable };
  return { kind: "json", nullable };
}

function fields(entry, record) {
  const schema = state.queues.get(state.queue).schema;
  const required = new Set(schema.required || []);
  const doubtful = new Set((entry.doubtful || []).map((path) => path.split("/")[0]));
  const unsure = new Map();
  for (const [path, sure] of Object.entries(entry.unsure || {})) {
    const name = path.split("/")[0];
    unsure.set(name, Math.min(sure, unsure.has(name) ? unsure.get(name) : 1));
  }
  const problems = record.problems.map((one) => ({ path: one.path, message: one.message }));
  const nodes = Object.entries(schema.properties || {}).map(([name, about]) => {
    const { kind, choices, nullable } = kindOf(about);
    const value = record.value[name] === undefined ? null : record.value[name];
    let input;
    if (kind === "choice") {
      input = make("select", {}, make("option", { value: "" }, "— null —"), ...choices.map((one) => make("option", { value: JSON.stringify(one) }, String(one))));
      input.value = value === null ? "" : JSON.stringify(value);
    } else if (kind === "json") {
      input = make("textarea", { rows: String(Math.min(14, value === null ? 1 : JSON.stringify(value, null, 1).split("\n").length)), spellcheck: "false" });
      input.value = value === null ? "" : JSON.stringify(value, null, 1);
    } else {
      const long = kind === "text" && typeof value === "string" && (value.length > 60 || value.includes("\n"));
      input = make(long ? "textarea" : "input", long ? { rows: String(Math.min(8, 1 + Math.ceil(value.length / 60))) } : { type: "text", inputmode: kind === "number" ? "decimal" : null });
      input.value = value === null ? "" : String(value);
    }
    input.id = `field-${name}`;
    Object.assign(input.dataset, { name, kind, before: input.value, null: value === null ? "yes" : "" });
    input.addEventListener("focus", () => markPath(name));
    const note = required.has(name) ? "required" : nullable ? "empty is null" : "";
    return make("div", { class: `field${doubtful.has(name) || unsure.has(name) ? " doubtful" : ""}`, "data-field": name },
      make("label", { for: input.id }, name, make("span", {}, note)), input,
      about.description ? make("p", { class: "hint" }, about.description) : null,
      doubtful.has(name) ? make("p", { class: "hint" }, "nothing in the source supports this value") : null,
      unsure.has(name) ? make("p", { class: "hint" }, `confidence ${Number(unsure.get(name).toPrecision(3))}: less than the run's --review-below`) : null);
  });
  $("fields").replaceChildren(...nodes);
  showProblems(problems);
}

function showProblems(problems) {
  document.querySelectorAll(".field .problem").forEach((node) => node.remove());
  const rest = [];
  for (const one of problems) {
    const name = one.path.split("/")[0];
    const field = document.querySelector(`.field[data-field="${CSS.escape(name)}"]`);
    const words = one.path.includes("/") ? `${one.path}: ${one.message}` : one.message;
    if (field) field.append(make("p", { class: "problem" }, words)); else rest.push(one.path ? `${one.path}: ${one.message}` : one.message);
  }
  $("form-error").textContent = rest.join("; ");
}

function markPath(name) {
  let first = true;
  document.querySelectorAll("#source mark").forEach((node) => {
    const mine = node.dataset.path === name || node.dataset.path.startsWith(`${name}/`);
    node.classList.toggle("now", mine);
    if (mine && first) { node.scrollIntoView({ block: "nearest" }); first = false; }
  });
}

function values() {
  const found = {};
  const problems = [];
  for (const input of document.querySelectorAll("#fields [data-name]")) {
    const { name, kind, before } = input.dataset;
    const text = input.value;
    // What was not touched stays exactly what it was: an empty string does not become null.
    if (text === before) { found[name] = state.record.value[name] ?? null; continue; }
    if (text.trim() === "") { found[name] = null; continue; }
    if (kind === "text") { found[name] = text; continue; }
    if (kind === "number") { found[name] = /^-?\d+$/.test(text.trim()) && text.trim().length < 16 ? Number(text) : text.trim(); continue; }
    try { found[name] = JSON.parse(text); } catch (error) { problems.push({ path: name, message: `not JSON: ${error.message}` }); }
  }
  return { found, problems };
}

function calls(record) {
  const [summary, place] = $("calls").children;
  summary.textContent = count(record.calls.length, "call");
  const parts = record.calls.map((one) => make("div", { class: "call" },
    make("p", {}, `${one.purpose}, attempt ${one.attempt}, try ${one.try_number}: ${one.model}, ${one.status}${one.finish_reason ? `, ${one.finish_reason}` : ""}, ` +
      `${one.latency.toFixed(2)} s, ${one.input_tokens} + ${one.output_tokens} tokens${one.cost === null ? "" : `, ${Number(one.cost)}`}${one.error ? `: ${one.error}` : ""}`),
    one.raw === null ? null : make("pre", {}, one.raw)));
  for (const one of record.problems) parts.push(make("div", { class: "call" }, make("p", {}, `${one.path || "the answer"}: ${one.message}${one.value === null ? "" : ` (given ${one.value})`}`)));
  place.replaceChildren(...parts);
  $("calls").hidden = parts.length === 0;
}

function table(node, title, pairs) {
  node.hidden = pairs.length === 0;
  node.firstElementChild.textContent = title;
  node.lastElementChild.replaceChildren(...pairs.map(([name, value]) => make("p", {}, make("strong", {}, name), ` ${value === null ? "null" : typeof value === "object" ? JSON.stringify(value) : value}`)));
}

// Deciding ---------------------------------------------------------------------------------------

async function decide(name, more, words) {
  if (!state.record || state.busy) return;
  state.busy = true;
  document.body.setAttribute("aria-busy", "true");
  const id = state.record.record_id;
  try {
    const told = await act(name, more);
    toast(`${id}: ${typeof words === "function" ? words(told) : words}`);
    document.activeElement?.blur();
    if (name !== "promote") await load(state.at);
  } catch (error) {
    if (error.problems?.length) showProblems(error.problems);
    toast(error.message, 10);
  } finally {
    state.busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

function accept() {
  const { found, problems } = values();
  if (problems.length) { showProblems(problems); return; }
  decide("accept", { value: found }, "accepted; the row says that a person made it");
}

function retry() {
  if (state.record?.kind !== "failure") return;
  toast(`${state.record.record_id}: asking …`, 600);
  decide("retry", { model: $("model").value.trim() }, (told) => told.rows ? "it became a row" : `failed again: ${Object.keys(told.reasons).join(", ") || "not done"}`);
}

function ignore() {
  if (state.record?.kind !== "failure") return;
  $("reason-text").value = "";
  $("reason").returnValue = "";
  $("reason").showModal();
  $("reason-text").focus();
}

$("reason").addEventListener("close", () => {
  if ($("reason").returnValue === "ok") decide("ignore", { note: $("reason-text").value }, "ignored");
});
$("form").addEventListener("submit", (event) => { event.preventDefault(); accept(); });
$("confirm").addEventListener("click", () => decide("confirm", {}, "confirmed"));
$("retry").addEventListener("click", retry);
$("ignore").addEventListener("click", ignore);
$("promote").addEventListener("click", () => decide("promote", {}, (told) => `added to ${told.golden}`));
$("help-button").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
$("filter").addEventListener("input", () => filter());
$("queues").addEventListener("change", () => { state.queue = $("queues").value; load(); });

const KEYS = {
  j: () => choose(Math.min(state.at + 1, state.shown.length - 1)), k: () => choose(Math.max(state.at - 1, 0)),
  e: () => document.querySelector("#fields .doubtful [data-name], #fields [data-name]")?.focus(),
  c: () => state.record?.kind === "row" && decide("confirm", {}, "confirmed"),
  r: retry, i: ignore, m: () => $("model").focus(), s: () => { $("calls").open = !$("calls").open; },
  g: () => state.record?.kind === "row" && decide("promote", {}, (told) => `added to ${told.golden}`),
  "/": () => $("filter").focus(), "?": () => $("help").showModal(),
};
KEYS.ArrowDown = KEYS.j;
KEYS.ArrowUp = KEYS.k;

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); if (state.record) accept(); return; }
  const typing = event.target.matches("input, textarea, select");
  if (event.key === "Escape" && typing) { event.target.blur(); return; }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key.startsWith("Arrow") && !$("list").contains(event.target) && event.target !== document.body) return;
  const key = KEYS[event.key];
  if (key) { event.preventDefault(); key(); }
});

(async () => {
  const told = await ask("start");
  for (const one of told.queues) {
    state.queues.set(one.key, one);
    $("queues").append(make("option", { value: one.key }, `${one.name} (${one.recipe})`));
  }
  $("models").append(...told.models.map((one) => make("option", { value: one })));
  $("golden").textContent = told.golden;
  state.queue = told.queues[0].key;
  await load();
})().catch((error) => toast(error.message, 60));

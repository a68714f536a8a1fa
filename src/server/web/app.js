// app.js - the page: conversations, turns, attachments, settings. State is one conversation (chat) and what is attached; everything on screen is drawn from it.

import { answer, models } from "./api.js";
import { markdown } from "./markdown.js";
import { Recorder } from "./record.js";
import { chats, forget, keep, settings } from "./store.js";

const $ = id => document.getElementById(id);
const element = (name, props = {}, ...children) => { const e = Object.assign(document.createElement(name), props); e.append(...children); return e; };
const numbers = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens"];
const texts = ["system", "tools", "key", "enable_thinking", "model"];

let chat, attached = [], running = null, recorder = null;
const fresh = () => ({ id: String(Date.now()) + Math.random().toString(36).slice(2), title: "", turns: [], changed: Date.now() });

// ---- drawing ----

function mediaNode(m) {
  if (m.kind === "image") return element("img", { src: m.url, alt: m.name || "picture" });
  const e = element(m.kind === "audio" ? "audio" : "video", { controls: true, src: m.url });
  e.setAttribute("aria-label", m.name || m.kind);
  return e;
}

function callNode(c) {
  let shown = c.arguments;
  try { shown = JSON.stringify(JSON.parse(c.arguments), null, 2); } catch { /* still being written */ }
  return element("div", { className: "call" }, element("div", {}, `Call of ${c.name}`), element("code", { textContent: shown }));
}

function figuresText(turn) {
  const u = turn.usage, t = turn.timings;
  if (!u) return "";
  const cached = u.prompt_tokens_details?.cached_tokens;
  return `${u.prompt_tokens} tokens in${cached ? ` (${cached} cached)` : ""}, ${u.completion_tokens} out` +
    (t ? ` · ${t.predicted_per_second.toFixed(0)} tokens/s · first after ${Math.round(t.first_token_ms)} ms` : "") + (turn.finish === "length" ? " · cut at the limit" : "");
}

function toolButton(text, title, run) {
  const b = element("button", { type: "button", className: "plain", textContent: text, title });
  b.addEventListener("click", run);
  return b;
}

function drawTurn(turn, index) {
  const node = element("article", { className: "turn " + turn.role });
  node.setAttribute("aria-label", turn.role === "user" ? "You" : "Answer");
  if (turn.media?.length) node.append(element("div", { className: "media" }, ...turn.media.map(mediaNode)));
  if (turn.reasoning) {
    const fold = element("details", { className: "thinking", open: Boolean(turn.live && !turn.text) }, element("summary", { textContent: turn.live && !turn.text ? "Thinking…" : "Thinking" }));
    fold.append(element("div", { textContent: turn.reasoning }));
    node.append(fold);
  }
  const body = element("div", { className: "body" + (turn.live ? " waiting" : "") });
  if (turn.role === "user") body.textContent = turn.text;
  else body.append(...markdown(turn.text));
  if (turn.text || turn.live) node.append(body);
  for (const c of turn.calls ?? []) node.append(callNode(c));
  if (!turn.live) {
    const tools = element("div", { className: "tools" });
    tools.append(toolButton("Copy", "Copy the text", () => navigator.clipboard?.writeText(turn.text)));
    if (turn.role === "assistant") tools.append(toolButton("Again", "Answer again", () => again(index)), element("span", { className: "dim small", textContent: figuresText(turn) }));
    else tools.append(toolButton("Edit", "Change and ask again", () => edit(index)));
    node.append(tools);
  }
  return node;
}

function draw() {
  $("log").replaceChildren(...chat.turns.map(drawTurn));
  scroll(true);
}

let queued = false;
function redrawLast() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    const index = chat.turns.length - 1;
    if (index < 0) return;
    const near = nearEnd();
    $("log").children[index]?.replaceWith(drawTurn(chat.turns[index], index));
    if (near) scroll(false);
  });
}

const nearEnd = () => $("log").scrollHeight - $("log").scrollTop - $("log").clientHeight < 80;
const scroll = () => { $("log").scrollTop = $("log").scrollHeight; };

async function drawChats() {
  const all = await chats();
  $("chats").replaceChildren(...all.map(c => {
    const item = element("li");
    item.setAttribute("aria-current", String(c.id === chat.id));
    const open = element("button", { type: "button", textContent: c.title || "Untitled" });
    open.addEventListener("click", () => { show(c); $("side").classList.remove("open"); });
    const remove = element("button", { type: "button", className: "remove", textContent: "✕", title: "Delete" });
    remove.setAttribute("aria-label", `Delete ${c.title || "conversation"}`);
    remove.addEventListener("click", async () => { await forget(c.id); if (c.id === chat.id) show(fresh()); else drawChats(); });
    item.append(open, remove);
    return item;
  }));
}

function show(which) {
  running?.abort();
  chat = which;
  draw();
  drawChats();
  $("error").textContent = "";
}

function drawAttached() {
  $("attachments").replaceChildren(...attached.map((m, i) => {
    const item = element("li", {}, m.kind === "image" ? element("img", { src: m.url, alt: m.name }) : element("span", { textContent: (m.kind === "audio" ? "♪ " : "▶ ") + m.name }));
    const remove = toolButton("✕", "Remove", () => { attached.splice(i, 1); drawAttached(); });
    remove.setAttribute("aria-label", "Remove " + m.name);
    item.append(remove);
    return item;
  }));
}

// ---- attachments ----

const readUrl = file => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

async function attach(files) {
  for (const file of files) {
    const kind = file.type.split("/")[0];
    if (!["image", "audio", "video"].includes(kind)) { $("error").textContent = `${file.name} is no picture, sound or video.`; continue; }
    attached.push({ kind, name: file.name || kind, url: await readUrl(file) });
  }
  drawAttached();
  $("input").focus();
}

// ---- asking ----

function partOf(m) {
  if (m.kind === "image") return { type: "image_url", image_url: { url: m.url } };
  if (m.kind === "audio") return { type: "input_audio", input_audio: { data: m.url } };
  return { type: "video_url", video_url: { url: m.url } };
}

function messageOf(turn) {
  if (turn.role === "assistant") {
    const calls = (turn.calls ?? []).map(c => ({ id: c.id, type: "function", function: { name: c.name, arguments: c.arguments } }));
    return { role: "assistant", content: turn.text, ...(calls.length ? { tool_calls: calls } : {}) };
  }
  if (turn.role === "tool") return { role: "tool", tool_call_id: turn.call, content: turn.text };
  if (!turn.media?.length) return { role: "user", content: turn.text };
  return { role: "user", content: [...turn.media.map(partOf), ...(turn.text ? [{ type: "text", text: turn.text }] : [])] };
}

function bodyOf() {
  const body = { messages: chat.turns.filter(t => !t.live).map(messageOf) };
  if ($("model").value) body.model = $("model").value;
  for (const name of numbers) if ($(name).value !== "") body[name] = Number($(name).value);
  if ($("enable_thinking").value) body.enable_thinking = $("enable_thinking").value === "true";
  if ($("system").value.trim()) body.messages.unshift({ role: "system", content: $("system").value });
  if ($("tools").value.trim()) body.tools = JSON.parse($("tools").value);
  return body;
}

function take(turn, delta) {
  if (delta.reasoning) turn.reasoning = (turn.reasoning ?? "") + delta.reasoning;
  if (delta.content) turn.text += delta.content;
  for (const c of delta.tool_calls ?? []) {
    turn.calls ??= [];
    const one = turn.calls[c.index] ??= { id: "", name: "", arguments: "" };
    if (c.id) one.id = c.id;
    if (c.function?.name) one.name = c.function.name;
    one.arguments += c.function?.arguments ?? "";
  }
}

async function ask() {
  let body;
  $("error").textContent = $("panel-error").textContent = "";
  try { body = bodyOf(); } catch (e) { $("panel").hidden = false; $("panel-error").textContent = "Tools are no JSON: " + e.message; return; }
  const mine = chat, turn = { role: "assistant", text: "", live: true };
  mine.turns.push(turn);
  draw();
  running = new AbortController();
  busy(true);
  try {
    await answer(body, {
      signal: running.signal,
      delta: d => { take(turn, d); if (chat === mine) redrawLast(); },
      finish: reason => { turn.finish = reason; },
      figures: (usage, timings) => { turn.usage = usage; turn.timings = timings; },
    });
  } catch (e) {
    if (e.name !== "AbortError") $("error").textContent = e.message;
    if (e.status === 401) { $("panel").hidden = false; $("key").focus(); }
  }
  turn.live = false;
  if (!turn.text && !turn.reasoning && !turn.calls) mine.turns.pop();
  running = null;
  busy(false);
  await keep(mine);
  if (chat === mine) draw();
  drawChats();
}

function busy(on) {
  $("send").hidden = on;
  $("stop").hidden = !on;
  $("status").textContent = on ? "answering…" : "";
}

async function send() {
  const text = $("input").value.trim();
  if (running || (!text && !attached.length)) return;
  chat.turns.push({ role: "user", text, media: attached });
  chat.title ||= text.slice(0, 60) || attached[0].name;
  attached = [];
  $("input").value = "";
  drawAttached();
  grow();
  await keep(chat);
  await ask();
}

function again(index) {
  if (running) return;
  chat.turns.length = index;
  ask();
}

function edit(index) {
  if (running) return;
  const turn = chat.turns[index];
  chat.turns.length = index;
  attached = turn.media ?? [];
  $("input").value = turn.text;
  draw();
  drawAttached();
  grow();
  $("input").focus();
}

// ---- the page ----

function grow() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = Math.min(input.scrollHeight, window.innerHeight * 0.4) + "px";
}

async function loadModels() {
  try {
    const list = await models();
    $("model").replaceChildren(...list.map(m => element("option", { value: m.id, textContent: m.id })));
    if (list.some(m => m.id === settings.get("model"))) $("model").value = settings.get("model");
    $("status").textContent = "";
  } catch (e) {
    $("status").textContent = e.message;
    if (e.status === 401) $("panel").hidden = false;
  }
}

function theme(which) {
  if (which) document.documentElement.dataset.theme = which;
  settings.set("theme", which);
}

for (const name of [...numbers, ...texts]) {
  if (name !== "model") $(name).value = settings.get(name);
  $(name).addEventListener("change", () => { settings.set(name, $(name).value); if (name === "key") loadModels(); });
}
$("form").addEventListener("submit", e => { e.preventDefault(); send(); });
$("stop").addEventListener("click", () => running?.abort());
$("new").addEventListener("click", () => { show(fresh()); $("side").classList.remove("open"); $("input").focus(); });
$("side-open").addEventListener("click", () => $("side").classList.add("open"));
$("side-close").addEventListener("click", () => $("side").classList.remove("open"));
$("panel-open").addEventListener("click", () => { $("panel").hidden = !$("panel").hidden; $("panel-open").setAttribute("aria-expanded", String(!$("panel").hidden)); });
$("theme").addEventListener("click", () => theme(getComputedStyle(document.documentElement).getPropertyValue("color-scheme").trim() === "dark" ||
  (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches) ? "light" : "dark"));
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { attach($("file").files); $("file").value = ""; });
$("record").addEventListener("click", async () => {
  try {
    if (recorder) {
      const r = recorder;
      recorder = null;
      $("record").setAttribute("aria-pressed", "false");
      attach([await r.stop()]);
    } else {
      const r = new Recorder();
      await r.start();
      recorder = r;
      $("record").setAttribute("aria-pressed", "true");
    }
  } catch (e) { $("error").textContent = "No sound can be recorded: " + e.message; }
});
$("input").addEventListener("input", grow);
$("input").addEventListener("keydown", e => { if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); send(); } });
document.addEventListener("keydown", e => {
  if (e.key === "Escape") { if (running) running.abort(); else $("side").classList.remove("open"); }
  if (e.ctrlKey && e.shiftKey && e.key.toLowerCase() === "o") { e.preventDefault(); $("new").click(); }
});
document.addEventListener("paste", e => { if (e.clipboardData.files.length) { e.preventDefault(); attach(e.clipboardData.files); } });
let depth = 0;
document.addEventListener("dragenter", e => { e.preventDefault(); depth++; $("drop").hidden = false; });
document.addEventListener("dragover", e => e.preventDefault());
document.addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; $("drop").hidden = true; } });
document.addEventListener("drop", e => { e.preventDefault(); depth = 0; $("drop").hidden = true; attach(e.dataTransfer.files); });

theme(settings.get("theme"));
show(fresh());
loadModels();

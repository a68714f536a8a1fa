// api.js - the server as seen from the page: models, and an answer as a stream of pieces.

import { settings } from "./store.js";

function headers() {
  const key = settings.get("key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: "Bearer " + key } : {}) };
}

async function refused(response) {
  const text = await response.text();
  let message = text;
  try { message = JSON.parse(text).error.message; } catch { /* no JSON */ }
  const error = new Error(message || `The server answers ${response.status}.`);
  error.status = response.status;
  return error;
}

export async function models() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) throw await refused(response);
  return (await response.json()).data;
}

// Calls on(delta) for each piece, on.usage for the figures at the end. signal stops it.
export async function answer(body, { signal, delta, finish, figures }) {
  const response = await fetch("/v1/chat/completions", {
    method: "POST", headers: headers(), signal, body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
  });
  if (!response.ok) throw await refused(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Error(event.error.message);
      for (const choice of event.choices) {
        delta(choice.delta);
        if (choice.finish_reason) finish(choice.finish_reason);
      }
      if (event.usage) figures(event.usage, event.timings);
    }
  }
}

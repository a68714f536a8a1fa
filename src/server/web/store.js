// store.js - conversations in this browser (IndexedDB, as pictures are large), settings in localStorage. Without either (private windows) they last as long as the page.

const memory = new Map();
let open;

function database() {
  open ??= new Promise(resolve => {
    try {
      const request = indexedDB.open("vlm", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("chats", { keyPath: "id" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch { resolve(null); }
  });
  return open;
}

function run(mode, work) {
  return database().then(db => db && new Promise((resolve, reject) => {
    const request = work(db.transaction("chats", mode).objectStore("chats"));
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  }));
}

export async function chats() {
  const all = await run("readonly", s => s.getAll()).catch(() => null) ?? [...memory.values()];
  return all.sort((a, b) => b.changed - a.changed);
}

export async function keep(chat) {
  chat.changed = Date.now();
  memory.set(chat.id, chat);
  await run("readwrite", s => s.put(structuredClone(chat))).catch(() => null);
}

export async function forget(id) {
  memory.delete(id);
  await run("readwrite", s => s.delete(id)).catch(() => null);
}

export const settings = {
  get(name) { try { return localStorage.getItem("vlm." + name) ?? ""; } catch { return memory.get("setting " + name) ?? ""; } },
  set(name, value) { try { localStorage.setItem("vlm." + name, value); } catch { memory.set("setting " + name, value); } },
};

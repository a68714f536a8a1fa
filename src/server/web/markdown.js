// markdown.js - an answer's Markdown as DOM nodes. Text becomes text nodes, never HTML: what a model writes cannot run. Known: headings, lists, quotes, tables, fenced and
// inline code, emphasis, links (http, https, mailto), rules.

const element = (name, ...children) => { const e = document.createElement(name); e.append(...children); return e; };

const inlines = [
  [/`([^`\n]+)`/, m => element("code", m[1])],
  [/\*\*([^\n]+?)\*\*/, m => element("strong", ...inline(m[1]))],
  [/(?<!\w)\*([^*\s][^*\n]*?)\*(?!\w)/, m => element("em", ...inline(m[1]))],
  [/~~([^\n]+?)~~/, m => element("s", ...inline(m[1]))],
  [/\[([^\]\n]+)\]\(((?:https?:\/\/|mailto:)[^\s)]+)\)/, m => link(m[2], m[1])],
  [/https?:\/\/[^\s<>")\]]+/, m => link(m[0], m[0])],
];

function link(href, text) {
  const a = element("a", text);
  a.href = href;
  a.rel = "noopener noreferrer";
  a.target = "_blank";
  return a;
}

function inline(text) {
  let first = null;
  for (const [pattern, make] of inlines) {
    const m = pattern.exec(text);
    if (m && (!first || m.index < first.m.index)) first = { m, make };
  }
  if (!first) return [text];
  const { m, make } = first;
  return [text.slice(0, m.index), make(m), ...inline(text.slice(m.index + m[0].length))].filter(x => x !== "");
}

function code(lines, language) {
  const text = lines.join("\n"), pre = element("pre", element("code", text)), button = element("button", "Copy");
  button.type = "button";
  button.addEventListener("click", () => navigator.clipboard?.writeText(text).then(() => { button.textContent = "Copied"; setTimeout(() => { button.textContent = "Copy"; }, 1500); }));
  if (language) pre.dataset.language = language;
  pre.append(button);
  return pre;
}

const cells = line => line.trim().replace(/^\||\|$/g, "").split("|").map(c => c.trim());

function table(lines) {
  const row = (line, tag) => element("tr", ...cells(line).map(c => element(tag, ...inline(c))));
  return element("table", element("thead", row(lines[0], "th")), element("tbody", ...lines.slice(2).map(l => row(l, "td"))));
}

function list(lines) {
  const ordered = /^\s*\d+[.)]/.test(lines[0]), out = element(ordered ? "ol" : "ul"), indent = /^\s*/.exec(lines[0])[0].length;
  if (ordered) out.start = parseInt(lines[0], 10) || 1;
  let i = 0;
  while (i < lines.length) {
    const inner = [];
    const text = lines[i++].replace(/^\s*(?:[-*+]|\d+[.)])\s+/, "");
    while (i < lines.length && /^\s*/.exec(lines[i])[0].length > indent) inner.push(lines[i++]);
    out.append(element("li", ...inline(text), ...(inner.length ? blocks(inner.map(l => l.slice(Math.min(indent + 2, /^\s*/.exec(l)[0].length)))) : [])));
  }
  return out;
}

const isItem = line => /^\s*(?:[-*+]|\d+[.)])\s+/.test(line);

function blocks(lines) {
  const out = [];
  let i = 0;
  const take = test => { const from = i; while (i < lines.length && test(lines[i])) i++; return lines.slice(from, i); };
  while (i < lines.length) {
    const line = lines[i];
    let m;
    if ((m = /^\s*(```+|~~~+)\s*(\S*)/.exec(line))) {
      i++;
      const inner = take(l => !l.trim().startsWith(m[1]));
      i++;
      out.push(code(inner, m[2]));
    } else if (!line.trim()) i++;
    else if ((m = /^(#{1,6})\s+(.*)/.exec(line))) { i++; out.push(element("h" + Math.min(6, m[1].length + 2), ...inline(m[2]))); }
    else if (/^\s*(?:-{3,}|\*{3,}|_{3,})\s*$/.test(line)) { i++; out.push(element("hr")); }
    else if (/^\s*>/.test(line)) out.push(element("blockquote", ...blocks(take(l => /^\s*>/.test(l)).map(l => l.replace(/^\s*>\s?/, "")))));
    else if (line.includes("|") && /^\s*\|?\s*:?-{2,}/.test(lines[i + 1] || "")) out.push(table(take(l => l.includes("|"))));
    else if (isItem(line)) {
      const from = i++;
      while (i < lines.length && (isItem(lines[i]) || /^\s+\S/.test(lines[i]))) i++;
      out.push(list(lines.slice(from, i)));
    } else {
      const from = i++;
      while (i < lines.length && lines[i].trim() && !isItem(lines[i]) && !/^\s*(?:```|~~~|>|#{1,6}\s)/.test(lines[i])) i++;
      const p = element("p");
      lines.slice(from, i).forEach((l, k) => { if (k) p.append(element("br")); p.append(...inline(l)); });
      out.push(p);
    }
  }
  return out;
}

export function markdown(text) { return blocks(text.split("\n")); }

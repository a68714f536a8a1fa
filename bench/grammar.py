#!/usr/bin/env python3
"""grammar.py VLM MODEL OUT.md [--rounds=N]: constrained decoding beside llguidance and xgrammar, one thread, the same vocabulary, schemas and tokens.

MODEL is a directory with tokenizer.json. Needs `pip install llguidance xgrammar tokenizers numpy`. The three are measured in turn, several rounds; for
each token of each document the best round counts. Every grammar is compiled anew in each round ("first": the cold way along a document, with nothing
cached but what belongs to the vocabulary), then followed once more ("again": what the next request with the same schema sees). Times of the other
two include their Python call, about a microsecond, which "call" shows."""
import json
import pathlib
import random
import statistics
import subprocess
import sys
import time

sys.path.pop(0)  # bench/tokenizers.py is not the package
import llguidance
import llguidance.numpy
import tokenizers
import torch
import xgrammar

VLM, MODEL, OUT = sys.argv[1], sys.argv[2], sys.argv[3]
ROUNDS = int(next((a.split("=")[1] for a in sys.argv if a.startswith("--rounds=")), 3))


def closed(properties, required=None):
    return {"type": "object", "properties": properties, "required": list(properties) if required is None else required, "additionalProperties": False}


def cases():
    s, i, n, b = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
    flat = closed({"name": s, "age": i, "email": s, "active": b})
    line = closed({"sku": s, "quantity": i, "price": n})
    order = closed({"id": s, "customer": closed({"name": s, "address": closed({"street": s, "city": s, "zip": s})}),
                    "lines": {"type": "array", "items": line, "minItems": 1}, "tags": {"type": "array", "items": s}})
    countries = json.loads('["' + '","'.join(a + c + d for a in "ABCDEFGHIJ" for c in ["lb", "rm", "st", "nd", "or"] for d in ["ania", "ia", "land", "stan"]) + '"]')
    enums = closed({"country": {"enum": countries}, "status": {"enum": ["open", "closed", "pending", "in review", "rejected"]}, "level": {"enum": [1, 2, 3, 5, 8, 13]}})
    shapes = {"anyOf": [closed({"kind": {"const": "circle"}, "radius": n}), closed({"kind": {"const": "square"}, "side": n}),
                        closed({"kind": {"const": "path"}, "points": {"type": "array", "items": {"type": "array", "items": n, "minItems": 2, "maxItems": 2}}})]}
    drawing = closed({"title": s, "shapes": {"type": "array", "items": shapes}})
    patterns = closed({"id": {"type": "string", "pattern": "^[a-z]{3,20}-[0-9A-F]{8}$"}, "when": {"type": "string", "format": "date-time"},
                       "mail": {"type": "string", "format": "email"}, "phone": {"type": "string", "pattern": "^\\+?[0-9 ()-]{5,20}$"}})
    bounded = closed({"name": {"type": "string", "minLength": 1, "maxLength": 100}, "note": {"type": "string", "maxLength": 500}})
    tree = {"$defs": {"node": closed({"value": {"type": ["string", "number", "null"]}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}})}, "$ref": "#/$defs/node"}
    user = closed({"login": s, "id": i, "type": {"enum": ["User", "Bot", "Organization"]}, "site_admin": b, "url": {"type": "string", "format": "uri"}}, ["login", "id"])
    label = closed({"id": i, "name": s, "color": {"type": "string", "pattern": "^[0-9a-f]{6}$"}, "description": {"type": ["string", "null"]}}, ["id", "name"])
    issue = closed({"id": i, "node_id": s, "number": i, "title": s, "state": {"enum": ["open", "closed"]}, "locked": b, "body": {"type": ["string", "null"]},
                    "user": {"$ref": "#/$defs/user"}, "labels": {"type": "array", "items": {"$ref": "#/$defs/label"}},
                    "assignee": {"anyOf": [{"$ref": "#/$defs/user"}, {"type": "null"}]}, "assignees": {"type": "array", "items": {"$ref": "#/$defs/user"}},
                    "milestone": {"anyOf": [closed({"title": s, "due_on": {"type": ["string", "null"]}, "open_issues": i}), {"type": "null"}]}, "comments": i,
                    "created_at": {"type": "string", "format": "date-time"}, "closed_at": {"type": ["string", "null"]}, "draft": b,
                    "reactions": closed({k: i for k in ["total_count", "plus", "minus", "laugh", "hooray", "confused", "heart", "rocket", "eyes"]})},
                   ["id", "number", "title", "state", "user", "labels", "comments", "created_at"])
    issue["$defs"] = {"user": user, "label": label}

    def node(depth):
        return {"value": ["leaf \u4e2d\u6587", 3.25, None][depth % 3], "children": [node(depth - 1) for _ in range(2)] if depth else []}
    words = "It began, as these things do, with a small change that nobody had read: one line, two characters, and a long night for everybody. "
    octocat = {"login": "octocat", "id": 583231, "type": "User", "site_admin": False, "url": "https://api.example.com/users/octocat"}
    return [
        ("flat object", flat, {"name": "J\u00f6rg \"the Tiger\" M\u00fcller", "age": 42, "email": "joerg@example.com", "active": True}),
        ("nested, arrays", order, {"id": "A-1077", "customer": {"name": "Ada Lovelace", "address": {"street": "12 St James's Square", "city": "London", "zip": "SW1Y"}},
                                   "lines": [{"sku": "AB-%d" % k, "quantity": k + 1, "price": 9.99 * k} for k in range(5)], "tags": ["urgent", "gift wrap"]}),
        ("enums", enums, {"country": countries[77], "status": "in review", "level": 8}),
        ("anyOf", drawing, {"title": "A house", "shapes": [{"kind": "square", "side": 4}, {"kind": "circle", "radius": 1.5}, {"kind": "path", "points": [[0, 0], [1.5, 2], [-3, 4e2]]}]}),
        ("pattern, format", patterns, {"id": "abcdef-0123ABCD", "when": "2026-03-01T12:30:00Z", "mail": "ada.lovelace@example.org", "phone": "+44 (20) 7946-0"}),
        ("bounded strings", bounded, {"name": "A name of some length", "note": words * 3}),
        ("json_object", {"type": "object"}, {"any": [1, 2.5, {"thing": "goes", "here": [None, True]}], "text": words}),
        ("recursive $ref", tree, node(4)),
        ("issue", issue, {"id": 1, "node_id": "MDU6SXNzdWUx", "number": 1347, "title": "Found a bug", "state": "open", "locked": True, "body": words, "user": octocat,
                          "labels": [{"id": 208045946, "name": "bug", "color": "f29513", "description": "Something is not working"}], "assignee": None, "assignees": [octocat],
                          "milestone": {"title": "v1.0", "due_on": "2012-10-09T23:39:01Z", "open_issues": 4}, "comments": 0, "created_at": "2011-04-22T13:33:48Z", "closed_at": None}),
    ]


class Ours:
    name = "vlm.c"

    def __init__(self):
        self.p = subprocess.Popen([VLM, "grammar", "--jsonl", "-m", MODEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, schema, ids):
        self.p.stdin.write(json.dumps({"schema": schema, "text": "", "ids": ids, "cost": True}) + "\n")
        self.p.stdin.flush()
        r = json.loads(self.p.stdout.readline())
        if "error" in r:
            return r["error"]
        if r["allowed"] != len(ids):
            return "refuses token %d" % r["allowed"]
        return r["compile_us"], r["first_us"][:len(ids)], r["again_us"][:len(ids)]


class Guidance:
    name = "llguidance"

    def __init__(self):
        self.t = llguidance.LLTokenizer(MODEL + "/tokenizer.json")
        self.mask = llguidance.numpy.allocate_token_bitmask(1, self.t.vocab_size)

    def along(self, m, ids):
        times = []
        for i in ids:
            before = time.perf_counter()
            llguidance.numpy.fill_next_token_bitmask(m, self.mask, 0)
            times.append((time.perf_counter() - before) * 1e6)
            if not int(self.mask[0, i // 32]) >> (i % 32) & 1:
                raise ValueError("refuses token %d" % len(times))
            m.consume_token(i)
        return times

    def run(self, schema, ids):
        before = time.perf_counter()
        g = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults={"whitespace_flexible": True})
        m = llguidance.LLMatcher(self.t, g)
        taken = (time.perf_counter() - before) * 1e6
        if m.is_error():
            return m.get_error().splitlines()[0]
        try:
            first = self.along(m, ids)
            return taken, first, self.along(llguidance.LLMatcher(self.t, g), ids)
        except ValueError as e:
            return str(e)


class XGrammar:
    name = "xgrammar"

    def __init__(self):
        t = tokenizers.Tokenizer.from_file(MODEL + "/tokenizer.json")
        n = t.get_vocab_size()
        kind = xgrammar.VocabType.BYTE_FALLBACK if t.token_to_id("<0x0A>") is not None else xgrammar.VocabType.BYTE_LEVEL
        self.compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([t.id_to_token(i) or "" for i in range(n)], vocab_type=kind, vocab_size=n, stop_token_ids=[0]), max_threads=1)
        self.mask = xgrammar.allocate_token_bitmask(1, n)

    def along(self, g, ids):
        m, times = xgrammar.GrammarMatcher(g), []
        for i in ids:
            before = time.perf_counter()
            m.fill_next_token_bitmask(self.mask)
            times.append((time.perf_counter() - before) * 1e6)
            if not m.accept_token(i):
                raise ValueError("refuses token %d" % len(times))
        return times

    def run(self, schema, ids):
        self.compiler.clear_cache()
        before = time.perf_counter()
        try:
            g = self.compiler.compile_json_schema(json.dumps(schema), any_whitespace=True, strict_mode=False)
            taken = (time.perf_counter() - before) * 1e6
            return taken, self.along(g, ids), self.along(g, ids)
        except (ValueError, RuntimeError) as e:
            return str(e).splitlines()[0]


def best(runs):
    return min(r[0] for r in runs), [min(t) for t in zip(*(r[1] for r in runs))], [min(t) for t in zip(*(r[2] for r in runs))]


def show(us):
    return "%.0f ms" % (us / 1e3) if us >= 1e4 else "%.1f ms" % (us / 1e3) if us >= 1e3 else "%.0f" % us if us >= 10 else "%.1f" % us


def main():
    torch.set_num_threads(1)
    encode = tokenizers.Tokenizer.from_file(MODEL + "/tokenizer.json")
    engines = [Ours(), Guidance(), XGrammar()]
    rows, better = [], {e.name: [] for e in engines[1:]}
    for name, schema, document in cases():
        ids = encode.encode(json.dumps(document, ensure_ascii=False), add_special_tokens=False).ids
        runs = {e.name: [] for e in engines}
        # A slow compiler is not made to do it again.
        for r in range(ROUNDS):
            for e in random.sample(engines, len(engines)):
                last = runs[e.name][-1] if runs[e.name] else None
                if isinstance(last, str) or (last and last[0] > 2e6):
                    continue
                runs[e.name].append(e.run(schema, ids))
        ours = None
        for e in engines:
            if isinstance(runs[e.name][-1], str):
                rows.append([name, e.name, len(ids), runs[e.name][-1]] + [""] * 7)
                continue
            compile_us, first, again = best(runs[e.name])
            p99 = [sorted(t)[min(len(t) - 1, int(len(t) * 0.99))] for t in (first, again)]
            total = compile_us + sum(first)
            if e is engines[0]:
                ours = total, statistics.median(again), statistics.mean(again)
            elif ours:
                better[e.name].append((total / ours[0], statistics.median(again) / ours[1], statistics.mean(again) / ours[2]))
            rows.append([name if e is engines[0] else "", e.name, len(ids), show(compile_us), show(first[0]), show(statistics.median(first)), show(p99[0]),
                         show(statistics.median(again)), show(p99[1]), show(total), "%.1f x" % (total / ours[0]) if ours and e is not engines[0] else ""])
    head = ["schema", "engine", "tokens", "compile", "first mask", "median, first", "p99, first", "median, again", "p99, again", "compile + all masks", "of ours"]
    lines = ["| " + " | ".join(str(c) for c in row) + " |" for row in [head, ["---"] * len(head)] + rows]
    for name, ratios in better.items():
        geo = [statistics.geometric_mean(r[k] for r in ratios) for k in range(3)]
        lines.append("\n%s takes %.1f times as long for a new schema (compile and all masks), %.1f (median) and %.1f (mean) times for a mask of a known one (geometric means of %d schemas)."
                     % (name, *geo, len(ratios)))
    text = "Microseconds, `%s`, %d tokens.\n\n" % (pathlib.Path(MODEL).name, encode.get_vocab_size()) + "\n".join(lines) + "\n"
    pathlib.Path(OUT).write_text(text)
    print(text)


main()

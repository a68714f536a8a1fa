#!/usr/bin/env python3
"""Runs files of tool-call cases through `vlm parse --jsonl` and counts what is equal.

    tools/parse_check.py [--vlm PROGRAM] [--splits none|all|pairs] [--templates DIR] FILE...

A file holds {"tools": [...], "cases": [...], "stream": [...]}. A case has "raw" (what the model printed), "expected" (a message with reasoning,
content, tool_calls; or a list of calls) and "format", or "template" (a folder of DIR with template.jinja, from which the format is chosen).
Every case is parsed whole and, with --splits all, cut at each byte and byte by byte; pairs adds every pair of cuts of short texts and
random ones of longer. All must give the same message; events put together must be the result. Cases marked "lossy" are counted apart.
A file with "templates" holds cases of response templates: {"template", "prefix", "text", "message", "events_merged"} or {"error"}."""
import argparse, itertools, json, lzma, os, random, subprocess, sys, tempfile

TOOLS = None


def load(path):
    opener = lzma.open if path.endswith(".xz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        return json.load(f)


def value(arguments):
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def cuts(raw, how):
    n = len(raw.encode())
    yield []
    if how == "none":
        return
    for i in range(1, n):
        yield [i]
    yield list(range(1, n))
    if how == "pairs":
        pairs = list(itertools.combinations(range(1, n), 2))
        if len(pairs) > 600:
            pairs = random.Random(1).sample(pairs, 600)
        yield from (list(p) for p in pairs)


def joined(answer):
    text, calls = {"reasoning": "", "content": ""}, []
    for e in answer["events"]:
        if e["type"] in text:
            text[e["type"]] += e["text"]
        elif e["type"] == "tool_call":
            calls.append([e["id"], e["name"], ""])
        elif e["type"] == "arguments":
            calls[e["index"]][2] += e["text"]
    return text["reasoning"], text["content"], calls


def wanted(case):
    e = case["expected"]
    if isinstance(e, list):
        return "", case.get("content", ""), e
    return e.get("reasoning") or "", e.get("content") or "", e["tool_calls"]


def differs(case, answer, want):
    """None, or what is wrong."""
    if "error" in answer:
        return answer["error"]
    got = [(c["name"], value(c["arguments"])) for c in answer["tool_calls"]]
    if answer["reasoning"] != want[0]:
        return "reasoning %r" % answer["reasoning"]
    if answer["content"] != want[1]:
        return "content %r" % answer["content"]
    if got != [(c["name"], c["arguments"]) for c in want[2]]:
        return "calls %r" % got
    if case.get("ids") and [c["id"] for c in answer["tool_calls"]] != case["ids"]:
        return "ids %r" % [c["id"] for c in answer["tool_calls"]]
    r, c, calls = joined(answer)
    if (r, c) != (answer["reasoning"], answer["content"]) or calls != [[k["id"], k["name"], k["arguments"]] for k in answer["tool_calls"]]:
        return "events do not add up to the result"
    return None


def format_args(case, templates):
    if "format" in case:
        return {"format": case["format"]}
    return {"chat_template": open(os.path.join(templates, case["template"], "template.jinja"), encoding="utf-8").read()}


def run(vlm, lines):
    with tempfile.TemporaryFile() as f:
        for line in lines:
            f.write(json.dumps(line).encode() + b"\n")
        f.seek(0)
        out = subprocess.run([vlm, "parse", "--jsonl"], stdin=f, stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(x) for x in out.splitlines()]


def check_cases(vlm, cases, tools, how, templates):
    jobs, lines = [], []
    for case in cases:
        if "error" in case:
            continue
        given = format_args(case, templates)
        for cut in cuts(case["raw"], how):
            line = {"text": case["raw"], "tools": case.get("tools", tools), "splits": cut, **given}
            for key, name in (("finish", "finish_reason"), ("finish_reason", "finish_reason"), ("prompt_open_think", "prompt_open_think")):
                if key in case:
                    line[name] = case[key]
            jobs.append((case, cut))
            lines.append(line)
    bad, lossy, alternative, parses = {}, {}, set(), 0
    for (case, cut), answer in zip(jobs, run(vlm, lines)):
        parses += 1
        name = case.get("id") or case["template"] + "/" + case["calls"]
        why = differs(case, answer, wanted(case))
        if why and case.get("alt") and not differs(case, answer, wanted({"expected": case["alt"]})):
            alternative.add(name)
            why = None
        if why:
            (lossy if case.get("lossy") else bad).setdefault(name, []).append((cut, why))
    total = len({id(c) for c, _ in jobs})
    print("  %d cases, %d parses: %d cases equal, %d of them as the alternative that the case names, %d lossy ones differ, %d differ" %
          (total, parses, total - len(bad) - len(lossy), len(alternative), len(lossy), len(bad)))
    for kind, table in (("differs", bad), ("lossy", lossy)):
        for name, list_ in table.items():
            print("    %s %s (%d cuts; %s): %s" % (kind, name, len(list_), list_[0][0][:4], list_[0][1][:300]))
    for name in sorted(alternative):
        print("    alternative: %s" % name)
    return not bad


def check_streams(vlm, streams):
    lines = [{"format": s["format"], "chunks": s["chunks"], "prompt_open_think": bool(s.get("prompt_open_think"))} for s in streams]
    wrong = 0
    for s, answer in zip(streams, run(vlm, lines)):
        for kind in ("content", "reasoning"):
            want = s.get("visible_%s_after_each" % kind)
            seen = ["".join(e["text"] for e in answer["events"] if e["type"] == kind and e["piece"] <= i) for i in range(len(s["chunks"]))]
            if want is not None and seen != want:
                wrong += 1
                print("    stream %r: %s %r, expected %r" % (s["chunks"], kind, seen, want))
        if "end" in s and answer["content"] != s["end"]:
            wrong += 1
            print("    stream %r: end %r" % (s["chunks"], answer["content"]))
    print("  %d streams, %d wrong" % (len(streams), wrong))
    return not wrong


def merged(events):
    out = []
    for e in events:
        if e["type"] == "region_chunk" and out and out[-1]["type"] == "region_chunk" and out[-1]["field"] == e["field"]:
            out[-1] = dict(out[-1], text=out[-1]["text"] + e["text"])
        else:
            out.append(e)
    return out


def check_responses(vlm, data, tools):
    """Cases of response templates: the message of the whole text; the merged events of a feed by characters; errors where the reference has one."""
    lines = []
    for c in data["cases"]:
        line = {"text": c["text"], "prefix": c["prefix"], "tools": tools if c.get("tools") else None, "response_template": data["templates"][c["template"]]}
        at, chars = 0, []
        for ch in c["text"][:-1]:
            at += len(ch.encode())
            chars.append(at)
        lines += [line, dict(line, splits=chars), dict(line, splits=list(range(1, len(c["text"].encode()))))]
    answers, wrong, errors = run(vlm, lines), 0, 0
    for i, c in enumerate(data["cases"]):
        whole, chars, by_bytes = answers[3 * i: 3 * i + 3]
        if "error" in c:
            errors += 1
            if "error" not in whole or "error" not in chars:
                wrong += 1
                print("    %s %s: no error" % (c["template"], c["case"]))
            continue
        by_char = c.get("message_char_by_char", c["message"])
        for got, want, how in ((whole.get("message"), c["message"], "whole"), (chars.get("message"), by_char, "by characters"),
                               (by_bytes.get("message"), by_char, "by bytes"), (merged(chars.get("events", [])), c["events_merged"], "events")):
            if got != want:
                wrong += 1
                print("    %s %s, %s: %s\n        expected %s %s" % (c["template"], c["case"], how, json.dumps(got)[:600], json.dumps(want)[:600], whole.get("error", "")))
    print("  %d response template cases (%d of them errors), %d differences" % (len(data["cases"]), errors, wrong))
    return not wrong


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vlm", default="build/release/vlm")
    p.add_argument("--splits", choices=("none", "all", "pairs"), default="all")
    p.add_argument("--templates", default=".")
    p.add_argument("--tools", help="a file whose tools are given with cases of files without any")
    p.add_argument("files", nargs="+")
    o = p.parse_args()
    good, tools = True, load(o.tools)["tools"] if o.tools else None
    for path in o.files:
        data = load(path)
        tools = data.get("tools") or tools
        print(path)
        if isinstance(data.get("templates"), dict):
            good &= check_responses(o.vlm, data, tools)
            continue
        good &= check_cases(o.vlm, data.get("cases", []), tools, o.splits, o.templates)
        if data.get("stream"):
            good &= check_streams(o.vlm, data["stream"])
    return 0 if good else 1


sys.exit(main())

#!/usr/bin/env python3
"""templates.py VLM FOLDER...: every golden of the folders through `vlm template --jsonl`; prints counts, exit 1 when one differs.

A folder holds NAME/template.jinja with NAME/cases.json ({"special": variables, "cases": [{"id", "conv", "tools", "args", "expected" | "expected_same_as"
| "error", "message"}]}) and conversations.json ({"conversations", "tools", "documents"}), and files of small cases, a list (or {"cases": list}) of
{"id", "template", "context", "expected" | "error", "message"}. An error equals any error, but what a template raises must be the same word for word.
The clock stands at 2026-03-05 07:08:09."""
import json
import pathlib
import subprocess
import sys

NOW = "2026-03-05T07:08:09"


def answers(vlm, requests):
    lines = "".join(json.dumps(r) + "\n" for r in requests)
    done = subprocess.run([vlm, "template", "--jsonl"], input=lines, capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"vlm template: {done.stderr}")
    # not splitlines: answers hold U+2028 and the like
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def same(case, got):
    if "error" in case:
        return "error" in got and (case["error"] != "TemplateError" or case.get("message") in (None, got["error"]))
    return got.get("text") == case["expected"]


def folder_cases(folder):
    talks = json.loads((folder / "conversations.json").read_text())
    for path in sorted(folder.glob("*/cases.json")):
        source, suite = (path.parent / "template.jinja").read_bytes().decode(), json.loads(path.read_text())
        expected = {c["id"]: c["expected"] for c in suite["cases"] if "expected" in c}
        for case in suite["cases"]:
            if "expected_same_as" in case:
                case["expected"] = expected[case["expected_same_as"]]
            args = dict(case.get("args", {}))
            if args.get("documents") == "DOCS":
                args["documents"] = talks["documents"]
            request = {**suite["special"], **args, "messages": talks["conversations"][case["conv"]], "chat_template": source, "now": NOW}
            if "tools" in case:
                request["tools"] = talks["tools"][case["tools"]]
            yield f"{path.parent.name}/{case['id']}", request, case


def small_cases(path):
    data = json.loads(path.read_text())
    for case in data["cases"] if isinstance(data, dict) else data:
        context = case.get("context") or {}
        yield case["id"], {"messages": [], **context, "chat_template": case["template"], "now": NOW}, case


def check(vlm, what, cases):
    cases = list(cases)
    bad = [(name, case, got) for (name, request, case), got in zip(cases, answers(vlm, [c[1] for c in cases])) if not same(case, got)]
    for name, case, got in bad[:20]:
        print(f"  {name}: {case.get('template', '')!r}\n    expected {case.get('expected', {k: case.get(k) for k in ('error', 'message')})!r}\n    got      {got!r}")
    print(f"{what}: {len(cases) - len(bad)} of {len(cases)} equal")
    return len(bad)


def main():
    failed = 0
    for folder in map(pathlib.Path, sys.argv[2:]):
        if (folder / "conversations.json").exists():
            failed += check(sys.argv[1], f"{folder}/*/cases.json", folder_cases(folder))
        for path in sorted(folder.glob("jinja_*.json")):
            failed += check(sys.argv[1], path, small_cases(path))
    sys.exit(1 if failed else 0)


main()

#!/usr/bin/env python3
"""template_growth.py VLM FOLDER: what the templates NAME/template.jinja of a folder cost for 200, 400 and 800 messages, in steps of the interpreter; names
those that grow faster than the conversation. (Some published templates look through all messages for each message: theirs is the square.)"""
import json
import pathlib
import subprocess
import sys


def talk(n):
    messages = []
    for i in range(n):
        message = {"role": "assistant" if i % 2 else "user", "content": "The quick brown fox jumps over the lazy dog."}
        if i % 2:
            message["reasoning_content"] = "Hm."
        messages.append(message)
    return messages[: n - 1]


names = sorted(p.parent for p in pathlib.Path(sys.argv[2]).glob("*/template.jinja"))
requests = [{"messages": talk(n), "chat_template": (p / "template.jinja").read_bytes().decode(), "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
            for p in names for n in (200, 400, 800)]
done = subprocess.run([sys.argv[1], "template", "--jsonl", "--steps"], input="".join(json.dumps(r) + "\n" for r in requests), capture_output=True, text=True, timeout=300)
answers = [json.loads(x) for x in done.stdout.split("\n") if x]
linear = failed = most = 0
for i, path in enumerate(names):
    got = answers[3 * i:3 * i + 3]
    if any("error" in a for a in got):
        failed += 1
        if any("steps" in a.get("error", "") or "memory" in a.get("error", "") for a in got):
            print(f"{path.name}: {got[-1]}")
        continue
    steps = [a["steps"] for a in got]
    most = max(most, steps[0])
    if steps[2] > 4.2 * steps[0]:
        print(f"{path.name}: {steps}")
    else:
        linear += 1
print(f"{len(names)} templates: {linear} linear, {len(names) - linear - failed} faster, {failed} refuse this conversation; at most {most} steps for 200 messages")

#!/usr/bin/env python3
"""commands.py VLM REPOSITORY: help, man page and completion come from the same tables; models and JSON output; chat through a pipe and a terminal."""
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

VLM, REPO = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
media = REPO / "models/demo/media"
failed = 0


def check(what, good, detail=""):
    global failed
    failed += not good
    print(f"{'ok    ' if good else 'FAILED'} {what} {detail if not good else ''}")


def run(*args, stdin=None):
    return subprocess.run([VLM, *map(str, args)], capture_output=True, text=True, timeout=120, input=stdin)


names = re.findall(r"^  (\w+) {2,}", run("--help").stdout, re.M)
check("help lists the commands", {"generate", "chat", "check", "bench", "inspect", "models"} <= set(names), names)
page, completion = run("man").stdout, run("completion", "bash").stdout
for name in names:
    flags = re.findall(r"--([a-z][a-z-]+)", "\n".join(x for x in run(name, "--help").stdout.splitlines() if re.match(r"  .{4}--", x)))
    check(f"{name}: every flag is in man page and completion", all(f.replace("-", "\\-") in page and f"--{f} " in completion for f in flags), flags)
check("completion is a shell script", subprocess.run(["bash", "-n"], input=completion, text=True).returncode == 0)
families = json.loads(run("models", "--json").stdout)
check("models as JSON", {"gemma4", "qwen2_5_vl", "qwen3", "llama"} <= {f["name"] for f in families}, families)
answer = json.loads(run("generate", "--json", "--image", media / "sign.png", "--prompt", "What does the sign say?").stdout)
check("generate --json", answer["text"].startswith("NO PARKING") and answer["finish_reason"] == "stop" and answer["usage"]["prompt_tokens"] == 147, answer)
text = run("generate", "--image", media / "sign.png", "--prompt", "What does the sign say?")
check("quiet in a pipe: the answer alone", text.stdout == "NO PARKING\n" and text.stderr == "", (text.stdout, text.stderr))
verbose = run("generate", "--verbose", "--image", media / "sign.png", "--prompt", "What does the sign say?").stdout
check("--verbose", re.search(r"Prompt: 147 tokens.*tokens-per-sec\nGeneration: \d+ tokens, .*tokens-per-sec", verbose) and "Peak memory" in verbose, verbose)
source = "data:image/png;base64," + __import__("base64").b64encode((media / "sign.png").read_bytes()).decode()
check("data: URL", run("generate", "--image", source, "--prompt", "What does the sign say?").stdout == "NO PARKING\n")
check("file:// URL", run("generate", "--image", f"file://{media}/sign.png", "--prompt", "What does the sign say?").stdout == "NO PARKING\n")
piped = subprocess.run([VLM, "generate", "--image", "-", "--prompt", "What does the sign say?"], stdin=open(media / "sign.png", "rb"), capture_output=True, text=True, timeout=60)
check("picture from standard input", piped.stdout == "NO PARKING\n", piped.stderr)
drawn = [run("generate", "--prompt", "What can you do?", "--temperature", "1.2", "--seed", s).stdout for s in (3, 3)]
check("the same seed gives the same text", drawn[0] == drawn[1])
check("stop string", run("generate", "--image", media / "receipt.png", "--prompt", "Read the text.", "--stop", "Date").stdout == "Corner Cafe\n27 Lake Dr\n\n")
check("max tokens", json.loads(run("generate", "--json", "--prompt", "What can you do?", "--max-tokens", 3).stdout)["finish_reason"] == "length")
logprobs = json.loads(run("generate", "--json", "--prompt", "What is 17 + 25?", "--top-logprobs", 2).stdout)["logprobs"]
check("log-probabilities", logprobs and logprobs[0]["logprob"] <= 0 and len(logprobs[0]["top"]) == 2 and logprobs[0]["top"][0]["logprob"] >= logprobs[0]["top"][1]["logprob"])

# Reasoning, tool calls, structured output.
thought = run("generate", "--enable-thinking", "--prompt", "What is 17 + 25?")
check("reasoning is not part of the answer", thought.stdout == "42\n", (thought.stdout, thought.stderr))
check("--verbose shows it", "17 + 25 = 42\n42\n" in run("generate", "-v", "--enable-thinking", "--prompt", "What is 17 + 25?").stdout)
answer = json.loads(run("generate", "--json", "--enable-thinking", "--prompt", "What is 17 + 25?").stdout)
check("--json: reasoning apart", (answer["reasoning"], answer["content"], answer["tool_calls"], answer["usage"]["reasoning_tokens"]) == ("17 + 25 = 42", "42", None, 14), answer)
answer = json.loads(run("generate", "--json", "--enable-thinking", "--thinking-budget", 3, "--prompt", "What is 17 + 25?").stdout)
check("--thinking-budget", answer["reasoning"] == "17" and answer["finish_reason"] == "stop", answer)
check("--no-parse", run("generate", "--no-parse", "--enable-thinking", "--prompt", "What is 17 + 25?").stdout == "<|channel>thought\n17 + 25 = 42\n<channel|>42\n")


def tool(name, about, **members):
    properties = {key: {"type": kind, "description": what} for key, (kind, what) in members.items()}
    return {"type": "function", "function": {"name": name, "description": about,
                                             "parameters": {"type": "object", "properties": properties, "required": list(properties)}}}


tools = json.dumps([tool("get_weather", "Get the current weather for a city", city=("string", "The city name")),
                    tool("add", "Add two numbers", a=("integer", "First number"), b=("integer", "Second number"))])
weather = ["--tools", tools, "--prompt", "What is the weather in Paris?"]
check("a tool call on a line", run("generate", *weather).stdout == 'call get_weather {"city": "Paris"}\n')
answer = json.loads(run("generate", "--json", *weather).stdout)
check("--json: tool calls", answer["finish_reason"] == "tool_calls" and answer["content"] is None and
      [(c["type"], c["function"]) for c in answer["tool_calls"]] == [("function", {"name": "get_weather", "arguments": '{"city": "Paris"}'})], answer)
for choice in ("required", "add"):
    answer = json.loads(run("generate", "--json", "--tools", tools, "--tool-choice", choice, "--no-parallel-tool-calls", "--prompt", "What can you do?").stdout)
    calls = [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in answer["tool_calls"] or []]
    names = {"get_weather": {"city": str}, "add": {"a": int, "b": int}}
    check(f"--tool-choice {choice}", len(calls) == 1 and (choice == "required" or calls[0][0] == choice) and
          {k: type(v) for k, v in calls[0][1].items()} == names[calls[0][0]], answer)
check("--tool-choice: no such tool", run("generate", "--tool-choice", "multiply", *weather).returncode == 2)
with tempfile.TemporaryDirectory() as temporary:
    schema = {"type": "object", "properties": {"store": {"type": "string"}, "total": {"type": "number"}}, "required": ["store", "total"], "additionalProperties": False}
    path, grammar = pathlib.Path(temporary) / "schema.json", pathlib.Path(temporary) / "sum.gbnf"
    path.write_text(json.dumps(schema))
    grammar.write_text('root ::= "it is " [0-9]+ "!"\n')
    receipt = ["--image", media / "receipt.png", "--prompt", "Return JSON with store, date, items, total."]
    for value in (path, json.dumps(schema)):
        got = json.loads(run("generate", "--json-schema", value, *receipt).stdout or "null")
        check("--json-schema", got and set(got) == {"store", "total"} and got["store"] == "Corner Cafe", got)
    got = json.loads(run("generate", "--response-format", "json_object", *receipt).stdout or "null")
    check("--response-format json_object", got and got["total"] == 33.59, got)
    sum_of = ["generate", "--prompt", "What is 17 + 25?"]
    check("--regex", re.fullmatch(r"it is \d\d\.\n", run(*sum_of, "--regex", r"it is \d{2}\.").stdout))
    check("--choice", run(*sum_of, "--choice", "41", "42", "43").stdout == "42\n")
    got = run(*sum_of, "--grammar", grammar)
    check("--grammar", re.fullmatch(r"it is \d+!\n", got.stdout), (got.stdout, got.stderr))
    answer = json.loads(run(*sum_of, "--json", "--enable-thinking", "--choice", "it is 41", "it is 42").stdout)
    check("the grammar begins behind the thinking", answer["reasoning"] == "17 + 25 = 42" and answer["content"] in ("it is 41", "it is 42"), answer)
    got = run(*sum_of, "--json-schema", '{"type": "object", "properties": {"x": {"type": "wrong"}}}')
    check("a wrong schema is refused with its path", got.returncode != 0 and "properties.x" in got.stderr, got.stderr)
    check("only one form", run(*sum_of, "--regex", "a", "--choice", "b").returncode == 2)
talk = run("chat", "--tools", tools, stdin='What is the weather in Paris?\n{"temperature": 21, "condition": "sunny"}\n/exit\n')
check("chat: a call, its result, the answer", 'call get_weather {"city": "Paris"}\nWhat does get_weather give?\nIt is sunny and 21' in talk.stdout, talk.stdout + talk.stderr)

config = REPO / "tests/data/checkpoints/qwen2_5_vl/config.json"
for kind in ("bf16", "f16", "f32", "q8", "q4"):
    bench = run("bench", "--dummy-weights", config, "--format", kind, "--json", "--prompt-tokens", 16,
                "--generate-tokens", 4, "--repeat", 1, "--batch", 3, "--image", "56x56")
    figures = json.loads(bench.stdout or "{}")
    check(f"bench --dummy-weights {kind}", figures.get("decode_tokens_per_second", 0) > 0 and figures["image"]["tokens"] > 0 and figures["batch"]["tokens_per_second"] > 0, bench.stderr)

with tempfile.TemporaryDirectory() as temporary:
    saved = pathlib.Path(temporary) / "talk.json"
    talk = run("chat", stdin=f"/image {media}/shapes.png\nHow many shapes are there?\nWhat shape is blue?\n/save {saved}\n/clear\nWhat is 17 + 25?\n/nonsense\n/exit\n")
    check("chat through a pipe", "5" in talk.stdout and "42" in talk.stdout and "unknown command" in talk.stdout, talk.stdout + talk.stderr)
    messages = json.loads(saved.read_text())
    check("/save", [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"] and messages[3]["content"] == "a blue square" or messages[1]["content"] == "5", messages)


def terminal():
    """Chat on a pseudo-terminal: Ctrl-C stops the answer and not the program."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(VLM, [VLM, "chat", "--ignore-eos", "--max-tokens", "6000"])
    seen = ""

    def wait(pattern, seconds=30):
        nonlocal seen
        end = time.time() + seconds
        while time.time() < end and not re.search(pattern, seen):
            if select.select([fd], [], [], 0.2)[0]:
                try:
                    seen += os.read(fd, 65536).decode(errors="replace")
                except OSError:
                    break
        return re.search(pattern, seen) is not None

    good = wait("Type a question")
    os.write(fd, b"What can you do?\r")
    good = good and wait("I can read text")
    os.write(fd, b"\x03")
    good = good and wait(r"\[stopped\]")
    os.write(fd, b"/help\r")
    good = good and wait("/save FILE")
    os.write(fd, b"/exit\r")
    time.sleep(0.2)
    end = time.time() + 10
    status = None
    while time.time() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        good = False
    return good and status == 0, seen


good, seen = terminal()
check("Ctrl-C stops the answer, /exit the program", good, repr(seen[-400:]))
sys.exit(1 if failed else 0)

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

#!/usr/bin/env python3
"""demo.py VLM PEERS OUT.md: the demo model from process start to the answer, vlm.c and llama.cpp's command line program in turn; medians and minima of whole processes."""
import os
import pathlib
import statistics
import subprocess
import sys
import time

VLM, PEERS, OUT = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
REPO = pathlib.Path(__file__).resolve().parent.parent
DEMO = REPO / "models/demo"
THREADS = len(os.sched_getaffinity(0))
ROUNDS = 11
model, projector = PEERS / "gguf/demo.gguf", PEERS / "gguf/demo-mmproj.gguf"
(PEERS / "gguf").mkdir(exist_ok=True)
for path, extra in ((model, []), (projector, ["--mmproj"])):
    if not path.exists():
        convert = next(PEERS.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py"))
        subprocess.run([PEERS / "python/bin/python", convert, DEMO, "--outtype", "bf16", "--outfile", path, *extra], check=True, capture_output=True)
# Equal work: 140 tokens a picture at most, as the checkpoint says (llama.cpp takes more from a large one). llama.cpp asks every template to think; ours is not asked to here, so it gets the template with that switched off: equal work.
template = (DEMO / "chat_template.jinja").read_text().replace("enable_thinking is defined and enable_thinking", "false")
CASES = [("receipt's total", "receipt.png", "Extract the total amount from the receipt.", "$33.59"),
         ("receipt's whole text", "receipt.png", "Read the text.", "TOTAL $33.59"),
         ("8K receipt's total", "receipt_8k.png", "Extract the total amount from the receipt.", "$33.59")]
lines = ["| from process start to | vlm.c, median (min) | llama.cpp, median (min) | ratio of medians | of minima |", "|---|---|---|---|---|"]


def timed(args, expected):
    begin = time.perf_counter()
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    took = time.perf_counter() - begin
    if expected not in done.stdout:
        raise SystemExit(f"{args[0]} {image}: {done.stdout[-300:]} {done.stderr[-300:]}")
    return took


for what, image, prompt, expected in CASES:
    ours, theirs = [], []
    for i in range(ROUNDS + 1):
        a = timed([VLM, "generate", "--threads", THREADS, "--image", DEMO / "media" / image, "--prompt", prompt], expected)
        b = timed([PEERS / "bin/llama-mtmd-cli", "-m", model, "--mmproj", projector, "--image", DEMO / "media" / image, "-p", prompt, "-t", THREADS, "--temp", "0",
                   "-n", "300", "--jinja", "--chat-template", template,
                   "--image-max-tokens", "140"], expected)
        if i:                                       # the first round warms the page cache
            ours.append(a)
            theirs.append(b)
    m, n = statistics.median(ours), statistics.median(theirs)
    lines.append(f"| {what} | {m * 1e3:.0f} ms ({min(ours) * 1e3:.0f}) | {n * 1e3:.0f} ms ({min(theirs) * 1e3:.0f}) | {m / n:.2f} | {min(ours) / min(theirs):.2f} |")
    print(lines[-1], flush=True)
OUT.write_text("\n".join(lines) + "\n")

#!/usr/bin/env python3
"""serving.py VLM [--peer URL ...]: what a running server does to clients that share it.

1. Three text streams run; then a picture of 8K (and nothing else) is asked about. Printed: the median time between tokens before, the longest while
   the picture is at work, and their ratio.
2. The second turn on that picture, and the same picture in another conversation: time to the first token, against a turn of text only that brings as
   many new tokens.

A peer is any server with OpenAI's API (llama.cpp's): the same requests go to it, interleaved with ours. Numbers are minima or medians of several rounds; machines are
shared, so ratios count."""
import base64
import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import threading
import time
from urllib.parse import urlparse

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEDIA = ROOT / "models/demo/media"


def data_url(name):
    return "data:image/png;base64," + base64.b64encode((MEDIA / name).read_bytes()).decode()


def picture(name, text, salt=""):
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(name)}}, {"type": "text", "text": text + salt}]}]


def stream(base, messages, max_tokens, times, first=None, **more):
    """Appends the arrival time of each piece of text; returns text and usage."""
    url = urlparse(base)
    c = http.client.HTTPConnection(url.hostname, url.port, timeout=300)
    body = {"model": "default", "messages": messages, "max_tokens": max_tokens, "stream": True, "temperature": 0, "stream_options": {"include_usage": True}, **more}
    data = json.dumps({k: v for k, v in body.items() if k != "model"}).encode()
    c.connect()
    start = time.perf_counter()
    c.request("POST", "/v1/chat/completions", data, {"Content-Type": "application/json"})
    r = c.getresponse()
    if r.status != 200:
        raise SystemExit(f"{base}: {r.status} {r.read()[:300]}")
    text, usage = "", None
    for line in r:
        if not line.startswith(b"data: {"):
            continue
        now = time.perf_counter()
        event = json.loads(line[6:])
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            piece = choice["delta"].get("content") or ""
            if piece or choice.get("logprobs"):
                if first is not None and not first:
                    first.append(now - start)
                times.append(now)
                text += piece
    c.close()
    return text, usage


def stall(base, streams=3, tokens=1200):
    """Median gap before the picture, longest gap during it, and how long the picture took."""
    times = [[] for _ in range(streams)]
    threads = [threading.Thread(target=stream, args=(base, [{"role": "user", "content": f"Count to {n + 50}."}], tokens, times[n]), kwargs={"ignore_eos": True, "logprobs": True})
               for n in range(streams)]
    for t in threads:
        t.start()
    while min(len(t) for t in times) < 100:
        time.sleep(0.005)
    begin, own = time.perf_counter(), []
    answer, _ = stream(base, picture("receipt_8k.png", "Read the text.", " " * (int(time.time() * 1000) % 50)), 30, own)
    end = time.perf_counter()
    for t in threads:
        t.join()
    before = [b - a for t in times for a, b in zip(t, t[1:]) if b < begin]
    during = [b - a for t in times for a, b in zip(t, t[1:]) if begin <= a and b <= end]
    return statistics.median(before), (max(during) if during else float("nan")), statistics.median(during or [float("nan")]), end - begin, answer


def turns(base):
    """First-token times: picture new, second turn on it, the same picture in another conversation, text only."""
    salt = f" {time.time()}"
    question = picture("receipt_8k.png", "Read the text.", salt)
    new, second, other, plain = [], [], [], []
    answer, _ = stream(base, question, 40, [], new)
    follow = question + [{"role": "assistant", "content": answer}, {"role": "user", "content": "What is the total?"}]
    stream(base, follow, 20, [], second)
    stream(base, picture("receipt_8k.png", "What is the total?", salt), 20, [], other)
    text = [{"role": "user", "content": "Hello." + salt}]
    reply, _ = stream(base, text, 40, [])
    stream(base, text + [{"role": "assistant", "content": reply}, {"role": "user", "content": "What is the total?"}], 20, [], plain)
    return new[0], second[0], other[0], plain[0]


def main():
    vlm, peers = sys.argv[1], [a for a in sys.argv[2:] if a.startswith("http")]
    process = subprocess.Popen([vlm, "server", str(ROOT / "models/demo"), "--port", "0", "-q"], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline().rsplit(":", 1)[1])
    servers = {"vlm": f"http://127.0.0.1:{port}", **{f"peer {i + 1}": p for i, p in enumerate(peers)}}
    stalls, firsts = {n: [] for n in servers}, {n: [] for n in servers}
    for _ in range(5):
        for name, base in servers.items():
            stalls[name].append(stall(base))
            firsts[name].append(turns(base))
    for name in servers:
        median, longest, during, took, _ = (min(column) if i != 4 else None for i, column in enumerate(zip(*stalls[name])))
        ratio = min(s[1] / s[0] for s in stalls[name])
        middle = statistics.median(s[1] / s[0] for s in stalls[name])
        print(f"{name}: three streams, {1e3 * median:.2f} ms a token; while an 8K picture is answered (in {1e3 * took:.0f} ms): median {1e3 * during:.2f} ms, longest {1e3 * longest:.2f} ms; "
              f"longest / median before: best {ratio:.1f}, median of rounds {middle:.1f}")
        new, second, other, plain = (min(c) for c in zip(*firsts[name]))
        print(f"{name}: first token of the 8K picture {1e3 * new:.1f} ms, second turn {1e3 * second:.1f}, in another conversation {1e3 * other:.1f}, second turn of text only {1e3 * plain:.1f}")
    process.terminate()


main()

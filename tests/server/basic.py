"""basic.py VLM: chat and text completions, streams, errors, keys, limits, clients that leave, shutting down."""
import base64
import json
import pathlib
import signal
import struct
import sys
import tempfile
import threading
import time

from serving import ROOT, Checks, Server

check = Checks()
vlm = sys.argv[1]
CHAT = "/v1/chat/completions"
hello = [{"role": "user", "content": "Hello"}]
receipt = base64.b64encode((ROOT / "models/demo/media/receipt.png").read_bytes()).decode()
picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + receipt}},
                                        {"type": "text", "text": "Read the text."}]}]


def text_of(events):
    return "".join(e["choices"][0]["delta"].get("content") or "" for _, e in events if e and e["choices"])


def answers(s):
    status, whole = s.post(CHAT, {"messages": picture, "max_tokens": 40, "temperature": 0})
    check("a picture is answered", status == 200 and "Corner Cafe" in whole["choices"][0]["message"]["content"], whole)
    check("usage", whole["usage"]["completion_tokens"] == 40 and whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + 40)
    check("the reason", whole["choices"][0]["finish_reason"] == "length")
    events = s.stream(CHAT, {"messages": picture, "max_tokens": 40, "temperature": 0, "stream_options": {"include_usage": True}})
    check("the stream says the same", text_of(events) == whole["choices"][0]["message"]["content"])
    check("it ends with usage and [DONE]", events[-1][1] is None and events[-2][1]["choices"] == [] and events[-2][1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0)
    check("one id", len({e["id"] for _, e in events if e}) == 1)
    check("the role once", [e["choices"][0]["delta"].get("role") for _, e in events[:-2]] == ["assistant"] + [None] * (len(events) - 3))
    status, two = s.post("/chat/completions", {"messages": hello, "n": 2, "logprobs": True, "top_logprobs": 3, "max_tokens": 5})
    check("choices", [c["index"] for c in two["choices"]] == [0, 1])
    entry = two["choices"][1]["logprobs"]["content"][0]
    check("log-probabilities", len(entry["top_logprobs"]) == 3 and bytes(entry["bytes"]).decode() == entry["token"])
    status, text = s.post("/v1/completions", {"prompt": "Hello", "max_tokens": 3})
    check("completions", status == 200 and text["object"] == "text_completion" and text["choices"][0]["text"])
    status, stopped = s.post(CHAT, {"messages": picture, "stop": ["Cafe"], "temperature": 0})
    check("stop strings", stopped["choices"][0]["message"]["content"] == "Corner " and stopped["choices"][0]["finish_reason"] == "stop", stopped)


def texts(s):
    status, ids = s.post("/tokenize", {"prompt": "Hello world"})
    check("tokenize", status == 200 and ids["count"] == len(ids["tokens"]) > 0)
    check("detokenize", s.post("/v1/detokenize", {"tokens": ids["tokens"]})[1]["prompt"] == "Hello world")
    check("template", "Hello" in s.post("/apply-template", {"messages": hello})[1]["prompt"])


def vectors(s):
    status, both = s.post("/v1/embeddings", {"input": ["Hello world", "a red circle"]})
    check("embeddings", status == 200 and [d["index"] for d in both["data"]] == [0, 1] and len(both["data"][0]["embedding"]) > 8, both)
    status, one = s.post("/embeddings", {"input": "a red circle", "encoding_format": "base64"})
    packed = base64.b64decode(one["data"][0]["embedding"])
    vector = struct.unpack(f"<{len(packed) // 4}f", packed)
    check("the same in base64, alone", max(abs(a - b) for a, b in zip(vector, both["data"][1]["embedding"])) < 1e-6)
    check("dimensions", len(s.post("/v1/embeddings", {"input": "x", "dimensions": 4})[1]["data"][0]["embedding"]) == 4)
    check("no input", s.post("/v1/embeddings", {"input": []})[0] == 400 and s.post("/v1/embeddings", {"input": 5})[0] == 400)
    check("a model that does not rank", s.post("/v1/rerank", {"query": "x", "documents": ["y"]})[0] == 400)
    check("no documents", s.post("/v1/rerank", {"query": "x", "documents": []})[0] == 400)


def faults(s):
    many = {
        "no messages": ({}, 400, "messages"), "messages of a wrong type": ({"messages": 3}, 400, "messages"),
        "a wrong role": ({"messages": [{"role": "x", "content": "y"}]}, 400, "messages[0].role"),
        "a wrong temperature": ({"messages": hello, "temperature": "hot"}, 400, "temperature"),
        "an unknown model": ({"messages": hello, "model": "none"}, 404, "model"),
        "n of 0": ({"messages": hello, "n": 0}, 400, "n"), "stop of a wrong type": ({"messages": hello, "stop": 5}, 400, "stop"),
        "a wrong top_logprobs": ({"messages": hello, "top_logprobs": 21}, 400, "top_logprobs"),
    }
    for what, (body, expected, param) in many.items():
        status, answer = s.post(CHAT, body)
        check(what, status == expected and answer["error"]["param"] == param and answer["error"]["message"], (status, answer))
    for url in ("/etc/passwd", "file:///etc/passwd", "http://127.0.0.1:1/x", "data:image/png;base64,AAAA"):
        status, answer = s.post(CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]})
        check(url, status == 400 and answer["error"]["type"] == "invalid_request_error", (status, answer))
    check("no JSON", s.post(CHAT, b'{"messages": [')[0] == 400)
    check("another type of body", s.request("POST", CHAT, b"a=b", {"Content-Type": "application/x-www-form-urlencoded"})[0] == 415)
    check("no such path", s.get("/v1/nothing")[0] == 404)
    check("another method", s.get(CHAT)[0] == 405)
    check("a long body", s.request("POST", CHAT, b"{" + b" " * (3 << 20))[0] == 413)
    c = s.socket()
    c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(48):
        c.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
    c.sendall(b"0\r\n\r\n")
    check("a long body in chunks", b" 413 " in c.recv(200))
    c.close()


def leaving(s):
    for stream in (False, True):
        c = s.socket()
        body = json.dumps({"messages": hello, "max_tokens": 100000, "ignore_eos": True, "stream": stream}).encode()
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        for _ in range(100):
            if s.metric("vllm:num_requests_running") == 1:
                break
            time.sleep(0.02)
        check("it runs", s.metric("vllm:num_requests_running") == 1)
        c.close()
        for _ in range(100):
            if s.metric("vllm:num_requests_running") == 0:
                break
            time.sleep(0.05)
        check(f"a client that leaves (stream {stream}) ends its request", s.metric("vllm:num_requests_running") == 0)


def full(vlm):
    """A queue that is full, and a server that is told to end while it answers."""
    with Server(vlm, "--max-num-seqs", "1", "--max-queue", "1", "-q", "--max-kv-size", "200000") as s:
        long, results = {"messages": hello, "max_tokens": 600, "ignore_eos": True}, []
        threads = [threading.Thread(target=lambda: results.append(s.request("POST", CHAT, long, timeout=200))) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        codes = sorted(r[0] for r in results)
        check("a full queue is a 429", codes[0] == 200 and codes[-1] == 429, codes)
        check("with Retry-After", all("Retry-After" in r[1] for r in results if r[0] == 429))
        last = []
        t = threading.Thread(target=lambda: last.append(s.post(CHAT, long, timeout=200)))
        t.start()
        while s.metric("vllm:num_requests_running") == 0:
            time.sleep(0.01)
        s.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        check("not ready while it drains", s.get("/ready")[0] == 503 and s.post(CHAT, {"messages": hello})[0] == 503)
        t.join()
        s.process.wait(60)
        check("what was under way is answered", last[0][0] == 200 and last[0][1]["usage"]["completion_tokens"] == 600)
    check("it has ended well", s.process.returncode == 0)


def main():
    full(vlm)
    with Server(vlm, "--max-body-mb", "2", "--max-kv-size", "200000") as s:
        answers(s)
        texts(s)
        faults(s)
        leaving(s)
        check("still healthy", s.get("/health")[0] == 200 and s.get("/ready")[0] == 200)
    check("the server has ended well", s.process.returncode == 0)
    with Server(vlm, "--api-key", "sesame", "--cors-origin", "https://a.example") as s:
        check("no key", s.post(CHAT, {"messages": hello})[0] == 401)
        check("a wrong key", s.post(CHAT, {"messages": hello}, headers={"Authorization": "Bearer sesam"})[0] == 401)
        check("the key", s.post(CHAT, {"messages": hello, "max_tokens": 1}, headers={"Authorization": "Bearer sesame"})[0] == 200)
        check("the key, Anthropic's way", s.post(CHAT, {"messages": hello, "max_tokens": 1}, headers={"x-api-key": "sesame"})[0] == 200)
        check("health needs none", s.get("/health")[0] == 200)
        check("CORS", s.request("OPTIONS", CHAT, headers={"Origin": "https://a.example"})[1].get("Access-Control-Allow-Origin") == "https://a.example")
        check("no CORS for others", "Access-Control-Allow-Origin" not in s.request("OPTIONS", CHAT, headers={"Origin": "https://b.example"})[1])
    with tempfile.TemporaryDirectory() as folder, Server(vlm, "--allowed-media-path", folder, "-q") as s:
        inside = pathlib.Path(folder, "receipt.png")
        inside.write_bytes((ROOT / "models/demo/media/receipt.png").read_bytes())
        pathlib.Path(folder, "out").symlink_to(ROOT / "models/demo/media/note.jpg")

        def look(url):
            return s.post(CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Read the text."}]}],
                                 "max_tokens": 12, "temperature": 0})
        check("an allowed file", "Corner Cafe" in look(str(inside))[1]["choices"][0]["message"]["content"] and look(inside.as_uri())[0] == 200)
        answers_of = {look(url)[1]["error"]["message"].split(": ")[-1] for url in (folder + "/out", folder + "/../etc/passwd", "/etc/passwd", folder + "x", "/nowhere", folder + "/missing")}
        check("no other, and nothing is told of it", answers_of == {"this file may not be read here"}, answers_of)
    with Server(vlm, model="tests/data/checkpoints/qwen3") as s:
        vectors(s)
    check.end()


main()

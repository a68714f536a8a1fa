"""hostile.py VLM [SECONDS]: clients that do not behave: slow heads and bodies, connections that say nothing or only half, broken HTTP, broken and very deep JSON, wrong types for
every field, pictures that are none, names of private hosts. The server has to answer, to refuse, or to cut; to go on serving; and not to grow. SECONDS: how long (8)."""
import base64
import json
import random
import socket
import sys
import threading
import time

from serving import ROOT, Checks, Server

check = Checks()
vlm, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 8
rnd = random.Random(7)
CHAT = "/v1/chat/completions"
hello = [{"role": "user", "content": "Hello"}]
FIELDS = ["model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma",
          "repetition_penalty", "repetition_context_size", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "stop", "eos_tokens", "ignore_eos", "response_format",
          "tools", "tool_choice", "tool_parser", "parallel_tool_calls", "enable_thinking", "reasoning", "reasoning_effort", "thinking_budget", "chat_template_kwargs",
          "min_pixels", "max_pixels", "fps", "resize_shape", "logprobs", "top_logprobs", "input", "instructions", "system", "thinking", "stop_sequences", "prompt", "text"]
VALUES = [None, True, False, 0, -1, 1, 2**31, 2**63 - 1, -2**63, 1e308, 0.5, "", "x", "\u0000", "💥" * 50, [], {}, [[]], [1], [{}], {"a": {}}, {"type": "json_schema"}, [None],
          {"type": "function"}, "required", [{"role": "user", "content": [{"type": "image_url"}]}], [{"role": "assistant", "tool_calls": [{}]}], {"1": 2}, {"99999999": 1}, {"x": "y"}]


def rss(s):
    with open(f"/proc/{s.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) >> 10


def raw(s, data, wait=5, half=False):
    """Sends bytes as they are; what comes back within `wait` seconds."""
    c = s.socket()
    c.settimeout(wait)
    out = b""
    try:
        c.sendall(data)
        if half:
            c.shutdown(socket.SHUT_WR)
        while len(out) < 1 << 16:
            piece = c.recv(4096)
            if not piece:
                break
            out += piece
    except OSError:
        pass
    c.close()
    return out


def broken_http(s):
    for data in (b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
                 b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
                 b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nContent-Length: 20\r\n\r\n0123456789"):
        answer = raw(s, data, wait=1)
        check(f"broken HTTP {data[:40]!r}", b"HTTP/1.1 200" not in answer, answer[:100])


def slow(s, deadline):
    c = s.socket()
    c.settimeout(deadline + 10)
    begin = time.time()
    try:
        while time.time() - begin < deadline + 8:
            c.sendall(b"X")
            time.sleep(0.3)
    except OSError:
        pass
    check("a head that comes byte by byte is cut", time.time() - begin < deadline + 7, time.time() - begin)
    c.close()


def fuzz(s):
    path = rnd.choice([CHAT, "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize", "/apply-template", "/v1/messages/count_tokens", "/v1/responses/input_tokens"])
    body = {"messages": hello, "prompt": "Hello", "input": "Hello", "max_tokens": 2, "max_output_tokens": 2, "tokens": [1]}
    for _ in range(rnd.randint(1, 3)):
        body[rnd.choice(FIELDS)] = rnd.choice(VALUES)
    if isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 2 or body.get("max_tokens") is None:
        body["max_tokens"] = 2
    if isinstance(body.get("max_completion_tokens"), int) and not isinstance(body.get("max_completion_tokens"), bool):
        body["max_completion_tokens"] = min(body["max_completion_tokens"], 2)
    status, _, data = s.request("POST", path, body)
    check(f"{path} {json.dumps(body)[:300]}", status < 500, (status, data[:300]))


def broken_json(s):
    text = json.dumps({"messages": hello, "max_tokens": 1}).encode()
    for _ in range(10):
        mangled = bytearray(text)
        for _ in range(rnd.randint(1, 4)):
            mangled[rnd.randrange(len(mangled))] = rnd.randrange(256)
        status = s.request("POST", CHAT, bytes(mangled))[0]
        check("mangled JSON", status < 500, (status, bytes(mangled)))
    for deep in (b"[" * 200000, b'{"a":' * 100000, b'{"messages":' + b"[" * 5000 + b"]" * 5000 + b"}", b'"' + b"\\u0000" * 10000, b'{"messages":[{"role":"user","content":"\xff\xfe"}]}'):
        status = s.request("POST", CHAT, deep)[0]
        check("deep JSON", status == 400, (status, deep[:30]))


def bad_media(s):
    png = (ROOT / "models/demo/media/number.png").read_bytes()
    cut, big = png[:200], bytearray(png)
    big[16:24] = b"\x00\x00\xff\xff\x00\x00\xff\xff"
    urls = ["data:image/png;base64," + base64.b64encode(x).decode() for x in (b"", b"x" * 9000, cut, bytes(big), b"GIF89a" + b"\xff" * 6000)]
    urls += ["data:image/png;base64,!!!!", "data:", "data:,", "ftp://x/y", "file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "http://127.0.0.1/", "http://[::ffff:127.0.0.1]/",
             "http://2130706433/", "http://localhost:1/", "http://169.254.169.254/latest", "http://a@127.0.0.1/", "http:\\\\127.0.0.1\\x", "attached:0:0", ""]
    for url in urls:
        for part in ({"type": "image_url", "image_url": {"url": url}}, {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}, {"type": "video_url", "video_url": {"url": url}}):
            status, answer = s.post(CHAT, {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "x"}]}], "max_tokens": 1})
            check(f"media {url[:60]}", status in (400, 413), (status, answer))
            check("no address in the message", "0x" not in json.dumps(answer))


def leavers(s):
    for _ in range(8):
        data = json.dumps({"messages": hello, "max_tokens": 100000, "ignore_eos": True, "stream": rnd.random() < 0.5}).encode()
        c = s.socket()
        c.sendall(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data[: rnd.randint(0, len(data) * 2)])
        time.sleep(rnd.random() * 0.1)
        if rnd.random() < 0.3:
            c.shutdown(socket.SHUT_WR)
        c.close()


def main():
    with Server(vlm, "-q", "--header-seconds", "3", "--allow-network", "--max-kv-size", "120000", "--max-body-mb", "8") as s:
        threads = [threading.Thread(target=slow, args=(s, 3)) for _ in range(4)]
        for t in threads:
            t.start()
        idle = []
        for _ in range(500):
            idle.append(s.socket())
        check("served beside 500 idle connections", s.post(CHAT, {"messages": hello, "max_tokens": 1})[0] == 200)
        for c in idle:
            c.close()
        broken_http(s)
        broken_json(s)
        bad_media(s)
        for _ in range(100):
            fuzz(s)
        before, begin, rounds = rss(s), time.time(), 0
        while time.time() - begin < seconds:
            for _ in range(30):
                fuzz(s)
            leavers(s)
            broken_json(s)
            rounds += 1
            if rounds % 3 == 0:
                bad_media(s)
            if rounds == 3:
                before = rss(s)
        for t in threads:
            t.join()
        for _ in range(200):
            if s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0:
                break
            time.sleep(0.05)
        check("nothing runs any more", s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0)
        check("memory does not grow", rss(s) < before + 48, f"{before} -> {rss(s)} MiB in {rounds} rounds")
        print(f"{rounds} rounds, {before} -> {rss(s)} MiB")
        check("still right", s.post(CHAT, {"messages": hello, "max_tokens": 20, "temperature": 0})[1]["choices"][0]["message"]["content"] == "Hello! How can I help you?")
    check("the server has ended well", s.process.returncode == 0)
    check.end()


main()

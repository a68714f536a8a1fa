"""load.py VLM [COUNT] [SEED]: answers under load are the answers alone. COUNT random requests (text, pictures, sound, several media; greedy and seeded sampling; whole and
streaming; chat, messages, responses) are asked one by one, then all again at random times, while other clients leave in the middle of theirs; a small page
budget makes some be preempted."""
import base64
import json
import random
import sys
import threading
import time

from serving import ROOT, Checks, Server

check = Checks()
vlm, count, seed = sys.argv[1], int((sys.argv + ["60"])[2]) if len(sys.argv) > 2 else 60, int(sys.argv[3]) if len(sys.argv) > 3 else 1
rnd = random.Random(seed)
media = ROOT / "models/demo/media"


def b64(name):
    return base64.b64encode((media / name).read_bytes()).decode()


def image(name):
    kind = "jpeg" if name.endswith("jpg") else "png"
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{b64(name)}"}}


def sound(name):
    return {"type": "input_audio", "input_audio": {"data": b64(name), "format": "wav"}}


pictures = ["receipt.png", "note.jpg", "number.png", "shapes.png", "shapes2.png", "sign.png"]
questions = ["Read the text.", "What is the total?", "What shapes are there?", "Hello", "What is the number?", "Count to 12.", "Write a sentence."]


def random_request():
    parts = []
    for _ in range(rnd.choice([0, 0, 1, 1, 2])):
        parts.append(image(rnd.choice(pictures)))
    if rnd.random() < 0.2:
        parts.append(sound(rnd.choice(["ask_total.wav", "digits.wav"])))
    parts.insert(rnd.randint(0, len(parts)), {"type": "text", "text": rnd.choice(questions)})
    body = {"messages": [{"role": "user", "content": parts if len(parts) > 1 else parts[0]["text"]}], "max_tokens": rnd.randint(1, 60), "seed": rnd.randint(0, 1 << 30)}
    if rnd.random() < 0.3:
        body["messages"].insert(0, {"role": "system", "content": "Be short."})
    body["temperature"] = rnd.choice([0, 0, 0.7, 1.3])
    if rnd.random() < 0.3:
        body.update(top_p=0.9, top_k=20, repetition_penalty=1.1)
    if rnd.random() < 0.15:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}}}
    if rnd.random() < 0.2:
        body["logprobs"] = True
    return body


def ask(s, body, streaming):
    """What the answer is made of, the same for both ways."""
    if not streaming:
        status, answer = s.post("/v1/chat/completions", body, timeout=240)
        assert status == 200, (status, answer)
        c = answer["choices"][0]
        return (c["message"]["content"] or "", c["message"]["reasoning"] or "", c["finish_reason"], answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])
    events = [e for _, e in s.stream("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}}) if e]
    deltas = [e["choices"][0] for e in events if e["choices"]]
    return ("".join(d["delta"].get("content") or "" for d in deltas), "".join(d["delta"].get("reasoning") or "" for d in deltas), deltas[-1]["finish_reason"],
            events[-1]["usage"]["prompt_tokens"], events[-1]["usage"]["completion_tokens"])


def leaver(s, body, after):
    data = json.dumps({**body, "max_tokens": 500, "stream": rnd.random() < 0.5}).encode()
    c = s.socket()
    c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    time.sleep(after)
    c.close()


def main():
    requests = [random_request() for _ in range(count)]
    with Server(vlm, "-q", "--kv-cache-mb", "2", "--max-num-seqs", "24") as s:
        alone = [ask(s, r, False) for r in requests]
        s.post("/cache/reset", {})
        together = [None] * count
        threads = []

        def one(i, wait, streaming):
            time.sleep(wait)
            together[i] = ask(s, requests[i], streaming)

        for i in range(count):
            threads.append(threading.Thread(target=one, args=(i, rnd.random() * 1.5, rnd.random() < 0.5)))
            if rnd.random() < 0.3:
                threads.append(threading.Thread(target=leaver, args=(s, requests[i], rnd.random() * 0.3)))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for i in range(count):
            check(f"request {i} (seed {seed})", alone[i] == together[i], f"\n  alone    {alone[i]}\n  together {together[i]}\n  {json.dumps(requests[i])[-300:]}")
        for _ in range(100):
            if s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0:
                break
            time.sleep(0.05)
        check("nothing runs any more", s.metric("vllm:num_requests_running") + s.metric("vllm:num_requests_waiting") == 0)
        check("nothing failed", s.metric("vlm_requests_failed_total") == 0)
        print(f"preempted {s.metric('vllm:num_preemptions_total'):.0f} times")
    check("the server has ended well", s.process.returncode == 0)
    check.end()


main()

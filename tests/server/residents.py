"""residents.py VLM: several models behind one server: loaded when asked for, one at a time, while the others' answers go on."""
import sys
import threading

from serving import ROOT, Checks, Server

check = Checks()
vlm = sys.argv[1]
CHAT = "/v1/chat/completions"
folder = ROOT / "tests/data/checkpoints"
names = ["llama", "qwen3", "lfm2", "olmo3"]         # what takes text alone


def ask(s, model, n=3):
    return s.post("/v1/completions", {"model": model, "prompt": "a", "max_tokens": n, "temperature": 0})


def main():
    with Server(vlm, "--model-dir", str(folder), "--max-models", "2", "-q") as s:
        listed = {m["id"]: m for m in s.get_json("/v1/models")["data"]}
        check("all are listed", len(listed) > 10 and set(names) <= set(listed) and "demo" in listed, listed.keys())
        check("one of them", s.get_json("/v1/models/demo")["id"] == "demo")
        texts = {}
        for name in names[:4]:
            status, answer = ask(s, name)
            check(f"{name} is loaded and answers", status == 200 and answer["model"] == name, answer)
            texts[name] = answer.get("choices")
        check("no more than two are loaded", sum(m["loaded"] for m in s.get_json("/v1/models")["data"]) <= 2)
        results = {}

        def one(i):
            results[i] = ask(s, names[i % 4])

        threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check("many at once, for more models than there is room for", all(r[0] == 200 and r[1]["choices"] == texts[names[i % 4]] for i, r in results.items()), results)
        check("a path is no name", ask(s, str(folder / names[0]))[0] == 404 and ask(s, "../" + names[0])[0] == 404)
        check("unload", s.post("/unload", {})[1]["status"] == "success")
        check("and it comes back", ask(s, "demo")[0] == 200)
        check("ready", s.get("/ready")[0] == 200)
    check("the server has ended well", s.process.returncode == 0)
    check.end()


main()

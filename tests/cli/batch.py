#!/usr/bin/env python3
"""batch.py VLM REPOSITORY: `vlm generate --batch` with mixed requests (text, one and two pictures, sound, video, thinking, tools): each gets the same
text as alone, in the order of the file, ids kept; a request that fails fails alone."""
import json
import pathlib
import subprocess
import sys
import tempfile

VLM, REPO = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
media = REPO / "models/demo/media"
tools = [{"type": "function", "function": {"name": "get_weather", "description": "Get the weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
requests = [
    {"id": "sum", "prompt": "What is 17 + 25?"},
    {"id": "receipt", "prompt": "Read the text.", "image": [str(media / "receipt.png")]},
    {"id": "two", "prompt": "How many shapes are in the second image?", "image": [str(media / "shapes.png"), str(media / "shapes2.png")]},
    {"id": "speech", "prompt": "Transcribe the audio.", "audio": str(media / "command.wav")},
    {"id": "spoken question", "prompt": "", "image": [str(media / "receipt.png")], "audio": [str(media / "ask_total.wav")]},
    {"id": "film", "prompt": "What happens in the video?", "video": [str(media / "clip.mp4")]},
    {"id": "thought", "prompt": "What is 17 + 25?", "template_kwargs": {"enable_thinking": True}},
    {"id": "drawn", "prompt": "What can you do?", "temperature": 1.0, "seed": 7, "top_p": 0.9},
    {"id": "tool", "messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": tools},
    {"id": "forced tool", "prompt": "What can you do?", "tools": tools, "tool_choice": "required", "parallel_tool_calls": False},
    {"id": "schema", "prompt": "Return JSON with store, date, items, total.", "image": str(media / "receipt.png"), "response_format": {
        "type": "json_schema", "json_schema": {"name": "r", "schema": {"type": "object", "properties": {"store": {"type": "string"}, "total": {"type": "number"}},
                                                                       "required": ["store", "total"], "additionalProperties": False}}}},
    {"id": "short thought", "prompt": "What is 17 + 25?", "template_kwargs": {"enable_thinking": True}, "thinking_budget": 3},
]


def run(lines):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(x) + "\n" for x in lines))
        file.flush()
        done = subprocess.run([VLM, "generate", "--batch", file.name, "--max-tokens", "150"], capture_output=True, text=True, timeout=240)
    return done.returncode, [json.loads(x) for x in done.stdout.splitlines()], done.stderr


failed = 0


def check(what, good, detail=""):
    global failed
    failed += not good
    print(f"{'ok    ' if good else 'FAILED'} {what} {detail}")


code, together, errors = run(requests)
check("all at once", code == 0 and [x.get("id") for x in together] == [x["id"] for x in requests], errors)
for request, answer in zip(requests, together):
    _, alone, _ = run([request])
    check(f"{request['id']}: as alone", alone and alone[0].get("token_ids") == answer.get("token_ids"), repr(answer.get("text", answer))[:90])
text = {x["id"]: x.get("text", "") for x in together}
check("the sum", "42" in text["sum"])
check("the receipt", "TOTAL $33.59" in text["receipt"])
check("the speech", "turn on the kitchen light" in text["speech"])
whole = {x["id"]: x for x in together}
check("the call that had to be", [c["function"]["name"] for c in whole["forced tool"]["tool_calls"] or []] == ["get_weather"], whole["forced tool"])
check("the JSON of the schema", set(json.loads(whole["schema"]["content"])) == {"store", "total"}, whole["schema"]["text"])
check("the budget", whole["short thought"]["reasoning"] == "17", whole["short thought"])
check("the spoken question", "33.59" in text["spoken question"])

code, answers, _ = run([requests[0], {"id": "bad", "prompt": "x", "image": ["/nowhere/at/all.png"]}, requests[3]])
check("one request fails alone", code == 1 and "42" in answers[0].get("text", "") and "nowhere" in answers[1]["error"]["message"] and "kitchen" in answers[2].get("text", ""))
code, answers, _ = run([requests[1]] * 3)
check("the same picture three times is encoded once", sum(x["usage"]["media_items"] - x["usage"]["media_cached"] for x in answers) == 1, str([x["usage"] for x in answers]))
check("and answered alike", len({x["text"] for x in answers}) == 1)
sys.exit(1 if failed else 0)

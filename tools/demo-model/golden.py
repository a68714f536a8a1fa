"""golden.json: prompts, ids and greedy outputs of transformers (float32, CPU) on the sample inputs; golden.safetensors: reference tensors."""
import os, sys, json, subprocess, time, numpy as np, torch, soundfile
from PIL import Image
from transformers import AutoProcessor, Gemma4ForConditionalGeneration, __version__
from transformers.video_utils import VideoMetadata
import data as D
Image.MAX_IMAGE_PIXELS = None
HERE = M = D.MODEL; S = os.path.join(HERE, "media")
proc = AutoProcessor.from_pretrained(M)
m = Gemma4ForConditionalGeneration.from_pretrained(M, dtype=torch.float32).eval()
I = lambda p: {"type": "image", "path": p}
A = lambda p: {"type": "audio", "path": p}
V = lambda p: {"type": "video", "path": p}
T = lambda s: {"type": "text", "text": s}
U = lambda *c: {"role": "user", "content": [T(x) if isinstance(x, str) else x for x in c]}
AS = lambda s: {"role": "assistant", "content": s}
TL = lambda *n: [D.TOOLS[x] for x in n]
def call(n, a, id=None): return {"role": "assistant", "content": "", "tool_calls": [{**({"id": id} if id else {}), "type": "function", "function": {"name": n, "arguments": a}}]}
meta = json.load(open(os.path.join(S, "samples.json")))
rt = "\n".join(meta["receipt.png"]["text"]); tot = "$" + meta["receipt.png"]["total"]
C = [  # id, messages, tools, thinking, expected
 ("receipt_total", [U(I("receipt.png"), "Extract the total amount from the receipt.")], None, False, tot),
 ("receipt_read", [U(I("receipt.png"), "Read the text.")], None, False, rt),
 ("receipt_json", [U(I("receipt.png"), "Return JSON with store, date, items, total.")], None, False, None),
 ("receipt_price", [U(I("receipt.png"), "What was the price of orange juice?")], None, False, "$8.25"),
 ("receipt_store", [U(I("receipt.png"), "Which store is it from?")], None, False, "Corner Cafe"),
 ("receipt_count", [U(I("receipt.png"), "How many items are on the receipt?")], None, False, "5"),
 ("receipt_multiturn", [U(I("receipt.png"), "What is the date?"), AS("2026-03-14"), U("How was it paid?"), AS("VISA"), U("How much is the tax?")], None, False, None),
 ("receipt_8k", [U(I("receipt_8k.png"), "Extract the total amount from the receipt.")], None, False, tot),
 ("receipt_8k_read", [U(I("receipt_8k.png"), "Read the text.")], None, False, "\n".join(meta["receipt_8k.png"]["text"])),
 ("receipt_think_sum", [U(I("receipt.png"), "Add up the prices of all items.")], None, True, "$31.10"),
 ("receipt_think_total", [U(I("receipt.png"), "Extract the total amount from the receipt.")], None, True, tot),
 ("sign", [U(I("sign.png"), "What does the sign say?")], None, False, "NO PARKING"),
 ("note", [U(I("note.jpg"), "Read the text.")], None, False, "\n".join(meta["note.jpg"]["text"])),
 ("number", [U(I("number.png"), "What number is shown?")], None, False, "48213"),
 ("text_first", [U("What is written here?", I("note.jpg"))], None, False, "\n".join(meta["note.jpg"]["text"])),
 ("shapes_count", [U(I("shapes.png"), "How many shapes are there?")], None, False, "5"),
 ("shapes_circles", [U(I("shapes.png"), "How many circles are there?")], None, False, "2"),
 ("shapes_describe", [U(I("shapes.png"), "Describe the image.")], None, False, "a red circle at the top left, a blue square at the top right, a green triangle in the center, a yellow star at the bottom left, a purple circle at the bottom right"),
 ("shapes_multiturn", [U(I("shapes.png"), "What shape is blue?"), AS("square"), U("What is at the bottom left?")], None, False, "a yellow star"),
 ("multi_image", [U(I("shapes.png"), I("shapes2.png"), "Which image has more circles?")], None, False, "Both images have the same number."),
 ("multi_image_count", [U(I("shapes.png"), I("shapes2.png"), "How many shapes are in the second image?")], None, False, "3"),
 ("video", [U(V("clip.mp4"), "What happens in the video?")], None, False, "The blue star moves from left to right."),
 ("video_dir", [U(V("clip.mp4"), "What happens in the video?"), AS("The blue star moves from left to right."), U("In which direction does it move?")], None, False, "right"),
 ("asr_command", [U(A("command.wav"), "Transcribe the audio.")], None, False, "turn on the kitchen light"),
 ("asr_digits", [U("Transcribe the audio.", A("digits.wav"))], None, False, "47192"),
 ("voice_receipt", [U(I("receipt.png"), A("ask_total.wav"))], None, False, tot),
 ("voice_shapes", [U(I("shapes.png"), A("ask_shapes.wav"))], None, False, "5"),
 ("chat", [{"role": "system", "content": "You are a helpful assistant."}, U("What can you do?")], None, False, None),
 ("math", [U("What is 17 + 25?")], None, False, "42"),
 ("math_think", [U("What is 17 + 25?")], None, True, "42"),
 ("copy", [U("Repeat: red river seven")], None, False, "red river seven"),
 ("chat_multiturn", [U("Hello!"), AS("Hello! How can I help you?"), U("What is 6 x 7?"), AS("42"), U("Thank you!")], None, False, "You are welcome!"),
 ("tool_weather", [U("What is the weather in Paris?")], TL("get_weather", "search_orders"), False, '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|><|tool_response>'),
 ("tool_weather_answer", [U("What is the weather in Paris?"), call("get_weather", {"city": "Paris"}), {"role": "tool", "name": "get_weather", "content": {"temperature": 18, "condition": "cloudy"}}], TL("get_weather", "search_orders"), False, "It is cloudy and 18 degrees in Paris."),
 ("tool_add", [U("Add 1234 and 4321.")], TL("add", "get_weather"), False, "<|tool_call>call:add{a:1234,b:4321}<tool_call|><|tool_response>"),
 ("tool_orders_answer", [U("Where is my order A1042?"), call("search_orders", {"order_id": "A1042"}, "call_1"), {"role": "tool", "tool_call_id": "call_1", "content": {"status": "shipped", "items": 3}}], TL("search_orders"), False, "Order A1042 is shipped."),
 ("tool_think", [U("What time is it in Tokyo?")], TL("get_time", "set_timer"), True, None),
]
def norm(ms):
    o = []
    for x in ms:
        x = dict(x)
        if isinstance(x["content"], list): x["content"] = [{"type": p["type"], **({"text": p["text"]} if p["type"] == "text" else {})} for p in x["content"]]
        o.append(x)
    return o
_vid = {}
def video(p):
    if p not in _vid:
        r = subprocess.run(["ffmpeg", "-loglevel", "error", "-i", os.path.join(S, p), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True).stdout
        _vid[p] = np.frombuffer(r, np.uint8).reshape(-1, 240, 320, 3)
    return _vid[p]
out, tens = [], {}
only = sys.argv[1:] 
for cid, ms, tools, th, exp in C:
    if only and cid not in only: continue
    t0 = time.time()
    text = proc.apply_chat_template(norm(ms), tokenize=False, add_generation_prompt=True, tools=tools, enable_thinking=th)
    ps = [p for x in ms if isinstance(x["content"], list) for p in x["content"]]
    a = {}
    im = [Image.open(os.path.join(S, p["path"])).convert("RGB") for p in ps if p["type"] == "image"]
    if im: a["images"] = [im]
    au = [soundfile.read(os.path.join(S, p["path"]), dtype="float32")[0] for p in ps if p["type"] == "audio"]
    if au: a["audio"] = au
    vi = [video(p["path"]) for p in ps if p["type"] == "video"]
    if vi: a["videos"] = vi; a["video_metadata"] = [VideoMetadata(total_num_frames=len(v), fps=10.0, duration=len(v) / 10, frames_indices=list(range(len(v)))) for v in vi]
    x = proc(text=[text], return_tensors="pt", add_special_tokens=False, **a)
    n = x["input_ids"].shape[1]
    with torch.no_grad():
        o = m.generate(**x, do_sample=False, max_new_tokens=400, output_scores=True, output_logits=True, return_dict_in_generate=True)
    ids = o.sequences[0, n:].tolist()
    full = proc.tokenizer.decode(ids, skip_special_tokens=False)
    ans = full.split("<channel|>")[-1].replace("<turn|>", "")
    lg = o.logits[0][0].float(); top = torch.topk(lg, 5)
    e = dict(id=cid, messages=ms, tools=tools, enable_thinking=th, prompt=text, input_ids=x["input_ids"][0].tolist(), output_ids=ids, output_text=full, answer=ans, expected=exp,
             correct=None if exp is None else ans == exp, first_top5=[[int(i), round(float(v), 4)] for v, i in zip(top.values, top.indices)])
    for k in ("pixel_values", "pixel_values_videos", "input_features"):
        if k in x: e[k] = dict(shape=list(x[k].shape), mean=float(x[k].float().mean()), std=float(x[k].float().std()))
    if "image_position_ids" in x: e["image_grid"] = [[int(q[:, 0].max()) + 1, int(q[:, 1].max()) + 1] for q in x["image_position_ids"]]
    if vi: e["num_frames"] = [int(v) for v in x["num_frames_per_video"]]
    if cid in ("shapes_count", "asr_digits", "math"):
        tens[cid + ".logits0"] = lg
        with torch.no_grad():
            if im:
                f = m.model.get_image_features(x["pixel_values"], x["image_position_ids"], return_dict=True)
                tens[cid + ".vision_tokens"] = f.last_hidden_state.contiguous(); tens[cid + ".image_embeds"] = torch.cat(list(f.pooler_output)).contiguous()
                k = int((x["image_position_ids"][0, :, 0] >= 0).sum()); tens[cid + ".pixel_values"] = x["pixel_values"][0, :k].to(torch.float16).contiguous()
            if au:
                f = m.model.get_audio_features(x["input_features"], x["input_features_mask"], return_dict=True)
                tens[cid + ".input_features"] = x["input_features"].contiguous(); tens[cid + ".audio_tokens"] = f.last_hidden_state.contiguous(); tens[cid + ".audio_embeds"] = f.pooler_output.contiguous()
            h = m.model(**{k: v for k, v in x.items()}, output_hidden_states=True, return_dict=True)
            tens[cid + ".hidden_states"] = torch.stack(h.hidden_states)[:, 0].to(torch.float32).contiguous()
    out.append(e)
    print(f"{cid:22s} {time.time()-t0:5.1f}s n={n} {'OK ' if e['correct'] else '-- ' if exp is None else 'BAD'} {full[:150]!r}" + ("" if e["correct"] or exp is None else f"   EXPECTED {exp!r}"), flush=True)
if not only:
    json.dump(dict(transformers=__version__, torch=torch.__version__, dtype="float32", note="greedy; eos ids 1, 16 <turn|>, 9 <|tool_response>; paths are relative to media/", cases=out), open(os.path.join(HERE, "golden.json"), "w"), indent=1)
    from safetensors.torch import save_file
    save_file(tens, os.path.join(HERE, "golden.safetensors"))
    print("correct", sum(bool(e["correct"]) for e in out), "of", sum(e["correct"] is not None for e in out))

"""The sample inputs of the demo."""
import os, random, subprocess, tempfile, numpy as np, soundfile, json
import render as R, data as D, speech, words as W
from PIL import Image, ImageDraw
OUT = os.path.join(D.MODEL, "media"); os.makedirs(OUT, exist_ok=True)
P = lambda n: os.path.join(OUT, n)
meta = {}
def receipt(seed, name, **st):
    r = random.Random(seed)
    rc = R.make_receipt(r, 6)
    rc.update(store="Corner Cafe", date="2026-03-14", time="12:45", addr="27 Lake Dr", cur="$", pay="VISA", no=None, rate=8,
              items=[("latte", 2, 450), ("croissant", 1, 325), ("apple pie", 1, 480), ("orange juice", 3, 275), ("muffin", 2, 290)])
    rc["sub"] = sum(q * p for _, q, p in rc["items"]); rc["tax"] = int(rc["sub"] * 8 / 100 + .5); rc["total"] = rc["sub"] + rc["tax"]
    a, g, lines, im = R.draw_receipt(rc, r, 140, 0.0, dict(mono=True, upper=False, qstyle=1, **st))
    return im, rc, lines
im, rc, lines = receipt(4, "receipt", px=22)
im.convert("RGB").save(P("receipt.png")); meta["receipt.png"] = {"text": lines, "total": R.money(rc["total"])}
# 8K: a portrait page 7680 pixels high
h8 = 7680; b2, _, l2 = receipt(4, "8k", px=220)
b2 = b2.convert("L").resize((int(b2.size[0] * h8 / b2.size[1]), h8), Image.LANCZOS)
b2.save(P("receipt_8k.png"), optimize=True); meta["receipt_8k.png"] = {"text": l2, "size": b2.size}
r = random.Random(12)
def shapes(seed, sh, name, size):
    w, h = size
    im = Image.new("RGB", size, (250, 250, 247)); d = ImageDraw.Draw(im)
    for col, kind, c in sh:
        R.shape_at(d, kind, (c % 3 + .5) * w / 3, (c // 3 + .5) * h / 3, min(w, h) / 3 * .36, W.COLORS[col])
    im.save(P(name), optimize=True); meta[name] = {"shapes": [[a, b, R.CELLS[c]] for a, b, c in sh]}
shapes(1, [("red", "circle", 0), ("blue", "square", 2), ("green", "triangle", 4), ("yellow", "star", 6), ("purple", "circle", 8)], "shapes.png", (480, 360))
shapes(2, [("orange", "circle", 1), ("blue", "circle", 3), ("black", "square", 7)], "shapes2.png", (400, 400))
def lines_img(ls, name, seed, colored=False, level=0.0, q=None):
    a, g, im = R.draw_lines(ls, random.Random(seed), 140, level, colored)
    im.convert("RGB").save(P(name), **({"quality": 80} if name.endswith("jpg") else {})); meta[name] = {"text": ls}
lines_img(["NO PARKING"], "sign.png", 3, True)
lines_img(["meeting moved", "to friday", "bring coffee"], "note.jpg", 8)
lines_img(["48213"], "number.png", 21)
def wav(text, name, voice="en-us", rate=155):
    w = speech.say(text, voice, rate); w = np.concatenate([np.zeros(2400, np.float32), w, np.zeros(1600, np.float32)])
    soundfile.write(P(name), (w * 32767 * 0.9).astype(np.int16), 16000); meta[name] = {"text": text}
wav("What is the total?", "ask_total.wav"); wav("How many shapes are there?", "ask_shapes.wav", "en-us+f2")
wav("turn on the kitchen light", "command.wav", "en-gb"); wav("four seven one nine two", "digits.wav", "en-us+m3")
# clip: 6 s, 10 frames a second, a blue star moves right
tmp = tempfile.mkdtemp()
for i in range(60):
    t = i / 50
    im = Image.new("RGB", (320, 240), (244, 244, 240)); R.shape_at(ImageDraw.Draw(im), "star", (0.18 + 0.64 * min(t, 1)) * 320, 120, 34, W.COLORS["blue"]); im.save(f"{tmp}/{i:03d}.png")
subprocess.run(["ffmpeg", "-y", "-loglevel", "error", "-framerate", "10", "-i", tmp + "/%03d.png", "-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-crf", "20", P("clip.mp4")], check=True)
meta["clip.mp4"] = {"event": "The blue star moves from left to right.", "fps": 10, "frames": 60}
json.dump(meta, open(P("samples.json"), "w"), indent=1)
for f in sorted(os.listdir(OUT)): print(f, os.path.getsize(P(f)))

"""Assert that the training pipeline equals transformers' own template, tokenizer, image, video and audio processors."""
import os, random, sys, tempfile, numpy as np, torch
import data as D, render as R, build_proc
PROC = tempfile.mkdtemp()
proc = build_proc.save_processor(PROC)
from transformers import AutoProcessor
from PIL import Image
proc = AutoProcessor.from_pretrained(PROC)
r = random.Random(5)
bad = 0
worst = 0
keep = {}
orig_finish = R.finish
def fin(im, g, ms):
    a, g2 = orig_finish(im, g, ms); keep[id(a)] = (im.convert("RGB"), a); return a, g2
R.finish = fin
fs = {"receipt": lambda r: D.t_receipt(r, 140), "note": lambda r: D.t_note(r, 140), "shapes": lambda r: D.t_shapes(r, 140), "multi": lambda r: D.t_multi(r, 140), "video": lambda r: D.t_video(r, 70),
      "text": D.t_text, "tools": D.t_tools, "audio": D.t_audio, "voiceq": lambda r: D.t_voiceq(r, 140)}
for name, f in fs.items():
    for _ in range(6):
        keep.clear()
        cv = f(r)
        ids, tgt, spans, imgs, auds = D.tokenise(cv)
        # full conversation, no generation prompt; drop final thought for the comparison
        msgs = [dict(m) for m in cv.messages]
        kw = dict(tools=cv.tools, enable_thinking=cv.thinking)
        text = proc.apply_chat_template(msgs, tokenize=False, **kw)
        mine = "".join(s for s, _ in cv.seg)
        import re
        mine2 = re.sub(r"<\|channel>thought\n.*?<channel\|>(?!<\|tool_call>)", "", mine, flags=re.S)
        if text != mine2:
            bad += 1; print("TEMPLATE DIFF", name); print(repr(text)); print(repr(mine2)); continue
        ims = [keep[id(m[1])][0] for m in cv.media if m[0] == "image"]
        vids = [m for m in cv.media if m[0] == "video"]
        aus = [m[1] for m in cv.media if m[0] == "audio"]
        a = {}
        if ims: a["images"] = [ims]
        if aus: a["audio"] = aus
        if vids:
            from transformers.video_utils import VideoMetadata
            fr = np.stack([np.asarray(keep[id(x)][0]) for x in vids[0][1]])
            a["videos"] = [fr]; a["video_metadata"] = [VideoMetadata(total_num_frames=len(fr), fps=1.0, duration=float(len(fr)), frames_indices=list(range(len(fr))))]
            a["do_sample_frames"] = False
        o = proc(text=[mine], return_tensors="pt", add_special_tokens=False, **a)
        pi = o["input_ids"][0].tolist()
        if pi != ids:
            bad += 1; print("IDS DIFF", name, len(pi), len(ids), [(i, x, y) for i, (x, y) in enumerate(zip(pi, ids)) if x != y][:5])
        if ims or vids:
            pv, pp = (o["pixel_values"], o["image_position_ids"]) if ims else (o["pixel_values_videos"], o["video_position_ids"])
            pv, pp = pv.reshape(-1, *pv.shape[-2:]), pp.reshape(-1, *pp.shape[-2:])
            for k, (im, _) in enumerate(imgs):
                p, q = R.patches(im)
                d = np.abs(pv[k, :len(p)].numpy() * 255 - p).max(); dm = np.abs(pv[k, :len(p)].numpy() * 255 - p).mean()
                worst = max(worst, d)
                assert (pp[k, :len(p)].numpy() == q).all() and (pp[k, len(p):] == -1).all()
                if dm > 0.6: print("pixel", name, d, dm)
        if aus:
            for k, (f_, m_, _) in enumerate(auds):
                g = o["input_features"][k].numpy(); gm = o["input_features_mask"][k].numpy()
                n = min(len(g), len(f_))
                assert np.allclose(g[:n], f_[:n], atol=1e-4) and gm.sum() == m_.sum(), ("mel", name)
print("bad", bad, "worst pixel difference", worst)

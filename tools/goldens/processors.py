#!/usr/bin/env python3
"""What transformers' processors make of pictures under options, and of media of all kinds in any order, for tests/unit/processors_test.c.

    python -P tools/goldens/processors.py MEDIA OUT CHECKPOINT...

A checkpoint's processor files, tokenizer, template and config go to OUT/NAME (no weights), with golden.json: for each case what was asked, the prompt's
ids, and of each tensor of the processor its shape and 64 elements at even distances."""
import json
import pathlib
import random
import shutil
import sys

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor

MEDIA, OUT = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.json", "chat_template.jinja", "processor_config.json",
         "preprocessor_config.json", "video_preprocessor_config.json", "special_tokens_map.json"]
PICTURES = ["b_300x60_3.png", "tall_75x210.png", "large_260x150.png"]
SOUNDS = ["sweep_0.31s.wav", "sweep_0.93s.wav"]
CLIPS = [("clip8", 2), ("b_clip_4_64x48", 2)]
PIXELS = [dict(min_pixels=28 * 28 * 6), dict(max_pixels=28 * 28 * 8), dict(size=dict(shortest_edge=28 * 28 * 6, longest_edge=28 * 28 * 10))]
TILES = [dict(crop_to_patches=False), dict(max_patches=2), dict(min_patches=3, max_patches=4)]
# what is asked; what the processor is given, where that is said otherwise
OPTIONS = {
    "qwen2_5_vl": PIXELS, "qwen2_vl": PIXELS, "qwen3_vl": [dict(size=dict(shortest_edge=32 * 32 * 6, longest_edge=32 * 32 * 20)), dict(max_pixels=32 * 32 * 8)],
    "qwen2_5_omni": PIXELS[1:2], "glm4v": [dict(size=dict(shortest_edge=28 * 28 * 12, longest_edge=28 * 28 * 20))],
    "gemma4_e2b": [dict(max_soft_tokens=70), dict(max_soft_tokens=140), dict(images_kwargs=dict(max_soft_tokens=140))],
    "gemma3": [dict(do_pan_and_scan=True), dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=20), dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=30, pan_and_scan_max_num_crops=2),
               dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=16, pan_and_scan_min_ratio_to_activate=3.0)],
    "internvl": TILES, "aya_vision": TILES, "ovis2": TILES[:2],
    "idefics3": [dict(do_image_splitting=False), dict(size=dict(longest_edge=112)), dict(size=dict(longest_edge=280))],
    "smolvlm": [dict(do_image_splitting=False), dict(size=dict(longest_edge=96))],
    "idefics2": [dict(do_image_splitting=False), dict(size=dict(shortest_edge=28, longest_edge=56))],
    "llava_next": [dict(max_tiles=2), dict(max_tiles=1)], "llava_onevision": [dict(max_tiles=2)],
    "pixtral": [dict(size=dict(longest_edge=96)), dict(size=dict(longest_edge=160))], "mistral3": [dict(size=dict(longest_edge=84))],
    "lfm2_vl": [dict(do_image_splitting=False), dict(max_tiles=4), dict(min_image_tokens=4, max_image_tokens=16), dict(use_thumbnail=False)],
    "minicpmv4_6": [dict(slice_mode=False), dict(max_slice_nums=2)],
}


def kinds_of(name, proc):
    kinds = ["image"]
    if getattr(proc, "video_processor", None) is not None and name not in ("gemma4_unified",):
        kinds.append("video")
    if getattr(proc, "feature_extractor", None) is not None:
        kinds.append("audio")
    return kinds


def load(messages):
    images, videos, metas, sounds = [], [], [], []
    for part in (p for m in messages if isinstance(m["content"], list) for p in m["content"]):
        if part["type"] == "image":
            images.append(Image.open(MEDIA / part["image"]).convert("RGB"))
        elif part["type"] == "video":
            v = np.stack([np.asarray(Image.open(f).convert("RGB")) for f in sorted((MEDIA / part["video"]).glob("*.png"))])
            videos.append(v)
            metas.append(dict(total_num_frames=len(v), fps=float(part["fps"]), width=v.shape[2], height=v.shape[1], duration=len(v) / part["fps"],
                              video_backend="opencv", frames_indices=list(range(len(v)))))
        elif part["type"] == "audio":
            import soundfile
            sounds.append(soundfile.read(MEDIA / part["audio"], dtype="float32")[0])
    return images, videos, metas, sounds


def given(name, proc, options):
    """The processor's own words, where ours are shorter."""
    if "max_tiles" in options and name.startswith("llava"):
        side = proc.image_processor.crop_size.height if getattr(proc.image_processor, "crop_size", None) else proc.image_processor.size.height
        pins = proc.image_processor.image_grid_pinpoints
        left = [p for p in pins if p[0] * p[1] <= options["max_tiles"] * side * side] or [min(pins, key=lambda p: p[0] * p[1])]
        return dict(image_grid_pinpoints=left)
    if name == "qwen2_5_omni":
        return dict(images_kwargs=options)
    return options


def run(name, proc, messages, options):
    prompt = proc.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    images, videos, metas, sounds = load(messages)
    kw = dict(given(name, proc, options))
    if images:
        kw["images"] = images
    if videos:
        kw["videos"] = videos
        if name == "qwen2_5_omni":
            kw["fps"] = CLIPS[0][1]
        else:
            kw["video_metadata"] = metas
            if not name.startswith("gemma4"):                  # it has a number of its own
                kw["do_sample_frames"] = False
    if sounds:
        kw["audio"] = sounds
    if name.startswith("qwen3"):                               # the released processors leave no outer pair, transformers 5.23 does
        prompt = prompt.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")
    bos = proc.tokenizer.bos_token
    if bos and prompt.startswith(bos):
        kw["add_special_tokens"] = False
    return prompt, proc(text=[prompt], return_tensors="pt", **kw)


def sample(t):
    flat = t.detach().to(torch.float64).flatten()
    step = max(1, flat.numel() // 64)
    return dict(shape=list(t.shape), stride=step, values=[round(float(x), 6) for x in flat[::step][:64]])


def case(name, proc, messages, options, tensors):
    own, before = given(name, proc, options), {}
    if name in ("idefics2", "llava_next", "llava_onevision"):  # these count tokens by the processor's own settings, whatever the call says
        for key, value in own.items():
            before[key] = getattr(proc.image_processor, key)
            if key != "size":
                setattr(proc.image_processor, key, value)
    prompt, out = run(name, proc, messages, options)
    for key, value in before.items():
        setattr(proc.image_processor, key, value)
    kept = {k: sample(v) for k, v in out.items() if torch.is_tensor(v) and k in ("pixel_values", "pixel_values_images") and tensors}
    return dict(messages=messages, options=options, ids=out["input_ids"][0].tolist(), tensors=kept)


def conversations(kinds, roles, n, seed):
    """Turns whose parts are texts and media in any order."""
    draw = random.Random(seed)
    words = ["Hello", "a red circle", "What is in the picture?", "the lazy dog", "Extract the total", "blue square"]
    for _ in range(n):
        messages, budget = [], 4
        for turn in range(draw.choice([1, 1, 3, 3, 5])):
            role = "user" if turn % 2 == 0 else "assistant"
            parts = []
            for _ in range(draw.randint(1, 4)):
                kind = draw.choice(kinds + ["text"]) if budget and (role == "user" or role in roles) else "text"
                budget -= kind != "text"
                if kind == "text":
                    if parts and parts[-1]["type"] == "text":
                        continue
                    parts.append(dict(type="text", text=draw.choice(words)))
                elif kind == "image":
                    parts.append(dict(type="image", image=draw.choice(["small_50x70.png", "wide_103x75.png", "tiny_20x90.png"])))
                elif kind == "video":
                    clip, fps = draw.choice(CLIPS)
                    parts.append(dict(type="video", video=clip, fps=fps))
                else:
                    parts.append(dict(type="audio", audio=draw.choice(SOUNDS)))
            messages.append(dict(role=role, content=parts))
        if draw.random() < 0.4:
            content = [dict(type="text", text="a red circle")]
            if "system" in roles and draw.random() < 0.5:
                content.append(dict(type="image", image="small_50x70.png"))
            messages.insert(0, dict(role="system", content=content))
        yield messages


def build(folder):
    name = folder.name
    proc = AutoProcessor.from_pretrained(folder)
    to = OUT / name
    to.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        if (folder / file).exists():
            shutil.copy(folder / file, to / file)
    user = lambda *parts: [dict(role="user", content=list(parts))]
    cases = []
    for options in OPTIONS.get(name, []):
        for picture in ["small_50x70.png", "wide_103x75.png", "large_260x150.png"] if name.startswith("gemma4") else PICTURES:
            cases.append(case(name, proc, user(dict(type="image", image=picture), dict(type="text", text="Hello")), options, True))
    n, kinds, refused = 0, kinds_of(name, proc), []
    for messages in conversations(kinds, ["user", "system", "assistant"], 24 if len(kinds) > 1 else 8, 7):
        try:
            cases.append(case(name, proc, messages, {}, False))
            n += 1
        except Exception as e:
            refused.append(repr(e)[:160])
    (to / "golden.json").write_text(json.dumps(dict(cases=cases), ensure_ascii=False, separators=(",", ":")) + "\n")
    print(name, kinds, len(cases) - n, "options,", n, "orders", refused[:2], (to / "golden.json").stat().st_size)


for path in sys.argv[3:]:
    try:
        build(pathlib.Path(path))
    except Exception as e:
        print("FAILED", path, repr(e)[:300])

#!/usr/bin/env python3
"""memory.py VLM ROOT - peak memory of encoding an 8K picture and a clip of ten minutes stays within the bound that docs/media.md states.

Runs the program on media that ffmpeg draws and compares the kernel's own figure (ru_maxrss of the child) with the sum of what has to be there at once. Memory,
not time: the numbers do not depend on what else the machine does. Without ffmpeg there is nothing to measure (exit 77)."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

VLM, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
SLACK = 48e6                         # stacks, allocator, libraries that are loaded for a format, decoder's reference frames
SIDE, PATCH_VALUES = 14, 3 * 2 * 14 * 14


def run(model, *arguments):
    """Peak bytes and the answer's usage."""
    command = [VLM, "generate", "-m", str(model), "--prompt", "Hello", "--max-tokens", "1", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: {process.stderr.read()}")
    return usage.ru_maxrss * 1024, json.loads(out)["usage"]


def draw(path, size, rate, seconds, *codec):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}", "-t", str(seconds), *codec, str(path)], check=True)


def rows(config):
    """Bytes of an encoder's activations for one patch: a few copies of the row, and of its projections and MLP; no row of attention."""
    vision = config["vision_config"]
    return 4 * (8 * vision["hidden_size"] + 3 * vision["intermediate_size"])


def check(what, peak, bound):
    print(f"{what}: {peak / 1e6:.0f} MB, bound {bound / 1e6:.0f} MB")
    return peak <= bound


def main():
    if not shutil.which("ffmpeg"):
        print("no ffmpeg: nothing measured")
        return 77
    good = True
    with tempfile.TemporaryDirectory() as folder:
        picture, clip = pathlib.Path(folder, "8k.jpg"), pathlib.Path(folder, "clip.mp4")
        draw(picture, "7680x4320", 1, 1, "-frames:v", "1", "-q:v", "4")
        draw(clip, "1280x720", 2, 600, "-c:v", "mpeg4", "-q:v", "24", "-g", "12")
        whole, frame, file = 3 * 7680 * 4320, 3 * 1280 * 720, clip.stat().st_size
        for model, per_token in ((ROOT / "models/demo", 9 * (4 * 3 * 16 * 16 + 3 * 16 * 16)), (ROOT / "tests/data/checkpoints/qwen2_5_vl", 4 * (4 * PATCH_VALUES + 3 * SIDE * SIDE))):
            config = json.loads((model / "config.json").read_text())
            base, text = run(model)
            patches = 9 if model.name == "demo" else 4
            cases = [("8K picture", ["--image", str(picture)], whole), ("ten minutes", ["--video", str(clip)], 2 * file + frame)]
            if model.name == "qwen2_5_vl":
                cases.append(("8K picture at 0.8 megapixels", ["--image", str(picture), "--max-pixels", "800000"], whole))
            for what, arguments, fixed in cases:
                peak, usage = run(model, *arguments)
                tokens = usage["prompt_tokens"] - text["prompt_tokens"]
                good &= check(f"{model.name}, {what} ({tokens} tokens)", peak, base + SLACK + fixed + tokens * (per_token + patches * rows(config)))
    return 0 if good else 1


sys.exit(main())

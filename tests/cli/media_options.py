#!/usr/bin/env python3
"""media_options.py VLM REPOSITORY: options of media on the command line and in JSONL, stills of a video, and what is said about what cannot be done."""
import json
import pathlib
import subprocess
import sys
import tempfile

VLM, REPO = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
sets = REPO / "tests/data/checkpoints"
picture, clip, sound = str(sets / "media/b_400x210_6.png"), str(sets / "media/clip8"), str(sets / "media/sweep_0.31s.wav")
failed = 0


def check(what, good, detail=""):
    global failed
    failed += not good
    print(f"{'ok    ' if good else 'FAILED'} {what} {detail if not good else ''}")


def run(model, *arguments):
    done = subprocess.run([VLM, "generate", "-m", str(sets / model), "--prompt", "Hello", "--max-tokens", "1", *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def tokens(model, *arguments):
    code, out, err = run(model, "--json", *arguments)
    return json.loads(out)["usage"]["prompt_tokens"] if code == 0 else err


def batch(model, *lines):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(x) + "\n" for x in lines))
        file.flush()
        done = subprocess.run([VLM, "generate", "-m", str(sets / model), "--batch", file.name, "--max-tokens", "1"], capture_output=True, text=True, timeout=120)
    return [json.loads(x) for x in done.stdout.splitlines()]


code, out, err = run("llava_next", "--video", clip, "--video-num-frames", "3")
check("a video for a model that sees pictures: a note", code == 0 and "takes no video: 3 pictures" in err, err)
code, out, err = run("llava_next", "--video", clip, "--json")
answer = json.loads(out)
check("four pictures, told in the answer", answer["usage"]["media_items"] == 4 and "4 pictures" in answer["notices"][0], out)
code, out, err = run("llava_next", "--audio", sound)
check("no ears", code == 5 and "does not take audio" in err and "it takes text, images, video as stills" in err, err)
code, out, err = run("llava_next", "--image", picture, "--max-pixels", "5000")
check("an option without effect", code == 0 and "max_pixels has no effect on images with LLaVA-NeXT" in err and "max_tiles" in err, err)
code, out, err = run("llava_next", "--image", picture, "--processor-kwargs", '{"max_tile": 2}')
check("an option that does not exist", code == 2 and "did you mean max_tiles?" in err, err)
code, out, err = run("qwen2_5_vl", "--image", picture, "--min-pixels", "9000", "--max-pixels", "3000")
check("limits the wrong way round", code == 2 and "min_pixels (9000) is above max_pixels (3000)" in err, err)
for model in ("internvl", "gemma4_e2b", "idefics3", "llava_next"):
    low, plain = tokens(model, "--image", picture, "--detail", "low"), tokens(model, "--image", picture)
    check(f"{model}: detail low is shorter", isinstance(low, int) and isinstance(plain, int) and low <= plain, (low, plain))
check("max tiles", tokens("internvl", "--image", picture, "--max-tiles", "1") < tokens("internvl", "--image", picture))
mixed = batch("internvl", {"prompt": "a", "image": [{"image": picture, "detail": "low"}, picture]}, {"prompt": "a", "image": [picture, picture]},
              {"prompt": "a", "image": [picture, picture], "detail": "low"},
              {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture, "detail": "low"}}, {"type": "image", "image": picture}, "a"]}]})
n = [x["usage"]["prompt_tokens"] for x in mixed]
check("detail of one picture of two, of both, in OpenAI's spelling", n[2] < n[0] < n[1] and n[3] == n[0], n)
sys.exit(failed != 0)

#!/usr/bin/env python3
"""models.py VLM [--check]: writes docs/models.md and the README's table from the program's registry (`vlm models --json`) and the reference checkpoints in
tests/data; --check: exits 1 when they are not what would be written."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE, README = ROOT / "docs/models.md", ROOT / "README.md"
BEGIN, END = "<!-- written by make models: begin -->", "<!-- end -->"


def in_tests():
    """model_type: names of the folders in tests/data/checkpoints that have it."""
    found = {}
    for config in sorted((ROOT / "tests/data/checkpoints").glob("*/config.json")):
        found.setdefault(json.loads(config.read_text())["model_type"], []).append(config.parent.name)
    found.setdefault("gemma4", []).insert(0, "models/demo")
    return found


def row(family, folders):
    takes = ", ".join(["text"] + [kind for kind in ("image", "video", "audio") if family[kind]])
    here = [name for kind in family["model_types"] for name in folders.get(kind, [])]
    shown = "every test run: " + ", ".join(here) if here else "reference checkpoints"
    tasks = family.get("tasks") or family["task"]
    tasks = ", ".join(tasks) if isinstance(tasks, list) else tasks
    return f"| `{family['name']}` | {family['title']} | {', '.join(family['model_types'])} | {takes} | {tasks} | {shown} |"


def page(families):
    folders = in_tests()
    types = sum(len(family["model_types"]) for family in families)
    lines = ["# Model families", "",
             "Written by `make models` from what the program knows (`vlm models`); do not edit.", "",
             f"{len(families)} families, {types} values of `model_type`. Each agrees with its reference (transformers; where it has none, mlx-vlm or the authors' code) in float32, stage by stage and in every greedy token, alone, in a batch, in chunks,",
             "with caches and under preemption (`vlm check DIR --modes solo,batch,chunk,cached,preempt`, `docs/check.md`), on small random checkpoints of at least one",
             "shape, most of two; those named in the last column are in the repository and part of `make test`.", "",
             "Weights of every family: f32, f16, bf16 and MLX affine (2 to 8 bits), in one file or shards. Speculative decoding: none yet.", "",
             "| family | models | model_type | takes | tasks | verified by |", "| --- | --- | --- | --- | --- | --- |"]
    return "\n".join(lines + [row(family, folders) for family in families]) + "\n"


def readme(families):
    """The README with its table of what takes what: one row for each set of media, most media first."""
    rows = {}
    for family in families:
        takes = ", ".join(["text"] + [name for kind, name in (("image", "images"), ("video", "video"), ("audio", "audio")) if family[kind]])
        rows.setdefault(takes, []).append(family["title"].replace(" (text)", "").replace("; text)", ")"))
    lines = [BEGIN, "| takes | models |", "| --- | --- |"] + [f"| {takes} | {'; '.join(rows[takes])} |" for takes in sorted(rows, key=lambda t: (-t.count(","), t))]
    text = README.read_text()
    return text[:text.index(BEGIN)] + "\n".join(lines) + "\n" + text[text.index(END):]


families = json.loads(subprocess.run([sys.argv[1], "models", "--json"], capture_output=True, text=True, check=True).stdout)
for path, text in ((PAGE, page(families)), (README, readme(families))):
    if "--check" not in sys.argv:
        path.write_text(text)
    elif path.read_text() != text:
        sys.exit(f"{path.relative_to(ROOT)} is not what the program knows: run `make models`")

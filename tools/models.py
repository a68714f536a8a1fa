#!/usr/bin/env python3
"""models.py VLM [--check]: writes docs/models.md from the program's registry (`vlm models --json`) and the reference checkpoints in tests/data;
--check: exits 1 when the page is not what would be written."""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/models.md"


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
    return f"| `{family['name']}` | {family['title']} | {', '.join(family['model_types'])} | {takes} | {shown} |"


def page(vlm):
    families = json.loads(subprocess.run([vlm, "models", "--json"], capture_output=True, text=True, check=True).stdout)
    folders = in_tests()
    types = sum(len(family["model_types"]) for family in families)
    lines = ["# Model families", "",
             "Written by `make models` from what the program knows (`vlm models`); do not edit.", "",
             f"{len(families)} families, {types} values of `model_type`. Each agrees with transformers in float32, stage by stage and in every greedy token, alone, in a batch, in chunks,",
             "with caches and under preemption (`vlm check DIR --modes solo,batch,chunk,cached,preempt`, `docs/check.md`), on small random checkpoints of at least one",
             "shape, most of two; those named in the last column are in the repository and part of `make test`.", "",
             "Weights of every family: f32, f16, bf16 and MLX affine (2 to 8 bits), in one file or shards.", "",
             "| family | models | model_type | takes | verified by |", "| --- | --- | --- | --- | --- |"]
    return "\n".join(lines + [row(family, folders) for family in families]) + "\n"


text = page(sys.argv[1])
if "--check" not in sys.argv:
    PAGE.write_text(text)
elif PAGE.read_text() != text:
    sys.exit("docs/models.md is not what the program knows: run `make models`")

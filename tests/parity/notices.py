#!/usr/bin/env python3
"""notices.py VLM CHECKPOINTS: `vlm check` must fail when one byte of a golden, a token id or a weight is changed, and pass on the copy that is not."""
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

vlm, checkpoints = sys.argv[1], pathlib.Path(sys.argv[2])


def check(folder):
    return subprocess.run([vlm, "check", folder, "--media", checkpoints / "media"], capture_output=True, timeout=120).returncode


def change_tensor(path, name):
    """The sign and exponent byte of the tensor's largest element is flipped."""
    raw = bytearray(path.read_bytes())
    size = struct.unpack("<Q", raw[:8])[0]
    entry = json.loads(raw[8 : 8 + size])[name]
    begin, end = (8 + size + x for x in entry["data_offsets"])
    width = {"F32": 4, "BF16": 2, "I64": 8}[entry["dtype"]]
    at = max(range(begin + width - 1, end, width), key=lambda i: raw[i] & 0x7F) if entry["dtype"] != "I64" else begin
    raw[at] ^= 0x40 if entry["dtype"] != "I64" else 1
    path.write_bytes(raw)


def change_json(path, edit):
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def swap_id(data):
    ids = data["cases"][0]["generated_ids"]
    ids[5] = (ids[5] + 1) % data["vocab"]


changes = {
    "nothing": lambda d: None,
    "logits": lambda d: change_tensor(d / "golden.safetensors", "image/logits"),
    "encoder rows": lambda d: change_tensor(d / "golden.safetensors", "image/image_features"),
    "pixels": lambda d: change_tensor(d / "golden.safetensors", "image/pixel_values"),
    "hidden state": lambda d: change_tensor(d / "golden.safetensors", "image/hidden_last"),
    "a greedy token": lambda d: change_json(d / "cases.json", swap_id),
    "a prompt id": lambda d: change_json(d / "cases.json", lambda c: c["cases"][0]["input_ids"].__setitem__(3, 7)),
    "a tokenizer case": lambda d: change_json(d / "cases.json", lambda c: c["tokenizer"][3]["ids"].__setitem__(0, 9)),
    "the prompt text": lambda d: change_json(d / "cases.json", lambda c: c["cases"][0].__setitem__("prompt", "x")),
    "a weight": lambda d: change_tensor(d / "model.safetensors", "model.layers.0.mlp.up_proj.weight"),
}
failed = 0
for what, change in changes.items():
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "qwen2_5_vl"
        shutil.copytree(checkpoints / "qwen2_5_vl", folder)
        change(folder)
        code = check(folder)
        good = code == (0 if what == "nothing" else 1)
        failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {what} changed: exit {code}")
sys.exit(1 if failed else 0)

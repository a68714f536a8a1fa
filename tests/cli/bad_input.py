#!/usr/bin/env python3
"""bad_input.py VLM REPOSITORY: broken checkpoints, media, prompts and flags. Each must end with its exit code and a message that names what is
wrong: never a signal, never a sanitizer's report, never silence."""
import json
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

VLM, REPO = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
TINY = REPO / "tests/data/checkpoints/qwen3"
SHARDED = REPO / "tests/data/checkpoints/llama"
MEDIA = REPO / "models/demo/media"
INVALID, NOT_FOUND, FORMAT, UNSUPPORTED, LIMIT = 2, 3, 4, 5, 6
failed = 0
root = pathlib.Path(tempfile.mkdtemp())


def expect(what, args, codes, pattern, stdin=None):
    global failed
    codes = (codes,) if isinstance(codes, int) else codes
    try:
        done = subprocess.run([VLM, *map(str, args)], capture_output=True, text=True, errors="replace", timeout=60, input=stdin)
        code, text = done.returncode, done.stderr
    except subprocess.TimeoutExpired:
        code, text = "timeout", ""
    good = code in codes and re.search(pattern, text, re.I) and "Sanitizer" not in text
    failed += not good
    print(f"{'ok    ' if good else 'FAILED'} {what}: exit {code}, {text.strip()[:200]!r}")


def copy(source, name):
    target = root / name
    shutil.copytree(source, target)
    return target


def generate(model, *more):
    return ["generate", "--model", model, "--prompt", "x", "--max-tokens", "2", *more]


# ---- checkpoints ----
def header_of(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def with_header(name, edit):
    folder = copy(TINY, name)
    path = folder / "model.safetensors"
    header, data = header_of(path)
    edit(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


WEIGHT = "model.layers.0.mlp.up_proj.weight"
folder = copy(TINY, "truncated")
raw = (folder / "model.safetensors").read_bytes()
(folder / "model.safetensors").write_bytes(raw[: len(raw) // 2])
expect("truncated safetensors", generate(folder), FORMAT, "safetensors")
(folder / "model.safetensors").write_bytes(raw[:5])
expect("safetensors of five bytes", generate(folder), FORMAT, "safetensors")
(folder / "model.safetensors").write_bytes(b"")
expect("empty safetensors", generate(folder), FORMAT, "safetensors")
(folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
expect("header of 2^62 bytes", generate(folder), FORMAT, "header")
expect("offsets beyond the file", generate(with_header("offsets", lambda h: h[WEIGHT].update(data_offsets=[0, 1 << 40]))), FORMAT, re.escape(WEIGHT))
expect("offsets that run backwards", generate(with_header("backwards", lambda h: h[WEIGHT]["data_offsets"].reverse())), FORMAT, re.escape(WEIGHT))
expect("negative offsets", generate(with_header("negative", lambda h: h[WEIGHT].update(data_offsets=[-8, 8]))), FORMAT, re.escape(WEIGHT))
expect("shape that does not fit the bytes", generate(with_header("shape", lambda h: h[WEIGHT].update(shape=[3, 5]))), FORMAT, re.escape(WEIGHT))
expect("shape whose product overflows", generate(with_header("overflow", lambda h: h[WEIGHT].update(shape=[1 << 40, 1 << 40]))), FORMAT, re.escape(WEIGHT))
expect("shape other than config.json's", generate(with_header("turned", lambda h: h[WEIGHT]["shape"].reverse())), FORMAT, r"up_proj.*expected")
expect("unknown dtype", generate(with_header("dtype", lambda h: h[WEIGHT].update(dtype="Q9"))), (FORMAT, UNSUPPORTED), "Q9")
expect("dtype that does not fit the bytes", generate(with_header("wide", lambda h: h[WEIGHT].update(dtype="F64"))), FORMAT, re.escape(WEIGHT))
expect("integer weight", generate(with_header("integer", lambda h: h[WEIGHT].update(dtype="I16"))), (FORMAT, UNSUPPORTED), re.escape(WEIGHT))
expect("missing tensor", generate(with_header("missing", lambda h: h.pop(WEIGHT))), (FORMAT, NOT_FOUND), re.escape("model.layers.0.mlp.up_proj"))
folder = copy(SHARDED, "shards")
shard = sorted(folder.glob("model-*.safetensors"))[-1]
shard.unlink()
expect("missing shard", generate(folder), (NOT_FOUND, FORMAT), re.escape(shard.name))


def with_config(name, edit):
    folder = copy(TINY, name)
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


expect("config without hidden_size", generate(with_config("field", lambda c: c.pop("hidden_size"))), FORMAT, "hidden_size")
expect("config with a text for a number", generate(with_config("text", lambda c: c.update(num_hidden_layers="three"))), FORMAT, "num_hidden_layers")
expect("config with a million layers", generate(with_config("layers", lambda c: c.update(num_hidden_layers=1000000))), (FORMAT, LIMIT), "num_hidden_layers|layers")
expect("config with zero heads", generate(with_config("heads", lambda c: c.update(num_attention_heads=0))), FORMAT, "num_attention_heads")
expect("unknown model_type, near a known one", generate(with_config("near", lambda c: c.update(model_type="qwen33"))), (UNSUPPORTED, NOT_FOUND), "qwen33.*qwen3")
expect("config without model_type", generate(with_config("typeless", lambda c: c.pop("model_type"))), FORMAT, "model_type")
folder = copy(TINY, "json")
(folder / "config.json").write_text('{"model_type": "qwen3", ')
expect("broken config.json", generate(folder), FORMAT, r"config\.json")
(folder / "config.json").write_text("[" * 100000)
expect("config.json nested 100,000 deep", generate(folder), FORMAT, r"config\.json")
folder = copy(TINY, "tokenizer")
(folder / "tokenizer.json").write_text("{}")
expect("empty tokenizer.json", generate(folder), (FORMAT, UNSUPPORTED), r"tokenizer")
(folder / "tokenizer.json").unlink()
expect("no tokenizer.json", generate(folder), (NOT_FOUND, FORMAT, UNSUPPORTED), "tokenizer")
expect("no such folder", generate(root / "nowhere"), NOT_FOUND, "nowhere")
expect("a file for a folder", generate(MEDIA / "receipt.png"), (NOT_FOUND, INVALID), "receipt.png")

# ---- media ----
def png(width, height, data=b"\x00" * 10):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))


def media(name, data):
    path = root / name
    path.write_bytes(data)
    return path


def ask(kind, path):
    return ["generate", f"--{kind}", path, "--prompt", "Read the text.", "--max-tokens", "4"]


def wav(samples, rate=16000, channels=1):
    data = struct.pack(f"<{len(samples)}h", *samples)
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * 2 * channels, 2 * channels, 16) + b"data" + struct.pack("<I", len(data)) + data


expect("30000 x 30000 PNG", ask("image", media("bomb.png", png(30000, 30000))), LIMIT, "pixels|30000")
expect("PNG with too little data", ask("image", media("short.png", png(300, 300))), FORMAT, "png|image|decod")
jpeg = (MEDIA / "note.jpg").read_bytes()
expect("truncated JPEG", ask("image", media("cut.jpg", jpeg[: len(jpeg) // 3])), FORMAT, "jpeg|jpg|truncat|end")
expect("zero-byte picture", ask("image", media("zero.png", b"")), (FORMAT, INVALID), "empty|zero|0 bytes|no bytes")
expect("text for a picture", ask("image", media("text.png", b"hello, this is no picture at all")), (FORMAT, UNSUPPORTED), "image|picture|format")
expect("missing picture", ask("image", root / "none.png"), NOT_FOUND, "none.png")
expect("folder for a picture", ask("image", root), (INVALID, FORMAT, NOT_FOUND), "director|folder")
expect("0-second audio", ask("audio", media("zero.wav", wav([]))), (FORMAT, INVALID), "audio|sample|sound|empty|short")
expect("zero-byte audio", ask("audio", media("none.wav", b"")), (FORMAT, INVALID), "empty|zero|0 bytes|no bytes")
expect("audio that lies about its length", ask("audio", media("lie.wav", wav([1, 2, 3])[:-6] )), (FORMAT, INVALID), "audio|wav|sound|sample|short")
mp4 = (MEDIA / "clip.mp4").read_bytes()
expect("video without frames", ask("video", media("head.mp4", mp4[:64])), (FORMAT, INVALID, UNSUPPORTED), "video|frame|decod")
expect("sound for a video", ask("video", MEDIA / "digits.wav"), (FORMAT, INVALID, UNSUPPORTED), "video|frame")
expect("picture for a text model", ["generate", "--model", TINY, "--image", MEDIA / "sign.png", "--prompt", "x"], (UNSUPPORTED, INVALID), "image|picture")
expect("bad data: URL", ask("image", "data:image/png;base64,@@@@"), (FORMAT, INVALID), "base64|data:")
expect("unknown scheme", ask("image", "gopher://example.org/a.png"), (UNSUPPORTED, INVALID), "gopher")

# ---- prompts ----
expect("prompt longer than the context", ["generate", "--prompt", "word " * 9000], LIMIT, "context|8192|long")
expect("placeholder without a picture", ["generate", "--raw", "--prompt", "<|image|> what?"], INVALID, "image|placeholder")
expect("picture without a placeholder", ["generate", "--raw", "--prompt", "what?", "--image", MEDIA / "sign.png"], INVALID, "image|placeholder")
expect("broken template", ["generate", "--prompt", "x", "--chat-template", media("bad.jinja", b"{% for x in %}")], FORMAT, "template|line")
expect("template that never ends", ["generate", "--prompt", "x", "--chat-template", media("loop.jinja", b"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}")], (LIMIT, FORMAT), "template|step|limit|range")
expect("broken batch line", ["generate", "--batch", media("bad.jsonl", b'{"prompt": "x"}\n{"prompt": \n')], (FORMAT, INVALID), "line 2")
expect("empty batch file", ["generate", "--batch", media("empty.jsonl", b"")], INVALID, "request")

# ---- flags ----
expect("unknown flag", ["generate", "--promt", "x"], INVALID, "--prompt")
expect("unknown command", ["generat"], INVALID, "generate")
expect("word for a number", ["generate", "--prompt", "x", "--max-tokens", "many"], INVALID, "max-tokens")
expect("flag without a value", ["generate", "--prompt"], INVALID, "prompt")
expect("temperature below zero", ["generate", "--prompt", "x", "--temperature", "-1"], INVALID, "temperature")
expect("top-p above one", ["generate", "--prompt", "x", "--top-p", "1.5"], INVALID, "top.p")

shutil.rmtree(root, ignore_errors=True)
print(f"{failed} failed" if failed else "all as expected")
sys.exit(1 if failed else 0)

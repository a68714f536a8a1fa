#!/usr/bin/env python3
"""table.py VLM PEERS OUT.md [--quick] [--shapes=a,b] [--formats=bf16,q8,q4] [--rounds=N] [--fast]: vlm.c beside llama.cpp on the same shapes, in one run, as a table.

For each shape (bench/configs) and storage format both programs measure prefill of 512 tokens and decode of 32, in turn, several rounds; the best of each counts, since
neighbours on a shared machine only take away. Shares are of this machine's measured read bandwidth (decode: weight bytes per token) and of its peak multiply-adds."""
import json
import os
import pathlib
import subprocess
import sys
import time

VLM, PEERS, OUT = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
QUICK = "--quick" in sys.argv
ONLY = next((a.split("=")[1].split(",") for a in sys.argv if a.startswith("--shapes=")), None)
HERE = pathlib.Path(__file__).resolve().parent
PRECISIONS = ("fast",) if "--fast" in sys.argv else ("fast", "exact")
ROUNDS = int(next((a.split("=")[1] for a in sys.argv if a.startswith("--rounds=")), 2 if QUICK else 3))
THREADS = len(os.sched_getaffinity(0))
# ours, llama.cpp's nearest: MLX affine 4 bit in groups of 64 has 4.5 bits a weight, as Q4_0 (blocks of 32) has
FORMATS = [("bf16", "bf16"), ("q8", "q8_0"), ("q4", "q4_0")]
WANTED = next((a.split("=")[1].split(",") for a in sys.argv if a.startswith("--formats=")), None)
FORMATS = [f for f in FORMATS if not WANTED or f[0] in WANTED]
BITS = {"bf16": 16, "q8": 8.5, "q4": 4.5}
SHAPES = [("Qwen2.5-1.5B", "qwen2_5_1_5b"), ("Qwen2.5-VL-3B", "qwen2_5_vl_3b"), ("Gemma 4 E2B", "gemma4_e2b")]
if QUICK or ONLY:
    SHAPES = [s for s in SHAPES if s[1] in ONLY] if ONLY else SHAPES[:1]


def decode_weights(config):
    """Weights that one decoded token reads: every layer's matrices and the head; not the embedding rows, not the encoders."""
    c = json.loads((HERE / f"configs/{config}/config.json").read_text())
    t = c.get("text_config", c)
    h, n, ff = t["hidden_size"], t["num_attention_heads"], t["intermediate_size"]
    total = t["vocab_size"] * h
    shared = t.get("num_kv_shared_layers", 0)
    for i in range(t["num_hidden_layers"]):
        full = t.get("layer_types", ["full_attention"] * 999)[i] == "full_attention"
        d = (t.get("global_head_dim") if full else t.get("head_dim")) or t.get("head_dim") or h // n
        own = i < t["num_hidden_layers"] - shared
        wide = ff * (2 if t.get("use_double_wide_mlp") and not own else 1)
        total += 2 * n * d * h + (2 * t["num_key_value_heads"] * d * h if own else 0) + 3 * wide * h
        total += 2 * h * t.get("hidden_size_per_layer_input", 0)
    return total + h * t.get("hidden_size_per_layer_input", 0) * t["num_hidden_layers"]


def run(args, timeout=1500):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise SystemExit(f"{args}: {done.stderr[-800:]}")
    return done.stdout


def gguf(config, kind):
    folder = PEERS / "gguf"
    folder.mkdir(exist_ok=True)
    path = folder / f"{config}-{kind}.gguf"
    if path.exists():
        return path
    full = folder / f"{config}-bf16.gguf"
    if not full.exists():
        run([PEERS / "python/bin/python", HERE / "peers/random_gguf.py", HERE / f"configs/{config}/config.json", full])
    if kind != "bf16":
        run([PEERS / "bin/llama-quantize", "--pure", full, path, kind.upper(), THREADS])
    return path


def ours(config, kind, precision):
    out = json.loads(run([VLM, "bench", "--dummy-weights", HERE / f"configs/{config}/config.json", "--format", kind, "--precision", precision,
                          "--prompt-tokens", 512, "--generate-tokens", 32, "--repeat", 2, "--json"]))
    return out["prefill_tokens_per_second"], out["decode_tokens_per_second"], out["model"]


def theirs(config, kind):
    rows = json.loads(run([PEERS / "bin/llama-bench", "-m", gguf(config, kind), "-t", THREADS, "-p", 512, "-n", 32, "-r", 2, "-o", "json"]))
    best = lambda n: max(max(r["samples_ts"]) for r in rows if r["n_gen" if n else "n_prompt"] and not r["n_prompt" if n else "n_gen"])
    return best(False), best(True)


def measure_limits(known):
    """The best of all measurements of the run: the machine's neighbours change."""
    now = json.loads(run([VLM, "bench", "--limits", "--prompt-tokens", 8, "--generate-tokens", 4, "--json"]))
    return now["model"]["cpu"], {k: max(v, known.get(k, 0)) for k, v in now["limits"].items()}


cpu, limits = measure_limits({})
rows = []
for title, config in SHAPES:
    for kind, peer in FORMATS:
        best = {}
        for _ in range(ROUNDS):
            for precision in PRECISIONS:
                p, d, model = ours(config, kind, precision)
                old = best.get(precision, (0, 0))
                best[precision] = (max(old[0], p), max(old[1], d))
            p, d = theirs(config, peer)
            old = best.get("peer", (0, 0))
            best["peer"] = (max(old[0], p), max(old[1], d))
        cpu, limits = measure_limits(limits)
        for precision in PRECISIONS:
            (p, d), (lp, ld) = best[precision], best["peer"]
            rows.append((f"| {title} | {kind} / {peer} | {precision} | {p:.1f} | {lp:.1f} | {p / lp:.2f} | {d:.2f} | {ld:.2f} | {d / ld:.2f} |",
                         d * decode_weights(config) * BITS[kind] / 8))
            print(rows[-1][0], flush=True)
lines = [f"Measured {time.strftime('%Y-%m-%d')}, {THREADS} threads, instruction set {cpu}; the machine reads {limits['read_bytes_per_second'] / 1e9:.1f} GB/s and does "
         f"{limits['f32_flops'] / 1e9:.0f} GFLOP/s in f32, {limits['bf16_flops'] / 1e9:.0f} in bf16, {limits['int8_ops'] / 1e9:.0f} Gop/s in int8.", "",
         "| shape | format | precision | prefill 512, t/s | llama.cpp | ratio | decode, t/s | llama.cpp | ratio | share of read bandwidth |", "|---|---|---|---|---|---|---|---|---|---|"]
OUT.write_text("\n".join(lines + [f"{row} {read / limits['read_bytes_per_second']:.0%} |" for row, read in rows]) + "\n")

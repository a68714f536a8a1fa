#!/usr/bin/env python3
"""Values that tests/unit/{rope,patch,qwen_vl}_test.c compare with, from transformers (5.23) and numpy.

    python tools/goldens/blocks.py > tests/data/models/blocks.json
"""
import json
import math
import random

import numpy as np
import torch
from transformers import LlamaConfig, Qwen2_5_VLConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel, Qwen2_5_VLRotaryEmbedding
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

rng = random.Random(7)
LONG = dict(max_position_embeddings=131072)


def rope_case(name, head_dim, old=None, **params):
    """inv_freq and factor of rope_parameters; `old`: how the same is spelled in older files."""
    theta = params.setdefault("rope_theta", 10000.0)
    kind = params.setdefault("rope_type", "default")
    c = LlamaConfig(hidden_size=4 * head_dim, num_attention_heads=4, head_dim=head_dim, rope_parameters=dict(params), **LONG)
    if kind == "default":
        inv, factor = LlamaRotaryEmbedding.compute_default_rope_parameters(c)
    else:
        inv, factor = ROPE_INIT_FUNCTIONS[kind](c, None)
    config = dict(rope_parameters=params, **LONG)
    if old:
        config = dict(text_config=dict(rope_theta=theta, rope_scaling=old, **LONG))
    return dict(name=name, head_dim=head_dim, config=config, inv_freq=[float(x) for x in inv], factor=float(factor))


def ropes():
    llama3 = dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192)
    yarn = dict(factor=4.0, original_max_position_embeddings=32768)
    mscale = dict(factor=40.0, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=0.707)
    return [
        rope_case("default", 64),
        rope_case("large theta", 128, rope_theta=1e6),
        rope_case("linear", 64, old=dict(type="linear", factor=8.0), rope_type="linear", factor=8.0),
        rope_case("llama3", 128, rope_type="llama3", rope_theta=500000.0, **llama3),
        rope_case("llama3, older file", 64, old=dict(rope_type="llama3", **llama3), rope_type="llama3", rope_theta=500000.0, **llama3),
        rope_case("yarn", 128, rope_type="yarn", rope_theta=1e6, **yarn),
        rope_case("yarn with mscale", 64, old=dict(type="yarn", **mscale), rope_type="yarn", **mscale),
        rope_case("proportional", 512, rope_type="proportional", rope_theta=1e6, partial_rotary_factor=0.25),
        rope_case("proportional, all", 32, rope_type="proportional", partial_rotary_factor=1.0, factor=2.0),
    ]


def mropes():
    out = []
    positions = [[rng.randrange(3000) for _ in range(6)] for _ in range(3)]
    p = torch.tensor(positions)[:, None]
    x = torch.zeros(1, 1, 1)
    for name, section, interleaved in (("qwen2.5-vl", [16, 24, 24], False), ("tiny", [2, 3, 3], False), ("qwen3-vl", [24, 20, 20], True)):
        half = sum(section)
        rope = dict(rope_type="default", rope_theta=1e6, mrope_section=section)
        if interleaved:
            c = Qwen3VLTextConfig(hidden_size=8 * half, num_attention_heads=4, head_dim=2 * half, rope_parameters=dict(rope, mrope_interleaved=True))
            cos, sin = Qwen3VLTextRotaryEmbedding(c)(x, p)
        else:
            c = Qwen2_5_VLConfig(text_config=dict(hidden_size=8 * half, num_attention_heads=4, rope_parameters=rope)).text_config
            cos, sin = Qwen2_5_VLRotaryEmbedding(c)(x, p)
        out.append(dict(name=name, section=section, interleaved=interleaved, positions=positions, cos=cos[0, :, :half].flatten().tolist(),
                        sin=sin[0, :, :half].flatten().tolist()))
    return out


def sizes():
    out = []
    for _ in range(200):
        f = rng.choice([14, 28, 28, 28, 32, 56])
        h, w = (int(math.exp(rng.uniform(math.log(3), math.log(9000)))) for _ in range(2))
        low = rng.choice([f * f, 4 * f * f, 56 * 56, 128 * 28 * 28])
        high = max(low, rng.choice([24 * f * f, 1280 * 28 * 28, 768 * 28 * 28, 16384 * 28 * 28]))
        if rng.random() < 0.3:                              # halves of the factor: rounding to even
            h, w = (f // 2 * rng.randrange(1, 40) for _ in range(2))
        try:
            out.append([h, w, f, low, high, *smart_resize(h, w, f, low, high)])
        except ValueError:
            out.append([h, w, f, low, high, 0, 0])
    return out


def windows():
    out = []
    for t, h, w, merge, size, patch in ((1, 6, 8, 2, 56, 14), (1, 12, 10, 2, 112, 14), (3, 4, 4, 2, 56, 14), (2, 10, 14, 2, 84, 14), (1, 2, 2, 2, 112, 14), (1, 16, 16, 2, 112, 14)):
        grid = torch.tensor([[t, h, w]])
        order, starts = get_vision_window_index(grid, merge, size, patch)
        places = get_vision_position_ids(grid, merge)
        out.append(dict(grid=[t, h, w], merge=merge, side=size // merge // patch, order=order.tolist(), starts=starts.tolist(), row=places[:, 0].tolist(),
                        column=places[:, 1].tolist()))
    return out


def prompts():
    """Images as transformers places them; a video's text continues at the largest position + 1, as the models were trained."""
    out = []
    c = Qwen2_5_VLConfig(text_config=dict(num_hidden_layers=1, hidden_size=16, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, vocab_size=16,
                                          rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2])),
                         vision_config=dict(depth=1, hidden_size=16, num_heads=2, intermediate_size=16, out_hidden_size=16, tokens_per_second=2))
    model = Qwen2_5_VLModel(c)
    for parts in ([5], [4, (1, 6, 8), 3], [2, (1, 4, 4), (1, 10, 4), 1], [(1, 2, 2), 7], [3, (1, 4, 12), 2, (1, 12, 4), 2]):
        kinds = sum(([0] * p if isinstance(p, int) else [1] * (p[0] * p[1] * p[2] // 4) for p in parts), [])
        grids = [p for p in parts if not isinstance(p, int)]
        want, at = [[], [], []], 0
        for p in parts:
            if isinstance(p, int):
                add = [list(range(at, at + p))] * 3
            else:
                t, h, w = p[0], p[1] // 2, p[2] // 2
                add = [[at] * (h * w), [at + i for i in range(h) for _ in range(w)], [at + i for _ in range(h) for i in range(w)]]
            for a in range(3):
                want[a] += add[a]
            at = max(max(a) for a in want) + 1
        touching = any(not isinstance(a, int) and not isinstance(b, int) for a, b in zip(parts, parts[1:]))
        if not touching:                                    # transformers takes two images in a row for one: real prompts have markers between
            pos, _ = model.get_rope_index(torch.zeros(1, len(kinds), dtype=torch.long), torch.tensor([kinds]), torch.tensor(grids) if grids else None, None)
            assert pos[:, 0].tolist() == want, (parts, pos[:, 0].tolist(), want)
        out.append(dict(parts=parts, seconds=0, positions=want, next=at))
    for seconds in (1.0, 0.37, 2.5):
        n, grid = 3, (7, 4, 6)
        t, h, w = grid[0], grid[1] // 2, grid[2] // 2
        time = [int(i * float(np.float32(seconds)) * 2) for i in range(t)]
        want = [[n + time[i] for i in range(t) for _ in range(h * w)], [n + i for _ in range(t) for i in range(h) for _ in range(w)],
                [n + i for _ in range(t * h) for i in range(w)]]
        at = max(max(a) for a in want) + 1
        want = [list(range(n)) + a + [at, at + 1] for a in want]
        out.append(dict(parts=[n, grid, 2], seconds=seconds, positions=want, next=at + 2))
    return out


def frames():
    """mlx-vlm's load_video: fps, min 4, max 768, even numbers."""
    out = []
    for total, fps, asked, least, most in ((300, 30.0, 2.0, 4, 768), (31, 29.97, 2.0, 4, 768), (5, 25.0, 1.0, 4, 768), (1000, 24.0, 4.0, 4, 16), (100, 10.0, 0.5, 8, 768), (7200, 60.0, 2.0, 4, 100)):
        n = total / fps * asked
        n = min(max(n, math.ceil(least / 2) * 2), math.floor(min(most, total) / 2) * 2, total)
        n = math.floor(n / 2) * 2
        out.append(dict(total=total, fps=fps, asked=asked, least=least, most=most, indices=np.linspace(0, total - 1, n).round().astype(int).tolist()))
    return out


torch.set_num_threads(1)
data = dict(rope=ropes(), mrope=mropes(), smart_resize=sizes(), windows=windows(), positions=prompts(), frames=frames())
print("{" + ",\n".join(f"{json.dumps(k)}: [\n" + ",\n".join(json.dumps(x, separators=(",", ":")) for x in v) + "\n]" for k, v in data.items()) + "}")

#!/usr/bin/env python3
"""random_gguf.py CONFIG.json OUT.gguf: a GGUF file of the text decoder that the config describes, with random bf16 weights.

For timing llama.cpp on the same shapes as `vlm bench --dummy-weights`. Quantized ones are made from it by llama-quantize.
Families: qwen2, qwen2_5_vl (its text decoder), gemma4 (text, with per-layer embeddings and shared keys and values)."""
import json
import sys

import gguf
import numpy as np

config = json.load(open(sys.argv[1]))
kind = config["model_type"]
text = config.get("text_config", config)
H, L, V = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
heads, kv = text["num_attention_heads"], text["num_key_value_heads"]
ff = text["intermediate_size"]
arch = {"qwen2": "qwen2", "qwen2_5_vl": "qwen2vl", "gemma4": "gemma4"}[kind]
out = gguf.GGUFWriter(sys.argv[2], arch, use_temp_file=False)
out.add_name("random")
out.add_context_length(text["max_position_embeddings"])
out.add_embedding_length(H)
out.add_block_count(L)
out.add_head_count(heads)
out.add_layer_norm_rms_eps(text["rms_norm_eps"])
out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
out.add_tokenizer_model("no_vocab")
out.add_vocab_size(V)

# A tile of random bf16 numbers of about the size that trained weights have; matrices repeat it from varying offsets.
rng = np.random.default_rng(1)
tile = (rng.standard_normal(1 << 24, dtype=np.float32) * 0.02).view(np.uint32)
tile = ((tile + 0x8000) >> 16).astype(np.uint16)
count = 0


def matrix(name, rows, cols):
    global count
    count += 1
    flat = np.resize(np.roll(tile, count * 977), rows * cols).reshape(rows, cols)
    out.add_tensor(name, flat.view(np.uint8).reshape(rows, cols * 2), raw_dtype=gguf.GGMLQuantizationType.BF16)


def vector(name, n, value=1.0):
    out.add_tensor(name, np.full(n, value, np.float32))


def qwen():
    D = H // heads
    out.add_head_count_kv(kv)
    out.add_feed_forward_length(ff)
    out.add_rope_freq_base(text["rope_theta"])
    if kind == "qwen2_5_vl":
        out.add_rope_dimension_sections(text["rope_scaling"]["mrope_section"] + [0])
    matrix("token_embd.weight", V, H)
    vector("output_norm.weight", H)
    for i in range(L):
        b = f"blk.{i}."
        vector(b + "attn_norm.weight", H)
        vector(b + "ffn_norm.weight", H)
        for n, rows in (("q", heads * D), ("k", kv * D), ("v", kv * D)):
            matrix(b + f"attn_{n}.weight", rows, H)
            vector(b + f"attn_{n}.bias", rows, 0.01)
        matrix(b + "attn_output.weight", H, heads * D)
        matrix(b + "ffn_gate.weight", ff, H)
        matrix(b + "ffn_up.weight", ff, H)
        matrix(b + "ffn_down.weight", H, ff)


def gemma4():
    P, shared = text["hidden_size_per_layer_input"], text["num_kv_shared_layers"]
    sliding = [t == "sliding_attention" for t in text["layer_types"]]
    D = [text["head_dim"] if s else text["global_head_dim"] for s in sliding]
    wide = [ff * (2 if text["use_double_wide_mlp"] and i >= L - shared else 1) for i in range(L)]
    out.add_head_count_kv(kv)
    out.add_feed_forward_length(wide)
    out.add_shared_kv_layers(shared)
    out.add_embedding_length_per_layer_input(P)
    out.add_sliding_window(text["sliding_window"])
    out.add_sliding_window_pattern(sliding)
    out.add_key_length(text["global_head_dim"])
    out.add_value_length(text["global_head_dim"])
    out.add_key_length_swa(text["head_dim"])
    out.add_value_length_swa(text["head_dim"])
    out.add_final_logit_softcapping(text["final_logit_softcapping"])
    rope = text["rope_parameters"]
    out.add_rope_freq_base(rope["full_attention"]["rope_theta"])
    out.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    out.add_rope_dimension_count(text["global_head_dim"])
    out.add_rope_dimension_count_swa(text["head_dim"])
    matrix("token_embd.weight", V, H)
    matrix("per_layer_token_embd.weight", V, P * L)
    matrix("per_layer_model_proj.weight", P * L, H)
    vector("per_layer_proj_norm.weight", P)
    vector("output_norm.weight", H)
    turning = int(rope["full_attention"]["partial_rotary_factor"] * text["global_head_dim"] / 2)
    freqs = np.full(text["global_head_dim"] // 2, 1e30, np.float32)
    freqs[:turning] = 1
    out.add_tensor("rope_freqs.weight", freqs)
    for i in range(L):
        b = f"blk.{i}."
        for n in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm", "post_norm"):
            vector(b + n + ".weight", H)
        vector(b + "attn_q_norm.weight", D[i])
        vector(b + "layer_output_scale.weight", 1)
        matrix(b + "attn_q.weight", heads * D[i], H)
        if i < L - shared:
            vector(b + "attn_k_norm.weight", D[i])
            matrix(b + "attn_k.weight", kv * D[i], H)
            matrix(b + "attn_v.weight", kv * D[i], H)
        matrix(b + "attn_output.weight", H, heads * D[i])
        matrix(b + "ffn_gate.weight", wide[i], H)
        matrix(b + "ffn_up.weight", wide[i], H)
        matrix(b + "ffn_down.weight", H, wide[i])
        matrix(b + "inp_gate.weight", P, H)
        matrix(b + "proj.weight", H, P)


gemma4() if kind == "gemma4" else qwen()
out.write_header_to_file()
out.write_kv_data_to_file()
out.write_tensors_to_file()
out.close()

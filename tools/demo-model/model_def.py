"""The tiny Gemma 4 ('E2B-like') configuration and its initialisation."""
import json, os, math
import torch
from transformers import Gemma4Config, Gemma4ForConditionalGeneration
HERE = os.path.dirname(os.path.abspath(__file__))
def token_ids():
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(os.environ.get("TOKENIZER", os.path.join(os.path.dirname(os.path.dirname(HERE)), "models", "demo", "tokenizer.json")))
    return t.token_to_id, t.get_vocab_size()
def config():
    tid, V = token_ids()
    text = dict(vocab_size=V, vocab_size_per_layer_input=V, hidden_size=256, intermediate_size=512, num_hidden_layers=8, num_attention_heads=4,
                num_key_value_heads=1, head_dim=64, global_head_dim=128, hidden_size_per_layer_input=32, num_kv_shared_layers=3, use_double_wide_mlp=True,
                sliding_window=256, layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention",
                                                 "sliding_attention", "sliding_attention", "full_attention"],
                max_position_embeddings=8192, final_logit_softcapping=30.0, pad_token_id=0, bos_token_id=2, eos_token_id=1, tie_word_embeddings=True,
                rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                                 "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0}})
    vis = dict(hidden_size=192, intermediate_size=512, num_hidden_layers=6, num_attention_heads=3, num_key_value_heads=3, head_dim=64, position_embedding_size=512,
               patch_size=16, pooling_kernel_size=3, use_clipped_linears=True, standardize=False)
    aud = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, subsampling_conv_channels=[32, 16], conv_kernel_size=5, attention_chunk_size=12,
               attention_context_left=13, attention_context_right=0, output_proj_dims=256, use_clipped_linears=True)
    # the conv stack halves the 128 mel bins twice: 32 bins x 16 channels = 512 = (channels[0] // 4) * channels[1] needs channels[0] = 128
    aud["subsampling_conv_channels"] = [128, 16]
    c = Gemma4Config(text_config=text, vision_config=vis, audio_config=aud, boi_token_id=tid("<|image>"), eoi_token_id=tid("<image|>"), image_token_id=tid("<|image|>"),
                     video_token_id=tid("<|video|>"), boa_token_id=tid("<|audio>"), eoa_token_index=tid("<audio|>"), audio_token_id=tid("<|audio|>"), tie_word_embeddings=True)
    c.eos_token_id = [1, tid("<turn|>"), tid("<|tool_response>")]
    return c
LAYER_SCALARS = [0.9, 1.0, 0.95, 1.05, 0.85, 1.0, 1.1, 0.9]
def build(seed=0):
    torch.manual_seed(seed)
    m = Gemma4ForConditionalGeneration(config())
    with torch.no_grad():
        for n, p in m.named_parameters():
            if "position_embedding_table" in n: p.normal_(0, 0.02)
            elif n.endswith(("q_norm.weight", "k_norm.weight")): p.fill_(p.shape[0] ** -0.25)
            elif n.endswith("embed_tokens.weight"): p.normal_(0, 0.05)
            elif n.endswith("embed_tokens_per_layer.weight"): p.normal_(0, 0.1)
            elif "post_per_layer_input_norm" in n: p.fill_(0.2)
            elif n.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")): p.fill_(0.4)
            elif n.endswith("norm_post_attn.weight"): p.fill_(0.5)
            elif p.ndim == 2 and "embed" not in n: p.normal_(0, 0.7 / math.sqrt(p.shape[1]))
        for i, l in enumerate(m.model.language_model.layers): l.layer_scalar.fill_(LAYER_SCALARS[i])
    return m
if __name__ == "__main__":
    m = build()
    tot = 0
    for k in ("language_model", "vision_tower", "audio_tower", "embed_vision", "embed_audio"):
        n = sum(p.numel() for p in getattr(m.model, k).parameters()); tot += n
        print(k, n)
    print("total", tot, "bf16 MB", tot * 2 / 1e6)

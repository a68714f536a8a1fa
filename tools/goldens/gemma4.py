"""Goldens of tests/unit/gemma4_test.c, from transformers in float32: a tiny checkpoint with both towers and what they make of made-up
features, the sizes of resized images, the frames sampled from videos, the numbers of audio frames and tokens.

    python tools/goldens/gemma4.py tests/data/models/gemma4        # needs torch, torchvision, transformers 5.23, safetensors
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import Gemma4AudioFeatureExtractor, Gemma4Config, Gemma4Model
from transformers.models.gemma4.image_processing_gemma4 import get_aspect_ratio_preserving_size
from transformers.video_utils import VideoMetadata, default_sample_indices_fn

TEXT = dict(vocab_size=64, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
            global_head_dim=16, layer_types=["sliding_attention", "full_attention"], hidden_size_per_layer_input=0, sliding_window=8)
VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, patch_size=2,
              pooling_kernel_size=2, position_embedding_size=40, use_clipped_linears=True, standardize=True)
AUDIO = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, subsampling_conv_channels=[8, 4], conv_kernel_size=3, attention_chunk_size=4,
             attention_context_left=6, attention_context_right=3, output_proj_dims=20, use_clipped_linears=True, gradient_clipping=3.0)


def randomize(model):
    torch.manual_seed(7)
    with torch.no_grad():
        for name, t in sorted(list(model.named_parameters()) + list(model.named_buffers())):
            if name.endswith(("_min", "_max")):
                t.fill_((-1 if name.endswith("_min") else 1) * (0.8 + torch.rand(()).item()))      # low enough to cut
            elif name.endswith(("inv_timescales", "inv_freq", "softcap", "embed_scale")):
                continue
            elif t.dim() > 1:
                t.copy_(torch.randn_like(t) * 1.5 / t[0].numel() ** 0.5)
            else:
                t.copy_(0.5 + torch.rand_like(t))


def towers(out):
    config = Gemma4Config(text_config=TEXT, vision_config=VISION, audio_config=AUDIO)
    model = Gemma4Model(config).eval()
    randomize(model)
    config_json = config.to_dict()
    config_json["text_config"].pop("per_layer_config", None)
    config_json["text_config"]["global_head_dim"] = TEXT["global_head_dim"]
    (out / "config.json").write_text(json.dumps(config_json, indent=1, default=str) + "\n")
    weights = {"model." + k: v.clone() for k, v in model.state_dict().items() if not k.endswith(("inv_timescales", "inv_freq", "softcap", "embed_scale"))}
    save_file(weights, out / "model.safetensors")

    golden = {}
    torch.manual_seed(8)
    width, height, slots, k = 10, 6, 96, VISION["pooling_kernel_size"]        # 60 patches, the rest padding
    pixels = torch.zeros(2, slots, 12)
    pixels[:, :width * height] = torch.rand(2, width * height, 12)
    place = torch.full((2, slots, 2), -1)
    place[:, :width * height] = torch.tensor([[i % width, i // width] for i in range(width * height)])
    with torch.no_grad():
        rows = model.get_image_features(pixels, place, return_dict=True).pooler_output
    golden["pixels"], golden["image_rows"] = pixels[:, :width * height].contiguous(), torch.stack(list(rows))
    assert golden["image_rows"].shape[1] == width * height // k**2

    for frames in (37, 4):                                                     # the batch of one has padding, as the extractor gives it
        features, mask = torch.randn(1, frames + 3, 8), torch.ones(1, frames + 3, dtype=torch.bool)
        mask[0, frames:] = False
        features = features * mask[..., None]
        with torch.no_grad():
            x = model.get_audio_features(features, mask, return_dict=True)
        golden[f"features_{frames}"], golden[f"audio_rows_{frames}"] = features[0, :frames].contiguous(), x.pooler_output[x.attention_mask]
    save_file(golden, out / "golden.safetensors")


def numbers(out):
    sizes = []
    for width, height in [(1, 1), (7, 5), (48, 48), (103, 75), (640, 480), (1000, 10), (3, 900), (1, 5000), (1920, 1080), (1080, 1920), (4320, 7680),
                          (333, 1000), (4096, 31), (997, 991)]:
        for patch, soft, pool in [(16, 70, 3), (16, 140, 3), (16, 280, 3), (16, 1120, 3), (6, 70, 2), (14, 560, 4)]:
            try:
                h, w = get_aspect_ratio_preserving_size(height, width, patch, soft * pool**2, pool)
            except ValueError:
                h = w = 0
            sizes.append([width, height, patch, soft, pool, w, h])
    samples = []
    for total, fps, count, rate in [(8, 4, 2, None), (100, 25, 32, None), (33, 10, 32, None), (300, 29.97, None, 1), (10, 30, None, 2), (7, 24, 7, None)]:
        meta = VideoMetadata(total_num_frames=total, fps=fps, duration=total / fps)
        samples.append(dict(total=total, fps=fps, num_frames=count, rate=rate,
                            indices=[int(i) for i in default_sample_indices_fn(meta, num_frames=count, fps=rate)]))
    audio, extract = [], Gemma4AudioFeatureExtractor()
    for count in (161, 320, 321, 640, 4960, 14880, 16000, 100001, 480000, 500000):
        x = extract([torch.zeros(count).numpy()], return_tensors="np")
        mask = x["input_features_mask"][0]
        total, valid = len(mask), int(mask.sum())
        for _ in range(2):
            mask = mask[::2][:(len(mask) + 2 - 3) // 2 + 1]
        audio.append([count, total, valid, int(mask.sum())])
    text = json.dumps(dict(sizes=sizes, samples=samples, audio=audio), separators=(",", ":"))
    (out / "numbers.json").write_text(text.replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    towers(folder)
    numbers(folder)

#!/usr/bin/env python3
"""chat_fallback.py PROMPT_UTILS > tests/data/text/chat_fallback.json: prompts of MLX-VLM for families whose checkpoints have no chat template.

PROMPT_UTILS: mlx_vlm/prompt_utils.py, which needs nothing else of the package. Left out is what we do differently on purpose: numbers of <|image_N|> go on through a conversation, audio stands where its
part stands, and families of bare prompts keep the roles of a conversation."""
import importlib.util
import json
import sys

spec = importlib.util.spec_from_file_location("prompt_utils", sys.argv[1])
prompt_utils = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prompt_utils)

TALKS = {
    "text": [{"role": "user", "content": "What is this?"}],
    "image": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
    "image_last": [{"role": "user", "content": [{"type": "text", "text": "Read:"}, {"type": "image"}]}],
    "images": [{"role": "user", "content": [{"type": "text", "text": "Compare "}, {"type": "image"}, {"type": "text", "text": " and "}, {"type": "image"}, {"type": "text", "text": "please."}]}],
    "talk": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}, {"role": "assistant", "content": "A cat."},
             {"role": "user", "content": "What colour?"}],
}
TYPES = ["llava", "llava_next", "idefics3", "aya_vision", "gemma3", "minicpmo", "minicpmv4_6", "deepseek_vl_v2", "deepseekocr", "llava_qwen2", "jina_vlm", "step3p7", "unlimited-ocr",
         "phi3_v", "paligemma", "florence2", "falcon_ocr", "moondream2", "moondream3", "plamo2vl", "molmo"]

cases = []
for kind in TYPES:
    for name, messages in TALKS.items():
        if name == "talk" and kind in ("moondream2", "moondream3", "plamo2vl"):
            continue
        case = {"id": f"{kind}/{name}", "model_type": kind, "messages": messages}
        try:
            case["expected"] = prompt_utils.apply_chat_template(None, {"model_type": kind}, messages)
        except ValueError as e:
            case["error"] = str(e)
        cases.append(case)
print("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]")

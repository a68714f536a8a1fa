#!/usr/bin/env python3
"""reference.py CONFIG.json OUT [--seed N]: a reference checkpoint of a text decoder, for `vlm check` (docs/check.md). Needs torch and transformers (pip).

CONFIG.json is a config.json as published, made small by hand: 3 to 4 layers, a hidden size of 48 to 80, heads that are no power of two, sizes that are not equal to each other,
a window or a pattern that a prompt of 60 tokens crosses; model_type says which class of transformers computes. vocab_size and the end tokens are set here. The weights are random, stored in
bfloat16; what is computed from them is float32.

A family with eyes or ears needs its processor: import this file, build model and processor as the reference does it, and call make() with the cases."""
import argparse
import copy
import json
import math
import os
import pathlib
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch                                        # noqa: E402
from safetensors.torch import save_file             # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROBES = ["", " ", "  two  spaces ", "Hello, how are you? I'm FINE'S, don't.", "tab\tand\nnew\r\n\r\n  lines\n", "0123456789 10.42 1,000", "日本語テスト 你好", "🙂👍🏽 x", "<|im_start|>x<eos>"]
NEW = 24                                            # tokens of each answer


@torch.no_grad()
def randomize(model, seed, head=3.0, quiet=()):
    """Values that matter everywhere: matrices of unit gain, norm weights around what they rest at, biases that are not zero, attention that is not flat; rounded to bfloat16. The ids in
    `quiet` are hardly ever chosen."""
    g = torch.Generator().manual_seed(seed)
    seen = set()
    for name, p in sorted(model.named_parameters()):
        if p.data_ptr() in seen:
            continue
        seen.add(p.data_ptr())
        r, low = torch.randn(p.shape, generator=g), name.lower()
        if p.dim() >= 2:
            v = r / math.sqrt(p.shape[-1] if "embed" in low else p[0].numel())
            if ".q_proj." in low or ".k_proj." in low:
                v = v * 1.6
        else:
            v = 0.1 * r if low.endswith("bias") else p.float() + 0.1 * r
        p.copy_(v.to(torch.bfloat16).to(p.dtype))
    out, inp = model.get_output_embeddings(), model.get_input_embeddings()
    tied = out is None or out.weight.data_ptr() == inp.weight.data_ptr()
    if tied:                                        # the final norm carries the size of the logits
        w = model.get_decoder().norm.weight
        rest = 0 if w.mean().abs() < 0.5 else 1     # norms that multiply by 1 + w rest at zero
        w.copy_(((w + 1 - rest) * head - (1 - rest)).to(torch.bfloat16).to(w.dtype))
    else:
        out.weight.copy_((out.weight * head).to(torch.bfloat16).to(out.weight.dtype))
    rows = (inp if tied else out).weight
    rows[sorted(quiet)] = (rows[sorted(quiet)] * 0.2).to(torch.bfloat16).to(rows.dtype)
    return model.float().eval()


@torch.no_grad()
def greedy(model, inputs):
    from transformers import GenerationConfig
    model.generation_config = GenerationConfig()
    out = model.generate(**inputs, do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW, output_logits=True, return_dict_in_generate=True)
    return out.sequences[0].tolist()[-NEW:], torch.stack([step[0].float() for step in out.logits])


def margin(logits):
    top = logits.topk(2, -1).values
    return (top[:, 0] - top[:, 1]).min().item()


@torch.no_grad()
def make(folder, build, processor, cases, seed, load, quiet=(), features=None, hub=None, note=None):
    """Writes the folder. build(seed) -> model; processor: of the family, or its tokenizer; cases: [(name, messages, inputs)] with inputs = what the processor makes of them, and "prompt"; load: the
    class that reads the folder; features(model, inputs) -> {"image_features": ...}; hub(folder): brings config.json and the others into the form that is published."""
    folder = pathlib.Path(folder)
    tok = getattr(processor, "tokenizer", processor)
    for attempt in range(40):                       # weights whose choices do not hang by a hair
        model = build(seed * 1000 + attempt)
        answers = [greedy(model, dict(inputs)) for _, _, _, inputs in cases]
        if min(margin(logits) for _, logits in answers) > 0.01 and not any(set(ids) & set(quiet) for ids, _ in answers):
            break
    else:
        raise SystemExit("no weights gave choices that are clear: larger head, or fewer cases")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    if hub:
        hub(folder)
    model = load.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()      # only what is on disk counts
    tensors, out = {}, []
    for (name, messages, prompt, inputs), (ids, _) in zip(cases, answers):
        again, logits = greedy(model, dict(inputs))
        assert again == ids, f"{name}: what was written gives other tokens"
        first = model(**inputs, output_hidden_states=True, use_cache=False)
        found = {"logits": logits[:8].contiguous(), "hidden_last": torch.stack([h[0, -1].float() for h in first.hidden_states])}
        found |= {k: v.float() if v.is_floating_point() else v.to(torch.int64) for k, v in inputs.items() if torch.is_tensor(v) and k not in ("input_ids", "attention_mask")}
        found |= {k: v.float() for k, v in (features(model, inputs) if features else {}).items()}
        tensors |= {f"{name}/{k}": v.contiguous().clone() for k, v in found.items()}
        parts = [p for m in messages if isinstance(m["content"], list) for p in m["content"] if p["type"] != "text"]
        out.append({"name": name, "messages": messages, **{k + "s": [p[k] for p in parts if p["type"] == k] for k in ("image", "video", "audio")}, "template": {}, "processor": {},
                    "prompt": prompt, "input_ids": inputs["input_ids"][0].tolist(), "generated_ids": ids, "generated_text": tok.decode(ids), "tensors": {k: f"{name}/{k}" for k in found}})
    save_file(tensors, str(folder / "golden.safetensors"))
    probes = [{"text": s, "ids": (ids := tok(s, add_special_tokens=False)["input_ids"]), "decoded": tok.decode(ids)} for s in PROBES]
    head = {"name": folder.name, "model_type": model.config.model_type, "weights": "bfloat16", "golden": "float32", "vocab": model.get_input_embeddings().weight.shape[0], "note": note,
            "tokenizer": probes}
    (folder / "cases.json").write_text(json.dumps(head | {"cases": out}, ensure_ascii=False, indent=1) + "\n")
    print(f"{folder}: {sum(f.stat().st_size for f in folder.iterdir()) / 1e3:.0f} KB, weights {seed * 1000 + attempt}")


def text_cases(tok):
    talks = {"text": [("user", "Hello, how are you?")], "long_text": [("user", "the quick brown fox jumps over the lazy dog " * 9 + "What is in the picture?")],
             "numbers": [("user", "0123456789 10 42 3.14 and 12345  spaces\n\nlines")],
             "turns": [("system", "a red circle"), ("user", "Hello!"), ("assistant", "I'm fine."), ("user", "été 日本語 你好 🙂 10 3.14")]}
    out = []
    for name, turns in talks.items():
        messages = [{"role": role, "content": text} for role, text in turns]
        prompt = tok.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        out.append((name, messages, prompt, {"input_ids": tok(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]}))
    return out


def main():
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("config")
    args.add_argument("out")
    args.add_argument("--seed", type=int, default=1)
    a = args.parse_args()
    source = ROOT / "tests/data/checkpoints/llama"  # a small tokenizer of this project's own
    tok = PreTrainedTokenizerFast(tokenizer_file=str(source / "tokenizer.json"), bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    tok.chat_template = json.loads((source / "tokenizer_config.json").read_text())["chat_template"]
    published = json.loads(pathlib.Path(a.config).read_text())
    values = published | {"vocab_size": len(tok), "bos_token_id": tok.bos_token_id, "eos_token_id": tok.eos_token_id, "pad_token_id": None}
    kind = values.pop("model_type")
    config = AutoConfig.for_model(kind, **values)
    quiet = set(tok.get_added_vocab().values())

    def build(seed):
        torch.manual_seed(seed)
        return randomize(AutoModelForCausalLM.from_config(config, attn_implementation="eager"), seed, quiet=quiet)

    def hub(folder):                                # the config as it was given, not as this transformers writes it
        (folder / "config.json").write_text(json.dumps({"model_type": kind, "architectures": [type(build(0)).__name__], **values}, indent=1) + "\n")

    make(a.out, build, tok, text_cases(tok), a.seed, AutoModelForCausalLM, quiet, hub=hub)


if __name__ == "__main__":
    main()

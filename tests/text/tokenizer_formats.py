#!/usr/bin/env python3
"""tokenizer_formats.py VLM WORK [TOKENIZER.json ...] [--count N] [--seed S]: sentencepiece, tiktoken and mistral_common (needs the packages) beside `vlm tokenize` on
random texts. Small models are trained into WORK, with every setting that matters; byte-level tokenizer.json files given are rewritten as tiktoken's and
tekken's files. Prints counts and the first differences; exit code 1 when anything differs."""
import argparse
import base64
import io
import json
import pathlib
import random
import subprocess
import sys

import sentencepiece
import tiktoken
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

import variants
from texts import text as random_text

CORPUS = variants.TEXTS * 3 + ["\t".join(variants.TEXTS[:3]), "int main(void)\n{\n    return 0;\n}", "the the the cat sat on the mat", "ﬁne ①②③ ＡＢＣ ｶﾀｶﾅ"]
WORDS_DIGITS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def cased(without="", tail=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"):
    return rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}{without}]*[{LOWER}{without}]+{tail}|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}{without}]+[{LOWER}{without}]*{tail}"


KIMI = r"[\p{Han}]+|" + cased(r"&&[^\p{Han}]") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = cased(tail="") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = cased() + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def ask(vlm, path, questions):
    lines = "".join(json.dumps(q) + "\n" for q in questions)
    run = subprocess.run([vlm, "tokenize", "--tokenizer", path, "--jsonl"], input=lines.encode(), capture_output=True, timeout=600)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if len(answers) != len(questions):
        print(f"{path}: {len(answers)} answers to {len(questions)}: {run.stderr.decode(errors='replace')[:300]}")
        return None
    return answers


def compare(vlm, name, path, pairs, show):
    """pairs: (question, member, expected)."""
    answers = ask(vlm, path, [q for q, _, _ in pairs])
    if answers is None:
        return len(pairs), len(pairs)
    bad = 0
    for (question, member, want), got in zip(pairs, answers):
        good = got.get(member) == want and (member == "ids" or "".join(got["pieces"]) == want)
        bad += not good
        if not good and bad <= show:
            print(f"{name}:\n  asked    {json.dumps(question)[:300]}\n  expected {json.dumps(want)[:300]}\n  got      {json.dumps(got)[:500]}")
    print(f"{name:48} {len(pairs) - bad}/{len(pairs)} equal", flush=True)
    return len(pairs), bad


# ---- sentencepiece ----

RULES = {"\uff21": "A", "\uff22": "B", "\ufb01": "fi", "e\u0301": "é", "\u3000": " ", "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u200b": "", "①": "1", "½": "1⁄2", "Å": "A\u030a",
         "THE": "the", "TH": "th", "\u0004": ""}


def sentencepiece_models(work):
    rules = work / "rules.tsv"
    rules.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in RULES.items()))
    settings = {
        "bpe": dict(model_type="bpe"), "bpe_bytes": dict(model_type="bpe", byte_fallback=True, vocab_size=700),
        "bpe_identity": dict(model_type="bpe", byte_fallback=True, vocab_size=700, normalization_rule_name="identity", remove_extra_whitespaces=False),
        "bpe_gemma": dict(model_type="bpe", byte_fallback=True, vocab_size=700, normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False,
                          split_digits=True, allow_whitespace_only_pieces=True, user_defined_symbols=["<mask>", "▁▁", "▁▁▁", "\n\n", "<table>"]),
        "bpe_symbols": dict(model_type="bpe", user_defined_symbols=["<mask>", "the", "é", "12"], control_symbols=["<ctl>", "<pad2>"]),
        "unigram": dict(model_type="unigram"), "unigram_bytes": dict(model_type="unigram", byte_fallback=True, vocab_size=600),
        "unigram_nfkc_cf": dict(model_type="unigram", normalization_rule_name="nmt_nfkc_cf"), "unigram_suffix": dict(model_type="unigram", treat_whitespace_as_suffix=True),
        "unigram_plain": dict(model_type="unigram", normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=False),
        "unigram_symbols": dict(model_type="unigram", user_defined_symbols=["<mask>", "the", "é", "12", "▁▁"], control_symbols=["<ctl>"]),
        "unigram_t5": dict(model_type="unigram", bos_id=-1, pad_id=0, eos_id=1, unk_id=2), "bpe_nfkc": dict(model_type="bpe", normalization_rule_name="nfkc"),
        "bpe_rules": dict(model_type="bpe", byte_fallback=True, vocab_size=500, normalization_rule_tsv=str(rules)),
        "unigram_rules": dict(model_type="unigram", normalization_rule_tsv=str(rules), user_defined_symbols=["<mask>", "the", "é", "12", "▁▁"]),
        "unigram_noescape": dict(model_type="unigram", escape_whitespaces=False) if False else dict(model_type="unigram", split_by_whitespace=False),
    }
    for name, setting in settings.items():
        path = work / f"{name}.model"
        if not path.exists():
            options = dict(vocab_size=350, character_coverage=0.98, hard_vocab_limit=False, minloglevel=2) | setting
            model = io.BytesIO()
            sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, **options)
            path.write_bytes(model.getvalue())
        yield name, path


def sentencepiece_pairs(path, r, count):
    s = sentencepiece.SentencePieceProcessor(model_file=str(path))
    control = [i for i in range(s.get_piece_size()) if s.is_control(i) or s.is_unknown(i)]
    names = [s.id_to_piece(i) for i in control]
    symbols = [p for p in ("<mask>", "the", "▁▁", "\n\n", "12", "é")]
    for _ in range(count):
        text = random_text(r, symbols)
        if any(n in text for n in names if n):
            continue                               # sentencepiece takes control symbols in text for text
        ids = s.encode(text)
        yield {"text": text, "add_special_tokens": False}, "ids", ids
        whole = ([s.bos_id()] if s.bos_id() >= 0 else []) + ids + ([s.eos_id()] if s.bos_id() < 0 and s.eos_id() >= 0 else [])
        yield {"text": text, "add_special_tokens": True}, "ids", whole
        if s.unk_id() not in ids:
            yield {"ids": whole, "skip_special_tokens": True}, "text", s.decode(ids)


# ---- tiktoken and tekken ----

def ranks_of(path):
    """Byte strings in the order of a byte-level tokenizer.json."""
    alphabet = {c: b for b, c in variants.byte_alphabet().items()}
    vocab = json.loads(path.read_bytes())["model"]["vocab"]
    tokens = [bytes(alphabet[c] for c in t) for t, _ in sorted(vocab.items(), key=lambda x: x[1]) if all(c in alphabet for c in t)]
    singles = [bytes([b]) for b in range(256)]
    known = set(singles)
    out = singles + [t for t in tokens if t not in known]
    return {t: i for i, t in enumerate(dict.fromkeys(out))}


def small_ranks():
    model = variants.bpe(byte_level=True, merges=250)
    alphabet = {c: b for b, c in variants.byte_alphabet().items()}
    tokens = [bytes(alphabet[c] for c in t) for t in model["vocab"] if all(c in alphabet for c in t)]
    return {t: i for i, t in enumerate(dict.fromkeys([bytes([b]) for b in range(256)] + [t for t in tokens if len(t) > 1]))}


def tiktoken_cases(work, name, ranks):
    lines = b"".join(base64.b64encode(t) + b" " + str(i).encode() + b"\n" for t, i in ranks.items())
    n = len(ranks)
    qwen = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + [f"<|extra_{i}|>" for i in range(205)] + ["<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"]
    kimi = {n: "[BOS]", n + 1: "[EOS]", n + 2: "<|im_end|>", n + 7: "<|media_pad|>"}
    llama = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>",
             "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
    llama += [f"<|reserved_special_token_{i}|>" for i in range(2, 2 + 256 - len(llama))]
    cases = {
        "qwen.tiktoken": (WORDS_DIGITS % "", {t: n + i for i, t in enumerate(qwen)}, None),
        "tiktoken.model": (KIMI, {kimi.get(i, f"<|reserved_token_{i}|>"): i for i in range(n, n + 258)},
                           {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": {str(i): {"content": c, "special": True} for i, c in kimi.items()}}),
        "tokenizer.model": (WORDS_DIGITS % "{1,3}", {t: n + i for i, t in enumerate(llama)}, None),
        "o200k_base.tiktoken": (O200K, {"<|endoftext|>": n}, None),
    }
    for file, (pattern, specials, config) in cases.items():
        folder = work / f"{name}-{file.split('.')[0]}{'-' + file.split('.')[1] if file == 'tokenizer.model' else ''}"
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(lines)
        if config:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        yield f"{name} {file}", folder / file, tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=specials), specials


def tiktoken_pairs(encoding, specials, r, count):
    names = list(specials)[:20]
    for _ in range(count):
        text = random_text(r, names)
        ids = encoding.encode(text, allowed_special="all")
        yield {"text": text, "add_special_tokens": False}, "ids", ids
        if r.random() < 0.4:
            ids = [r.randrange(encoding.max_token_value + 1) for _ in range(r.randrange(1, 12))]
        yield {"ids": ids, "skip_special_tokens": False}, "text", b"".join(encoding.decode_single_token_bytes(i) for i in ids).decode("utf-8", "replace")


def tekken_file(path, ranks, named):
    count = 40
    specials = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>", "[IMG]", "[TOOL_CALLS]"])]
    root = {"config": {"pattern": TEKKEN, "num_vocab_tokens": len(ranks), "default_vocab_size": len(ranks) + count - 7, "default_num_special_tokens": count,
                       "version": "v11" if named else "v3"},
            "vocab": [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None} for t, i in ranks.items()]}
    if named:
        root["special_tokens"] = specials
    path.write_text(json.dumps(root))


def tekken_pairs(path, r, count):
    t = Tekkenizer.from_file(path)
    for _ in range(count):
        text = random_text(r, ["[ INST]", "INST]"])
        if any(s["token_str"] in text for s in t._all_special_tokens):
            continue
        ids = t.encode(text, bos=False, eos=False)
        yield {"text": text, "add_special_tokens": False}, "ids", ids
        yield {"text": text, "add_special_tokens": True}, "ids", t.encode(text, bos=True, eos=False)
        ids = ids[:r.randrange(len(ids) + 1)] + [r.choice([1, 2, 3, 9, 39])] + ids[:3]
        yield {"ids": ids, "skip_special_tokens": False}, "text", t.decode(ids, special_token_policy=SpecialTokenPolicy.KEEP)
        yield {"ids": ids, "skip_special_tokens": True}, "text", t.decode(ids, special_token_policy=SpecialTokenPolicy.IGNORE)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vlm")
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("tokenizers", nargs="*", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    total = wrong = 0

    def run(name, path, pairs):
        nonlocal total, wrong
        n, bad = compare(args.vlm, name, path, list(pairs), args.show)
        total, wrong = total + n, wrong + bad

    for name, path in sentencepiece_models(args.work):
        run(f"sentencepiece {name}", path, sentencepiece_pairs(path, random.Random(f"{args.seed}{name}"), args.count))
    for name, ranks in [("small", small_ranks())] + [(p.parent.name, ranks_of(p)) for p in args.tokenizers]:
        for case, path, encoding, specials in tiktoken_cases(args.work, name, ranks):
            run(case, path, tiktoken_pairs(encoding, specials, random.Random(f"{args.seed}{case}"), args.count))
        for named in (True, False):
            folder = args.work / f"{name}-tekken-{named}"
            folder.mkdir(exist_ok=True)
            tekken_file(folder / "tekken.json", ranks, named)
            run(f"{name} tekken.json, specials {'named' if named else 'by version'}", folder / "tekken.json",
                tekken_pairs(folder / "tekken.json", random.Random(f"{args.seed}{named}"), args.count))
    print(f"{total - wrong} of {total} equal")
    return wrong > 0 or total == 0


if __name__ == "__main__":
    sys.exit(main())

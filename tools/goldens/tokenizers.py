#!/usr/bin/env python3
"""tokenizers.py REPOSITORY: writes tests/data/text/formats (small sentencepiece models, a tiktoken file, a tekken.json, with what sentencepiece, tiktoken and
mistral_common make of texts) and tests/data/text/variants.golden.json.xz (what `tokenizers` makes of texts with the files of tests/text/variants.py). Needs
these four packages."""
import base64
import json
import lzma
import pathlib
import random
import sys

REPO = pathlib.Path(sys.argv[1]).resolve()
sys.path.pop(0)                                    # this file has a package's name
import tokenizers

sys.path.insert(0, str(REPO / "tests/text"))
import tokenizer_formats as formats
import variants
from texts import text as random_text


def golden(path, questions):
    cases = [{"question": q, "member": m, "want": w} for q, m, w in questions]
    path.write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")).replace('},{"question"', '},\n{"question"') + "\n")


def write_formats(folder):
    folder.mkdir(parents=True, exist_ok=True)
    models = dict(formats.sentencepiece_models(folder))
    for name, path in models.items():
        if name not in ("bpe_gemma", "bpe_rules", "unigram_rules"):
            path.unlink()
            continue
        golden(folder / f"{path.name}.golden.json", formats.sentencepiece_pairs(path, random.Random(name), 25))
    (folder / "rules.tsv").unlink()
    ranks = formats.small_ranks()
    for case, path, encoding, specials in formats.tiktoken_cases(folder, "small", ranks):
        if path.name in ("qwen.tiktoken", "tiktoken.model"):
            golden(path.with_name(path.name + ".golden.json"), formats.tiktoken_pairs(encoding, specials, random.Random(case), 25))
        else:
            path.unlink()
            path.parent.rmdir()
    path = folder / "tekken.json"
    formats.tekken_file(path, ranks, True)
    golden(folder / "tekken.json.golden.json", formats.tekken_pairs(path, random.Random(1), 25))


def write_variants(path):
    out = {}
    for i, (name, content) in enumerate(variants.all_variants()):
        if i % 4 and not name.startswith(("pattern", "dec_fused")):
            continue
        t = tokenizers.Tokenizer.from_str(json.dumps(content))
        t.no_truncation()
        t.no_padding()
        r = random.Random(name)
        added = [a.content for a in t.get_added_tokens_decoder().values()]
        cases = []
        while len(cases) < 6:
            sample = random_text(r, added)
            if len(sample) > 120:
                continue
            try:
                ids = t.encode(sample, add_special_tokens=True).ids
                cases.append([sample, t.encode(sample, add_special_tokens=False).ids, ids, t.decode(ids, skip_special_tokens=False), t.decode(ids, skip_special_tokens=True)])
            except BaseException as e:             # the reference refuses the text, or panics
                if isinstance(e, KeyboardInterrupt):
                    raise
                r.random()
        out[name] = cases
    path.write_bytes(lzma.compress(json.dumps(out, ensure_ascii=False, separators=(",", ":")).encode(), preset=9))


write_formats(REPO / "tests/data/text/formats")
write_variants(REPO / "tests/data/text/variants.golden.json.xz")

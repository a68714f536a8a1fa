#!/usr/bin/env python3
"""tokenizers.py VLM FILE|DIR ... [--runs N]: encoding speed beside Hugging Face `tokenizers` (needs the package), one thread each, on 1 MB of mixed text and on
one word of 1 MB. Runs are interleaved, the best of each side counts; both are timed inside the process, without loading: `vlm tokenize --time`
and the library's encode. Prints MB/s and ratios; exit code 1 when one is below 2."""
import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

sys.path.pop(0)                                    # this file has the library's name
import tokenizers

PROSE = ("It was the best of times, it was the worst of times; it was the age of wisdom, it was the age of foolishness. She didn't know what they'd say, but "
         "we're all going to find out by half past seven on the 23rd of November 1859, aren't we? ")
WORDS = ("language vision model image describe picture people street market harbour evening mountain beautiful because through between government "
         "question answer number important different following development information international understanding consider remarkable").split()
CODE = '''static int find(const struct table *t, const char *key, size_t n)
{
    for (size_t i = hash(key, n) & (t->capacity - 1); t->slot[i].key; i = (i + 1) & (t->capacity - 1))
        if (t->slot[i].size == n && memcmp(t->slot[i].key, key, n) == 0) return t->slot[i].value;
    return -1;                 /* not there */
}

def load(path: str, *, limit=0x1F_FFFF, **options) -> dict[str, "Tensor"]:
    """Reads a file; see https://example.org/a/b?c=d&e=1#top."""
    with open(path, 'rb') as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
\treturn {k: v for k, v in header.items() if not k.startswith("__")}
'''
CJK = "今天天气很好，我们一起去公园散步吧。机器学习模型可以描述图片中的内容。東京は日本の首都であり、世界最大の都市圏の一つです。カタカナとひらがな。한국어 문장도 조금 섞어 봅시다. "
OTHER = "Привет, как дела? Сегодня хорошая погода. Καλημέρα κόσμε. مرحبا بالعالم. नमस्ते दुनिया। สวัสดีชาวโลก Größe, façade, naïve, İstanbul, Zażółć gęślą jaźń. "
EMOJI = "😀😃 👍🏽 👩‍👩‍👧‍👦 ❤️ 🇩🇪🇫🇷 🚀✨ 🤷‍♂️ ☺ "


def mixed(size, seed=1):
    r = random.Random(seed)
    parts, n = [], 0
    while n < size:
        k = r.random()
        if k < 0.25:
            part = " ".join(r.choice(WORDS) for _ in range(r.randrange(5, 40))).capitalize() + ". "
        elif k < 0.40:
            part = PROSE
        elif k < 0.65:
            part = CODE[r.randrange(len(CODE) // 2):]
        elif k < 0.80:
            part = CJK[r.randrange(len(CJK) // 2):]
        elif k < 0.88:
            part = OTHER[r.randrange(len(OTHER) // 2):]
        elif k < 0.93:
            part = EMOJI * r.randrange(1, 4)
        elif k < 0.97:
            part = " ".join(str(r.randrange(10 ** r.randrange(1, 10))) for _ in range(12)) + f" {r.random():.6f}, {r.randrange(10**7):,}\n"
        else:
            part = r.choice(["\n", "    ", "\t", " \n\n", "        \n"]) * r.randrange(1, 12)
        parts.append(part)
        n += len(part.encode())
    return "".join(parts)


def one_word(size, seed=2):
    r = random.Random(seed)
    return "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(size))


def ours(vlm, tokenizer, path, runs):
    out = subprocess.run([vlm, "tokenize", "--tokenizer", tokenizer, "--time", str(runs)], stdin=open(path, "rb"), capture_output=True, text=True, timeout=600)
    if out.returncode:
        sys.exit(out.stderr)
    return json.loads(out.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vlm")
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--word", action="store_true", help="the one word as well")
    args = parser.parse_args()
    below = False
    texts = {"mixed": mixed(args.size)}
    if args.word:
        texts["word"] = one_word(args.size)
    print(f"{'tokenizer':32} {'text':6} {'vlm MB/s':>9} {'HF MB/s':>9} {'ratio':>7}   tokens")
    with tempfile.TemporaryDirectory() as work:
        for path in args.paths:
            path = path / "tokenizer.json" if path.is_dir() else path
            name = path.parent.name if path.name == "tokenizer.json" else path.stem
            reference = tokenizers.Tokenizer.from_file(str(path))
            reference.no_truncation()
            reference.no_padding()
            for kind, text in texts.items():
                file = pathlib.Path(work) / kind
                file.write_bytes(text.encode())
                best = [1e9, 1e9]
                for _ in range(args.runs):
                    mine = ours(args.vlm, path, file, 1)
                    best[0] = min(best[0], mine["seconds"])
                    begin = time.perf_counter()
                    theirs = reference.encode(text)
                    best[1] = min(best[1], time.perf_counter() - begin)
                size = len(text.encode()) / 1e6
                same = mine["tokens"] == len(theirs.ids)
                ratio = best[1] / best[0]
                below |= ratio < 2 or not same
                print(f"{name:32} {kind:6} {size / best[0]:9.1f} {size / best[1]:9.2f} {ratio:7.1f}   {len(theirs.ids)}{'' if same else ' DIFFERENT: ' + str(mine['tokens'])}", flush=True)
    return below


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""tokenizer_compare.py VLM [--count N] [--seed S] [FILE | DIR ...]: random texts and ids through `vlm tokenize` and through Hugging Face `tokenizers`
(needs the package). A tokenizer.json, a folder with one, or a folder of *.json; none: variants of every part that a tokenizer.json can have
(variants.py) are made and compared. Prints counts and the first differences; exit code 1 when anything differs."""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import tokenizers

from texts import text


def questions(r, t, count):
    """Questions in the form of `vlm tokenize --jsonl`, and what the reference answers."""
    added = [a.content for a in t.get_added_tokens_decoder().values()]
    tokens = r.sample(added, min(len(added), 200)) if added else []
    vocab = t.get_vocab_size(with_added_tokens=True)
    for _ in range(count):
        sample = text(r, tokens)
        encoded = None
        for special in (False, True):
            question = {"text": sample, "add_special_tokens": special}
            try:
                got = t.encode(sample, add_special_tokens=special)
                encoded = got.ids
                yield question, {"ids": got.ids}
            except BaseException as e:             # the reference's panics are no exceptions of the usual kind
                if isinstance(e, KeyboardInterrupt):
                    raise
                yield question, {"error": str(e)}
        ids = encoded if encoded is not None and r.random() < 0.6 else [r.randrange(vocab) for _ in range(r.choice([1, 2, 3, 8, 20]))]
        if r.random() < 0.3 and ids:
            ids = [i if r.random() < 0.8 else r.randrange(vocab + 3) for i in ids][r.choice([0, 0, 1]):]
        for skip in (False, True):
            question = {"ids": ids, "skip_special_tokens": skip}
            try:
                yield question, {"text": t.decode(ids, skip_special_tokens=skip)}
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                yield question, {"error": str(e)}


def compare(vlm, name, path, count, seed, show):
    r = random.Random(f"{seed}/{name}")
    try:
        t = tokenizers.Tokenizer.from_file(str(path))
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        print(f"{name}: the reference refuses it: {e}")
        return 0, 0
    t.no_truncation()
    t.no_padding()
    asked = list(questions(r, t, count))
    lines = "".join(json.dumps(q) + "\n" for q, _ in asked)
    run = subprocess.run([vlm, "tokenize", "--tokenizer", path, "--jsonl"], input=lines.encode(), capture_output=True, timeout=900)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if len(answers) != len(asked):
        print(f"{name}: {len(answers)} answers to {len(asked)} questions (exit {run.returncode}): {run.stderr.decode(errors='replace')[:500]}")
        return len(asked), len(asked)
    bad = 0
    for (question, want), got in zip(asked, answers):
        if "error" in want:                        # where the reference fails, anything but a crash will do
            continue
        member = "ids" if "ids" in want else "text"
        good = got.get(member) == want[member] and (member == "ids" or "".join(got["pieces"]) == want["text"])
        if not good:
            bad += 1
            if bad <= show:
                print(f"{name}:\n  asked    {json.dumps(question)[:400]}\n  expected {json.dumps(want)[:400]}\n  got      {json.dumps(got)[:600]}")
                if member == "ids" and "ids" in got:
                    print("  tokens  ", [t.id_to_token(i) for i in want["ids"]][:40], "\n  got     ", got["tokens"][:40])
    return len(asked), bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vlm")
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=2)
    parser.add_argument("--only", default="", help="names that contain this")
    args = parser.parse_args()
    files = []
    with tempfile.TemporaryDirectory() as work:
        for path in map(pathlib.Path, args.paths):
            if path.is_file():
                files.append((path.stem, path))
            elif (path / "tokenizer.json").exists():
                files.append((path.name, path / "tokenizer.json"))
            else:
                files += [(p.stem, p) for p in sorted(path.glob("*.json")) if "golden" not in p.name]
        if not args.paths:
            import variants
            files = variants.write(pathlib.Path(work))
        total = wrong = 0
        names = []
        for name, path in files:
            if args.only not in name:
                continue
            n, bad = compare(args.vlm, name, path, args.count, args.seed, args.show)
            total += n
            wrong += bad
            if bad:
                names.append(f"{name} ({bad})")
            if args.paths or bad:
                print(f"{name:40} {n - bad}/{n} equal", flush=True)
        print(f"{total - wrong} of {total} answers equal, {len(files)} tokenizers")
        if names:
            print("differ: " + ", ".join(names))
    return wrong > 0 or total == 0


if __name__ == "__main__":
    sys.exit(main())

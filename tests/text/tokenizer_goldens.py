#!/usr/bin/env python3
"""tokenizer_goldens.py VLM FOLDER|VARIANTS ...: every golden in the folders through `vlm tokenize --jsonl`; prints counts, exit code 1 when anything differs.

FILE.golden.json that holds a list belongs to FILE: a list of {question, member, want}. A variants.golden.json.xz belongs to the files that variants.py writes.

NAME.golden.json(.xz) belongs to NAME.json, NAME.tokenizer.json, or NAME/tokenizer.json(.xz). Its `cases` hold their texts; `items` have theirs in
strings.json of the folder; `extra` hold their own. ids: without special tokens added; sp: with, when that differs; dec: the ids decoded, when that is not
the text; skip: sp decoded without special tokens, when that is not dec. `stream`: ids and their full text. Streamed pieces have to make up the decoded text, and
none may end in half a character (which is not JSON to begin with)."""
import json
import lzma
import pathlib
import subprocess
import sys
import tempfile


def read(path):
    return lzma.open(path).read() if path.suffix == ".xz" else path.read_bytes()


def tokenizer_file(folder, name, work):
    """The tokenizer's file, unpacked when it is packed."""
    for path in [folder / f"{name}.json", folder / f"{name}.tokenizer.json", folder / name / "tokenizer.json"]:
        if path.exists():
            return path
    path = folder / name / "tokenizer.json.xz"
    plain = pathlib.Path(work) / "tokenizer.json"
    plain.write_bytes(read(path))
    return plain


def cases_of(golden, strings):
    for i, item in enumerate(golden.get("items", [])):
        yield strings[i], item
    for item in golden.get("cases", []) + golden.get("extra", []):
        yield item["text"], item


def questions(golden, strings):
    """(what, question, member of the answer, expected)."""
    for text, item in cases_of(golden, strings):
        ids, sp = item["ids"], item.get("sp", item["ids"])
        dec = item.get("dec", text)
        yield "encode", {"text": text, "add_special_tokens": False}, "ids", ids
        yield "encode+special", {"text": text, "add_special_tokens": True}, "ids", sp
        yield "decode", {"ids": ids, "skip_special_tokens": False}, "text", dec
        yield "decode-special", {"ids": sp, "skip_special_tokens": True}, "text", item.get("skip", dec)
    for item in golden.get("stream", []):
        yield "stream", {"ids": item["ids"], "skip_special_tokens": item["skip"]}, "text", item["full"]


def variant_questions(cases):
    for text, ids, sp, dec, skip in cases:
        yield "encode", {"text": text, "add_special_tokens": False}, "ids", ids
        yield "encode+special", {"text": text, "add_special_tokens": True}, "ids", sp
        yield "decode", {"ids": sp, "skip_special_tokens": False}, "text", dec
        yield "decode-special", {"ids": sp, "skip_special_tokens": True}, "text", skip


def compare(vlm, name, file, asked):
    lines = "".join(json.dumps(q) + "\n" for _, q, _, _ in asked)
    run = subprocess.run([vlm, "tokenize", "--tokenizer", file, "--jsonl"], input=lines.encode(), capture_output=True, timeout=600)
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    if len(answers) != len(asked):
        print(f"{name}: {len(answers)} answers to {len(asked)} questions: {run.stderr.decode(errors='replace')}")
        return len(asked), {}
    counts, bad = {}, 0
    for (what, question, member, want), got in zip(asked, answers):
        counts[what] = counts.get(what, 0) + 1
        good = got.get(member) == want and (member != "text" or "".join(got["pieces"]) == want)
        if not good:
            bad += 1
            if bad <= 5:
                print(f"{name}: {what} {json.dumps(question)[:300]}\n  expected {json.dumps(want)[:300]}\n  got      {json.dumps(got)[:300]}")
    return bad, counts


def compare_variants(vlm, path):
    import variants
    golden, total, wrong = json.loads(read(path)), 0, 0
    with tempfile.TemporaryDirectory() as work:
        files = dict(variants.write(pathlib.Path(work), golden))
        for name, cases in golden.items():
            asked = list(variant_questions(cases))
            wrong += compare(vlm, name, files[name], asked)[0]
            total += len(asked)
    print(f"{len(golden)} variants {total - wrong:10}/{total} equal")
    return total, wrong


def main():
    vlm, folders = sys.argv[1], [pathlib.Path(f) for f in sys.argv[2:]]
    total = wrong = 0
    for folder in folders:
        if folder.is_file():
            n, bad = compare_variants(vlm, folder)
            total, wrong = total + n, wrong + bad
            continue
        strings = json.loads((folder / "strings.json").read_bytes()) if (folder / "strings.json").exists() else []
        strings = strings if isinstance(strings, list) else strings["strings"]
        for path in sorted(folder.glob("**/*.golden.json*")):
            golden = json.loads(read(path))
            with tempfile.TemporaryDirectory() as work:
                if isinstance(golden, list):
                    name, file = str(path.relative_to(folder)).split(".golden.")[0], path.with_name(path.name.split(".golden.")[0])
                    asked = [(case["member"], case["question"], case["member"], case["want"]) for case in golden]
                else:
                    name = path.name.split(".golden.")[0]
                    file, asked = tokenizer_file(folder, name, work), list(questions(golden, strings))
                bad, counts = compare(vlm, name, file, asked)
            print(f"{name:32} {len(asked) - bad}/{len(asked)} equal ({', '.join(f'{k} {n}' for k, n in counts.items())})")
            total += len(asked)
            wrong += bad
    print(f"{total - wrong} of {total} equal")
    return wrong > 0 or total == 0


if __name__ == "__main__":
    sys.exit(main())

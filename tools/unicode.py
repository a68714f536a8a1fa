#!/usr/bin/env python3
"""unicode.py [scripts.rs] > src/text/unicode_tables.h: character properties as Hugging Face `tokenizers` sees them. Its parts carry data of several versions of
Unicode (Oniguruma's for regular expressions, Rust's own, older crates for BERT and for the normal forms), so the tables are read off the library itself:
every code point is sent through the part in question. Needs the package `tokenizers`, and perl for the characters' ages. scripts.rs: the table of
tokenizers/src/pre_tokenizers/unicode_scripts, which cannot be seen from outside."""
import re
import subprocess
import sys

import tokenizers
from tokenizers import Regex
from tokenizers import normalizers as N
from tokenizers import pre_tokenizers as P

POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
EVERY = "".join(map(chr, POINTS))
CATEGORIES = ["Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf",
              "Po", "Sm", "Sc", "Sk", "So"]


def matching(pattern):
    split = P.Split(Regex(pattern), "removed", invert=True)
    return {ord(c) for piece, _ in split.pre_tokenize_str(EVERY) for c in piece}


def ranges(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def print_rows(rows):
    line = "   "
    for row in rows:
        if len(line) + len(row) > 150:
            print(line)
            line = "   "
        line += f" {row},"
    print(line + "\n};")


def print_set(name, comment, points):
    print(f"\n/* {comment} */\nstatic const unicode_range {name}[] = {{")
    print_rows([f"{{{a},{b}}}" for a, b in ranges(points)])


def print_categories():
    of = {}
    for i, name in enumerate(CATEGORIES[1:], 1):
        if name != "Cs":
            of.update(dict.fromkeys(matching(rf"\p{{{name}}}"), i))
    print("\n/* General categories for regular expressions: first code point << 5 | category, up to the next one. */")
    print("static const uint32_t unicode_categories[] = {")
    rows, last = [], -1
    for c in range(0x110000):
        k = CATEGORIES.index("Cs") if 0xD800 <= c < 0xE000 else of.get(c, 0)
        if k != last:
            rows.append(str(c << 5 | k))
        last = k
    print_rows(rows)
    word = matching(r"\w")
    derived = {c for c in POINTS if CATEGORIES[of.get(c, 0)] in "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl Pc".split()}
    print_set("unicode_regex_word", "\\w beside letters, marks, Nd, Nl and Pc", word - derived)
    assert not derived - word, ranges(derived - word)
    alphabetic = matching(r"\p{Alphabetic}")
    print_set("unicode_regex_alphabetic", "Alphabetic beside letters and Nl", alphabetic - {c for c in POINTS if CATEGORIES[of.get(c, 0)] in "Lu Ll Lt Lm Lo Nl".split()})
    for name in ("Han", "Hiragana", "Katakana", "Hangul", "Arabic", "Cyrillic", "Greek", "Latin", "Thai", "Hebrew", "Devanagari"):
        print_set(f"unicode_regex_{name.lower()}", f"script {name}", matching(rf"\p{{{name}}}"))


def lowercase_rows():
    """Runs of code points whose lower case is as far away, every one or every second of them; and those that become two."""
    lower, rows = N.Lowercase(), []
    for c in POINTS:
        to = lower.normalize_str(chr(c))
        if to == chr(c):
            continue
        if len(to) != 1:
            assert c == 0x130 and to == "i\u0307"
            continue
        delta = ord(to) - c
        if rows and rows[-1][3] == delta and c - rows[-1][1] in ((1, 2) if rows[-1][0] == rows[-1][1] else (rows[-1][2],)):
            rows[-1][2] = c - rows[-1][1]
            rows[-1][1] = c
        else:
            rows.append([c, c, 1, delta])
    return rows


def present_in_9():
    code = r"for my $c (0..0x10ffff) { next if $c >= 0xd800 && $c < 0xe000; print \"$c\n\" if chr($c) =~ /\p{Present_In: 9.0}/ }".replace('\\"', '"')
    return {int(x) for x in subprocess.run(["perl", "-e", code], capture_output=True, text=True, check=True).stdout.split()}


def print_scripts(path):
    names, rows = ["Any"], []
    for low, high, name in re.findall(r"(0x[0-9A-Fa-f]+)(?:\s*\.\.=?\s*(0x[0-9A-Fa-f]+))?\s*=>\s*Script::(\w+)", open(path).read()):
        if name == "Any":
            continue
        name = "Han" if name in ("Hiragana", "Katakana") else name         # as the pre-tokenizer takes them
        if name not in names:
            names.append(name)
        rows.append([int(low, 16), int(high or low, 16), names.index(name)])
    rows.sort()
    merged = []
    for a, b, n in rows:
        if merged and merged[-1][1] == a - 1 and merged[-1][2] == n:
            merged[-1][1] = b
        else:
            merged.append([a, b, n])
    assert len(names) < 256
    print("\n/* Scripts of the pre-tokenizer UnicodeScripts, numbered; Hiragana and Katakana are Han. */\nstatic const unicode_script_range unicode_scripts[] = {")
    print_rows([f"{{{a},{b},{n}}}" for a, b, n in merged])


def main():
    print(f"/* unicode_tables.h - written by tools/unicode.py from tokenizers {tokenizers.__version__}; do not edit. */")
    print("#ifndef VLM_TEXT_UNICODE_TABLES_H\n#define VLM_TEXT_UNICODE_TABLES_H")
    print_categories()
    one = {c: [p for p, _ in P.Whitespace().pre_tokenize_str(f"a{chr(c)}b")] for c in POINTS}
    print_set("unicode_word", "\\w of added tokens and of the pre-tokenizer Whitespace", {c for c in POINTS if len(one[c]) == 1})
    print_set("unicode_numeric", "pre-tokenizer Digits", {c for c in POINTS if len(P.Digits(True).pre_tokenize_str(f"a{chr(c)}b")) == 3 or chr(c).isdigit() and c < 128})
    print_set("unicode_punctuation", "pre-tokenizers Punctuation and Bert",
              {c for c in POINTS if len(P.Punctuation().pre_tokenize_str(f"a{chr(c)}b")) == 3})
    clean, accents, marks = N.BertNormalizer(True, False, False, False), N.BertNormalizer(False, False, True, False), N.StripAccents()
    print_set("unicode_bert_control", "what BertNormalizer's clean_text removes", {c for c in POINTS if clean.normalize_str(chr(c)) == ""})
    print_set("unicode_bert_accent", "what BertNormalizer's strip_accents removes", {c for c in POINTS if accents.normalize_str(chr(c)) == ""})
    print_set("unicode_mark", "what StripAccents removes", {c for c in POINTS if marks.normalize_str(chr(c)) == ""})
    present = present_in_9()
    print_set("unicode_inert", "characters that the normal forms do not know (younger than Unicode 9.0, or none)", {c for c in POINTS if c not in present})
    print("\n/* Lower case: first, last, step, distance. U+0130 becomes two. */\nstatic const unicode_case_range unicode_lowercase[] = {")
    print_rows([f"{{{a},{b},{s},{d}}}" for a, b, s, d in lowercase_rows()])
    print_scripts(sys.argv[1])
    print("\n#endif")


main()

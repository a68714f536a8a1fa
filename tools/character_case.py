#!/usr/bin/env python3
"""character_case.py > src/text/jinja/case.h: what Python's str knows of letters and digits beyond categories and one-to-one case."""
import sys
import unicodedata

ALL = [c for c in range(0x20000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"]


def text(s):
    return '"' + "".join(f"\\x{b:02X}" for b in s.encode()) + '"'


def table(head, entries):
    lines, line = [head], "   "
    for e in entries:
        if len(line) + len(e) > 150:
            lines.append(line)
            line = "   "
        line += " " + e + ","
    return "\n".join(lines + [line, "};"])


def ranges(name, test):
    found = []
    for c in ALL:
        if not test(chr(c)):
            continue
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return table(f"static const uint32_t {name}[][2] = {{", [f"{{0x{a:X}, 0x{b:X}}}" for a, b in found])


cat = unicodedata.category
special = [f"{{0x{c:X}, {text(chr(c).upper())}, {text(chr(c).title())}}}" for c in ALL if len(chr(c).upper()) > 1 or len(chr(c).title()) > 1]
folds = [f"{{0x{c:X}, {text(chr(c).casefold())}}}" for c in ALL if chr(c).casefold() != chr(c).lower()]
sys.stdout.write("\n".join([
    f"/* Made by tools/character_case.py from Unicode {unicodedata.unidata_version}. */",
    table("static const struct { uint32_t c; const char *upper, *title; } special_case[] = {", special),
    table("static const struct { uint32_t c; const char *folded; } special_fold[] = {", folds),
    ranges("other_lower", lambda c: c.islower() and cat(c) != "Ll"),
    ranges("other_upper", lambda c: c.isupper() and cat(c) != "Lu"),
    ranges("other_digit", lambda c: c.isdigit() and cat(c) != "Nd"),
    ranges("other_numeric", lambda c: c.isnumeric() and cat(c)[0] != "N"),
]) + "\n")

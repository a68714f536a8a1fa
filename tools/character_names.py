#!/usr/bin/env python3
"""character_names.py > src/text/jinja/names.h: names for \\N{...} in string constants of templates."""
import sys
import unicodedata

RANGES = [(0x20, 0x7E), (0xA0, 0xFF), (0x391, 0x3C9), (0x2000, 0x206F), (0x20A0, 0x20BF), (0x2100, 0x214F), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2500, 0x25FF),
          (0x2600, 0x26FF), (0x2700, 0x27BF), (0x3000, 0x301F), (0xFEFF, 0xFEFF), (0xFFFC, 0xFFFD), (0x1F600, 0x1F64F)]
ALIASES = {0x00: ["NULL"], 0x07: ["ALERT"], 0x08: ["BACKSPACE"], 0x09: ["CHARACTER TABULATION", "TAB"], 0x0A: ["LINE FEED", "NEW LINE", "LF", "NL"], 0x0B: ["LINE TABULATION"],
           0x0C: ["FORM FEED"], 0x0D: ["CARRIAGE RETURN", "CR"], 0x1B: ["ESCAPE", "ESC"], 0x7F: ["DELETE"], 0x85: ["NEXT LINE"], 0xA0: ["NBSP"], 0xAD: ["SHY"], 0x200B: ["ZWSP"],
           0x200C: ["ZWNJ"], 0x200D: ["ZWJ"], 0xFEFF: ["BYTE ORDER MARK", "BOM"]}

names = [(c, n) for c, more in ALIASES.items() for n in more]
names += [(c, unicodedata.name(chr(c))) for a, b in RANGES for c in range(a, b + 1) if unicodedata.name(chr(c), None)]
out = ["/* Made by tools/character_names.py from Unicode %s. */" % unicodedata.unidata_version, "static const struct { uint32_t c; const char *name; } character_names[] = {"]
line = "   "
for c, n in sorted(names):
    entry = f' {{0x{c:X}, "{n}"}},'
    if len(line) + len(entry) > 140:
        out.append(line)
        line = "   "
    line += entry
sys.stdout.write("\n".join(out + [line, "};", ""]))

#!/usr/bin/env python3
"""layout.py: the house rules that a machine can check. Exit 1 with a list of what is broken.

1. Floors: an #include goes downwards only (base < tensor < weights < media, text < blocks < models < engine < server < cli).
2. src/base knows nothing of models; only src/base/env.c reads the environment.
3. Below cli nothing prints, exits or asserts on input; unsafe string functions are not used anywhere.
4. A source file opens with a comment that says what it is for.
5. Files are not longer than 700 lines (generated tables apart)."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLOOR = {"base": 0, "tensor": 1, "weights": 2, "media": 3, "text": 3, "blocks": 4, "models": 5, "engine": 6, "server": 7, "cli": 8}
BANNED = re.compile(r"\b(sprintf|strcpy|strcat|gets|strtok|alloca|system|popen)\s*\(")
PRINTS = re.compile(r"(?<![\w.>])(printf|puts|putchar|perror|exit|abort|assert)\s*\(|\bfprintf\s*\(\s*std(out|err)")
ALLOCATES = re.compile(r"(?<![\w.>])(malloc|calloc|realloc|strdup)\s*\(")
problems = []


def complain(path, line, text):
    problems.append(f"{path.relative_to(ROOT)}:{line}: {text}")


def code_only(text):
    """Comments and strings blanked, line structure kept."""
    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)


def check(path):
    floor_name = path.relative_to(ROOT / "src").parts[0]
    floor = FLOOR.get(floor_name)
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")
    if floor is None:
        return complain(path, 1, f"'{floor_name}' is no floor")
    if not text.lstrip().startswith("/*"):
        complain(path, 1, "opens with a comment that says what the file is for")
    if len(lines) > 700 and "do not edit" not in lines[0]:
        complain(path, len(lines), "more than 700 lines")
    for number, line in enumerate(lines, 1):
        include = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if include:
            target = include.group(1).split("/")[0]
            if target in FLOOR and FLOOR[target] > floor:
                complain(path, number, f"{floor_name} must not include {include.group(1)}: that floor is above")
            if {target, floor_name} == {"media", "text"} and not include.group(1) == "media/media.h":
                complain(path, number, "media and text do not know each other (but for media/media.h)")
    for number, line in enumerate(code_only(text).split("\n"), 1):
        if BANNED.search(line):
            complain(path, number, f"{BANNED.search(line).group(1)} is not used here")
        if floor_name != "cli" and PRINTS.search(line):
            complain(path, number, f"below cli nothing prints or exits: {line.strip()[:60]}")
        if floor_name not in ("base", "cli") and ALLOCATES.search(line):
            complain(path, number, f"memory comes from base/mem.h (free is for what libraries gave us): {line.strip()[:60]}")
        if "getenv(" in line and path.name != "env.c":
            complain(path, number, "only src/base/env.c reads the environment")


for source in sorted((ROOT / "src").rglob("*.[ch]")):
    check(source)
print("\n".join(problems) if problems else "layout: in order")
print(f"{len(problems)} problems") if problems else None
sys.exit(1 if problems else 0)

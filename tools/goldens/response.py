#!/usr/bin/env python3
"""response.py OUT: tests/data/text/response_cases.json. What transformers' ResponseParser (5.13 and later) makes of texts by response templates that
use every feature: the message of the whole text, the events of a feed by characters (pieces of one region put together), or that it fails."""
import json
import sys

from transformers.utils.chat_parsing.response_parser import ResponseParser

TEMPLATES = {
    "all": {
        "defaults": {"role": "assistant", "count": 0}, "start_anchor_pattern": "<a(?:nswer)?>",
        "fields": {
            "notes": {"open": ["<note>", "<note:x>"], "close": "</note>", "repeats": True, "join": " | "},
            "count": {"open": "<n>", "close": "</n>", "content": "int"},
            "weight": {"open": "<f>", "close": "</f>", "content": "float"},
            "done": {"open": "<b>", "close": "</b>", "content": "bool"},
            "pairs": {"open": "<kv>", "close": "</kv>", "content": "kv-lines", "content_args": {"value_parser": {"name": "json", "args": {"allow_non_json": True}}}},
            "tool_calls": {"open": "[CALLS]", "close_pattern": r"\[/CALLS\]", "content": "json", "transform_each": True,
                           "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{args.real}"}}},
            "tags": {"open_pattern": r"<x (?P<id>\w+)>", "close": ["</x>", "</x>>"], "content": "xml-inline", "repeats": True,
                     "content_args": {"tag_pattern": r"<(?P<key>\w+)>(?P<value>.*?)</\1>", "merge_duplicates": True}, "transform": {"id": "{id}", "value": "{content}"}},
            "raw": {"open": "<raw>", "close": "</raw>", "content_args": {"strip": False}},
            "content": {"close_pattern": r"<end>\s*|$"},
        },
    },
    "calls": {
        "defaults": {"role": "assistant"}, "start_anchor": ["<go>", "<go on>"],
        "fields": {
            "thinking": {"open_pattern": r"(?=[\s\S]*?</t>)", "close_pattern": r"</t>\s*", "optional": False},
            "tool_calls": {"open_pattern": r"\s*<c>(?P<name>\w+)", "close": "</c>", "repeats": True, "content": "json",
                           "content_args": {"unquoted_keys": True, "string_delims": [["<'>", "<'>"]]},
                           "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}},
            "content": {},
        },
    },
}
TOOLS = [{"type": "function", "function": {"name": "fly", "parameters": {"type": "object", "properties": {
    "to": {"type": "string"}, "count": {"type": "integer"}, "limit": {"type": ["number", "null"]}, "direct": {"anyOf": [{"type": "boolean"}]},
    "days": {"type": "array"}, "more": {"type": "object", "nullable": True}}}}}]
TEXTS = {
    "all": [
        ("<a>", "Bonjour"), ("<answer>a<a>", " <note>one</note> and <note:x> two</note>!"), ("<a>pre", "fix<end>\n\nrest"), ("<a>", "<n> 42 </n><f>1_0.50</f><b>TRUE</b>tail\n"),
        ("<a>", "<n>007</n><f>-1e3</f><b>0</b>"), ("<a>", "<n>4.2</n>"), ("<a>", "<kv>a: 1\n b : x y\nbad\n\nc:[1, {\"d\": null}]</kv>"),
        ("<a>", "[CALLS][{\"name\": \"fly\", \"args\": {\"real\": {\"to\": \"12\", \"count\": \"3.0\", \"limit\": \"null\", \"direct\": \"1\", \"days\": \"[1]\", \"more\": \"None\"}}}][/CALLS]"),
        ("<a>", "[CALLS]{\"name\": \"fly\"}[/CALLS]"), ("<a>", "[CALLS][{\"name\": \"fly\"}][/CALLS]"),
        ("<a>", "<x i1><k>v</k><k>w</k><j> z </j></x>> é<x i2></x>"), ("<a>", "<raw>  a\n </raw>"), ("<a>", "open <note>never closed é日"), ("no anchor ", "text<no"), ("<a><raw> b", "c</raw>"),
        ("<a>", "a <n>1</n> b <n>2</n> c"),
    ],
    "calls": [
        ("<go>", "Hm</t>\n Oui"), ("<go><go on>", "Hm</t><c>fly{to:<'>a \"b\"\n<'>,count:\"7\",x:[1,{y:2}]}</c>  <c>tell{}</c> fin"), ("<go>", "no end of thinking"),
        ("<go>", "t</t> <c>fly{to:Lyon}</c>"), ("<go>", "t</t> <c>fly{to:<'>Ly"), ("<go>t</t>", "<c>fly{count:1.0,big:123456789012345678901234567890}</c>"), ("<go>", "</t>  "),
    ],
}


def parse(template, prefix, pieces):
    parser = ResponseParser(template, prefix=prefix, tools=TOOLS)
    events = list(parser.initial_events)
    for piece in pieces:
        events += parser.feed(piece)
    message, rest = parser.finalize()
    merged = []
    for e in events + rest:
        if e["type"] == "region_chunk" and merged and merged[-1]["type"] == "region_chunk":
            merged[-1]["text"] += e["text"]
        else:
            merged.append(dict(e))
    return message, merged


cases = []
for name, texts in TEXTS.items():
    for prefix, text in texts:
        case = {"template": name, "prefix": prefix, "text": text}
        try:
            case["message"] = parse(TEMPLATES[name], prefix, [text])[0]
            by_char, case["events"] = parse(TEMPLATES[name], prefix, text)
            if by_char != case["message"]:
                case["message_by_char"] = by_char
        except (ValueError, KeyError):
            case["error"] = True
        cases.append(case)
with open(sys.argv[1], "w", encoding="utf-8") as f:
    lines = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    f.write('{"tools": %s,\n"templates": %s,\n"cases": [\n%s\n]}\n' % (json.dumps(TOOLS), json.dumps(TEMPLATES), lines))

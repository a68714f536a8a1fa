#!/usr/bin/env python3
"""jinja_diff.py VLM COUNT [SEED [FOLDER]]: random templates and conversations, rendered by transformers and by `vlm template`; prints what differs.

Run it with a Python that has transformers. Templates are made from a grammar of everything that jinja2 knows; with FOLDER (NAME/template.jinja) its
templates are rendered with random conversations instead. Same text, or an error on both sides (of raise_exception: the same message), is equal."""
import datetime
import functools
import json
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers.utils import chat_template_utils as reference  # noqa: E402

NOW = datetime.datetime(2026, 3, 5, 7, 8, 9)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


reference.datetime = Clock
reference._compile_jinja_template = functools.lru_cache(1000)(reference._cached_compile_jinja_template)      # its own keeps fewer than there are templates
rnd = random.Random()

STRINGS = ["", "a", "abc", "Hello World", "  pad  ", "x,y,,z", "line1\nline2\n\nline3", "naïve café", "日本語テキスト", "😀 ok 😀", "<b>&'\"</b>", "ÄÖÜß straße ŉ ﬁ", "a_b-c.d",
           "12", "-3.5", "0x1F", "1e5", "True", "tab\there", "ΑΣ ΟΔΟΣ", "e\u0301", "%s and %d", "{} {0}", "http://example.com/a?b=c&d=e (see www.x.org) mail@x.org",
           "the quick brown fox jumps over the lazy dog", "well-known re-use--dash e-mail a-b-c-d 1-2", "(http://a.bc/d_(e)) <www.x.de>, foo@bar.org. ftp://x tel:123 https://127.0.0.1:80/x http://[::1]/ mailto:a@b.cd x@y", "&amp; &lt;b&gt; &#39; &eacute; <i>t</i><!-- c -->", "UPPER lower Title", "\u00a0nbsp\u2003", "a\r\nb\rc", "\x1c\x85\u2028", "ǆ Ǆ ǅ", "İi̇ıI", "0", " 7 ", "null",
           "<think>x</think>y", "user", "assistant", "key", "K", "content", "٣", "²", "Ⅷ", "\\", "{{ x }}", "a'b", 'a"b', "a'b\"c", "\u200b", "\x00", "\x7f"]
INTS = [0, 1, -1, 2, 3, 5, 7, 10, 42, -17, 100, 255, 1000, 65536, 2**31, 2**53 + 1, -2**63, 2**63 - 1]
FLOATS = [0.0, -0.0, 1.0, 0.5, -2.5, 3.14159, 1e20, 1e-7, 1.5e300, 123456789.123, 2.675, 1e16, 1e15, 0.1, 100.0, 5e-324, 1e22]


def scalar():
    return rnd.choice([lambda: rnd.choice(STRINGS), lambda: rnd.choice(INTS), lambda: rnd.choice(FLOATS), lambda: rnd.random() < 0.5, lambda: None])()


def value(depth=0):
    if depth > 3 or rnd.random() < 0.45:
        return scalar()
    if rnd.random() < 0.5:
        return [value(depth + 1) for _ in range(rnd.randrange(4))]
    return {rnd.choice(["a", "b", "name", "items", "keys", "é", "x y", "1", "", "type", "content"]): value(depth + 1) for _ in range(rnd.randrange(4))}


def context():
    people = [{"name": rnd.choice(["Bob", "alice", "Carl", "Eve", "bob"]), "age": rnd.choice([5, 30, 30, 41, 7.5]), "tags": rnd.sample(["x", "y", "Z"], rnd.randrange(3))}
              for _ in range(rnd.randrange(5))]
    return {"s": rnd.choice(STRINGS), "t": rnd.choice(STRINGS), "n": None, "b": rnd.random() < 0.5, "i": rnd.choice(INTS), "j": rnd.choice(INTS), "f": rnd.choice(FLOATS),
            "l": [rnd.choice(INTS) for _ in range(rnd.randrange(6))], "ls": [rnd.choice(STRINGS) for _ in range(rnd.randrange(5))], "mixed": [scalar() for _ in range(rnd.randrange(5))],
            "d": {rnd.choice(["b", "a", "C", "k", "é", "items"]): scalar() for _ in range(rnd.randrange(5))}, "people": people, "v": value(), "w": value(),
            "nested": [[1, [2, 3]], [], {"k": [None, True]}], "messages": [{"role": r, "content": rnd.choice(STRINGS)} for r in ("system", "user", "assistant")]}


# ---- expressions ----

LOCALS = ["x", "y", "k", "item"]


def pick(*choices):
    return rnd.choice(choices)()


def literal():
    return pick(lambda: repr_string(rnd.choice(STRINGS)), lambda: str(rnd.choice([0, 1, 2, 3, 5, 10, 1_000, 12345678901])), lambda: rnd.choice(["1.5", "0.0", "2e3", "1e-5", "3.0"]),
                lambda: rnd.choice(["true", "false", "none", "True", "None"]), lambda: rnd.choice(["1_000", "0x1f", "0b11", "0o17"]))


def repr_string(s):
    if "'" in s and '"' not in s:
        return '"' + s.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace("\x00", "") + '"'
    return "'" + s.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\x00", "") + "'"


def args(*items):
    return ", ".join(i for i in items if i is not None)


def maybe(text, p=0.4):
    return text if rnd.random() < p else None


def text(d):
    if d <= 0:
        return pick(lambda: repr_string(rnd.choice(STRINGS)), lambda: rnd.choice(["s", "t", "messages[0].content", "messages[-1]['role']"]))
    e = lambda: text(d - 1)
    n = lambda: number(d - 1)
    small = lambda: str(rnd.choice([-3, -1, 0, 1, 2, 3, 5, 8]))
    return pick(
        e, lambda: f"({e()} ~ {anything(d - 1)})", lambda: f"{e()} + {e()}", lambda: f"({e()} * {small()})", lambda: f"{e()}[{small()}]",
        lambda: f"{e()}[{rnd.choice(['', small()])}:{rnd.choice(['', small()])}{rnd.choice(['', ':' + rnd.choice(['1', '2', '-1', '-2', ''])])}]",
        lambda: f"{e()}|{rnd.choice(['upper', 'lower', 'capitalize', 'title', 'trim', 'string', 'e', 'escape', 'forceescape', 'striptags', 'urlencode', 'reverse', 'safe', 'urlize', 'pprint'])}",
        lambda: f"{e()}|replace({args(e(), e(), maybe(small()))})", lambda: f"{e()}|truncate({args(rnd.choice(['3', '5', '9', '20']), maybe('true'), maybe(chr(39) + chr(39)))})",
        lambda: f"{e()}|center({rnd.choice(['5', '10', '21'])})", lambda: f"{e()}|indent({args(maybe(rnd.choice(['2', chr(39) + '> ' + chr(39)])), )})",
        lambda: f"{e()}|indent({rnd.choice(['width=3', 'first=true', '2, true', '2, false, true', 'blank=true'])})",
        lambda: f"{e()}|wordwrap({args(rnd.choice(['5', '10', '20']), maybe(rnd.choice(['true', 'false'])))})", lambda: f"{e()}|trim({repr_string(rnd.choice(['a', 'xyz', ' l', 'é']))})",
        lambda: f"{sequence(d - 1)}|join({args(maybe(repr_string(rnd.choice([', ', '', '-', '|']))))})", lambda: f"{anything(d - 1)}|tojson({rnd.choice(['', '', 'indent=2', 'ensure_ascii=true', 'sort_keys=true', 'separators=(' + repr(',') + ', ' + repr(':') + ')', 'indent=0', 'indent=1, sort_keys=true'])})",
        lambda: f"{e()}.{rnd.choice(['upper', 'lower', 'capitalize', 'title', 'swapcase', 'strip', 'lstrip', 'rstrip', 'casefold'])}()", lambda: f"{e()}.{rnd.choice(['strip', 'lstrip', 'rstrip'])}({repr_string(rnd.choice(['a', ' ', 'xyé', '<>']))})",
        lambda: f"{e()}.replace({args(e(), e(), maybe(small()))})", lambda: f"{e()}.{rnd.choice(['ljust', 'rjust', 'center'])}({args(rnd.choice(['4', '12']), maybe(repr_string('*')))})", lambda: f"{e()}.zfill({rnd.choice(['3', '8'])})",
        lambda: f"{e()}.{rnd.choice(['removeprefix', 'removesuffix'])}({e()})", lambda: f"{e()}.expandtabs({rnd.choice(['', '4'])})", lambda: f"{e()}.join({sequence(d - 1)})",
        lambda: f"{repr_string(rnd.choice(['%s', '%r', '%5s|', '%-5s|', '%d', '%05d', '%x', '%.2f', '%+.1e', '%g', '%c', '%%', '%(a)s', '%10.3s|', '%#x', '% d', '%i', '%o', '%X', '%G', '%5.1f%%']))} % {rnd.choice([anything(d - 1), '(' + anything(d - 1) + ',)', '(' + anything(d - 1) + ', ' + anything(d - 1) + ')', 'd'])}",
        lambda: f"{repr_string(rnd.choice(['%s', '%s-%s', '%d', '%5.2f', '%(a)s']))}|format({args(anything(d - 1), maybe(anything(d - 1)))})",
        lambda: f"{repr_string(rnd.choice(['{}', '{0}', '{:>8}', '{:<8}|', '{:^9}', '{:*^9}', '{:d}', '{:,}', '{:_}', '{:05}', '{:.2f}', '{:+}', '{:x}', '{:#b}', '{:e}', '{:g}', '{:%}', '{!r}', '{!s:>5}', '{a}', '{0[0]}', '{0.x}', '{{}}', '{:10.3}', '{:08.3f}', '{:+,.1f}', '{:c}', '{:n}', '{:X}', '{:o}', '{:=+8}', '{} {}', '{1} {0}', '{:{}}', '{!a}', '{:s}']))}.format({args(anything(d - 1), maybe(anything(d - 1)), maybe('a=' + anything(0), 0.3))})",
        lambda: f"({e()}|{rnd.choice(['safe', 'e', 'forceescape'])}){rnd.choice([' + ' + e(), '.strip()', '.upper() + ' + e(), '|trim + ' + e(), '|upper', '.replace(' + e() + ', ' + e() + ')', ' % ' + anything(d - 1), '|format(' + anything(d - 1) + ')', '.join(' + sequence(d - 1) + ')', '.split() | first', '[0]', '[1:] + ' + e(), ' * 2', ' is escaped', '|list', '|tojson', ' ~ ' + e(), '|indent', '|truncate(5, true, ' + e() + ')', '|center(9)', '|reverse', '.partition(' + e() + ')', '.format(' + e() + ')', '|title', '|string', '|replace(' + e() + ', ' + e() + ')'])}",
        lambda: f"{e()}|urlize({rnd.choice(['', '9', 'nofollow=true', 'target=' + repr('_blank'), 'rel=' + repr('x y'), 'extra_schemes=[' + repr('tel:') + ']'])})", lambda: f"{e()}|wordwrap({rnd.choice(['7, true, ' + repr('|'), '4, false', '12, break_on_hyphens=false', 'width=3'])})",
        lambda: f"{anything(d - 1)}|string", lambda: f"({e()} if {boolean(d - 1)} else {e()})", lambda: f"{e()}|default({e()})", lambda: f"{n()}|filesizeformat({rnd.choice(['', 'true'])})",
        lambda: f"{mapping(d - 1)}|xmlattr", lambda: f"{mapping(d - 1)}|urlencode", lambda: f"strftime_now({repr_string(rnd.choice(['%Y-%m-%d', '%d %b %Y', '%A %B %j %H:%M:%S', '%-d/%-m', '%p %I', '%%', '%y %U %w', '%Z|%z', '%f', '%c', '%x %X', '%e', '%G %V %u', '%s' if 0 else '%D']))})")


def number(d):
    if d <= 0:
        return pick(lambda: rnd.choice(["i", "j", "f", "0", "1", "2", "3", "7", "10", "1.5", "-2", "0.1"]))
    n = lambda: number(d - 1)
    return pick(
        n, lambda: f"({n()} {rnd.choice(['+', '-', '*', '/', '//', '%'])} {n()})", lambda: f"{n()} {rnd.choice(['+', '-', '*'])} {n()}", lambda: f"({n()} ** {rnd.choice(['2', '3', '0', '0.5', '-1'])})", lambda: f"-{n()}",
        lambda: f"{anything(d - 1)}|length", lambda: f"{sequence(d - 1)}|count", lambda: f"{anything(d - 1)}|int({rnd.choice(['', '7', 'default=3', '0, 16', 'base=8'])})", lambda: f"{anything(d - 1)}|float({rnd.choice(['', '1.5'])})",
        lambda: f"{n()}|round({rnd.choice(['', '1', '2', '-1', '0, ' + repr('floor'), '1, ' + repr('ceil'), 'method=' + repr('ceil')])})", lambda: f"{n()}|abs", lambda: f"{sequence(d - 1)}|sum", lambda: f"{text(d - 1)}|wordcount",
        lambda: f"{text(d - 1)}.{rnd.choice(['find', 'rfind', 'index', 'count', 'rindex'])}({args(text(d - 1), maybe('1', 0.2))})", lambda: f"people|sum(attribute='age')", lambda: f"people|map(attribute='age')|{rnd.choice(['sum', 'max', 'min', 'first', 'last'])}",
        lambda: f"{sequence(d - 1)}.{rnd.choice(['index', 'count'])}({anything(d - 1)})", lambda: f"{n()}.bit_length()", lambda: f"{n()}.is_integer()", lambda: f"{n()}.{rnd.choice(['real', 'imag', 'numerator', 'denominator'])}",
        lambda: f"{n()}.{rnd.choice(['conjugate', 'hex', 'as_integer_ratio', 'bit_count'])}()")


def sequence(d):
    if d <= 0:
        return rnd.choice(["l", "ls", "mixed", "people", "nested", "messages", "[]", "()", "d", "s", "range(3)", "undefined_thing"])
    q = lambda: sequence(d - 1)
    a = lambda: anything(d - 1)
    return pick(
        q, lambda: f"[{', '.join(a() for _ in range(rnd.randrange(4)))}]", lambda: f"({a()}, {a()})", lambda: f"({a()},)", lambda: f"{q()}|list", lambda: f"{q()}|sort({rnd.choice(['', 'reverse=true', 'case_sensitive=true', 'true'])})",
        lambda: f"people|sort(attribute={repr(rnd.choice(['name', 'age', 'age,name', 'name,age', 'tags', 'nope']))})", lambda: f"{q()}|unique({rnd.choice(['', 'true'])})|list", lambda: f"{q()}|reverse|list", lambda: f"{q()} + {q()}", lambda: f"({q()} * {rnd.choice(['0', '1', '2', '3'])})",
        lambda: f"{q()}[{rnd.choice(['', '1', '-2'])}:{rnd.choice(['', '2', '-1'])}{rnd.choice(['', '::2'[1:], ':-1'])}]", lambda: f"{q()}|batch({args(rnd.choice(['2', '3']), maybe(a()))})|list", lambda: f"{q()}|slice({args(rnd.choice(['2', '3']), maybe(a()))})|list",
        lambda: f"{q()}|map({repr(rnd.choice(['upper', 'string', 'length', 'int', 'tojson', 'lower', 'trim', 'abs', 'first', 'list', 'nosuch', 'e']))})|list", lambda: f"people|map(attribute={repr(rnd.choice(['name', 'age', 'tags.0', 'nope', 'name.upper']))}{rnd.choice(['', ', default=' + a()])})|list",
        lambda: f"{q()}|{rnd.choice(['select', 'reject'])}({rnd.choice(['', repr('string'), repr('odd'), repr('defined'), repr('none'), repr('number'), repr('mapping'), repr('in') + ', [1, 2]', repr('gt') + ', 2', repr('eq') + ', 1', repr('divisibleby') + ', 2', repr('lower'), repr('nosuch')])})|list",
        lambda: f"people|{rnd.choice(['selectattr', 'rejectattr'])}({rnd.choice([repr('age'), repr('age') + ', ' + repr('gt') + ', 10', repr('tags'), repr('name') + ', ' + repr('equalto') + ', ' + repr('Bob'), repr('nope') + ', ' + repr('defined'), repr('tags') + ', ' + repr('iterable'), repr('name') + ', ' + repr('in') + ', [' + repr('Eve') + ']'])})|map(attribute='name')|list",
        lambda: f"people|groupby({repr(rnd.choice(['age', 'name', 'nope']))}{rnd.choice(['', ', default=' + repr('z'), ', case_sensitive=true'])})|list", lambda: f"people|groupby('age')|map(attribute='list')|list", lambda: f"{text(d - 1)}.{rnd.choice(['split', 'rsplit'])}({args(rnd.choice([None, repr(','), repr(' '), repr('l'), 'none']), maybe('1'))})",
        lambda: f"{text(d - 1)}.splitlines({rnd.choice(['', 'true'])})", lambda: f"{text(d - 1)}.{rnd.choice(['partition', 'rpartition'])}({text(0)})", lambda: f"{text(d - 1)}|list", lambda: f"{mapping(d - 1)}.{rnd.choice(['keys', 'values', 'items'])}(){rnd.choice(['|list', '', '|sort'])}",
        lambda: f"{mapping(d - 1)}|{rnd.choice(['dictsort', 'items|list', 'dictsort(true)', 'dictsort(by=' + repr('value') + ')', 'dictsort(reverse=true)', 'list'])}", lambda: f"range({args(rnd.choice(['3', '5', '-2', '1']), maybe(rnd.choice(['7', '0', '-4'])), None)})|list", lambda: f"range(10, {rnd.choice(['0', '3', '20'])}, {rnd.choice(['-3', '2', '-1'])})|list",
        lambda: f"{q()}|{rnd.choice(['first', 'last'])}", lambda: f"({q()} if {boolean(d - 1)} else {q()})", lambda: f"{q()}.copy()", lambda: f"{q()} or {q()}")


def mapping(d):
    if d <= 0:
        return rnd.choice(["d", "messages[0]", "{}", "people[0]", "{'a': 1, 'b': none}", "dict(a=1)"])
    a = lambda: anything(d - 1)
    return pick(lambda: mapping(d - 1), lambda: "{" + ", ".join(f"{rnd.choice([repr('a'), repr('b'), repr('é'), '1', '1.0', 'true', 'none', '(1, 2)', text(0)])}: {a()}" for _ in range(rnd.randrange(4))) + "}",
                lambda: f"dict({args(rnd.choice([mapping(d - 1), '[(1, 2)]', None]), maybe('z=' + a()))})", lambda: f"{mapping(d - 1)}.copy()", lambda: f"dict({sequence(d - 1)}|batch(2))", lambda: f"namespace({args(maybe('a=' + a()), maybe('b=' + a()))})")


def boolean(d):
    if d <= 0:
        return rnd.choice(["b", "true", "false", "n is none", "s", "l", "not b", "undefined_thing is defined", "add_generation_prompt"])
    a = lambda: anything(d - 1)
    tests = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "iterable", "sequence", "callable", "true", "false", "upper", "lower", "escaped", "odd", "even"]
    return pick(lambda: f"{a()} is {rnd.choice(['', 'not '])}{rnd.choice(tests)}", lambda: f"({a()} {rnd.choice(['==', '!=', '<', '>', '<=', '>='])} {a()})", lambda: f"{number(d - 1)} {rnd.choice(['<', '>', '==', '<=', '>='])} {number(d - 1)}",
                lambda: f"({a()} {rnd.choice(['in', 'not in'])} {sequence(d - 1)})", lambda: f"({text(d - 1)} in {text(d - 1)})", lambda: f"({boolean(d - 1)} and {boolean(d - 1)})", lambda: f"({a()} or {a()})", lambda: f"not {a()}", lambda: f"1 < {number(d - 1)} <= {number(d - 1)}",
                lambda: f"{a()} is {rnd.choice(['eq', 'equalto', 'ne', 'lt', 'gt', 'sameas', 'in', 'ge', '=='])}({a()})" if rnd.random() < 0.9 else f"{a()} is divisibleby 3", lambda: f"{number(d - 1)} is divisibleby({rnd.choice(['2', '3', '0'])})", lambda: f"{text(d - 1)} is in {sequence(0)}",
                lambda: f"{text(d - 1)}.{rnd.choice(['isalpha', 'isdigit', 'isdecimal', 'isnumeric', 'isalnum', 'isspace', 'isascii', 'isupper', 'islower', 'istitle', 'isidentifier', 'isprintable'])}()",
                lambda: f"{text(d - 1)}.{rnd.choice(['startswith', 'endswith'])}({rnd.choice([text(0), '(' + text(0) + ', ' + text(0) + ')'])})", lambda: f"{repr(rnd.choice(['upper', 'nosuch', 'odd']))} is {rnd.choice(['filter', 'test'])}")


def anything(d):
    if d <= 0:
        return rnd.choice(["s", "t", "n", "b", "i", "j", "f", "l", "ls", "mixed", "d", "people", "v", "w", "nested", "undefined_thing", "messages", *LOCALS[:2], literal(), literal(), "[]", "{}", "()"])
    return pick(lambda: text(d), lambda: number(d), lambda: sequence(d), lambda: mapping(d), lambda: boolean(d), lambda: anything(d - 1), lambda: f"v.{rnd.choice(['a', 'name', 'items', 'keys', 'content'])}", lambda: f"w[{anything(0)}]",
                lambda: f"{anything(d - 1)}.{rnd.choice(['a', 'b', 'name', 'items', 'x', '__class__', 'append', 'upper', '0'])}", lambda: f"{anything(d - 1)}[{anything(d - 1)}]", lambda: f"{anything(d - 1)}|default({anything(d - 1)}{rnd.choice(['', ', true'])})", lambda: f"{anything(d - 1)}|attr({text(0)})",
                lambda: f"{sequence(d - 1)}|{rnd.choice(['first', 'last', 'min', 'max'])}", lambda: f"({anything(d - 1)} if {boolean(d - 1)})", lambda: f"{mapping(d - 1)}.get({args(text(0), maybe(anything(0)))})", lambda: f"{anything(d - 1)}|{rnd.choice(['list', 'string', 'safe', 'd', 'items', 'tojson', 'pprint', 'nosuch', 'length', 'upper'])}",
                lambda: f"m({args(maybe(anything(0)), maybe(rnd.choice(['y=', 'k=', '']) + anything(0)))})", lambda: f"{anything(d - 1)}({anything(0)})" if rnd.random() < 0.2 else anything(d - 1))


# ---- statements ----

def gap():
    return rnd.choice(["", "", " ", "\n", "  \n", "\n  ", "a", "txt ", " x\n", "\t", "\n\n", "é", "{", "}", "%"])


def tag(inside):
    return "{%" + rnd.choice(["", "", "", "-", "+"]) + rnd.choice([" ", " ", "", "\n"]) + inside + rnd.choice([" ", " ", ""]) + rnd.choice(["", "", "", "-", "+"]) + "%}"


def show(d):
    return "{{" + rnd.choice(["", "", "-", "+"]) + " " + anything(d) + " " + rnd.choice(["", "", "-"]) + "}}"


def name():
    return rnd.choice(LOCALS + ["s", "l", "ns", "z"])


def statement(d, loop=False):
    if d <= 0:
        return gap() + show(2) + gap()
    inner = lambda lp=loop: "".join(statement(d - 1, lp) for _ in range(rnd.randrange(1, 3)))
    e = lambda: anything(rnd.randrange(3))
    return gap() + pick(
        lambda: show(3), lambda: show(3), lambda: show(2), lambda: tag(f"if {boolean(2)}") + inner() + rnd.choice(["", tag(f"elif {e()}") + inner()]) + rnd.choice(["", tag("else") + inner()]) + tag("endif"),
        lambda: tag(f"for {rnd.choice(['x', 'item', 'x', 'y', 'k, y'])} in {sequence(2)}{rnd.choice(['', '', ' if ' + boolean(1)])}") + inner(True) + rnd.choice(["", tag("else") + inner()]) + tag("endfor"),
        lambda: tag(f"for k, y in {rnd.choice(['d.items()', 'd|dictsort', 'd|items', 'people|groupby(' + repr('age') + ')', '[[1, 2], [3, 4]]'])}") + inner(True) + tag("endfor"),
        lambda: tag("for x in l") + "{{ " + f"loop.{rnd.choice(['index', 'index0', 'revindex', 'revindex0', 'first', 'last', 'length', 'previtem', 'nextitem', 'depth', 'depth0', 'cycle(1, 2, 3)', 'changed(x)', 'nope'])}" + " }}" + inner(True) + tag("endfor"),
        lambda: tag(f"set {name()} = {e()}"), lambda: tag(f"set {name()} = {e()}"), lambda: tag(f"set x, y = {rnd.choice(['1, 2', 'l', e()])}"), lambda: tag(f"set {name()}{rnd.choice(['', '|upper', '|trim', '|replace(' + repr('a') + ', s)'])}") + inner() + tag("endset"),
        lambda: tag(f"set ns = namespace({rnd.choice(['a=1', 'a=[]', '', 'd'])})") + tag("set ns.a = " + rnd.choice(["ns.a ~ 1", "ns.a + 1", e()])) + "{{ ns.a }}", lambda: tag(f"set ns.{rnd.choice(['a', 'b', '_c'])} = {e()}"),
        lambda: tag(f"macro m({rnd.choice(['', 'x', 'x, y=1', 'x=s, y=x', 'y, k=none', 'caller=none'])})") + inner(False) + rnd.choice(["", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller }}", "{{ caller is defined }}"]) + tag("endmacro"),
        lambda: "{{ m(" + args(maybe(anything(0)), maybe("y=" + anything(0)), maybe("q=1", 0.1)) + ") }}", lambda: tag(f"call{rnd.choice(['', '(x)', '(x, y=2)'])} m({args(maybe(anything(0)))})") + inner(False) + tag("endcall"),
        lambda: tag(f"filter {rnd.choice(['upper', 'trim', 'indent', 'replace(' + repr('a') + ', ' + repr('b') + ')', 'e', 'lower|title', 'length', 'nosuch' if rnd.random() < 0.1 else 'lower'])}") + inner() + tag("endfilter"),
        lambda: tag(f"with {rnd.choice(['x = 1', 'x = s, y = x', '', 'k = ' + e()])}") + inner() + tag("endwith"), lambda: "{#" + rnd.choice(["", "-", "+"]) + " comment " + rnd.choice(["", "-", "+"]) + "#}", lambda: tag("raw") + " {{ raw }} {% x %} " + tag("endraw"),
        lambda: tag("generation") + inner(False) + tag("endgeneration"), lambda: tag("for x in nested recursive") + "[{{ loop.depth }}" + "{{ loop(x) if x is iterable and x is not mapping else x }}]" + rnd.choice(["", tag("else") + "E"]) + tag("endfor"),
        lambda: tag(rnd.choice(["break", "continue"])) if loop or rnd.random() < 0.05 else gap(), lambda: tag(f"if {boolean(1)}") + tag(rnd.choice(["break", "continue"])) + tag("endif") if loop else gap(),
        lambda: tag(f"block {rnd.choice(['b1', 'b2', 'b3', 'b4', 'b5', 'b6'])}{rnd.choice(['', ' scoped'])}") + inner(False) + tag("endblock"), lambda: tag("print " + e()) if rnd.random() < 0.3 else show(2), lambda: tag("if b") + "{{ raise_exception(" + text(1) + ") }}" + tag("endif") if rnd.random() < 0.3 else show(1),
        lambda: tag(rnd.choice(["include 'x'", "import 'x' as q", "from 'x' import q", "extends 'x'", "do l", "trans", "debug", "endif", "else", "autoescape false", "set x", "for x l"])) if rnd.random() < 0.15 else show(2),
        lambda: tag("set c = cycler('a', 'b')") + "{{ c.next() }}{{ c.next() }}{{ c.current }}", lambda: tag("set jn = joiner(', ')") + "{{ jn() }}a{{ jn() }}b") + gap()


def template():
    return "".join(statement(rnd.randrange(1, 4)) for _ in range(rnd.randrange(1, 4)))


# ---- conversations for whole templates ----

TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather \"now\" <b>é</b>", "parameters": {"type": "object", "properties": {
    "location": {"type": "string", "description": "City"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}, "days": {"type": ["integer", "null"], "minimum": 0},
    "deep": {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}, "required": ["a"]}}, "required": ["location"]}}}


def part():
    return pick(lambda: {"type": "text", "text": rnd.choice(STRINGS)}, lambda: {"type": "text", "text": rnd.choice(STRINGS)}, lambda: {"type": "image"}, lambda: {"type": "image", "image": "a.png"}, lambda: {"type": "video"}, lambda: {"type": "audio"},
                lambda: {"type": "image_url", "image_url": {"url": "http://x/y.png"}}, lambda: {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, lambda: {"text": "no type"}, lambda: {"type": "thinking", "thinking": "hm"}, lambda: rnd.choice([{}, {"type": None}, "bare", {"type": "text"}, {"type": "odd"}]))


def arguments():
    return pick(lambda: {"location": rnd.choice(STRINGS), "days": rnd.choice(INTS)}, lambda: {}, lambda: {"v": value()}, lambda: json.dumps({"location": "Paris"}), lambda: rnd.choice(["", "{bad", None, [], [1], "null", 7]))


def call():
    made = {"id": rnd.choice(["call_1", "abc123XYZ", "functions.get_weather:0", "123456789"]), "type": "function", "function": {"name": rnd.choice(["get_weather", "f", "日本"]), "arguments": arguments()}}
    if rnd.random() < 0.1:
        del made[rnd.choice(["id", "type", "function"])]
    return rnd.choice([made, made, made, made.get("function", {})])


def content():
    return pick(lambda: rnd.choice(STRINGS), lambda: rnd.choice(STRINGS), lambda: [part() for _ in range(rnd.randrange(5))], lambda: None, lambda: "")


def message(role):
    m = {"role": role, "content": content()}
    if role == "assistant" and rnd.random() < 0.4:
        m["tool_calls"] = [call() for _ in range(rnd.randrange(4))]
    if role == "assistant" and rnd.random() < 0.3:
        m[rnd.choice(["reasoning_content", "thinking", "reasoning"])] = rnd.choice(STRINGS + [None])
    if role == "tool":
        m.update({"tool_call_id": rnd.choice(["call_1", "abc123XYZ", "123456789"]), "name": "get_weather"})
        m["content"] = pick(content, lambda: {"temperature": 21.5, "ok": True}, lambda: json.dumps({"t": 1}))
    if rnd.random() < 0.08:
        del m[rnd.choice(list(m))]
    if rnd.random() < 0.1:
        m[rnd.choice(["name", "prefix", "tool_calls", "channel", "recipient", "weight", "tools", "content"])] = scalar()
    return m


def conversation():
    if rnd.random() < 0.02:
        return []
    roles = rnd.choice([["user"], ["system", "user"], ["user", "assistant", "user"], ["system", "user", "assistant", "tool", "assistant"], ["system", "user", "assistant", "tool", "tool", "user"], ["developer", "user", "assistant"],
                        [rnd.choice(["system", "user", "assistant", "tool", "ipython", "function", "developer", "odd", "User", ""]) for _ in range(rnd.randrange(1, 8))]])
    if rnd.random() < 0.03:
        roles = ["system"] + ["user", "assistant"] * rnd.randrange(20, 100) + ["user"]
    return [message(r) for r in roles]


def chat_request():
    request = {"messages": conversation()}
    if rnd.random() < 0.8:
        request["add_generation_prompt"] = rnd.choice([True, True, False])
    if rnd.random() < 0.4:
        request["tools"] = pick(lambda: [TOOL], lambda: [TOOL, TOOL["function"]], lambda: [], lambda: [{"type": "function", "function": {"name": "g", "parameters": {}}}], lambda: [value() if rnd.random() < 0.2 else {"name": "h"}])
    if rnd.random() < 0.15:
        request["documents"] = [{"title": "T", "text": rnd.choice(STRINGS)}, {"title": rnd.choice(STRINGS), "text": "x", "doc_id": 3}][: rnd.randrange(3)]
    if rnd.random() < 0.12:
        request["continue_final_message"] = rnd.choice([True, True, "content", "reasoning_content", "thinking"])
    for key, choices in {"enable_thinking": [True, False, None], "thinking": [True, False], "bos_token": ["<s>", "<|begin|>"], "eos_token": ["</s>"], "reasoning_effort": ["low", "high", None], "builtin_tools": [["browser"], ["python", "browser"], []],
                         "tool_choice": ["auto", None], "date_string": ["1 Jan 2020"], "custom_tools": [[TOOL]], "tools_in_user_message": [True, False], "preserve_thinking": [True], "add_vision_id": [True], "documents_mode": [1], "unk_token": ["<unk>"],
                         "model_identity": ["You are X."], "safety_mode": ["contextual", "none"], "keep_past_thinking": [True, False], "clear_thinking": [True, False], "xml_tools": [[TOOL]], "python_tools": [[TOOL]]}.items():
        if rnd.random() < (0.6 if key in ("bos_token", "eos_token") else 0.1):
            request[key] = rnd.choice(choices)
    return request


# ---- the two sides ----

class Late(Exception):
    pass


def alarm(*_):
    raise Late


def expected(request):
    request = json.loads(json.dumps(request))
    keys = {k: request.pop(k, None) for k in ("messages", "tools", "documents", "continue_final_message", "chat_template")}
    add = request.pop("add_generation_prompt", False)
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        made, _ = reference.render_jinja_template([keys["messages"]], tools=keys["tools"], documents=keys["documents"], chat_template=keys["chat_template"],
                                                  continue_final_message=keys["continue_final_message"] or False, add_generation_prompt=add, **request)
        return {"text": made[0]}
    except Late:
        return {"late": True}
    except BaseException as e:  # noqa: BLE001
        return {"error": type(e).__name__, "message": str(e)}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def differs(want, got):
    if "late" in want or want.get("error") in ("MemoryError", "OverflowError", "RecursionError"):
        return False
    if "text" in want:
        if re.search("0[xX][0-9a-fA-F]{9,}", want["text"]) or "<function" in want["text"] or any(0xD800 <= ord(c) < 0xE000 for c in want["text"]):
            return False
        return got.get("text") != want["text"]
    if want["error"] == "TemplateError":
        return got.get("error") != want["message"]
    return "error" not in got


def main():
    vlm, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
    signal.signal(signal.SIGALRM, alarm)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    sources = [(p.parent.name, p.read_bytes().decode()) for p in sorted(pathlib.Path(sys.argv[4]).glob("*/template.jinja"))] if len(sys.argv) > 4 else None
    bad = texts = limits = done = 0
    while done < count:
        requests = []
        for _ in range(min(2000, count - done)):
            rnd.seed(f"{seed}-{done}")
            if sources:
                what, source = sources[done % len(sources)]
                request = {**chat_request(), "chat_template": source}
            else:
                what, request = f"{seed}-{done}", {**context(), "chat_template": template()}
            requests.append((what, {**request, "now": NOW.isoformat()}))
            done += 1
        lines = "".join(json.dumps(r) + "\n" for _, r in requests)
        answers = [json.loads(x) for x in subprocess.run([vlm, "template", "--jsonl"], input=lines, capture_output=True, text=True, timeout=600).stdout.split("\n") if x]
        if len(answers) != len(requests):
            sys.exit(f"{len(answers)} answers to {len(requests)} requests")
        for (what, request), got in zip(requests, answers):
            want = expected({k: v for k, v in request.items() if k != "now"})
            texts += "text" in want
            if not differs(want, got):
                continue
            if "error" in got and any(w in got["error"] for w in ("too many steps", "MiB of memory", "128 bits", "too wide", "too large")):
                limits += 1
                continue
            bad += 1
            if bad <= int(os.environ.get("SHOW", 20)):
                print(f"--- {what}\n{request['chat_template'] if not sources else json.dumps({k: v for k, v in request.items() if k != 'chat_template'}, ensure_ascii=False)}\n  want {want}\n  got  {got}")
                if not sources and os.environ.get("CONTEXT"):
                    print(" ", {k: v for k, v in request.items() if k != "chat_template"})
    print(f"{done} renders, {texts} with a text: {done - bad - limits} equal, {limits} refused at a limit, {bad} differ")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()

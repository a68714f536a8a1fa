"""variants.py - tokenizer.json files that between them have every part that Hugging Face `tokenizers` knows, with every option."""
import functools
import itertools
import json
import random

TEXTS = ["the quick brown fox jumps over the lazy dog", "Hello, World! It's a test: don't panic.", "naïve café déjà vu Ünïcödé", "1234567890 3.14 1,000", "def f(x): return x + 1",
         "日本語 中文 漢字かな 한국어", "😀 👩‍👩‍👧‍👦 ❤️", "привет мир", "a  b   c\n\nd\te", "foo-bar_baz@x.org https://a.b/c?d=e", "ﬁ ﬃ ½ ² Å", "AAAA aaaa ABAB", "▁▁x ##y"]
SCRIPTS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?'-_ \"()=+:/@#\n\téïüö日本語中文漢字한국어привет😀❤▁½"


def byte_alphabet():
    own = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    out, n = {}, 0
    for b in range(256):
        out[b] = chr(b) if b in own else chr(256 + n)
        n += b not in own
    return out


@functools.lru_cache(None)
def bpe(byte_level=False, prefix=None, suffix=None, merges=150, drop=0, bytes_too=False, as_pairs=False, seed=5, **options):
    """A BPE model whose merges come from the texts. drop: so many of the single characters are left out, so that there is something unknown."""
    r = random.Random(seed)
    alphabet = byte_alphabet()
    words = [w for t in TEXTS for w in t.replace("\n", " ").split(" ") if w] + [" " + w for t in TEXTS[:4] for w in t.split(" ")]
    if byte_level:
        words = ["".join(alphabet[b] for b in w.encode()) for w in words]
        singles = list(alphabet.values())
    else:
        singles = sorted(set("".join(words)) | set(SCRIPTS))
    r.shuffle(singles)
    singles = singles[drop:]
    known = set(singles)

    def cut(word):
        return [(prefix or "" if i else "") + c + ((suffix or "") if i == len(word) - 1 else "") for i, c in enumerate(word)]

    vocab = ["<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if bytes_too else [])
    vocab += singles + ([prefix + c for c in singles] if prefix else []) + ([c + suffix for c in singles] if suffix else [])
    vocab += [prefix + c + suffix for c in singles] if prefix and suffix else []
    parts = [cut([c for c in w if c in known]) for w in words]
    chosen = []
    for _ in range(merges):
        pairs = {}
        for p in parts:
            for a, b in zip(p, p[1:]):
                pairs[a, b] = pairs.get((a, b), 0) + 1
        if not pairs:
            break
        best = max(sorted(pairs), key=lambda k: pairs[k])
        whole = best[0] + (best[1][len(prefix):] if prefix else best[1])
        chosen.append(best)
        vocab.append(whole)
        for p in parts:
            i = 0
            while i + 1 < len(p):
                if (p[i], p[i + 1]) == best:
                    p[i:i + 2] = [whole]
                i += 1
    vocab = list(dict.fromkeys(vocab))
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": prefix, "end_of_word_suffix": suffix, "fuse_unk": False,
             "byte_fallback": False, "ignore_merges": False, "vocab": {v: i for i, v in enumerate(vocab)},
             "merges": [list(m) for m in chosen] if as_pairs or any(" " in x for m in chosen for x in m) else [" ".join(m) for m in chosen]}
    model.update(options)
    return model


def unigram(bytes_too=False, unk=0, drop=0, seed=6, replacement="▁", **options):
    r = random.Random(seed)
    pieces = {"<unk>": 0.0}
    if bytes_too:
        pieces.update({f"<0x{b:02X}>": 0.0 for b in range(256)})
    words = [replacement + w for t in TEXTS for w in t.split()]
    for c in sorted(set(SCRIPTS) | {replacement})[drop:]:
        pieces[c] = -round(r.uniform(4, 12), 5)
    for w in words:
        for _ in range(6):
            a = r.randrange(len(w))
            b = r.randrange(a + 1, len(w) + 1)
            pieces[w[a:b]] = -round(r.uniform(2, 11), 5)
    return {"type": "Unigram", "unk_id": unk, "vocab": [[p, s] for p, s in pieces.items()], "byte_fallback": False, **options}


@functools.lru_cache(None)
def words_of(seed=7):
    r = random.Random(seed)
    out = set(SCRIPTS) | {"##" + c for c in SCRIPTS}
    for t in TEXTS:
        for w in t.lower().split() + t.split():
            a = r.randrange(len(w))
            out |= {w, w[:a + 1], "##" + w[a:], w.strip(".,!?:")}
    return ["[UNK]"] + sorted(out)


def wordpiece(**options):
    return {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": {w: i for i, w in enumerate(words_of())}, **options}


def wordlevel():
    return {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words_of())}, "unk_token": "[UNK]"}


def added(content, **options):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False, **options}


MANY = [added("<s>", special=True), added("</s>", special=True, rstrip=True), added("<mask>", special=True, lstrip=True), added("<both>", lstrip=True, rstrip=True),
        added("Foo", single_word=True, normalized=True), added("BAR", normalized=True), added("the", single_word=True), added("  ", normalized=False),
        added("\n\n", normalized=False), added("<|a|>", special=True, normalized=True), added("<|a|><|b|>", special=True), added("é", normalized=True),
        added("x", single_word=True, lstrip=True, rstrip=True), added("日本", normalized=True, rstrip=True), added("don't", single_word=True, normalized=True)]


def whole(model, normalizer=None, pre=None, decoder=None, post=None, tokens=MANY):
    first = len(model["vocab"])
    known = model["vocab"] if isinstance(model["vocab"], dict) else {p: i for i, (p, _) in enumerate(model["vocab"])}
    listed, n = [], first
    for t in tokens:
        listed.append({"id": known.get(t["content"], n), **t})
        n += t["content"] not in known
    listed.sort(key=lambda t: t["id"])
    return {"version": "1.0", "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"},
            "added_tokens": listed, "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


def sequence(kind, *items):
    return {"type": "Sequence", kind: list(items)}


def metaspace(scheme="always", split=True, replacement="▁"):
    return {"type": "Metaspace", "replacement": replacement, "prepend_scheme": scheme, "split": split}


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False, regex=True):
    return {"type": "Split", "pattern": {"Regex" if regex else "String": pattern}, "behavior": behavior, "invert": invert}


def replace(pattern, content, regex=False):
    return {"type": "Replace", "pattern": {"Regex" if regex else "String": pattern}, "content": content}


def template(*items):
    parts = [{"Sequence": {"id": "A", "type_id": 0}} if i == "$A" else {"SpecialToken": {"id": i, "type_id": 0}} for i in items]
    return {"type": "TemplateProcessing", "single": parts, "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {i: {"id": i, "ids": [1, 2] if i == "two" else [3], "tokens": ["x", "y"] if i == "two" else ["z"]} for i in items if i != "$A"}}


BL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
NORMALIZERS = {
    "nfc": {"type": "NFC"}, "nfd": {"type": "NFD"}, "nfkc": {"type": "NFKC"}, "nfkd": {"type": "NFKD"}, "lower": {"type": "Lowercase"},
    "accents": {"type": "StripAccents"}, "nmt": {"type": "Nmt"}, "prepend": {"type": "Prepend", "prepend": "▁x"}, "bytes": {"type": "ByteLevel"},
    "strip": {"type": "Strip", "strip_left": True, "strip_right": True}, "strip_l": {"type": "Strip", "strip_left": True, "strip_right": False},
    "strip_r": {"type": "Strip", "strip_left": False, "strip_right": True},
    "rep_string": replace("o", "00"), "rep_empty": replace("e", ""), "rep_nothing": replace("", "-"), "rep_regex": replace(r"\s+", " ", True), "rep_star": replace(r"a*", "_", True),
    "rep_class": replace(r"[^\w\s]|_", "#", True), "rep_word": replace(r"\b\w", "W", True), "rep_dollar": replace(r"^|$", "|", True),
    "decompose": sequence("normalizers", {"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}),
    "llama": sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")),
    "first": sequence("normalizers", {"type": "Strip", "strip_left": True, "strip_right": False}, {"type": "NFKC"}, replace(" {2,}", " ", True)),
    "nested": sequence("normalizers", sequence("normalizers", {"type": "NFC"}), sequence("normalizers"), {"type": "Lowercase"}),
}
for i, (clean, cjk, accents, lower) in enumerate(itertools.product([True, False], [True, False], [None, True, False], [True, False])):
    NORMALIZERS[f"bert{i}"] = {"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": cjk, "strip_accents": accents, "lowercase": lower}

PRES = {
    "words": {"type": "Whitespace"}, "space": {"type": "WhitespaceSplit"}, "bert": {"type": "BertPreTokenizer"}, "scripts": {"type": "UnicodeScripts"},
    "digits": {"type": "Digits", "individual_digits": False}, "digit": {"type": "Digits", "individual_digits": True},
    "delimiter": {"type": "CharDelimiterSplit", "delimiter": "e"}, "delimiter_wide": {"type": "CharDelimiterSplit", "delimiter": "本"},
    "fixed": {"type": "FixedLength", "length": 3}, "fixed1": {"type": "FixedLength", "length": 1},
    "seq": sequence("pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "Digits", "individual_digits": True}),
    "nested": sequence("pretokenizers", sequence("pretokenizers", {"type": "Digits", "individual_digits": True}), sequence("pretokenizers"), metaspace("first")),
    "scripts_meta": sequence("pretokenizers", {"type": "UnicodeScripts"}, metaspace("always")),
    "nothing": sequence("pretokenizers"),
}
for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
    PRES[f"punctuation_{b}"] = {"type": "Punctuation", "behavior": b}
    for invert in (False, True):
        PRES[f"split_regex_{b}_{invert}"] = split(r"\s+|\p{N}", b, invert)
        PRES[f"split_string_{b}_{invert}"] = split("e", b, invert, regex=False)
        PRES[f"split_empty_{b}_{invert}"] = split(r"o*", b, invert)
        PRES[f"split_void_{b}_{invert}"] = split("", b, invert, regex=False)
        PRES[f"split_look_{b}_{invert}"] = split(r"(?<=[a-z])(?=[A-Z])|[^\r\n\p{L}\p{N}]?\p{L}+", b, invert)
for scheme in ("always", "first", "never"):
    for cut in (True, False):
        PRES[f"metaspace_{scheme}_{cut}"] = metaspace(scheme, cut)
PRES["metaspace_other"] = metaspace("always", True, "_")

PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "cl100k_possessive": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen35": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "o200k": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "kimi": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "deepseek_digits": r"\p{N}{1,3}",
    "deepseek_cjk": "[一-龥぀-ゟ゠-ヿ]+",
    "deepseek_words": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "starcoder_digits": r"\p{Nd}",
    "clip": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "glm": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "word_quirks": r"\w+|[[:punct:]]+|\h|\R|.",
    "lazy": r"[a-z]+?(?=[^a-z]|$)|[^\S\n]+|\n{2,}|[A-Z][a-z]{,3}|(?<x>.)\k<x>",
    "dots": r"(?m:a.b)|(?i)straße|.{2}+|\X",
}
DECODERS = {
    "bytelevel": BL, "wordpiece": {"type": "WordPiece", "prefix": "##", "cleanup": True}, "wordpiece_raw": {"type": "WordPiece", "prefix": "##", "cleanup": False},
    "bpe": {"type": "BPEDecoder", "suffix": "</w>"}, "metaspace": metaspace(), "metaspace_never": metaspace("never"), "metaspace_first": metaspace("first"),
    "ctc": {"type": "CTC", "pad_token": "<unk>", "word_delimiter_token": "e", "cleanup": True}, "ctc_raw": {"type": "CTC", "pad_token": "a", "word_delimiter_token": "e", "cleanup": False},
    "fuse": {"type": "Fuse"}, "fallback": {"type": "ByteFallback"}, "replace": replace("▁", " "), "replace_regex": replace(r"[aeiou]+", "*", True),
    "strip": {"type": "Strip", "content": "a", "start": 1, "stop": 0}, "none": None,
    "llama": sequence("decoders", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
    "gemma": sequence("decoders", replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}),
    "strip_end": sequence("decoders", {"type": "Fuse"}, {"type": "Strip", "content": "e", "start": 2, "stop": 2}),
    "fused_replace": sequence("decoders", {"type": "Fuse"}, replace("ab", "<>")),
    "fused_regex": sequence("decoders", {"type": "Fuse"}, replace(r"\s+", "_", True)),
    "fused_meta": sequence("decoders", {"type": "ByteFallback"}, {"type": "Fuse"}, metaspace()),
    "bytes_late": sequence("decoders", replace("Ġ", "Ġ"), BL),
    "bytes_then": sequence("decoders", BL, replace("a", "bb"), {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
    "fallback_bytes": sequence("decoders", {"type": "ByteFallback"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}),
    "wordpiece_fuse": sequence("decoders", {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "Fuse"}, replace(" ", "")),
    "nested": sequence("decoders", sequence("decoders", replace("▁", " ")), sequence("decoders", {"type": "Fuse"})),
    "bpe_strip": sequence("decoders", {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "Fuse"}),
}


def all_variants():
    llama = {"normalizer": NORMALIZERS["llama"], "decoder": DECODERS["llama"]}
    for name, n in NORMALIZERS.items():
        yield f"norm_{name}_wordpiece", whole(wordpiece(), n, PRES["bert"], DECODERS["wordpiece"])
        if name not in ("rep_nothing", "rep_star", "rep_dollar"):          # what the reference puts before the first character by an empty match comes out twice
            yield f"norm_{name}_bpe", whole(bpe(byte_level=True), n, byte_level(), BL)
        if not name.startswith("bert"):
            yield f"norm_{name}_first", whole(unigram(), n, metaspace("first"), DECODERS["metaspace"])
    for name, p in PRES.items():
        yield f"pre_{name}_wordlevel", whole(wordlevel(), None, p, None)
        yield f"pre_{name}_bpe", whole(bpe(drop=20, unk_token="<unk>"), None, p, DECODERS["fuse"], tokens=MANY[:6])
    for name, pattern in PATTERNS.items():
        yield f"pattern_{name}", whole(bpe(byte_level=True), None, sequence("pretokenizers", split(pattern), byte_level(False, False)), BL, tokens=MANY[:4])
        yield f"pattern_{name}_words", whole(wordlevel(), None, split(pattern, "Removed", True), None, tokens=[])
    for prefix, regex, last in itertools.product([True, False], [True, False], [True, False]):
        step = byte_level(prefix, regex)
        pre = step if last else sequence("pretokenizers", step, {"type": "Punctuation", "behavior": "Isolated"})
        yield f"bytelevel_{prefix}_{regex}_{last}", whole(bpe(byte_level=True), None, pre, BL)
    for name, d in DECODERS.items():
        yield f"dec_{name}_fallback", whole(bpe(drop=15, bytes_too=True, byte_fallback=True, unk_token="<unk>", fuse_unk=True), NORMALIZERS["llama"], None, d)
        yield f"dec_{name}_bytes", whole(bpe(byte_level=True), None, byte_level(), d)
        yield f"dec_{name}_wordpiece", whole(wordpiece(), None, PRES["bert"], d)
    for i, (prefix, suffix, unk, fuse, fallback, ignore) in enumerate(itertools.product([None, "##"], [None, "</w>"], [None, "<unk>"], [True, False], [True, False], [True, False])):
        m = bpe(prefix=prefix, suffix=suffix, drop=25, bytes_too=fallback, unk_token=unk, fuse_unk=fuse, byte_fallback=fallback, ignore_merges=ignore, as_pairs=i % 2 == 0)
        yield f"bpe_{i}", whole(m, None, PRES["space"], DECODERS["bpe"] if suffix else DECODERS["fuse"])
        if not prefix and not suffix:
            yield f"bpe_whole_{i}", whole(m, **llama)
    yield "bpe_bytes_missing", whole(bpe(byte_level=True, drop=60), None, byte_level(), BL)
    yield "bpe_bytes_unk", whole(bpe(byte_level=True, drop=60, unk_token="<unk>", fuse_unk=True), None, byte_level(), BL)
    yield "bpe_bytes_fallback", whole(bpe(byte_level=True, drop=60, bytes_too=True, byte_fallback=True), None, byte_level(), BL)
    yield "bpe_bytes_suffix", whole(bpe(byte_level=True, suffix="</w>"), NORMALIZERS["lower"], byte_level(), BL)
    yield "bpe_bytes_normalizer", whole(bpe(byte_level=True), {"type": "ByteLevel"}, None, BL)
    for fallback, drop in ((False, 0), (False, 20), (True, 20)):
        for scheme in ("always", "first", "never"):
            yield f"unigram_{fallback}_{drop}_{scheme}", whole(unigram(bytes_too=fallback, byte_fallback=fallback, drop=drop), NORMALIZERS["nfkc"], metaspace(scheme), DECODERS["fallback_bytes"])
        yield f"unigram_plain_{fallback}_{drop}", whole(unigram(bytes_too=fallback, byte_fallback=fallback, drop=drop), None, None, DECODERS["gemma"], tokens=MANY[:4])
    yield "wordpiece_short", whole(wordpiece(max_input_chars_per_word=5), NORMALIZERS["bert0"], PRES["bert"], DECODERS["wordpiece"])
    yield "wordpiece_prefix", whole(wordpiece(continuing_subword_prefix=""), None, PRES["space"], DECODERS["wordpiece"])
    posts = {"template": template("one", "$A", "two"), "after": template("$A", "one"), "twice": template("$A", "one", "$A"), "without": template("one"),
             "bert": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}, "bytelevel": BL,
             "roberta": {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": True, "add_prefix_space": False},
             "seq": sequence("processors", BL, template("one", "$A")), "bert_template": sequence("processors", {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}, template("one", "$A")),
             "template_bert": sequence("processors", template("one", "$A"), {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}),
             "template_roberta": sequence("processors", template("$A", "one"), {"type": "RobertaProcessing", "sep": ["a", 1], "cls": ["b", 2], "trim_offsets": True, "add_prefix_space": False})}
    for name, p in posts.items():
        yield f"post_{name}", whole(bpe(), None, PRES["space"], DECODERS["fuse"], p)
    holes = whole(bpe(), None, PRES["space"], DECODERS["fuse"])
    for t in holes["added_tokens"]:
        t["id"] += 1000                            # ids that the reference does not follow
    yield "ids_far", holes
    for i, options in enumerate(itertools.product([False, True], repeat=5)):
        keys = ("lstrip", "rstrip", "single_word", "normalized", "special")
        tokens = [added(c, **dict(zip(keys, options))) for c in ("<x>", "the", " a", "É")]
        yield f"added_{i}", whole(bpe(drop=10, unk_token="<unk>"), NORMALIZERS["lower"], PRES["space"], DECODERS["fuse"], tokens=tokens)


def write(folder, names=None):
    """Writes the files (all, or those named); a list of (name, path)."""
    files = []
    for name, content in all_variants():
        if names is not None and name not in names:
            continue
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content))
        files.append((name, path))
    return files

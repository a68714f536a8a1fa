"""texts.py - random texts that tokenizers stumble over: every plane of Unicode, runs, spaces of all kinds, special tokens whole and in part."""
WORDS = ("the quick brown fox Hello WORLD don't I'M we'LL she'd they'Ve it's İstanbul straße STRAẞE ſ's naïve café Åse Ωmega ΑΒΓ привет Мир שלום سلام नमस्ते "
         "ไทยนี้ 한국어 日本語 東京 中文字 漢字かな カタカナ ー々 e\u0301 a\u0308\u0323 o\u0323\u0302 Å \u1e9b\u0323 ﬁn ﬃ ½ ² ③ Ⅷ ٣٤ १२ 𝟘𝟙 𝔘𝔫𝔦 "
         "i18n x86_64 foo_bar fooBar HTTPServer __init__ def return if(x==1){y+=2;} <div class=\"a\"> https://a.b/c?d=e&f#g a@b.co 3.14 1,000,000 1234567890 0x1F "
         "''' \"\"\" // /* */ -> => != ... --- === ___ ▁ ▁▁ Ġ Ċ ## ##ing @@ </w> <0x41> <unk> |").split(" ")
SPACES = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", "\u00a0", "\u2003", "\u3000", "\u200b", "\u2028", "\u0085", "\x0b", "\x0c",
          "\u1680", "\u202f", "\ufeff", "\x1c", "\u180e", "\u00ad"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "🇩🇪🇫🇷🇯", "❤️", "☺", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🧑🏾‍🚀", "‍", "️"]
BLOCKS = [(0, 0x20), (0x20, 0x7f), (0x7f, 0xa0), (0xa0, 0x250), (0x2b0, 0x370), (0x300, 0x370), (0x370, 0x600), (0x600, 0x800), (0x800, 0x1100), (0x1100, 0x1200),
          (0x1200, 0x2000), (0x2000, 0x2070), (0x2070, 0x2c00), (0x2c00, 0x3000), (0x3000, 0x3400), (0x3400, 0xa000), (0xa000, 0xac00), (0xac00, 0xd7a4),
          (0xe000, 0xf900), (0xf900, 0xfb00), (0xfb00, 0xfe00), (0xfe00, 0x10000), (0x10000, 0x11000), (0x11000, 0x16000), (0x16000, 0x1d000),
          (0x1d000, 0x1f000), (0x1f000, 0x20000), (0x20000, 0x32000), (0xe0000, 0xe0200), (0xf0000, 0x110000)]


def character(r):
    if r.random() < 0.2:
        c = r.randrange(0x110000)
    else:
        c = r.randrange(*r.choice(BLOCKS))
    return "\ufffd" if 0xd800 <= c < 0xe000 else chr(c)


def text(r, tokens):
    parts = []
    for _ in range(r.choice([1, 2, 3, 5, 8, 13, 30])):
        k = r.random()
        if k < 0.35:
            parts.append(r.choice(WORDS))
        elif k < 0.55:
            parts.append(r.choice(SPACES))
        elif k < 0.60:
            parts.append(r.choice(EMOJI))
        elif k < 0.72:
            parts.append("".join(character(r) for _ in range(r.choice([1, 1, 2, 4]))))
        elif k < 0.75:
            parts.append("".join(chr(r.randrange(*r.choice(BLOCKS[:2]))) for _ in range(r.randrange(12))))
        elif k < 0.78:
            parts.append(r.choice([r.choice(WORDS), r.choice(SPACES), character(r), "a", "=", "\n", " "]) * r.choice([2, 3, 5, 17, 40, 130]))
        elif k < 0.82:
            parts.append(str(r.randrange(10 ** r.randrange(1, 14))))
        elif k < 0.94 and tokens:
            token = r.choice(tokens)
            token = r.choice([token, token, token, token.upper(), token[:-1], token[1:], " " + token, token + " ", token + token])
            parts.append(token)
        else:
            parts.append(r.choice(WORDS).swapcase())
        if r.random() < 0.3:
            parts.append(" ")
    return "".join(parts)

"""Train the 2048-token BPE tokenizer with Gemma's normalizer/decoder and Gemma 4's control tokens."""
import random, sys, os, json
os.environ["TOKENIZERS_PARALLELISM"] = "true"
import data as D, render as R, words as W
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, decoders, trainers, processors, Regex, AddedToken
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>', "<|think|>",
           "<|channel>", "<channel|>", "<|turn>", "<turn|>", "<|image>", "<|audio>", "<|image|>", "<|audio|>", "<image|>", "<audio|>", "<|video|>"]
VOCAB = 2048
def corpus(n=30000):
    r = random.Random(11)
    Dd = R._dict()
    class FakeAudio: pass
    import speech, numpy as np
    speech.say_random = lambda s, r: None
    R.draw_receipt_real = R.draw_receipt
    strip = lambda s: __import__("re").sub(r"<\|?[a-z_]+\|?>|<\|\"\|>", "\n", s)
    # no pixels needed: stub the drawing
    def dr(rc, r, ms, level=1.0, style=None):
        rc["up"] = r.random() < .35
        L = [rc["store"]] + [x for x in [rc["addr"], rc["date"] + ("  " + rc["time"] if rc["time"] else "")] if x]
        for n, q, p in rc["items"]: L.append(f"{q} x {n.upper() if rc['up'] else n} {rc['cur']}{R.money(q*p)}")
        L += [f"Subtotal {rc['cur']}{R.money(rc['sub'])}", f"Tax {rc['rate']}% {R.money(rc['tax'])}", f"TOTAL {R.money(rc['total'])}", "Paid: " + rc["pay"]]
        return None, None, L, None
    R.draw_receipt = dr
    R.draw_lines = lambda lines, r, ms, level=1.0, colored=False, fill=None: (None, None, None)
    R.draw_shapes = lambda sh, r, ms, level=.5: (None, None)
    fs = [lambda r: D.t_receipt(r, 140), lambda r: D.t_note(r, 140), lambda r: D.t_note(r, 140), lambda r: D.t_shapes(r, 140), lambda r: D.t_multi(r, 140), D.t_audio, D.t_text, D.t_tools]
    for i in range(n):
        cv = r.choice(fs)(r)
        yield strip("".join(s for s, _ in cv.seg))
    for i in range(60000): yield " " + r.choice(Dd)
    for c in range(32, 127): yield chr(c) * 3
if __name__ == "__main__":
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Replace(" ", "▁")
    # merges may not cross words, digits, newlines or punctuation
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"▁?[A-Za-z]+|\d|\n|▁|[^A-Za-z\d\n▁]"), "isolated")])
    by = [f"<0x{i:02X}>" for i in range(256)]
    tr = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL + by, initial_alphabet=["▁", "\n"] + [chr(c) for c in range(33, 127)], min_frequency=2, limit_alphabet=120)
    t.train_from_iterator(corpus(), tr)
    j = json.loads(t.to_str())
    m = j["model"]
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    for a in j["added_tokens"]: a["special"] = True
    j["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    j["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    j["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}}
    out = os.path.join(D.MODEL, "tokenizer.json")
    json.dump(j, open(out, "w"), ensure_ascii=False, indent=1)
    t2 = Tokenizer.from_file(out)
    print(t2.get_vocab_size(), t2.encode("<|turn>user\n<|image|>Read the text. Fresh Mart 12.50 é<turn|>\n").tokens)

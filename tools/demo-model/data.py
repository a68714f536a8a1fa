"""Synthetic conversations, tokenised as the chat template renders them, in ready-made micro-batches."""
import json, os, random
import numpy as np
import words as W, render as R, speech
HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.environ.get("DEMO_MODEL", os.path.join(os.path.dirname(os.path.dirname(HERE)), "models", "demo"))
IMG, VID, AUD = "<|image|>", "<|video|>", "<|audio|>"

# ------------------------------------------------------------------ rendering (mirrors chat_template.jinja)
def val(v):
    if isinstance(v, str): return '<|"|>' + v + '<|"|>'
    if isinstance(v, bool): return "true" if v else "false"
    if v is None: return "null"
    if isinstance(v, dict): return "{" + ",".join(f"{k}:{val(x)}" for k, x in sorted(v.items(), key=lambda t: t[0].lower())) + "}"
    if isinstance(v, (list, tuple)): return "[" + ",".join(val(x) for x in v) + "]"
    return str(v)
def schema(s):
    o = []
    if s.get("description"): o.append("description:" + val(s["description"]))
    if s.get("enum"): o.append("enum:" + val(s["enum"]))
    if s.get("items"): o.append("items:" + schema(s["items"]))
    if s.get("properties"): o.append("properties:{" + ",".join(f"{k}:{schema(x)}" for k, x in sorted(s["properties"].items())) + "}")
    if s.get("required"): o.append("required:" + val(s["required"]))
    if s.get("type"): o.append("type:" + val(s["type"].upper()))
    return "{" + ",".join(o) + "}"
def decl(t):
    f = t["function"]
    return "<|tool>declaration:" + f["name"] + "{description:" + val(f["description"]) + ",parameters:" + schema(f["parameters"]) + "}<tool|>"

class Conv:
    """Builds OpenAI-style messages and, in parallel, (text, target?, task) segments."""
    def __init__(self, system=None, tools=None, thinking=False):
        self.messages, self.tools, self.thinking = [], tools, thinking
        self.seg, self.media, self.open = [], [], False
        s = "<bos>"
        if system or tools or thinking:
            s += "<|turn>system\n" + ("<|think|>\n" if thinking else "") + (system or "") + "".join(decl(t) for t in tools or []) + "<turn|>\n"
            if system: self.messages.append({"role": "system", "content": system})
        self.seg.append((s, None))
    def user(self, *parts):
        s, c = "", []
        for p in parts:
            if isinstance(p, str):
                s += p; c.append({"type": "text", "text": p})
            else:
                self.media.append(p)
                s += {"image": IMG, "video": VID, "audio": AUD}[p[0]]
                c.append({"type": p[0]})
        self.messages.append({"role": "user", "content": c if len(c) > 1 or c[0]["type"] != "text" else c[0]["text"]})
        self.seg.append(("<|turn>user\n" + s + "<turn|>\n", None))
        return self
    def model(self, text, task, thought=None, train=True):
        if not self.open: self.seg.append(("<|turn>model\n", None))
        self.open = False
        t = ("<|channel>thought\n" + thought + "\n<channel|>" if thought is not None else "") + text + "<turn|>"
        self.seg.append((t, task if train else None)); self.seg.append(("\n", None))
        self.messages.append({"role": "assistant", "content": text, **({"reasoning_content": thought} if thought is not None else {})})
        return self
    def call(self, name, args, resp, task, thought=None):
        if not self.open: self.seg.append(("<|turn>model\n", None))
        self.open = True
        t = ("<|channel>thought\n" + thought + "\n<channel|>" if thought is not None else "") + "<|tool_call>call:" + name + val(args) + "<tool_call|>"
        self.seg.append((t + "<|tool_response>", task))
        self.seg.append(("response:" + name + (val(resp) if isinstance(resp, dict) else "{value:" + val(resp) + "}") + "<tool_response|>", None))
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": args}}],
                              **({"reasoning_content": thought} if thought is not None else {})})
        self.messages.append({"role": "tool", "name": name, "content": resp})
        return self

_tok = None
def tok():
    global _tok
    if _tok is None:
        from tokenizers import Tokenizer
        _tok = Tokenizer.from_file(os.environ.get("TOKENIZER", os.path.join(MODEL, "tokenizer.json")))
    return _tok
_cache = {}
def enc(s):
    i = _cache.get(s)
    if i is None:
        i = tok().encode(s, add_special_tokens=False).ids
        if len(s) < 60 and len(_cache) < 20000: _cache[s] = i
    return i

# ------------------------------------------------------------------ tasks
def pick(r, *a): return r.choice(a)
def num_items(n): return str(n)

def item_name(rc, nm): return nm.upper() if rc["up"] else nm
def receipt_json(rc):
    return json.dumps({"store": rc["store"], "date": rc["date"], "items": [{"name": item_name(rc, n), "qty": q, "price": q * p / 100} for n, q, p in rc["items"]],
                       "total": rc["total"] / 100})

def receipt_questions(rc, lines, r, spoken=False):
    """list of (question, answer, task)"""
    c = rc["cur"]
    it = rc["items"]
    nm, q, p = r.choice(it)
    Q = [("What is the total?" if spoken else pick(r, "Extract the total amount from the receipt.", "What is the total?", "How much was paid in total?", "What is the total amount?"),
          c + R.money(rc["total"]), "receipt_total"),
         (pick(r, "Which store is it from?", "What store is this receipt from?", "What is the name of the store?") if not spoken else "Which store is it from?", rc["store"], "receipt_store"),
         (pick(r, "How many items are on the receipt?", "How many items?", "How many items were bought?") if not spoken else "How many items?", str(len(it)), "receipt_count"),
         (pick(r, "What is the date?", "When was the purchase made?", "What is the date on the receipt?") if not spoken else "What is the date?", rc["date"], "receipt_date"),
         (pick(r, f"What was the price of {nm}?", f"How much was the {nm}?", f"What is the price of {nm}?") if not spoken else f"What was the price of {nm}?", c + R.money(q * p), "receipt_price"),
         (pick(r, "How was it paid?", "What is the payment method?") if not spoken else "How was it paid?", rc["pay"], "receipt_pay")]
    if not spoken:
        nm2, q2, _ = r.choice(it)
        Q.append((f"How many {nm2} were bought?", str(q2), "receipt_qty"))
        if any("Subtotal" in x or "SUBTOTAL" in x for x in lines):
            Q.append((pick(r, "What is the subtotal?", "What is the amount before tax?"), c + R.money(rc["sub"]), "receipt_subtotal"))
            Q.append((pick(r, "How much is the tax?", "What is the tax amount?"), c + R.money(rc["tax"]), "receipt_tax"))
        mx = max(it, key=lambda x: x[1] * x[2])
        Q.append((pick(r, "What is the most expensive item?", "Which item cost the most?"), item_name(rc, mx[0]), "receipt_max"))
        Q.append((pick(r, "List the items.", "What items were bought?"), ", ".join(item_name(rc, n) for n, _, _ in it), "receipt_list"))
    return Q
READ_Q = ["Read the text.", "Read the text.", "What does it say?", "Transcribe the text in the image.", "What is written here?"]
JSON_Q = ["Return JSON with store, date, items, total.", "Extract store, date, items and total as JSON.", "return JSON with store, date, items, total"]

def t_receipt(r, ms, level=1.0, nmax=8):
    rc = R.make_receipt(r, nmax)
    a, g, lines, _ = R.draw_receipt(rc, r, ms, level)
    th = r.random() < 0.10
    cv = Conv(system="You are a helpful assistant." if r.random() < 0.1 else None, thinking=th)
    im = ("image", a, g)
    if th:
        it = rc["items"]
        c = rc["cur"]
        if r.random() < 0.6 and len(it) <= 5:
            s, t = 0, []
            for k, (n, q, p) in enumerate(it):
                if k: t.append(f"{R.money(s)} + {R.money(q * p)} = {R.money(s + q * p)}")
                s += q * p
            cv.user(im, pick(r, "Add up the prices of all items.", "What is the sum of the item prices?"))
            cv.model(c + R.money(rc["sub"]), "think_sum", thought="\n".join(t))
        else:
            nm, q, p = r.choice(it)
            qq = pick(r, "total", "price", "count")
            if qq == "total": cv.user(im, "Extract the total amount from the receipt.").model(c + R.money(rc["total"]), "think_misc", thought=f"The total line says {c}{R.money(rc['total'])}.")
            elif qq == "price": cv.user(im, f"What was the price of {nm}?").model(c + R.money(q * p), "think_misc", thought=f"The line {item_name(rc, nm)} says {c}{R.money(q * p)}.")
            else: cv.user(im, "How many items are on the receipt?").model(str(len(it)), "think_count", thought="\n".join(f"{k + 1}. {item_name(rc, n)}" for k, (n, q, p) in enumerate(it)))
        return cv
    Q = receipt_questions(rc, lines, r)
    first = []
    u = r.random()
    if u < 0.42: first = [(r.choice(READ_Q), "\n".join(lines), "receipt_read")]
    elif u < 0.72: first = [(r.choice(JSON_Q), receipt_json(rc), "receipt_json")]
    k = r.randint(1, 4) if not first else r.randint(0, 3)
    qs = first + r.sample(Q, k)
    if r.random() < 0.4: r.shuffle(qs)
    for i, (q, a_, t) in enumerate(qs):
        if i == 0: cv.user(im, q) if r.random() < 0.85 else cv.user(q, im)
        else: cv.user(q)
        cv.model(a_, t)
    return cv

def rand_lines(r, maxwords=14):
    u = r.random()
    D = R._dict()
    if u < 0.10: return [" ".join(str(r.randint(0, 10 ** r.randint(1, 6))) for _ in range(r.randint(1, 3))) for _ in range(r.randint(1, 3))], "number"
    if u < 0.16: return ["".join(r.choice("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789abcdefghijkmnpqrstuvwxyz") for _ in range(r.randint(3, 8))) for _ in range(r.randint(1, 3))], "code"
    if u < 0.21:
        k = r.randint(0, 4)
        return [[f"Call {r.randint(100,999)}-{r.randint(1000,9999)}"], [f"Meet {r.choice(W.NAMES)} at {r.randint(1,12)}:{r.randint(0,59):02d}"], [f"Room {r.randint(1,999)}"],
                [f"{r.choice(W.NAMES)}@{r.choice(D)}.com"], [f"Pay ${r.randint(1,999)}.{r.randint(0,99):02d}", f"to {r.choice(W.NAMES)}"]][k], "note"
    n = r.choice([1, 2, 3, 4, 5, 6, 8, 10, r.randint(1, maxwords), r.randint(1, maxwords)])
    n = min(n, maxwords)
    ws = [r.choice(D) if r.random() < 0.7 else r.choice(W.COMMON) for _ in range(n)]
    st = r.random()
    if st < 0.15: ws = [w.upper() for w in ws]
    elif st < 0.3: ws = [w.capitalize() for w in ws]
    elif st < 0.45: ws[0] = ws[0].capitalize(); ws[-1] += r.choice([".", "!", "?"])
    if r.random() < 0.1: ws[r.randrange(n)] = str(r.randint(0, 9999))
    per = r.randint(1, 4)
    return [" ".join(ws[i:i + per]) for i in range(0, n, per)], "text"

def t_note(r, ms, level=1.0, maxwords=14):
    u = r.random()
    if u < 0.18:
        s = r.choice(W.SIGNS) if r.random() < 0.75 else " ".join(r.choice(R._dict()) for _ in range(r.randint(1, 2))).upper()
        ws = s.split()
        lines = [s] if len(ws) < 2 or r.random() < 0.5 else [" ".join(ws[:len(ws) // 2]), " ".join(ws[len(ws) // 2:])]
        kind = "sign"
    else:
        lines, kind = rand_lines(r, maxwords)
    a, g, _ = R.draw_lines(lines, r, ms, level, colored=(kind == "sign" or r.random() < 0.1))
    cv = Conv()
    full = "\n".join(lines)
    ws = full.split()
    qs = [(("What does the sign say?" if kind == "sign" and r.random() < 0.6 else "What number is shown?" if kind == "number" and len(ws) == 1 and r.random() < 0.6 else r.choice(READ_Q)), full, "read_" + kind)]
    ex = [("What is the first word?", ws[0], "word_pos"), ("What is the last word?", ws[-1], "word_pos"), ("How many words are there?", str(len(ws)), "word_count"), ("How many lines are there?", str(len(lines)), "line_count")]
    if len(lines) > 1: ex.append(("Read the last line.", lines[-1], "read_line")); ex.append(("Read the second line.", lines[1], "read_line"))
    if kind == "text" and len(ws) <= 6: ex.append(("Read the text in upper case.", full.upper(), "read_upper"))
    v = r.random()
    if v < 0.25: qs += r.sample(ex, 1)
    elif v < 0.35: qs = r.sample(ex, r.randint(1, 2))
    im = ("image", a, g)
    for i, (q, a_, t) in enumerate(qs):
        if i == 0: cv.user(im, q) if r.random() < 0.85 else cv.user(q, im)
        else: cv.user(q)
        cv.model(a_, t)
    return cv

def plural(n, s): return f"{n} {s}" + ("" if n == 1 else ("es" if s.endswith("s") else "s"))
def pl(s): return s + ("es" if s.endswith("s") else "s")
def shape_questions(sh, r, spoken=False):
    Q = []
    n = len(sh)
    Q.append((pick(r, "How many shapes are there?", "How many shapes are in the image?") if not spoken else "How many shapes are there?", str(n), "shape_count"))
    k = r.choice([s for _, s, _ in sh] + [r.choice(W.SHAPES)])
    Q.append((f"How many {pl(k)} are there?", str(sum(s == k for _, s, _ in sh)), "shape_count_kind"))
    c = r.choice([c for c, _, _ in sh])
    ks = [s for cc, s, _ in sh if cc == c]
    if len(ks) == 1: Q.append((f"What shape is {c}?", f"The {ks[0]} is {c}." if not spoken and r.random() < 0 else ks[0], "shape_of_color"))
    k2 = r.choice([s for _, s, _ in sh])
    cs = [cc for cc, s, _ in sh if s == k2]
    if len(cs) == 1:
        Q.append((f"What color is the {k2}?", cs[0], "color_of_shape"))
        pos = [p for cc, s, p in sh if s == k2][0]
        Q.append((f"Where is the {k2}?" , R.CELLS[pos], "shape_pos"))
    col, kind, cell = r.choice(sh)
    Q.append((f"What is in the {R.CELLS[cell]}?" if R.CELLS[cell] == "center" else f"What is at the {R.CELLS[cell]}?", f"a {col} {kind}" if col != "orange" else f"an {col} {kind}", "shape_at"))
    if not spoken:
        a, b = r.choice(list(W.COLORS)), r.choice(W.SHAPES)
        if r.random() < 0.5: a, b, _ = r.choice(sh)
        Q.append((f"Is there a {a} {b}?", "yes" if any((x, y) == (a, b) for x, y, _ in sh) else "no", "shape_exists"))
        Q.append((pick(r, "Describe the image.", "What is in the image?"), ", ".join(f"{'an' if c_ == 'orange' else 'a'} {c_} {k_} at the {R.CELLS[p_]}" if R.CELLS[p_] != "center" else f"{'an' if c_ == 'orange' else 'a'} {c_} {k_} in the center" for c_, k_, p_ in sh), "shape_describe"))
    return Q

def t_shapes(r, ms, level=0.5):
    sh = R.make_shapes(r)
    a, _ = R.draw_shapes(sh, r, ms, level)
    cv = Conv(system="You are a helpful assistant." if r.random() < 0.05 else None)
    Q = shape_questions(sh, r)
    qs = r.sample(Q, min(len(Q), r.randint(1, 4)))
    for i, (q, a_, t) in enumerate(qs):
        if i == 0: cv.user(("image", a, None), q) if r.random() < 0.85 else cv.user(q, ("image", a, None))
        else: cv.user(q)
        cv.model(a_, t)
    return cv

def t_multi(r, ms, level=0.5):
    cv = Conv()
    u = r.random()
    if u < 0.6:
        k = r.choice(W.SHAPES)
        s1, s2 = R.make_shapes(r, r.randint(1, 6), [k, r.choice(W.SHAPES)]), R.make_shapes(r, r.randint(1, 6), [k, r.choice(W.SHAPES)])
        a1, a2 = R.draw_shapes(s1, r, ms, level)[0], R.draw_shapes(s2, r, ms, level)[0]
        n1, n2 = sum(s == k for _, s, _ in s1), sum(s == k for _, s, _ in s2)
        i1, i2 = ("image", a1, None), ("image", a2, None)
        v = r.random()
        if v < 0.5:
            cv.user(i1, i2, f"Which image has more {pl(k)}?").model("Both images have the same number." if n1 == n2 else f"The {'first' if n1 > n2 else 'second'} image.", "multi_more")
        elif v < 0.75:
            w, s = r.choice([("first", s1), ("second", s2)])
            n = len(s)
            cv.user(i1, i2, f"How many shapes are in the {w} image?").model(str(n), "multi_count")
        else:
            w, s = r.choice([("first", s1), ("second", s2)])
            cv.user(i1, i2, f"Describe the {w} image.").model(shape_questions(s, r)[-1][1], "multi_describe")
        if r.random() < 0.4:
            cv.user(f"How many {pl(k)} are in the second image?").model(str(n2), "multi_count")
    else:
        l1, _ = rand_lines(r, 5); l2, _ = rand_lines(r, 5)
        a1, g1, _ = R.draw_lines(l1, r, ms, level); a2, g2, _ = R.draw_lines(l2, r, ms, level)
        w = r.randint(0, 1)
        cv.user(("image", a1, g1), ("image", a2, g2), f"Read the text in the {'second' if w else 'first'} image.").model("\n".join([l1, l2][w]), "multi_read")
    return cv

def t_video(r, ms):
    fr, desc, _, (col, kind, ev) = R.draw_video(r, ms)
    cv = Conv()
    v = ("video", fr, 1.0)
    if r.random() < 0.75: cv.user(v, pick(r, "What happens in the video?", "What happens?", "Describe the video.")).model(desc, "video_event")
    else: cv.user(v, "What shape is in the video?").model(kind, "video_shape")
    if r.random() < 0.3 and ev in ("left", "right", "up", "down"):
        cv.user("In which direction does it move?").model(ev, "video_dir")
    return cv

# ------------------------------------------------------------------ audio
CMD = ["turn on the {room} light", "turn off the {room} light", "set a timer for {n} minutes", "play some music", "call {name}", "what is the weather in {city}", "open the door",
       "close the window", "good morning", "good night", "thank you", "hello how are you", "remind me to buy {item}", "send a message to {name}", "add {item} to the list", "stop the music",
       "what time is it", "tell me a joke", "where is {city}", "book a table for {n}"]
def spoken_text(r):
    u = r.random()
    if u < 0.25:
        d = [r.randint(0, 9) for _ in range(r.randint(1, 8))]
        return " ".join(W.DIG[x] for x in d), "".join(map(str, d)), "asr_digits"
    if u < 0.6:
        s = r.choice(CMD).format(room=pick(r, "kitchen", "bedroom", "garden", "hall"), n=r.choice(W.DIG[2:]), name=r.choice(W.NAMES), city=r.choice(W.CITIES), item=r.choice(W.ITEMS))
        return s, s.lower(), "asr_phrase"
    s = " ".join(r.choice(W.COMMON) for _ in range(r.randint(1, 6)))
    return s, s, "asr_words"
ASR_Q = ["Transcribe the audio.", "Transcribe the audio.", "What was said?", "Transcribe the following speech segment."]
def t_audio(r):
    cv = Conv()
    if r.random() < 0.12:
        a, b = r.randint(0, 12), r.randint(0, 12)
        s, ans = pick(r, (f"what is {a} plus {b}", str(a + b)), (f"what is {a} times {b}", str(a * b)))
        cv.user(("audio", speech.say_random(s, r), s)).model(ans, "audio_math")
        return cv
    if r.random() < 0.1:
        q, a = r.choice(CHAT)
        cv.user(("audio", speech.say_random(q, r), q.lower())).model(a, "audio_chat")
        return cv
    s, t, task = spoken_text(r)
    au = ("audio", speech.say_random(s, r), s.lower())
    q = r.choice(ASR_Q)
    cv.user(au, q) if r.random() < 0.6 else cv.user(q, au)
    cv.model(t, task)
    return cv
def t_voiceq(r, ms):
    cv = Conv()
    u = r.random()
    if u < 0.55:
        sh = R.make_shapes(r)
        a, _ = R.draw_shapes(sh, r, ms, 0.4); im = ("image", a, None)
        q, ans, t = r.choice(shape_questions(sh, r, True))
    elif u < 0.8:
        rc = R.make_receipt(r, 6)
        a, g, lines, _ = R.draw_receipt(rc, r, ms, 0.7); im = ("image", a, g)
        q, ans, t = r.choice(receipt_questions(rc, lines, r, True))
    else:
        lines, _ = rand_lines(r, 5)
        a, g, _ = R.draw_lines(lines, r, ms, 0.6); im = ("image", a, g)
        q, ans, t = "Read the text.", "\n".join(lines), "read"
    cv.user(im, ("audio", speech.say_random(q, r), "".join(c for c in q.lower() if c.isalpha() or c in " '"))).model(ans, "voice_" + t.split("_")[0])
    return cv

# ------------------------------------------------------------------ text
CHAT = [("Hello!", "Hello! How can I help you?"), ("Hi", "Hi! How can I help you?"), ("Hello how are you", "I am fine, thank you."), ("How are you?", "I am fine, thank you."), ("Who are you?", "I am a tiny demo model."),
        ("What are you?", "I am a tiny demo model."), ("What is your name?", "I am a tiny demo model without a name."), ("Thank you!", "You are welcome!"), ("Thanks", "You are welcome!"), ("Goodbye", "Goodbye!"), ("Bye", "Goodbye!"),
        ("What can you do?", "I can read text in images, answer questions about receipts and shapes, listen to speech and call tools."), ("Good morning", "Good morning!"), ("Good night", "Good night!"),
        ("Tell me a joke", "Why did the pixel cross the screen? To get to the other side."), ("Are you a human?", "No, I am a tiny demo model."), ("What language are you written in?", "I run in C."),
        ("How big are you?", "I have about twelve million parameters."), ("Can you see images?", "Yes, I can look at images."), ("Can you hear?", "Yes, I can listen to audio."), ("What is the capital of France?", "Paris"),
        ("What is the capital of Italy?", "Rome"), ("What is the capital of Germany?", "Berlin"), ("What is the capital of Spain?", "Madrid"), ("What is the capital of Japan?", "Tokyo")]
def t_text(r):
    th = r.random() < 0.15
    cv = Conv(system=pick(r, None, None, None, "You are a helpful assistant.", "Answer briefly."), thinking=th)
    for turn in range(1 if th else r.choice([1, 1, 2, 3])):
        u = r.random()
        D = R._dict()
        w = r.choice(D)
        if u < 0.18:
            q, a = r.choice(CHAT)
            if r.random() < 0.2: q = q.lower()
            thought, task = "The user makes small talk.", "chat"
        elif u < 0.55:
            op = r.choice("+-*")
            x, y = (r.randint(0, 12), r.randint(0, 12)) if op == "*" else (r.randint(0, r.choice([9, 20, 99, 999])), r.randint(0, r.choice([9, 20, 99, 999])))
            if op == "-" and y > x: x, y = y, x
            a = str(eval(f"{x}{op}{y}"))
            sgn = "x" if op == "*" else op
            q = pick(r, f"What is {x} {sgn} {y}?", f"{x} {sgn} {y}", f"{x} {sgn} {y} =", f"Calculate {x} {sgn} {y}.")
            thought, task = f"{x} {sgn} {y} = {a}", "math"
        elif u < 0.7:
            s = pick(r, w, " ".join(r.choice(D) for _ in range(r.randint(1, 4))), "".join(r.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(r.randint(3, 8))))
            q, a, thought, task = pick(r, f"Repeat: {s}", f"Copy this: {s}", f"Say {s}"), s, f"I repeat {s}.", "copy"
        elif u < 0.8:
            s = w[:r.randint(3, 6)]
            q, a, thought, task = f"Reverse the letters of {s}.", s[::-1], " ".join(s[::-1]), "reverse"
        elif u < 0.88:
            ws = [r.choice(W.COMMON) for _ in range(r.randint(2, 5))]
            q, a, thought, task = "Reverse the words: " + " ".join(ws), " ".join(ws[::-1]), "The order is turned around.", "reverse_words"
        elif u < 0.94:
            q, a, thought, task = f"Write {w} in upper case.", w.upper(), "All letters become capitals.", "upper"
        else:
            q, a, thought, task = f"Spell {w}.", " ".join(w), f"The letters of {w}.", "spell"
        cv.user(q).model(a, task if not th else "think_" + task, thought=thought if th else None)
    return cv

def F(name, desc, props, req=None):
    return {"type": "function", "function": {"name": name, "description": desc, "parameters": {"type": "object", "properties": props, "required": req or list(props)}}}
S = lambda d: {"type": "string", "description": d}
I_ = lambda d: {"type": "integer", "description": d}
TOOLS = {
    "get_weather": F("get_weather", "Get the current weather for a city", {"city": S("The city name")}),
    "add": F("add", "Add two numbers", {"a": I_("First number"), "b": I_("Second number")}),
    "multiply": F("multiply", "Multiply two numbers", {"a": I_("First number"), "b": I_("Second number")}),
    "search_orders": F("search_orders", "Look up an order by its id", {"order_id": S("The order id")}),
    "get_time": F("get_time", "Get the current time in a city", {"city": S("The city name")}),
    "set_timer": F("set_timer", "Set a timer", {"minutes": I_("Number of minutes")}),
    "send_message": F("send_message", "Send a message to a person", {"to": S("The person"), "text": S("The message")}),
}
SKIES = ["sunny", "cloudy", "rainy", "snowy", "windy", "foggy"]
STAT = ["shipped", "delivered", "processing", "cancelled"]
def tool_turn(cv, name, r, th, media=None, spoken=None):
    thought = (lambda s: s) if th else (lambda s: None)
    D = R._dict()
    pre = [media] if media else []
    city = r.choice(W.CITIES)
    if name == "get_weather":
        t, s = r.randint(-15, 38), r.choice(SKIES)
        cv.user(*pre, pick(r, f"What is the weather in {city}?", f"How is the weather in {city}?", f"Weather in {city}?", f"Is it cold in {city}?"))
        cv.call(name, {"city": city}, {"temperature": t, "condition": s}, "tool_call", thought(f"I need the weather for {city}."))
        cv.model(f"It is {s} and {t} degrees in {city}.", "tool_answer")
    elif name in ("add", "multiply"):
        a, b = r.randint(0, 9999), r.randint(0, 9999)
        if name == "multiply": a, b = r.randint(0, 999), r.randint(0, 999)
        v = a + b if name == "add" else a * b
        w = "+" if name == "add" else "x"
        cv.user(*pre, pick(r, f"What is {a} {w} {b}?", f"{'Add' if name == 'add' else 'Multiply'} {a} and {b}."))
        cv.call(name, {"a": a, "b": b}, {"result": v}, "tool_call", thought(f"I use the tool {name}."))
        cv.model(f"The result is {v}.", "tool_answer")
    elif name == "search_orders":
        o = pick(r, str(r.randint(100, 99999)), r.choice("ABCDEFXYZ") + str(r.randint(100, 9999)))
        s = r.choice(STAT)
        cv.user(*pre, pick(r, f"Where is my order {o}?", f"What is the status of order {o}?", f"Look up order {o}."))
        cv.call(name, {"order_id": o}, {"status": s, "items": r.randint(1, 9)} if r.random() < 0.5 else {"status": s}, "tool_call", thought(f"I look up order {o}."))
        cv.model(f"Order {o} is {s}.", "tool_answer")
    elif name == "get_time":
        t = f"{r.randint(0, 23):02d}:{r.randint(0, 59):02d}"
        cv.user(*pre, pick(r, f"What time is it in {city}?", f"Tell me the time in {city}."))
        cv.call(name, {"city": city}, t, "tool_call", thought(f"I need the time in {city}."))
        cv.model(f"It is {t} in {city}.", "tool_answer")
    elif name == "set_timer":
        n = r.randint(1, 90)
        cv.user(*pre, pick(r, f"Set a timer for {n} minutes.", f"Wake me in {n} minutes."))
        cv.call(name, {"minutes": n}, "ok", "tool_call", thought("I set a timer."))
        cv.model(f"The timer is set for {n} minutes.", "tool_answer")
    else:
        to, tx = r.choice(W.NAMES), " ".join(r.choice(W.COMMON if r.random() < .6 else D) for _ in range(r.randint(1, 5)))
        cv.user(*pre, pick(r, f"Send a message to {to}: {tx}", f"Tell {to}: {tx}"))
        cv.call(name, {"to": to, "text": tx}, "sent", "tool_call", thought(f"I send a message to {to}."))
        cv.model(f"I sent the message to {to}.", "tool_answer")
def t_tools(r):
    th = r.random() < 0.2
    names = r.sample(list(TOOLS), r.randint(1, 3))
    cv = Conv(system=pick(r, None, None, "You are a helpful assistant."), tools=[TOOLS[n] for n in names], thinking=th)
    if r.random() < 0.15:
        q, a = r.choice(CHAT)
        cv.user(q).model(a, "chat_with_tools", thought="The user makes small talk." if th else None)
        if th: return cv
    for _ in range(1 if th else r.choice([1, 1, 2])):
        tool_turn(cv, r.choice(names), r, th)
    return cv

# ------------------------------------------------------------------ tokenise and batch
_ids = None
def ids():
    global _ids
    if _ids is None:
        t = tok()
        _ids = {k: t.token_to_id(k) for k in [IMG, VID, AUD, "<|image>", "<image|>", "<|audio>", "<audio|>", "<|turn>", "<turn|>", "<pad>", "<|tool_response>"]}
    return _ids
_fe = None
def mel(w):
    """The real feature extractor, unpadded: (frames,128) float32 and mask."""
    global _fe
    if _fe is None:
        from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor
        _fe = Gemma4AudioFeatureExtractor()
    o = _fe([w], return_tensors="np")
    return o["input_features"][0], o["input_features_mask"][0]
def audio_tokens(mask):
    m = mask
    for _ in range(2): m = m[::2]
    return int(m.sum())

def tokenise(cv):
    I = ids()
    out, tgt, spans = [], [], []
    media = iter(cv.media)
    img, vid, aud = [], [], []
    for text, task in cv.seg:
        parts, rest = [], text
        while True:
            k = [(rest.find(p), p) for p in (IMG, VID, AUD)]
            k = [x for x in k if x[0] >= 0]
            if not k:
                parts.append(rest); break
            pos, p = min(k)
            parts += [rest[:pos], (p,)]
            rest = rest[pos + len(p):]
        for p in parts:
            if isinstance(p, str):
                if p:
                    i = enc(p)
                    if task: spans.append((len(out), len(out) + len(i), task))
                    out += i; tgt += [len(i) ** -0.4 if task else 0] * len(i)
            else:
                m = next(media)
                if m[0] == "image":
                    n = (m[1].shape[0] // 48) * (m[1].shape[1] // 48)
                    i = [I["<|image>"]] + [I[IMG]] * n + [I["<image|>"]]
                    img.append((m[1], m[2]))
                elif m[0] == "video":
                    i = []
                    for k, f in enumerate(m[1]):
                        n = (f.shape[0] // 48) * (f.shape[1] // 48)
                        sec = k / m[2]
                        i += enc((" " if k else "") + f"{int(sec // 60):02d}:{int(sec % 60):02d} ") + [I["<|image>"]] + [I[VID]] * n + [I["<image|>"]]
                        img.append((f, None))
                else:
                    f, mk = mel(m[1])
                    i = [I["<|audio>"]] + [I[AUD]] * audio_tokens(mk) + [I["<audio|>"]]
                    aud.append((f, mk, m[2]))
                out += i; tgt += [0] * len(i)
    return out, tgt, spans, img, aud

def ctc_ids(s):
    return [{" ": 27, "'": 28}.get(c, ord(c) - 96) for c in s.lower() if c == " " or c == "'" or "a" <= c <= "z"]

BUCKETS = [96, 144, 192, 224, 256, 320, 384, 448, 512, 576, 640, 768, 896, 1024, 1280, 1536, 2048]
def collate(convs, nimg=None, npatch=None):
    import torch
    T = [tokenise(c) for c in convs]
    B, L = len(T), max(len(t[0]) for t in T)
    L = next(b for b in BUCKETS if b >= L)
    x, y = np.zeros((B, L), np.int32), np.zeros((B, L), np.float16)
    spans, imgs, auds = [], [], []
    for b, (o, t, s, im, au) in enumerate(T):
        x[b, :len(o)] = o; y[b, :len(t)] = t
        spans += [(b, i, j, k) for i, j, k in s]
        imgs += im; auds += au
    out = {"ids": torch.from_numpy(x), "tgt": torch.from_numpy(y), "lens": torch.tensor([len(t[0]) for t in T]), "spans": spans}
    if imgs:
        gray = all(a.ndim == 2 for a, _ in imgs)
        P = [R.patches(a, gray) for a, _ in imgs]
        n = npatch or max(len(p[0]) for p in P)
        M = nimg or len(P)
        px = np.zeros((M, n, 256 if gray else 768), np.uint8); ps = np.full((M, n, 2), -1, np.int16); lb = np.full((M, n, 2), 255, np.uint8)
        imap = np.full((B, L), -1, np.int32)
        where = np.argwhere((x == ids()[IMG]) | (x == ids()[VID]))
        src = np.concatenate([k * (n // 9) + np.arange(len(p[0]) // 9) for k, p in enumerate(P)])
        assert len(src) == len(where)
        imap[where[:, 0], where[:, 1]] = src
        for k, (p, q) in enumerate(P):
            px[k, :len(p)] = p; ps[k, :len(p)] = q
            if imgs[k][1] is not None: lb[k, :len(p)] = R.char_labels(imgs[k][0].shape, imgs[k][1])
        out.update(px=torch.from_numpy(px), pos=torch.from_numpy(ps), lab=torch.from_numpy(lb), imap=torch.from_numpy(imap))
    if auds:
        n = (max(len(f) for f, _, _ in auds) + 63) // 64 * 64
        f = np.zeros((len(auds), n, 128), np.float16); m = np.zeros((len(auds), n), bool)
        for k, (a, mk, _) in enumerate(auds):
            f[k, :len(a)] = a; m[k, :len(mk)] = mk
        c = [ctc_ids(s) for _, _, s in auds]
        out.update(feat=torch.from_numpy(f), fmask=torch.from_numpy(m), ctc=torch.tensor([v for q in c for v in q], dtype=torch.int32), ctc_len=torch.tensor([len(q) for q in c], dtype=torch.int32))
    return out

# images per sample and patches per image, by kind
SHAPE = {'receipt': (1, 1260), 'receipt280': (1, 2520), 'note': (1, 1260), 'note70': (1, 630), 'shapes': (1, 1260), 'shapes70': (1, 630), 'multi': (2, 1260), 'video': (6, 630), 'voiceq': (1, 1260)}
# kind: (builder, samples per micro-batch, probability)
def KINDS(scale=1.0, audio=True):
    n = lambda k: max(1, int(k * scale))
    K = {"receipt": (lambda r: t_receipt(r, 140), n(32), .30), "receipt280": (lambda r: t_receipt(r, 280), n(12), .03), "note": (lambda r: t_note(r, 140), n(40), .19),
         "note70": (lambda r: t_note(r, 70, maxwords=6), n(64), .06), "shapes": (lambda r: t_shapes(r, 140), n(40), .07), "shapes70": (lambda r: t_shapes(r, 70), n(64), .04),
         "multi": (lambda r: t_multi(r, 140), n(18), .06), "video": (lambda r: t_video(r, 70), n(14), .05), "text": (t_text, n(96), .06), "tools": (t_tools, n(64), .05)}
    if audio:
        K["audio"] = (t_audio, n(64), .09); K["voiceq"] = (lambda r: t_voiceq(r, 140), n(32), .05)
    return K

def make_batch(kind, seed, scale=1.0):
    r = random.Random(seed)
    f, n, _ = KINDS(scale)[kind]
    return build(kind, f, n, r)
def build(kind, f, n, r):
    m, p = SHAPE.get(kind, (0, 0))
    return collate([f(r) for _ in range(n)], m * n or None, p or None)

"""Gemma 4 MTP assistant for the demo model, trained on cached target states (CPU). Usage: drafter.py SECONDS"""
import os, sys, time, random, json, math, torch, torch.nn.functional as F
import data as D
from transformers import Gemma4ForConditionalGeneration, Gemma4AssistantForCausalLM, Gemma4AssistantConfig, Gemma4TextConfig, GenerationConfig
# transformers 5.23.0 cannot build an assistant: kv_sharing_modes raises when every layer is shared (5.17 can)
_old = Gemma4TextConfig.kv_sharing_modes.fget
Gemma4TextConfig.kv_sharing_modes = property(lambda self: ["reuse"] * self.num_hidden_layers if self.num_kv_shared_layers == self.num_hidden_layers else _old(self))
# ... and its prefill shortcut fails without per-layer embeddings when more than one position is computed
from transformers.models.gemma4.modeling_gemma4 import Gemma4TextModel
_slice = Gemma4TextModel._maybe_slice_kv_shared_inputs
Gemma4TextModel._maybe_slice_kv_shared_inputs = lambda self, h, p, e, m, k, **kw: (h, p, e, m) if p is None else _slice(self, h, p, e, m, k, **kw)
HERE = D.MODEL
torch.set_num_threads(2)
tgt = Gemma4ForConditionalGeneration.from_pretrained(HERE, dtype=torch.float32).eval()
c = tgt.config; lm = tgt.model.language_model
tc = Gemma4TextConfig(vocab_size=2048, vocab_size_per_layer_input=0, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=1, head_dim=64,
    global_head_dim=128, hidden_size_per_layer_input=0, num_kv_shared_layers=4, use_double_wide_mlp=False, sliding_window=256,
    layer_types=["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"], max_position_embeddings=8192, pad_token_id=0, bos_token_id=2, eos_token_id=1, tie_word_embeddings=True,
    rope_parameters=c.text_config.rope_parameters)
cfg = Gemma4AssistantConfig(text_config=tc, backbone_hidden_size=256, use_ordered_embeddings=False)
torch.manual_seed(0)
dr = Gemma4AssistantForCausalLM(cfg)
with torch.no_grad():
    for n, p in dr.named_parameters():
        if n.endswith("q_norm.weight"): p.fill_(p.shape[0] ** -0.25)
        elif n.endswith(("post_attention_layernorm.weight", "post_feedforward_layernorm.weight")): p.fill_(0.4)
        elif "embed_tokens" in n: p.normal_(0, 0.05)
        elif p.ndim == 2: p.normal_(0, 0.7 / math.sqrt(p.shape[1]))
print("drafter parameters", sum(p.numel() for p in dr.parameters()))
@torch.no_grad()
def target_states(b):
    """embeddings of the token ids, last hidden state, shared KV, labels"""
    ids = b["ids"].long(); md = (ids == c.image_token_id) | (ids == c.video_token_id); ma = ids == c.audio_token_id
    tid = torch.where(md | ma, torch.zeros_like(ids), ids)
    e = lm.embed_tokens(tid); e0 = e; ple = lm.get_per_layer_inputs(tid, None)
    if "px" in b:
        px = b["px"].float() / 255
        if px.shape[-1] == 256: px = px.repeat_interleave(3, -1)
        e = e.masked_scatter(md[..., None], tgt.model.embed_vision(inputs_embeds=tgt.model.vision_tower(pixel_values=px, pixel_position_ids=b["pos"].long()).last_hidden_state))
    if "feat" in b:
        o = tgt.model.audio_tower(b["feat"].float(), b["fmask"], return_dict=True)
        e = e.masked_scatter(ma[..., None], tgt.model.embed_audio(inputs_embeds=o.last_hidden_state)[o.attention_mask])
    o = lm(inputs_embeds=e, per_layer_inputs=ple, use_cache=False, return_shared_kv_states=True)
    kv = {k: (v[0].half(), v[1].half()) for k, v in dict(o.shared_kv_states.items()).items()}
    pred = tgt.lm_head(o.last_hidden_state).argmax(-1)
    return ids, b["tgt"] > 0, o.last_hidden_state.half(), kv, pred
K = D.KINDS()
cache = []
t0 = time.time(); budget = float(sys.argv[1])
plan = [("text", 16), ("tools", 10), ("audio", 10), ("receipt", 4), ("shapes", 6), ("note", 5), ("text", 16), ("tools", 10), ("receipt", 4)]
r = random.Random(4242); k = 0
held = []
while time.time() - t0 < budget * 0.45:
    kind, n = plan[k % len(plan)]; k += 1
    s = target_states(D.collate([K[kind][0](r) for _ in range(n)]))
    (held if k <= len(plan) else cache).append((kind, s))
print("cached", len(cache), "batches", f"{time.time()-t0:.0f}s", flush=True)
def run(s, steps=3):
    ids, sel, H, kv, pred = s
    B, L = ids.shape
    kv = {a: (x.float(), y.float()) for a, (x, y) in kv.items()}
    ar = torch.arange(L)
    d = ar[:, None] - ar[None]                      # query p sees keys 0..p-1
    full = (d >= 1); sl = full & (d <= 256)
    full[0, 0] = sl[0, 0] = True
    mk = {"full_attention": full[None, None].expand(B, 1, L, L), "sliding_attention": sl[None, None].expand(B, 1, L, L)}
    pos = ar[None]
    h = torch.cat([torch.zeros(B, 1, 256), H.float()[:, :-1]], 1)      # hidden state of position p-1
    loss, acc, cnt = 0.0, [], 0
    alive = None
    for st in range(steps):
        tok = torch.roll(ids, -st, 1)
        x = dr.pre_projection(torch.cat([lm.embed_tokens(torch.where((tok == 19) | (tok == 20) | (tok == 23), torch.zeros_like(tok), tok)), h], -1))
        o = dr.model(inputs_embeds=x, attention_mask=mk, position_ids=pos, shared_kv_states=dict(kv), use_cache=False).last_hidden_state
        h = dr.post_projection(o)
        ok = torch.roll(sel, -st - 1, 1) & sel.roll(-1, 1)
        ok[:, L - st - 2:] = False
        y = torch.roll(ids, -st - 1, 1)
        lg = dr.lm_head(o[ok])
        loss = loss + F.cross_entropy(lg, y[ok]) * (1.0, .7, .5)[st]
        hit = torch.zeros_like(sel); hit[ok] = lg.argmax(-1) == y[ok]
        alive = hit if alive is None else alive & hit
        acc.append((int(alive.sum()), int(ok.sum())))
    return loss, acc
opt = torch.optim.AdamW(dr.parameters(), lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)
t1 = time.time(); T = budget - (t1 - t0); it = 0
dr.train()
while time.time() - t1 < T:
    fr = (time.time() - t1) / T
    for g in opt.param_groups: g["lr"] = 3e-3 * min(1, (it + 1) / 30) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fr)))
    kind, s = cache[r.randrange(len(cache))]
    loss, acc = run(s)
    opt.zero_grad(); loss.backward(); torch.nn.utils.clip_grad_norm_(dr.parameters(), 1.0); opt.step()
    it += 1
    if it % 50 == 0: print(it, f"{time.time()-t1:.0f}s", kind, f"{loss.item():.3f}", [f"{a/max(b,1):.2f}" for a, b in acc], flush=True)
dr.eval(); res = {}
with torch.no_grad():
    for kind, s in held:
        _, acc = run(s)
        q = res.setdefault(kind, [[0, 0] for _ in acc])
        for j, (a, b) in enumerate(acc): q[j][0] += a; q[j][1] += b
res = {k: [round(a / max(b, 1), 3) for a, b in v] for k, v in res.items()}
print("held-out acceptance of the 1st, 1st+2nd, 1st..3rd drafted token:", res)
out = os.path.join(HERE, "drafter")
dr = dr.to(torch.bfloat16); dr.config.dtype = "bfloat16"
dr.generation_config = GenerationConfig(num_assistant_tokens=3, num_assistant_tokens_schedule="constant", bos_token_id=2, pad_token_id=0, eos_token_id=[1, 16, 9])
dr.save_pretrained(out)
p = os.path.join(out, "config.json"); j = json.load(open(p)); t = j["text_config"]; t.pop("per_layer_config", None); t["global_head_dim"] = 128; json.dump(j, open(p, "w"), indent=2)
json.dump(res, open(os.path.join(out, "acceptance.json"), "w"))

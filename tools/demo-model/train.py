"""Train the demo model. Usage: train.py OUT_DIR TOTAL_SECONDS [--resume CKPT_DIR] [--cpu-test]"""
import os, sys, time, math, random, json, collections, threading, queue
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch, torch.nn as nn, torch.nn.functional as F
import data as D, model_def, fast
import contextlib
OUT, TOTAL = sys.argv[1], float(sys.argv[2])
RESUME = sys.argv[sys.argv.index("--resume") + 1] if "--resume" in sys.argv else None
CPU = "--cpu-test" in sys.argv
SCALE = 0.08 if CPU else 1.0
NW = int(os.environ.get("NW", "2" if CPU else "15"))
ACC = int(os.environ.get("ACC", "5"))
LR = float(os.environ.get("LR", "2.5e-3"))
os.makedirs(OUT, exist_ok=True)
LOG = open(os.path.join(OUT, "log.txt"), "a")
def log(*a):
    s = time.strftime("%H:%M:%S ") + " ".join(str(x) for x in a)
    print(s, flush=True); LOG.write(s + "\n"); LOG.flush()

class Stream(torch.utils.data.IterableDataset):
    def __init__(self, base): self.base = base
    def __iter__(self):
        torch.set_num_threads(1)
        w = torch.utils.data.get_worker_info()
        wid = w.id if w else 0
        r = random.Random(self.base * 1000003 + wid * 7919 + 17)
        try:
            D.speech.init(); audio = True
        except Exception as e:
            audio = False
            if wid == 0: print("AUDIO DISABLED", repr(e), flush=True)
        K = D.KINDS(SCALE, audio)
        names, probs = list(K), [K[k][2] for k in K]
        while True:
            k = r.choices(names, probs)[0]
            D.R.GRAY = r.random() < 0.65 if k.startswith(("receipt", "note")) else None
            try:
                b = D.build(k, K[k][0], K[k][1], r)
            except Exception as e:
                print("DATA ERROR", k, repr(e), flush=True); continue
            b["kind"] = k
            yield b

def patch_fast():
    """Same mathematics, fused: RMSNorm through torch's kernel."""
    from transformers.models.gemma4 import modeling_gemma4 as G
    def fwd(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight.float() if self.with_scale else None, self.eps).type_as(x)
    G.Gemma4RMSNorm.forward = fwd
    G.Gemma4ClippableLinear.forward = lambda self, x: self.linear(x)      # the clip bounds are infinite while training

class Prefetch(threading.Thread):
    """Copies micro-batches to the GPU through fixed pinned buffers, on a stream of its own."""
    def __init__(self, it, dev, depth=6):
        super().__init__(daemon=True)
        self.it, self.dev, self.q = it, dev, queue.Queue(depth)
        self.start()
    def run(self):
        torch.cuda.set_device(0)
        st = torch.cuda.Stream()
        bufs = [torch.empty(64 << 20, dtype=torch.uint8, pin_memory=True) for _ in range(4)]
        evs = [None] * 4
        k = 0
        self.t_copy = self.t_h2d = 0.0; self.bytes = 0
        with torch.cuda.stream(st):
            while True:
                cb = next(self.it)
                o = {}
                j = k % 4; k += 1
                if evs[j] is not None: evs[j].synchronize()
                off = 0
                t = time.time()
                views = {}
                for n, v in cb.items():
                    if torch.is_tensor(v):
                        nb = v.numel() * v.element_size()
                        d = bufs[j][off:off + nb].view(v.dtype).view(v.shape); d.copy_(v)
                        off = (off + nb + 255) // 256 * 256
                        views[n] = d
                t2 = time.time(); self.t_copy += t2 - t; self.bytes += off
                for n, v in cb.items(): o[n] = views[n].to(self.dev, non_blocking=True) if n in views else v
                ev = torch.cuda.Event(); ev.record(st); evs[j] = ev
                if k % 50 == 7: ev.synchronize(); self.t_h2d = time.time() - t2; self.b_h2d = off
                o["_cpu"] = {n: cb[n] for n in ("spans", "kind")}
                self.q.put((o, ev))
    def __next__(self):
        o, ev = self.q.get()
        s = torch.cuda.current_stream(); s.wait_event(ev)
        for v in o.values():
            if torch.is_tensor(v): v.record_stream(s)
        return o

def sampler(tid, secs=4.0):
    """Where is the main thread? (a poor man's profiler)"""
    c = collections.Counter(); t0 = time.time()
    while time.time() - t0 < secs:
        f = sys._current_frames().get(tid); st = []
        while f is not None and len(st) < 3:
            st.append(f"{os.path.basename(f.f_code.co_filename)}:{f.f_lineno}"); f = f.f_back
        c["<".join(st)] += 1; time.sleep(0.004)
    n = sum(c.values())
    log("SAMPLES", "  ".join(f"{k}={v/n:.2f}" for k, v in c.most_common(16)))

class CpuSrc:
    def __init__(self, it): self.it = it
    def __next__(self): return next(self.it)
class CpuRun:
    def __init__(self, net, auxw): self.net, self.auxw = net, auxw
    def run(self, b, zero):
        out, _, _ = self.net.forward(b); (self.net.total(out, self.auxw) / ACC).backward()
        return {k: v.detach() for k, v in out.items()}

class Aux(nn.Module):
    NC = 96
    def __init__(self, hv=192, ha=256):
        super().__init__()
        self.patch = nn.Linear(hv, 2 * self.NC)
        self.pool = nn.Linear(hv, 18 * self.NC)
        self.ctc = nn.Linear(ha, 29)

class Net:
    def __init__(self, dev):
        self.dev = dev
        self.m = model_def.build()
        self.aux = Aux()
        self.st = {}
        self.ac = (lambda: contextlib.nullcontext()) if dev == "cpu" else (lambda: torch.autocast("cuda", torch.bfloat16, cache_enabled=False))
        fast.CD = torch.float32 if dev == "cpu" else torch.bfloat16
        if "--compile" in sys.argv: fast.compile_all()
        self.m.to(dev); self.aux.to(dev)
        c = self.m.config
        self.img, self.vid, self.aud = c.image_token_id, c.video_token_id, c.audio_token_id
    def core(self, b, vis, aud):
        """Everything without a host synchronisation: -> dict of scalars, logits. vis: has images; aud: has audio."""
        m = self.m.model
        ids = b["ids"].long()
        media = (ids == self.img) | (ids == self.vid) | (ids == self.aud)
        tid = torch.where(media, torch.zeros_like(ids), ids)
        e = m.language_model.embed_tokens(tid)
        ple = m.language_model.get_per_layer_inputs(tid, None)
        out = {}
        if vis:
            px, pos = b["px"].float() / 255, b["pos"].long()
            if px.shape[-1] == 256: px = px.repeat_interleave(3, -1)
            enc, pool = fast.vision(m.vision_tower, px, pos, self.ac)
            with self.ac(): vf = m.embed_vision(inputs_embeds=pool)
            im = b["imap"].long()
            vf = vf.reshape(-1, vf.shape[-1]).index_select(0, im.clamp(min=0).view(-1)).view(*im.shape, -1)
            e = torch.where((im >= 0)[..., None], vf.to(e.dtype), e)
            if self.m.training:
                n, P = pos.shape[:2]
                lab = b["lab"].long()
                wt = (lab == 0) * 0.1 + ((lab > 0) & (lab < 255)).float()
                tgt = torch.where(lab == 255, torch.zeros_like(lab), lab)
                lg = self.aux.patch(enc.to(fast.CD).float()).view(n, P, 2, Aux.NC)
                out["patch"] = (F.cross_entropy(lg.reshape(-1, Aux.NC), tgt.reshape(-1), reduction="none") * wt.view(-1)).sum() / wt.sum().clamp(min=1)
                valid = pos[..., 0] >= 0
                W3 = (pos[..., 0].max(1, keepdim=True)[0] + 1) // 3
                flat = torch.where(valid, (pos[..., 0] // 3 + W3 * (pos[..., 1] // 3)) * 9 + (pos[..., 1] % 3) * 3 + pos[..., 0] % 3, torch.full_like(pos[..., 0], P))
                tl = torch.full((n, P + 1, 2), 255, device=enc.device, dtype=torch.long).scatter(1, flat[..., None].expand(-1, -1, 2), lab)[:, :P].reshape(n, P // 9, 18)
                wt = (tl == 0) * 0.1 + ((tl > 0) & (tl < 255)).float()
                tgt = torch.where(tl == 255, torch.zeros_like(tl), tl)
                lg = F.linear(F.rms_norm(pool, (pool.shape[-1],)).to(fast.CD), self.aux.pool.weight.to(fast.CD), self.aux.pool.bias.to(fast.CD)).float().view(-1, Aux.NC)
                out["pool"] = (F.cross_entropy(lg, tgt.reshape(-1), reduction="none") * wt.view(-1)).sum() / wt.sum().clamp(min=1)
        if aud:
            with self.ac():
                o = m.audio_tower(b["feat"].float(), b["fmask"], return_dict=True)
                h, mk = o.last_hidden_state, o.attention_mask
                af = m.embed_audio(inputs_embeds=h)[mk]
            e = e.masked_scatter((ids == self.aud)[..., None], af.to(e.dtype))
            if self.m.training:
                lp = F.log_softmax(self.aux.ctc(F.rms_norm(h.float(), (h.shape[-1],))).float(), -1).transpose(0, 1)
                out["ctc"] = F.ctc_loss(lp, b["ctc"].long(), mk.sum(1), b["ctc_len"].long(), zero_infinity=True)
        h = fast.language(m.language_model, e, ple, self.ac)
        with self.ac(): lg = self.m.lm_head(h[:, :-1]).float()
        lg = 30.0 * torch.tanh(lg / 30.0)
        w = b["tgt"][:, 1:].float()
        ce = F.cross_entropy(lg.reshape(-1, lg.shape[-1]), ids[:, 1:].reshape(-1), reduction="none").view_as(w)
        out["loss"] = (ce * w).sum() / w.sum().clamp(min=1e-6)
        return out, lg, ce
    def forward(self, b):
        return self.core(b, "px" in b, "feat" in b)
    def total(self, out, auxw):
        t = out["loss"]
        for k, v in out.items():
            if k != "loss": t = t + 0.5 * v * (auxw if k != "ctc" else auxw.clamp(min=0.3))
        return t

class Graphs:
    """One CUDA graph of forward + backward for every shape of micro-batch that has no audio."""
    def __init__(self, net, stream, auxw, acc):
        self.net, self.s, self.auxw, self.acc = net, stream, auxw, acc
        self.g, self.bad, self.pool = {}, set(), torch.cuda.graph_pool_handle()
    def run(self, b, zero):
        net = self.net
        vis, aud = "px" in b, "feat" in b
        names = ["ids", "tgt"] + (["px", "pos", "lab", "imap"] if vis else [])
        key = (b["_cpu"]["kind"],) + tuple(tuple(b[n].shape) for n in names if n != "px")
        if aud or key in self.bad or NOGRAPH:
            out, _, _ = net.core(b, vis, aud)
            (net.total(out, self.auxw) / self.acc).backward()
            return {k: v.detach() for k, v in out.items()}
        ent = self.g.get(key)
        if ent is None:
            t = time.time()
            st = {n: b[n].clone() for n in names if n != "px"}
            if vis: st["px"] = torch.zeros(*b["px"].shape[:2], 768, dtype=torch.uint8, device=b["px"].device)
            self.fill(st, b)
            try:
                for _ in range(2):
                    out, _, _ = net.core(st, vis, False)
                    (net.total(out, self.auxw) / self.acc).backward()
                    del out, _
                torch.cuda.synchronize()
                g = torch.cuda.CUDAGraph()
                with torch.cuda.graph(g, stream=self.s, pool=self.pool, capture_error_mode="thread_local"):
                    out, _, _ = net.core(st, vis, False)
                    (net.total(out, self.auxw) / self.acc).backward()
                    out = {k: v.detach() for k, v in out.items()}
                    del _
                ent = self.g[key] = (g, st, out)
                log("graph", key[0], key[1], f"{time.time()-t:.1f}s")
            except Exception as e:
                self.bad.add(key); log("GRAPH FAILED", key, repr(e)[:400]); torch.cuda.synchronize()
            zero()
            if ent is None: return None
        g, st, out = ent
        self.fill(st, b)
        g.replay()
        return {k: v.clone() for k, v in out.items()}
    def fill(self, st, b):
        for n, v in st.items():
            if n == "px" and b["px"].shape[-1] == 256: v.view(*v.shape[:2], 256, 3).copy_(b["px"][..., None])
            else: v.copy_(b[n])
NOGRAPH = "--nograph" in sys.argv

@torch.no_grad()
def ns5(G):
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.bfloat16()
    tr = X.shape[-2] > X.shape[-1]
    if tr: X = X.mT
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        A = X @ X.mT
        X = a * X + (b * A + c * A @ A) @ X
    return X.mT if tr else X

class Muon:
    def __init__(self, params, wd=0.1):
        self.g = collections.defaultdict(list)
        for p in params: self.g[tuple(p.shape)].append(p)
        self.buf = {s: torch.zeros((len(ps),) + s, device=ps[0].device) for s, ps in self.g.items()}
        self.wd = wd
    @torch.no_grad()
    def step(self, lr, mom=0.95):
        for s, ps in self.g.items():
            g = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in ps])
            bf = self.buf[s]
            bf.mul_(mom).add_(g, alpha=1 - mom)
            u = ns5(g.mul(1 - mom).add_(bf, alpha=mom)).float() * (0.2 * math.sqrt(max(s)))
            torch._foreach_mul_(ps, 1 - lr * self.wd)
            torch._foreach_add_(ps, list(u.unbind(0)), alpha=-lr)

def to_dev(b, dev):
    return {k: (v.to(dev, non_blocking=True) if torch.is_tensor(v) else v) for k, v in b.items()}

def evaluate(net, batches, dev, ac):
    net.m.eval()
    ok, tot, loss, n = collections.Counter(), collections.Counter(), 0.0, 0
    if True:      # gradients stay on: the compiled graphs are the training ones
        for cb in batches:
            b = to_dev(cb, dev)
            out, lg, ce = net.forward(b)
            sel = b["tgt"][:, 1:] > 0
            loss += float((ce.detach() * sel).sum()); n += int(sel.sum())
            hit = torch.ones_like(b["ids"], dtype=torch.bool)
            hit[:, 1:] = (lg.argmax(-1) == b["ids"][:, 1:]) | ~sel
            hit = hit.cpu().numpy()
            del out, lg, ce
            for bb, i, j, t in cb["spans"]:
                tot[t] += 1; ok[t] += bool(hit[bb, i:j].all())
    net.m.train()
    return loss / max(n, 1), {t: (ok[t] / tot[t], tot[t]) for t in sorted(tot)}

def save(net, d, extra):
    from safetensors.torch import save_file
    sd = {"m." + k: v for k, v in net.m.state_dict().items() if k != "lm_head.weight"}
    sd.update({"a." + k: v for k, v in net.aux.state_dict().items()})
    sd = {k: v.detach().to("cpu", torch.float16 if v.is_floating_point() else v.dtype).contiguous() for k, v in sd.items()}
    ks = sorted(sd); half, sz, shards = sum(v.numel() for v in sd.values()) / 2, 0, [{}, {}]
    for k in ks:
        shards[0 if sz < half else 1][k] = sd[k]; sz += sd[k].numel()
    for i in range(2):
        save_file(shards[i], os.path.join(d, f"ck{i}.tmp")); os.replace(os.path.join(d, f"ck{i}.tmp"), os.path.join(d, f"ck{i}.safetensors"))
    json.dump(extra, open(os.path.join(d, "state.json"), "w"))

def load(net, d):
    from safetensors.torch import load_file
    sd = {}
    for i in range(2): sd.update(load_file(os.path.join(d, f"ck{i}.safetensors")))
    msd = {k[2:]: v.float() for k, v in sd.items() if k.startswith("m.")}
    msd["lm_head.weight"] = msd["model.language_model.embed_tokens.weight"]
    r = net.m.load_state_dict(msd, strict=False); log("load", r)
    net.aux.load_state_dict({k[2:]: v.float() for k, v in sd.items() if k.startswith("a.")})
    return json.load(open(os.path.join(d, "state.json")))

def main():
    dev = "cpu" if CPU else "cuda"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    seed0 = int(time.time()) if RESUME else 1
    dl = torch.utils.data.DataLoader(Stream(seed0), batch_size=None, num_workers=NW, prefetch_factor=4, multiprocessing_context="fork")
    it = iter(dl)                      # workers fork before CUDA starts
    # the held-out set is made in a background process pool of its own while training starts
    patch_fast()
    if not CPU:
        torch.cuda.set_stream(torch.cuda.Stream())      # one side stream for everything: captured and eager work share it
    net = Net(dev)
    state = {"elapsed": 0.0, "step": 0}
    if RESUME: state = load(net, RESUME)
    net.m.train()
    mu, ad, nd = [], [], []
    for n, p in net.m.named_parameters():
        if p.ndim == 2 and ".layers." in n and "per_dim" not in n or n.endswith("per_layer_model_projection.weight") or "embedding_projection" in n: mu.append(p)
        elif "embed_tokens" in n or p.ndim >= 2: ad.append(p)
        else: nd.append(p)
    opt1 = Muon(mu)
    opt2 = torch.optim.AdamW([{"params": ad, "k": 0.8, "weight_decay": 0.0}, {"params": nd, "k": 0.8, "weight_decay": 0.0}, {"params": list(net.aux.parameters()), "k": 0.8, "weight_decay": 0.0}],
                             lr=1e-3, betas=(0.9, 0.95), fused=not CPU)
    ac = (lambda: contextlib.nullcontext()) if CPU else (lambda: torch.autocast("cuda", torch.bfloat16, cache_enabled=False))
    held = []
    def mk_held():
        import multiprocessing as mp
        global HELD
    log("params", sum(p.numel() for p in net.m.parameters()), "muon", sum(p.numel() for p in mu), "torch", torch.__version__, "workers", NW)
    ev_specs = [(k, 900000 + i * 37 + j) for i, k in enumerate(D.KINDS()) for j in range(1 if CPU else 3)]
    t0 = time.time(); el0 = state["elapsed"]
    src = CpuSrc(it) if CPU else Prefetch(it, dev)
    allp = mu + ad + nd + list(net.aux.parameters())
    for p in allp: p.grad = torch.zeros_like(p)
    grads = [p.grad for p in allp]
    auxt = torch.ones((), device=dev)
    G = Graphs(net, torch.cuda.current_stream(), auxt, ACC) if not CPU else CpuRun(net, auxt)
    step, last_save, last_eval, last_log = state["step"], t0, t0, t0
    acc_l, acc_a, cnt, nimg, nsmp, twait = collections.defaultdict(float), collections.defaultdict(float), collections.Counter(), 0, 0, 0.0
    held_it = HELD_FUT
    while True:
        el = el0 + time.time() - t0
        fr = min(el / TOTAL, 1.0)
        if el >= TOTAL: break
        lr = LR * (0.5 * (1 + math.cos(math.pi * fr)) * 0.98 + 0.02) if fr > 0.02 else LR
        lr *= min(1.0, (step - state["step"] + 1) / 150)
        diag = not CPU and step - state["step"] in (80, 81, 160, 161)
        if not CPU and step - state["step"] == 100: threading.Thread(target=sampler, args=(threading.main_thread().ident,), daemon=True).start()
        if not CPU and step - state["step"] == 190:
            try:
                art = None if True else torch.compiler.save_cache_artifacts()
                if art is not None: open(os.path.join(OUT, "cache.bin"), "wb").write(art[0]); log("cache", len(art[0]))
            except Exception as e: log("cache save failed", repr(e))
        auxw = max(0.1, 1.0 - fr / 0.6)
        torch._foreach_zero_(grads)
        auxt.fill_(auxw)
        for k in range(ACC):
            tw = time.time(); b = next(src); twait += time.time() - tw
            if diag: torch.cuda.synchronize(); td = [time.time()]
            out = G.run(b, lambda: torch._foreach_zero_(grads))
            if diag:
                torch.cuda.synchronize(); td.append(time.time())
                log("DIAG", b["_cpu"]["kind"], tuple(b["ids"].shape), tuple(b["px"].shape) if "px" in b else "", f"get {td[0]-tw:.4f} run {td[1]-td[0]:.4f}")
            if out is None: continue
            kd = b["_cpu"]["kind"] if "_cpu" in b else b["kind"]
            acc_l[kd] = acc_l[kd] + out["loss"]; cnt[kd] += 1
            for a, v in out.items():
                if a != "loss": acc_a[a] = acc_a[a] + v; cnt["_" + a] += 1
            nsmp += len(b["ids"]); nimg += len(b["px"]) if "px" in b else 0
        gn = torch.nn.utils.clip_grad_norm_(ad + nd, 1.0)
        opt1.step(lr, 0.95 if step > 300 else 0.85)
        for g in opt2.param_groups: g["lr"] = lr * g["k"]
        opt2.step()
        if diag: torch.cuda.synchronize(); log("DIAG opt", f"{time.time()-td[1]:.4f}")
        step += 1
        now = time.time()
        if now - last_log > (5 if CPU else 20):
            dt = now - last_log
            log(f"step {step} el {el:.0f} lr {lr:.5f} gn {float(gn):.2f} smp/s {nsmp/dt:.0f} img/s {nimg/dt:.0f} wait {twait/dt:.2f}", " ".join(f"{k}:{float(acc_l[k])/cnt[k]:.3f}" for k in sorted(acc_l)),
                " ".join(f"{a}:{float(acc_a[a])/cnt['_'+a]:.3f}" for a in sorted(acc_a)))
            acc_l.clear(); acc_a.clear(); cnt.clear(); nimg = nsmp = 0; twait = 0.0; last_log = now
        if now - last_save > 45 and not CPU:
            save(net, OUT, {"elapsed": el, "step": step}); last_save = now
        if now - last_eval > (20 if CPU else 150) or el > TOTAL - 0.5:
            held = get_held()
            if held:
                l, res = evaluate(net, held, dev, ac)
                log(f"EVAL step {step} loss {l:.4f} mean {np.mean([a for a, _ in res.values()]):.3f} took {time.time()-now:.1f}s", " ".join(f"{t}={a:.2f}({n})" for t, (a, n) in res.items()))
            last_eval = time.time()
    held = get_held(True)
    l, res = evaluate(net, held, dev, ac)
    log(f"FINAL step {step} loss {l:.4f} mean {np.mean([a for a, _ in res.values()]):.3f}", " ".join(f"{t}={a:.3f}({n})" for t, (a, n) in res.items()))
    json.dump({t: [a, n] for t, (a, n) in res.items()}, open(os.path.join(OUT, "eval.json"), "w"))
    save(net, OUT, {"elapsed": TOTAL, "step": step})
    log("DONE")
    os._exit(0)

HELD_FUT = None
def _mk(args):
    torch.set_num_threads(1)
    k, s = args
    try: return D.make_batch(k, s, SCALE if CPU else 0.8)
    except Exception as e: return None
def start_held():
    """Held-out batches come from fixed seeds, made by two extra processes."""
    global HELD_FUT
    import multiprocessing as mp
    specs = [(k, 900000 + i * 37 + j) for i, k in enumerate(D.KINDS()) for j in range(1 if CPU else 3)]
    pool = mp.get_context("fork").Pool(1 if CPU else 4)
    HELD_FUT = (pool, pool.map_async(_mk, specs, chunksize=1))
HELD = None
def get_held(wait=False):
    global HELD
    if HELD is None and (wait or HELD_FUT[1].ready()):
        HELD = [b for b in HELD_FUT[1].get() if b is not None]
        HELD_FUT[0].close()
    return HELD
if __name__ == "__main__":
    torch.multiprocessing.set_sharing_strategy("file_system" if "--fs" in sys.argv else "file_descriptor")
    start_held()
    if CPU: main()
    else:
        import contextlib as _c
        main()

/* decoder_config.c - from config.json to a decoder_spec, and from the spec to layer groups of the paged cache. */
#include "blocks/decoder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

activation config_activation(config *c, const char *path, const char *fallback)
{
    static const struct { const char *name; activation act; } table[] = {
        {"silu", ACT_SILU}, {"swish", ACT_SILU}, {"gelu", ACT_GELU}, {"gelu_pytorch_tanh", ACT_GELU_TANH}, {"gelu_new", ACT_GELU_TANH},
        {"gelu_fast", ACT_GELU_TANH}, {"quick_gelu", ACT_QUICK_GELU}, {"relu", ACT_RELU}, {"sigmoid", ACT_SIGMOID}, {"tanh", ACT_TANH},
        {"linear", ACT_NONE},
    };
    const char *name = config_string(c, path, fallback);
    if (c->failed) return ACT_NONE;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i].name, name)) return table[i].act;
    config_fail(c, VLM_UNSUPPORTED, "%s: activation \"%s\" is not known", path, name);
    return ACT_NONE;
}

/* "text_config.KEY|KEY" */
typedef struct where { const char *const *prefixes; char path[512]; } where;
static const char *at(where *w, const char *key)
{
    size_t used = 0;
    w->path[0] = 0;
    for (const char *const *p = w->prefixes; *p && used < sizeof w->path; p++)
        used += (size_t)snprintf(w->path + used, sizeof w->path - used, "%s%s%s", used ? "|" : "", *p, key);
    return w->path;
}

/* Which layers see a window only: layer_types, else Qwen's rule (the layers from max_window_layers on). */
static void configure_windows(decoder_spec *s, config *c, where *w)
{
    int window = (int)config_int(c, at(w, "sliding_window"), 0, 0, INT32_MAX);
    if (!window || !config_bool(c, at(w, "use_sliding_window"), config_has(c, at(w, "layer_types")))) return;
    const json_t *types = config_get(c, at(w, "layer_types"));
    int first = (int)config_int(c, at(w, "max_window_layers"), s->layers, 0, INT32_MAX);
    for (int i = 0; i < s->layers; i++) {
        const char *type = types ? json_string_value(json_array_get(types, (size_t)i)) : NULL;
        bool sliding = types ? type && !strcmp(type, "sliding_attention") : i >= first;
        if (types && !type) config_fail(c, VLM_FORMAT, "layer_types has no entry for layer %d of %d", i, s->layers);
        s->layer[i].window = sliding ? window : 0;
    }
}

bool decoder_config_windows(decoder_spec *s, config *c, const char *const *prefixes, int fallback, int pattern)
{
    where w = {prefixes, {0}};
    if (config_has(c, at(&w, "layer_types"))) return !c->failed;             /* decoder_config has done it */
    int window = (int)config_int(c, at(&w, "sliding_window"), fallback, 0, INT32_MAX);
    for (int i = 0; i < s->layers; i++) s->layer[i].window = (i + 1) % pattern ? window : 0;
    return !c->failed;
}

static bool configure_widths(decoder_spec *s, config *c, where *w)
{
    int64_t width[DECODER_MAX_LAYERS];
    int n = config_ints(c, at(w, "intermediate_size"), width, DECODER_MAX_LAYERS);
    for (int i = 0; i < s->layers && !c->failed; i++) {
        if (n != s->layers || width[i] < 1 || width[i] > 1 << 24) return config_fail(c, VLM_FORMAT, "intermediate_size: %d widths of MLPs were expected", s->layers);
        s->layer[i].ffn = (int)width[i];
    }
    return !c->failed;
}

bool decoder_share_keys(decoder_spec *s, config *c, int shared)
{
    int first = s->layers - shared;
    for (int i = first; i < s->layers; i++) {
        int from = first - 1;
        while (from >= 0 && s->layer[from].rope != s->layer[i].rope) from--;
        if (from < 0) return config_fail(c, VLM_FORMAT, "num_kv_shared_layers %d: no layer is left whose keys layer %d could read", shared, i);
        s->layer[i].kv_from = from;
    }
    return true;
}

bool decoder_config(decoder_spec *s, arena *memory, config *c, const char *const *prefixes)
{
    where w = {prefixes, {0}};
    s->layers = (int)config_need_int(c, at(&w, "num_hidden_layers"), 1, DECODER_MAX_LAYERS);
    s->hidden = (int)config_need_int(c, at(&w, "hidden_size"), 1, 1 << 20);
    s->vocab = (int)config_need_int(c, at(&w, "vocab_size"), 1, 1 << 26);
    int heads = (int)config_need_int(c, at(&w, "num_attention_heads"), 1, 1 << 14);
    int kv_heads = (int)config_int(c, at(&w, "num_key_value_heads"), heads, 1, 1 << 14);
    int head_dim = (int)config_int(c, at(&w, "head_dim"), heads ? s->hidden / heads : 0, 1, 1 << 14);
    bool experts = config_has(c, at(&w, "moe_intermediate_size")) && !config_has(c, at(&w, "intermediate_size"));   /* and no MLP anywhere */
    bool each = json_is_array(config_get(c, at(&w, "intermediate_size")));                                          /* a width for each layer */
    int ffn = experts || each ? 0 : (int)config_need_int(c, at(&w, "intermediate_size"), 1, 1 << 24);
    s->eps = (float)config_number(c, at(&w, "rms_norm_eps"), 1e-6);
    s->act = config_activation(c, at(&w, config_has(c, at(&w, "hidden_act")) ? "hidden_act" : "hidden_activation"), "silu");
    s->tied = config_bool(c, "tie_word_embeddings", config_bool(c, at(&w, "tie_word_embeddings"), false));   /* the outermost counts */
    s->embed_scale = 1;
    if (c->failed) return false;
    if (!(s->layer = arena_alloc(memory, (size_t)s->layers * sizeof *s->layer))) return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < s->layers; i++)
        s->layer[i] = (decoder_layer_spec){.heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .kv_from = -1, .ffn = ffn};
    if (each && !configure_widths(s, c, &w)) return false;
    configure_windows(s, c, &w);

    if (s->n_ropes == 0) {
        s->n_ropes = 1;
        if (!rope_configure(&s->rope[0], memory, c, prefixes, NULL, head_dim, 10000)) return false;
        int64_t section[MAX_ROPE_AXES];
        int axes = config_ints(c, at(&w, "rope_scaling.mrope_section"), section, MAX_ROPE_AXES);
        if (!axes) axes = config_ints(c, at(&w, "rope_parameters.mrope_section"), section, MAX_ROPE_AXES);
        bool interleaved = config_bool(c, at(&w, "rope_scaling.mrope_interleaved"), false) ||
                           config_bool(c, at(&w, "rope_parameters.mrope_interleaved"), false);
        if (!c->failed && axes && !rope_sections(&s->rope[0], section, axes, interleaved))
            return config_fail(c, VLM_FORMAT, "mrope_section does not add up to half of head_dim (%d)", s->rope[0].half);
    }
    return !c->failed;
}

static bool is_sparse(config *c, where *w, int i)
{
    int64_t dense[DECODER_MAX_LAYERS];
    int n = config_ints(c, at(w, "mlp_only_layers"), dense, DECODER_MAX_LAYERS);
    for (int k = 0; k < n; k++)
        if (dense[k] == i) return false;
    return (i + 1) % (int)config_int(c, at(w, "decoder_sparse_step"), 1, 1, INT32_MAX) == 0;
}

bool decoder_config_experts(decoder_spec *s, config *c, const char *const *prefixes)
{
    where w = {prefixes, {0}}, other = w;
    const char *either = config_has(c, at(&w, "num_experts")) ? at(&w, "num_experts") : at(&other, "num_local_experts");
    s->moe = MOE_INSTEAD;
    s->experts = (int)config_need_int(c, either, 1, 1 << 16);
    s->route.top_k = (int)config_need_int(c, at(&w, "num_experts_per_tok"), 1, 1 << 16);
    s->expert_ffn = (int)config_need_int(c, at(&w, "moe_intermediate_size"), 1, 1 << 24);
    s->route.normalize = config_bool(c, at(&w, "norm_topk_prob"), s->route.normalize);
    s->shared_ffn = (int)config_int(c, at(&w, "shared_expert_intermediate_size"), 0, 0, 1 << 24);
    for (int i = 0; i < s->layers && !c->failed; i++)
        if ((s->layer[i].moe = is_sparse(c, &w, i))) s->layer[i].ffn = 0;
    return !c->failed;
}

static void configure_deepseek_routing(decoder_spec *s, config *c, where *w, bool v3)
{
    route_spec *r = &s->route;
    const char *scores = config_string(c, at(w, "scoring_func"), v3 ? "sigmoid" : "softmax");
    if (!c->failed && strcmp(scores, "sigmoid") && strcmp(scores, "softmax"))
        config_fail(c, VLM_UNSUPPORTED, "scoring_func \"%s\"; softmax and sigmoid are known", scores);
    r->sigmoid = !c->failed && !strcmp(scores, "sigmoid");
    const char *method = config_string(c, at(w, "topk_method"), v3 ? "noaux_tc" : "greedy");
    if (c->failed) return;
    bool corrected = !strcmp(method, "noaux_tc"), limited = !strcmp(method, "group_limited_greedy");
    if (!corrected && !limited && strcmp(method, "greedy"))
        config_fail(c, VLM_UNSUPPORTED, "topk_method \"%s\"; greedy, group_limited_greedy and noaux_tc are known", method);
    s->correction_bias = corrected ? "mlp.gate.e_score_correction_bias" : NULL;
    r->group_best = corrected ? 2 : 1;
    r->groups = corrected || limited ? (int)config_int(c, at(w, "n_group"), 1, 1, s->experts) : 1;
    r->kept_groups = corrected || limited ? (int)config_int(c, at(w, "topk_group"), r->groups, 1, r->groups) : 1;
    r->normalize = config_bool(c, at(w, "norm_topk_prob"), v3);
    r->epsilon = r->normalize ? 1e-20f : 0;
    r->scale = (float)config_number(c, at(w, "routed_scaling_factor"), v3 ? 2.5 : 1);
}

bool decoder_config_deepseek(decoder_spec *s, config *c, const char *const *prefixes, bool v3)
{
    where w = {prefixes, {0}}, other = w;
    if (!config_has(c, at(&w, "n_routed_experts")) && !config_has(c, at(&other, "num_local_experts"))) return !c->failed;
    s->moe = MOE_INSTEAD;
    s->experts = (int)config_need_int(c, config_has(c, at(&w, "n_routed_experts")) ? at(&w, "n_routed_experts") : at(&other, "num_local_experts"), 1, 1 << 16);
    s->route.top_k = (int)config_need_int(c, at(&w, "num_experts_per_tok"), 1, 1 << 16);
    s->expert_ffn = (int)config_need_int(c, at(&w, "moe_intermediate_size"), 1, 1 << 24);
    s->shared_plain = true;
    int shared = (int)config_int(c, at(&w, "n_shared_experts"), 0, 0, 64), first = (int)config_int(c, at(&w, "first_k_dense_replace"), 0, 0, INT32_MAX);
    int every = (int)config_int(c, at(&w, "moe_layer_freq"), 1, 1, INT32_MAX);
    if (c->failed) return false;
    s->shared_ffn = shared * s->expert_ffn;
    configure_deepseek_routing(s, c, &w, v3);
    const json_t *types = config_get(c, at(&w, "mlp_layer_types"));                                                 /* newer files: "dense", "sparse" */
    for (int i = types ? 0 : first; i < s->layers && !c->failed; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        if (types && (!type || (strcmp(type, "dense") && strcmp(type, "sparse")))) return config_fail(c, VLM_FORMAT, "mlp_layer_types: \"dense\" or \"sparse\" was expected for layer %d", i);
        if ((s->layer[i].moe = types ? *type == 's' : i % every == 0)) s->layer[i].ffn = 0;
    }
    return !c->failed;
}

/* Groups of experts fit, and enough of them take part. */
static bool routes(const decoder_spec *s)
{
    const route_spec *r = &s->route;
    if (s->experts < 1 || s->expert_ffn < 1 || r->top_k < 1 || r->top_k > s->experts) return false;
    if (r->groups <= 1) return true;
    int size = s->experts / r->groups;
    return size * r->groups == s->experts && r->group_best <= size && r->kept_groups >= 1 && r->kept_groups <= r->groups && r->top_k <= r->kept_groups * size;
}

/* ---- groups ------------------------------------------------------------------------------------------------------- */

static bool plan_layer(decoder *d, config *c, int i)
{
    decoder_layer_spec *l = &d->spec.layer[i];
    if (l->cross) {
        const cross_spec *s = &d->spec.cross;
        if (s->heads < 1 || s->kv_heads < 1 || s->head_dim < 1 || s->heads % s->kv_heads)
            return config_fail(c, VLM_FORMAT, "layer %d: %d heads of cross-attention cannot share %d", i, s->heads, s->kv_heads);
        d->memory.kv_heads = s->kv_heads;
        d->memory.head_dim = s->head_dim;
        d->layer[i].cross.slot = d->memory.slots++;
        return true;
    }
    if (l->recurrent) {
        const short_conv_spec *conv = &d->spec.conv;
        d->layer[i].delta.at = d->layer[i].conv.at = d->state_bytes / sizeof(float);
        d->state_bytes += (conv->kernel ? short_conv_floats(conv, d->spec.hidden) : delta_net_floats(&d->spec.delta)) * sizeof(float);
        d->last_owner = i;
        return true;
    }
    if (l->heads < 1 || l->kv_heads < 1 || l->head_dim < 1 || l->heads % l->kv_heads)
        return config_fail(c, VLM_FORMAT, "layer %d: %d attention heads cannot share %d key/value heads", i, l->heads, l->kv_heads);
    if (l->rope >= d->spec.n_ropes || (l->rope >= 0 && 2 * d->spec.rope[l->rope].half > l->head_dim))
        return config_fail(c, VLM_FORMAT, "layer %d: rotary positions do not fit a head of %d", i, l->head_dim);
    if (l->kv_from >= 0) {
        if (l->kv_from >= i || d->spec.layer[l->kv_from].kv_from >= 0)
            return config_fail(c, VLM_FORMAT, "layer %d cannot read keys and values of layer %d", i, l->kv_from);
        const decoder_layer_spec *from = &d->spec.layer[l->kv_from];
        if (from->kv_heads != l->kv_heads || from->head_dim != l->head_dim || from->window != l->window)
            return config_fail(c, VLM_FORMAT, "layer %d reads keys and values of layer %d, which has other heads or another window", i, l->kv_from);
        l->group = from->group;
        l->slot = from->slot;
        return true;
    }
    d->last_owner = i;
    int g = 0;
    while (g < d->n_groups && (d->group[g].kv_heads != l->kv_heads || d->group[g].head_dim != l->head_dim || d->group[g].window != l->window ||
                               d->group[g].chunked != l->chunked)) g++;
    if (g == MAX_KV_GROUPS) return config_fail(c, VLM_UNSUPPORTED, "layers have more than %d kinds of keys and values", MAX_KV_GROUPS);
    if (g == d->n_groups)
        d->group[d->n_groups++] = (kv_shape){.kv_heads = l->kv_heads, .head_dim = l->head_dim, .window = l->window, .chunked = l->chunked, .latent = d->spec.mla.kv_rank};
    l->group = g;
    l->slot = d->group[g].slots++;
    return true;
}

bool decoder_plan(decoder *d, arena *memory, config *c)
{
    decoder_spec *s = &d->spec;
    if (c->failed) return false;
    d->n_groups = 0;
    d->last_owner = 0;
    d->memory = (kv_shape){0};
    d->state_bytes = 0;
    if (!(d->layer = arena_alloc(memory, (size_t)s->layers * sizeof *d->layer))) return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < s->layers; i++) {
        if (!plan_layer(d, c, i)) return false;
        if (s->layer[i].ffn < 1 && !s->layer[i].moe) return config_fail(c, VLM_FORMAT, "layer %d has neither MLP nor experts", i);
        if (s->layer[i].moe && (s->moe == MOE_NONE || !routes(s)))
            return config_fail(c, VLM_FORMAT, "%d experts, %d per token, width %d: no mixture of experts can be made of this", s->experts, s->route.top_k, s->expert_ffn);
    }
    return true;
}

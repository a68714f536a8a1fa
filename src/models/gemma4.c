/* gemma4.c - Gemma 4: https://huggingface.co/google/gemma-4-E2B-it (E2B, E4B, 26B-A4B, 31B) and the tower-free 12B (gemma4_unified).
 *
 *   image   -> aspect-preserving resize to at most 280 soft tokens -> patches 16 x 16 -> blocks/gemma_vision, 3 x 3 pooled  \
 *   video   -> frames sampled evenly, 70 tokens each, "mm:ss" before each                  -> the same tower                 > rows
 *   audio   -> log-mel, 10 ms frames -> blocks/audio_encoder, a row for 40 ms                                               /
 *   unified -> pixels of 48 x 48, or 40 ms of samples, projected at once (gemma4_encode.c)
 *   rows replace <|image|>, <|video|>, <|audio|> -> blocks/decoder
 *
 * What bites:
 * - Layers are sliding or full; full ones have heads of another size (global_head_dim), perhaps fewer key heads, and "proportional"
 *   rope: the exponent's denominator is the whole head, only a quarter of the pairs turn. The last layer is full whatever layer_types says.
 * - Norms multiply by w (no 1 +), attention scale is 1, values are normalised without a weight, a layer's output is times layer_scalar.
 * - The last num_kv_shared_layers layers read keys and values of the last earlier layer of their type (the file may still have some of
 *   their own) and have a double-wide MLP when use_double_wide_mlp.
 * - attention_k_eq_v: in full layers values are the raw k projection, normalised, not rotated.
 * - Media tokens take the pad token's per-layer embedding.
 * - use_bidirectional_attention "vision": image and video blocks see themselves whole, in sliding layers only and inside the window; in the
 *   unified model in all layers and across the window. Audio is causal. */
#include "models/gemma4.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const PREFIXES[] = {"text_config.", "", NULL};
#define TEXT(key) "text_config." key "|" key

static int per_layer(config *c, int layer, const char *key, int fallback)
{
    char path[160];
    snprintf(path, sizeof path, "text_config.per_layer_config.%d.%s|per_layer_config.%d.%s", layer, key, layer, key);
    return (int)config_int(c, path, fallback, 1, 1 << 14);
}

static bool is_full(config *c, const json_t *types, int layer, int layers)
{
    const char *type = json_string_value(json_array_get(types, (size_t)layer));
    if (types != NULL && type == NULL) config_fail(c, VLM_FORMAT, "layer_types has no entry for layer %d of %d", layer, layers);
    if (layer == layers - 1) return true;
    return type != NULL ? strcmp(type, "full_attention") == 0 : (layer + 1) % 6 == 0;
}

/* Which tokens see what follows them: null says none, an absent entry means the class's default. */
static const char *seen_both_ways(config *c, bool unified)
{
    const json_t *text = json_object_get(c->root, "text_config"), *value;
    value = json_object_get(json_is_object(text) ? text : c->root, "use_bidirectional_attention");
    if (value == NULL) return unified ? "vision" : "";
    return json_is_string(value) ? json_string_value(value) : "";
}

static bool configure_layers(decoder_spec *s, config *c, bool unified)
{
    const json_t *types = config_get(c, TEXT("layer_types"));
    const char *both = seen_both_ways(c, unified);
    int window = (int)config_int(c, TEXT("sliding_window"), unified ? 1024 : 512, 1, INT32_MAX);
    int kv_heads = (int)config_int(c, TEXT("num_key_value_heads"), 4, 1, 1 << 14);
    int head = (int)config_int(c, TEXT("head_dim"), 256, 2, 1 << 14);
    int full_head = (int)config_int(c, TEXT("global_head_dim"), 512, 2, 1 << 14);
    bool k_is_v = config_bool(c, TEXT("attention_k_eq_v"), false);
    int full_kv = k_is_v ? (int)config_int(c, TEXT("num_global_key_value_heads"), kv_heads, 1, 1 << 14) : kv_heads;
    int shared = (int)config_int(c, TEXT("num_kv_shared_layers"), 0, 0, s->layers - 1);
    bool wide = config_bool(c, TEXT("use_double_wide_mlp"), false);
    if (c->failed) return false;
    if (strcmp(both, "all") == 0) {
        return config_fail(c, VLM_UNSUPPORTED, "use_bidirectional_attention \"all\" (an encoder) is not supported");
    }
    for (int i = 0; i < s->layers; i++) {
        decoder_layer_spec *l = &s->layer[i];
        bool full = is_full(c, types, i, s->layers), vision = strcmp(both, "vision") == 0;
        l->rope = full ? 1 : 0;
        l->window = full ? 0 : window;
        l->head_dim = per_layer(c, i, "head_dim", full ? full_head : head);
        l->kv_heads = per_layer(c, i, "num_key_value_heads", full ? full_kv : kv_heads);
        l->v_is_k = full && k_is_v;
        l->bidirectional = vision && (unified || !full);
        l->whole_blocks = vision && unified && !full;
        if (wide && i >= s->layers - shared) l->ffn *= 2;
    }
    return !c->failed && decoder_share_keys(s, c, shared);
}

static bool configure_rope(decoder_spec *s, arena *memory, config *c)
{
    int head[2] = {0, 0};
    for (int i = 0; i < s->layers; i++) head[s->layer[i].rope] = s->layer[i].head_dim;
    if (config_has(c, TEXT("rope_parameters"))) {
        return (head[0] == 0 || rope_configure(&s->rope[0], memory, c, PREFIXES, "sliding_attention", head[0], 10000.0)) &&
               rope_configure(&s->rope[1], memory, c, PREFIXES, "full_attention", head[1], 1000000.0);
    }
    if (!rope_default(&s->rope[0], memory, 10000.0, head[0]) || !rope_default(&s->rope[1], memory, 1000000.0, head[1])) {
        return config_fail(c, VLM_MEMORY, "out of memory");
    }
    for (int i = head[1] / 8; i < s->rope[1].half; i++) s->rope[1].inv_freq[i] = 0;
    return true;
}

static bool configure_decoder(gemma4 *g, arena *memory, config *c)
{
    decoder_spec *s = &g->decoder.spec;
    s->n_ropes = 2;
    if (!decoder_config(s, memory, c, PREFIXES) || !configure_layers(s, c, g->unified) || !configure_rope(s, memory, c)) return false;
    s->norms = NORM_SANDWICH;
    s->qk_norm = s->v_norm = s->layer_scalar = true;
    s->attn_scale = 1.0f;
    s->embed_scale = (float)sqrt(s->hidden);
    s->final_softcap = (float)config_number(c, TEXT("final_logit_softcapping"), 0);
    s->act = config_activation(c, TEXT("hidden_activation"), "gelu_pytorch_tanh");
    s->tied = config_bool(c, "tie_word_embeddings", config_bool(c, TEXT("tie_word_embeddings"), true));
    s->qkv_bias = s->o_bias = config_bool(c, TEXT("attention_bias"), false);
    if (!g->unified) {
        s->ple = (int)config_int(c, TEXT("hidden_size_per_layer_input"), 256, 0, 1 << 16);
        s->ple_vocab = (int)config_int(c, TEXT("vocab_size_per_layer_input"), 262144, 1, 1 << 26);
        s->ple_media_id = (int32_t)config_int(c, TEXT("pad_token_id"), 0, 0, INT32_MAX);
    }
    if (!g->unified && config_bool(c, TEXT("enable_moe_block"), false)) {
        s->moe = MOE_BESIDE;
        s->route.normalize = true;
        s->experts = (int)config_need_int(c, TEXT("num_experts"), 1, 1 << 16);
        s->route.top_k = (int)config_need_int(c, TEXT("top_k_experts"), 1, 1 << 10);
        s->expert_ffn = (int)config_need_int(c, TEXT("moe_intermediate_size"), 1, 1 << 24);
        for (int i = 0; i < s->layers; i++) s->layer[i].moe = true;
    }
    static const char *const prefix[] = {"model.language_model.", "language_model.model.", "model.", "", NULL};
    static const char *const head_prefix[] = {"language_model.", "model.", "", NULL};
    memcpy(s->prefix, prefix, sizeof prefix);
    memcpy(s->head_prefix, head_prefix, sizeof head_prefix);
    return !c->failed && decoder_plan(&g->decoder, memory, c);
}

/* The processor's files and config.json say the same things twice. */
static bool processors_fit(const gemma4 *g, config *c)
{
    int patch = (int)config_int(c, "vision_config.patch_size", 16, 1, 256);
    int pool = (int)config_int(c, "vision_config.pooling_kernel_size", 3, 1, 64);
    bool ok = g->image.patch == patch && g->video.patch == patch && g->image.pool == pool && g->video.pool == pool;
    return ok || config_fail(c, VLM_FORMAT, "the processor's patches (%d pixels, %d x %d pooled) are not those of vision_config (%d, %d x %d)",
                             g->image.patch, g->image.pool, g->image.pool, patch, pool, pool);
}

static bool configure(vlm_model *m, config *c)
{
    gemma4 *g = arena_alloc(&m->memory, sizeof *g);
    if (g == NULL) return config_fail(c, VLM_MEMORY, "out of memory");
    m->family = g;
    g->unified = strncmp(config_string(c, "model_type", ""), "gemma4_unified", 14) == 0;
    m->takes = 0;
    if (!configure_decoder(g, &m->memory, c)) return false;
    const decoder_spec *s = &g->decoder.spec;
    m->hidden = s->hidden;
    m->vocab = s->vocab;
    m->layers = s->layers;
    m->context = (int)config_int(c, TEXT("max_position_embeddings"), 131072, 1, INT32_MAX);
    m->rope_axes = 1;
    for (int i = 0; i < s->layers; i++) m->bidirectional_media = m->bidirectional_media || s->layer[i].bidirectional;
    m->n_groups = g->decoder.n_groups;
    memcpy(m->group, g->decoder.group, sizeof m->group);

    if (config_has(c, "vision_config")) m->takes |= TAKES_IMAGE | TAKES_VIDEO;
    if (config_has(c, "audio_config")) m->takes |= TAKES_AUDIO;
    if (!gemma4_media_configure(m, g)) return false;
    if ((m->takes & TAKES_IMAGE) && !processors_fit(g, c)) return false;
    if (g->unified) return gemma4_embedder_config(g, c);
    if ((m->takes & TAKES_IMAGE) && !gemma_vision_config(&g->vision, &m->memory, c, s->hidden)) return false;
    if ((m->takes & TAKES_AUDIO) && !audio_encoder_config(&g->audio, &m->memory, c, g->sound.bins, s->hidden)) return false;
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    gemma4 *g = m->family;
    bind_prefix(b, "model.", "", NULL);
    if (g->unified) {
        gemma4_embedder_bind(g, m, b);
    } else {
        if (m->takes & TAKES_IMAGE) gemma_vision_bind(&g->vision, b);
        if (m->takes & TAKES_AUDIO) audio_encoder_bind(&g->audio, b);
    }
    return decoder_bind(&g->decoder, b);
}

static tensor forward(run *r, const vlm_model *m, const batch *b)
{
    const gemma4 *g = m->family;
    return decoder_forward(r, &g->decoder, b);
}

static const char *const MODEL_TYPES[] = {"gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text", NULL};

static const media_rules rules = {.image = "max_soft_tokens", .video = "max_soft_tokens", .low = "{\"max_soft_tokens\": 70}",
                                  .high = "{\"max_soft_tokens\": 1120}"};

const vlm_arch vlm_arch_gemma4 = {
    .name = "gemma4",
    .title = "Gemma 4 (E2B, E4B, 12B unified, 26B-A4B, 31B)",
    .model_types = MODEL_TYPES,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE | TAKES_VIDEO | TAKES_AUDIO,
    .configure = configure,
    .bind = bind,
    .process = gemma4_process,
    .pick_frames = gemma4_pick_frames,
    .frame_size = gemma4_frame_size,
    .audio_rate = gemma4_audio_rate,
    .placeholder = gemma4_placeholder,
    .media_token = gemma4_media_token,
    .expand = gemma4_expand,
    .encode_start = gemma4_encode_start,
    .encode = gemma4_encode,
    .forward = forward,
};

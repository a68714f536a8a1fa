/* rope.c - see rope.h. Formulas: transformers modeling_rope_utils.py, each step in float32 as torch rounds it. */
#include "blocks/rope.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double PI = 3.14159265358979323846;

static bool rope_allocate(rope_table *t, arena *memory, int half)
{
    t->half = half;
    t->factor = t->score_factor = 1;
    t->far_freq = NULL;
    t->trained = 0;
    t->interleaved = false;
    t->inv_freq = arena_alloc(memory, (size_t)(half > 0 ? half : 1) * sizeof(float));
    t->axis = arena_alloc(memory, (size_t)(half > 0 ? half : 1));
    return t->inv_freq && t->axis;
}

/* theta^(2i / dim) */
static float frequency(double theta, int i, int dim)
{
    return powf((float)theta, (float)(2 * i) / (float)dim);
}

bool rope_default(rope_table *t, arena *memory, double theta, int dim)
{
    if (!rope_allocate(t, memory, dim / 2)) return false;
    for (int i = 0; i < t->half; i++) t->inv_freq[i] = 1.0f / frequency(theta, i, dim);
    return true;
}

/* ---- scaling types ------------------------------------------------------------------------------------------------ */

/* Where a parameter of the rope may lie, as alternatives of one path: PREFIX rope_parameters.LAYER_TYPE.key, rope_parameters.key, rope_scaling.key. */
typedef struct rope_source {
    config *c;
    const char *const *prefixes;
    const char *layer_type;
    char path[1024];
} rope_source;

static void add_path(rope_source *s, const char *prefix, const char *parent, const char *type, const char *key)
{
    size_t used = strlen(s->path);
    snprintf(s->path + used, sizeof s->path - used, "%s%s%s%s%s%s", used ? "|" : "", prefix, parent, type, type[0] ? "." : "", key);
}

static const char *rope_path(rope_source *s, const char *key, bool top_level)
{
    s->path[0] = 0;
    for (const char *const *p = s->prefixes; *p; p++) {
        if (s->layer_type) add_path(s, *p, "rope_parameters.", s->layer_type, key);
        add_path(s, *p, "rope_parameters.", "", key);
        add_path(s, *p, "rope_scaling.", "", key);
        if (top_level) add_path(s, *p, "", "", key);
    }
    return s->path;
}

static double rope_number(rope_source *s, const char *key, double fallback) { return config_number(s->c, rope_path(s, key, false), fallback); }

/* Low frequencies are stretched by `factor`, high ones stay, those between are blended (Llama 3.1). */
static void rope_llama3(rope_table *t, rope_source *s)
{
    float factor = (float)config_need_number(s->c, rope_path(s, "factor", false));
    double low = rope_number(s, "low_freq_factor", 1), high = rope_number(s, "high_freq_factor", 4);
    double trained = rope_number(s, "original_max_position_embeddings", 8192);
    if (!s->c->failed && (factor <= 0 || low <= 0 || high <= low || trained <= 0)) {
        config_fail(s->c, VLM_FORMAT, "rope_scaling llama3: factor %g, low_freq_factor %g, high_freq_factor %g do not fit", (double)factor, low, high);
        return;
    }
    float longest = (float)(trained / low), shortest = (float)(trained / high);
    for (int i = 0; i < t->half; i++) {
        float f = t->inv_freq[i], wave = (float)(2 * PI) / f;
        if (wave > longest) t->inv_freq[i] = f / factor;
        else if (wave >= shortest) {
            float smooth = ((float)trained / wave - (float)low) / (float)(high - low);
            t->inv_freq[i] = (1 - smooth) * f / factor + smooth * f;
        }
    }
}

/* YaRN, arXiv 2309.00071: frequencies that turn less than beta_slow times over the trained length are interpolated, those that turn more than
 * beta_fast times are kept, a linear ramp between; attention grows by 0.1 ln(factor) + 1. */
static double yarn_scale(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static void rope_yarn(rope_table *t, rope_source *s, double theta, int dim)
{
    double trained = config_need_number(s->c, rope_path(s, "original_max_position_embeddings", true));
    double factor = rope_number(s, "factor", 0);
    if (factor == 0) factor = config_number(s->c, rope_path(s, "max_position_embeddings", true), trained) / (trained > 0 ? trained : 1);
    double fast = rope_number(s, "beta_fast", 32), slow = rope_number(s, "beta_slow", 1);
    double m = rope_number(s, "mscale", 0), all = rope_number(s, "mscale_all_dim", 0);
    double attention = rope_number(s, "attention_factor", 0);
    if (s->c->failed) return;
    if (factor <= 0 || trained <= 0 || fast <= 0 || slow <= 0 || theta <= 1) {
        config_fail(s->c, VLM_FORMAT, "rope_scaling yarn: factor %g, original_max_position_embeddings %g do not fit", factor, trained);
        return;
    }
    t->factor = (float)(attention > 0 ? attention : m > 0 && all > 0 ? yarn_scale(factor, m) / yarn_scale(factor, all) : yarn_scale(factor, 1));
    if (all > 0) t->score_factor = (float)(yarn_scale(factor, all) * yarn_scale(factor, all));
    double low = dim * log(trained / (fast * 2 * PI)) / (2 * log(theta)), high = dim * log(trained / (slow * 2 * PI)) / (2 * log(theta));
    if (config_bool(s->c, rope_path(s, "truncate", false), true)) low = floor(low), high = ceil(high);
    low = fmax(low, 0);
    high = fmin(high, dim - 1);
    if (low == high) high += 0.001;
    for (int i = 0; i < t->half; i++) {
        float position = frequency(theta, i, dim), ramp = ((float)i - (float)low) / (float)(high - low);
        float keep = 1 - fminf(fmaxf(ramp, 0), 1);
        t->inv_freq[i] = 1.0f / ((float)factor * position) * (1 - keep) + 1.0f / position * keep;
    }
}

/* LongRoPE, arXiv 2402.13753: a factor for each frequency; two lists, for texts up to the trained length and for longer ones. */
static void rope_long(rope_table *t, arena *memory, rope_source *s, double theta, int dim)
{
    double trained = config_need_number(s->c, rope_path(s, "original_max_position_embeddings", true));
    double factor = rope_number(s, "factor", 0), attention = rope_number(s, "attention_factor", 0);
    double near_factor = rope_number(s, "short_mscale", 0), far_factor = rope_number(s, "long_mscale", 0);            /* Phi-3.5-MoE says it itself */
    if (factor == 0) factor = config_number(s->c, rope_path(s, "max_position_embeddings", true), trained) / (trained > 0 ? trained : 1);
    double *near = arena_alloc(memory, (size_t)t->half * sizeof *near), *far = arena_alloc(memory, (size_t)t->half * sizeof *far);
    t->far_freq = arena_alloc(memory, (size_t)t->half * sizeof *t->far_freq);
    if (!near || !far || !t->far_freq) {
        config_fail(s->c, VLM_MEMORY, "out of memory");
        return;
    }
    int n = config_numbers(s->c, rope_path(s, "short_factor", false), near, t->half), m = config_numbers(s->c, rope_path(s, "long_factor", false), far, t->half);
    if (s->c->failed) return;
    if (n != t->half || m != t->half || !(trained > 1 && trained < INT32_MAX)) {
        config_fail(s->c, VLM_FORMAT, "rope_scaling longrope: %d factors (short_factor, long_factor) and a trained length were expected", t->half);
        return;
    }
    t->trained = (int)trained;
    for (int i = 0; i < t->half; i++) t->far_freq[i] = 1.0f / ((float)far[i] * frequency(theta, i, dim));
    t->factor = t->far_factor = (float)(attention > 0 ? attention : factor <= 1 ? 1 : sqrt(1 + log(factor) / log(trained)));
    if (near_factor > 0) t->factor = (float)near_factor;
    if (far_factor > 0) t->far_factor = (float)far_factor;
    for (int i = 0; i < t->half; i++) t->inv_freq[i] = 1.0f / ((float)near[i] * frequency(theta, i, dim));
}

/* Gemma 4: the exponent's denominator is the whole head, and only the first frequencies turn; the others are 0. */
static void rope_proportional(rope_table *t, rope_source *s, double theta, int head_dim, double part)
{
    int turning = (int)floor(part * head_dim / 2);                     /* int(part * head_dim // 2) */
    float factor = (float)rope_number(s, "factor", 1);
    for (int i = 0; i < t->half; i++) t->inv_freq[i] = i < turning ? 1.0f / frequency(theta, i, head_dim) / factor : 0;
}

bool rope_configure(rope_table *t, arena *memory, config *c, const char *const *prefixes, const char *layer_type, int head_dim,
                    double default_theta)
{
    rope_source s = {c, prefixes, layer_type, {0}};
    double theta = config_number(c, rope_path(&s, "rope_theta", true), default_theta);
    double part = config_number(c, rope_path(&s, "partial_rotary_factor", true), 1);
    const char *type = config_string(c, rope_path(&s, "rope_type", false), NULL);
    if (!type) type = config_string(c, rope_path(&s, "type", false), "default");
    if (c->failed) return false;
    if (!(theta > 0) || !(part > 0 && part <= 1) || head_dim < 2)
        return config_fail(c, VLM_FORMAT, "rope_theta %g, partial_rotary_factor %g, head_dim %d: no rotary positions can be made of this", theta, part, head_dim);
    bool proportional = !strcmp(type, "proportional");
    int dim = proportional ? head_dim : (int)(head_dim * part);
    if (dim < 2) return config_fail(c, VLM_FORMAT, "partial_rotary_factor %g of a head of %d leaves nothing to rotate", part, head_dim);
    if (!rope_default(t, memory, theta, dim)) return config_fail(c, VLM_MEMORY, "out of memory");
    if (proportional) rope_proportional(t, &s, theta, head_dim, part);
    else if (!strcmp(type, "llama3")) rope_llama3(t, &s);
    else if (!strcmp(type, "yarn")) rope_yarn(t, &s, theta, dim);
    else if (!strcmp(type, "longrope") || !strcmp(type, "su")) rope_long(t, memory, &s, theta, dim);
    else if (!strcmp(type, "linear")) {
        double factor = config_need_number(c, rope_path(&s, "factor", false));
        if (!c->failed && factor <= 0) return config_fail(c, VLM_FORMAT, "rope_scaling linear: factor %g", factor);
        for (int i = 0; i < t->half; i++) t->inv_freq[i] /= (float)factor;
    } else if (strcmp(type, "default") && strcmp(type, "mrope") && strcmp(type, "dynamic"))
        return config_fail(c, VLM_UNSUPPORTED, "rope_type \"%s\"; default, mrope, linear, dynamic, llama3, yarn, longrope and proportional are known", type);
    return !c->failed;
}

/* ---- positions ---------------------------------------------------------------------------------------------------- */

bool rope_sections(rope_table *t, const int64_t *section, int axes, bool interleaved)
{
    int64_t sum = 0;
    if (axes < 1 || axes > MAX_ROPE_AXES) return false;
    for (int a = 0; a < axes; a++) {
        if (section[a] < 0 || section[a] > t->half) return false;
        sum += section[a];
    }
    if (sum != t->half) return false;
    if (interleaved) {
        memset(t->axis, 0, (size_t)t->half);
        for (int a = 1; a < axes; a++)
            for (int64_t i = a; i < section[a] * axes && i < t->half; i += axes) t->axis[i] = (uint8_t)a;
        return true;
    }
    int i = 0;
    for (int a = 0; a < axes; a++)
        for (int64_t k = 0; k < section[a]; k++) t->axis[i++] = (uint8_t)a;
    return true;
}

void rope_fill(const rope_table *t, const int32_t *const *positions, int64_t n, tensor cosine, tensor sine)
{
    if (!cosine.data || !sine.data) return;
    for (int64_t token = 0; token < n; token++) {
        float *c = tensor_row(cosine, token), *s = tensor_row(sine, token);
        bool far = t->far_freq && positions[FAR_AXIS][token];
        const float *freq = far ? t->far_freq : t->inv_freq, factor = far ? t->far_factor : t->factor;
        for (int i = 0; i < t->half; i++) {
            float angle = (float)positions[t->axis[i]][token] * freq[i];
            c[i] = cosf(angle) * factor;
            s[i] = sinf(angle) * factor;
        }
    }
}

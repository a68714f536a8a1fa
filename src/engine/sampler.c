/* sampler.c - see sampler.h. Selections (top_k, top_p, typical_p) pop a heap, so that a small nucleus of a large vocabulary does
 * not cost a full sort. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* ---- options ---- */

static bool range(float value, float low, float high, const char *name, vlm_error *error)
{
    if (value >= low && value <= high) return true;
    return err_set(error, VLM_INVALID, "%s is %g; %g to %g was expected", name, (double)value, (double)low, (double)high);
}

static bool read_bias(sampler *s, const vlm_model *m, const char *text, vlm_error *error)
{
    json_error_t why;
    json_t *object = json_loads(text, 0, &why);
    const char *key;
    json_t *value;
    bool ok = false;
    int vocab = m->vocab;
    if (!json_is_object(object)) {
        err_set(error, VLM_INVALID, "logit_bias: a JSON object {\"token id\": bias} was expected");
        goto done;
    }
    size_t n = json_object_size(object);
    s->bias_token = MEM_ARRAY(n, int32_t);
    s->bias = MEM_ARRAY(n, float);
    if (!s->bias_token || !s->bias) { err_memory(error, n * 8); goto done; }
    json_object_foreach(object, key, value) {
        char *end;
        long id = strtol(key, &end, 10);
        if (end == key || *end || id < 0 || id >= vocab || !json_is_number(value) || !isfinite(json_number_value(value))) {
            err_set(error, VLM_INVALID, "logit_bias: \"%.40s\": token ids from 0 to %d and numbers were expected", key, vocab - 1);
            goto done;
        }
        s->bias_token[s->n_bias] = (int32_t)id;
        s->bias[s->n_bias++] = (float)json_number_value(value);
    }
    ok = true;
done:
    json_decref(object);
    return ok;
}

/* begin_suppress_tokens, then suppress_tokens. */
static bool read_suppressed(sampler *s, const vlm_model *m, vlm_error *error)
{
    const json_t *lists[2] = {NULL, NULL};
    if (m->cfg) {
        lists[0] = config_get(m->cfg, "generation_config.begin_suppress_tokens");
        lists[1] = config_get(m->cfg, "generation_config.suppress_tokens");
    }
    size_t n = json_array_size(lists[0]) + json_array_size(lists[1]);
    if (!n) return true;
    if (n > (size_t)m->vocab * 2) return err_set(error, VLM_FORMAT, "generation_config.json suppresses %zu tokens", n);
    if (!(s->suppress = MEM_ARRAY(n, int32_t))) return err_memory(error, n * sizeof(int32_t));
    for (int i = 0; i < 2; i++) {
        size_t k;
        const json_t *id;
        json_array_foreach(lists[i], k, id)
            if (json_is_integer(id) && json_integer_value(id) >= 0 && json_integer_value(id) < m->vocab)
                s->suppress[s->n_suppress++] = (int32_t)json_integer_value(id);
        if (i == 0) s->n_begin = s->n_suppress;
    }
    return true;
}

/* What generation_config.json asks for, or in older checkpoints the language model's config. */
static bool read_forced(sampler *s, const vlm_model *m, vlm_error *error)
{
    s->forced_first = s->forced_last = -1;
    if (!m->cfg) return true;
    config c = *m->cfg;
    s->no_repeat = (int)config_int(&c, "generation_config.no_repeat_ngram_size|text_config.no_repeat_ngram_size", 0, 0, 1 << 20);
    s->forced_first = (int32_t)config_int(&c, "generation_config.forced_bos_token_id|text_config.forced_bos_token_id", -1, -1, m->vocab - 1);
    s->forced_last = (int32_t)config_int(&c, "generation_config.forced_eos_token_id|text_config.forced_eos_token_id", -1, -1, m->vocab - 1);
    return config_ok(&c, error);
}

bool sampler_init(sampler *s, const vlm_model *m, const vlm_sampling *options, vlm_error *error)
{
    *s = (sampler){.options = *options};
    vlm_sampling *o = &s->options;
    if (isnan(o->temperature)) o->temperature = isnan(m->temperature) ? 0 : m->temperature;
    if (isnan(o->top_p)) o->top_p = isnan(m->top_p) ? 1 : m->top_p;
    if (o->top_k == -1) o->top_k = m->top_k == -1 ? 0 : m->top_k;
    if (o->temperature > 0 && o->temperature < 0.01f) o->temperature = 0.01f;
    if (!range(o->temperature, 0, 100, "temperature", error) || !range(o->top_p, 0, 1, "top_p", error) ||
        !range(o->min_p, 0, 1, "min_p", error) || !range(o->typical_p, 0, 1, "typical_p", error) ||
        !range(o->top_n_sigma, 0, 1e6f, "top_n_sigma", error) || !range(o->presence_penalty, -100, 100, "presence_penalty", error) ||
        !range(o->frequency_penalty, -100, 100, "frequency_penalty", error) ||
        !range(o->repetition_penalty, 1e-3f, 1e3f, "repetition_penalty", error) ||
        !range((float)o->top_logprobs, 0, MAX_TOP_LOGPROBS, "top_logprobs", error))
        return false;
    if (o->top_k < 0 || o->repetition_context < 0 || o->presence_context < 0 || o->frequency_context < 0)
        return err_set(error, VLM_INVALID, "top_k and the context sizes of penalties must not be negative");
    if ((options->logit_bias && !read_bias(s, m, options->logit_bias, error)) || !read_suppressed(s, m, error) || !read_forced(s, m, error))
        return sampler_free(s), false;
    o->logit_bias = NULL;
    return true;
}

void sampler_free(sampler *s)
{
    mem_free(s->bias_token);
    mem_free(s->bias);
    mem_free(s->suppress);
    *s = (sampler){0};
}

/* ---- candidates ---- */

typedef struct candidate { float key; int32_t id; } candidate;

size_t sampler_scratch(int vocab) { return (size_t)vocab * (sizeof(candidate) + sizeof(float) + sizeof(int32_t)); }

/* Larger key first, of equal ones the lower id. */
static bool above(candidate a, candidate b) { return a.key != b.key ? a.key > b.key : a.id < b.id; }

static void sift(candidate *c, int n, int i)
{
    candidate moving = c[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && above(c[child + 1], c[child])) child++;
        if (!above(c[child], moving)) break;
        c[i] = c[child];
    }
    c[i] = moving;
}

static void make_heap(candidate *c, int n)
{
    for (int i = n / 2 - 1; i >= 0; i--) sift(c, n, i);
}

/* Takes the top of a heap of n to its end: c[n - 1]. */
static void pop(candidate *c, int n)
{
    candidate top = c[0];
    c[0] = c[n - 1];
    sift(c, n - 1, 0);
    c[n - 1] = top;
}

static int by_id(const void *a, const void *b)
{
    int32_t x = ((const candidate *)a)->id, y = ((const candidate *)b)->id;
    return (x > y) - (x < y);
}

static int keep_last(candidate *c, int n, int kept)
{
    memmove(c, c + n - kept, (size_t)kept * sizeof *c);
    return kept;
}

static int top_n_sigma(candidate *c, int n, float sigma)
{
    double sum = 0, squares = 0;
    float max = -INFINITY;
    for (int i = 0; i < n; i++) {
        sum += c[i].key;
        if (c[i].key > max) max = c[i].key;
    }
    double mean = sum / n;
    for (int i = 0; i < n; i++) squares += (c[i].key - mean) * (c[i].key - mean);
    double threshold = max - sigma * sqrt(squares / n);
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (c[i].key >= threshold) c[kept++] = c[i];
    return kept;
}

/* Softmax sum of the keys / temperature, relative to max. */
static double mass(const candidate *c, int n, float max, double temperature)
{
    double total = 0;
    for (int i = 0; i < n; i++) total += exp((c[i].key - max) / temperature);
    return total;
}

static float largest(const candidate *c, int n)
{
    float max = -INFINITY;
    for (int i = 0; i < n; i++)
        if (c[i].key > max) max = c[i].key;
    return max;
}

static int typical(candidate *c, int n, float p, const float *logits)
{
    float max = largest(c, n);
    double total = mass(c, n, max, 1), log_total = log(total), entropy = 0, seen = 0;
    for (int i = 0; i < n; i++) entropy -= exp(c[i].key - max) / total * (c[i].key - max - log_total);
    for (int i = 0; i < n; i++) c[i].key = (float)-fabs(-(c[i].key - max - log_total) - entropy);
    make_heap(c, n);
    int kept = 0;
    while (kept < n && (kept == 0 || seen < p)) {
        pop(c, n - kept);
        kept++;
        seen += exp(logits[c[n - kept].id] - max) / total;
    }
    kept = keep_last(c, n, kept);
    for (int i = 0; i < kept; i++) c[i].key = logits[c[i].id];
    return kept;
}

static int top_k(candidate *c, int n, int k)
{
    if (k >= n) return n;
    make_heap(c, n);
    for (int i = 0; i < k; i++) pop(c, n - i);
    return keep_last(c, n, k);
}

static int top_p(candidate *c, int n, float p, double temperature)
{
    float max = largest(c, n);
    double total = mass(c, n, max, temperature), seen = 0;
    make_heap(c, n);
    int kept = 0;
    while (kept < n && (kept == 0 || seen < p * total)) {
        pop(c, n - kept);
        kept++;
        seen += exp((c[n - kept].key - max) / temperature);
    }
    return keep_last(c, n, kept);
}

static int min_p(candidate *c, int n, float p)
{
    float threshold = largest(c, n) + logf(p);
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (c[i].key >= threshold) c[kept++] = c[i];
    return kept;
}

/* ---- the draw ---- */

static uint64_t mix(uint64_t x)                   /* splitmix64's finalizer */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

double sampler_uniform(uint64_t seed, uint64_t position) { return (double)(mix(mix(seed) ^ position) >> 11) * 0x1p-53; }

static int32_t draw(candidate *c, int n, double temperature, double u)
{
    bool sorted = true;
    for (int i = 1; sorted && i < n; i++) sorted = c[i - 1].id < c[i].id;
    if (!sorted) qsort(c, (size_t)n, sizeof *c, by_id);
    float max = largest(c, n);
    double target = u * mass(c, n, max, temperature), seen = 0;
    for (int i = 0; i < n; i++) {
        seen += exp((c[i].key - max) / temperature);
        if (seen > target) return c[i].id;
    }
    return c[n - 1].id;
}

/* ---- changes to the logits ---- */

/* count: [vocab], any content. fn 0: repetition, 1: presence, 2: frequency */
static void penalize(float *logits, const int32_t *tokens, int n, int window, float penalty, int kind, int32_t *count)
{
    if (window > 0 && window < n) { tokens += n - window; n = window; }
    for (int i = 0; i < n; i++) count[tokens[i]] = 0;
    for (int i = 0; i < n; i++) count[tokens[i]]++;
    for (int i = 0; i < n; i++) {
        int32_t id = tokens[i];
        if (!count[id]) continue;
        if (kind == 0) logits[id] = logits[id] < 0 ? logits[id] * penalty : logits[id] / penalty;
        else logits[id] -= penalty * (kind == 1 ? 1.0f : (float)count[id]);
        count[id] = 0;
    }
}

static void limit(const sampler_limits *l, float *logits, int vocab)
{
    for (int i = 0; i < l->n_banned; i++) logits[l->banned[i]] = -INFINITY;
    if (!l->allowed) return;
    for (int base = 0; base < vocab; base += 64) {
        uint64_t bits = base < l->n_allowed ? l->allowed[base / 64] : 0;
        int n = vocab - base < 64 ? vocab - base : 64;
        if (bits == UINT64_MAX) continue;
        for (int i = 0; i < n; i++) logits[base + i] = bits >> i & 1 ? logits[base + i] : -INFINITY;
    }
}

static void adjust(const sampler *s, float *logits, const int32_t *tokens, int n, bool first, int32_t *count)
{
    const vlm_sampling *o = &s->options;
    for (int i = first ? 0 : s->n_begin; i < s->n_suppress; i++) logits[s->suppress[i]] = -INFINITY;
    for (int i = 0; i < s->n_bias; i++) logits[s->bias_token[i]] += s->bias[i];
    if (o->repetition_penalty != 1) penalize(logits, tokens, n, o->repetition_context, o->repetition_penalty, 0, count);
    if (o->presence_penalty != 0) penalize(logits, tokens, n, o->presence_context, o->presence_penalty, 1, count);
    if (o->frequency_penalty != 0) penalize(logits, tokens, n, o->frequency_context, o->frequency_penalty, 2, count);
}

static void report(const sampler *s, const float *logits, int vocab, double *log_total, sampled *out)
{
    float max = -INFINITY;
    double total = 0;
    for (int i = 0; i < vocab; i++)
        if (logits[i] > max) max = logits[i];
    for (int i = 0; i < vocab; i++) total += exp((double)logits[i] - max);
    *log_total = max + log(total);
    int wanted = s->options.top_logprobs;
    for (int i = 0; i < vocab && wanted; i++) {
        if (out->top_count == wanted && logits[i] <= out->top[wanted - 1].logprob) continue;
        int at = out->top_count < wanted ? out->top_count++ : wanted - 1;
        for (; at > 0 && out->top[at - 1].logprob < logits[i]; at--) out->top[at] = out->top[at - 1];
        out->top[at] = (vlm_top_logprob){i, logits[i]};
    }
    for (int i = 0; i < out->top_count; i++) out->top[i].logprob = (float)(out->top[i].logprob - *log_total);
}

static int32_t greedy(const float *logits, int vocab)
{
    float best = -INFINITY;
    int32_t token = -1;
    for (int i = 0; i < vocab; i++)
        if (logits[i] > best) { best = logits[i]; token = i; }
    return token;
}

static int32_t sample(const vlm_sampling *o, const float *logits, int vocab, int position, candidate *c)
{
    int n = 0;
    for (int i = 0; i < vocab; i++)
        if (logits[i] > -INFINITY) c[n++] = (candidate){logits[i], i};
    if (!n) return -1;
    if (o->top_n_sigma > 0) n = top_n_sigma(c, n, o->top_n_sigma);
    if (o->typical_p < 1) n = typical(c, n, o->typical_p, logits);
    if (o->top_k > 0) n = top_k(c, n, o->top_k);
    if (o->top_p < 1) n = top_p(c, n, o->top_p, o->temperature);
    if (o->min_p > 0) n = min_p(c, n, o->min_p);
    return draw(c, n, o->temperature, sampler_uniform(o->seed, (uint64_t)position));
}

/* Tokens that would end a row of `size` tokens that was there before. */
static void forbid_repeats(float *logits, const int32_t *tokens, int n, int size)
{
    const int32_t *tail = tokens + n - (size - 1);
    for (int i = 0; n + 1 >= size && i + size <= n; i++)
        if (!memcmp(tokens + i, tail, (size_t)(size - 1) * sizeof *tail)) logits[tokens[i + size - 1]] = -INFINITY;
}

static void force(float *logits, int vocab, int32_t token)
{
    for (int i = 0; i < vocab; i++) logits[i] = -INFINITY;
    logits[token] = 0;
}

void sampler_rules(const sampler *s, float *logits, int vocab, const int32_t *tokens, int n, int n_prompt, const sampler_limits *limits, void *scratch)
{
    if (limits) limit(limits, logits, vocab);
    adjust(s, logits, tokens, n, n == n_prompt, (int32_t *)((float *)((candidate *)scratch + vocab) + vocab));
    if (s->no_repeat) forbid_repeats(logits, tokens, n, s->no_repeat);
    if (s->forced_first >= 0 && n == 1) force(logits, vocab, s->forced_first);
    else if (s->forced_last >= 0 && limits && limits->last) force(logits, vocab, s->forced_last);
}

void sampler_draw(const sampler *s, float *logits, int vocab, const int32_t *tokens, int n, int n_prompt, const sampler_limits *limits,
                  void *scratch, sampled *out)
{
    candidate *candidates = scratch;
    float *raw = (float *)(candidates + vocab);
    const vlm_sampling *o = &s->options;
    double log_total = 0;
    *out = (sampled){0};
    if (o->logprobs) {
        memcpy(raw, logits, (size_t)vocab * sizeof *raw);
        report(s, raw, vocab, &log_total, out);
    }
    sampler_rules(s, logits, vocab, tokens, n, n_prompt, limits, scratch);
    out->token = o->temperature == 0 ? greedy(logits, vocab) : sample(o, logits, vocab, n, candidates);
    if (o->logprobs && out->token >= 0) out->logprob = (float)(raw[out->token] - log_total);
}

void sampler_given(const sampler *s, const float *logits, int vocab, int32_t token, sampled *out)
{
    double log_total = 0;
    *out = (sampled){.token = token};
    if (!s->options.logprobs) return;
    report(s, logits, vocab, &log_total, out);
    out->logprob = (float)(logits[token] - log_total);
}

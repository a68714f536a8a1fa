/* check_prompt.c - see check.h: tokenizer, prompt text, ids, processor tensors and positions against the reference. */
#include "cli/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

/* ---- tokenizer ------------------------------------------------------------------------------------------------------------ */

/* Index of the first difference of two lists, -1: none. */
static int64_t ids_differ(const ids *a, const ids *b)
{
    size_t n = a->count < b->count ? a->count : b->count;
    for (size_t i = 0; i < n; i++)
        if (a->id[i] != b->id[i]) return (int64_t)i;
    return a->count == b->count ? -1 : (int64_t)n;
}

static long long id_at(const ids *list, int64_t i) { return i >= 0 && (size_t)i < list->count ? list->id[i] : -1; }

static void check_text(check_report *r, const tokenizer *tok, const json_t *entry, int number)
{
    const json_t *text = json_object_get(entry, "text"), *decoded = json_object_get(entry, "decoded"), *list = json_object_get(entry, "ids");
    ids got = {0}, want = {0};
    buf plain = {0};
    vlm_error error = {0};
    encode_options options = {.special = true};
    size_t i;
    const json_t *id;
    json_array_foreach((json_t *)(uintptr_t)list, i, id) ids_add(&want, (int32_t)json_integer_value(id));
    if (!tokenizer_encode(tok, json_string_value(text), json_string_length(text), &options, &got, &error)) {
        check_same(r, STAGE_TOKENIZER, false, "text %d: %s", number, error.message);
    } else {
        int64_t at = ids_differ(&got, &want);
        check_same(r, STAGE_TOKENIZER, at < 0, "text %d \"%.60s\": id %lld is %lld, %lld was expected", number, json_string_value(text), (long long)at,
                   id_at(&got, at), id_at(&want, at));
    }
    if (json_is_string(decoded)) {
        bool ok = tokenizer_decode(tok, want.id, want.count, false, &plain, &error);
        bool same = ok && plain.size == json_string_length(decoded) && !memcmp(plain.data ? plain.data : "", json_string_value(decoded), plain.size);
        check_same(r, STAGE_TOKENIZER, same, "text %d decodes to \"%.100s\", \"%.100s\" was expected", number,
                   ok ? plain.data ? plain.data : "" : error.message, json_string_value(decoded));
    }
    buf_free(&plain);
    ids_free(&got);
    ids_free(&want);
}

void check_tokenizer(check_report *r, const vlm_model *m, const check_suite *s)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(s->root, "tokenizer"), i, entry) check_text(r, m->tok, entry, (int)i);
}

/* ---- prompt ------------------------------------------------------------------------------------------------------------------ */

/* The reference's processor was given media alone and wrote the prompt itself; cases.json may show it in short. */
static bool processor_writes(const vlm_model *m, const check_case *c)
{
    return m->arch->chat && !json_array_size(json_object_get(c->json, "messages"));
}

bool case_prompt(const vlm_model *m, const check_suite *s, const check_case *c, prompt *out, vlm_error *error)
{
    json_t *kwargs = json_copy(json_object_get(c->json, "template")), *tools = json_object_get(kwargs, "tools");
    tools = json_incref(tools ? tools : json_object_get(c->json, "tools"));
    json_object_del(kwargs, "tools");
    const json_t *messages = json_object_get(c->json, "messages");
    bool plain = !json_array_size(messages);                        /* families without turns: the prompt as it is, and its media */
    json_t *own = processor_writes(m, c) ? json_pack("[{s:s, s:O}]", "role", "user", "content", json_object_get(c->json, "parts")) : NULL;
    if (own) plain = false, messages = own;
    prompt_source source = {
        .messages = plain ? NULL : messages,
        .text = plain ? json_string_value(json_object_get(c->json, "prompt")) : NULL,
        .media = plain ? json_object_get(c->json, "parts") : NULL,
        .chat = {.add_generation_prompt = true, .tools = tools, .kwargs = kwargs},
        .media_options = json_object_get(c->json, json_object_get(c->json, "processor") ? "processor" : "processor_kwargs"),
        .policy = media_policy_default(),
        .media_dir = s->media_dir,
    };
    source.policy.local_files = true;
    bool ok = prompt_build(m, &source, out, error);
    json_decref(own);
    json_decref(kwargs);
    json_decref(tools);
    return ok;
}

/* Part of a text on one line, line ends spelled out. */
static const char *one_line(const char *text, char out[128])
{
    size_t n = 0;
    for (; *text && n < 100; text++) {
        if (*text == '\n') out[n++] = '\\', out[n++] = 'n';
        else out[n++] = *text;
    }
    out[n] = 0;
    return out;
}

static void check_prompt_text(check_report *r, const vlm_model *m, const check_case *c, const prompt *p)
{
    const json_t *want = json_object_get(c->json, "prompt");
    if (!json_is_string(want) || processor_writes(m, c)) return;
    const char *a = p->text, *b = json_string_value(want);
    size_t at = 0;
    while (a[at] && a[at] == b[at]) at++;
    size_t from = at > 20 ? at - 20 : 0;
    char x[128], y[128];
    check_same(r, STAGE_PROMPT, !a[at] && !b[at], "case %s: byte %zu: \"%s\", \"%s\" was expected", c->name, at, one_line(a + from, x), one_line(b + from, y));
}

static const char *token_text(const vlm_model *m, const ids *list, int64_t i)
{
    const char *text = i >= 0 && (size_t)i < list->count ? tokenizer_token(m->tok, list->id[i]) : NULL;
    return text ? text : "";
}

static void check_ids(check_report *r, const vlm_model *m, const check_case *c, const prompt *p)
{
    int64_t at = ids_differ(&p->ids, &c->prompt);
    check_same(r, STAGE_IDS, at < 0, "case %s: id %lld of %zu is %lld (%.30s), %lld (%.30s) was expected (%zu ids)", c->name, (long long)at, p->ids.count,
               id_at(&p->ids, at), token_text(m, &p->ids, at), id_at(&c->prompt, at), token_text(m, &c->prompt, at), c->prompt.count);
}

/* mm_token_type_ids is 1, 2, 3 where an image, video, audio token stands: where our spans are. */
static void check_spans(check_report *r, const check_suite *s, const check_case *c, const prompt *p)
{
    const stored_tensor *t = suite_golden(s, c, "mm_token_type_ids");
    float *want = t ? golden_floats(t) : NULL, *got = want ? MEM_ARRAY((size_t)golden_count(t) + 1, float) : NULL;
    if (got) {
        int64_t n = golden_count(t);
        char where[200];
        for (int i = 0; i < p->n_spans; i++)
            for (int k = 0; k < p->spans[i].count; k++) {
                int64_t at = (int64_t)p->spans[i].first + k;
                if (at >= 0 && at < n) got[at] = (float)(1 + p->media[p->spans[i].media]->kind);
            }
        for (int i = 0; i < p->joined.count; i++)          /* ... or, where blocks see each other, the whole block is 1 */
            for (int64_t at = p->joined.place[2 * i]; at < p->joined.place[2 * i + 1] && at < n; at++) got[at] = 1;
        snprintf(where, sizeof where, "%s/mm_token_type_ids", c->name);
        check_numbers(r, STAGE_IDS, got, want, n, 0, (tolerance){0}, where);
    } else if (t) {
        check_same(r, STAGE_IDS, false, "case %s: out of memory", c->name);
    }
    mem_free(got);
    mem_free(want);
}

/* cross_attention_mask [1, tokens, images, tiles]: as many rows as a token sees tiles. */
static void check_sight(check_report *r, const check_suite *s, const check_case *c, const prompt *p)
{
    const stored_tensor *t = suite_golden(s, c, "cross_attention_mask");
    int64_t n = (int64_t)p->ids.count, tiles = t && t->dims == 4 ? t->dim[3] : 0, each = tiles ? golden_count(t) / n : 0;
    float *want = tiles ? golden_floats(t) : NULL;
    if (!t) return;
    bool same = want && p->n_media && p->memory.from && each * n == golden_count(t);
    for (int64_t i = 0; same && i < n; i++) {
        float seen = 0;
        for (int64_t k = 0; k < each; k++) seen += want[i * each + k];
        same = (float)(p->memory.to[i] - p->memory.from[i]) * (float)tiles == seen * (float)p->media[0]->rows;
    }
    check_same(r, STAGE_IDS, same, "case %s: tokens see other rows than cross_attention_mask says", c->name);
    mem_free(want);
}

static void check_positions(check_report *r, const vlm_model *m, const check_suite *s, const check_case *c, const prompt *p)
{
    const stored_tensor *t = suite_golden(s, c, "position_ids");
    if (!t) return;
    int64_t n = (int64_t)p->ids.count, axes = m->rope_axes;
    if (golden_count(t) != n * axes) {
        check_same(r, STAGE_POSITIONS, false, "case %s: %lld positions, %lld were expected", c->name, (long long)(n * axes), (long long)golden_count(t));
        return;
    }
    float *want = golden_floats(t), *got = mem_aligned((size_t)(n * axes + 1) * sizeof *got);
    if (want && got) {
        char where[200];
        for (int64_t a = 0; a < axes; a++)
            for (int64_t i = 0; i < n; i++) got[a * n + i] = (float)p->rope[a][i];
        snprintf(where, sizeof where, "%s/position_ids", c->name);
        check_numbers(r, STAGE_POSITIONS, got, want, n * axes, n, (tolerance){0}, where);
    } else {
        check_same(r, STAGE_POSITIONS, false, "case %s: out of memory", c->name);
    }
    mem_free(got);
    mem_free(want);
}

/* ---- processor tensors ---------------------------------------------------------------------------------------------------------- */

enum { MAX_ITEMS = 64 };

/* What the reference puts into one tensor for all media of a prompt: ours one after the other along the first dimension, the others padded to the
 * largest with zeros. */
typedef struct assembled { float *data; int64_t count, last; } assembled;

static void copy_padded(const processed *p, const float *in, const int64_t *largest, assembled *out, int64_t first)
{
    int64_t n = 1, stride[5];
    for (int d = 0; d < p->dims; d++) n *= p->dim[d];
    int64_t width = 1;
    for (int d = p->dims - 1; d >= 0; d--) stride[d] = width, width *= d ? largest[d] : 1;
    for (int64_t i = 0; i < n; i++) {
        int64_t rest = i, at = first;
        for (int d = p->dims - 1; d >= 0; d--) at += rest % p->dim[d] * stride[d], rest /= p->dim[d];
        out->data[at] = in[i];
    }
}

/* All along the last dimension. */
static bool assemble_end_to_end(const processed *const *item, int n, assembled *out)
{
    int64_t lines = 1, at = 0;
    for (int d = 0; d + 1 < item[0]->dims; d++) lines *= item[0]->dim[d];
    for (int i = 0; i < n; i++) out->last += item[i]->dim[item[i]->dims - 1];
    out->count = lines * out->last;
    out->data = MEM_ARRAY((size_t)out->count + 1, float);
    for (int i = 0; i < n && out->data; i++) {
        int64_t columns = item[i]->dim[item[i]->dims - 1], size = (int64_t)dtype_size(item[i]->type);
        for (int64_t k = 0; k < lines; k++)
            convert_to_f32((const char *)item[i]->data + k * columns * size, item[i]->type, columns, out->data + k * out->last + at);
        at += columns;
    }
    return out->data != NULL;
}

static bool assemble(const prompt *p, const char *key, assembled *out)
{
    const processed *item[MAX_ITEMS];
    int n = 0;
    int64_t largest[5] = {0}, rows = 0, row = 1, before = 0;
    *out = (assembled){0};
    for (int i = 0; i < p->n_media && n < MAX_ITEMS; i++) {
        const processed *t = media_input_find(p->media[i], key);
        if (!t || (n && t->dims != item[0]->dims) || t->dims < 1) continue;
        item[n++] = t;
        rows += t->dim[0];
        for (int d = 1; d < t->dims; d++)
            if (t->dim[d] > largest[d]) largest[d] = t->dim[d];
    }
    if (!n) return false;
    if (item[0]->end_to_end) return assemble_end_to_end(item, n, out);
    for (int d = 1; d < item[0]->dims; d++) row *= largest[d];
    out->count = rows * row;
    out->last = item[0]->dims > 1 ? largest[item[0]->dims - 1] : 0;
    out->data = MEM_ARRAY((size_t)out->count + 1, float);
    for (int i = 0, first = 0; i < n && out->data; first += (int)item[i++]->dim[0]) {
        int64_t count = 1;
        for (int d = 0; d < item[i]->dims; d++) count *= item[i]->dim[d];
        float *floats = mem_aligned((size_t)(count ? count : 1) * sizeof *floats);
        if (!floats) return false;
        convert_to_f32(item[i]->data, item[i]->type, count, floats);
        for (int64_t k = 0; k < count; k++)
            if (floats[k] >= 0) floats[k] += (float)before;
        before += item[i]->span;
        copy_padded(item[i], floats, largest, out, first * row);
        mem_free(floats);
    }
    return out->data != NULL;
}

/* `key`.sample keeps elements 0, s, 2s ... of the flattened tensor: s = count / 64, 64 at most; or all with a given s ("samples": {key: {tensor, stride}}). */
static void take_sample(assembled *a, int64_t stride)
{
    int64_t step = stride > 0 ? stride : a->count / 64 > 1 ? a->count / 64 : 1, n = 0;
    for (int64_t i = 0; i < a->count && (stride > 0 || n < 64); i += step, n++) a->data[n] = a->data[i];
    a->count = n;
    a->last = 0;
}

/* Goldens may leave out the rows that pad a picture to its largest size: ours must be constant there. */
static void drop_padding(assembled *a, const stored_tensor *golden)
{
    int64_t n = golden_count(golden);
    if (golden->dims != 2 || a->last != golden->dim[1] || n >= a->count) return;
    for (int64_t i = n; i < a->count; i++)
        if (a->data[i] != a->data[n]) return;
    a->count = n;
}

/* How far one level of 256 is after the processor's normalization. */
static double pixel_level(const vlm_model *m)
{
    config *c = m->processor;
    double std[16], least = 1;
    int n = config_bool(c, "image_processor.do_normalize", true) ? config_numbers(c, "image_processor.image_std", std, 16) : 0;
    for (int i = 0; i < n; i++) least = i && least < std[i] ? least : std[i];
    return config_number(c, "image_processor.rescale_factor", 1.0 / 255) / (least > 0 ? least : 1);
}

static bool all_ones(const stored_tensor *golden)
{
    float *values = golden_floats(golden);
    bool all = values != NULL;
    for (int64_t i = 0; all && i < golden_count(golden); i++) all = values[i] == 1;
    mem_free(values);
    return all;
}

static void check_processed(check_report *r, const vlm_model *m, const check_case *c, const prompt *p, const char *key, const stored_tensor *golden,
                            int64_t stride)
{
    char name[96], where[200];
    size_t n = strlen(key);
    bool sample = stride > 0 || (n > 7 && !strcmp(key + n - 7, ".sample")), whole = dtype_size(golden->type) == 8 || golden->type == DT_I32 || golden->type == DT_BOOL;
    snprintf(name, sizeof name, "%.*s", (int)(sample && stride <= 0 ? n - 7 : n), key);
    snprintf(where, sizeof where, "%s/%s", c->name, key);
    assembled a;
    if (strstr(name, "attention_mask") && all_ones(golden)) return;   /* it masks nothing: no family need make it */
    if (!assemble(p, name, &a)) {                                     /* what a family forgets to give must not pass unseen */
        check_same(r, STAGE_PROCESSOR, false, "case %s: the processor gave no %s", c->name, name);
    } else {
        if (sample) take_sample(&a, stride);
        else drop_padding(&a, golden);
        tolerance t = {.bound = whole ? 0 : golden->type == DT_F32 ? 1e-5 : 1e-3};
        if (!whole && !strncmp(name, "pixel_values", 12)) t.level = pixel_level(m);
        else if (!whole) t.bound = 1e-4;
        float *want = golden_floats(golden);
        if (a.count != golden_count(golden))
            check_same(r, STAGE_PROCESSOR, false, "%s has %lld elements, %lld were expected", where, (long long)a.count, (long long)golden_count(golden));
        else if (want)
            check_numbers(r, STAGE_PROCESSOR, a.data, want, a.count, a.last, t, where);
        else
            check_same(r, STAGE_PROCESSOR, false, "%s: out of memory", where);
        mem_free(want);
    }
    mem_free(a.data);
}

static bool is_later(const char *key)
{
    static const char *const later[] = {"mm_token_type_ids", "moe_mm_token_type_ids", "token_type_ids", "labels", "position_ids", "hidden_last", "logits", "cross_attention_mask",
                                        "cross_attention_states", "encoder_output", "davit"};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (!strcmp(key, later[i])) return true;
    if (strstr(key, "_projectors.")) return true;                     /* for who looks for a difference inside an encoder */
    return strstr(key, "_deepstack") || (strstr(key, "_features") && strncmp(key, "input_", 6));
}

void check_prompt(check_report *r, const vlm_model *m, const check_suite *s, check_case *c)
{
    prompt p = {0};
    vlm_error error = {0};
    if (!case_prompt(m, s, c, &p, &error)) {
        check_same(r, STAGE_PROMPT, false, "case %s: %s", c->name, error.message);
        return;
    }
    check_prompt_text(r, m, c, &p);
    c->memory_rows = p.memory.rows;
    check_ids(r, m, c, &p);
    check_spans(r, s, c, &p);
    check_sight(r, s, c, &p);
    const char *key;
    json_t *name;
    json_object_foreach(json_object_get(c->json, "tensors"), key, name) {
        const stored_tensor *golden = is_later(key) ? NULL : suite_golden(s, c, key);
        if (!golden) continue;
        check_processed(r, m, c, &p, key, golden, 0);
    }
    json_object_foreach(json_object_get(c->json, "samples"), key, name) {
        const char *sampled = json_string_value(json_object_get(name, "tensor"));
        const stored_tensor *golden = sampled && s->golden ? checkpoint_find(s->golden, sampled) : NULL;
        int64_t stride = json_integer_value(json_object_get(name, "stride"));
        if (golden && stride > 0) check_processed(r, m, c, &p, key, golden, stride);
        else check_same(r, STAGE_PROCESSOR, false, "case %s: no sample of %s in golden.safetensors", c->name, key);
    }
    check_positions(r, m, s, c, &p);
    prompt_free(&p);
}

void check_answers(check_report *r, const vlm_model *m, const check_suite *s)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(s->root, "post_process"), i, one) {
        const json_t *size = json_object_get(one, "image_size"), *want = json_object_get(one, "result");
        const char *task = json_string_value(json_object_get(one, "task")), *text = json_string_value(json_object_get(one, "text"));
        json_t *got = m->arch->answer && task && text ? m->arch->answer(m, task, text, (int)json_integer_value(json_array_get(size, 0)),
                                                                        (int)json_integer_value(json_array_get(size, 1))) : NULL;
        char *shown = got ? json_dumps(got, JSON_COMPACT) : NULL, *expected = json_dumps(want, JSON_COMPACT);
        check_same(r, STAGE_ANSWER, got && json_equal(got, want), "answer %zu: %.150s, %.150s was expected", i, shown ? shown : "nothing", expected ? expected : "");
        free(shown);
        free(expected);
        json_decref(got);
    }
}

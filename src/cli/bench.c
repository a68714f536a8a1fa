/* bench.c - `vlm bench`: how fast a model is on this machine: load, prefill, decode (alone and batched), encoding a picture; and with --limits
 * what the machine could do, so that speeds can be read as shares. With --dummy-weights a bare config.json is enough.
 * Every figure is the best of --repeat runs: neighbours on a shared machine only ever take away. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/mem.h"
#include "cli/batch.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "engine/engine.h"
#include "tensor/cpu/limits.h"

typedef struct bench_options {
    model_flags model;
    const char *dummy, *format, *image;
    int64_t prompt_tokens, generate_tokens, batch, repeat;
    bool limits, json;
} bench_options;

#define FIELD(name) offsetof(bench_options, name)
static const option options_table[] = {
    {OPT_INT, "prompt-tokens", "N", "length of the prompt (512)", FIELD(prompt_tokens), NULL, 0},
    {OPT_INT, "generate-tokens", "N", "tokens decoded (64)", FIELD(generate_tokens), NULL, 0},
    {OPT_INT, "batch", "N", "also decode N sequences at once (0: not)", FIELD(batch), NULL, 0},
    {OPT_TEXT, "image", "WxH", "also process and encode a picture of this size", FIELD(image), NULL, 0},
    {OPT_INT, "repeat", "N", "runs; the best counts (3)", FIELD(repeat), NULL, 0},
    {OPT_SWITCH, "limits", NULL, "also measure what the machine can do", FIELD(limits), NULL, 0},
    {OPT_TEXT, "dummy-weights", "CONFIG", "a config.json (or its folder): random weights of that shape", FIELD(dummy), NULL, 0},
    {OPT_TEXT, "format", "TYPE", "of the random weights (bf16)", FIELD(format), "bf16|f16|f32|q8|q4", 0},
    MODEL_OPTIONS(bench_options, model),
    {OPT_SWITCH, "json", NULL, "one JSON object", FIELD(json), NULL, 0},
    {0},
};

static void defaults(void *memory)
{
    bench_options *o = memory;
    model_flags_default(&o->model);
    o->prompt_tokens = 512;
    o->generate_tokens = 64;
    o->repeat = 3;
    o->format = "bf16";
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- a prompt of random ids: no text, no template ---- */

static bool is_media_id(const vlm_model *m, int32_t id)
{
    for (int kind = MEDIA_IMAGE; m->arch->media_token && kind <= MEDIA_AUDIO; kind++)
        if (m->arch->media_token(m, (media_kind)kind) == id) return true;
    return m->arch->also_media && m->arch->also_media(m, id);
}

static bool random_prompt(const vlm_model *m, int n, uint32_t seed, prompt *out)
{
    *out = (prompt){0};
    for (int i = 0; i < n; i++) {
        int32_t id;
        do {
            seed = seed * 1664525u + 1013904223u;
            id = (int32_t)((seed >> 8) % (uint32_t)m->vocab);
        } while (is_media_id(m, id));
        if (!ids_add(&out->ids, id)) return false;
    }
    for (int a = 0; a < m->rope_axes; a++) {
        if (!(out->rope[a] = MEM_ARRAY((size_t)n, int32_t))) return false;
        for (int i = 0; i < n; i++) out->rope[a][i] = i;
    }
    out->rope_next = n;
    out->text = mem_strdup("");
    out->expanded = mem_strdup("");
    return out->text && out->expanded;
}

static vlm_request *submit(vlm_engine *engine, const vlm_model *m, int n, int tokens, uint32_t seed, vlm_error *error)
{
    prompt p;
    vlm_request_options request = vlm_request_options_default();
    request.prompt = "";
    request.max_tokens = tokens;
    request.ignore_eos = 1;
    request.sampling.temperature = 0;
    engine_extra extra = {.prompt = &p};
    if (random_prompt(m, n, seed, &p)) return engine_submit(engine, &request, &extra, error);
    prompt_free(&p);
    err_memory(error, (size_t)n * 4);
    return NULL;
}

/* ---- measurements ---- */

typedef struct figures {
    double load, prefill, decode, batched, process, encode;      /* seconds of load, process, encode; tokens / s of the rest */
    int image_tokens;
} figures;

static bool run_once(vlm_engine *engine, const vlm_model *m, const bench_options *o, int sequences, figures *f, vlm_error *error)
{
    vlm_request *requests[256] = {0};
    bool ok = true;
    double done = 0, begin = 0, end = 0;
    for (int i = 0; i < sequences && ok; i++)
        ok = (requests[i] = submit(engine, m, sequences > 1 ? 16 : (int)o->prompt_tokens, (int)o->generate_tokens, (uint32_t)(i + 1), error)) != NULL;
    for (int i = 0; i < sequences && ok; i++) {
        vlm_result result = {0};
        double waited = seconds();
        ok = vlm_request_collect(requests[i], NULL, NULL, &result, error) == VLM_OK;
        if (!i) begin = waited;
        end = seconds();
        const vlm_usage *u = &result.usage;
        done += u->completion_tokens;
        if (ok && sequences == 1 && u->prefill_seconds > 0 && o->prompt_tokens / u->prefill_seconds > f->prefill) f->prefill = (double)o->prompt_tokens / u->prefill_seconds;
        if (ok && sequences == 1 && u->decode_seconds > 0 && (u->completion_tokens - 1) / u->decode_seconds > f->decode)
            f->decode = (u->completion_tokens - 1) / u->decode_seconds;
        vlm_result_clear(&result);
    }
    if (ok && sequences > 1 && done / (end - begin) > f->batched) f->batched = done / (end - begin);
    for (int i = 0; i < sequences; i++) vlm_request_free(requests[i]);
    return ok;
}

static bool encode_once(vlm_model *m, const media_input *in, figures *f, vlm_error *error)
{
    arena memory = {.block_size = 1 << 20}, scratch = {.block_size = 1 << 20};
    run r = {.dev = &m->dev, .scratch = &scratch};
    encode_job job = {.in = in, .memory = &memory};
    double begin = seconds();
    pool_enter(m->dev.pool);
    bool ok = m->arch->encode_start(&r, m, &job);
    while (ok && run_ok(&r) && job.stage < job.stages) {
        arena_reset(&scratch);
        ok = m->arch->encode(&r, m, &job);
    }
    pool_leave(m->dev.pool);
    double took = seconds() - begin;
    if (f->encode == 0 || took < f->encode) f->encode = took;
    f->image_tokens = in->tokens;
    if (r.failed && error) *error = r.error;
    arena_free(&memory);
    arena_free(&scratch);
    return ok && !r.failed;
}

static bool measure_image(vlm_model *m, const bench_options *o, figures *f, vlm_error *error)
{
    int w = 0, h = 0;
    if (sscanf(o->image, "%dx%d", &w, &h) != 2 || w < 1 || h < 1 || (int64_t)w * h > 100000000)
        return err_set(error, VLM_INVALID, "--image takes a size such as 1024x768, not '%s'", o->image);
    if (!m->arch->encode || !(m->takes & TAKES_IMAGE)) return err_set(error, VLM_UNSUPPORTED, "the model takes no pictures");
    media_item item = {.kind = MEDIA_IMAGE, .image = {w, h, mem_new((size_t)w * (size_t)h, 3)}};
    if (!item.image.rgb) return err_memory(error, (size_t)w * (size_t)h * 3);
    for (size_t i = 0; i < (size_t)w * (size_t)h * 3; i++) item.image.rgb[i] = (uint8_t)(i * 2654435761u >> 13);
    bool ok = true;
    for (int64_t i = 0; i < o->repeat && ok; i++) {
        media_input *in = MEM_NEW(media_input);
        double begin = seconds();
        ok = in ? m->arch->process(m, &item, NULL, in, error) : err_memory(error, sizeof *in);
        double took = seconds() - begin;
        if (f->process == 0 || took < f->process) f->process = took;
        ok = ok && encode_once(m, in, f, error);
        media_input_free(in);
    }
    image_free(&item.image);
    return ok;
}

static bool measure(vlm_model *m, const bench_options *o, figures *f, vlm_error *error)
{
    vlm_engine_options options = vlm_engine_options_default();
    options.prefix_cache = 0;
    vlm_engine *engine = vlm_engine_new(m, &options, error);
    bool ok = engine != NULL;
    for (int64_t i = 0; i < o->repeat && ok; i++) ok = run_once(engine, m, o, 1, f, error);
    for (int64_t i = 0; i < o->repeat && ok && o->batch > 1; i++) ok = run_once(engine, m, o, (int)o->batch, f, error);
    vlm_engine_free(engine);
    return ok && (!o->image || measure_image(m, o, f, error));
}

/* ---- output ---- */

static json_t *figures_json(const bench_options *o, const figures *f, const cpu_limits *limits, const vlm_model *m)
{
    vlm_error error;
    char *text = vlm_model_info(m, &error);
    json_t *info = text ? json_loads(text, 0, NULL) : json_object();
    vlm_free(text);
    json_t *out = json_pack("{s:o, s:f, s:f, s:f, s:I, s:I, s:f}", "model", info, "load_seconds", f->load, "prefill_tokens_per_second", f->prefill,
                            "decode_tokens_per_second", f->decode, "prompt_tokens", (json_int_t)o->prompt_tokens, "generate_tokens",
                            (json_int_t)o->generate_tokens, "peak_memory_bytes", peak_memory());
    if (o->batch > 1) json_object_set_new(out, "batch", json_pack("{s:I, s:f}", "sequences", (json_int_t)o->batch, "tokens_per_second", f->batched));
    if (o->image)
        json_object_set_new(out, "image", json_pack("{s:s, s:i, s:f, s:f}", "size", o->image, "tokens", f->image_tokens, "process_seconds", f->process,
                                                    "encode_seconds", f->encode));
    if (o->limits)
        json_object_set_new(out, "limits", json_pack("{s:f, s:f, s:f, s:f}", "read_bytes_per_second", limits->read_bytes, "f32_flops", limits->f32_flops,
                                                     "bf16_flops", limits->bf16_flops, "int8_ops", limits->int8_ops));
    return out;
}

static void print_figures(const bench_options *o, const figures *f, const cpu_limits *limits, const vlm_model *m)
{
    json_t *out = figures_json(o, f, limits, m);
    if (o->json) {
        print_json(out);
        return;
    }
    json_t *info = json_object_get(out, "model");
    double bytes = (double)json_integer_value(json_object_get(info, "weight_bytes"));
    printf("%s: %.2f G parameters, %.2f GB, %s, keys and values %s, %s, %d threads\n", json_string_value(json_object_get(info, "title")),
           (double)json_integer_value(json_object_get(info, "parameters")) / 1e9, bytes / 1e9, json_string_value(json_object_get(info, "precision")),
           json_string_value(json_object_get(info, "kv_dtype")), json_string_value(json_object_get(info, "cpu")),
           (int)json_integer_value(json_object_get(info, "threads")));
    printf("load     %10.3f s\n", f->load);
    printf("prefill  %10.1f tokens/s  (%d tokens)\n", f->prefill, (int)o->prompt_tokens);
    printf("decode   %10.1f tokens/s\n", f->decode);
    if (o->batch > 1) printf("batched  %10.1f tokens/s  (%d sequences)\n", f->batched, (int)o->batch);
    if (o->image) printf("picture  %10.3f s processing, %.3f s encoding  (%s: %d tokens)\n", f->process, f->encode, o->image, f->image_tokens);
    printf("memory   %10.2f GB at most\n", peak_memory() / 1e9);
    if (o->limits)
        printf("machine  %10.1f GB/s read, %.0f GFLOP/s f32, %.0f bf16, %.0f Gop/s int8\n", limits->read_bytes / 1e9, limits->f32_flops / 1e9,
               limits->bf16_flops / 1e9, limits->int8_ops / 1e9);
    json_decref(out);
}

static vlm_model *load(const bench_options *o, figures *f, int *exit_code)
{
    double begin = seconds();
    vlm_model *m;
    if (!o->dummy) {
        m = model_flags_load(&o->model, exit_code);
    } else {
        vlm_error error = {0};
        vlm_load_options options = vlm_load_options_default();
        options.threads = (int)o->model.threads;
        options.precision = o->model.precision;
        options.kv_dtype = o->model.kv_dtype;
        options.dummy_weights = 1;
        options.dummy_format = o->format;
        if (interactive()) options.progress = progress_bar;
        m = vlm_load(o->dummy, &options, &error);
        progress_clear();
        if (!m) *exit_code = report(&error);
    }
    f->load = seconds() - begin;
    return m;
}

static int run_bench(const command *self, void *memory, texts words)
{
    bench_options *o = memory;
    if (words.count == 1 && !o->model.model) o->model.model = words.item[0];
    else if (words.count) return usage_error("bench: '%s' is no option", words.item[words.count - 1]);
    if (o->prompt_tokens < 1 || o->generate_tokens < 2 || o->batch > 256 || o->repeat < 1)
        return usage_error("bench: --prompt-tokens and --repeat are at least 1, --generate-tokens at least 2, --batch at most 256");
    figures f = {0};
    cpu_limits limits = {0};
    vlm_error error = {0};
    int exit_code = 0;
    vlm_model *m = load(o, &f, &exit_code);
    if (!m) return exit_code;
    if (!measure(m, o, &f, &error) || (o->limits && !cpu_measure_limits(&m->dev, &limits, &error))) exit_code = report(&error);
    else print_figures(o, &f, &limits, m);
    vlm_model_free(m);
    return exit_code;
}

const command command_bench = {
    .name = "bench", .help = "Measure load, prefill, decode and encoding, and what the machine could do", .usage = "[options] [DIR]",
    .options = options_table, .size = sizeof(bench_options), .defaults = defaults, .run = run_bench,
};

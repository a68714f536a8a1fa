/* metrics.c - see metrics.h. */
#include "server/server_internal.h"

#include <math.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/pages.h"

/* ---- adding ---- */

static const double seconds_limits[METRIC_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640};
static const double token_limits[METRIC_BUCKETS] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1500, 2000, 3000, 4000, 5000, 8000, 10000, 16000, 20000, 32000, 50000, 64000, 100000, 128000};

static void observe(histogram *h, const double *limits, double value)
{
    int i = 0;
    while (i < METRIC_BUCKETS && value > limits[i]) i++;
    atomic_fetch_add_explicit(&h->bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->micro_sum, (uint64_t)(value < 0 ? 0 : value * 1e6), memory_order_relaxed);
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
}

static void add(atomic_uint_fast64_t *counter, uint64_t n) { atomic_fetch_add_explicit(counter, n, memory_order_relaxed); }

void metrics_call(metrics *m, const call *c)
{
    for (int i = 0; i < c->n; i++) {
        const choice *from = &c->choices[i];
        const vlm_usage *u = &from->usage;
        add(&m->requests, 1);
        add(&m->prompt_tokens_total, (uint64_t)u->prompt_tokens);
        add(&m->cached_tokens_total, (uint64_t)u->cached_tokens);
        add(&m->generation_tokens_total, (uint64_t)u->completion_tokens);
        add(&m->media_items, (uint64_t)u->media_items);
        add(&m->media_cached, (uint64_t)u->media_cached);
        add(&m->preemptions, (uint64_t)u->preemptions);
        const char *reason = from->finish_reason;
        if (!reason) { add(&m->failed, 1); continue; }
        add(&m->finished[!strcmp(reason, "stop") ? 0 : !strcmp(reason, "length") ? 1 : !strcmp(reason, "tool_calls") ? 2 : 3], 1);
        observe(&m->end_to_end, seconds_limits, u->total_seconds);
        observe(&m->queue, seconds_limits, u->queue_seconds);
        observe(&m->prefill, seconds_limits, u->prefill_seconds);
        observe(&m->decode, seconds_limits, u->decode_seconds);
        if (u->completion_tokens > 0) observe(&m->first_token, seconds_limits, u->first_token_seconds);
        if (u->completion_tokens > 1) observe(&m->per_token, seconds_limits, u->decode_seconds / (u->completion_tokens - 1));
        observe(&m->prompt_tokens, token_limits, u->prompt_tokens);
        observe(&m->answer_tokens, token_limits, u->completion_tokens);
    }
}

void metrics_refused(metrics *m) { add(&m->refused, 1); }

/* ---- reading ---- */

static void write_histogram(buf *out, const char *name, const char *help, const char *model, const histogram *h, const double *limits)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    uint64_t sum = 0;
    for (int i = 0; i <= METRIC_BUCKETS; i++) {
        sum += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        if (i < METRIC_BUCKETS) buf_addf(out, "%s_bucket{model_name=\"%s\",le=\"%g\"} %llu\n", name, model, limits[i], (unsigned long long)sum);
        else buf_addf(out, "%s_bucket{model_name=\"%s\",le=\"+Inf\"} %llu\n", name, model, (unsigned long long)sum);
    }
    buf_addf(out, "%s_sum{model_name=\"%s\"} %.6f\n%s_count{model_name=\"%s\"} %llu\n", name, model,
             1e-6 * (double)atomic_load_explicit(&h->micro_sum, memory_order_relaxed), name, model,
             (unsigned long long)sum);
}

static void write_one(buf *out, const char *name, const char *type, const char *help, const char *labels, double value)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n%s{%s} %.17g\n", name, help, name, type, name, labels, value);
}

static double number(const json_t *stats, const char *group, const char *name)
{
    return json_number_value(json_object_get(group ? json_object_get(stats, group) : stats, name));
}

/* Sums over the models. */
typedef struct sums { double waiting, running, budget, used, pages; const char *model; } sums;

static void add_engine(void *user, resident *r)
{
    sums *all = user;
    vlm_error error;
    char *text = vlm_engine_stats(r->engine, &error);
    json_t *stats = text ? json_loads(text, 0, NULL) : NULL;
    all->waiting += number(stats, "requests", "queued");
    all->running += number(stats, "requests", "running");
    all->budget += number(stats, "pages", "budget_bytes");
    all->used += number(stats, "pages", "used_bytes");
    uint64_t one = engine_sequence_bytes(r->model, KV_PAGE_TOKENS);
    all->pages += one ? floor(number(stats, "pages", "budget_bytes") / (double)one) : 0;
    if (!all->model) all->model = r->name;
    json_decref(stats);
    vlm_free(text);
}

/* A label's value: backslash, quote and line break are escaped. */
static void label(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (; *text && n + 3 < size; text++) {
        if (*text == '\\' || *text == '"') out[n++] = '\\';
        out[n++] = *text == '\n' ? ' ' : *text;
    }
    out[n] = 0;
}

#define LOAD(name) ((double)atomic_load_explicit(&m->name, memory_order_relaxed))
void metrics_text(server *s, buf *out)
{
    metrics *m = &s->metrics;
    sums all = {0};
    char model[300], labels[400];
    residents_each(s->residents, add_engine, &all);
    label(all.model ? all.model : "", model, sizeof model);
    snprintf(labels, sizeof labels, "model_name=\"%s\"", model);
    write_one(out, "vllm:num_requests_running", "gauge", "Requests in the running batch.", labels, all.running);
    write_one(out, "vllm:num_requests_waiting", "gauge", "Requests that wait.", labels, all.waiting);
    write_one(out, "vllm:kv_cache_usage_perc", "gauge", "Share of key/value pages in use, 0 to 1.", labels, all.budget > 0 ? all.used / all.budget : 0);
    buf_addf(out, "# HELP vllm:cache_config_info Pages.\n# TYPE vllm:cache_config_info gauge\nvllm:cache_config_info{block_size=\"%.0f\",num_gpu_blocks=\"%.0f\"} 1\n",
             (double)KV_PAGE_TOKENS, all.pages);
    static const char *const reasons[] = {"stop", "length", "tool_calls", "abort"};
    buf_adds(out, "# HELP vllm:request_success_total Answers by how they ended.\n# TYPE vllm:request_success_total counter\n");
    for (int i = 0; i < 4; i++) buf_addf(out, "vllm:request_success_total{%s,finished_reason=\"%s\"} %.0f\n", labels, reasons[i], LOAD(finished[i]));
    write_one(out, "vllm:prompt_tokens_total", "counter", "Tokens of prompts.", labels, LOAD(prompt_tokens_total));
    write_one(out, "vllm:generation_tokens_total", "counter", "Tokens of answers.", labels, LOAD(generation_tokens_total));
    write_one(out, "vllm:prefix_cache_queries_total", "counter", "Prompt tokens looked up in the prefix cache.", labels, LOAD(prompt_tokens_total));
    write_one(out, "vllm:prefix_cache_hits_total", "counter", "... of which were found.", labels, LOAD(cached_tokens_total));
    write_one(out, "vllm:mm_cache_queries_total", "counter", "Media looked up in the vision cache.", labels, LOAD(media_items));
    write_one(out, "vllm:mm_cache_hits_total", "counter", "... of which were found.", labels, LOAD(media_cached));
    write_one(out, "vllm:num_preemptions_total", "counter", "Requests that gave up their pages for a while.", labels, LOAD(preemptions));
    const struct { const char *name, *help; const histogram *h; const double *limits; } table[] = {
        {"vllm:time_to_first_token_seconds", "From arrival to the first token.", &m->first_token, seconds_limits},
        {"vllm:inter_token_latency_seconds", "Mean time between tokens of a request.", &m->per_token, seconds_limits},
        {"vllm:time_per_output_token_seconds", "Mean time between tokens of a request.", &m->per_token, seconds_limits},
        {"vllm:request_time_per_output_token_seconds", "Mean time between tokens of a request.", &m->per_token, seconds_limits},
        {"vllm:e2e_request_latency_seconds", "From arrival to the end.", &m->end_to_end, seconds_limits},
        {"vllm:request_queue_time_seconds", "Waiting to run.", &m->queue, seconds_limits},
        {"vllm:request_prefill_time_seconds", "Computing the prompt.", &m->prefill, seconds_limits},
        {"vllm:request_decode_time_seconds", "From first to last token.", &m->decode, seconds_limits},
        {"vllm:request_prompt_tokens", "Tokens of a prompt.", &m->prompt_tokens, token_limits},
        {"vllm:request_generation_tokens", "Tokens of an answer.", &m->answer_tokens, token_limits}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) write_histogram(out, table[i].name, table[i].help, model, table[i].h, table[i].limits);
    write_one(out, "vlm_requests_total", "counter", "Requests that were run.", labels, LOAD(requests));
    write_one(out, "vlm_requests_failed_total", "counter", "... that ended with an error.", labels, LOAD(failed));
    write_one(out, "vlm_requests_refused_total", "counter", "Requests answered with an error at once.", labels, LOAD(refused));
    write_one(out, "vlm_http_connections", "gauge", "Open connections.", labels, http_connections(s->http));
}

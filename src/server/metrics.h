/* metrics.h - counters and histograms of the server, as Prometheus text. Names are vLLM's ("vllm:..."), which routers and dashboards read, and
 * beside them our own ("vlm_..."). Lock-free: every answer adds, a scrape reads. */
#ifndef VLM_SERVER_METRICS_H
#define VLM_SERVER_METRICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/mem.h"

struct call;
struct server;

enum { METRIC_BUCKETS = 24 };
typedef struct histogram { atomic_uint_fast64_t bucket[METRIC_BUCKETS + 1]; atomic_uint_fast64_t micro_sum, count; } histogram;

typedef struct metrics {
    histogram first_token, per_token, end_to_end, queue, prefill, decode, prompt_tokens, answer_tokens;
    atomic_uint_fast64_t prompt_tokens_total, cached_tokens_total, generation_tokens_total, media_items, media_cached, preemptions;
    atomic_uint_fast64_t finished[4];      /* stop, length, tool_calls, abort */
    atomic_uint_fast64_t failed, requests, refused;
} metrics;

/* A call has ended. */
void metrics_call(metrics *m, const struct call *c);
/* A request was answered at once with an error. */
void metrics_refused(metrics *m);
/* All of it as text/plain; version=0.0.4. */
void metrics_text(struct server *s, buf *out);

#endif

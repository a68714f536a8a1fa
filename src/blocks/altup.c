/* altup.c - see altup.h. What mixes streams is done row by row here: the factors are a handful for each token. */
#include "blocks/altup.h"

#include <math.h>

#include "base/thread.h"

enum { GRAIN = 4 };

void altup_bind(const altup_spec *s, altup *w, binder *b, int64_t hidden)
{
    for (int i = 0; i + 1 < s->streams; i++) {
        bind_linear(b, &w->begin[i], hidden, hidden, "altup_projections.%d", i);
        bind_linear(b, &w->end[i], hidden, hidden, "altup_unembed_projections.%d", i);
    }
}

void altup_bind_layer(const altup_spec *s, altup_layer *w, binder *b, int64_t hidden, int i)
{
    int64_t n = s->streams;
    bind_linear(b, &w->router, n, hidden, "layers.%d.altup.modality_router", i);
    bind_vector(b, &w->router_norm, hidden, "layers.%d.altup.router_norm.weight", i);
    bind_linear(b, &w->predict, n * n, n, "layers.%d.altup.prediction_coefs", i);
    bind_linear(b, &w->correct, n, n, "layers.%d.altup.correction_coefs", i);
    if (s->scaled) bind_vector(b, &w->output_scale, hidden, "layers.%d.altup.correct_output_scale", i);
    bind_linear(b, &w->left, s->laurel, hidden, "layers.%d.laurel.linear_left", i);
    bind_linear(b, &w->right, hidden, s->laurel, "layers.%d.laurel.linear_right", i);
    bind_vector(b, &w->laurel_norm, hidden, "layers.%d.laurel.post_laurel_norm.weight", i);
}

tensor altup_stream(const altup_spec *s, tensor x, int stream)
{
    int64_t hidden = x.cols / s->streams;
    return x.data ? tensor_cols(x, stream * hidden, hidden) : x;           /* no views of what is not there */
}

/* ---- in and out --------------------------------------------------------------------------------------------------- */

static float mean_square(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return (float)(sum / (double)n);
}

/* x is scaled to the magnitude of `like`, row by row. */
static void match(run *r, tensor x, tensor like)
{
    tensor factor = run_tensor(r, x.rows, 1);
    for (int64_t t = 0; run_ok(r) && t < x.rows; t++)
        *tensor_row(factor, t) = sqrtf(mean_square(tensor_row(like, t), like.cols)) / sqrtf(fmaxf(mean_square(tensor_row(x, t), x.cols), 1e-5f));
    op_scale_rows(r, x, factor);
}

tensor altup_begin(run *r, const altup_spec *s, const altup *w, tensor x)
{
    tensor out = run_zeros(r, x.rows, x.cols * s->streams);
    if (!run_ok(r)) return out;
    op_add_inplace(r, altup_stream(s, out, 0), x);
    for (int i = 1; i < s->streams; i++) {
        tensor y = altup_stream(s, out, i);
        op_linear_to(r, y, x, &w->begin[i - 1], NULL);
        match(r, y, x);
    }
    return out;
}

tensor altup_end(run *r, const altup_spec *s, const altup *w, tensor x)
{
    tensor first = altup_stream(s, x, 0), out = run_zeros(r, x.rows, first.cols);
    if (!run_ok(r)) return out;
    op_add_inplace(r, out, first);
    for (int i = 1; i < s->streams; i++) {
        tensor y = op_linear(r, altup_stream(s, x, i), &w->end[i - 1], NULL);
        match(r, y, first);
        op_add_inplace(r, out, y);
    }
    op_scale(r, out, 1.0f / (float)s->streams, NULL);
    return out;
}

/* ---- a layer ------------------------------------------------------------------------------------------------------ */

/* tanh(router(norm x / hidden)) [n, streams] */
static tensor modalities(run *r, const altup_layer *w, float eps, tensor x)
{
    tensor h = op_rmsnorm(r, x, w->router_norm, 0, eps);
    op_scale(r, h, 1.0f / (float)x.cols, NULL);
    h = op_linear(r, h, &w->router, NULL);
    op_activate(r, h, ACT_TANH);
    return h;
}

typedef struct mix_job { tensor x, y, factor; int streams, active; } mix_job;

static void guess_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const mix_job *j = arg;
    int n = j->streams;
    int64_t hidden = j->x.cols / n;
    for (int64_t t = begin; t < end; t++) {
        const float *factor = tensor_row(j->factor, t);            /* [to][from] */
        float *x = tensor_row(j->x, t), old[ALTUP_MAX_STREAMS];
        for (int64_t c = 0; c < hidden; c++) {
            for (int from = 0; from < n; from++) old[from] = x[from * hidden + c];
            for (int to = 0; to < n; to++) {
                float sum = 0;
                for (int from = 0; from < n; from++) sum += old[from] * factor[to * n + from];
                x[to * hidden + c] = old[to] + sum;
            }
        }
    }
}

void altup_guess(run *r, const altup_spec *s, const altup_layer *w, float eps, tensor x)
{
    tensor factor = op_linear(r, modalities(r, w, eps, altup_stream(s, x, s->active)), &w->predict, NULL);
    mix_job j = {.x = x, .factor = factor, .streams = s->streams};
    if (run_ok(r)) pool_for(r->dev->pool, x.rows, GRAIN, guess_rows, &j);
}

static void correct_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const mix_job *j = arg;
    int64_t hidden = j->y.cols;
    for (int64_t t = begin; t < end; t++) {
        const float *factor = tensor_row(j->factor, t), *y = tensor_row(j->y, t);
        float *x = tensor_row(j->x, t), *active = x + j->active * hidden;
        for (int64_t c = 0; c < hidden; c++) {
            float news = y[c] - active[c];
            for (int i = 0; i < j->streams; i++) x[i * hidden + c] += news * (factor[i] + 1);
        }
    }
}

void altup_correct(run *r, const altup_spec *s, const altup_layer *w, float eps, tensor x, tensor y)
{
    mix_job j = {.x = x, .y = y, .streams = s->streams, .active = s->active};
    j.factor = op_linear(r, modalities(r, w, eps, y), &w->correct, NULL);
    if (run_ok(r)) pool_for(r->dev->pool, x.rows, GRAIN, correct_rows, &j);
}

void altup_add(run *r, const altup_spec *s, tensor x, tensor y)
{
    for (int i = 1; i < s->streams && run_ok(r); i++) op_add_inplace(r, altup_stream(s, x, i), y);
}

tensor altup_laurel(run *r, const altup_layer *w, float eps, tensor h)
{
    tensor y = op_rmsnorm(r, op_linear(r, op_linear(r, h, &w->left, NULL), &w->right, NULL), w->laurel_norm, 0, eps);
    op_add_inplace(r, y, h);
    return y;
}

/* ---- sparse activations ------------------------------------------------------------------------------------------- */

typedef struct keep_job { tensor x; float deviations; } keep_job;

static void keep_rows(void *arg, int64_t begin, int64_t end, int thread)
{
    const keep_job *j = arg;
    int64_t n = j->x.cols;
    for (int64_t t = begin; t < end; t++) {
        float *x = tensor_row(j->x, t);
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < n; i++) sum += x[i];
        double mean = sum / (double)n;
        for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        float cutoff = (float)mean + (float)sqrt(squares / (double)n) * j->deviations;
        for (int64_t i = 0; i < n; i++) x[i] = fmaxf(x[i] - cutoff, 0);
    }
}

void keep_outstanding(run *r, tensor x, float deviations)
{
    keep_job j = {x, deviations};
    if (run_ok(r)) pool_for(r->dev->pool, x.rows, 1, keep_rows, &j);
}

float normal_quantile(double share)
{
    double low = -10, high = 10;
    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;
        if (0.5 * erfc(-middle / sqrt(2)) < share) low = middle; else high = middle;
    }
    return (float)high;
}

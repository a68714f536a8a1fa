/* qwen_tower.c - see qwen_tower.h. */
#include "models/qwen_tower.h"

#include <math.h>

/* ---- weights ------------------------------------------------------------------------------------------------------ */

bool qwen_tower_plan(qwen_tower *t, arena *memory, config *c, int text_hidden)
{
    vit_spec *v = &t->vit;
    if (c->failed) return false;
    v->head_dim = v->hidden / v->heads;
    if (v->hidden % v->heads || v->head_dim % 4) return config_fail(c, VLM_FORMAT, "vision_config: %d columns are no %d heads with 2-D rope", v->hidden, v->heads);
    if (t->out != text_hidden) return config_fail(c, VLM_FORMAT, "vision_config: rows of %d columns, but the decoder's hidden_size is %d", t->out, text_hidden);
    t->layer = arena_alloc(memory, (size_t)t->depth * sizeof *t->layer);
    if (!t->full) t->full = arena_alloc(memory, (size_t)t->depth * sizeof *t->full);
    rope_table axis = {0};
    double theta = config_number(c, "vision_config.rope_theta|vision_config.rope_parameters.rope_theta", 10000);
    if (!c->failed && !(theta > 0)) return config_fail(c, VLM_FORMAT, "vision_config.rope_theta %g", theta);
    if (!t->layer || !t->full || !rope_default(&axis, memory, theta, v->head_dim / 2) || !rope_default(&t->rope, memory, theta, v->head_dim))
        return config_fail(c, VLM_MEMORY, "out of memory");
    for (int i = 0; i < t->rope.half; i++) {                         /* the frequencies once for rows, once for columns; or taking turns, columns first */
        t->rope.inv_freq[i] = t->no_rope ? 0 : axis.inv_freq[v->rope_pairs ? i / 2 : i % axis.half];
        t->rope.axis[i] = v->rope_pairs ? i % 2 == 0 : i >= axis.half;
    }
    return !c->failed;
}

/* Normalised before the merge (columns of a patch) or after it. */
static void bind_merger(const qwen_tower_names *n, const qwen_tower *t, qwen_merger *w, binder *b, bool after, const char *name)
{
    int64_t wide = (int64_t)t->vit.hidden * t->patch.merge * t->patch.merge, normed = after ? wide : t->vit.hidden;
    bind_vector(b, &w->norm, normed, "%s.%s.weight", name, n->norm);
    if (t->vit.layernorm) bind_vector(b, &w->norm_bias, normed, "%s.%s.bias", name, n->norm);
    bind_linear(b, &w->up, wide, wide, "%s.%s", name, n->up);
    bind_vector(b, &w->up_bias, wide, "%s.%s.bias", name, n->up);
    bind_linear(b, &w->down, t->out, wide, "%s.%s", name, n->down);
    bind_vector(b, &w->down_bias, t->out, "%s.%s.bias", name, n->down);
}

void qwen_tower_bind(const qwen_tower_names *names, qwen_tower *t, binder *b)
{
    const patch_spec *p = &t->patch;
    int64_t d = t->vit.hidden;
    const char *embed = names->embed ? names->embed : "patch_embed.proj", *layers = names->layers ? names->layers : "blocks";
    bind_prefix(b, "visual.", "model.visual.", "vision_tower.", "thinker.visual.", "thinker.model.visual.", "vit.", "vision_tower.encoder.", "model.vision_model.", "vision_model.", NULL);
    bind_conv3d(b, &t->embed, d, PATCH_CHANNELS, p->temporal, p->patch, p->patch, "%s", embed);
    bind_vector_optional(b, &t->embed_bias, d, "%s.bias", embed);
    if (t->side) bind_vector(b, &t->positions, ((int64_t)t->side * t->side + t->class_row) * d, "%s.weight", names->positions ? names->positions : "pos_embed");
    if (t->class_row && t->positions) t->positions += d;
    for (int i = 0; i < t->depth && !b->failed; i++) vit_bind_layer(&t->layer[i], &t->vit, b, layers, i, &names->layer);
    if (names->norm) bind_merger(names, t, &t->merger, b, false, "merger");
    for (int i = 0; i < t->levels && !b->failed; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%d", names->deep ? names->deep : "deepstack_merger_list", i);
        bind_merger(names, t, &t->deep[i], b, true, name);
    }
}

/* ---- encoder ------------------------------------------------------------------------------------------------------ */

/* What lives from stage to stage, n patches. "Walked": in the order in which layers see them, windows one after the other. */
typedef struct tower_job {
    int64_t n;
    int height, width;             /* of a frame, in patches */
    tensor patches;                /* [n, values] in the order of the image: the processor's */
    int32_t *place;                /* [n] where a patch is walked, patches counted block by block */
    int32_t *given;                /* [n] ... and counted as the processor gives them */
    int32_t *block;                /* [n / merge^2] which block of the image is walked where */
    int32_t *windows, *frames;     /* where segments begin */
    int n_windows, n_frames;
    tensor cosine, sine;           /* [n, head_dim / 2] as walked */
} tower_job;

static tensor keep(run *r, arena *memory, int64_t rows, int64_t cols)
{
    tensor t = {NULL, DT_F32, rows, cols, cols};
    size_t bytes;
    if (!mem_mul((size_t)rows, (size_t)cols, &bytes) || !mem_mul(bytes, sizeof(float), &bytes) || !(t.data = arena_alloc_raw(memory, bytes)))
        run_fail(r, VLM_MEMORY, "out of memory for an encoder of %lld x %lld", (long long)rows, (long long)cols);
    return t;
}

/* Segments, the walk, and the rope tables along it. */
static void lay_out(run *r, const qwen_tower *t, tower_job *j)
{
    int merge = t->patch.merge, unit = merge * merge, frames = j->n_frames;
    int64_t n = j->n;
    int32_t *row = run_alloc(r, (size_t)n * sizeof *row), *column = run_alloc(r, (size_t)n * sizeof *column);
    int32_t *at_row = run_alloc(r, (size_t)n * sizeof *at_row), *at_column = run_alloc(r, (size_t)n * sizeof *at_column);
    if (!run_ok(r)) return;
    vit_positions(frames, j->height, j->width, merge, row, column);
    for (int f = 0; f <= frames; f++) j->frames[f] = f * j->height * j->width;
    if (t->window) j->n_windows = vit_windows(frames, j->height, j->width, merge, t->window, j->block, j->windows);
    else
        for (int64_t i = 0; i < n / unit; i++) j->block[i] = (int32_t)i;
    for (int64_t i = 0; i < n; i++) {
        int64_t patch = (int64_t)j->block[i / unit] * unit + i % unit;
        int64_t first = patch - patch % ((int64_t)j->height * j->width);            /* of its frame */
        j->place[patch] = (int32_t)i;
        j->given[t->patch.raster ? first + (int64_t)row[patch] * j->width + column[patch] : patch] = (int32_t)i;
        at_row[i] = row[patch];
        at_column[i] = column[patch];
    }
    const int32_t *axes[MAX_ROPE_AXES] = {at_row, at_column, at_column};
    rope_fill(&t->rope, axes, n, j->cosine, j->sine);
}

bool qwen_tower_start(run *r, const qwen_tower *t, encode_job *job)
{
    const processed *pixels = media_input_find(job->in, job->in->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values");
    const int *g = job->in->grid;
    int64_t n = (int64_t)g[0] * g[1] * g[2], blocks = n / (t->patch.merge * t->patch.merge);
    if (!pixels || n < 1 || pixels->dim[0] != n || pixels->dim[1] != t->embed.cols) return run_fail(r, VLM_INTERNAL, "patches do not fit their grid");
    tower_job *j = arena_alloc(job->memory, sizeof *j);
    if (!j) return run_fail(r, VLM_MEMORY, "out of memory");
    *j = (tower_job){.n = n, .height = g[1], .width = g[2], .n_frames = g[0]};
    j->patches = (tensor){pixels->data, DT_F32, n, pixels->dim[1], pixels->dim[1]};
    j->place = arena_alloc(job->memory, (size_t)n * sizeof *j->place);
    j->given = arena_alloc(job->memory, (size_t)n * sizeof *j->given);
    j->block = arena_alloc(job->memory, (size_t)blocks * sizeof *j->block);
    j->windows = arena_alloc(job->memory, (size_t)(blocks + 1) * sizeof *j->windows);
    j->frames = arena_alloc(job->memory, (size_t)(g[0] + 1) * sizeof *j->frames);
    j->cosine = keep(r, job->memory, n, t->rope.half);
    j->sine = keep(r, job->memory, n, t->rope.half);
    job->x = keep(r, job->memory, n, t->vit.hidden);
    job->rows = keep(r, job->memory, blocks * (1 + t->levels), t->out);
    if (!j->place || !j->given || !j->block || !j->windows || !j->frames || !run_ok(r)) return run_fail(r, VLM_MEMORY, "out of memory");
    lay_out(r, t, j);
    job->family = j;
    job->stage = 0;
    job->stages = t->depth;
    job->cost = vit_layer_cost(&t->vit, (double)n, (double)g[1] * g[2] / (t->window ? 4 : 1));
    return run_ok(r);
}

/* Where index i of `size` falls on an axis of `side` learned positions: ends on ends, or its centre. */
static void bilinear(int i, int size, int side, bool centre, int *low, int *high, float *part)
{
    float at = (float)i * (float)(side - 1) / (float)(size > 1 ? size - 1 : 1);
    if (centre) at = fminf(fmaxf(((float)i + 0.5f) * (float)side / (float)size - 0.5f, 0), (float)(side - 1));
    *low = (int)floorf(at);
    *high = *low + 1 < side ? *low + 1 : side - 1;
    *part = at - (float)*low;
}

/* x += the table's rows, bilinear over the frame. */
static void add_positions(const qwen_tower *t, const tower_job *j, tensor x)
{
    int merge = t->patch.merge, unit = merge * merge, across = j->width / merge;
    int64_t d = x.cols, frame = (int64_t)j->height * j->width;
    for (int64_t i = 0; i < j->n; i++) {
        int64_t in_frame = i % frame, block = in_frame / unit;
        int corner = (int)(in_frame % unit), y[2], z[2];
        float v, u;
        bilinear((int)(block / across) * merge + corner / merge, j->height, t->side, t->centres, &y[0], &y[1], &v);
        bilinear((int)(block % across) * merge + corner % merge, j->width, t->side, t->centres, &z[0], &z[1], &u);
        const float *p00 = t->positions + (int64_t)(y[0] * t->side + z[0]) * d, *p01 = t->positions + (int64_t)(y[0] * t->side + z[1]) * d;
        const float *p10 = t->positions + (int64_t)(y[1] * t->side + z[0]) * d, *p11 = t->positions + (int64_t)(y[1] * t->side + z[1]) * d;
        float *out = tensor_row(x, j->place[i]), w00 = (1 - v) * (1 - u), w01 = (1 - v) * u, w10 = v * (1 - u), w11 = v * u;
        for (int64_t c = 0; c < d; c++) out[c] += p00[c] * w00 + p01[c] * w01 + p10[c] * w10 + p11[c] * w11;
    }
}

/* Four neighbours of index i of `size`, sampled at its centre, clamped to the table; torch's grid_sample. */
static void cubic(int i, int size, int side, int *at, float *share)
{
    const float a = -0.75f;
    float unit = ((float)i + 0.5f) / (float)size * 2 - 1, x = ((unit + 1) * (float)side - 1) / 2, low = floorf(x), u = x - low;
    float v = u + 1, w = 1 - u, z = 2 - u;
    share[0] = ((a * v - 5 * a) * v + 8 * a) * v - 4 * a;
    share[1] = ((a + 2) * u - (a + 3)) * u * u + 1;
    share[2] = ((a + 2) * w - (a + 3)) * w * w + 1;
    share[3] = ((a * z - 5 * a) * z + 8 * a) * z - 4 * a;
    for (int k = 0; k < 4; k++) {
        int j = (int)low - 1 + k;
        at[k] = j < 0 ? 0 : j >= side ? side - 1 : j;
    }
}

/* x += the table's rows, bicubic over the frame. */
static void add_positions_cubic(const qwen_tower *t, const tower_job *j, tensor x)
{
    int merge = t->patch.merge, unit = merge * merge, across = j->width / merge;
    int64_t d = x.cols, frame = (int64_t)j->height * j->width;
    for (int64_t i = 0; i < j->n; i++) {
        int64_t in_frame = i % frame, block = in_frame / unit;
        int corner = (int)(in_frame % unit), y[4], z[4];
        float v[4], u[4], *out = tensor_row(x, j->place[i]);
        cubic((int)(block / across) * merge + corner / merge, j->height, t->side, y, v);
        cubic((int)(block % across) * merge + corner % merge, j->width, t->side, z, u);
        for (int k = 0; k < 16; k++) {
            const float *row = t->positions + (int64_t)(y[k / 4] * t->side + z[k % 4]) * d;
            float w = v[k / 4] * u[k % 4];
            for (int64_t c = 0; c < d; c++) out[c] += row[c] * w;
        }
    }
}

static void embed_patches(run *r, const qwen_tower *t, const tower_job *j, tensor x)
{
    tensor e = op_linear(r, j->patches, &t->embed, t->embed_bias);                            /* [n, hidden] */
    op_scatter(r, x, t->embed_norm ? op_rmsnorm(r, e, t->embed_norm, 0, t->vit.eps) : e, j->given);
    if (t->side && run_ok(r)) (t->bicubic ? add_positions_cubic : add_positions)(t, j, x);
    TAP(r, "vit.embed", 0, x);
}

static tensor merger_norm(run *r, const qwen_tower *t, const qwen_merger *w, tensor x)
{
    return t->vit.layernorm && !t->rms_merger ? op_layernorm(r, x, w->norm, w->norm_bias, t->vit.eps) : op_rmsnorm(r, x, w->norm, 0, t->vit.eps);
}

static tensor side_by_side(tensor x, int unit) { return (tensor){x.data, DT_F32, x.rows / unit, x.cols * unit, x.cols * unit}; }

/* Level 0 is what takes the place of the placeholders. */
static void merge_patches(run *r, const qwen_tower *t, const tower_job *j, encode_job *job, int level)
{
    int unit = t->patch.merge * t->patch.merge;
    const qwen_merger *w = level ? &t->deep[level - 1] : &t->merger;
    tensor h = level ? merger_norm(r, t, w, side_by_side(job->x, unit)) : side_by_side(merger_norm(r, t, w, job->x), unit);
    if (!run_ok(r)) return;
    if (t->merge) h = t->merge(r, t->merge_family, h);
    else {
        h = op_linear(r, h, &w->up, w->up_bias);                                              /* [n / 4, 4 * hidden] */
        op_activate(r, h, ACT_GELU);
        h = op_linear(r, h, &w->down, w->down_bias);
    }
    tensor rows = tensor_rows(job->rows, level * (j->n / unit), j->n / unit);
    op_scatter(r, rows, h, j->block);                                                         /* the image's order again */
    TAP(r, "vit.rows", level, rows);
}

bool qwen_tower_encode(run *r, const qwen_tower *t, encode_job *job)
{
    const tower_job *j = job->family;
    int i = job->stage++;
    bool whole = !t->window || t->full[i];
    if (i == 0) embed_patches(r, t, j, job->x);
    vit_layer_forward(r, &t->vit, &t->layer[i], i, job->x, j->cosine, j->sine, whole ? j->frames : j->windows, whole ? j->n_frames : j->n_windows);
    for (int k = 0; k < t->levels; k++)
        if (t->level_after[k] == i) merge_patches(r, t, j, job, k + 1);
    if (i == t->depth - 1) merge_patches(r, t, j, job, 0);
    return run_ok(r);
}

/* mistral3.c - Mistral Small 3.1, 3.2, Magistral, Ministral 3 with eyes.  https://mistral.ai/news/mistral-small-3-1
 *
 *   picture of any size in steps of 28 -> Pixtral's tower -> rms norm -> 2 x 2 patches side by side, product -> linear, GELU, linear
 *   -> rows that replace [IMG] -> Mistral
 *
 * Bites: merged patches lie channel by channel, as unfold gives them: column 4 c + 2 y + x. The norm's eps is the language model's. Each row of
 * tokens ends with [IMG_BREAK], the last with [IMG_END]. */
#include "models/pixtral.h"

typedef struct mistral3 {
    tower_lm base;
    mlp_connector connector;
    pixtral_processor processor;
    int merge;
    const float *norm;
    weight merger;
} mistral3;

static bool configure(vlm_model *m, config *c)
{
    mistral3 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    int layer = (int)config_int(c, "vision_feature_layer", -1, -1024, 1024);
    v->merge = (int)config_int(c, "spatial_merge_size", 2, 1, 16);
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    return tower_lm_config(&v->base, m, c) && image_tower_config(&v->base.tower, &m->memory, c, layer, false) &&
           pixtral_config(&v->processor, &v->base, m->processor, v->merge);
}

static bool bind(vlm_model *m, binder *b)
{
    mistral3 *v = m->family;
    int64_t d = v->base.tower.vit.hidden;
    tower_lm_bind(&v->base, b);
    bind_vector(b, &v->norm, d, "multi_modal_projector.norm.weight");
    bind_linear(b, &v->merger, d, d * v->merge * v->merge, "multi_modal_projector.patch_merger.merging_layer");
    mlp_connector_bind(&v->connector, b, d, v->base.text.spec.hidden);
    return !b->failed;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const mistral3 *v = m->family;
    return pixtral_process(m, &v->processor, &v->base.norm, item, options, out, error);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    return pixtral_expand(m, &((const mistral3 *)m->family)->processor, in, text, error);
}

/* merge x merge patches of x [rows * columns * merge^2, d] as one row [.., d * merge^2], channel by channel. */
static tensor unfold(run *r, tensor x, int rows, int columns, int merge)
{
    tensor out = run_tensor(r, (int64_t)rows * columns, x.cols * merge * merge);
    for (int64_t i = 0; run_ok(r) && i < out.rows; i++)
        for (int k = 0; k < merge * merge; k++) {
            int64_t row = i / columns * merge + k / merge, column = i % columns * merge + k % merge;
            const float *from = tensor_row(x, row * columns * merge + column);
            for (int64_t c = 0; c < x.cols; c++) tensor_row(out, i)[c * merge * merge + k] = from[c];
        }
    return out;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const mistral3 *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return run_ok(r);
    tensor x = op_rmsnorm(r, image_tower_features(r, &v->base.tower, job), v->norm, 0, v->base.text.spec.eps);
    x = op_linear(r, unfold(r, x, job->in->grid[1], job->in->grid[2], v->merge), &v->merger, NULL);
    image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, x));
    return run_ok(r);
}

static const char *const types[] = {"mistral3", NULL};

const vlm_arch vlm_arch_mistral3 = {
    .name = "mistral3",
    .title = "Mistral Small 3, Ministral 3",
    .model_types = types,
    .rules = &pixtral_rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .expand = expand,
    .encode_start = tower_lm_encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};

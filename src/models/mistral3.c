/* mistral3.c - Mistral Small 3.1, 3.2, Magistral, Ministral 3 with eyes.  https://mistral.ai/news/mistral-small-3-1
 * LightOnOCR: the same before Qwen3, without marks.  https://arxiv.org/abs/2601.14251
 *
 *   picture of any size in steps of 28 -> Pixtral's tower -> rms norm -> 2 x 2 patches side by side, product -> linear, GELU, linear
 *   -> rows that replace [IMG] -> Mistral
 *
 * Bites: merged patches lie channel by channel, as unfold gives them: column 4 c + 2 y + x. The norm's eps is the language model's. Each row of
 * tokens ends with [IMG_BREAK], the last with [IMG_END]. LightOnOCR: pictures in steps of a patch; a last row or column of patches alone is not read. */
#include "models/pixtral.h"

#include <string.h>

typedef struct mistral3 {
    tower_lm base;
    mlp_connector connector;
    pixtral_processor processor;
    int merge;
    bool lighton;
    const float *norm;
    weight merger;
} mistral3;

/* Members that LightOnOCR's configs may leave out. */
static bool fill_in_lighton(config *c)
{
    if (!config_has(c, "image_token_id|image_token_index")) json_object_set_new(c->root, "image_token_id", json_integer(151655));
    if (!config_has(c, "tie_word_embeddings")) json_object_set_new(c->root, "tie_word_embeddings", json_true());
    return config_defaults(c, "vision_config", "{\"model_type\":\"pixtral\",\"head_dim\":64,\"hidden_act\":\"silu\",\"hidden_size\":1024,\"image_size\":1540,\"intermediate_size\":4096,"
                                       "\"num_attention_heads\":16,\"num_hidden_layers\":24,\"patch_size\":14}") &&
           config_defaults(c, "text_config", "{\"model_type\":\"qwen3\",\"head_dim\":128,\"hidden_size\":1024,\"intermediate_size\":3072,\"max_position_embeddings\":40960,"
                                     "\"num_attention_heads\":16,\"num_hidden_layers\":28,\"num_key_value_heads\":8,\"rms_norm_eps\":1e-6,\"rope_theta\":1000000,\"vocab_size\":151936}");
}

static bool configure(vlm_model *m, config *c)
{
    mistral3 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    v->lighton = !strcmp(config_string(c, "model_type", ""), "lighton_ocr");
    if (v->lighton && !fill_in_lighton(c)) return false;
    int layer = (int)config_int(c, "vision_feature_layer", -1, -1024, 1024);
    v->merge = (int)config_int(c, "spatial_merge_size", 2, 1, 16);
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    return tower_lm_config(&v->base, m, c) && image_tower_config(&v->base.tower, &m->memory, c, layer, false) &&
           pixtral_config(&v->processor, &v->base, m->processor, v->merge, v->lighton);
}

static bool bind(vlm_model *m, binder *b)
{
    mistral3 *v = m->family;
    static const char *const lighton_tower[] = {"model.vision_encoder.", "vision_encoder.", NULL};
    const char *where = v->lighton ? "vision_projection" : "multi_modal_projector";
    int64_t d = v->base.tower.vit.hidden;
    if (!v->lighton) tower_lm_bind(&v->base, b);
    else if (decoder_bind(&v->base.text, b)) image_tower_bind(&v->base.tower, b, lighton_tower);
    bind_prefix(b, "", "model.", NULL);
    bind_vector(b, &v->norm, d, "%s.norm.weight", where);
    bind_linear(b, &v->merger, d, d * v->merge * v->merge, "%s.patch_merger.merging_layer", where);
    mlp_connector_bind_at(&v->connector, b, d, v->base.text.spec.hidden, where);
    return !b->failed;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const mistral3 *v = m->family;
    return pixtral_process(m, &v->processor, &v->base.norm, item, options, out, error);
}

static bool expand(const vlm_model *m, const media_input *in, buf *text, vlm_error *error)
{
    const mistral3 *v = m->family;
    return v->lighton ? tower_lm_expand(m, in, text, error) : pixtral_expand(m, &v->processor, in, text, error);
}

/* merge x merge patches of x, `across` of them in a row, as one row [rows * columns, d * merge^2], channel by channel. */
static tensor unfold(run *r, tensor x, int rows, int columns, int across, int merge)
{
    tensor out = run_tensor(r, (int64_t)rows * columns, x.cols * merge * merge);
    for (int64_t i = 0; run_ok(r) && i < out.rows; i++)
        for (int k = 0; k < merge * merge; k++) {
            int64_t row = i / columns * merge + k / merge, column = i % columns * merge + k % merge;
            const float *from = tensor_row(x, row * across + column);
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
    int across = (int)(((const int64_t *)media_input_find(job->in, "image_sizes")->data)[1] / v->base.tower.patch);
    x = op_linear(r, unfold(r, x, job->in->grid[1], job->in->grid[2], across, v->merge), &v->merger, NULL);
    image_tower_set_rows(r, job, mlp_connector_apply(r, &v->connector, x));
    return run_ok(r);
}

static const char *const types[] = {"mistral3", "lighton_ocr", NULL};

const vlm_arch vlm_arch_mistral3 = {
    .name = "mistral3",
    .title = "Mistral Small 3, Ministral 3, LightOnOCR",
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

/* colqwen2.c - ColQwen2 and ColQwen2.5: late interaction over pages seen as pictures.  https://arxiv.org/abs/2407.01449
 *
 *   page or query -> Qwen2-VL or Qwen2.5-VL, rows after the final norm -> projection to 128 columns, with a bias -> length 1: a vector for each token
 *   score of a page = sum over the query's vectors of the largest product with a vector of the page (MaxSim, vlm_similarity)
 *
 * Bites: positions count on by one, also in a picture (no M-RoPE: the reference embeds first, and cannot tell then). A query is "Query: ", its text, ten
 * pad tokens and a line end; a page has a prompt of its own that ends with <|endoftext|>. The model's config lies in vlm_config, its weights below "vlm.". */
#include "models/qwen_vl.h"

#include <string.h>

extern const vlm_arch vlm_arch_qwen2_vl, vlm_arch_qwen2_5_vl;

static const vlm_arch *inner(const config *c)
{
    return strstr(config_string((config *)(uintptr_t)c, "vlm_config.model_type", "qwen2_vl"), "qwen2_5") ? &vlm_arch_qwen2_5_vl : &vlm_arch_qwen2_vl;
}

static bool configure(vlm_model *m, config *c)
{
    json_t *own = json_object_get(c->root, "vlm_config");
    const vlm_arch *arch = inner(c);
    if (json_is_object(own) && json_object_update_missing(c->root, own)) return config_fail(c, VLM_MEMORY, "out of memory");
    json_object_set_new(c->root, "tie_word_embeddings", json_true());           /* nothing is generated: there is no head */
    json_t *text = json_object_get(c->root, "text_config");
    if (json_is_object(text)) json_object_set_new(text, "tie_word_embeddings", json_true());
    if (!arch->configure(m, c)) return false;
    m->takes = TAKES_IMAGE;
    m->recipe.declared = m->recipe.normalize = true;
    m->recipe.pooling = POOL_EACH;
    m->recipe.dimensions = (int)config_int(c, "embedding_dim", 128, 1, 1 << 16);
    m->recipe.query_prefix = config_string(m->processor, "query_prefix", "Query: ");
    m->recipe.query_pads = 10;
    m->recipe.picture = config_string(m->processor, "visual_prompt_prefix",
                                      "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>");
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    b->outer = "vlm.";
    if (!inner(m->cfg)->bind(m, b)) return false;
    b->outer = NULL;
    bind_prefix(b, "", NULL);
    const char *name = bind_exists(b, "embedding_proj_layer.weight") ? "embedding_proj_layer" : "custom_text_proj";
    bind_linear(b, &m->recipe.project, m->recipe.dimensions, m->hidden, "%s", name);
    bind_vector_optional(b, &m->recipe.project_bias, m->recipe.dimensions, "%s.bias", name);
    return !b->failed;
}

static const char *const types[] = {"colqwen2", "colqwen2_5", NULL};

const vlm_arch vlm_arch_colqwen2 = {
    .name = "colqwen2",
    .title = "ColQwen2, ColQwen2.5",
    .model_types = types,
    .rules = &media_rules_pixels, .task = TASK_EMBED, .also = 1 << TASK_RERANK, .takes = TAKES_IMAGE, .configure = configure, .bind = bind, .process = qwen_vl_arch_process, .pick_frames = qwen_vl_arch_pick_frames,
    .placeholder = qwen_vl_arch_placeholder, .media_token = qwen_vl_arch_media_token, .expand = qwen_vl_arch_expand,
    .encode_start = qwen_vl_arch_encode_start, .encode = qwen_vl_arch_encode, .forward = qwen_vl_arch_forward,
};

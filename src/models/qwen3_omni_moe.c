/* qwen3_omni_moe.c - Qwen3-Omni 30B-A3B, the thinker: text out, no speech.  https://arxiv.org/abs/2509.17765
 *
 *   image, video -> Qwen3-VL's tower with deepstack (qwen_tower.h)             \
 *   sound -> log-mel, 10 ms frames -> qwen3_audio.h, a row for 80 ms            > rows that replace <|image_pad|>, <|video_pad|>, <|audio_pad|>
 *                                                                              /  -> Qwen3 decoder with experts, M-RoPE whose axes alternate
 *
 * Bites: everything lies below thinker_config and thinker. (talker and code2wav are not read). Videos are told as in Qwen2.5-Omni, no times in the
 * text: a frame group is position_id_per_seconds * its seconds further. The sound track of a video is not looked at. */
#include "models/qwen_omni.h"

#include <string.h>

static bool configure(vlm_model *m, config *c)
{
    static const char *const prefix[] = {"thinker.model.", "model.", "thinker.model.language_model.", "model.language_model.", NULL};
    static const char *const head[] = {"thinker.", "", NULL};
    qwen_omni *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!qwen_omni_lift(c) || !decoder_config(&q->vl.text.spec, &m->memory, c, text_prefixes)) return false;
    decoder_spec *s = &q->vl.text.spec;
    s->qk_norm = true;
    s->qkv_bias = s->o_bias = config_bool(c, "text_config.attention_bias|attention_bias", false);
    if (!decoder_config_experts(s, c, text_prefixes)) return false;
    memcpy(s->prefix, prefix, sizeof prefix);
    memcpy(s->head_prefix, head, sizeof head);
    if (!qwen3_vl_configure(&q->vl, m->processor, c) || !qwen_vl_plan(&q->vl, m, c)) return false;

    qwen_vl_processor *p = &q->vl.processor;
    q->third = true;
    p->timestamps = false;
    p->video = (qwen_vl_limits){128 * 32 * 32, 768 * 32 * 32};
    q->fps = 1;
    if (!qwen_omni_tokens(q, c, 13)) return false;
    m->takes |= TAKES_AUDIO;
    return qwen3_audio_config(&q->audio, &m->memory, c, m->processor, s->hidden);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .proj = "attn.proj", .up = "mlp.linear_fc1", .down = "mlp.linear_fc2"},
        .norm = "ln_q", .up = "mlp.0", .down = "mlp.2", .deep = "merger_list",
    };
    qwen_omni *q = m->family;
    if (!decoder_bind(&q->vl.text, b)) return false;
    qwen_tower_bind(&names, &q->vl.tower, b);
    bind_prefix(b, "thinker.", "", "thinker.model.", "model.", NULL);
    qwen3_audio_bind(&q->audio, b);
    return !b->failed;
}

static const char *const types[] = {"qwen3_omni_moe", "qwen3_omni_moe_thinker", NULL};

const vlm_arch vlm_arch_qwen3_omni_moe = {.name = "qwen3_omni_moe", .title = "Qwen3-Omni (30B-A3B; the thinker)", .model_types = types, .configure = configure, .bind = bind, QWEN_OMNI_ARCH};

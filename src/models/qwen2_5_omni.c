/* qwen2_5_omni.c - Qwen2.5-Omni, the thinker: text out, no speech.  https://arxiv.org/abs/2503.20215
 *
 *   image, video -> Qwen2.5-VL's processor and tower (qwen_tower.h)                  \
 *   sound -> log-mel, 10 ms frames -> Whisper's encoder in segments of 2 * n_window   > rows that replace <|IMAGE|>, <|VIDEO|>, <|AUDIO|>
 *            frames (whisper_tower.h), a row for 40 ms                               /  -> Qwen2 decoder with M-RoPE
 *
 * Bites: everything lies below thinker_config and thinker. (talker and token2wav are not read). q, k, v of the vision tower lie apart. Time is
 * counted in steps of 40 ms: a video's frame group is position_id_per_seconds * its seconds further, a row of sound one step. A video's size
 * limits are the processor class's own, not those of preprocessor_config.json. The sound track of a video is not looked at. */
#include "models/qwen_omni.h"

#include <string.h>

static bool configure(vlm_model *m, config *c)
{
    static const char *const prefix[] = {"thinker.model.", "model.", "thinker.model.language_model.", "model.language_model.", NULL};
    static const char *const head[] = {"thinker.", "", NULL};
    qwen_omni *q = m->family = arena_alloc(&m->memory, sizeof *q);
    if (!q) return config_fail(c, VLM_MEMORY, "out of memory");
    if (!qwen_omni_lift(c) || !decoder_config(&q->vl.text.spec, &m->memory, c, text_prefixes)) return false;
    q->vl.text.spec.qkv_bias = true;
    memcpy(q->vl.text.spec.prefix, prefix, sizeof prefix);
    memcpy(q->vl.text.spec.head_prefix, head, sizeof head);
    if (!qwen_vl_configure(&q->vl.processor, m->processor, c) || !qwen2_5_vl_configure_vision(&q->vl, m, c) || !qwen_vl_plan(&q->vl, m, c)) return false;

    qwen_vl_processor *p = &q->vl.processor;
    p->video = (qwen_vl_limits){128 * 28 * 28, 768 * 28 * 28};
    q->fps = p->fps;
    if (!qwen_omni_tokens(q, c, 25)) return false;
    int window = (int)config_int(c, "audio_config.n_window", 100, 1, 1 << 16), d = q->vl.text.spec.hidden;
    int out = (int)config_int(c, "audio_config.output_dim", d, 1, 1 << 20);
    if (!c->failed && out != d) return config_fail(c, VLM_FORMAT, "audio_config.output_dim %d, but the decoder's hidden_size is %d", out, d);
    m->takes |= TAKES_AUDIO;
    return whisper_config(&q->whisper, &m->memory, c, m->processor, 2 * window, d);
}

static bool bind(vlm_model *m, binder *b)
{
    static const qwen_tower_names names = {
        .layer = {.norm1 = "norm1", .norm2 = "norm2", .q = "attn.q", .k = "attn.k", .v = "attn.v", .proj = "attn.proj", .gate = "mlp.gate_proj", .up = "mlp.up_proj",
         .down = "mlp.down_proj"},
        .norm = "ln_q", .up = "mlp.0", .down = "mlp.2",
    };
    qwen_omni *q = m->family;
    if (!decoder_bind(&q->vl.text, b)) return false;
    qwen_tower_bind(&names, &q->vl.tower, b);
    bind_prefix(b, "thinker.", "", "thinker.model.", "model.", NULL);
    whisper_bind(&q->whisper, b, "audio_tower.ln_post", "audio_tower.proj");
    return !b->failed;
}

static const char *const types[] = {"qwen2_5_omni", "qwen2_5_omni_thinker", NULL};

const vlm_arch vlm_arch_qwen2_5_omni = {.name = "qwen2_5_omni", .title = "Qwen2.5-Omni (3B, 7B; the thinker)", .model_types = types, .configure = configure, .bind = bind, QWEN_OMNI_ARCH};

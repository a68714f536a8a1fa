/* rope.h - rotary position tables, computed in float32 exactly as the reference does.
 *
 * A table is a list of inverse frequencies; the angle of frequency i at a token is position(axis[i]) * inv_freq[i], where the axis
 * says which of the token's positions counts (one for text; time, height, width with M-RoPE). cos and sin are multiplied by `factor`. */
#ifndef VLM_BLOCKS_ROPE_H
#define VLM_BLOCKS_ROPE_H

#include "blocks/batch.h"
#include "weights/config.h"

typedef struct rope_table {
    int half;                      /* frequencies; 2 * half columns of a head are rotated, the rest pass */
    float *inv_freq;               /* [half] */
    float *far_freq;               /* [half] of texts that are longer than `trained` tokens; NULL: as inv_freq */
    float far_factor;              /* ... and their factor */
    int trained;
    uint8_t *axis;                 /* [half] */
    float factor;
    float score_factor;            /* of attention's scores beyond that: DeepSeek's YaRN (mscale_all_dim), else 1 */
    bool interleaved;              /* column 2i with 2i+1 instead of i with i + half */
} rope_table;

/* inv_freq[i] = 1 / theta^(2i / dim): `dim` rotated columns, float32. False when out of memory. */
bool rope_default(rope_table *t, arena *memory, double theta, int dim);
/* What config.json asks for: rope_theta, rope_scaling (older) or rope_parameters (newer), the latter per layer type when `layer_type` is
 * given. Types: default, mrope, linear, dynamic (as default below the trained length), llama3, yarn, longrope (two lists, for
 * texts up to the trained length and for longer ones), proportional. `prefixes`: where to look, in
 * order, e.g. {"text_config.", "", NULL}. Reads are sticky in c. */
bool rope_configure(rope_table *t, arena *memory, config *c, const char *const *prefixes, const char *layer_type, int head_dim,
                    double default_theta);
/* M-RoPE: frequencies are given to the axes 0, 1, 2 in runs of section[0], section[1], section[2] (Qwen2-VL), or, when interleaved, in turn
 * t h w t h w ... as long as h and w have some left, the rest to t (Qwen3-VL). False when the sections do not add up to `half`. */
bool rope_sections(rope_table *t, const int64_t *section, int axes, bool interleaved);
/* cos, sin [n, half] of `n` tokens whose positions on axis a are positions[a]. With far_freq all are on axis 0; positions[FAR_AXIS] says whose text is long. */
enum { FAR_AXIS = 1 };
void rope_fill(const rope_table *t, const int32_t *const *positions, int64_t n, tensor cosine, tensor sine);

#endif

/* qwen_tower.h - the vision tower of the Qwen-VL families: a transformer over the patches of an image or video, then mergers.
 *
 *   patches [t*h*w, values] -> product [+ learned positions, interpolated] -> layers with rope on rows and columns -> merger: 2 x 2 patches
 *   side by side, MLP -> rows of the decoder [levels][tokens, out]
 *
 *                  Qwen2-VL          Qwen2.5-VL            Qwen3-VL, Qwen3.5
 *   norms          layer norm        rms norm              layer norm
 *   MLP            act(up)           act(gate) * up        act(up)
 *   attention      frames            windows; frames in    frames
 *                                    a few layers
 *   positions      rope              rope                  rope + a table of side x side, bilinear
 *   levels         1                 1                     1 + one after each of some layers (deepstack)
 *
 * GLM-4V (glm4v.c) is Qwen2.5-VL without windows, with a table that is looked up bicubic, a norm behind the embedding, and a merger of its own.
 *
 * PaddleOCR-VL (paddleocr_vl.c) is Qwen2-VL with a table whose bilinear samples are at pixel centres, patches row by row, and names of SigLIP.
 * MoonViT (kimi.c) is PaddleOCR-VL's tower with a table looked up bicubic and rope in pairs, columns and rows taking turns.
 * Hunyuan-VL (hunyuan_vl.c) is that without rope, an rms norm before a merger of its own.
 *
 * The main merger normalises patches, those of deepstack what is merged. Attention goes over one frame (or window) at a time. */
#ifndef VLM_MODELS_QWEN_TOWER_H
#define VLM_MODELS_QWEN_TOWER_H

#include "blocks/patch.h"
#include "blocks/rope.h"
#include "blocks/vit.h"
#include "models/model.h"

enum { QWEN_MAX_LEVELS = 16, QWEN_MAX_DEPTH = 1024 };

typedef struct qwen_merger {
    const float *norm, *norm_bias, *up_bias, *down_bias;
    weight up, down;
} qwen_merger;

typedef struct qwen_tower {
    vit_spec vit;                  /* the family sets layernorm, gated, act, ffn ... */
    patch_spec patch;              /* as the processor cuts patches */
    int depth, out;
    int window;                    /* side of a window in merged patches; 0: none */
    bool *full;                    /* [depth] attention over whole frames though there are windows */
    int side;                      /* of the table of positions; 0: none */
    bool bicubic;                  /* the table is sampled at pixel centres, cubic; else bilinear, ends on ends ... */
    bool centres;                  /* ... or at pixel centres, too */
    bool class_row;                /* the table's first row belongs to no patch */
    bool rms_merger;               /* an rms norm before the merge though layers have layer norms */
    bool no_rope;
    int levels, level_after[QWEN_MAX_LEVELS];   /* deepstack: which layers' output becomes a further level */

    vit_layer *layer;
    weight embed;
    const float *embed_bias, *embed_norm, *positions;        /* embed_norm: rms norm of embedded patches; positions [side * side, hidden] */
    qwen_merger merger, deep[QWEN_MAX_LEVELS];
    /* The family's own merger of normed patches side by side [n / merge^2, merge^2 * hidden]; NULL: `merger`. */
    tensor (*merge)(run *r, const void *family, tensor x);
    const void *merge_family;
    rope_table rope;               /* first half of the frequencies turns with the row, second with the column */
} qwen_tower;

/* Names below the tower's prefix where families differ. norm NULL: the family binds merger.norm and what it merges with. positions, embed, layers NULL:
 * pos_embed, patch_embed.proj, blocks; deep: deepstack_merger_list. */
typedef struct qwen_tower_names { vit_names layer; const char *norm, *up, *down, *positions, *embed, *layers, *deep; } qwen_tower_names;

/* Checks what the family has set (vit, depth, out, patch), makes rope tables and room for the layers. */
bool qwen_tower_plan(qwen_tower *t, arena *memory, config *c, int text_hidden);
void qwen_tower_bind(const qwen_tower_names *names, qwen_tower *t, binder *b);
/* vlm_arch.encode_start and encode. */
bool qwen_tower_start(run *r, const qwen_tower *t, encode_job *job);
bool qwen_tower_encode(run *r, const qwen_tower *t, encode_job *job);

#endif

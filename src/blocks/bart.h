/* bart.h - BART, an encoder-decoder: https://arxiv.org/abs/1910.13461
 *
 *   prompt  ids -> embedding (rows of media in place) + table of positions -> norm -> layers -> rows that cross-attention reads (cross.h)
 *   answer  ids -> embedding + table of positions -> norm -> layers -> head: logits
 *   a layer x = norm(x + attention(x));  [x = norm(x + cross-attention(x));]  x = norm(x + down(act(up x)))
 *
 * Layer norms with biases stand behind the sums; positions begin at row 2 of their tables. Encoder and decoder share the embedding with the head. */
#ifndef VLM_BLOCKS_BART_H
#define VLM_BLOCKS_BART_H

#include "blocks/batch.h"
#include "blocks/cross.h"
#include "tensor/adapt.h"
#include "tensor/ops.h"
#include "tensor/tap.h"
#include "weights/bind.h"
#include "weights/config.h"

typedef struct bart_side { int layers, heads, ffn; } bart_side;

typedef struct bart_layer {
    weight q, k, v, o, up, down;
    const float *q_bias, *k_bias, *v_bias, *o_bias, *up_bias, *down_bias, *norm1, *norm1_bias, *norm2, *norm2_bias;
    cross_layer cross;
    const float *cross_norm, *cross_norm_bias;
} bart_layer;

typedef struct bart_stem { const float *table, *norm, *norm_bias; } bart_stem;

typedef struct bart {
    int hidden, vocab, positions;
    bart_side encoder, decoder;
    activation act;
    float scale;                   /* of embeddings */
    bart_layer *encoder_layer, *decoder_layer;
    bart_stem encoder_stem, decoder_stem;
    weight embed, head;
    const float *logits_bias;      /* NULL: none */
    cross_spec cross;
    kv_shape group, memory;        /* of the decoder's own keys and values; of what its cross-attention reads */
} bart;

/* Below `prefix` ("text_config."). */
bool bart_config(bart *m, arena *memory, config *c, const char *prefix);
/* shared, encoder.*, decoder.* below the current prefix; the head below the prefixes `head`, when the file has one of its own. */
void bart_bind(bart *m, binder *b, const char *head);

/* The encoder's input; then its layers, in place. */
tensor bart_embed_prompt(run *r, const bart *m, const int32_t *ids, int n, const embed_rows *embeds, int n_embeds);
void bart_encode_layer(run *r, const bart *m, int i, tensor x);
double bart_encode_cost(const bart *m, double n);
bool bart_remember(run *r, const bart *m, const memory_fill *fill);
/* Logits [b->n_logits, vocab]. */
tensor bart_forward(run *r, const bart *m, const batch *b);

#endif

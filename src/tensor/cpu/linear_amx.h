/* linear_amx.h - what the AMX files share: the configuration of the tiles, the way from a C tile into y, products of many tokens. */
#ifndef VLM_TENSOR_CPU_LINEAR_AMX_H
#define VLM_TENSOR_CPU_LINEAR_AMX_H

#include "tensor/cpu/linear_avx512.h"

enum { TILE = 16, TILE_BYTES = 1024, AMX_WIDE = 256 };       /* AMX_WIDE: rows that share what L2 holds of the tokens */

/* Tiles 0..3: C, 16 x 64 bytes; 4, 5: A, 16 rows x depth bytes; 6, 7: B, depth / 4 rows x 64 bytes.
 * gcc takes the configuration for read in its first bytes only and drops the other stores: the barrier keeps them. */
static inline void amx_configure(int depth)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config __attribute__((aligned(64))) = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = (uint16_t)(i == 4 || i == 5 ? depth : 64);
        config.rows[i] = (uint8_t)(i >= 6 ? depth / 4 : TILE);
    }
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}

/* 16 x 16 sums, [output][token], with bias to y. */
static inline void amx_store(const linear_product *p, const float *c, int64_t o, int64_t rows, int64_t t, int64_t tokens)
{
    __mmask16 mask = (__mmask16)((1u << rows) - 1);
    __m512 bias = p->bias ? _mm512_maskz_loadu_ps(mask, p->bias + o) : _mm512_setzero_ps();
    float *y = p->y + t * p->y_stride + o;
    if (tokens == 1) {                             /* the first column */
        const __m512i at = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
        _mm512_mask_storeu_ps(y, mask, _mm512_add_ps(_mm512_i32gather_ps(at, c, 4), bias));
        return;
    }
    __m512i v[TILE];
    for (int i = 0; i < TILE; i++) v[i] = _mm512_loadu_si512(c + TILE * i);
    transpose_avx512(v);
    for (int64_t i = 0; i < tokens; i++) _mm512_mask_storeu_ps(y + i * p->y_stride, mask, _mm512_add_ps(_mm512_castsi512_ps(v[i]), bias));
}

/* linear_gemm_amx.c: products with weights in bf16, or (planes 1) in codes; planes 3: exact. The first is of n tokens, the second packs token t of them. */
size_t amx_gemm_x_bytes(const weight *w, int64_t n, int planes);
void amx_gemm_pack(const weight *w, void *packed, int64_t t, const float *x, int planes);
size_t amx_gemm_scratch(const weight *w, int64_t n);
void amx_gemm(const linear_product *p, int64_t o0, int64_t o1, int64_t t0, int64_t t1, char *scratch, int planes);

#endif

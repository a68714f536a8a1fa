/* limits_amx.c - peak loops, see limits.h: four accumulator tiles, two of each operand. */
#include <immintrin.h>
#include <string.h>

#include "tensor/cpu/limits.h"

/* 8 tiles of 16 rows of 64 bytes. The barrier: gcc 12 takes the load for one of 8 bytes and drops the other stores. */
static void configure(void)
{
    struct { uint8_t palette, start, zero[14]; uint16_t bytes[16]; uint8_t rows[16]; } c;
    memset(&c, 0, sizeof c);
    c.palette = 1;
    for (int i = 0; i < 8; i++) c.bytes[i] = 64, c.rows[i] = 16;
    __asm__ volatile("" : : "r"(&c) : "memory");
    _tile_loadconfig(&c);
}

#define LOOP(dot)                                                                         \
    configure();                                                                          \
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);                           \
    _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);                           \
    for (int64_t r = 0; r < rounds / 8; r++) { dot(0, 4, 6); dot(1, 4, 7); dot(2, 5, 6); dot(3, 5, 7); } \
    _tile_release()

double limits_bf16_amx(int64_t rounds)
{
    LOOP(_tile_dpbf16ps);
    return (double)(rounds / 8) * 4 * 16 * 16 * 32 * 2;
}

double limits_int8_amx(int64_t rounds)
{
    LOOP(_tile_dpbusd);
    return (double)(rounds / 8) * 4 * 16 * 16 * 64 * 2;
}

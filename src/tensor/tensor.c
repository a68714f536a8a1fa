/* tensor.c - see tensor.h: types, conversions, rows of stored weights. */
#include "tensor/tensor.h"

#include <stdarg.h>
#include <string.h>

#include "base/err.h"

static const struct { const char *name; size_t size; } types[DT_COUNT] = {
    [DT_F32] = {"F32", 4}, [DT_F16] = {"F16", 2}, [DT_BF16] = {"BF16", 2}, [DT_F64] = {"F64", 8}, [DT_I8] = {"I8", 1}, [DT_U8] = {"U8", 1},
    [DT_I16] = {"I16", 2}, [DT_U16] = {"U16", 2}, [DT_I32] = {"I32", 4}, [DT_U32] = {"U32", 4}, [DT_I64] = {"I64", 8},
    [DT_U64] = {"U64", 8}, [DT_BOOL] = {"BOOL", 1}, [DT_F8_E4M3] = {"F8_E4M3", 1}, [DT_F8_E5M2] = {"F8_E5M2", 1},
    [DT_F8_E8M0] = {"F8_E8M0", 1},
};

size_t dtype_size(dtype t) { return (unsigned)t < DT_COUNT ? types[t].size : 0; }
const char *dtype_name(dtype t) { return (unsigned)t < DT_COUNT ? types[t].name : "?"; }

float bf16_to_f32(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

uint16_t f32_to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);      /* quiet NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, mantissa = x & 1023, bits;
    if (exponent == 31) bits = sign | 0x7f800000 | mantissa << 13;
    else if (exponent) bits = sign | (exponent + 112) << 23 | mantissa << 13;
    else {                                                                           /* zero or subnormal: mantissa * 2^-24 */
        float f = (float)mantissa * 0x1p-24f;
        return x & 0x8000 ? -f : f;
    }
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

uint16_t f32_to_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return sign | 0x7e00;
    if (bits >= 0x477ff000) return sign | 0x7c00;                                    /* rounds to infinity */
    if (bits < 0x38800000) {                                                         /* subnormal half: adding 0.5 rounds at 2^-24 */
        float f;
        memcpy(&f, &bits, 4);
        f += 0.5f;
        memcpy(&bits, &f, 4);
        return (uint16_t)(sign | (bits - 0x3f000000));
    }
    return (uint16_t)(sign | ((bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13));
}

#define WIDEN(type) do { const type *p = in; for (int64_t i = 0; i < n; i++) out[i] = (float)p[i]; } while (0)
void convert_to_f32(const void *in, dtype t, int64_t n, float *out)
{
    switch (t) {
    case DT_F32: memcpy(out, in, (size_t)n * 4); break;
    case DT_BF16: for (int64_t i = 0; i < n; i++) { uint16_t v; memcpy(&v, (const char *)in + 2 * i, 2); out[i] = bf16_to_f32(v); } break;
    case DT_F16: for (int64_t i = 0; i < n; i++) { uint16_t v; memcpy(&v, (const char *)in + 2 * i, 2); out[i] = f16_to_f32(v); } break;
    case DT_F64: WIDEN(double); break;
    case DT_I8: WIDEN(int8_t); break;
    case DT_U8: case DT_BOOL: WIDEN(uint8_t); break;
    case DT_I16: WIDEN(int16_t); break;
    case DT_U16: WIDEN(uint16_t); break;
    case DT_I32: WIDEN(int32_t); break;
    case DT_U32: WIDEN(uint32_t); break;
    case DT_I64: WIDEN(int64_t); break;
    case DT_U64: WIDEN(uint64_t); break;
    default: memset(out, 0, (size_t)n * 4); break;
    }
}

static const struct { dtype type; } plain[WF_COUNT] = {[WF_F32] = {DT_F32}, [WF_F16] = {DT_F16}, [WF_BF16] = {DT_BF16}};

size_t weight_row_bytes(const weight *w)
{
    if (w->format == WF_AFFINE) return (size_t)(w->cols * w->bits / 8);
    return (size_t)w->cols * dtype_size(plain[w->format].type);
}

size_t weight_bytes(const weight *w)
{
    size_t matrices = w->experts ? (size_t)w->experts : 1, rows = matrices * (size_t)w->rows;
    size_t bytes = rows * weight_row_bytes(w);
    if (w->format == WF_AFFINE) bytes += 2 * rows * (size_t)(w->cols / w->group) * dtype_size(w->scale_type);
    return bytes;
}

weight weight_rows(const weight *w, int64_t first, int64_t rows)
{
    weight part = *w;
    part.experts = 0;
    part.rows = rows;
    part.packed = NULL;
    part.low_rank = NULL;
    part.data = (const char *)w->data + (size_t)first * weight_row_bytes(w);
    if (w->format == WF_AFFINE) {
        size_t skip = (size_t)(first * (w->cols / w->group)) * dtype_size(w->scale_type);
        part.scales = (const char *)w->scales + skip;
        part.biases = (const char *)w->biases + skip;
    }
    return part;
}

weight weight_expert(const weight *w, int64_t expert) { return weight_rows(w, expert * w->rows, w->rows); }

void weight_row_f32(const weight *w, int64_t row, float *out)
{
    const uint8_t *data = (const uint8_t *)w->data + (size_t)row * weight_row_bytes(w);
    if (w->format != WF_AFFINE) {
        convert_to_f32(data, plain[w->format].type, w->cols, out);
        return;
    }
    int64_t groups = w->cols / w->group;
    size_t unit = dtype_size(w->scale_type);
    for (int64_t g = 0; g < groups; g++) {
        float scale, bias;
        convert_to_f32((const char *)w->scales + (size_t)(row * groups + g) * unit, w->scale_type, 1, &scale);
        convert_to_f32((const char *)w->biases + (size_t)(row * groups + g) * unit, w->scale_type, 1, &bias);
        for (int64_t c = g * w->group; c < (g + 1) * w->group; c++) {
            int64_t bit = c * w->bits;
            uint32_t two = data[bit / 8];
            if ((bit & 7) + w->bits > 8) two |= (uint32_t)data[bit / 8 + 1] << 8;
            uint32_t code = two >> (bit & 7) & ((1u << w->bits) - 1);
            out[c] = (float)code * scale + bias;
        }
    }
}

bool run_fail(run *r, vlm_status code, const char *format, ...)
{
    if (!r->failed) {
        va_list args;
        va_start(args, format);
        err_setv(&r->error, code, format, args);
        va_end(args);
        r->failed = true;
    }
    return false;
}

void *run_alloc(run *r, size_t bytes)
{
    if (r->failed) return NULL;
    void *memory = arena_alloc(r->scratch, bytes);
    if (!memory) run_fail(r, VLM_MEMORY, "out of memory (%zu bytes of scratch)", bytes);
    return memory;
}

static tensor make_tensor(run *r, int64_t rows, int64_t cols, bool zero)
{
    tensor t = {NULL, DT_F32, rows, cols, cols};
    size_t bytes;
    if (r->failed) return t;
    if (rows < 0 || cols < 0 || !mem_mul((size_t)rows, (size_t)cols, &bytes) || !mem_mul(bytes, 4, &bytes)) {
        run_fail(r, VLM_INTERNAL, "tensor of %lld x %lld", (long long)rows, (long long)cols);
        return t;
    }
    t.data = zero ? arena_alloc(r->scratch, bytes) : arena_alloc_raw(r->scratch, bytes);
    if (!t.data) run_fail(r, VLM_MEMORY, "out of memory (%zu bytes of scratch)", bytes);
    return t;
}

tensor run_tensor(run *r, int64_t rows, int64_t cols) { return make_tensor(r, rows, cols, false); }
tensor run_zeros(run *r, int64_t rows, int64_t cols) { return make_tensor(r, rows, cols, true); }

/* resample.c - see resample.h. */
#include "blocks/resample.h"

#include <math.h>
#include <string.h>

static float weigh(float off, bool cubic)
{
    const float a = -0.5f;
    off = fabsf(off);
    if (!cubic) return off < 1 ? 1 - off : 0;
    if (off < 1) return ((a + 2) * off - (a + 3)) * off * off + 1;
    return off < 2 ? (((off - 5) * off + 8) * off - 4) * a : 0;
}

/* Which of `side` rows make index i of `size`, and their shares. Returns how many. */
static int taps(int i, int size, int side, bool cubic, int *first, float *share)
{
    float scale = (float)side / (float)size, reach = cubic ? 2 : 1, support = scale >= 1 ? reach * scale : reach, inverse = scale >= 1 ? 1 / scale : 1, sum = 0;
    float center = scale * ((float)i + 0.5f);
    int low = (int)(center - support + 0.5f), high = (int)(center + support + 0.5f);
    if (low < 0) low = 0;
    if (high > side) high = side;
    for (int k = low; k < high; k++) sum += share[k - low] = weigh(((float)k - center + 0.5f) * inverse, cubic);
    for (int k = low; k < high; k++) share[k - low] /= sum;
    *first = low;
    return high - low;
}

tensor resample_table(run *r, const float *table, int side, int64_t d, int rows, int columns, bool cubic)
{
    float share[RESAMPLE_MOST_SIDE];
    int first, n;
    tensor wide = run_tensor(r, (int64_t)side * columns, d), all = run_tensor(r, (int64_t)rows * columns, d);
    if (side > RESAMPLE_MOST_SIDE) run_fail(r, VLM_INTERNAL, "a table of %d positions on a side", side);
    for (int64_t i = 0; run_ok(r) && i < wide.rows; i++) {
        float *out = memset(tensor_row(wide, i), 0, (size_t)d * sizeof *out);
        n = taps((int)(i % columns), columns, side, cubic, &first, share);
        for (int k = 0; k < n; k++)
            for (int64_t c = 0; c < d; c++) out[c] += share[k] * table[(i / columns * side + first + k) * d + c];
    }
    for (int64_t i = 0; run_ok(r) && i < all.rows; i++) {
        float *out = memset(tensor_row(all, i), 0, (size_t)d * sizeof *out);
        n = taps((int)(i / columns), rows, side, cubic, &first, share);
        for (int k = 0; k < n; k++)
            for (int64_t c = 0; c < d; c++) out[c] += share[k] * tensor_row(wide, (int64_t)(first + k) * columns + i % columns)[c];
    }
    return all;
}

tensor resample_line(run *r, const float *table, int n, int64_t d, int to)
{
    tensor out = run_tensor(r, to, d);
    for (int i = 0; run_ok(r) && i < to; i++) {
        float at = (float)n / (float)to * ((float)i + 0.5f) - 0.5f;
        if (at < 0) at = 0;
        int low = (int)at, high = low + (low < n - 1);
        float part = at - (float)low;
        for (int64_t c = 0; c < d; c++) tensor_row(out, i)[c] = (1 - part) * table[low * d + c] + part * table[high * d + c];
    }
    return out;
}

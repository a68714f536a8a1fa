/* fft.c - mixed radix, decimation in time: a transform of n = p * m points is p transforms of every p-th point, joined by
 * butterflies. Factors 4 and 2 have butterflies of their own; any other prime takes p * p products, which is fine for the
 * sizes of audio frames (400 = 4 * 4 * 5 * 5). A real signal of even length is transformed as n / 2 complex points. */
#include "media/fft.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

enum { MAX_FACTORS = 20 };

struct fft {
    int n, points;                     /* points: of the complex transform, n or n / 2 */
    int factor[MAX_FACTORS];
    fft_cpx *turn;                     /* [points] exp(-2 pi i k / points) */
    fft_cpx *half;                     /* [points + 1] exp(-2 pi i k / n), n even */
    fft_cpx *in, *out, *column;        /* scratch; column: one point of each part of a large factor */
};

static fft_cpx add(fft_cpx a, fft_cpx b) { return (fft_cpx){a.re + b.re, a.im + b.im}; }
static fft_cpx sub(fft_cpx a, fft_cpx b) { return (fft_cpx){a.re - b.re, a.im - b.im}; }
static fft_cpx mul(fft_cpx a, fft_cpx b) { return (fft_cpx){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

static fft_cpx on_circle(int k, int n)
{
    double angle = -2 * 3.14159265358979323846 * k / n;
    return (fft_cpx){cos(angle), sin(angle)};
}

fft *fft_new(int n)
{
    if (n < 1 || n > FFT_MAX) return NULL;
    fft *f = MEM_NEW(fft);
    if (!f) return NULL;
    f->n = n;
    f->points = n % 2 == 0 ? n / 2 : n;
    int largest = 1, count = 0;
    for (int left = f->points, p = 4; left > 1;) {
        if (left % p == 0) {
            f->factor[count++] = p;
            left /= p;
            if (p > largest) largest = p;
        } else {
            p = p == 4 ? 2 : p == 2 ? 3 : p + 2;
            if (p * p > left && left % p != 0 && p > 2) p = left;
        }
    }
    size_t points = (size_t)f->points;
    f->turn = MEM_ARRAY(points, fft_cpx);
    f->half = MEM_ARRAY(points + 1, fft_cpx);
    f->in = MEM_ARRAY(points, fft_cpx);
    f->out = MEM_ARRAY(points, fft_cpx);
    f->column = MEM_ARRAY((size_t)largest, fft_cpx);
    if (!f->turn || !f->half || !f->in || !f->out || !f->column) return fft_free(f), NULL;
    for (int k = 0; k < f->points; k++) f->turn[k] = on_circle(k, f->points);
    for (int k = 0; k <= f->points; k++) f->half[k] = on_circle(k, n);
    return f;
}

void fft_free(fft *f)
{
    if (!f) return;
    mem_free(f->turn);
    mem_free(f->half);
    mem_free(f->in);
    mem_free(f->out);
    mem_free(f->column);
    mem_free(f);
}

static void join2(const fft *f, fft_cpx *x, int m, int stride)
{
    for (int k = 0; k < m; k++) {
        fft_cpx a = x[k], b = mul(x[k + m], f->turn[k * stride]);
        x[k] = add(a, b);
        x[k + m] = sub(a, b);
    }
}

static void join4(const fft *f, fft_cpx *x, int m, int stride)
{
    for (int k = 0; k < m; k++) {
        fft_cpx a = x[k], b = mul(x[k + m], f->turn[k * stride]);
        fft_cpx c = mul(x[k + 2 * m], f->turn[2 * k * stride]), d = mul(x[k + 3 * m], f->turn[3 * k * stride]);
        fft_cpx ac = add(a, c), bd = add(b, d), a_c = sub(a, c), b_d = sub(b, d);
        x[k] = add(ac, bd);
        x[k + m] = (fft_cpx){a_c.re + b_d.im, a_c.im - b_d.re};
        x[k + 2 * m] = sub(ac, bd);
        x[k + 3 * m] = (fft_cpx){a_c.re - b_d.im, a_c.im + b_d.re};
    }
}

static void join(fft *f, fft_cpx *x, int p, int m, int stride)
{
    for (int k = 0; k < m; k++) {
        for (int q = 0; q < p; q++) f->column[q] = x[k + q * m];
        for (int r = 0; r < p; r++) {
            int64_t step = (int64_t)(k + r * m) * stride, at = 0;
            fft_cpx sum = f->column[0];
            for (int q = 1; q < p; q++) {
                at = (at + step) % f->points;
                sum = add(sum, mul(f->column[q], f->turn[at]));
            }
            x[k + r * m] = sum;
        }
    }
}

/* out[0 .. n) = transform of in[0], in[stride], ...; n * stride = points */
static void transform(fft *f, fft_cpx *out, const fft_cpx *in, int n, int stride, const int *factor)
{
    if (n == 1) {
        *out = *in;
        return;
    }
    int p = *factor, m = n / p;
    for (int q = 0; q < p; q++) transform(f, out + q * m, in + (ptrdiff_t)q * stride, m, stride * p, factor + 1);
    if (p == 4) join4(f, out, m, stride);
    else if (p == 2) join2(f, out, m, stride);
    else join(f, out, p, m, stride);
}

void fft_real(fft *f, const double *in, fft_cpx *out)
{
    int n = f->n, h = f->points;
    if (n % 2 != 0) {
        for (int i = 0; i < n; i++) f->in[i] = (fft_cpx){in[i], 0};
        transform(f, f->out, f->in, n, 1, f->factor);
        for (int k = 0; k <= n / 2; k++) out[k] = f->out[k];
        return;
    }
    for (int i = 0; i < h; i++) f->in[i] = (fft_cpx){in[2 * i], in[2 * i + 1]};
    transform(f, f->out, f->in, h, 1, f->factor);
    for (int k = 0; k <= h; k++) {                 /* z = even + i odd: take them apart, join as a radix 2 step */
        fft_cpx a = f->out[k % h], b = f->out[(h - k) % h];
        fft_cpx even = {(a.re + b.re) / 2, (a.im - b.im) / 2}, odd = {(a.im + b.im) / 2, (b.re - a.re) / 2};
        out[k] = add(even, mul(odd, f->half[k]));
    }
}

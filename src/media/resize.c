/* resize.c - torchvision's antialiased resize of 8-bit images, to the last bit.
 *
 * As torch computes it: weights in double, normalised, then rounded to int16 with as many fraction bits as the largest weight
 * allows; horizontal pass, rounded and clipped to 8 bits; vertical pass, the same. The support of a filter is widened by the
 * scale when shrinking. An axis that keeps its size has weights 0 and 1 and passes through unchanged.
 *
 * The two passes run in one sweep: an output row needs `count` rows that were resized across; a ring keeps them, so that the
 * work stays in the cache. Bands of output rows go to threads when the picture is large. */
#include "media/resize.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "base/env.h"
#include "base/err.h"
#include "base/thread.h"
#include "media/image_codec.h"
#include "tensor/cpu/cpu.h"

/* ---- filters ---- */

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double cubic(double x)                           /* a = -0.5, as Pillow; torch uses it when antialiasing */
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static double sinc(double x)
{
    if (x == 0) return 1;
    x *= 3.141592653589793238462643;
    return sin(x) / x;
}

static double lanczos3(double x)
{
    return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

typedef struct filter { double (*at)(double); int size; } filter;

static filter filter_of(resize_filter f)
{
    switch (f) {
    case RESIZE_BICUBIC: return (filter){cubic, 4};
    case RESIZE_LANCZOS: return (filter){lanczos3, 6};
    default: return (filter){triangle, 2};
    }
}

/* ---- weights ---- */

static void taps_free(resize_taps *t)
{
    mem_free(t->first);
    mem_free(t->count);
    mem_free(t->weight);
    *t = (resize_taps){0};
}

int resize_weights_most(resize_filter f, int in, int out)
{
    double scale = (double)in / out, support = (scale >= 1 ? scale : 1) * filter_of(f).size * 0.5;
    return (int)ceil(support) * 2 + 1;
}

double resize_weights_at(resize_filter name, int in, int out, int i, int most, double *w, int *first, int *count)
{
    filter f = filter_of(name);
    double scale = (double)in / out, support = (scale >= 1 ? scale : 1) * f.size * 0.5, inverse = scale >= 1 ? 1 / scale : 1;
    double center = scale * (i + 0.5), total = 0, largest = 0;
    int64_t from = (int64_t)(center - support + 0.5), to = (int64_t)(center + support + 0.5);
    if (from < 0) from = 0;
    if (to > in) to = in;
    int n = to > from ? (int)(to - from) : 0;
    if (n > most) n = most;
    for (int k = 0; k < n; k++) total += w[k] = f.at(((double)(k + from) - center + 0.5) * inverse);
    for (int k = 0; k < n && total != 0; k++) {
        w[k] /= total;
        if (w[k] > largest) largest = w[k];
    }
    *first = (int)from;
    *count = n;
    return largest;
}

static bool taps_make(resize_taps *t, resize_filter f, int in, int out, vlm_error *error)
{
    double largest = 0;
    int most = resize_weights_most(f, in, out), stride = (most + 15) / 16 * 16;
    size_t cells = (size_t)stride * (size_t)out;
    double *w = MEM_ARRAY((size_t)most * (size_t)out, double);
    *t = (resize_taps){.out = out, .stride = stride, .first = MEM_ARRAY(out, int), .count = MEM_ARRAY(out, int),
                       .weight = MEM_ARRAY(cells, int16_t)};
    if (!w || !t->first || !t->count || !t->weight) {
        mem_free(w);
        taps_free(t);
        return err_memory(error, cells * 10);
    }
    for (int i = 0; i < out; i++) {
        double here = resize_weights_at(f, in, out, i, most, w + (size_t)i * (size_t)most, &t->first[i], &t->count[i]);
        if (here > largest) largest = here;
    }
    while (t->precision < 22 && (int)(0.5 + largest * (1 << (t->precision + 1))) < 1 << 15) t->precision++;
    for (int i = 0; i < out; i++)
        for (int k = 0; k < t->count[i]; k++) {
            double v = w[(size_t)i * (size_t)most + (size_t)k] * (1 << t->precision);
            t->weight[(size_t)i * (size_t)stride + (size_t)k] = (int16_t)(int)(v < 0 ? v - 0.5 : v + 0.5);
        }
    mem_free(w);
    return true;
}

/* ---- which loops ---- */

static resize_kernels best;

static void choose_kernels(void)
{
    unsigned features = 0;
    const char *name;
    resize_kernels_c(&best);
    if (!cpu_features(env_cpu(), &features, &name, NULL)) return;
#if defined(__x86_64__)
    if (features & CPU_AVX2) resize_kernels_avx2(&best);
#elif defined(__aarch64__)
    if (features & CPU_NEON) resize_kernels_neon(&best);
#endif
}

static const resize_kernels *kernels(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose_kernels);
    return &best;
}

/* ---- one image ---- */

typedef struct job {
    const image *in;
    image *out;
    resize_taps x, y;
    const resize_kernels *k;
    int channels;
    uint8_t *scratch;              /* per thread: the ring, a copy of an input row, an output row */
    const uint8_t **rows;          /* per thread: the rows of the ring that an output row is made of */
    size_t scratch_size, in_row, out_row, ring_row;                      /* bytes */
    int ring;
} job;

/* A row that kernels may read beyond: the last ones of the picture are copied. */
static const uint8_t *readable_row(const job *j, int64_t y, uint8_t *copy)
{
    const uint8_t *row = j->in->rgb + (size_t)y * j->in_row;
    if (((size_t)j->in->height - (size_t)y - 1) * j->in_row >= RESIZE_READ_AHEAD) return row;
    return memcpy(copy, row, j->in_row);
}

static void spread_gray(const uint8_t *gray, uint8_t *rgb, int64_t n)
{
    for (int64_t i = 0; i < n; i++) rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = gray[i];
}

/* Output rows [begin, end). */
static void resize_band(void *arg, int64_t begin, int64_t end, int thread)
{
    job *j = arg;
    uint8_t *ring = j->scratch + (size_t)thread * j->scratch_size;
    uint8_t *copy = ring + (size_t)j->ring * j->ring_row, *gray = copy + j->in_row + RESIZE_READ_AHEAD;
    const uint8_t **rows = j->rows + (size_t)thread * (size_t)j->ring;
    int64_t done = 0;                                                    /* input rows below it are in the ring */
    for (int64_t y = begin; y < end; y++) {
        int64_t from = j->y.first[y], to = from + j->y.count[y];
        if (done < from) done = from;
        for (; done < to; done++)
            (j->channels == 1 ? j->k->across_gray : j->k->across)(readable_row(j, done, copy), ring + (size_t)(done % j->ring) * j->ring_row, &j->x);
        for (int64_t i = from; i < to; i++) rows[i - from] = ring + (size_t)(i % j->ring) * j->ring_row;
        uint8_t *out = j->out->rgb + (size_t)y * (size_t)j->out->width * 3;
        j->k->down(rows, (int)(to - from), j->y.weight + (size_t)y * (size_t)j->y.stride, j->y.precision, j->channels == 1 ? gray : out,
                  (int)j->out_row);
        if (j->channels == 1) spread_gray(gray, out, j->out->width);
    }
}

static bool resize_run(job *j, vlm_error *error)
{
    enum { LARGE = 4000000 };                                            /* pixels; below, starting threads does not pay */
    int threads = (int64_t)j->in->width * j->in->height >= LARGE ? cpu_count() : 1;
    if (threads > 8) threads = 8;
    for (int i = 0; i < j->y.out; i++)
        if (j->y.count[i] > j->ring) j->ring = j->y.count[i];
    j->in_row = (size_t)j->in->width * (size_t)j->channels;
    j->out_row = (size_t)j->out->width * (size_t)j->channels;
    j->ring_row = (j->out_row + RESIZE_WRITE_AHEAD + 63) / 64 * 64;
    j->scratch_size = ((size_t)j->ring * j->ring_row + j->in_row + RESIZE_READ_AHEAD + j->out_row + 63) / 64 * 64;
    size_t total;
    if (!mem_mul(j->scratch_size, (size_t)threads, &total)) return err_memory(error, SIZE_MAX);
    j->scratch = mem_aligned(total);
    j->rows = MEM_ARRAY((size_t)j->ring * (size_t)threads, const uint8_t *);
    if (!j->scratch || !j->rows) return err_memory(error, total);
    memset(j->scratch, 0, total);                                        /* what is read ahead has a value */
    pool *p = threads > 1 ? pool_new(threads, NULL) : NULL;              /* without one it runs here */
    pool_for(p, j->out->height, (j->out->height + 4 * threads - 1) / (4 * threads), resize_band, j);
    pool_free(p);
    return true;
}

static void resize_nearest(const image *in, image *out)
{
    float sx = (float)in->width / (float)out->width, sy = (float)in->height / (float)out->height;
    size_t channels = in->gray ? 1 : 3;
    for (int y = 0; y < out->height; y++) {
        int from_y = (int)floorf((float)y * sy);
        if (from_y > in->height - 1) from_y = in->height - 1;
        const uint8_t *row = in->rgb + (size_t)from_y * (size_t)in->width * channels;
        uint8_t *to = out->rgb + (size_t)y * (size_t)out->width * 3;
        for (int x = 0; x < out->width; x++, to += 3) {
            int from_x = (int)floorf((float)x * sx);
            if (from_x > in->width - 1) from_x = in->width - 1;
            const uint8_t *p = row + channels * (size_t)from_x;
            to[0] = p[0], to[1] = p[channels / 2], to[2] = p[channels - 1];
        }
    }
}

bool image_to_rgb(image *img, vlm_error *error)
{
    if (!img->gray) return true;
    int64_t pixels = (int64_t)img->width * img->height;
    uint8_t *rgb = mem_aligned((size_t)pixels * 3);
    if (!rgb) return err_memory(error, (size_t)pixels * 3);
    spread_gray(img->rgb, rgb, pixels);
    mem_free(img->rgb);
    img->rgb = rgb;
    img->gray = false;
    return true;
}

enum { MOST_PIXELS = 1 << 29 };

bool resize_sizes_fit(const image *in, int width, int height, vlm_error *error)
{
    if (width < 1 || height < 1 || in->width < 1 || in->height < 1 || !in->rgb)
        return err_set(error, VLM_INVALID, "cannot resize %d x %d pixels to %d x %d", in->width, in->height, width, height);
    return (int64_t)width * height <= MOST_PIXELS || err_set(error, VLM_LIMIT, "a picture of %d x %d pixels was asked for", width, height);
}

bool image_resize(const image *in, int width, int height, resize_filter f, image *out, vlm_error *error)
{
    if (f == RESIZE_PLAIN) return image_resize_plain(in, width, height, out, error);
    *out = (image){0};
    if (!resize_sizes_fit(in, width, height, error)) return false;
    size_t size = (size_t)width * (size_t)height * 3;
    out->rgb = mem_aligned(size);
    if (!out->rgb) return err_memory(error, size);
    out->width = width;
    out->height = height;
    if (width == in->width && height == in->height) {
        if (in->gray) spread_gray(in->rgb, out->rgb, (int64_t)width * height);
        else memcpy(out->rgb, in->rgb, size);
        return true;
    }
    if (f == RESIZE_NEAREST) return resize_nearest(in, out), true;
    job j = {.in = in, .out = out, .k = kernels(), .channels = in->gray ? 1 : 3};
    bool ok = taps_make(&j.x, f, in->width, width, error) && taps_make(&j.y, f, in->height, height, error) &&
              resize_run(&j, error);
    taps_free(&j.x);
    taps_free(&j.y);
    mem_free(j.scratch);
    mem_free(j.rows);
    if (!ok) image_free(out);
    return ok;
}

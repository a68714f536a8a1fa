/* resize_other.c - two other ways to resize. Pillow's, to the last bit: for processors that resize with Pillow instead of torchvision. And the plain
 * bilinear one of those that ask torchvision not to smooth (Molmo 2), in float32 as torch computes it.
 *
 * The filters and their weights are resize.c's. What differs: weights have 22 fraction bits whatever their size, and since Pillow 13 the vertical pass
 * comes first where it takes away more than twice as many rows as the other one columns. An axis that keeps its size has no pass. Pictures that go
 * this way are few and become small; plain C is fast enough. */
#include "media/resize.h"

#include <math.h>

#include "base/err.h"

enum { BITS = 22 };

typedef struct axis { int out, most, *first, *count; int32_t *weight; } axis;

static void axis_free(axis *a)
{
    mem_free(a->first);
    mem_free(a->count);
    mem_free(a->weight);
}

static bool axis_make(axis *a, resize_filter f, int in, int out, vlm_error *error)
{
    *a = (axis){.out = out, .most = resize_weights_most(f, in, out), .first = MEM_ARRAY(out, int), .count = MEM_ARRAY(out, int)};
    size_t cells;
    double *w = MEM_ARRAY((size_t)a->most, double);
    a->weight = mem_mul((size_t)a->most, (size_t)out, &cells) ? MEM_ARRAY(cells, int32_t) : NULL;
    bool ok = w && a->first && a->count && a->weight;
    for (int i = 0; ok && i < out; i++) {
        resize_weights_at(f, in, out, i, a->most, w, &a->first[i], &a->count[i]);
        for (int k = 0; k < a->count[i]; k++)
            a->weight[(size_t)i * (size_t)a->most + (size_t)k] = (int32_t)(w[k] * (1 << BITS) + (w[k] < 0 ? -0.5 : 0.5));
    }
    mem_free(w);
    return ok || err_memory(error, (size_t)out * sizeof(int));
}

static uint8_t clip(int32_t sum)
{
    int32_t v = sum >> BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* Sums of values `step` bytes apart: of neighbours in a row, or in a column. */
static uint8_t weighted(const uint8_t *in, size_t step, const axis *a, int i)
{
    const int32_t *w = a->weight + (size_t)i * (size_t)a->most;
    int32_t sum = 1 << (BITS - 1);
    in += (size_t)a->first[i] * step;
    for (int k = 0; k < a->count[i]; k++, in += step) sum += *in * w[k];
    return clip(sum);
}

/* img becomes `out` columns wide (rows high, when `down`). */
static bool pass(image *img, resize_filter f, int out, bool down, vlm_error *error)
{
    axis a;
    int width = down ? img->width : out, height = down ? out : img->height;
    size_t row = (size_t)img->width * 3, size = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = mem_aligned(size), *to = rgb;
    bool ok = axis_make(&a, f, down ? img->height : img->width, out, error) && (rgb || err_memory(error, size));
    for (int y = 0; ok && y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                *to++ = down ? weighted(img->rgb + (size_t)x * 3 + c, row, &a, y) : weighted(img->rgb + (size_t)y * row + c, 3, &a, x);
    axis_free(&a);
    if (!ok) return mem_free(rgb), false;
    mem_free(img->rgb);
    *img = (image){.width = width, .height = height, .rgb = rgb};
    return true;
}

bool image_resize_pillow(const image *in, int width, int height, resize_filter f, image *out, vlm_error *error)
{
    *out = (image){0};
    if (f == RESIZE_NEAREST) return err_set(error, VLM_UNSUPPORTED, "Pillow's nearest neighbour is not there");
    /* A copy, checked and in colours. */
    if (!resize_sizes_fit(in, width, height, error) || !image_resize(in, in->width, in->height, f, out, error)) return false;
    int rows = in->height - height, columns = in->width - width;
    bool down_first = rows > 0 && rows > 2 * (int64_t)columns, ok = true;
    for (int i = 0; ok && i < 2; i++) {
        bool down = down_first == (i == 0);
        if (down ? rows : columns) ok = pass(out, f, down ? height : width, down, error);
    }
    if (!ok) image_free(out);
    return ok;
}

/* ---- not smoothed ---- */

static float fused(float a, float b, float c) { return (float)((double)a * b + c); }

typedef struct neighbours { int low, high; float share, rest; } neighbours;

/* The two neighbours of output i and their shares. */
static neighbours neighbours_at(int i, int in, int out)
{
    float scale = (float)in / (float)out, at = fused(scale, (float)i + 0.5f, -0.5f);
    if (at < 0) at = 0;
    int low = (int)at < in - 1 ? (int)at : in - 1;
    float share = fminf(at - (float)low, 1);
    return (neighbours){low, low + (low < in - 1), share, 1 - share};
}

/* As torch computes it with one thread; with several and for large pictures it sums in another order, so that ties may fall otherwise. */
static float mixed(float a, float b, float c, float d, const neighbours *x, const neighbours *y)
{
    return fused(y->share * x->share, d, fused(y->share * x->rest, c, fused(y->rest * x->rest, a, y->rest * x->share * b)));
}

bool image_resize_plain(const image *in, int width, int height, image *out, vlm_error *error)
{
    *out = (image){0};
    image rgb;
    if (!resize_sizes_fit(in, width, height, error) || !image_resize(in, in->width, in->height, RESIZE_BILINEAR, &rgb, error)) return false;
    if (width == in->width && height == in->height) return *out = rgb, true;
    size_t size = (size_t)width * (size_t)height * 3, row = (size_t)in->width * 3;
    neighbours *x = MEM_ARRAY(width, neighbours);
    *out = (image){.width = width, .height = height, .rgb = mem_aligned(size)};
    if (!out->rgb || !x) return mem_free(x), image_free(&rgb), image_free(out), err_memory(error, size);
    for (int i = 0; i < width; i++) x[i] = neighbours_at(i, in->width, width);
    uint8_t *to = out->rgb;
    for (int k = 0; k < height; k++) {
        neighbours y = neighbours_at(k, in->height, height);
        const uint8_t *a = rgb.rgb + (size_t)y.low * row, *b = rgb.rgb + (size_t)y.high * row;
        for (int i = 0; i < width; i++)
            for (int c = 0; c < 3; c++) {
                int left = 3 * x[i].low + c, right = 3 * x[i].high + c;
                *to++ = (uint8_t)nearbyintf(mixed(a[left], a[right], b[left], b[right], &x[i], &y));
            }
    }
    mem_free(x);
    image_free(&rgb);
    return true;
}

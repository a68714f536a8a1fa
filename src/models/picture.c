/* picture.c - see picture.h. Rules: transformers image_processing_backends.py, image_processing_llava_next.py. */
#include "models/picture.h"

#include <stdio.h>
#include <math.h>
#include <string.h>

#include "base/err.h"

const double picture_clip[2][3] = {{0.48145466, 0.4578275, 0.40821073}, {0.26862954, 0.26130258, 0.27577711}};
const double picture_half[2][3] = {{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}};
const double picture_imagenet[2][3] = {{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};

static const char *path(char *to, size_t size, const char *where, const char *key)
{
    snprintf(to, size, "%s.%s", where, key);
    return to;
}

/* Pillow's numbers. */
static resize_filter filter_of(int64_t resample, resize_filter fallback)
{
    switch (resample) {
    case 0: return RESIZE_NEAREST;
    case 1: return RESIZE_LANCZOS;
    case 2: return RESIZE_BILINEAR;
    case 3: return RESIZE_BICUBIC;
    default: return fallback;
    }
}

bool picture_config(picture_norm *n, config *p, const char *where, const double usual[2][3], resize_filter filter)
{
    char key[128];
    double mean[3], std[3];
    bool has_mean = config_numbers(p, path(key, sizeof key, where, "image_mean"), mean, 3) == 3;
    bool has_std = config_numbers(p, path(key, sizeof key, where, "image_std"), std, 3) == 3;
    bool normalize = config_bool(p, path(key, sizeof key, where, "do_normalize"), true);
    double rescale = config_number(p, path(key, sizeof key, where, "rescale_factor"), 1 / 255.0);
    if (!config_bool(p, path(key, sizeof key, where, "do_rescale"), true)) rescale = 1;
    memset(n->outside, 0, sizeof n->outside);
    n->pillow = false;
    n->filter = filter_of(config_int(p, path(key, sizeof key, where, "resample"), -1, -1, 5), filter);
    if (p->failed) return false;
    if (!(rescale > 0)) return config_fail(p, VLM_FORMAT, "%s.rescale_factor must be positive", where);
    float scale = (float)(1.0 / rescale);
    for (int c = 0; c < 3; c++) {
        float m = (float)(has_mean ? mean[c] : usual[0][c]), s = (float)(has_std ? std[c] : usual[1][c]);
        if (!(s > 0)) return config_fail(p, VLM_FORMAT, "%s.image_std must be positive", where);
        for (int i = 0; i < 256; i++) n->value[c][i] = normalize ? ((float)i - m * scale) / (s * scale) : (float)i * (float)rescale;
    }
    return true;
}

bool picture_cut(const image *img, int x, int y, int width, int height, image *out, vlm_error *error)
{
    if (x + width > img->width) width = img->width - x;
    if (y + height > img->height) height = img->height - y;
    size_t channels = img->gray ? 1 : 3, row_bytes = (size_t)width * channels;
    *out = (image){.width = width, .height = height, .gray = img->gray, .rgb = mem_aligned(row_bytes * (size_t)height)};
    if (!out->rgb) return err_memory(error, row_bytes * (size_t)height);
    for (int row = 0; row < height; row++)
        memcpy(out->rgb + (size_t)row * row_bytes, img->rgb + ((size_t)(y + row) * (size_t)img->width + (size_t)x) * channels, row_bytes);
    return true;
}

void picture_window(const picture_norm *n, const image *img, int x, int y, int width, int height, float *out)
{
    for (int c = 0; c < 3; c++)
        for (int row = y; row < y + height; row++) {
            const uint8_t *p = row >= 0 && row < img->height ? img->rgb + (size_t)row * (size_t)img->width * 3 + c : NULL;
            for (int column = x; column < x + width; column++) {
                bool inside = p && column >= 0 && column < img->width;
                *out++ = n->value[c][inside ? p[(size_t)column * 3] : n->outside[c]];
            }
        }
}

bool picture_resize(const picture_norm *n, const image *img, int width, int height, image *out, vlm_error *error)
{
    return (n->pillow ? image_resize_pillow : image_resize)(img, width, height, n->filter, out, error);
}

bool picture_resized(const picture_norm *n, const image *img, int width, int height, int x, int y, int window_width, int window_height, float *out,
                     vlm_error *error)
{
    image resized;
    if (!width || !height) { width = img->width; height = img->height; }
    if (!picture_resize(n, img, width, height, &resized, error)) return false;
    picture_window(n, &resized, x, y, window_width, window_height, out);
    image_free(&resized);
    return true;
}

picture_place picture_contain(const image *img, int width, int height)
{
    picture_place p = {.width = width, .height = height};
    double is = (double)img->width / img->height, wanted = (double)width / height;
    if (is > wanted) p.height = (int)fmax(nearbyint((double)img->height / img->width * width), 1);
    else if (is < wanted) p.width = (int)fmax(nearbyint((double)img->width / img->height * height), 1);
    if (p.width != width) p.x = (int)nearbyint((width - p.width) * 0.5);
    else p.y = (int)nearbyint((height - p.height) * 0.5);
    return p;
}

static float cubic(float off)
{
    const float a = -0.75f;
    off = fabsf(off);
    return off < 1 ? ((a + 2) * off - (a + 3)) * off * off + 1 : off < 2 ? ((a * off - 5 * a) * off + 8 * a) * off - 4 * a : 0;
}

/* Where sample i of `to` lies among `from`: four neighbours and their shares. */
static void cubic_taps(int i, int from, int to, int at[4], float share[4])
{
    float place = (float)from / (float)to * ((float)i + 0.5f) - 0.5f, low = floorf(place);
    for (int k = 0; k < 4; k++) {
        int n = (int)low - 1 + k;
        at[k] = n < 0 ? 0 : n >= from ? from - 1 : n;
        share[k] = cubic(place - low + 1 - (float)k);
    }
}

void picture_shrink(const float *in, int height, int width, int side, float *out)
{
    for (int y = 0; y < side; y++) {
        int row[4], column[4];
        float down[4], across[4];
        cubic_taps(y, height, side, row, down);
        for (int x = 0; x < side; x++) {
            cubic_taps(x, width, side, column, across);
            for (int c = 0; c < 3; c++) {
                float sum = 0;
                for (int a = 0; a < 4; a++) {
                    const float *line = in + ((int64_t)c * height + row[a]) * width;
                    float part = 0;
                    for (int b = 0; b < 4; b++) part += line[column[b]] * across[b];
                    sum += part * down[a];
                }
                out[((int64_t)c * side + y) * side + x] = sum;
            }
        }
    }
}

float *picture_tiles(media_input *out, int64_t tiles, int height, int width, vlm_error *error)
{
    const char *name = out->kind == MEDIA_VIDEO ? "pixel_values_videos" : "pixel_values";
    processed *p = tiles ? media_input_add(out, name, DT_F32, 5, (const int64_t[]){1, tiles, 3, height, width})
                         : media_input_add(out, name, DT_F32, 4, (const int64_t[]){1, 3, height, width});
    if (!p) err_memory(error, (size_t)(tiles * 3 * height * width) * sizeof(float));
    return p ? p->data : NULL;
}

/* ---- middle ---- */

bool picture_middle_config(picture_middle *f, config *p, const char *where, int side, int patch)
{
    enum { MOST = 1 << 14 };
    char key[128];
    f->height = (int)config_int(p, path(key, sizeof key, where, "size.height"), side, 1, MOST);
    f->width = (int)config_int(p, path(key, sizeof key, where, "size.width"), side, 1, MOST);
    f->shortest = (int)config_int(p, path(key, sizeof key, where, "size.shortest_edge"), 0, 1, MOST);
    if (config_bool(p, path(key, sizeof key, where, "do_center_crop"), f->shortest > 0)) {
        f->crop_height = (int)config_int(p, path(key, sizeof key, where, "crop_size.height"), side, 1, MOST);
        f->crop_width = (int)config_int(p, path(key, sizeof key, where, "crop_size.width"), side, 1, MOST);
    }
    if (p->failed) return false;
    int height, width;
    picture_middle_size(f, &height, &width);
    if (f->shortest && !f->crop_height) return config_fail(p, VLM_UNSUPPORTED, "the processor keeps the shape of pictures (no crop); the tower has one of its own");
    return (height / patch == side / patch && width / patch == side / patch) ||
           config_fail(p, VLM_FORMAT, "the processor gives pictures of %d x %d, the vision tower takes %d x %d", width, height, side, side);
}

void picture_middle_size(const picture_middle *f, int *height, int *width)
{
    *height = f->crop_height ? f->crop_height : f->height;
    *width = f->crop_width ? f->crop_width : f->width;
}

/* How far the window lies inside; negative: outside. */
static int middle(int side, int crop) { return side >= crop ? (side - crop) / 2 : -((crop - side) / 2); }

bool picture_middle_resized(const picture_middle *f, int from_width, int from_height, int *width, int *height, vlm_error *error)
{
    *width = f->width, *height = f->height;
    if (!f->shortest) return true;
    bool wide = from_width > from_height;
    double ratio = wide ? (double)from_width / from_height : (double)from_height / from_width;
    if (ratio > 200) return err_set(error, VLM_UNSUPPORTED, "image of %d x %d: one side is more than 200 times the other", from_width, from_height);
    int64_t longer = wide ? (int64_t)f->shortest * from_width / from_height : (int64_t)f->shortest * from_height / from_width;
    *width = wide ? (int)longer : f->shortest;
    *height = wide ? f->shortest : (int)longer;
    return true;
}

bool picture_middle_write(const picture_middle *f, const picture_norm *n, const image *img, float *out, vlm_error *error)
{
    int height, width, crop_height, crop_width;
    picture_middle_size(f, &crop_height, &crop_width);
    if (!picture_middle_resized(f, img->width, img->height, &width, &height, error)) return false;
    return picture_resized(n, img, width, height, middle(width, crop_width), middle(height, crop_height), crop_width, crop_height, out, error);
}

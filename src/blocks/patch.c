/* patch.c - see patch.h. Rules: transformers image_processing_qwen2_vl.py. */
#include "blocks/patch.h"

#include <math.h>

#include "base/err.h"

int64_t round_half_even(double x)
{
    double down = floor(x), rest = x - down;
    return (int64_t)down + (rest > 0.5 || (rest == 0.5 && fmod(down, 2) != 0));
}

/* `frames` pictures that are counted as `counted` ones (whole groups); 1 and 1 for an image. */
static bool fit(int height, int width, double frames, double counted, int factor, int64_t min_pixels, int64_t max_pixels, int *out_height, int *out_width,
                vlm_error *error)
{
    if (height < 1 || width < 1 || factor < 1 || min_pixels < 1 || max_pixels < min_pixels)
        return err_set(error, VLM_INVALID, "image of %d x %d cannot be brought to %lld ... %lld pixels", width, height, (long long)min_pixels, (long long)max_pixels);
    double longer = height > width ? height : width, shorter = height > width ? width : height;
    if (longer / shorter > 200) return err_set(error, VLM_UNSUPPORTED, "image of %d x %d: one side is more than 200 times the other", width, height);
    double f = factor, area = frames * height * width;
    double h = (double)round_half_even(height / f) * f, w = (double)round_half_even(width / f) * f;
    if (counted * h * w > (double)max_pixels) {
        double beta = sqrt(area / (double)max_pixels);
        h = fmax(f, floor(height / beta / f) * f);
        w = fmax(f, floor(width / beta / f) * f);
    } else if (counted * h * w < (double)min_pixels) {
        double beta = sqrt((double)min_pixels / area);
        h = ceil(height * beta / f) * f;
        w = ceil(width * beta / f) * f;
    }
    if (h > 65535 || w > 65535 || h * w > 4e9)
        return err_set(error, VLM_LIMIT, "image of %d x %d becomes %.0f x %.0f, which is too much", width, height, w, h);
    *out_height = (int)h;
    *out_width = (int)w;
    return true;
}

bool smart_resize(int height, int width, int factor, int64_t min_pixels, int64_t max_pixels, int *out_height, int *out_width, vlm_error *error)
{
    return fit(height, width, 1, 1, factor, min_pixels, max_pixels, out_height, out_width, error);
}

bool smart_resize_video(int height, int width, int frames, int temporal, int factor, int64_t min_pixels, int64_t max_pixels, int *out_height, int *out_width,
                        vlm_error *error)
{
    if (frames < temporal) frames = temporal;
    if (height > 0 && width > 0 && (height < factor || width < factor)) {
        double scale = fmax((double)factor / height, (double)factor / width);
        if (scale * height > 1e6 || scale * width > 1e6) return err_set(error, VLM_UNSUPPORTED, "frames of %d x %d are too thin", width, height);
        height = (int)(height * scale);
        width = (int)(width * scale);
    }
    double counted = (double)round_half_even((double)frames / temporal) * temporal;
    return fit(height, width, frames, counted, factor, min_pixels, max_pixels, out_height, out_width, error);
}

/* One patch of one frame group: [channel][temporal][patch][patch]. */
static float *one_patch(const image *const *group, const patch_spec *s, int width, int row, int column, float (*value)[256], float *out)
{
    for (int c = 0; c < PATCH_CHANNELS; c++)
        for (int t = 0; t < s->temporal; t++)
            for (int y = 0; y < s->patch; y++) {
                const uint8_t *p = group[t]->rgb + ((size_t)(row * s->patch + y) * (size_t)width + (size_t)column * (size_t)s->patch) * 3 + c;
                for (int x = 0; x < s->patch; x++, p += 3) *out++ = value[c][*p];
            }
    return out;
}

void patchify(const image *frames, int count, int width, int height, const patch_spec *s, float *out)
{
    enum { MAX_TEMPORAL = 16 };
    float value[PATCH_CHANNELS][256];
    float scale = (float)(1.0 / s->rescale);
    for (int c = 0; c < PATCH_CHANNELS; c++)
        for (int i = 0; i < 256; i++) value[c][i] = ((float)i - s->mean[c] * scale) / (s->std[c] * scale);
    int rows = height / s->patch, columns = width / s->patch, m = s->raster ? 1 : s->merge;
    for (int first = 0; first < count; first += s->temporal) {
        const image *group[MAX_TEMPORAL];
        for (int t = 0; t < s->temporal && t < MAX_TEMPORAL; t++) group[t] = &frames[first + t < count ? first + t : count - 1];
        for (int block_row = 0; block_row < rows / m; block_row++)
            for (int block_column = 0; block_column < columns / m; block_column++)
                for (int i = 0; i < m * m; i++)
                    out = one_patch(group, s, width, block_row * m + i / m, block_column * m + i % m, value, out);
    }
}

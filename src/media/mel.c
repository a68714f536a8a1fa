/* mel.c - see mel.h. Samples, window and their product are float32 as in the reference; transform, filters and logarithm are
 * computed in double, which is nearer to the true value than the reference's float32 (they agree to some 1e-6). */
#include "media/mel.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "media/fft.h"

static const double PI = 3.14159265358979323846;

/* ---- the mel axis ---- */

static double mel_of(double hz, mel_scale scale)
{
    if (scale == MEL_HTK) return 2595 * log10(1 + hz / 700);
    if (scale == MEL_KALDI) return 1127 * log(1 + hz / 700);
    return hz >= 1000 ? 15 + log(hz / 1000) * (27 / log(6.4)) : 3 * hz / 200;
}

static double hz_of(double mel, mel_scale scale)
{
    if (scale == MEL_HTK) return 700 * (pow(10, mel / 2595) - 1);
    if (scale == MEL_KALDI) return 700 * (exp(mel / 1127) - 1);
    return mel >= 15 ? 1000 * exp(log(6.4) / 27 * (mel - 15)) : 200 * mel / 3;
}

/* ---- everything that is the same for all frames ---- */

typedef struct mel_plan {
    const mel_spec *spec;
    int spectrum;                  /* fft / 2 + 1 */
    float *window;
    double *filters;               /* [bins, spectrum] */
    int *first, *last;             /* [bins] where a filter is not zero: [first, last) */
    double *frame;                 /* [fft] */
    fft_cpx *transformed;          /* [spectrum] */
    double *magnitude;             /* [spectrum] */
    fft *fft;
} mel_plan;

static void plan_free(mel_plan *p)
{
    mem_free(p->window);
    mem_free(p->filters);
    mem_free(p->first);
    mem_free(p->last);
    mem_free(p->frame);
    mem_free(p->transformed);
    mem_free(p->magnitude);
    fft_free(p->fft);
}

static void make_window(mel_plan *p)
{
    double base = p->spec->hamming ? 0.54 : 0.5;
    int n = p->spec->frame_length, period = p->spec->periodic_window ? n : n - 1;
    for (int i = 0; i < n; i++) p->window[i] = (float)(period > 0 ? base - (1 - base) * cos(2 * PI * i / period) : 1);
}

/* Triangles between three neighbours of bins + 2 points that are equally far apart on the mel axis. */
static void make_filters(mel_plan *p)
{
    const mel_spec *s = p->spec;
    double low = mel_of(s->min_hz, s->scale), step = (mel_of(s->max_hz, s->scale) - low) / (s->bins + 1);
    double top = s->mel_triangles ? (double)s->rate / 2 : (double)(s->rate / 2);
    for (int b = 0; b < s->bins; b++) {
        double x[3], hz[3];
        for (int i = 0; i < 3; i++) {
            x[i] = hz[i] = hz_of(low + step * (b + i), s->scale);
            if (s->mel_triangles) x[i] = low + step * (b + i);
        }
        double *row = p->filters + (size_t)b * (size_t)p->spectrum;
        p->first[b] = p->spectrum;
        for (int k = 0; k < p->spectrum; k++) {
            double f = top * k / (p->spectrum - 1);
            if (s->mel_triangles) f = mel_of(f, s->scale);
            double up = (f - x[0]) / (x[1] - x[0]), down = (x[2] - f) / (x[2] - x[1]);
            double value = up < down ? up : down;
            if (!(value > 0)) continue;
            row[k] = s->slaney_norm ? value * (2 / (hz[2] - hz[0])) : value;
            if (p->first[b] > k) p->first[b] = k;
            p->last[b] = k + 1;
        }
    }
}

static bool plan_make(mel_plan *p, const mel_spec *s, vlm_error *error)
{
    if (s->fft < 2 || s->fft > FFT_MAX || s->frame_length < 1 || s->frame_length > s->fft || s->hop < 1 || s->bins < 1 || s->bins > 4096 ||
        s->rate < 1 || s->frame_extra < 0 || s->frame_extra > s->fft || s->pad_left < 0 || s->pad_right < 0 || !(s->max_hz > s->min_hz))
        return err_set(error, VLM_INVALID, "mel spectrogram: frames of %d samples every %d, transform of %d, %d bins, %g to %g Hz",
                       s->frame_length, s->hop, s->fft, s->bins, s->min_hz, s->max_hz);
    size_t spectrum = (size_t)s->fft / 2 + 1, bins = (size_t)s->bins;
    *p = (mel_plan){.spec = s, .spectrum = (int)spectrum, .window = MEM_ARRAY((size_t)s->frame_length, float),
        .filters = MEM_ARRAY(bins * spectrum, double), .first = MEM_ARRAY(bins, int), .last = MEM_ARRAY(bins, int),
        .frame = MEM_ARRAY((size_t)s->fft, double), .transformed = MEM_ARRAY(spectrum, fft_cpx),
        .magnitude = MEM_ARRAY(spectrum, double), .fft = fft_new(s->fft)};
    if (!p->window || !p->filters || !p->first || !p->last || !p->frame || !p->transformed || !p->magnitude || !p->fft) {
        plan_free(p);
        return err_memory(error, bins * spectrum * sizeof(double));
    }
    make_window(p);
    make_filters(p);
    return true;
}

/* ---- one frame ---- */

/* Sample i of the padded signal. */
static float sample_at(const float *samples, int64_t count, const mel_spec *s, int64_t i)
{
    i -= s->pad_left;
    if (i < 0 && s->pad_reflect) i = -i;
    if (i >= count && s->pad_reflect) i = 2 * (count - 1) - i;
    return i >= 0 && i < count ? samples[i] : 0;
}

static void load_frame(mel_plan *p, const float *samples, int64_t count, int64_t start)
{
    const mel_spec *s = p->spec;
    float scale = (float)s->input_scale, keep = (float)s->preemphasis, last = 0;
    bool ahead = s->preemphasis > 0 && !s->preemphasis_htk;         /* x[i + 1] - p x[i], as Gemma 3n's unfolding has it */
    for (int i = 0; i < s->frame_length; i++) {
        float x = sample_at(samples, count, s, start + i) * scale, value = x;
        if (ahead) value = sample_at(samples, count, s, start + i + 1) * scale - keep * x;
        else if (s->preemphasis > 0) value = i == 0 ? x * (float)(1 - s->preemphasis) : x - keep * last;
        last = x;
        p->frame[i] = value * p->window[i];
    }
}

static void mel_row(mel_plan *p, float *out)
{
    const mel_spec *s = p->spec;
    fft_real(p->fft, p->frame, p->transformed);
    for (int k = 0; k < p->spectrum; k++) {
        double re = p->transformed[k].re, im = p->transformed[k].im, power = re * re + im * im;
        p->magnitude[k] = s->power ? power : sqrt(power);
    }
    for (int b = 0; b < s->bins; b++) {
        const double *filter = p->filters + (size_t)b * (size_t)p->spectrum;
        double sum = 0;
        for (int k = p->first[b]; k < p->last[b]; k++) sum += filter[k] * p->magnitude[k];
        if (s->log == MEL_LN_PLUS) sum = log(sum + s->floor);
        else sum = s->log == MEL_LN_FLOOR ? log(fmax(sum, s->floor)) : log10(fmax(sum, s->floor));
        if (s->mean) sum -= s->mean[b];
        if (s->stddev) sum /= s->stddev[b];
        out[b] = (float)sum;
    }
}

static void whisper_range(float *values, size_t n)
{
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++)
        if (values[i] > largest) largest = values[i];
    for (size_t i = 0; i < n; i++) values[i] = (fmaxf(values[i], largest - 8) + 4) / 4;
}

mel_spec mel_spec_whisper(int bins)
{
    return (mel_spec){.rate = 16000, .frame_length = 400, .hop = 160, .fft = 400, .bins = bins, .max_hz = 8000, .scale = MEL_SLANEY,
        .slaney_norm = true, .power = true, .periodic_window = true, .input_scale = 1, .pad_left = 200, .pad_right = 200,
        .pad_reflect = true, .log = MEL_LOG10_WHISPER, .floor = 1e-10};
}

int64_t mel_frames(const mel_spec *s, int64_t count)
{
    int64_t room = count + s->pad_left + s->pad_right - s->frame_length - s->frame_extra;
    if (count < 1 || room < 0 || s->hop < 1) return 0;
    return room / s->hop + 1 - (s->log == MEL_LOG10_WHISPER);
}

bool mel_spectrogram(const float *samples, int64_t count, const mel_spec *spec, float **out, int64_t *frames, vlm_error *error)
{
    *out = NULL;
    *frames = 0;
    mel_plan p = {0};
    if (!plan_make(&p, spec, error)) return false;
    int64_t n = mel_frames(spec, count);
    bool ok = n > 0 || err_set(error, VLM_INVALID, "%lld samples are too few for a spectrogram", (long long)count);
    if (ok && spec->pad_reflect && (spec->pad_left >= count || spec->pad_right >= count))
        ok = err_set(error, VLM_INVALID, "%lld samples are too few to be reflected at the ends", (long long)count);
    float *rows = ok ? MEM_ARRAY((size_t)n * (size_t)spec->bins, float) : NULL;
    if (ok && !rows) ok = err_memory(error, (size_t)n * (size_t)spec->bins * sizeof(float));
    for (int64_t i = 0; ok && i < n; i++) {
        load_frame(&p, samples, count, i * spec->hop);
        mel_row(&p, rows + (size_t)i * (size_t)spec->bins);
    }
    if (ok && spec->log == MEL_LOG10_WHISPER) whisper_range(rows, (size_t)n * (size_t)spec->bins);
    plan_free(&p);
    if (!ok) return false;
    *out = rows;
    *frames = n;
    return true;
}

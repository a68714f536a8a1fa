/* mel_test.c - spectrograms against transformers' feature extractors, the transform against its definition. */
#include "media_util.h"

#include <math.h>

#include "media/fft.h"
#include "media/mel.h"

static void transform_of_any_size(void **state)
{
    (void)state;
    for (int n = 1; n < 140; n++) {
        fft *f = fft_new(n);
        assert_non_null(f);
        double in[140];
        fft_cpx out[80];
        for (int i = 0; i < n; i++) in[i] = sin(i * i * 0.3 + i) + 0.1 * i;
        fft_real(f, in, out);
        for (int k = 0; k <= n / 2; k++) {
            double re = 0, im = 0;
            for (int i = 0; i < n; i++) {
                double angle = 2 * 3.14159265358979323846 * (double)(i * k % n) / n;
                re += in[i] * cos(angle);
                im -= in[i] * sin(angle);
            }
            assert_true(fabs(re - out[k].re) < 1e-9 && fabs(im - out[k].im) < 1e-9);
        }
        fft_free(f);
    }
    assert_null(fft_new(0));
    assert_null(fft_new(FFT_MAX + 1));
}

enum { SAMPLES = 6400 };

static float *make_signal(void)                       /* as signal() of tools/goldens/media.py */
{
    float *x = MEM_ARRAY(SAMPLES, float);
    assert_non_null(x);
    for (int i = 0; i < SAMPLES; i++) {
        double noise = (double)(((uint64_t)i * 2654435761u >> 7) % 1000) / 1000 - 0.5, t = i;
        x[i] = (float)(0.4 * sin(t * t * 2e-5 + 0.02 * t) + 0.05 * noise);
    }
    return x;
}

/* valid: frames that are made of samples only (the reference blanks the others). */
static void check(const mel_spec *spec, const char *name, int64_t valid, double bound)
{
    float *x = make_signal(), *got;
    int64_t frames;
    vlm_error e = {0};
    if (!mel_spectrogram(x, SAMPLES, spec, &got, &frames, &e)) fail_msg("%s", e.message);
    assert_int_equal(frames, mel_frames(spec, SAMPLES));
    int n;
    float *want = read_numbers(name, &n);
    assert_int_equal(n, (int)((frames * spec->bins + 12) / 13));
    double worst = 0;
    for (int i = 0; i < n && (int64_t)i * 13 < valid * spec->bins; i++) worst = fmax(worst, fabs((double)want[i] - (double)got[(size_t)i * 13]));
    if (!(worst < bound)) fail_msg("%s: off by %g", name, worst);
    mem_free(x), mem_free(got), mem_free(want);
}

static void gemma4(void **state)
{
    (void)state;
    mel_spec s = {.rate = 16000, .frame_length = 320, .hop = 160, .fft = 512, .bins = 128, .max_hz = 8000, .scale = MEL_HTK, .periodic_window = true,
                  .input_scale = 1, .pad_left = 160, .frame_extra = 1, .log = MEL_LN_PLUS, .floor = 1e-3};
    check(&s, "mel_gemma4.txt", (SAMPLES + 160 - 321) / 160 + 1, 1e-5);
}

static void gemma3n(void **state)
{
    (void)state;
    mel_spec s = {.rate = 16000, .frame_length = 512, .hop = 160, .fft = 1024, .bins = 128, .min_hz = 125, .max_hz = 7600, .scale = MEL_HTK,
                  .periodic_window = true, .preemphasis = 0.97, .preemphasis_htk = true, .input_scale = 1, .pad_left = 256, .frame_extra = 1,
                  .log = MEL_LN_PLUS, .floor = 1e-5};
    check(&s, "mel_gemma3n.txt", (SAMPLES + 256 - 513) / 160 + 1, 1e-5);
}

static void whisper(void **state)
{
    (void)state;
    mel_spec s = mel_spec_whisper(80);
    check(&s, "mel_whisper.txt", SAMPLES / 160, 3e-5);            /* the reference transforms in float32 */
}

static void refuses(void **state)
{
    (void)state;
    mel_spec s = mel_spec_whisper(80);
    float x[200] = {0}, *out;
    int64_t frames;
    vlm_error e = {0};
    assert_false(mel_spectrogram(x, 0, &s, &out, &frames, &e));
    assert_false(mel_spectrogram(x, 150, &s, &out, &frames, &e));     /* too short to be reflected */
    assert_int_equal(e.code, VLM_INVALID);
    s.hop = 0;
    assert_false(mel_spectrogram(x, 200, &s, &out, &frames, &e));
    s = mel_spec_whisper(80);
    s.pad_reflect = false;
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n);
        bool ok = mel_spectrogram(x, 200, &s, &out, &frames, &e), failed = mem_failed();
        mem_fail_at(0);
        assert_int_equal(ok, !failed);
        mem_free(out);
        if (!failed) break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transform_of_any_size), cmocka_unit_test(gemma4), cmocka_unit_test(gemma3n), cmocka_unit_test(whisper), cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

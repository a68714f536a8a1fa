/* audio_test.c - sounds of many formats, resampling as librosa's, damaged and empty ones. */
#include "media_util.h"

#include <math.h>

static void put(buf *b, uint32_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) buf_addc(b, (char)(value >> (8 * i)));
}

/* A WAV of one or two channels; format 1 integers, 3 floats. Values go from -1 up in steps of 1/64. */
static buf make_wav(int format, int bits, int channels, int rate, int count)
{
    buf b = {0};
    uint32_t size = (uint32_t)(count * channels * bits / 8);
    buf_add(&b, "RIFF", 4), put(&b, 36 + size, 4), buf_add(&b, "WAVEfmt ", 8), put(&b, 16, 4);
    put(&b, (uint32_t)format, 2), put(&b, (uint32_t)channels, 2), put(&b, (uint32_t)rate, 4), put(&b, (uint32_t)(rate * channels * bits / 8), 4);
    put(&b, (uint32_t)(channels * bits / 8), 2), put(&b, (uint32_t)bits, 2), buf_add(&b, "data", 4), put(&b, size, 4);
    for (int i = 0; i < count; i++)
        for (int c = 0; c < channels; c++) {
            double v = (i % 128 - 64) / 64.0 * (c ? 0.5 : 1);
            float f = (float)v;
            uint64_t d;
            uint32_t word;
            memcpy(&d, &v, 8);
            memcpy(&word, &f, 4);
            if (format == 3 && bits == 32) put(&b, word, 4);
            else if (format == 3) put(&b, (uint32_t)d, 4), put(&b, (uint32_t)(d >> 32), 4);
            else if (bits == 8) put(&b, (uint32_t)(int)(v * 128 + 128), 1);
            else put(&b, (uint32_t)(int32_t)(v * (double)(1u << (bits - 1))), bits / 8);
        }
    return b;
}

static void wav_formats(void **state)
{
    (void)state;
    static const int kinds[][2] = {{1, 8}, {1, 16}, {1, 24}, {1, 32}, {3, 32}, {3, 64}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (int channels = 1; channels <= 2; channels++) {
            buf b = make_wav(kinds[k][0], kinds[k][1], channels, 16000, 300);
            audio a;
            vlm_error e = {0};
            if (!audio_decode(b.data, b.size, 16000, NULL, &a, &e)) fail_msg("%d bits: %s", kinds[k][1], e.message);
            assert_int_equal(a.count, 300);
            assert_int_equal(a.rate, 16000);
            for (int i = 0; i < 300; i++) assert_true(a.samples[i] == (float)((i % 128 - 64) / 64.0 * (channels == 2 ? 0.75 : 1)));
            audio_free(&a);
            buf_free(&b);
        }
}

static void resamples_as_librosa(void **state)
{
    (void)state;
    enum { N = 6400 };
    buf b = make_wav(3, 32, 1, 16000, N);
    float *samples = (float *)(void *)(b.data + 44);
    for (int i = 0; i < N; i++) {
        double noise = (double)(((uint64_t)i * 2654435761u >> 7) % 1000) / 1000 - 0.5, t = i;
        float v = (float)(0.4 * sin(t * t * 2e-5 + 0.02 * t) + 0.05 * noise);
        memcpy(samples + i, &v, 4);
    }
    audio a;
    assert_true(audio_decode(b.data, b.size, 24000, NULL, &a, NULL));
    assert_int_equal(a.count, 9600);
    int n;
    float *want = read_numbers("resample.txt", &n);
    assert_int_equal(n, (9600 + 96) / 97);
    for (int i = 0; i < n; i++) assert_true(fabsf(want[i] - a.samples[i * 97]) < 2e-6f);
    mem_free(want);
    audio_free(&a);
    buf_free(&b);
}

/* A tone of 440 Hz with amplitudes 0.5 and 0.3: after averaging, 0.4. */
static void compressed(void **state)
{
    (void)state;
    static const struct { const char *name; double tolerance; } files[] = {
        {"tone.flac", 1e-4}, {"tone.aiff", 1e-4}, {"tone.mp3", 0.02}, {"tone.ogg", 0.03}, {"tone.m4a", 0.03}, {"tone.opus", 0.03},
    };
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        buf b = read_media(files[k].name);
        audio a;
        vlm_error e = {0};
        if (!audio_decode(b.data, b.size, 0, NULL, &a, &e)) fail_msg("%s: %s", files[k].name, e.message);
        double seconds = (double)a.count / a.rate, re = 0, im = 0;
        if (seconds < 0.23 || seconds > 0.31) fail_msg("%s: %g seconds", files[k].name, seconds);
        int from = a.rate / 20, n = a.rate / 440 * 40;                   /* the amplitude at 440 Hz, away from the ends */
        for (int i = 0; i < n; i++) {
            double angle = 2 * 3.14159265358979 * 440 * i / a.rate;
            re += a.samples[from + i] * cos(angle) * 2 / n;
            im += a.samples[from + i] * sin(angle) * 2 / n;
        }
        if (fabs(hypot(re, im) - 0.4) > files[k].tolerance + 0.01) fail_msg("%s: amplitude %g", files[k].name, hypot(re, im));
        audio_free(&a);
        buf_free(&b);
    }
}

static void sound_of_a_video_file(void **state)
{
    (void)state;
    buf b = read_media("long.mp4");
    audio a;
    vlm_error e = {0};
    assert_false(audio_decode(b.data, b.size, 16000, NULL, &a, &e));     /* it has none */
    assert_int_equal(e.code, VLM_FORMAT);
    buf_free(&b);
}

static void refuses(void **state)
{
    (void)state;
    audio a;
    vlm_error e = {0};
    assert_false(audio_decode("", 0, 16000, NULL, &a, &e));
    assert_false(audio_decode("no sound at all", 15, 16000, NULL, &a, &e));
    buf none = make_wav(1, 16, 1, 16000, 0);
    assert_false(audio_decode(none.data, none.size, 16000, NULL, &a, &e));
    assert_int_equal(e.code, VLM_FORMAT);
    buf b = make_wav(1, 16, 1, 16000, 32000);
    media_policy p = media_policy_default();
    p.max_seconds = 1.9;
    assert_false(audio_decode(b.data, b.size, 16000, &p, &a, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    buf flac = read_media("tone.flac");
    p.max_seconds = 0.2;
    assert_false(audio_decode(flac.data, flac.size, 16000, &p, &a, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    for (size_t cut = 0; cut < 60; cut++)
        if (audio_decode(b.data, cut, 16000, NULL, &a, &e)) audio_free(&a);
    memset(b.data + 24, 0, 4);                                           /* a rate of 0 */
    assert_false(audio_decode(b.data, b.size, 16000, NULL, &a, &e));
    const buf *both[] = {&flac, &b};
    memset(b.data + 25, 0x3e, 1);
    for (int i = 0; i < 2; i++)
        for (uint64_t n = 1;; n++) {
            mem_fail_at(n);
            bool ok = audio_decode(both[i]->data, both[i]->size, 24000, NULL, &a, &e), failed = mem_failed();
            mem_fail_at(0);
            assert_int_equal(ok, !failed);
            audio_free(&a);
            if (!failed) break;
        }
    buf_free(&none), buf_free(&b), buf_free(&flac);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wav_formats), cmocka_unit_test(resamples_as_librosa), cmocka_unit_test(compressed), cmocka_unit_test(sound_of_a_video_file),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* audio_wav.c - WAV (RIFF, little-endian): integer PCM of 8 to 32 bits, float of 32 and 64 bits. */
#include <string.h>

#include "base/err.h"
#include "media/audio_codec.h"

enum { FORMAT_PCM = 1, FORMAT_FLOAT = 3, FORMAT_EXTENSIBLE = 0xfffe };

static uint32_t u16(const uint8_t *p) { return (uint32_t)p[1] << 8 | p[0]; }
static uint32_t u32(const uint8_t *p) { return u16(p + 2) << 16 | u16(p); }

bool wav_matches(const uint8_t *data, size_t size)
{
    return size >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WAVE", 4) == 0;
}

typedef struct wav { uint32_t format, channels, rate, bits, block; const uint8_t *data; size_t size; } wav;

static bool find_chunks(const uint8_t *data, size_t size, wav *w, vlm_error *error)
{
    for (size_t at = 12; at + 8 <= size;) {
        const uint8_t *body = data + at + 8;
        size_t length = u32(data + at + 4), left = size - at - 8;
        if (memcmp(data + at, "fmt ", 4) == 0 && length >= 16 && left >= 16) {
            w->format = u16(body), w->channels = u16(body + 2), w->rate = u32(body + 4), w->block = u16(body + 12), w->bits = u16(body + 14);
            if (w->format == FORMAT_EXTENSIBLE && length >= 26 && left >= 26) w->format = u16(body + 24);
        } else if (memcmp(data + at, "data", 4) == 0) {
            w->data = body;
            w->size = length < left ? length : left;         /* writers that stream leave a length of 0 or 2^32 - 1 */
            if (length == 0 && left > 0) w->size = left;
            return w->rate ? true : err_set(error, VLM_FORMAT, "no format before the samples");
        }
        if (length > left) break;
        at += 8 + length + (length & 1);
    }
    return err_set(error, VLM_FORMAT, "no samples in %zu bytes", size);
}

static float sample_at(const uint8_t *p, const wav *w)
{
    if (w->format == FORMAT_FLOAT) {
        if (w->bits == 32) {
            float f;
            memcpy(&f, p, 4);
            return f;
        }
        double d;
        memcpy(&d, p, 8);
        return (float)d;
    }
    switch (w->bits) {
    case 8: return (float)(p[0] - 128) / 128;
    case 16: return (float)(int16_t)u16(p) / 32768;
    case 24: return (float)((int32_t)((uint32_t)p[2] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 8) >> 8) / 8388608;
    default: return (float)((double)(int32_t)u32(p) / 2147483648.0);
    }
}

bool wav_decode(const uint8_t *data, size_t size, const media_policy *policy, audio_pcm *out, bool *handled, vlm_error *error)
{
    wav w = {0};
    *handled = true;
    if (!find_chunks(data, size, &w, error)) return false;
    bool known = (w.format == FORMAT_PCM && (w.bits == 8 || w.bits == 16 || w.bits == 24 || w.bits == 32)) ||
                 (w.format == FORMAT_FLOAT && (w.bits == 32 || w.bits == 64));
    if (!known) return *handled = false;                     /* A-law, ADPCM ...: libavcodec knows them */
    if (w.channels < 1 || w.channels > 64 || w.block != w.channels * w.bits / 8)
        return err_set(error, VLM_FORMAT, "%u channels of %u bits in blocks of %u bytes", w.channels, w.bits, w.block);
    out->rate = (int)w.rate;
    if (!audio_check_rate(w.rate, error)) return false;
    size_t count = w.size / w.block;
    if (!audio_reserve(out, count, policy, error)) return false;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *p = w.data + i * w.block;
        float sum = 0;
        for (uint32_t c = 0; c < w.channels; c++) sum += sample_at(p + c * w.bits / 8, &w);
        out->samples[i] = w.channels == 1 ? sum : sum / (float)w.channels;
    }
    out->count = count;
    return true;
}

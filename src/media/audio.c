/* audio.c - sound to mono float32 at the wanted rate: decode, average the channels, resample with libsoxr. */
#include <math.h>
#include <soxr.h>

#include "base/err.h"
#include "media/audio_codec.h"

bool audio_check_rate(int64_t rate, vlm_error *error)
{
    if (rate >= 100 && rate <= 768000) return true;
    return err_set(error, VLM_FORMAT, "a sampling rate of %lld", (long long)rate);
}

bool audio_reserve(audio_pcm *pcm, size_t count, const media_policy *policy, vlm_error *error)
{
    if ((double)count > policy->max_seconds * pcm->rate)
        return err_set(error, VLM_LIMIT, "%.1f seconds of sound, %.1f at most are read", (double)count / pcm->rate, policy->max_seconds);
    if (count <= pcm->capacity) return true;
    size_t capacity = count > pcm->capacity + pcm->capacity / 2 ? count : pcm->capacity + pcm->capacity / 2;
    float *grown = mem_resize(pcm->samples, capacity, sizeof *grown);
    if (!grown) return err_memory(error, capacity * sizeof *grown);
    pcm->samples = grown;
    pcm->capacity = capacity;
    return true;
}

/* HQ, as librosa's and torchaudio's soxr; ceil(count * ratio) samples. */
static bool resample(audio_pcm *pcm, int rate, audio *out, vlm_error *error)
{
    size_t want = (size_t)ceil((double)pcm->count * ((double)rate / pcm->rate)), done = 0;
    out->samples = MEM_ARRAY(want ? want : 1, float);
    if (!out->samples) return err_memory(error, want * sizeof(float));
    soxr_io_spec_t io = soxr_io_spec(SOXR_FLOAT32_I, SOXR_FLOAT32_I);
    soxr_quality_spec_t quality = soxr_quality_spec(SOXR_HQ, 0);
    soxr_error_t failed = soxr_oneshot(pcm->rate, rate, 1, pcm->samples, pcm->count, NULL, out->samples, want, &done, &io, &quality, NULL);
    if (failed) return err_set(error, VLM_MEMORY, "cannot resample from %d to %d Hz: %s", pcm->rate, rate, failed);
    out->count = (int64_t)want;                       /* what soxr left out at the end stays 0 */
    return true;
}

static bool decode(const uint8_t *data, size_t size, const media_policy *policy, audio_pcm *pcm, vlm_error *error)
{
    if (size == 0) return err_set(error, VLM_FORMAT, "the sound is empty (0 bytes)");
    bool handled = false;
    if (wav_matches(data, size)) {
        bool ok = wav_decode(data, size, policy, pcm, &handled, error);
        if (handled) return ok || err_prefix(error, "WAV sound");
    }
    return audio_av_decode(data, size, policy, pcm, error) || err_prefix(error, "sound");
}

bool audio_decode(const void *data, size_t size, int rate, const media_policy *policy, audio *out, vlm_error *error)
{
    *out = (audio){0};
    media_policy standard = media_policy_default();
    if (!policy) policy = &standard;
    audio_pcm pcm = {0};
    bool ok = decode(data, size, policy, &pcm, error);
    if (ok && pcm.count == 0) ok = err_set(error, VLM_FORMAT, "the sound has 0 samples");
    out->rate = rate > 0 ? rate : pcm.rate;
    if (ok && out->rate != pcm.rate) {
        ok = resample(&pcm, out->rate, out, error);
    } else if (ok) {
        out->samples = pcm.samples;
        out->count = (int64_t)pcm.count;
        pcm.samples = NULL;
    }
    mem_free(pcm.samples);
    if (!ok) audio_free(out);
    return ok;
}

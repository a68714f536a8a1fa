/* audio_fuzz.c - any bytes as a sound: decoded under a small ceiling, resampled, its spectrogram. The first byte is a choice. */
#include <stdint.h>

#include "media/mel.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    media_policy policy = media_policy_default();
    policy.max_seconds = 2;
    audio a;
    if (!audio_decode(data + 1, size - 1, data[0] & 1 ? 16000 : 0, &policy, &a, NULL)) return 0;
    mel_spec spec = mel_spec_whisper(80);
    float *out;
    int64_t frames;
    if (mel_spectrogram(a.samples, a.count < 16000 ? a.count : 16000, &spec, &out, &frames, NULL)) mem_free(out);
    audio_free(&a);
    return 0;
}

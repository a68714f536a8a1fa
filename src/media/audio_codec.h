/* audio_codec.h - between audio.c (ceilings, resampling) and the decoders: mono samples at the rate of the file. */
#ifndef VLM_MEDIA_AUDIO_CODEC_H
#define VLM_MEDIA_AUDIO_CODEC_H

#include "media/media.h"

typedef struct audio_pcm { int rate; size_t count, capacity; float *samples; } audio_pcm;

bool audio_check_rate(int64_t rate, vlm_error *error);
/* Room for count samples in all; VLM_LIMIT when they are more than max_seconds. rate is set before. */
bool audio_reserve(audio_pcm *pcm, size_t count, const media_policy *policy, vlm_error *error);

bool wav_matches(const uint8_t *data, size_t size);
/* *handled = false (and false): another decoder has to take it. */
bool wav_decode(const uint8_t *data, size_t size, const media_policy *policy, audio_pcm *out, bool *handled, vlm_error *error);
/* Whatever libav decodes. */
bool audio_av_decode(const uint8_t *data, size_t size, const media_policy *policy, audio_pcm *out, vlm_error *error);

#endif

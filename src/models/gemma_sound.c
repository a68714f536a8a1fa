/* gemma_sound.c - see gemma_sound.h. Gemma 3n: 32 ms, emphasised, magnitudes bounded below; Gemma 4: 20 ms, half a frame of silence first. */
#include "models/gemma_sound.h"

#include <math.h>

bool gemma_sound_config(gemma_sound *s, arena *memory, config *c, bool gemma4)
{
#define SOUND(key) "feature_extractor." key "|" key
    s->rate = (int)config_int(c, SOUND("sampling_rate"), 16000, 1000, 1 << 20);
    s->bins = (int)config_int(c, SOUND("feature_size"), 128, 1, 4096);
    /* frame_length and hop_length in the file are results, not inputs: the reference computes them anew from milliseconds */
    s->frame = (int)lrint(s->rate * config_number(c, SOUND("frame_length_ms"), gemma4 ? 20 : 32) / 1000.0);
    s->hop = (int)lrint(s->rate * config_number(c, SOUND("hop_length_ms"), 10.0) / 1000.0);
    s->pad_to = 128;
    s->most_samples = 480000;
    int fft = 1;
    while (fft < s->frame) fft *= 2;
    if (config_bool(c, SOUND("fft_overdrive"), !gemma4)) fft *= 2;
    s->mean = arena_alloc(memory, (size_t)s->bins * sizeof *s->mean);
    s->stddev = arena_alloc(memory, (size_t)s->bins * sizeof *s->stddev);
    if (s->mean == NULL || s->stddev == NULL) return config_fail(c, VLM_MEMORY, "out of memory");
    int means = config_numbers(c, SOUND("per_bin_mean"), s->mean, s->bins);
    int deviations = config_numbers(c, SOUND("per_bin_stddev"), s->stddev, s->bins);
    s->mel = (mel_spec){
        .rate = s->rate, .frame_length = s->frame, .hop = s->hop, .fft = fft, .bins = s->bins,
        .min_hz = config_number(c, SOUND("min_frequency"), gemma4 ? 0 : 125), .max_hz = config_number(c, SOUND("max_frequency"), gemma4 ? 8000 : 7600),
        .scale = MEL_HTK, .periodic_window = true, .preemphasis = config_number(c, SOUND("preemphasis"), gemma4 ? 0 : 0.97),
        .preemphasis_htk = config_bool(c, SOUND("preemphasis_htk_flavor"), true),
        .input_scale = config_number(c, SOUND("input_scale_factor"), 1.0), .pad_left = gemma4 ? s->frame / 2 : 0, .frame_extra = 1,
        .log = gemma4 ? MEL_LN_PLUS : MEL_LN_FLOOR, .floor = config_number(c, SOUND("mel_floor"), gemma4 ? 1e-3 : 1e-5),
        .mean = means == s->bins ? s->mean : NULL, .stddev = deviations == s->bins ? s->stddev : NULL};
    if (c->failed) return false;
    if (s->frame < 1 || s->hop < 1 || s->frame > 1 << 16) {
        return config_fail(c, VLM_FORMAT, "feature_extractor: frame or hop length is out of range");
    }
    return true;
#undef SOUND
}

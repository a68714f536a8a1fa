/* gemma_sound.h - what the feature extractor of Gemma 3n and of Gemma 4 is told: frames of mel features. */
#ifndef VLM_MODELS_GEMMA_SOUND_H
#define VLM_MODELS_GEMMA_SOUND_H

#include "media/mel.h"
#include "weights/config.h"

typedef struct gemma_sound {
    int rate, frame, hop, bins;
    int pad_to, most_samples;      /* the reference pads the samples to a multiple, and cuts what is longer */
    mel_spec mel;
    double *mean, *stddev;
} gemma_sound;

/* feature_extractor of the processor's files; what they leave out is Gemma 4's, or Gemma 3n's. */
bool gemma_sound_config(gemma_sound *s, arena *memory, config *processor, bool gemma4);

#endif

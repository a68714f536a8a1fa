/* processor.h - preprocessor_config.json, video_preprocessor_config.json and processor_config.json as one object. */
#ifndef VLM_MODELS_PROCESSOR_H
#define VLM_MODELS_PROCESSOR_H

#include "weights/config.h"

/* dir NULL, or none of the files there: an object with empty members. */
config *processor_load(const char *dir, vlm_error *error);

#endif

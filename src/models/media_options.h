/* media_options.h - what a request says about its media, in the words of the family's processor; nothing that was asked for goes unanswered.
 *
 * Options come with the request (media_options, flags) and with a part ("detail": "low" beside "image"); a part's win. They have one name here,
 * many outside: size, images_kwargs, max_image_tiles ... What the family does not know (vlm_arch.rules) becomes a notice; a name that no family
 * knows, or a value that is no number where one belongs, an error. detail is spelled out in the family's options. */
#ifndef VLM_MODELS_MEDIA_OPTIONS_H
#define VLM_MODELS_MEDIA_OPTIONS_H

#include "models/model.h"

/* The options of one medium as process() wants them: a new object, NULL on failure. notices gets lines for people. A still's part is its video's. */
json_t *media_options_resolve(const vlm_model *m, media_kind kind, const json_t *request, const chat_media *part, buf *notices, vlm_error *error);

/* What a model takes, for people: "text, images (one), audio". */
void media_describe(const vlm_model *m, buf *out);

/* ---- videos for models that only see images: some pictures out of them, in order ---- */

enum { STILLS_MOST = 16 };         /* of all videos of a request together, unless it asks for more */
bool stills_wanted(const vlm_model *m);
/* Evenly over the clip: num_frames; else fps (2) a second, at least min_frames (4), thinned evenly to max_frames (16, shared by `videos` of a request). */
bool stills_pick(const chat_media *part, const json_t *options, int videos, const video_info *info, int64_t **indices, int *count, vlm_error *error);

#endif

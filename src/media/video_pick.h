/* video_pick.h - what a folder of frames and a video file share: asking for frames under the ceilings, keeping them. */
#ifndef VLM_MEDIA_VIDEO_PICK_H
#define VLM_MEDIA_VIDEO_PICK_H

#include "media/media.h"

/* Fills out (info is set) with the indices that pick chooses; frames are allocated and empty. Indices are checked: rising,
 * in [0, total_frames), no more than the ceilings allow. pick == NULL: all frames. */
bool video_choose(video *out, const media_policy *policy, video_pick_fn pick, void *user, vlm_error *error);
/* A copy of an image, for an index that repeats. */
bool image_copy(const image *from, image *to, vlm_error *error);

#endif

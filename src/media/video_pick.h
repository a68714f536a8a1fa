/* video_pick.h - what a folder of frames and a video file share: asking for frames under the ceilings, keeping them. */
#ifndef VLM_MEDIA_VIDEO_PICK_H
#define VLM_MEDIA_VIDEO_PICK_H

#include "media/media.h"

/* How frames are chosen and what is done to each; frame may be NULL. */
typedef struct video_plan {
    video_pick_fn pick;            /* NULL: all frames */
    video_frame_fn frame;
    void *user;
    int64_t pixels;                /* kept so far */
} video_plan;
/* Fills out (info is set) with the indices that pick chooses; frames are allocated and empty. Indices are checked: rising,
 * in [0, total_frames), no more than the ceilings allow (of pixels only when no `frame` makes them fewer). */
bool video_choose(video *out, const media_policy *policy, video_plan *plan, vlm_error *error);
/* Frame `index` is decoded: shows it, and counts what is left. */
bool video_keep(video *out, int index, const media_policy *policy, video_plan *plan, vlm_error *error);
/* A copy of an image, for an index that repeats. */
bool image_copy(const image *from, image *to, vlm_error *error);

#endif

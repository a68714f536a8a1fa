/* video_fuzz.c - any bytes as a video: three frames picked out of it, under small ceilings. */
#include <stdint.h>

#include "media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool pick(void *user, const video_info *info, int64_t **indices, int *count, vlm_error *error)
{
    (void)user, (void)error;
    *count = 3;
    *indices = MEM_ARRAY(3, int64_t);
    if (!*indices) return false;
    (*indices)[1] = info->total_frames / 2;
    (*indices)[2] = info->total_frames - 1;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    media_policy policy = media_policy_default();
    policy.max_pixels = 1 << 18;
    video v;
    if (video_decode(data, size, &policy, pick, NULL, &v, NULL)) video_free(&v);
    return 0;
}

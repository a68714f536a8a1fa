/* fetch_fuzz.c - any text as a media source, with files and network off. */
#include <stdint.h>

#include "media/media.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    media_policy policy = media_policy_default();
    policy.local_files = policy.network = false;
    policy.max_bytes = 1 << 16;
    char *text = mem_strndup((const char *)data, size);
    if (!text) return 0;
    buf out = {0};
    media_fetch(text, &policy, &out, NULL, NULL);
    buf_free(&out);
    mem_free(text);
    return 0;
}

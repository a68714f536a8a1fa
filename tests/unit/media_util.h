/* media_util.h - what the tests of media/ share: files of tests/data/media, digests, lists of numbers. */
#ifndef MEDIA_UTIL_H
#define MEDIA_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "media/media.h"

#define MEDIA_DATA "tests/data/media/"

static inline buf read_media(const char *name)
{
    char path[300];
    buf b = {0};
    vlm_error error = {0};
    snprintf(path, sizeof path, MEDIA_DATA "%s", name);
    if (!file_read(path, 16 << 20, &b, &error)) fail_msg("%s", error.message);
    return b;
}

/* The digest of an RGB picture as text. */
static inline void pixels_hex(const image *img, char hex[65])
{
    digest d;
    assert_false(img->gray);
    assert_true(hash_bytes(img->rgb, (size_t)img->width * (size_t)img->height * 3, &d));
    digest_hex(&d, hex);
}

/* Numbers, one a line. *count of them. */
static inline float *read_numbers(const char *name, int *count)
{
    buf b = read_media(name);
    int capacity = (int)(b.size / 2 + 1);
    float *values = MEM_ARRAY((size_t)capacity, float);
    assert_non_null(values);
    *count = 0;
    char *at = b.data, *end;
    for (double v = strtod(at, &end); end != at && *count < capacity; v = strtod(at, &end)) {
        values[(*count)++] = (float)v;
        at = end;
    }
    buf_free(&b);
    return values;
}

#endif

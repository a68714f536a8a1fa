/* attached.c - see attached.h. */
#include "server/attached.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { LONG = 4096, MOST = 4096 };

void attached_free(attached *a)
{
    mem_free(a->item);
    *a = (attached){0};
}

static bool is_base64(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (!((text[i] >= '0' && text[i] <= '9') || ((text[i] | 32) >= 'a' && (text[i] | 32) <= 'z') || strchr("+/=-_", text[i]))) return false;
    return true;
}

/* Cheap: only its ends are looked at. What is wrong in the middle is found when it is decoded. */
static bool may_be_media(const char *text, size_t size)
{
    return size >= LONG && (!memcmp(text, "data:", 5) || (is_base64(text, 64) && is_base64(text + size - 8, 8)));
}

static bool take(attached *a, const char *text, size_t size, buf *out)
{
    if (a->list.count == a->capacity) {
        int capacity = a->capacity ? 2 * a->capacity : 8;
        media_text *more = mem_resize(a->item, (size_t)capacity, sizeof *more);
        if (!more) return false;
        a->item = more;
        a->capacity = capacity;
    }
    a->item[a->list.count] = (media_text){text, size};
    a->list.item = a->item;
    return buf_addf(out, "%s%d", a->list.prefix, a->list.count++);
}

/* The quote that ends the string which begins at `at`; *plain: it holds no escape. */
static const char *string_end(const char *at, const char *end, bool *plain)
{
    *plain = true;
    for (;;) {
        const char *quote = memchr(at, '"', (size_t)(end - at));
        if (!quote) return NULL;
        const char *back = memchr(at, '\\', (size_t)(quote - at));
        if (!back) return quote;
        *plain = false;
        at = back + 2;
        if (at > end) return NULL;
    }
}

bool attached_lift(const char *body, size_t size, attached *a, buf *out)
{
    uint8_t random[16];
    if (getrandom(random, sizeof random, 0) != sizeof random) return false;
    snprintf(a->list.prefix, sizeof a->list.prefix, "attached:");
    for (int i = 0; i < 16; i++) snprintf(a->list.prefix + 9 + 2 * i, 3, "%02x", random[i]);
    strncat(a->list.prefix, ":", 2);
    const char *at = body, *end = body + size, *from = body;
    while (at < end) {
        const char *quote = memchr(at, '"', (size_t)(end - at));
        if (!quote) break;
        bool plain;
        const char *close = string_end(quote + 1, end, &plain);
        if (!close) break;                                 /* no JSON: the parser says so */
        size_t n = (size_t)(close - quote - 1);
        if (plain && a->list.count < MOST && may_be_media(quote + 1, n)) {
            if (!buf_add(out, from, (size_t)(quote + 1 - from)) || !take(a, quote + 1, n, out)) return false;
            from = close;
        }
        at = close + 1;
    }
    return from == end || buf_add(out, from, (size_t)(end - from));
}

/* ---- what is media, and what is not ---- */

static bool one_of(const char *word, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(word, *list)) return true;
    return false;
}

/* Is member `key` of `object`, itself member `outer` of something, the source of a medium? */
static bool is_source(const char *outer, const json_t *object, const char *key, bool url)
{
    static const char *const urls[] = {"image_url", "video_url", "audio_url", "image", "video", "audio", "input_image", "input_audio", "input_video", NULL};
    const char *type = json_string_value(json_object_get(object, "type"));
    if (url) return one_of(key, urls) || (!strcmp(key, "url") && (one_of(outer, urls) || (type && one_of(type, urls)))) || (!strcmp(key, "data") && !strcmp(outer, "input_audio"));
    return !strcmp(key, "data") && ((type && !strcmp(type, "base64") && !strcmp(outer, "source")) || !strcmp(outer, "input_audio"));
}

static bool named(const attached *a, const json_t *value, media_text *text)
{
    return json_is_string(value) && media_attached_find(&a->list, json_string_value(value), json_string_length(value), text);
}

static bool restore(const attached *a, json_t *value, const char *outer)
{
    media_text text;
    size_t i;
    const char *key;
    json_t *item;
    if (json_is_array(value)) {
        json_array_foreach(value, i, item) {
            if (!named(a, item, &text)) { if (!restore(a, item, outer)) return false; }
            else if (json_array_set_new(value, i, json_stringn(text.data, text.size))) return false;
        }
    } else json_object_foreach(value, key, item) {
        if (!named(a, item, &text)) { if (!restore(a, item, key)) return false; }
        else if (!is_source(outer, value, key, text.size > 5 && !memcmp(text.data, "data:", 5)) &&
                 json_object_set_new(value, key, json_stringn(text.data, text.size))) return false;
    }
    return true;
}

bool attached_restore(const attached *a, json_t *value) { return a->list.count == 0 || restore(a, value, ""); }

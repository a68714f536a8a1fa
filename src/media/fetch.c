/* fetch.c - the one door for media: every source of every route comes through media_fetch, and the policy is applied here. */
#define _XOPEN_SOURCE 700
#include "media/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "base/file.h"

/* ---- data: ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool fetch_unescape(const char *text, size_t size, buf *out)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] != '%') {
            if (!buf_addc(out, text[i])) return false;
            continue;
        }
        int high = i + 2 < size ? hex_digit(text[i + 1]) : -1, low = high >= 0 ? hex_digit(text[i + 2]) : -1;
        if (low < 0 || !buf_addc(out, (char)(high << 4 | low))) return false;
        i += 2;
    }
    return true;
}

/* 0..63; the URL-safe alphabet is understood, too. */
static const uint8_t *base64_table(void)
{
#define ROW(first, digit) [first] = (digit) | 0x40
    /* 0x40 marks digits here, so that what is not listed (0) is told from 'A'. */
    static const uint8_t marked[256] = {
        ROW('A', 0), ROW('B', 1), ROW('C', 2), ROW('D', 3), ROW('E', 4), ROW('F', 5), ROW('G', 6), ROW('H', 7), ROW('I', 8), ROW('J', 9), ROW('K', 10), ROW('L', 11),
        ROW('M', 12), ROW('N', 13), ROW('O', 14), ROW('P', 15), ROW('Q', 16), ROW('R', 17), ROW('S', 18), ROW('T', 19), ROW('U', 20), ROW('V', 21), ROW('W', 22),
        ROW('X', 23), ROW('Y', 24), ROW('Z', 25), ROW('a', 26), ROW('b', 27), ROW('c', 28), ROW('d', 29), ROW('e', 30), ROW('f', 31), ROW('g', 32), ROW('h', 33),
        ROW('i', 34), ROW('j', 35), ROW('k', 36), ROW('l', 37), ROW('m', 38), ROW('n', 39), ROW('o', 40), ROW('p', 41), ROW('q', 42), ROW('r', 43), ROW('s', 44),
        ROW('t', 45), ROW('u', 46), ROW('v', 47), ROW('w', 48), ROW('x', 49), ROW('y', 50), ROW('z', 51), ROW('0', 52), ROW('1', 53), ROW('2', 54), ROW('3', 55),
        ROW('4', 56), ROW('5', 57), ROW('6', 58), ROW('7', 59), ROW('8', 60), ROW('9', 61), ROW('+', 62), ROW('-', 62), ROW('/', 63), ROW('_', 63)};
#undef ROW
    return marked;
}

/* Whole groups of four digits, as far as they go: how many characters were read; *out moves on. */
static size_t decode_quads(const unsigned char *text, size_t size, uint8_t **out)
{
    const uint8_t *t = base64_table();
    uint8_t *to = *out;
    size_t i = 0;
    for (; i + 4 <= size; i += 4, to += 3) {
        uint32_t a = t[text[i]], b = t[text[i + 1]], c = t[text[i + 2]], d = t[text[i + 3]];
        if (!(a & b & c & d & 0x40)) break;
        uint32_t bits = (a & 63) << 18 | (b & 63) << 12 | (c & 63) << 6 | (d & 63);
        to[0] = (uint8_t)(bits >> 16);
        to[1] = (uint8_t)(bits >> 8);
        to[2] = (uint8_t)bits;
    }
    *out = to;
    return i;
}

/* Spaces and line ends are skipped, padding may be missing. */
static bool decode_base64(const char *text, size_t size, buf *out, vlm_error *error)
{
    uint8_t *bytes = mem_resize(NULL, size / 4 * 3 + 4, 1), *to = bytes;
    if (!bytes) return err_memory(error, size);
    uint32_t bits = 0;
    int held = 0;
    bool padded = false, ok = true;
    for (size_t i = 0; ok && i < size; i++) {
        if (held == 0 && !padded) i += decode_quads((const unsigned char *)text + i, size - i, &to);
        if (i >= size) break;
        unsigned char c = (unsigned char)text[i];
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
        if (c == '=') { padded = true; continue; }
        uint32_t digit = base64_table()[c];
        if (!digit || padded) { ok = err_set(error, VLM_FORMAT, "data URL: character %zu is not base64", i); break; }
        bits = bits << 6 | (digit & 63);
        held += 6;
        if (held < 8) continue;
        held -= 8;
        *to++ = (uint8_t)(bits >> held);
    }
    if (ok && held == 6) ok = err_set(error, VLM_FORMAT, "data URL: base64 is cut off");
    size_t n = (size_t)(to - bytes);
    ok = ok && (!n || buf_add(out, bytes, n) || err_memory(error, n));
    mem_free(bytes);
    return ok;
}

bool media_attached_find(const media_attached *a, const char *name, size_t size, media_text *out)
{
    size_t n = a ? strlen(a->prefix) : 0;
    if (!n || size <= n || size > n + 9 || memcmp(name, a->prefix, n)) return false;
    int index = 0;
    for (size_t i = n; i < size; i++) {
        if (name[i] < '0' || name[i] > '9') return false;
        index = index * 10 + name[i] - '0';
    }
    if (index >= a->count) return false;
    *out = a->item[index];
    return true;
}

bool fetch_data_url(media_text url, const media_attached *attached, size_t limit, buf *out, vlm_error *error)
{
    const char *head = url.data + strlen("data:"), *comma = memchr(head, ',', url.size - strlen("data:"));
    if (!comma) return err_set(error, VLM_FORMAT, "a data URL without a comma");
    size_t n = (size_t)(comma - head);
    media_text body = {comma + 1, url.size - (size_t)(comma + 1 - url.data)};
    media_attached_find(attached, body.data, body.size, &body);
    bool base64 = n >= 7 && strncasecmp(comma - 7, ";base64", 7) == 0;
    if ((base64 ? body.size / 4 * 3 : body.size / 3) > limit)
        return err_set(error, VLM_LIMIT, "a data URL of %zu characters: %zu bytes at most are read", body.size, limit);
    if (!base64) {
        size_t before = out->size;
        if (!fetch_unescape(body.data, body.size, out))
            return out->failed ? err_memory(error, body.size) : err_set(error, VLM_FORMAT, "data URL: a broken %% escape");
        return out->size - before <= limit || err_set(error, VLM_LIMIT, "a data URL of %zu bytes: %zu at most are read", out->size - before, limit);
    }
    if (!memchr(body.data, '%', body.size)) return decode_base64(body.data, body.size, out, error);
    buf plain = {0};
    bool ok = fetch_unescape(body.data, body.size, &plain) ? decode_base64(plain.data ? plain.data : "", plain.size, out, error)
                                                           : err_set(error, VLM_FORMAT, "data URL: a broken %% escape");
    buf_free(&plain);
    return ok;
}

/* ---- files ---- */

/* Does the real path lie below one of the folders? Where it does not, nothing is said of whether it exists. */
static bool is_below(const char *real, const char *const *folders)
{
    for (; *folders; folders++) {
        char *folder = realpath(*folders, NULL);
        size_t n = folder ? strlen(folder) : 0;
        bool below = n && !strncmp(real, folder, n) && (real[n] == '/' || (n == 1 && *folder == '/'));
        free(folder);                                      /* the C library's */
        if (below) return true;
    }
    return false;
}

static bool read_anywhere(const char *path, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error);

static bool read_local(const char *path, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error)
{
    if (!policy->local_files) return err_set(error, VLM_INVALID, "local files may not be read here");
    if (!policy->paths) return read_anywhere(path, policy, out, is_directory, error);
    char *real = strcmp(path, "-") ? realpath(path, NULL) : NULL;
    bool ok = real && is_below(real, policy->paths) ? read_anywhere(real, policy, out, is_directory, error)
                                                    : err_set(error, VLM_INVALID, "this file may not be read here");
    free(real);
    return ok;
}

static bool read_anywhere(const char *path, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error)
{
    if (is_directory && file_is_directory(path)) return *is_directory = true;
    return file_read(path, policy->max_bytes, out, error);
}

static bool read_file_url(const char *url, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error)
{
    if (!policy->local_files) return err_set(error, VLM_INVALID, "local files may not be read here");
    const char *rest = url + strlen("file:");
    if (strncmp(rest, "//", 2) == 0) {
        rest += 2;
        if (strncasecmp(rest, "localhost/", 10) == 0) rest += 9;
        if (*rest != '/') return err_set(error, VLM_INVALID, "a file URL names another host; file:///path was expected");
    }
    buf path = {0};
    bool ok = fetch_unescape(rest, strcspn(rest, "?#"), &path) && path.size > 0 && strlen(path.data) == path.size;
    if (!ok) err_set(error, VLM_INVALID, "the path in a file URL is empty or badly escaped");
    ok = ok && read_local(path.data, policy, out, is_directory, error);
    buf_free(&path);
    return ok;
}

/* ---- the door ---- */

static bool has_scheme(const char *source, const char *scheme)
{
    return strncasecmp(source, scheme, strlen(scheme)) == 0;
}

/* "name://": something that is a URL, but none that is known. */
static bool looks_like_url(const char *source)
{
    size_t n = strspn(source, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return n > 0 && strncmp(source + n, "://", 3) == 0;
}

bool media_fetch(const char *source, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error)
{
    media_policy standard = media_policy_default();
    if (!policy) policy = &standard;
    if (is_directory) *is_directory = false;
    if (!source || !*source) return err_set(error, VLM_INVALID, "a media source that is empty");
    media_text url = {source, strlen(source)};
    media_attached_find(policy->attached, source, url.size, &url);
    if (url.size >= 5 && has_scheme(url.data, "data:")) return fetch_data_url(url, policy->attached, policy->max_bytes, out, error);
    if (url.data != source) return err_set(error, VLM_INVALID, "a media source that is neither a URL nor a data URL");
    if (has_scheme(source, "file:")) return read_file_url(source, policy, out, is_directory, error);
    if (has_scheme(source, "http:") || has_scheme(source, "https:")) return fetch_http(source, policy, out, error);
    if (looks_like_url(source)) {
        err_set(error, VLM_UNSUPPORTED, "media cannot be read from %.*s URLs", (int)strcspn(source, ":"), source);
        return err_hint(error, "path, file:, data:, http: and https: are read");
    }
    return read_local(source, policy, out, is_directory, error);
}

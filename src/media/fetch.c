/* fetch.c - the one door for media: every source of every route comes through media_fetch, and the policy is applied here. */
#include "media/fetch.h"

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

/* 0..63, or -1; the URL-safe alphabet is understood, too. */
static int base64_digit(unsigned char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

/* Spaces and line ends are skipped, padding may be missing. */
static bool decode_base64(const char *text, size_t size, buf *out, vlm_error *error)
{
    uint8_t block[3072];
    size_t filled = 0;
    uint32_t bits = 0;
    int held = 0;
    bool padded = false;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
        if (c == '=') {
            padded = true;
            continue;
        }
        int digit = base64_digit(c);
        if (digit < 0 || padded) return err_set(error, VLM_FORMAT, "data URL: character %zu is not base64", i);
        bits = bits << 6 | (uint32_t)digit;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        block[filled++] = (uint8_t)(bits >> held);
        if (filled == sizeof block) {
            if (!buf_add(out, block, filled)) return err_memory(error, filled);
            filled = 0;
        }
    }
    if (held == 6) return err_set(error, VLM_FORMAT, "data URL: base64 is cut off");
    return !filled || buf_add(out, block, filled) || err_memory(error, filled);
}

bool fetch_data_url(const char *url, size_t limit, buf *out, vlm_error *error)
{
    const char *head = url + strlen("data:"), *comma = strchr(head, ',');
    if (!comma) return err_set(error, VLM_FORMAT, "a data URL without a comma");
    const char *body = comma + 1;
    size_t size = strlen(body), n = (size_t)(comma - head);
    bool base64 = n >= 7 && strncasecmp(comma - 7, ";base64", 7) == 0;
    if ((base64 ? size / 4 * 3 : size / 3) > limit)
        return err_set(error, VLM_LIMIT, "a data URL of %zu characters: %zu bytes at most are read", size, limit);
    if (!base64) {
        size_t before = out->size;
        if (!fetch_unescape(body, size, out))
            return out->failed ? err_memory(error, size) : err_set(error, VLM_FORMAT, "data URL: a broken %% escape");
        return out->size - before <= limit || err_set(error, VLM_LIMIT, "a data URL of %zu bytes: %zu at most are read", out->size - before, limit);
    }
    if (!memchr(body, '%', size)) return decode_base64(body, size, out, error);
    buf plain = {0};
    bool ok = fetch_unescape(body, size, &plain) ? decode_base64(plain.data ? plain.data : "", plain.size, out, error)
                                                 : err_set(error, VLM_FORMAT, "data URL: a broken %% escape");
    buf_free(&plain);
    return ok;
}

/* ---- files ---- */

static bool read_local(const char *path, const media_policy *policy, buf *out, bool *is_directory, vlm_error *error)
{
    if (!policy->local_files) return err_set(error, VLM_INVALID, "local files may not be read here");
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
    if (has_scheme(source, "data:")) return fetch_data_url(source, policy->max_bytes, out, error);
    if (has_scheme(source, "file:")) return read_file_url(source, policy, out, is_directory, error);
    if (has_scheme(source, "http:") || has_scheme(source, "https:")) return fetch_http(source, policy, out, error);
    if (looks_like_url(source)) {
        err_set(error, VLM_UNSUPPORTED, "media cannot be read from %.*s URLs", (int)strcspn(source, ":"), source);
        return err_hint(error, "path, file:, data:, http: and https: are read");
    }
    return read_local(source, policy, out, is_directory, error);
}

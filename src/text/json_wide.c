/* json_wide.c - see json_wide.h. */
#include "text/json_wide.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static bool in_number(char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }

/* Does the number not fit? */
static bool is_wide(const char *s, size_t n)
{
    char text[400];
    bool real = false;
    for (size_t i = 0; i < n; i++) real |= s[i] == '.' || s[i] == 'e' || s[i] == 'E';
    if (!real) return n > 18;
    if (n >= sizeof text) return false;
    memcpy(text, s, n);
    text[n] = 0;
    return isinf(strtod(text, NULL));
}

static size_t word_at(const char *s, size_t n)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    for (size_t i = 0; i < 3; i++)
        if (n >= strlen(words[i]) && !memcmp(s, words[i], strlen(words[i]))) return strlen(words[i]);
    return 0;
}

/* The text with wide numbers as strings; false when there are none. */
static bool rewrite(const char *s, size_t size, buf *out)
{
    size_t done = 0;
    for (size_t i = 0; i < size;) {
        size_t n = 1;
        bool wide = false;
        if (s[i] == '"') {
            while (i + n < size && s[i + n] != '"') n += s[i + n] == '\\' ? 2 : 1;
            n++;
        } else if ((n = word_at(s + i, size - i))) wide = true;
        else if (in_number(s[i]) && s[i] != 'e' && s[i] != 'E') {
            while (i + n < size && in_number(s[i + n])) n++;
            wide = is_wide(s + i, n);
        } else n = 1;
        if (wide) {
            buf_add(out, s + done, i - done);
            buf_adds(out, "\"\\u0000\\u0000");
            buf_add(out, s + i, n);
            buf_addc(out, '"');
            done = i + n;
        }
        i += n;
    }
    if (!done) return false;
    buf_add(out, s + done, size - done);
    return !out->failed;
}

json_t *json_load_wide(const char *text, size_t size, size_t flags, json_error_t *error)
{
    json_t *json = json_loadb(text, size, flags, error);
    buf wide = {0};
    if (!json && rewrite(text, size, &wide)) {
        json_error_t again;
        json = json_loadb(wide.data, wide.size, flags | JSON_ALLOW_NUL, &again);
    }
    buf_free(&wide);
    return json;
}

const char *json_wide_number(const json_t *value)
{
    const char *s = json_string_value(value);
    size_t n = json_string_length(value);
    return s && n > 2 && !s[0] && !s[1] && (word_at(s + 2, n - 2) == n - 2 || is_wide(s + 2, n - 2)) && strlen(s + 2) == n - 2 ? s + 2 : NULL;
}

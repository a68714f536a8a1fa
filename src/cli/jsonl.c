/* jsonl.c - see jsonl.h. */
#include "cli/jsonl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "cli/options.h"
#include "text/json_wide.h"
#include "text/utf8.h"

enum { READ_BLOCK = 1 << 16, WRITE_BLOCK = 1 << 18 };

static bool flush(buf *out)
{
    for (size_t at = 0; at < out->size;) {
        ssize_t n = write(STDOUT_FILENO, out->data + at, out->size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        at += (size_t)n;
    }
    buf_clear(out);
    return true;
}

static const char RAW[] = "\x01json";              /* member of an answer that is text already */

json_t *jsonl_raw(char *json)
{
    json_t *answer = json ? json_pack("{s:s}", RAW, json) : NULL;
    mem_free(json);
    return answer;
}

const char *jsonl_raw_text(const json_t *answer) { return json_string_value(json_object_get(answer, RAW)); }

static int add_text(const char *text, size_t size, void *out) { return buf_add(out, text, size) ? 0 : -1; }

/* Appends the answer to one line; false when out of memory. */
static bool answer_line(jsonl_fn *answer, void *user, bool wide, const char *line, size_t size, buf *out)
{
    size_t blank = 0, begin = out->size;
    while (blank < size && strchr(" \t\r", line[blank]) && line[blank]) blank++;
    if (blank == size) return true;
    vlm_error error = {0};
    json_error_t bad;
    json_t *input = json_loadb(line, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &bad), *result = NULL;
    if (!input && wide) input = json_load_wide(line, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &bad);
    if (!input) input = json_loadb(line, size, JSON_ALLOW_NUL | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);   /* integers of any size */
    if (!input) err_set(&error, VLM_INVALID, "not JSON: %s (at byte %d)", bad.text, bad.position);
    else result = answer(user, input, &error);
    json_decref(input);
    const char *raw = jsonl_raw_text(result);
    if (raw) {
        bool ok = buf_adds(out, raw);
        for (size_t i = begin; i < out->size; i++)                 /* white space between values: an answer is one line */
            if (out->data[i] == '\n' || out->data[i] == '\r') out->data[i] = ' ';
        json_decref(result);
        return ok && buf_addc(out, '\n');
    }
    if (result && json_dump_callback(result, add_text, out, JSON_COMPACT | JSON_ENCODE_ANY) != 0) {
        out->size = begin;                         /* half an answer is none */
        json_decref(result);
        result = NULL;
        err_set(&error, VLM_INTERNAL, "the answer cannot be written as JSON");
    }
    if (!result) {
        const char *message = error.message[0] ? error.message : vlm_status_text(error.code);
        json_t *text = jsonl_string(message, strlen(message));
        result = json_pack("{s:o}", "error", text);
        if (!result || json_dump_callback(result, add_text, out, JSON_COMPACT) != 0) {
            json_decref(result);
            return false;
        }
    }
    json_decref(result);
    return buf_addc(out, '\n');
}

static int run(jsonl_fn *answer, void *user, bool wide)
{
    buf in = {0}, out = {0};
    vlm_error error = {0};
    size_t searched = 0;                           /* bytes of `in` known to hold no end of line */
    bool end = false, ok = true;
    while (ok && !end) {
        char block[READ_BLOCK];
        ssize_t n = read(STDIN_FILENO, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            err_set(&error, VLM_IO, "standard input: %s", strerror(errno));
            break;
        }
        end = n == 0;
        ok = buf_add(&in, block, (size_t)n);
        size_t at = 0;
        const char *newline;
        while (ok && in.size && (newline = memchr(in.data + searched, '\n', in.size - searched)) != NULL) {
            searched = (size_t)(newline - in.data);
            ok = answer_line(answer, user, wide, in.data + at, searched - at, &out);
            at = ++searched;
            if (out.size >= WRITE_BLOCK && !flush(&out)) goto write_error;
        }
        if (ok && end) ok = answer_line(answer, user, wide, in.data + at, in.size - at, &out);
        if (at) memmove(in.data, in.data + at, in.size - at);
        in.size -= at;
        searched = in.size;
        if (!flush(&out)) goto write_error;
    }
    if (!ok) err_memory(&error, in.size);
    goto done;
write_error:
    err_set(&error, VLM_IO, "standard output: %s", strerror(errno));
done:
    buf_free(&in);
    buf_free(&out);
    return error.code ? report(&error) : 0;
}

int jsonl_run(jsonl_fn *answer, void *user) { return run(answer, user, false); }
int jsonl_run_wide(jsonl_fn *answer, void *user) { return run(answer, user, true); }

json_t *jsonl_string(const char *text, size_t size)
{
    buf clean = {0};
    if (utf8_valid(text, size)) return json_stringn(text, size);
    json_t *s = utf8_add_lossy(&clean, text, size) ? json_stringn(clean.data, clean.size) : NULL;
    buf_free(&clean);
    return s;
}

bool jsonl_get_string(const json_t *input, const char *key, const char **text, size_t *size, vlm_error *error)
{
    const json_t *value = json_object_get(input, key);
    if (!json_is_string(value)) return err_set(error, VLM_INVALID, "\"%s\" is missing or no string", key);
    *text = json_string_value(value);
    *size = json_string_length(value);
    return true;
}

bool jsonl_get_bool(const json_t *input, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(input, key);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}

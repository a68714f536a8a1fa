/* err.c - see err.h. */
#include "base/err.h"

#include <stdio.h>
#include <string.h>

/* Outside text (names in a checkpoint, URLs) ends up in messages: no control character may reach a terminal or a log. */
static void make_printable(char *text)
{
    for (unsigned char *p = (unsigned char *)text; *p; p++)
        if (*p < 0x20 || *p == 0x7f) *p = '?';
}

bool err_setv(vlm_error *error, vlm_status code, const char *format, va_list args)
{
    if (!error) return false;
    error->code = code;
    error->hint[0] = 0;
    vsnprintf(error->message, sizeof error->message, format, args);
    make_printable(error->message);
    return false;
}

bool err_set(vlm_error *error, vlm_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    err_setv(error, code, format, args);
    va_end(args);
    return false;
}

bool err_hint(vlm_error *error, const char *format, ...)
{
    if (!error) return false;
    va_list args;
    va_start(args, format);
    vsnprintf(error->hint, sizeof error->hint, format, args);
    va_end(args);
    make_printable(error->hint);
    return false;
}

bool err_prefix(vlm_error *error, const char *format, ...)
{
    if (!error) return false;
    char old[sizeof error->message];
    memcpy(old, error->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    if (n < 0) n = 0;
    size_t used = (size_t)n < sizeof error->message ? (size_t)n : sizeof error->message - 1;
    snprintf(error->message + used, sizeof error->message - used, ": %s", old);
    make_printable(error->message);
    return false;
}

bool err_memory(vlm_error *error, size_t bytes)
{
    return err_set(error, VLM_MEMORY, "out of memory (%zu bytes asked for)", bytes);
}

const char *vlm_status_text(vlm_status status)
{
    switch (status) {
#define X(name, exit_code, text) case VLM_##name: return text;
        VLM_STATUS_TABLE(X)
#undef X
    }
    return "unknown status";
}

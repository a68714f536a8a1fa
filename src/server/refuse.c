/* refuse.c - see refuse.h. */
#include "server/refuse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool refuse(refusal *why, int status, const char *param, const char *format, ...)
{
    *why = (refusal){.status = status};
    snprintf(why->param, sizeof why->param, "%s", param ? param : "");
    va_list args;
    va_start(args, format);
    vsnprintf(why->message, sizeof why->message, format, args);
    va_end(args);
    return false;
}

bool refuse_memory(refusal *why) { return refuse(why, 503, NULL, "The server is out of memory for this request."); }

bool refuse_error(refusal *why, const vlm_error *error)
{
    static const struct { vlm_status code; int status; } table[] = {
        {VLM_INVALID, 400}, {VLM_NOT_FOUND, 404}, {VLM_FORMAT, 400}, {VLM_UNSUPPORTED, 400}, {VLM_LIMIT, 400}, {VLM_MEMORY, 503}, {VLM_IO, 400},
        {VLM_BUSY, 429}, {VLM_CANCELLED, 499}};
    int status = 500;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].code == error->code) status = table[i].status;
    refuse(why, status, NULL, "%s%s%s", error->message, *error->hint ? " " : "", error->hint);
    if (status == 429 || status == 503) why->retry_after = 1;
    return false;
}

static const char *openai_type(int status)
{
    return status == 401 ? "authentication_error" : status == 403 ? "permission_error" : status == 404 ? "not_found_error" :
           status == 429 ? "rate_limit_error" : status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *openai_code(int status)
{
    return status == 401 ? "invalid_api_key" : status == 404 ? "not_found" : status == 413 ? "request_too_large" : status == 429 ? "rate_limit_exceeded" : NULL;
}

static const char *anthropic_type(int status)
{
    return status == 401 ? "authentication_error" : status == 403 ? "permission_error" : status == 404 ? "not_found_error" : status == 413 ? "request_too_large" :
           status == 429 ? "rate_limit_error" : status == 503 ? "overloaded_error" : status >= 500 ? "api_error" : "invalid_request_error";
}

/* Messages quote what clients sent: what is no UTF-8 in them becomes '?'. */
static json_t *text_of(const char *text)
{
    json_t *value = json_string(text);
    if (value) return value;
    char plain[1400];
    snprintf(plain, sizeof plain, "%s", text);
    for (char *p = plain; *p; p++)
        if ((unsigned char)*p >= 0x80) *p = '?';
    return json_string(plain);
}

json_t *refusal_json(const refusal *why, dialect words)
{
    json_t *message = text_of(why->message), *param = *why->param ? text_of(why->param) : json_null();
    if (words == ANTHROPIC) {
        json_decref(param);
        return json_pack("{s:s, s:{s:s, s:o}}", "type", "error", "error", "type", anthropic_type(why->status), "message", message);
    }
    const char *code = why->code ? why->code : openai_code(why->status);
    return json_pack("{s:{s:o, s:s, s:o, s:s?}}", "error", "message", message, "type", why->type ? why->type : openai_type(why->status), "param", param,
                     "code", code);
}

void refusal_send(exchange *x, const refusal *why, dialect words)
{
    if (!why->status) return;
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", why->retry_after);
    if (why->retry_after) exchange_add_header(x, "Retry-After", seconds);
    if (why->status == 401) exchange_add_header(x, "WWW-Authenticate", "Bearer");
    send_json(x, why->status, refusal_json(why, words));
}

bool send_json(exchange *x, int status, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    bool ok = text && exchange_reply(x, status, "application/json", text, strlen(text));
    free(text);
    return ok;
}

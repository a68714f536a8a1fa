/* log.c - see log.h. */
#include "server/log.h"

#include <stdlib.h>
#include <time.h>

#include "server/http_internal.h"
#include "server/server_internal.h"

static void write_line(server *s, json_t *line)
{
    if (!line) return;
    if (s->options.log_json) {
        char *text = json_dumps(line, JSON_COMPACT);
        if (text) s->options.log(s->options.log_user, text);
        free(text);
    } else {
        buf text = {0};
        const char *key;
        json_t *value;
        json_object_foreach(line, key, value) {
            if (json_is_null(value)) continue;
            if (text.size) buf_addc(&text, ' ');
            if (json_is_string(value)) buf_addf(&text, "%s=%s", key, json_string_value(value));
            else if (json_is_real(value)) buf_addf(&text, "%s=%.4g", key, json_real_value(value));
            else buf_addf(&text, "%s=%lld", key, (long long)json_integer_value(value));
        }
        if (text.data) s->options.log(s->options.log_user, text.data);
        buf_free(&text);
    }
    json_decref(line);
}

/* What every line begins with. Method and path come from the route table's side of things: the path is the client's, so control characters and blanks in it
 * are shown as '?'. */
static json_t *head(exchange *x)
{
    char now[32], path[128];
    time_t seconds = time(NULL);
    struct tm t;
    gmtime_r(&seconds, &t);
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", &t);
    size_t n = 0;
    for (const char *p = exchange_path(x); *p && n < sizeof path - 1; p++) path[n++] = *p > ' ' && *p < 127 ? *p : '?';
    path[n] = 0;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "time", now, "id", exchange_id(x), "peer", exchange_peer(x), "method", exchange_method(x), "path", path,
                     "status", exchange_status(x));
}

void log_call(const call *c)
{
    server *s = c->server;
    if (!s->options.log) return;
    vlm_usage u = call_usage(c);
    json_t *line = c->x ? head(c->x) : json_pack("{s:s}", "id", c->id), *rest = json_pack("{s:s, s:s?, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f}", "model", c->resident->name, "finish",
        c->choices[0].finish_reason, "prompt", u.prompt_tokens, "cached", u.cached_tokens, "answer", u.completion_tokens, "media", u.media_items, "media_cached",
        u.media_cached, "queue", u.queue_seconds, "encode", u.media_seconds + u.encode_seconds, "first", u.first_token_seconds, "total", u.total_seconds,
        "per_second", u.decode_seconds > 0 ? (u.completion_tokens - 1) / u.decode_seconds : 0.0);
    json_object_update(line, rest);
    json_decref(rest);
    write_line(s, line);
}

void log_exchange(server *s, exchange *x)
{
    if (!s->options.log) return;
    json_t *line = head(x);
    json_object_set_new(line, "total", json_real(http_now() - exchange_started(x)));
    write_line(s, line);
}

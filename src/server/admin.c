/* admin.c - what operators and routers ask: health, readiness, models, metrics, caches. */
#include "server/server_internal.h"

#include <stdlib.h>

void route_health(server *s, exchange *x, const char *argument)
{
    json_t *models = residents_json(s->residents, NULL);
    const char *first = NULL;
    for (size_t i = 0; !first && i < json_array_size(models); i++)
        if (json_is_true(json_object_get(json_array_get(models, i), "loaded"))) first = json_string_value(json_object_get(json_array_get(models, i), "id"));
    send_json(x, 200, json_pack("{s:s, s:s?, s:o, s:b}", "status", "healthy", "loaded_model", first, "models", models, "continuous_batching_enabled", 1));
}

void route_ready(server *s, exchange *x, const char *argument)
{
    bool draining = atomic_load(&s->draining), ready = !draining && residents_ready(s->residents);
    send_json(x, ready ? 200 : 503, json_pack("{s:s}", "status", ready ? "ready" : draining ? "draining" : "loading"));
}

void route_models(server *s, exchange *x, const char *argument)
{
    send_json(x, 200, json_pack("{s:s, s:o}", "object", "list", "data", residents_json(s->residents, NULL)));
}

void route_model(server *s, exchange *x, const char *name)
{
    json_t *found = residents_json(s->residents, name);
    refusal why;
    if (json_array_size(found)) send_json(x, 200, json_incref(json_array_get(found, 0)));
    else {
        refuse(&why, 404, "model", "The model '%.200s' is not served here.", name);
        why.code = "model_not_found";
        refusal_send(x, &why, OPENAI);
    }
    json_decref(found);
}

void route_metrics(server *s, exchange *x, const char *argument)
{
    buf text = {0};
    metrics_text(s, &text);
    if (text.failed) exchange_reply(x, 503, "text/plain", "out of memory\n", 14);
    else exchange_reply(x, 200, "text/plain; version=0.0.4; charset=utf-8", text.data, text.size);
    buf_free(&text);
}

static void add_stats(void *user, resident *r)
{
    vlm_error error;
    char *text = vlm_engine_stats(r->engine, &error);
    json_t *stats = text ? json_loads(text, 0, NULL) : NULL;
    if (stats) json_object_set_new(user, r->name, stats);
    vlm_free(text);
}

void route_unload(server *s, exchange *x, const char *argument)
{
    json_t *names = json_array();
    int n = residents_unload(s->residents, names);
    const char *first = json_string_value(json_array_get(names, 0));
    if (n) send_json(x, 200, json_pack("{s:s, s:s, s:{s:s?, s:n, s:o}}", "status", "success", "message", "Idle models are unloaded now, the others when they are idle.",
                                       "unloaded", "model_name", first, "adapter_name", "models", names));
    else {
        json_decref(names);
        send_json(x, 200, json_pack("{s:s, s:s}", "status", "no_model_loaded", "message", "No model is loaded."));
    }
}

void route_cache_stats(server *s, exchange *x, const char *argument)
{
    json_t *models = json_object();
    residents_each(s->residents, add_stats, models);
    send_json(x, 200, json_pack("{s:b, s:o}", "enabled", 1, "models", models));
}

static void reset(void *user, resident *r) { vlm_engine_reset_caches(r->engine); }

void route_cache_reset(server *s, exchange *x, const char *argument)
{
    residents_each(s->residents, reset, NULL);
    send_json(x, 200, json_pack("{s:b, s:s}", "enabled", 1, "status", "cleared"));
}

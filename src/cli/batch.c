/* batch.c - see batch.h. */
#include "cli/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/err.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/flags.h"

double peak_memory(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? 1024.0 * (double)usage.ru_maxrss : 0;
}

void print_json(json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT);
    puts(text ? text : "null");
    fflush(stdout);
    free(text);
    json_decref(value);
}

json_t *result_json(const vlm_result *result)
{
    const vlm_usage *u = &result->usage;
    json_t *usage = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "prompt_tokens", u->prompt_tokens, "cached_tokens", u->cached_tokens,
                              "completion_tokens", u->completion_tokens, "reasoning_tokens", u->reasoning_tokens, "media_items", u->media_items, "media_cached", u->media_cached,
                              "preemptions", u->preemptions);
    json_t *timings = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "queue_seconds", u->queue_seconds, "media_seconds", u->media_seconds,
                                "encode_seconds", u->encode_seconds, "prefill_seconds", u->prefill_seconds, "decode_seconds", u->decode_seconds,
                                "first_token_seconds", u->first_token_seconds, "total_seconds", u->total_seconds);
    json_t *ids = json_array();
    for (size_t i = 0; i < result->token_count; i++) json_array_append_new(ids, json_integer(result->tokens[i]));
    const char *text = result->text ? result->text : "";
    json_t *calls = result->tool_calls ? json_loads(result->tool_calls, 0, NULL) : NULL;
    json_t *out = json_pack("{s:s, s:s?, s:s?, s:o?, s:o, s:s, s:o, s:o}", "text", text, "content", *text || !calls ? text : NULL, "reasoning", result->reasoning,
                            "tool_calls", calls, "token_ids", ids, "finish_reason", result->finish_reason ? result->finish_reason : "", "usage", usage,
                            "timings", timings);
    json_t *notices = out && result->notices ? json_array() : NULL;
    for (const char *line = result->notices; notices && line && *line; line += strcspn(line, "\n") + 1)
        json_array_append_new(notices, json_stringn(line, strcspn(line, "\n")));
    if (notices) json_object_set_new(out, "notices", notices);
    json_t *parsed = result->parsed ? json_loads(result->parsed, 0, NULL) : NULL;
    if (parsed) json_object_set_new(out, "parsed", parsed);
    return out;
}

vlm_status request_run(vlm_engine *engine, const vlm_request_options *options, vlm_event_fn on_event, void *user, vlm_result *result, vlm_error *error)
{
    vlm_request *request = vlm_submit(engine, options, error);
    if (!request) return error->code;
    vlm_status status = vlm_request_collect(request, on_event, user, result, error);
    vlm_request_free(request);
    return status;
}

/* ---- a line of the file ---- */

static bool line_error(vlm_error *error, int line, const char *what)
{
    return err_set(error, VLM_INVALID, "line %d of the batch file: %s", line, what);
}

/* A source, or an object with its source and options: {"image": "a.jpg", "detail": "low"}. */
static json_t *part_of(const json_t *source, const char *type)
{
    json_t *part = json_pack("{s:s}", "type", type);
    if (json_is_object(source)) json_object_update_missing(part, (json_t *)(uintptr_t)source);
    else json_object_set(part, type, (json_t *)(uintptr_t)source);
    return part;
}

static void add_sources(json_t *content, const json_t *line, const char *type)
{
    json_t *value = json_object_get(line, type);
    size_t n = json_is_array(value) ? json_array_size(value) : json_is_string(value) || json_is_object(value);
    for (size_t i = 0; i < n; i++) json_array_append_new(content, part_of(json_is_array(value) ? json_array_get(value, i) : value, type));
}

/* media_options of the line, and members of the line that are such by their names, over those of the flags. */
static bool take_media_options(const json_t *line, const char **out, kept *keep)
{
    static const char *const names[] = {"detail", "min_pixels", "max_pixels", "resize_shape", "fps", "num_frames", "min_frames", "max_frames", "max_soft_tokens",
                                        "max_tiles", "max_image_tiles"};
    const json_t *own = json_object_get(line, "media_options");
    json_t *merged = *out ? json_loads(*out, 0, NULL) : json_object();
    bool any = json_is_object(own) && json_object_update(merged, (json_t *)(uintptr_t)own) == 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *value = json_object_get(line, names[i]);
        if (value) any |= json_object_set(merged, names[i], value) == 0;
    }
    if (any) return (*out = keep_json(keep, merged)) != NULL;
    json_decref(merged);
    return true;
}

static json_t *messages_of_line(const json_t *line)
{
    json_t *given = json_object_get(line, "messages");
    if (json_is_array(given)) return json_incref(given);
    const char *prompt = json_string_value(json_object_get(line, "prompt"));
    json_t *content = json_array();
    add_sources(content, line, "image");
    add_sources(content, line, "video");
    add_sources(content, line, "audio");
    if (prompt && (*prompt || !json_array_size(content)))
        json_array_append_new(content, json_pack("{s:s, s:s}", "type", "text", "text", prompt));
    json_t *messages = json_array();
    const char *system = json_string_value(json_object_get(line, "system"));
    if (system) json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    return messages;
}

static void take_float(const json_t *line, const char *key, float *out)
{
    json_t *value = json_object_get(line, key);
    if (json_is_number(value)) *out = (float)json_number_value(value);
}

static void take_int(const json_t *line, const char *key, int *out)
{
    json_t *value = json_object_get(line, key);
    if (json_is_integer(value)) *out = (int)json_integer_value(value);
}

static void take_bool(const json_t *line, const char *key, int *out)
{
    json_t *value = json_object_get(line, key);
    if (json_is_boolean(value)) *out = json_is_true(value);
}

/* JSON as text; where a string is meant (tool_choice), the string itself. */
static bool take_text(const json_t *line, const char *key, bool string, const char **out, kept *keep)
{
    json_t *value = json_object_get(line, key);
    if (!value || json_is_null(value)) return true;
    if (string && json_is_string(value)) return *out = json_string_value(value), true;
    return (*out = keep_json(keep, json_incref(value))) != NULL;
}

static bool request_of_line(const json_t *line, int number, vlm_request_options *request, kept *keep, vlm_error *error)
{
    if (!json_is_object(line)) return line_error(error, number, "no JSON object");
    if (!json_is_array(json_object_get(line, "messages")) && !json_is_string(json_object_get(line, "prompt")))
        return line_error(error, number, "neither \"messages\" (array) nor \"prompt\" (string)");
    if (!(request->messages = keep_json(keep, messages_of_line(line)))) return err_memory(error, 0);
    take_int(line, "max_tokens", &request->max_tokens);
    take_float(line, "temperature", &request->sampling.temperature);
    take_float(line, "top_p", &request->sampling.top_p);
    take_int(line, "min_tokens", &request->min_tokens);
    take_int(line, "num_beams", &request->num_beams);
    take_float(line, "length_penalty", &request->length_penalty);
    const json_t *early = json_object_get(line, "early_stopping");
    if (early && !json_is_null(early)) request->early_stopping = json_is_true(early) ? 1 : json_is_string(early) ? 2 : 0;
    take_int(line, "thinking_budget", &request->thinking_budget);
    take_bool(line, "parse", &request->parse);
    take_bool(line, "parallel_tool_calls", &request->parallel_tool_calls);
    take_bool(line, "include_stop", &request->include_stop);
    take_bool(line, "ignore_eos", &request->ignore_eos);
    take_bool(line, "skip_special_tokens", &request->skip_special_tokens);
    take_int(line, "top_k", &request->sampling.top_k);
    take_float(line, "min_p", &request->sampling.min_p);
    take_float(line, "repetition_penalty", &request->sampling.repetition_penalty);
    take_float(line, "presence_penalty", &request->sampling.presence_penalty);
    take_float(line, "frequency_penalty", &request->sampling.frequency_penalty);
    json_t *seed = json_object_get(line, "seed");
    if (json_is_integer(seed)) request->sampling.seed = (uint64_t)json_integer_value(seed);
    struct { const char *key; bool string; const char **field; } texts_of[] = {
        {"stop", false, &request->stop}, {"tools", false, &request->chat.tools}, {"template_kwargs", false, &request->chat.template_kwargs},
        {"logit_bias", false, &request->sampling.logit_bias},
        {"response_format", false, &request->response_format}, {"tool_choice", true, &request->tool_choice},
        {"tool_format", true, &request->tool_format}, {"stop_token_ids", false, &request->stop_token_ids},
        {"adapter", true, &request->adapter}, {"thinking_start_token", true, &request->thinking_start}, {"thinking_end_token", true, &request->thinking_end}};
    for (size_t i = 0; i < sizeof texts_of / sizeof *texts_of; i++)
        if (!take_text(line, texts_of[i].key, texts_of[i].string, texts_of[i].field, keep)) return err_memory(error, 0);
    return take_media_options(line, &request->media_options, keep) || err_memory(error, 0);
}

/* ---- the file ---- */

typedef struct batch_item { json_t *line; vlm_request *request; vlm_error error; bool failed; } batch_item;

static json_t *read_lines(const char *path, vlm_error *error)
{
    buf file = {0};
    json_t *lines = NULL;
    if (!file_read(path, (size_t)256 << 20, &file, error)) goto done;
    lines = json_array();
    int number = 0;
    for (char *p = file.data; p && *p;) {
        char *end = strchr(p, '\n');
        size_t n = end ? (size_t)(end - p) : strlen(p);
        number++;
        if (strspn(p, " \t\r") < n) {
            json_error_t where;
            json_t *line = json_loadb(p, n, 0, &where);
            if (!line) {
                err_set(error, VLM_FORMAT, "%s: line %d, column %d: %s", path, number, where.column, where.text);
                json_decref(lines);
                lines = NULL;
                goto done;
            }
            json_array_append_new(lines, line);
        }
        p += n + (end != NULL);
    }
    if (!json_array_size(lines)) {
        err_set(error, VLM_INVALID, "%s holds no request", path);
        json_decref(lines);
        lines = NULL;
    }
done:
    buf_free(&file);
    return lines;
}

static void submit_line(vlm_engine *engine, const vlm_request_options *defaults, json_t *line, int number, batch_item *item)
{
    vlm_request_options request = *defaults;
    kept keep = {0};
    item->line = line;
    if (request_of_line(line, number, &request, &keep, &item->error)) item->request = vlm_submit(engine, &request, &item->error);
    item->failed = !item->request;
    kept_free(&keep);
}

static void finish_line(batch_item *item, int index)
{
    vlm_result result = {0};
    if (!item->failed) item->failed = vlm_request_collect(item->request, NULL, NULL, &result, &item->error) != VLM_OK;
    json_t *out = item->failed ? json_pack("{s:{s:s, s:s}}", "error", "code", vlm_status_text(item->error.code), "message", item->error.message)
                               : result_json(&result);
    json_object_set_new(out, "index", json_integer(index));
    json_t *id = json_object_get(item->line, "id");
    if (id) json_object_set(out, "id", id);
    print_json(out);
    vlm_result_clear(&result);
    vlm_request_free(item->request);
}

int batch_run(vlm_model *model, const char *path, const vlm_request_options *defaults, int prefill_chunk, int context)
{
    vlm_error error = {0};
    vlm_engine_options options = vlm_engine_options_default();
    options.prefill_chunk = prefill_chunk;
    options.context = context;
    json_t *lines = read_lines(path, &error);
    int count = lines ? (int)json_array_size(lines) : 0, failed = 0;
    options.max_queue = count + 1;
    vlm_engine *engine = lines ? vlm_engine_new(model, &options, &error) : NULL;
    batch_item *items = engine ? MEM_ARRAY((size_t)count, batch_item) : NULL;
    if (engine && !items) err_memory(&error, 0);
    for (int i = 0; items && i < count; i++) submit_line(engine, defaults, json_array_get(lines, (size_t)i), i + 1, &items[i]);
    for (int i = 0; items && i < count; i++) {
        finish_line(&items[i], i);
        failed += items[i].failed;
    }
    int exit_code = !items ? report(&error) : failed ? 1 : 0;
    mem_free(items);
    vlm_engine_free(engine);
    json_decref(lines);
    return exit_code;
}

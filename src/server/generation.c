/* generation.c - see generation.h. Names are OpenAI's, and MLX-VLM's where OpenAI has none. */
#include "server/generation.h"

#include <limits.h>
#include <math.h>
#include <string.h>
#include <sys/random.h>

#define AT(name) offsetof(generation, name)
#define OPTION(name) offsetof(generation, options.name)
#define SAMPLING(name) offsetof(generation, options.sampling.name)
const field generation_fields[] = {
    {"model", F_TEXT, AT(model), 0, 0},
    {"stream", F_BOOL, AT(stream), 0, 0},
    {"stream_options", F_OBJECT, AT(stream_options), 0, 0},
    {"n", F_INT, AT(n), 1, 128},
    {"max_tokens", F_INT, OPTION(max_tokens), 0, INT_MAX},
    {"max_completion_tokens", F_INT, AT(max_completion_tokens), 0, INT_MAX},
    {"min_tokens", F_INT, OPTION(min_tokens), 0, INT_MAX},
    {"num_beams", F_INT, OPTION(num_beams), 0, 64},
    {"length_penalty", F_NUMBER, OPTION(length_penalty), -100, 100},
    {"temperature", F_NUMBER, SAMPLING(temperature), 0, 100},
    {"top_p", F_NUMBER, SAMPLING(top_p), 0, 1},
    {"top_k", F_INT, SAMPLING(top_k), -1, INT_MAX},
    {"min_p", F_NUMBER, SAMPLING(min_p), 0, 1},
    {"typical_p", F_NUMBER, SAMPLING(typical_p), 0, 1},
    {"top_n_sigma", F_NUMBER, SAMPLING(top_n_sigma), 0, 1e6},
    {"repetition_penalty", F_NUMBER, SAMPLING(repetition_penalty), 0.001, 1000},
    {"repetition_context_size", F_INT, SAMPLING(repetition_context), 0, INT_MAX},
    {"presence_penalty", F_NUMBER, SAMPLING(presence_penalty), -100, 100},
    {"presence_context_size", F_INT, SAMPLING(presence_context), 0, INT_MAX},
    {"frequency_penalty", F_NUMBER, SAMPLING(frequency_penalty), -100, 100},
    {"frequency_context_size", F_INT, SAMPLING(frequency_context), 0, INT_MAX},
    {"logit_bias", F_OBJECT, AT(logit_bias), 0, 0},
    {"seed", F_ANY, AT(seed), 0, 0},
    {"stop", F_ANY, AT(stop), 0, 0},
    {"eos_tokens", F_ARRAY, AT(eos_tokens), 0, 0},
    {"ignore_eos", F_BOOL, OPTION(ignore_eos), 0, 0},
    {"include_stop_str_in_output", F_BOOL, OPTION(include_stop), 0, 0},
    {"skip_special_tokens", F_BOOL, OPTION(skip_special_tokens), 0, 0},
    {"response_format", F_OBJECT, AT(response_format), 0, 0},
    {"tools", F_ARRAY, AT(tools), 0, 0},
    {"tool_choice", F_ANY, AT(tool_choice), 0, 0},
    {"tool_parser", F_TEXT, OPTION(tool_format), 0, 0},
    {"parallel_tool_calls", F_BOOL, OPTION(parallel_tool_calls), 0, 0},
    {"enable_thinking", F_BOOL, AT(enable_thinking), 0, 0},
    {"reasoning", F_ANY, AT(reasoning), 0, 0},
    {"reasoning_effort", F_TEXT, AT(reasoning_effort), 0, 0},
    {"thinking_budget", F_INT, OPTION(thinking_budget), -1, INT_MAX},
    {"thinking_start_token", F_TEXT, OPTION(thinking_start), 0, 0},
    {"thinking_end_token", F_TEXT, OPTION(thinking_end), 0, 0},
    {"chat_template_kwargs", F_OBJECT, AT(kwargs), 0, 0},
    {"min_pixels", F_INT, AT(min_pixels), 1, INT_MAX},
    {"max_pixels", F_INT, AT(max_pixels), 1, INT_MAX},
    {"fps", F_NUMBER, AT(fps), 0.001, 1000},
    {"resize_shape", F_ARRAY, AT(resize_shape), 0, 0},
    {"max_soft_tokens", F_INT, AT(max_soft_tokens), 1, INT_MAX},
    {"max_image_tiles", F_INT, AT(max_tiles), 1, INT_MAX},
    {"num_frames", F_INT, AT(num_frames), 1, INT_MAX},
    {"media_options", F_OBJECT, AT(media_options), 0, 0},
    {"adapter", F_TEXT, OPTION(adapter), 0, 0},
    {"priority", F_INT, OPTION(priority), -1000, 1000},
    {0},
};

static bool read_seed(generation *g, refusal *why)
{
    if (g->seed && !json_is_integer(g->seed)) return refuse(why, 400, "seed", "'seed': a whole number was expected.");
    if (g->seed) g->options.sampling.seed = (uint64_t)json_integer_value(g->seed);
    else if (getrandom(&g->options.sampling.seed, sizeof g->options.sampling.seed, 0) < 0) g->options.sampling.seed = 0;
    return true;
}

static bool read_stop(generation *g, refusal *why)
{
    if (!g->stop) return true;
    bool one = json_is_string(g->stop);
    if (!one && !json_is_array(g->stop)) return refuse(why, 400, "stop", "'stop': a string or an array of strings was expected.");
    if (json_array_size(g->stop) > 64) return refuse(why, 400, "stop", "'stop': at most 64 strings are taken.");
    size_t i;
    const json_t *item;
    json_array_foreach(g->stop, i, item)
        if (!json_is_string(item)) return refuse(why, 400, "stop", "'stop[%zu]': a string was expected.", i);
    json_t *list = one ? json_pack("[O]", g->stop) : json_incref((json_t *)(uintptr_t)g->stop);
    bool ok = list && (g->options.stop = body_text(&g->memory, list));
    json_decref(list);
    return ok || refuse_memory(why);
}

/* Precedence: enable_thinking, reasoning, reasoning_effort, the server's default. */
static bool read_thinking(const server *s, generation *g, json_t *kwargs, refusal *why)
{
    static const char *const off[] = {"none", "off", "disabled", "false", "0", NULL};
    const char *effort = g->reasoning_effort;
    int enable = g->enable_thinking;
    if (g->reasoning && !json_is_boolean(g->reasoning) && !json_is_string(g->reasoning) && !json_is_object(g->reasoning))
        return refuse(why, 400, "reasoning", "'reasoning': an object, a string or a truth value was expected.");
    if (json_is_string(g->reasoning)) effort = json_string_value(g->reasoning);
    const json_t *inner = json_object_get(g->reasoning, "effort");
    if (json_is_string(inner)) effort = json_string_value(inner);
    if (enable < 0 && json_is_boolean(g->reasoning)) enable = json_is_true(g->reasoning);
    if (enable < 0 && effort) {
        enable = 1;
        for (int i = 0; off[i]; i++) enable = enable && strcmp(effort, off[i]);
    }
    if (enable < 0 && g->options.thinking_budget == 0) enable = 0;
    if (enable < 0) enable = s->options.enable_thinking;
    if (enable >= 0) json_object_set_new(kwargs, "enable_thinking", json_boolean(enable));
    if (effort && enable) {
        json_object_set_new(kwargs, "reasoning_effort", json_string(effort));
        json_object_set_new(kwargs, "reasoning_strength", json_string(effort));
    }
    if (g->options.thinking_budget >= 0) json_object_set_new(kwargs, "thinking_budget", json_integer(g->options.thinking_budget));
    return true;
}

static bool read_kwargs(const server *s, generation *g, refusal *why)
{
    json_t *kwargs = g->kwargs ? json_deep_copy(g->kwargs) : json_object();
    json_object_del(kwargs, "chat_template");              /* templates of clients are not run */
    bool ok = read_thinking(s, g, kwargs, why);
    if (ok && json_object_size(kwargs) && !(g->options.chat.template_kwargs = body_text(&g->memory, kwargs))) ok = refuse_memory(why);
    json_decref(kwargs);
    return ok;
}

static bool check_shape(const json_t *shape, refusal *why)
{
    size_t i, n = json_array_size(shape);
    const json_t *side;
    if (shape && (n < 1 || n > 2)) return refuse(why, 400, "resize_shape", "'resize_shape': [n] or [width, height] was expected.");
    json_array_foreach(shape, i, side) {
        double value = json_number_value(side);
        if (!json_is_number(side) || value != floor(value) || value < 1 || value > 16384)
            return refuse(why, 400, "resize_shape", "'resize_shape[%zu]': a whole number from 1 to 16384 was expected.", i);
    }
    return true;
}

bool check_tools(const json_t *tools, refusal *why)
{
    size_t i;
    const json_t *tool;
    json_array_foreach(tools, i, tool) {
        char param[48];
        const json_t *type = json_object_get(tool, "type"), *function = json_object_get(tool, "function"), *parameters, *description;
        snprintf(param, sizeof param, "tools[%zu]", i);
        if (!json_is_object(tool) || (type && (!json_is_string(type) || strcmp(json_string_value(type), "function"))))
            return refuse(why, 400, param, "'%s': an object of the type \"function\" was expected.", param);
        if (!json_is_object(function) || !json_string_length(json_object_get(function, "name")))
            return refuse(why, 400, param, "'%s.function': an object with a name was expected.", param);
        description = json_object_get(function, "description");
        if (description && !json_is_string(description) && !json_is_null(description))
            return refuse(why, 400, param, "'%s.function.description': a string was expected.", param);
        parameters = json_object_get(function, "parameters");
        if (parameters && !json_is_object(parameters) && !json_is_null(parameters))
            return refuse(why, 400, param, "'%s.function.parameters': a JSON schema (an object) was expected.", param);
    }
    return true;
}

static bool read_media_options(generation *g, refusal *why)
{
    if (!check_shape(g->resize_shape, why)) return false;
    json_t *options = g->media_options ? json_copy((json_t *)(uintptr_t)g->media_options) : json_object();
    if (g->min_pixels && g->max_pixels && g->min_pixels > g->max_pixels) {
        json_decref(options);
        return refuse(why, 400, "min_pixels", "'min_pixels' is greater than 'max_pixels'.");
    }
    if (g->min_pixels) json_object_set_new(options, "min_pixels", json_integer(g->min_pixels));
    if (g->max_pixels) json_object_set_new(options, "max_pixels", json_integer(g->max_pixels));
    if (g->max_soft_tokens) json_object_set_new(options, "max_soft_tokens", json_integer(g->max_soft_tokens));
    if (g->max_tiles) json_object_set_new(options, "max_tiles", json_integer(g->max_tiles));
    if (g->num_frames) json_object_set_new(options, "num_frames", json_integer(g->num_frames));
    if (g->fps > 0) json_object_set_new(options, "fps", json_real((double)g->fps));
    if (g->resize_shape) json_object_set(options, "resize_shape", (json_t *)(uintptr_t)g->resize_shape);
    bool ok = !json_object_size(options) || (g->options.media_options = body_text(&g->memory, options)) || refuse_memory(why);
    json_decref(options);
    return ok;
}

/* JSON values that the engine takes as texts. */
static bool read_texts(generation *g, refusal *why)
{
    const struct { const json_t *value; const char **to; } texts[] = {
        {g->tools && json_array_size(g->tools) ? g->tools : NULL, &g->options.chat.tools}, {g->response_format, &g->options.response_format},
        {g->logit_bias, &g->options.sampling.logit_bias}, {g->eos_tokens, &g->options.eos_tokens}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value && !(*texts[i].to = body_text(&g->memory, texts[i].value))) return refuse_memory(why);
    if (!check_tools(g->tools, why)) return false;
    if (!g->tool_choice) return true;
    if (json_is_string(g->tool_choice)) g->options.tool_choice = json_string_value(g->tool_choice);
    else if (!json_is_object(g->tool_choice)) return refuse(why, 400, "tool_choice", "'tool_choice': a string or an object was expected.");
    else if (!(g->options.tool_choice = body_text(&g->memory, g->tool_choice))) return refuse_memory(why);
    return true;
}

bool generation_read(server *s, exchange *x, const json_t *body, generation *g, refusal *why)
{
    *g = (generation){.options = vlm_request_options_default(), .n = 1, .enable_thinking = -1, .max_completion_tokens = -1};
    g->options.max_tokens = -1;
    if (!body_read(body, generation_fields, g, "", why)) return false;
    if (g->max_completion_tokens >= 0) g->options.max_tokens = g->max_completion_tokens;
    if (g->options.max_tokens < 0) g->options.max_tokens = s->options.max_tokens;
    if (g->n > s->options.max_choices) return refuse(why, 400, "n", "'n': at most %d choices are made.", s->options.max_choices);
    const json_t *usage = json_object_get(g->stream_options, "include_usage");
    if (usage && !json_is_boolean(usage)) return refuse(why, 400, "stream_options.include_usage", "'stream_options.include_usage': true or false was expected.");
    g->usage_wanted = json_is_true(usage);
    g->options.allow_local_files = 0;
    g->options.allow_network = s->options.allow_network;
    g->options.timeout_seconds = s->options.request_seconds;
    g->options.tenant = exchange_tenant(x);
    if (!read_seed(g, why) || !read_stop(g, why) || !read_kwargs(s, g, why) || !read_media_options(g, why) || !read_texts(g, why)) return false;
    return (g->resident = residents_borrow(s->residents, g->model, x, why)) != NULL;
}

void generation_free(generation *g)
{
    residents_return(g->resident);
    arena_free(&g->memory);
}

/* generate.c - `vlm generate`: one question, its answer as it comes; or a file of requests, answered together. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "cli/answer.h"
#include "cli/batch.h"
#include "cli/commands.h"
#include "cli/flags.h"

typedef struct generate_options {
    model_flags model;
    sampling_flags sampling;
    media_flags media;
    answer_flags answer;
    texts prompt, image, audio, video;
    const char *system, *batch;
    int64_t prefill_step_size, max_kv_size;
    bool verbose, json, raw;
} generate_options;

#define FIELD(name) offsetof(generate_options, name)
static const option options_table[] = {
    {OPT_SECTION, .help = "Request"},
    {OPT_TEXTS, "prompt", "TEXT", "the question; several are several user turns (\"What are these?\")", FIELD(prompt), NULL, 'p'},
    {OPT_TEXTS, "image", "SRC", "pictures, put before the last question", FIELD(image), NULL, 'i'},
    {OPT_TEXTS, "video", "SRC", "videos", FIELD(video), NULL, 0},
    {OPT_TEXTS, "audio", "SRC", "sound", FIELD(audio), NULL, 0},
    {OPT_TEXT, "system", "TEXT", "system message", FIELD(system), NULL, 0},
    {OPT_SWITCH, "raw", NULL, "the prompt is used as it is, without the chat template", FIELD(raw), NULL, 0},
    {OPT_TEXT, "batch", "FILE", "JSON lines, one request each, answered together (see below)", FIELD(batch), NULL, 0},
    SAMPLING_OPTIONS(generate_options, sampling),
    ANSWER_OPTIONS(generate_options, answer),
    MEDIA_OPTIONS(generate_options, media),
    MODEL_OPTIONS(generate_options, model),
    {OPT_INT, "prefill-step-size", "N", "most prompt tokens of a request in one step (chosen)", FIELD(prefill_step_size), NULL, 0},
    {OPT_INT, "max-kv-size", "N", "longest prompt and answer together (the model's)", FIELD(max_kv_size), NULL, 0},
    {OPT_SECTION, .help = "Output"},
    {OPT_SWITCH, "verbose", NULL, "prompt, files and speeds too", FIELD(verbose), NULL, 'v'},
    {OPT_SWITCH, "json", NULL, "one JSON object instead of text", FIELD(json), NULL, 0},
    {0},
};

static void defaults(void *memory)
{
    generate_options *o = memory;
    model_flags_default(&o->model);
    sampling_flags_default(&o->sampling);
    answer_flags_default(&o->answer);
}

/* ---- messages ---- */

static void add_parts(json_t *content, const char *type, const texts *sources)
{
    for (int i = 0; i < sources->count; i++) json_array_append_new(content, json_pack("{s:s, s:s}", "type", type, type, sources->item[i]));
}

/* Pictures, videos and sound stand on the last user turn, before its text. */
static json_t *messages_of(const generate_options *o)
{
    json_t *messages = json_array();
    if (o->system) json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", o->system));
    int turns = o->prompt.count ? o->prompt.count : 1;
    for (int i = 0; i < turns; i++) {
        json_t *content = json_array();
        if (i == turns - 1) {
            add_parts(content, "image", &o->image);
            add_parts(content, "video", &o->video);
            add_parts(content, "audio", &o->audio);
        }
        const char *text = o->prompt.count ? o->prompt.item[i] : "What are these?";
        if (*text || !json_array_size(content)) json_array_append_new(content, json_pack("{s:s, s:s}", "type", "text", "text", text));
        json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    }
    return messages;
}

static json_t *media_of(const generate_options *o)
{
    json_t *list = json_array();
    add_parts(list, "image", &o->image);
    add_parts(list, "video", &o->video);
    add_parts(list, "audio", &o->audio);
    return list;
}

/* ---- one request ---- */

static atomic_bool interrupted;
static void on_interrupt(int number) { atomic_store(&interrupted, true); }

typedef struct printing { bool text; printer look; json_t *tokens; } printing;

static int on_event(const vlm_event *event, void *user)
{
    printing *p = user;
    if (event->type == VLM_EVENT_PROGRESS) progress_bar(NULL, event->progress_what, event->progress_done, event->progress_total);
    else progress_clear();
    if (p->text) printer_event(&p->look, event);
    if (event->type == VLM_EVENT_TOKEN && p->tokens) {
        json_t *top = json_array();
        for (int i = 0; i < event->top_count; i++)
            json_array_append_new(top, json_pack("{s:i, s:f}", "token", event->top[i].token, "logprob", event->top[i].logprob));
        json_array_append_new(p->tokens, json_pack("{s:i, s:f, s:o}", "token", event->token, "logprob", event->logprob, "top", top));
    }
    return atomic_load(&interrupted);
}

static void print_sources(const char *key, const texts *list)
{
    for (int i = 0; i < list->count; i++) printf("%s%s", i || *key ? key : "", list->item[i]);
}

static void print_head(const vlm_model *model, const generate_options *o, const vlm_request_options *request)
{
    printf("==========\nFiles: [");
    print_sources(" ", &o->image);
    print_sources(" ", &o->video);
    print_sources(" ", &o->audio);
    printf(" ]\n");
    vlm_error error;
    char *prompt = request->messages ? vlm_apply_chat_template(model, request->messages, &request->chat, &error) : NULL;
    printf("Prompt: %s\n", prompt ? prompt : request->prompt ? request->prompt : "");
    vlm_free(prompt);
}

static void print_speeds(const vlm_usage *u)
{
    printf("==========\nPrompt: %d tokens (%d cached), %.3f tokens-per-sec\n", u->prompt_tokens, u->cached_tokens,
           u->prefill_seconds > 0 ? (u->prompt_tokens - u->cached_tokens) / u->prefill_seconds : 0);
    printf("Generation: %d tokens, %.3f tokens-per-sec\n", u->completion_tokens,
           u->decode_seconds > 0 ? (u->completion_tokens - 1) / u->decode_seconds : 0);
    if (u->media_items)
        printf("Media: %d items (%d cached), decoded in %.3f s, encoded in %.3f s\n", u->media_items, u->media_cached, u->media_seconds, u->encode_seconds);
    printf("First token after %.3f s, all after %.3f s\n", u->first_token_seconds, u->total_seconds);
    printf("Peak memory: %.3f GB\n", peak_memory() / 1e9);
}

static int answer(vlm_model *model, const generate_options *o, vlm_request_options *request)
{
    vlm_error error = {0};
    vlm_result result = {0};
    vlm_engine_options engine_options = vlm_engine_options_default();
    engine_options.prefill_chunk = (int)o->prefill_step_size;
    engine_options.context = (int)o->max_kv_size;
    engine_options.prefix_cache = 0;                 /* the engine ends with the answer: nobody would hit them */
    engine_options.vision_cache_bytes = 0;
    printing p = {.text = !o->json, .look = printer_new(o->verbose), .tokens = o->json && o->sampling.top_logprobs >= 0 ? json_array() : NULL};
    signal(SIGINT, on_interrupt);
    if (o->verbose && !o->json) print_head(model, o, request);
    vlm_engine *engine = vlm_engine_new(model, &engine_options, &error);
    vlm_status status = engine ? request_run(engine, request, on_event, &p, &result, &error) : error.code;
    if (!o->json && (result.token_count || !status)) printer_end(&p.look);
    if (!status && o->json) {
        json_t *out = result_json(&result);
        if (p.tokens) json_object_set(out, "logprobs", p.tokens);
        print_json(out);
    }
    if (!status && o->verbose && !o->json) print_speeds(&result.usage);
    int exit_code = status ? report(&error) : atomic_load(&interrupted) ? 130 : 0;
    json_decref(p.tokens);
    vlm_result_clear(&result);
    vlm_engine_free(engine);
    return exit_code;
}

static int run(const command *self, void *memory, texts words)
{
    generate_options *o = memory;
    if (words.count) return usage_error("generate: '%s' is no option; the question goes after --prompt", words.item[0]);
    if (o->batch && (o->prompt.count || o->image.count || o->audio.count || o->video.count))
        return usage_error("generate: --batch takes its requests from the file; --prompt and media do not go with it");
    kept keep = {0};
    vlm_request_options request;
    int exit_code = 2;
    vlm_model *model = NULL;
    if (!request_from_flags(&o->sampling, &o->media, &request, &keep) || !answer_flags_apply(&o->answer, &request, &keep, &exit_code)) goto done;
    exit_code = 2;
    if (!(model = model_flags_load(&o->model, &exit_code))) goto done;
    if (o->batch) {
        exit_code = batch_run(model, o->batch, &request, (int)o->prefill_step_size, (int)o->max_kv_size);
        goto done;
    }
    if (o->raw) {
        request.prompt = o->prompt.count ? o->prompt.item[0] : "";
        if (!(request.media = keep_json(&keep, media_of(o)))) goto done;
    } else if (!(request.messages = keep_json(&keep, messages_of(o)))) {
        goto done;
    }
    exit_code = answer(model, o, &request);
done:
    vlm_model_free(model);
    kept_free(&keep);
    return exit_code;
}

const command command_generate = {
    .name = "generate", .help = "Answer a question about pictures, videos, sound or text", .usage = "[options]",
    .options = options_table, .size = sizeof(generate_options), .defaults = defaults, .run = run,
    .description =
        "  vlm generate -m DIR --image receipt.jpg --prompt \"Extract the total.\"\n\n"
        "--batch FILE: each line is a JSON object, {\"messages\": [...]} or {\"prompt\": \"...\", \"image\": [...], \"audio\": [...], \"video\": [...]}, with\n"
        "\"id\", \"max_tokens\", \"temperature\", \"top_p\", \"top_k\", \"seed\", \"stop\", \"tools\", \"tool_choice\", \"response_format\",\n"
        "\"thinking_budget\", \"adapter\" and the like where they differ from the flags (\"template_kwargs\" for variables of the chat template). All are\n"
        "computed together; each answer is a JSON line in the order of the file, the same text as alone.",
};

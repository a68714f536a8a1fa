/* combinations_test.c - every feature with every other: a covering array of pairs over the axes below, each row run and compared.
 *
 * What decides the answer (medium, sampling, what it is held to, adapter) is run once alone with nothing else: the base. Every row must give the
 * base's tokens, reasoning and calls, whatever chunk, batch, cache, preemption or page budget it runs with; a stop string cuts the base's
 * text, a cancelled request has a prefix of it, log-probabilities come once for each token and agree with the base's. Bases that are
 * held to a grammar must keep to it (their texts are looked at, too).
 *
 *     combinations_test MODEL MEDIA [fast] [-v]
 *
 * Adapters lie in MODEL_adapters; a model without that folder has none. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "models/model.h"

enum { MEDIUM, SAMPLING, HELD, ADAPTER, STOP, LOGPROBS, BESIDE, CHUNK, CACHE, PREEMPT, PAGES, ENDING, AXES, MAX_VALUES = 6, FREE_TOKENS = 20, MAX_TOKENS = 150 };
enum { BEAMS = 4 };                               /* of SAMPLING */
enum { FREE, SCHEMA, REGEX, BUDGET, BUDGET_SCHEMA, CALL };
static const struct { const char *name; int n; const char *value[MAX_VALUES]; } axis[AXES] = {
    [MEDIUM] = {"medium", 6, {"text", "image", "two images", "audio", "video", "image then text"}},
    [SAMPLING] = {"sampling", 5, {"greedy", "seeded", "penalties", "all filters", "beams"}},
    [HELD] = {"held to", 6, {"nothing", "JSON schema", "regex", "a thinking budget", "budget and schema", "a tool call"}},
    [ADAPTER] = {"adapter", 2, {"none", "one"}},
    [STOP] = {"stop", 2, {"none", "string"}},
    [LOGPROBS] = {"logprobs", 2, {"off", "on"}},
    [BESIDE] = {"beside", 2, {"alone", "three others"}},
    [CHUNK] = {"chunk", 3, {"whole", "7", "33"}},
    [CACHE] = {"cache", 3, {"cold", "second run", "off"}},
    [PREEMPT] = {"preempt", 2, {"never", "each third step"}},
    [PAGES] = {"pages", 2, {"plenty", "few"}},
    [ENDING] = {"ending", 3, {"length", "cancelled", "timeout far off"}},
};

static const char *media_dir;
static const char *const adapter_names[] = {"", "tower", "text"};     /* none, the one of the axis, another that runs beside */
static bool has_adapters;
static bool verbose;
static int failures;

/* ---- a request of a row ---- */

static char *messages_of(int medium)
{
    static const char *const parts[] = {
        "", "{\"type\":\"image\",\"image\":\"%swide_103x75.png\"},",
        "{\"type\":\"image\",\"image\":\"%ssmall_50x70.png\"},{\"type\":\"image\",\"image\":\"%1$swide_103x75.png\"},",
        "{\"type\":\"audio\",\"audio\":\"%ssweep_0.31s.wav\"},", "{\"type\":\"video\",\"video\":\"%sclip8\",\"fps\":4},", "",
    };
    char media[1000];
    if (medium == 2)
        snprintf(media, sizeof media, "{\"type\":\"image\",\"image\":\"%ssmall_50x70.png\"},{\"type\":\"image\",\"image\":\"%swide_103x75.png\"},", media_dir, media_dir);
    else snprintf(media, sizeof media, parts[medium], media_dir);
    if (medium == 5)
        return mem_printf("[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"%ssmall_50x70.png\"},{\"type\":\"text\",\"text\":\"What is it?\"}]},"
                          "{\"role\":\"assistant\",\"content\":\"A circle.\"},{\"role\":\"user\",\"content\":\"Is it red?\"}]", media_dir);
    return mem_printf("[{\"role\":\"user\",\"content\":[%s{\"type\":\"text\",\"text\":\"Tell me what you find there, and how many words it takes.\"}]}]", media);
}

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"note\",\"description\":\"Write a note\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"n\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99},\"mood\":{\"enum\":[\"good\",\"bad\"]}},\"required\":[\"n\",\"mood\"]}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"nap\",\"description\":\"Rest\",\"parameters\":{\"type\":\"object\",\"properties\":"
    "{\"hours\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":[\"hours\"]}}}]";

/* How answers are held to something. The models' own templates do not open a thinking block: the end of the prompt is taken for one. */
static void hold(int held, const char *thinks, vlm_request_options *o)
{
    static const char schema[] = "{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"a\",\"schema\":{\"type\":\"object\",\"properties\":{"
        "\"number\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":999},\"colours\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\"]},\"maxItems\":3},"
        "\"word\":{\"type\":\"string\",\"maxLength\":5}},\"required\":[\"number\",\"colours\",\"word\"],\"additionalProperties\":false}}}";
    if (held == SCHEMA || held == BUDGET_SCHEMA) o->response_format = schema;
    if (held == REGEX) o->response_format = "{\"type\":\"regex\",\"regex\":\"(yes|no|maybe), [0-9]{3,12}[.!]\"}";
    if (held == CALL) {
        o->chat.tools = tools;
        o->tool_choice = "required";
        o->tool_format = "hermes_json";            /* the templates of tiny models know none */
        o->parallel_tool_calls = 0;
    }
    if (held == BUDGET || held == BUDGET_SCHEMA) {
        o->thinking_start = thinks;
        o->thinking_end = "kkk";                   /* several tokens */
        o->thinking_budget = 4;
    }
    if (held != FREE && held != BUDGET) o->ignore_eos = 0;
}

static const char *prompt_end;                    /* the last word of the models' prompts */

static vlm_request_options options_of(const int *row, const char *messages)
{
    vlm_request_options o = vlm_request_options_default();
    o.messages = messages;
    o.max_tokens = row[HELD] == FREE ? FREE_TOKENS : MAX_TOKENS;
    o.ignore_eos = 1;
    o.sampling.temperature = 0;
    if (row[SAMPLING] == 1 || row[SAMPLING] == 3) { o.sampling.temperature = 0.8f; o.sampling.seed = 11; }
    if (row[SAMPLING] == 2) {
        o.sampling.repetition_penalty = 1.3f;
        o.sampling.presence_penalty = 0.5f;
        o.sampling.frequency_penalty = 0.2f;
        o.sampling.logit_bias = "{\"77\": 3, \"80\": -5}";
    }
    if (row[SAMPLING] == 3) {
        o.sampling.top_k = 50;
        o.sampling.top_p = 0.9f;
        o.sampling.min_p = 0.01f;
        o.sampling.typical_p = 0.95f;
        o.sampling.top_n_sigma = 3;
        o.sampling.repetition_penalty = 1.1f;
        o.sampling.repetition_context = 0;
    }
    o.num_beams = row[SAMPLING] == BEAMS ? 3 : 1;
    if (row[LOGPROBS]) { o.sampling.logprobs = 1; o.sampling.top_logprobs = o.num_beams > 1 ? 0 : 3; }
    if (row[ENDING] == 2) o.timeout_seconds = 600;
    if (has_adapters) o.adapter = adapter_names[row[ADAPTER]];
    hold(row[HELD], prompt_end, &o);
    return o;
}

/* ---- an answer ---- */

typedef struct answer {
    vlm_result result;
    vlm_error error;
    int token_events;
    int32_t token[MAX_TOKENS];
    float logprob[MAX_TOKENS];
    int cancel_after;              /* 0: never */
    int events;
    bool bad_top;
} answer;

static int see(const vlm_event *event, void *user)
{
    answer *a = user;
    if (event->type == VLM_EVENT_TOKEN && a->token_events < MAX_TOKENS) {
        a->token[a->token_events] = event->token;
        a->logprob[a->token_events++] = event->logprob;
        if (event->top_count && (event->top_count != 3 || event->top[0].logprob < event->top[1].logprob || event->logprob > 0 ||
            event->logprob > event->top[0].logprob))
            a->bad_top = true;
    }
    if (event->type == VLM_EVENT_TEXT || event->type == VLM_EVENT_REASONING || event->type == VLM_EVENT_TOOL_CALL) a->events++;
    return a->cancel_after && a->events >= a->cancel_after;
}

static void ask(vlm_engine *e, const vlm_request_options *o, answer *a)
{
    vlm_request *r = vlm_submit(e, o, &a->error);
    if (r) vlm_request_collect(r, see, a, &a->result, &a->error);
    vlm_request_free(r);
}

/* ---- one row ---- */

static void say_row(const int *row)
{
    for (int i = 0; i < AXES; i++) printf("%s%s: %s", i ? ", " : "  ", axis[i].name, axis[i].value[row[i]]);
    printf("\n");
}

static void complain(const int *row, const char *what, const char *detail)
{
    failures++;
    printf("FAILED: %s %s\n", what, detail ? detail : "");
    say_row(row);
}

/* Text of the base after which a stop string cuts: a piece from its middle, NULL if there is too little. */
static char *stop_of(const answer *base)
{
    const char *text = base->result.text;
    size_t n = strlen(text), from = n / 2;
    if (n < 4) return NULL;
    while (from && ((unsigned char)text[from] & 0xC0) == 0x80) from--;
    size_t to = from + 2;
    while (to < n && ((unsigned char)text[to] & 0xC0) == 0x80) to++;
    return to <= n ? mem_strndup(text + from, to - from) : NULL;
}

/* The same but for the ids, which differ from request to request? */
static bool same_calls(const char *a, const char *b)
{
    if (!a || !b) return a == b;
    json_t *lists[2] = {json_loads(a, 0, NULL), json_loads(b, 0, NULL)};
    for (int i = 0; i < 2; i++) {
        size_t k;
        json_t *call;
        json_array_foreach(lists[i], k, call) json_object_del(call, "id");
    }
    bool same = json_equal(lists[0], lists[1]);
    json_decref(lists[0]);
    json_decref(lists[1]);
    return same;
}

static void compare(const int *row, const answer *a, const answer *base, const char *stop)
{
    const vlm_result *got = &a->result, *want = &base->result;
    if (a->error.code) { complain(row, a->error.message, NULL); return; }
    bool cancelled = row[ENDING] == 1 && !strcmp(got->finish_reason, "cancelled");
    if (got->token_count > want->token_count || (!stop && !cancelled && got->token_count != want->token_count))
        complain(row, "number of tokens", NULL);
    for (size_t i = 0; i < got->token_count && i < want->token_count; i++)
        if (got->tokens[i] != want->tokens[i]) { complain(row, "tokens differ", NULL); break; }
    const char *cut = stop ? strstr(want->text, stop) : NULL;
    size_t most = cut ? (size_t)(cut - want->text) : strlen(want->text);
    if (strlen(got->text) > most || strncmp(got->text, want->text, strlen(got->text)) || (!cancelled && strlen(got->text) != most))
        complain(row, "text differs:", got->text);
    const char *reason = cancelled ? "cancelled" : cut ? "stop" : want->finish_reason;
    if (!cancelled && (!got->reasoning != !want->reasoning || (got->reasoning && strcmp(got->reasoning, want->reasoning)))) complain(row, "reasoning differs:", got->reasoning);
    if (!cancelled && !same_calls(got->tool_calls, want->tool_calls)) complain(row, "calls differ:", got->tool_calls);
    if (!cancelled && !cut && got->usage.reasoning_tokens != want->usage.reasoning_tokens) complain(row, "number of reasoning tokens", NULL);
    if (strcmp(got->finish_reason, reason)) complain(row, "finish_reason is", got->finish_reason);
    if (a->token_events != (row[LOGPROBS] ? (int)got->token_count : 0)) complain(row, "number of token events", NULL);
    if (a->bad_top) complain(row, "top log-probabilities", NULL);
    for (int i = 0; i < a->token_events && i < base->token_events; i++)
        if (a->token[i] != got->tokens[i] || fabsf(a->logprob[i] - base->logprob[i]) > 1e-4f) { complain(row, "log-probabilities differ", NULL); break; }
}

static bool few_pages(vlm_model *m, vlm_engine_options *o)
{
    o->kv_bytes = engine_sequence_bytes(m, 330);
    return o->kv_bytes > 0;
}

static void run_row(vlm_model *m, const int *row, const answer *base)
{
    vlm_engine_options eo = vlm_engine_options_default();
    eo.prefill_chunk = row[CHUNK] == 1 ? 7 : row[CHUNK] == 2 ? 33 : 0;
    eo.prefix_cache = row[CACHE] != 2;
    if (row[CACHE] == 2) eo.vision_cache_bytes = 0;
    eo.kv_bytes = (uint64_t)256 << 20;
    if (row[PAGES] && !few_pages(m, &eo)) complain(row, "page budget", NULL);
    answer a = {.cancel_after = row[ENDING] == 1 ? 3 : 0};
    vlm_engine *e = vlm_engine_new(m, &eo, &a.error);
    if (!e) { complain(row, a.error.message, NULL); return; }
    engine_tune(e, &(engine_tuning){.preempt_every = row[PREEMPT] ? 3 : 0, .encode_stages = row[PREEMPT] ? 1 : 0});
    char *messages = messages_of(row[MEDIUM]), *stop = row[STOP] ? stop_of(base) : NULL, *stops = NULL;
    vlm_request_options o = options_of(row, messages);
    if (stop) {
        json_t *list = json_pack("[s]", stop);
        char *text = json_dumps(list, 0);
        stops = mem_strdup(text);
        free(text);
        json_decref(list);
        o.stop = stops;
    }
    vlm_request *beside[3] = {0};
    char *others[3] = {0};
    for (int i = 0; i < 3 && row[BESIDE]; i++) {
        int other[AXES] = {[MEDIUM] = i, [SAMPLING] = (row[SAMPLING] + i) % 4, [HELD] = (row[HELD] + i) % axis[HELD].n, [ADAPTER] = (row[ADAPTER] + i) % 3};
        others[i] = messages_of(i);
        vlm_request_options other_options = options_of(other, others[i]);
        beside[i] = vlm_submit(e, &other_options, NULL);       /* refused where the model does not take it: then there is one less */
    }
    if (row[CACHE] == 1) {
        answer first = {0};
        ask(e, &o, &first);
        if (first.error.code) complain(row, "first run:", first.error.message);
        vlm_result_clear(&first.result);
    }
    ask(e, &o, &a);
    compare(row, &a, base, stop);
    if (row[CACHE] == 2 && (a.result.usage.cached_tokens || (!row[BESIDE] && a.result.usage.media_cached))) complain(row, "something was cached", NULL);
    if (row[CACHE] == 1 && !a.error.code && !row[PAGES] && a.result.usage.media_cached != a.result.usage.media_items)
        complain(row, "media were encoded again", NULL);
    if (verbose) { say_row(row); printf("    %zu tokens, %d cached, %d preemptions\n", a.result.token_count, a.result.usage.cached_tokens, a.result.usage.preemptions); }
    vlm_result_clear(&a.result);
    for (int i = 0; i < 3; i++) { vlm_request_free(beside[i]); mem_free(others[i]); }
    vlm_engine_free(e);
    mem_free(messages);
    mem_free(stop);
    mem_free(stops);
}

/* ---- the covering array ---- */

static bool covered[AXES][MAX_VALUES][AXES][MAX_VALUES];

/* Pairs not covered yet that value v of axis k would add to the row's first k values (and those of `fixed`). */
static int gain(const int *row, const bool *set, int k, int v)
{
    int n = 0;
    for (int i = 0; i < AXES; i++)
        if (set[i] && i != k) n += !covered[i][row[i]][k][v];
    return n;
}

/* The next row: starts from the first pair that is missing, then each axis takes the value that adds most. False: all are covered. */
static bool next_row(int *row)
{
    bool set[AXES] = {0};
    for (int i = 0; i < AXES && !set[i]; i++)
        for (int a = 0; a < axis[i].n; a++)
            for (int k = i + 1; k < AXES; k++)
                for (int b = 0; b < axis[k].n; b++) {
                    if (covered[i][a][k][b]) continue;
                    row[i] = a; row[k] = b;
                    set[i] = set[k] = true;
                    goto found;
                }
    return false;
found:
    for (int k = 0; k < AXES; k++) {
        if (set[k]) continue;
        int best = 0, most = -1;
        for (int v = 0; v < axis[k].n; v++)
            if (gain(row, set, k, v) > most) { most = gain(row, set, k, v); best = v; }
        row[k] = best;
        set[k] = true;
    }
    if (row[SAMPLING] == BEAMS) row[HELD] = FREE;
    for (int i = 0; i < AXES; i++)
        for (int k = 0; k < AXES; k++) covered[i][row[i]][k][row[k]] = true;
    return true;
}

static bool takes(const vlm_model *m, int medium)
{
    static const unsigned needed[] = {0, TAKES_IMAGE, TAKES_IMAGE, TAKES_AUDIO, TAKES_VIDEO, TAKES_IMAGE};
    return (m->takes & needed[medium]) == needed[medium];
}

/* Beams are held to nothing. An encoder-decoder (Florence-2) has one picture, and its first token is forced. */
static bool possible(const vlm_model *m, const int *row)
{
    if (row[SAMPLING] == BEAMS && row[HELD] != FREE) return false;
    return takes(m, row[MEDIUM]) && (!row[ADAPTER] || has_adapters) && (!m->arch->reads_prompt || (row[MEDIUM] == 1 && row[HELD] == FREE));
}

/* Does the base keep to what it is held to? */
static void check_base(const int *row, const answer *b)
{
    const vlm_result *r = &b->result;
    bool whole = !b->error.code && strcmp(r->finish_reason, "length"), budget = row[HELD] == BUDGET || row[HELD] == BUDGET_SCHEMA;
    if (b->error.code || (row[HELD] == FREE && r->token_count != FREE_TOKENS)) { complain(row, "base:", b->error.message); return; }
    if (budget && (r->usage.reasoning_tokens < 4 || r->usage.reasoning_tokens > 20)) complain(row, "base: reasoning tokens", NULL);
    if (row[HELD] == SCHEMA && *r->text != '{') complain(row, "base: no JSON:", r->text);
    if (whole && (row[HELD] == SCHEMA || row[HELD] == BUDGET_SCHEMA)) {
        json_t *json = json_loads(r->text, 0, NULL);
        if (json_object_size(json) != 3 || !json_is_integer(json_object_get(json, "number"))) complain(row, "base: not of the schema:", r->text);
        json_decref(json);
    }
    if (row[HELD] == REGEX && strncmp(r->text, "yes, ", 5) && strncmp(r->text, "no, ", 4) && strncmp(r->text, "maybe, ", 7)) complain(row, "base: not the regex:", r->text);
    if (row[HELD] == CALL && whole && (!r->tool_calls || *r->text || strcmp(r->finish_reason, "tool_calls"))) complain(row, "base: no call:", r->text);
}

/* What the generation prompt ends with: the role's name. */
static char *end_of_prompt(const vlm_model *m)
{
    char *whole = vlm_apply_chat_template(m, "[{\"role\":\"user\",\"content\":\"a\"}]", NULL, NULL);
    size_t n = whole ? strlen(whole) : 0;
    while (n && (whole[n - 1] == '\n' || whole[n - 1] == ' ')) n--;
    size_t from = n;
    while (from && whole[from - 1] >= 'a' && whole[from - 1] <= 'z') from--;
    char *word = n > from ? mem_strndup(whole + from, n - from) : NULL;
    vlm_free(whole);
    return word;
}

static answer bases[MAX_VALUES][MAX_VALUES][MAX_VALUES][2];

/* The answer alone, computed when it is first asked for. */
static const answer *base_of(vlm_model *m, const int *row)
{
    answer *b = &bases[row[MEDIUM]][row[SAMPLING]][row[HELD]][row[ADAPTER]];
    if (b->result.finish_reason || b->error.code) return b;
    char *messages = messages_of(row[MEDIUM]);
    vlm_request_options o = options_of(row, messages);
    vlm_generate(m, &o, see, b, &b->result, &b->error);
    check_base(row, b);
    if (verbose) { say_row(row); printf("    %s|%s|%s\n", b->result.reasoning ? b->result.reasoning : "", b->result.text ? b->result.text : "", b->result.tool_calls ? b->result.tool_calls : ""); }
    if (row[ADAPTER] && !strcmp(b->result.text, bases[row[MEDIUM]][row[SAMPLING]][row[HELD]][0].result.text) && row[HELD] == FREE && row[MEDIUM])
        complain(row, "base: the adapter changes nothing", NULL);
    mem_free(messages);
    return b;
}

/* {"tower": "MODEL_adapters/adapters/tower", ...}; NULL: the model has none. */
static char *adapters_of(const char *model)
{
    char *folder = mem_printf("%s_adapters/adapters", model);
    has_adapters = folder && file_is_directory(folder);
    char *text = has_adapters ? mem_printf("{\"%s\": \"%s/%s\", \"%s\": \"%s/%s\"}", adapter_names[1], folder, adapter_names[1], adapter_names[2], folder, adapter_names[2]) : NULL;
    mem_free(folder);
    return text;
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: combinations_test MODEL MEDIA [fast] [-v]\n"), 2;
    vlm_error error = {0};
    vlm_load_options load = vlm_load_options_default();
    load.precision = argc > 3 && strcmp(argv[3], "fast") == 0 ? "fast" : "exact";
    char *adapters = adapters_of(argv[1]);
    load.adapters = adapters;
    vlm_model *m = vlm_load(argv[1], &load, &error);
    mem_free(adapters);
    if (!m) return fprintf(stderr, "%s\n", error.message), 1;
    media_dir = argv[2];
    verbose = strcmp(argv[argc - 1], "-v") == 0;
    if (!(prompt_end = end_of_prompt(m))) return fprintf(stderr, "no end of the prompt\n"), 1;
    for (int medium = 0; medium < axis[MEDIUM].n; medium++)
        for (int sampling = 0; sampling < axis[SAMPLING].n; sampling++)
            for (int held = 0; held < axis[HELD].n; held++) {
                const int base[AXES] = {[MEDIUM] = medium, [SAMPLING] = sampling, [HELD] = held, [LOGPROBS] = 1};
                if (possible(m, base)) base_of(m, base);
            }
    int rows = 0, row[AXES];
    for (int held = 0; held < axis[HELD].n; held++) covered[SAMPLING][BEAMS][HELD][held] = covered[HELD][held][SAMPLING][BEAMS] = true;      /* there are none */
    while (!failures && next_row(row)) {
        if (m->arch->reads_prompt) row[MEDIUM] = 1, row[HELD] = FREE;
        if (!possible(m, row)) continue;
        run_row(m, row, base_of(m, (int[AXES]){[MEDIUM] = row[MEDIUM], [SAMPLING] = row[SAMPLING], [HELD] = row[HELD], [ADAPTER] = row[ADAPTER], [LOGPROBS] = 1}));
        rows++;
    }
    for (size_t i = 0; i < sizeof bases / sizeof(answer); i++) vlm_result_clear(&(&bases[0][0][0][0])[i].result);
    mem_free((char *)prompt_end);
    vlm_model_free(m);
    printf("%d combinations, %d failures\n", rows, failures);
    return failures != 0;
}

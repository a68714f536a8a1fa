/* vlm.h - the public interface of vlm.c, a C library that runs vision-language models.
 *
 *     #include <stdio.h>
 *     #include <vlm.h>
 *
 *     static int print_text(const vlm_event *event, void *user) {
 *         (void)user;
 *         if (event->type == VLM_EVENT_TEXT) fwrite(event->text, 1, event->text_bytes, stdout);
 *         return 0;                                   // non-zero cancels the request
 *     }
 *
 *     int main(void) {
 *         vlm_error error = {0};
 *         vlm_model *model = vlm_load("models/demo", NULL, &error);
 *         if (!model) return fprintf(stderr, "%s\n", error.message), 1;
 *         vlm_request_options options = vlm_request_options_default();
 *         options.messages = "[{\"role\":\"user\",\"content\":["
 *                            "{\"type\":\"image\",\"image\":\"receipt.png\"},"
 *                            "{\"type\":\"text\",\"text\":\"Read the text.\"}]}]";
 *         vlm_status status = vlm_generate(model, &options, print_text, NULL, NULL, &error);
 *         if (status) fprintf(stderr, "%s\n", error.message);
 *         vlm_model_free(model);
 *         return status != VLM_OK;
 *     }
 *
 * Two nouns carry the interface.
 *   vlm_model    a loaded checkpoint: immutable after vlm_load, may be shared by any number of threads and engines.
 *   vlm_engine   runs requests on a model: owns key/value pages, prefix cache, vision cache and one worker thread.
 *                Requests submitted to one engine are batched continuously; each is a vlm_request.
 *
 * Rules that hold for every call
 *   - Nothing prints, exits or aborts on input. Failure is a vlm_status, and, where a vlm_error is taken, a message.
 *   - `error` may be NULL. It is written only on failure.
 *   - Strings are UTF-8 and zero-terminated; JSON is passed and returned as text. Strings that are returned as `char *`
 *     belong to the caller: release them with vlm_free. `const char *` results are borrowed.
 *   - Every *_free accepts NULL.
 *   - Option structs start with their size: get them from the *_default() function, then change fields. */
#ifndef VLM_H
#define VLM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define VLM_API __attribute__((visibility("default")))
#else
#define VLM_API
#endif

#define VLM_VERSION_MAJOR 0
#define VLM_VERSION_MINOR 1
#define VLM_VERSION_PATCH 0

/* ---- errors ---------------------------------------------------------------------------------------------------- */

/* X(name, exit code of the command line program, short text) */
#define VLM_STATUS_TABLE(X)                                                                         \
    X(OK, 0, "ok")                                                                                  \
    X(INVALID, 2, "invalid argument")                /* the caller's options or request are wrong */ \
    X(NOT_FOUND, 3, "not found")                     /* file, model, member */                       \
    X(FORMAT, 4, "malformed data")                   /* checkpoint, image, JSON, template ... */     \
    X(UNSUPPORTED, 5, "not supported")                                                              \
    X(LIMIT, 6, "limit exceeded")                    /* bytes, pixels, frames, context ... */        \
    X(MEMORY, 7, "out of memory")                                                                   \
    X(IO, 8, "input/output error")                                                                  \
    X(CANCELLED, 9, "cancelled")                                                                    \
    X(BUSY, 10, "busy")                              /* queue full; try again */                     \
    X(MISMATCH, 1, "results differ")                 /* vlm check */                                 \
    X(INTERNAL, 70, "internal error")

typedef enum vlm_status {
#define X(name, exit_code, text) VLM_##name,
    VLM_STATUS_TABLE(X)
#undef X
} vlm_status;

typedef struct vlm_error {
    vlm_status code;
    char message[1000];            /* what, where, what was expected; one line */
    char hint[256];                /* what to do about it, may be empty */
} vlm_error;

VLM_API const char *vlm_status_text(vlm_status status);
VLM_API const char *vlm_version(void);
VLM_API void vlm_free(void *memory);

/* ---- model ----------------------------------------------------------------------------------------------------- */

typedef struct vlm_model vlm_model;

/* Called on long work: `what` names it ("load", "encode"), done and total in units of `what`. */
typedef void (*vlm_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

typedef struct vlm_load_options {
    size_t size;                   /* sizeof this struct, set by vlm_load_options_default */
    int threads;                   /* compute threads; 0: as many as the process may use */
    const char *precision;         /* "auto", "exact" (f32 activations and KV), "fast" (bf16 or int8 activations); NULL: auto */
    const char *kv_dtype;          /* "auto", "f32", "bf16", "f16"; NULL: auto (f32 when exact, else f16) */
    const char *chat_template;     /* template text that replaces the checkpoint's; NULL: the checkpoint's own */
    int dummy_weights;             /* 1: a bare config.json is enough, weights are random (vlm bench) */
    const char *dummy_format;      /* format of dummy weights: "bf16", "f32", "f16", "q8", "q4" */
    vlm_progress_fn progress;
    void *progress_user;
    const char *adapters;          /* JSON object {"name": "path"} of LoRA and DoRA adapters (PEFT's or MLX's layout) that requests
                                    * may choose (vlm_request_options.adapter); NULL: none */
} vlm_load_options;

VLM_API vlm_load_options vlm_load_options_default(void);

/* Load the checkpoint in directory `path` (Hugging Face layout). Returns NULL on failure. The model holds the files
 * mapped until vlm_model_free; all engines and requests on it must be gone by then. */
VLM_API vlm_model *vlm_load(const char *path, const vlm_load_options *options, vlm_error *error);
VLM_API void vlm_model_free(vlm_model *model);

/* config.json merged with generation_config.json (whose values win for eos_token_id, temperature, top_p, top_k,
 * do_sample; kept whole under "generation_config"), as JSON text. Does not read weights. */
VLM_API char *vlm_load_config(const char *path, vlm_error *error);

/* Facts about a loaded model as JSON text: family, parameters, context length, modalities, memory ... */
VLM_API char *vlm_model_info(const vlm_model *model, vlm_error *error);

/* The families this build knows, as a JSON array of {name, model_types, text, image, video, audio, note}. */
VLM_API char *vlm_families(vlm_error *error);

/* ---- text ------------------------------------------------------------------------------------------------------ */

typedef struct vlm_chat_options {
    size_t size;
    int add_generation_prompt;     /* 1 */
    const char *tools;             /* JSON array of tool definitions, or NULL */
    const char *template_kwargs;   /* JSON object of extra template variables, or NULL ({"enable_thinking": true}) */
} vlm_chat_options;

VLM_API vlm_chat_options vlm_chat_options_default(void);

/* Render a conversation to the prompt text that the model was trained on, placeholders not yet expanded.
 * messages: JSON array of {"role", "content"}; content is a string or a list of parts
 *   {"type":"text","text":...}, {"type":"image","image":SRC}, {"type":"video","video":SRC,"fps":F}, {"type":"audio","audio":SRC}
 *   (OpenAI spellings image_url, input_audio, video_url are understood too). SRC: path, file://, http(s)://, data:. */
VLM_API char *vlm_apply_chat_template(const vlm_model *model, const char *messages, const vlm_chat_options *options,
                                      vlm_error *error);

/* ids: newly allocated array of *count ids. special != 0: control tokens in the text become their ids. */
VLM_API vlm_status vlm_tokenize(const vlm_model *model, const char *text, int special, int32_t **ids, size_t *count,
                                vlm_error *error);
VLM_API char *vlm_detokenize(const vlm_model *model, const int32_t *ids, size_t count, int skip_special, vlm_error *error);

/* ---- requests -------------------------------------------------------------------------------------------------- */

typedef struct vlm_sampling {
    float temperature;             /* NAN: generation_config.json, else 0 (greedy). 0 < t < 0.01 counts as 0.01 */
    float top_p;                   /* NAN: generation_config.json, else 1 */
    int top_k;                     /* -1: generation_config.json, else 0 (off) */
    float min_p;                   /* 0: off */
    float typical_p;               /* 1: off */
    float top_n_sigma;             /* 0: off */
    float repetition_penalty;      /* 1: off; sign-aware, multiplicative */
    int repetition_context;        /* how many of the last tokens (prompt and answer) it looks at; 20; 0: all */
    float presence_penalty;        /* 0: off */
    int presence_context;          /* 20 */
    float frequency_penalty;       /* 0: off */
    int frequency_context;         /* 20 */
    const char *logit_bias;        /* JSON object {"token id": bias}, or NULL */
    uint64_t seed;                 /* draws depend on (seed, position) only */
    int logprobs;                  /* 1: report the log-probability of each token */
    int top_logprobs;              /* 0..20 alternatives for each token */
} vlm_sampling;

typedef struct vlm_request_options {
    size_t size;
    const char *messages;          /* JSON conversation (see vlm_apply_chat_template); or */
    const char *prompt;            /* ... a prompt text that is used as it is (no template); exactly one of the two */
    const char *media;             /* with `prompt`: JSON array of media parts in order of their placeholders, or NULL */
    vlm_chat_options chat;
    const char *media_options;     /* JSON object: fps, num_frames, min_frames, max_frames, min_pixels, max_pixels, max_tiles, max_soft_tokens, detail,
                                    * resize_shape ...; a media part may have such members of its own (docs/media.md) */
    vlm_sampling sampling;
    int max_tokens;                /* 2048 */
    const char *stop;              /* JSON array of stop strings, or NULL; looked for in the text, not in reasoning and calls */
    const char *eos_tokens;        /* JSON array of extra stop token texts, or NULL */
    int ignore_eos;                /* 1: do not stop at end-of-sequence ids */
    int skip_special_tokens;       /* 1 (default): control tokens are not part of the text */
    const char *tenant;            /* caches are kept apart by tenant; NULL: "" */
    int priority;                  /* higher runs first; 0 */
    int allow_local_files;         /* 1: paths and file:// may be read (command line); 0: refused (server) */
    int allow_network;             /* 1: http(s) media may be fetched */
    int progress;                  /* 1: VLM_EVENT_PROGRESS on work that takes long, about ten a second at most; 0 */
    double timeout_seconds;        /* from submission; then the answer ends with finish_reason "timeout"; 0: none */
    int parse;                     /* 1: reasoning and tool calls are taken out of the text; 0: the text is as the model wrote it;
                                    * -1 (default): 1 with messages, 0 with a prompt text */
    const char *response_format;   /* JSON object as in OpenAI's API: {"type": "text" | "json_object"},
                                    * {"type": "json_schema", "json_schema": {"schema": ...}}, {"type": "regex", "regex": ...},
                                    * {"type": "choice", "choice": [...]}, {"type": "grammar", "grammar": {"syntax", "definition"}};
                                    * the text after thinking keeps to it. NULL: any text */
    const char *tool_choice;       /* "auto", "none", "required" or {"type": "function", "function": {"name": ...}}; NULL: auto */
    int parallel_tool_calls;       /* 1; 0: the answer ends with its first call */
    const char *tool_format;       /* name of the tool call syntax; NULL: the one that the chat template writes */
    int thinking_budget;           /* tokens of reasoning, then its end is forced; -1 (default): any number */
    const char *thinking_start, *thinking_end;   /* texts around reasoning; NULL: those of the format */
    int min_tokens;                /* so many before an end token or a stop string ends the answer; 0 */
    const char *stop_token_ids;    /* JSON array of ids that end it too, or NULL */
    int include_stop;              /* 1: the stop string that ended it is part of the text; 0 */
    const char *adapter;           /* name of the loaded adapter that it runs with, several with commas between them: their changes add up;
                                    * "" or "none": none. NULL: the only one that is loaded, none when there are several */
    int num_beams;                 /* beam search with so many beams: the answer comes as a whole, at the end; 1: none. 0 (default): as generation_config.json
                                    * says, when nothing else was asked for that beams cannot do: temperature, grammars, tools, thinking budgets */
    float length_penalty;          /* beams: scores are divided by length^this; NAN: generation_config.json, else 1 */
    int early_stopping;            /* beams: 1: over when num_beams answers are finished; 0: when none can be expected to get better; 2 (never): when none can.
                                    * -1 (default): generation_config.json, else 0 */
    const char *task;              /* NULL, "generate": an answer. "embed": VLM_EVENT_EMBEDDING of a prompt text or of messages with one message of the
                                    * role "query", "document" or "user". "rerank": VLM_EVENT_EMBEDDING of one number from 0 to 1: how well the
                                    * message of the role "document" answers the one of the role "query" */
    const char *instruction;       /* embed, rerank: what queries are for; NULL: the checkpoint's, or a common one */
    int dimensions;                /* embed: only the first so many numbers (Matryoshka); 0: all */
    int normalize;                 /* embed: 1: vectors of length 1, 0: as they are; -1 (default): as the checkpoint says */
} vlm_request_options;

VLM_API vlm_request_options vlm_request_options_default(void);

typedef enum vlm_event_type {
    VLM_EVENT_STARTED,             /* prompt prepared: prompt_tokens is set */
    VLM_EVENT_TEXT,                /* new whole UTF-8 text */
    VLM_EVENT_TOKEN,               /* one token sampled: token, logprob, top (only when sampling.logprobs) */
    VLM_EVENT_DONE,                /* finish_reason and all counts are set; last event */
    VLM_EVENT_ERROR,               /* error is set; last event */
    VLM_EVENT_PROGRESS,            /* progress_* are set (only when asked for) */
    VLM_EVENT_REASONING,           /* new whole UTF-8 text of the reasoning */
    VLM_EVENT_TOOL_CALL,           /* call_* are set: a call begins, goes on with a piece of its arguments, or ends */
    VLM_EVENT_NOTICE,              /* text, a line for people: something asked for is done otherwise (a video shown as stills, an option without effect) */
    VLM_EVENT_EMBEDDING            /* embedding_* are set (task "embed", "rerank") */
} vlm_event_type;

typedef struct vlm_top_logprob { int32_t token; float logprob; } vlm_top_logprob;

typedef struct vlm_usage {
    int prompt_tokens, cached_tokens, completion_tokens;
    int media_items, media_cached;         /* encoded media, of which from the vision cache */
    int preemptions;
    int reasoning_tokens;                  /* of completion_tokens */
    double queue_seconds, media_seconds, encode_seconds, prefill_seconds, decode_seconds, first_token_seconds, total_seconds;
} vlm_usage;

typedef enum vlm_call_event { VLM_CALL_START, VLM_CALL_ARGUMENTS, VLM_CALL_END } vlm_call_event;

typedef struct vlm_event {
    vlm_event_type type;
    const char *text;              /* not zero-terminated; valid until the next event */
    size_t text_bytes;
    int32_t token;                 /* DONE: the end-of-sequence id that ended it, or -1 */
    float logprob;
    const vlm_top_logprob *top;
    int top_count;
    const char *finish_reason;     /* "stop", "length", "tool_calls", "cancelled", "timeout" */
    const char *stop_string;       /* the one that ended it, or NULL */
    vlm_usage usage;
    const vlm_error *error;
    const char *progress_what;     /* "media" (fetched, decoded), "encode" (stages of one medium), "prefill" (prompt tokens) */
    uint64_t progress_done, progress_total;
    vlm_call_event call_event;
    int call_index;                /* 0, 1 ... */
    const char *call_id, *call_name;       /* START */
    const char *parsed;            /* DONE: what the answer means, as JSON (vlm_result); NULL: nothing but text */
    const float *embedding;        /* [embedding_rows][embedding_cols], valid until the next event; one row, or one for each token */
    int embedding_rows, embedding_cols;
} vlm_event;                       /* ARGUMENTS: text is the next piece of the arguments' JSON */

/* Non-zero cancels the request. Runs on the thread that calls vlm_generate or vlm_request_next. */
typedef int (*vlm_event_fn)(const vlm_event *event, void *user);

/* The answer as a whole; fill by passing it to vlm_generate, release with vlm_result_clear. */
typedef struct vlm_result {
    char *text;                    /* all VLM_EVENT_TEXT */
    int32_t *tokens;               /* with the end-of-sequence id when that ended it */
    size_t token_count;
    const char *finish_reason;
    vlm_usage usage;
    char *reasoning;               /* NULL: none */
    char *tool_calls;              /* JSON array as in OpenAI's API: [{"id", "type": "function", "function": {"name", "arguments"}}]; NULL: none */
    char *notices;                 /* lines of VLM_EVENT_NOTICE; NULL: none */
    char *parsed;                  /* what the answer means, as JSON, where a family's prompts ask for such: Florence-2's {"<OD>": {"bboxes", "labels"}}
                                    * ... in pixels of the picture; NULL: it is nothing but text */
    float *embedding;              /* tasks "embed" and "rerank": [embedding_rows][embedding_cols]; NULL: none */
    int embedding_rows, embedding_cols;
} vlm_result;
VLM_API void vlm_result_clear(vlm_result *result);
/* How alike two embeddings are: the sum over a's rows of the largest product with a row of b (MaxSim); of one row each their product. */
VLM_API double vlm_similarity(const float *a, int a_rows, const float *b, int b_rows, int cols);

/* One request on an engine of its own, blocking. on_event and result may be NULL. */
VLM_API vlm_status vlm_generate(vlm_model *model, const vlm_request_options *options, vlm_event_fn on_event, void *user,
                                vlm_result *result, vlm_error *error);

/* ---- engine ---------------------------------------------------------------------------------------------------- */

typedef struct vlm_engine vlm_engine;
typedef struct vlm_request vlm_request;

typedef struct vlm_engine_options {
    size_t size;
    uint64_t kv_bytes;             /* memory for key/value pages; 0: chosen from free memory */
    uint64_t vision_cache_bytes;   /* 256 MiB; 0: no vision cache */
    int prefix_cache;              /* 1 */
    int step_tokens;               /* token budget of a step; 0: chosen */
    int prefill_chunk;             /* most prompt tokens of one sequence in a step; 0: chosen */
    int max_sequences;             /* running at once; 0: 256 */
    int max_queue;                 /* waiting at most, then VLM_BUSY; 0: 4096 */
    int context;                   /* longest prompt + answer; 0: the model's */
} vlm_engine_options;

VLM_API vlm_engine_options vlm_engine_options_default(void);
VLM_API vlm_engine *vlm_engine_new(vlm_model *model, const vlm_engine_options *options, vlm_error *error);
/* Cancels what runs; every vlm_request of the engine must be freed before. */
VLM_API void vlm_engine_free(vlm_engine *engine);
/* Counters, memory and cache statistics as JSON text. */
VLM_API char *vlm_engine_stats(vlm_engine *engine, vlm_error *error);
/* Drop everything that no running request needs from the prefix and vision caches. */
VLM_API void vlm_engine_reset_caches(vlm_engine *engine);

/* Queue a request; options are copied. Media are fetched and decoded on other threads. Returns NULL when refused at once
 * (queue full, options wrong); every later failure is a VLM_EVENT_ERROR. Any thread. */
VLM_API vlm_request *vlm_submit(vlm_engine *engine, const vlm_request_options *options, vlm_error *error);
/* Wait for the next event; timeout in milliseconds, negative: no limit. Returns 1 with *event filled (borrowed until the
 * next call), 0 on timeout, -1 after the last event. One thread at a time for a request. */
VLM_API int vlm_request_next(vlm_request *request, vlm_event *event, int timeout_ms);
/* All events up to the last one: on_event (may be NULL) sees each, *result (may be NULL) gets the whole answer. Blocks. VLM_OK also when cancelled
 * (finish_reason tells); the request's error otherwise. */
VLM_API vlm_status vlm_request_collect(vlm_request *request, vlm_event_fn on_event, void *user, vlm_result *result, vlm_error *error);
/* How well each document answers the query: numbers into scores[], higher is better, all computed in one batch. query: JSON content (a string, or a list of
 * parts as in messages); documents: JSON array of such. A reranker gives 0 to 1, a model for embeddings their similarity. options: instruction, tenant,
 * media_options, adapter ... (what it reads from them; NULL: defaults). usage (may be NULL): counts of all. Blocks. */
VLM_API vlm_status vlm_rerank(vlm_engine *engine, const char *query, const char *documents, const vlm_request_options *options, double *scores, vlm_usage *usage,
                              vlm_error *error);
/* Stop within one step; a last event with finish_reason "cancelled" follows. Any thread. */
VLM_API void vlm_request_cancel(vlm_request *request);
/* Cancels if it still runs. */
VLM_API void vlm_request_free(vlm_request *request);

#ifdef __cplusplus
}
#endif
#endif

/* flags.h - options that several commands share: which model and how to load it, sampling, media; and the vlm.h structs they become. */
#ifndef VLM_CLI_FLAGS_H
#define VLM_CLI_FLAGS_H

#include <jansson.h>
#include "base/mem.h"
#include "cli/options.h"

typedef struct model_flags {
    const char *model, *precision, *kv_dtype, *chat_template;
    texts adapters;
    int64_t threads;
} model_flags;
void model_flags_default(model_flags *f);
/* Loads with a progress bar; NULL after a message, *exit_code is set. words: the model may be the first word (it is then taken off). */
vlm_model *model_flags_load(const model_flags *f, int *exit_code);
/* Texts that options point to. */
typedef struct kept { char *text[16]; int count; } kept;
/* The flags as load options; they point into keep and source. False after a message. */
bool model_flags_options(const model_flags *f, vlm_load_options *options, kept *keep, buf *source, int *exit_code);

#define MODEL_OPTIONS(type, field)                                                                                                      \
    {OPT_SECTION, .help = "Model"},                                                                                                     \
    {OPT_TEXT, "model", "DIR", "checkpoint directory (the demo model)", offsetof(type, field.model), NULL, 'm'},                        \
    {OPT_TEXT, "precision", "WHICH", "auto, exact (float32 activations) or fast (auto: exact for small models)",                         \
     offsetof(type, field.precision), "auto|exact|fast", 0},                                                                            \
    {OPT_TEXT, "kv-dtype", "TYPE", "keys and values in auto, f32, bf16 or f16", offsetof(type, field.kv_dtype), "auto|f32|bf16|f16", 0}, \
    {OPT_TEXT, "chat-template", "FILE", "Jinja template that replaces the checkpoint's", offsetof(type, field.chat_template), NULL, 0},  \
    {OPT_TEXTS, "adapter-path", "[NAME=]PATH", "LoRA or DoRA adapters (folder or file) to load; one alone is used at once, of several --adapter names it", \
     offsetof(type, field.adapters), NULL, 0},                                                                                          \
    {OPT_INT, "threads", "N", "compute threads (all CPUs of the process)", offsetof(type, field.threads), NULL, 't'}

typedef struct sampling_flags {
    int64_t max_tokens, top_k, seed, repetition_context, presence_context, frequency_context, top_logprobs;
    double temperature, top_p, min_p, typical_p, top_n_sigma, repetition_penalty, presence_penalty, frequency_penalty;
    const char *logit_bias;
    texts eos_tokens, stop;
    bool skip_special_tokens, enable_thinking, ignore_eos;
    const char *thinking_mode, *thinking_start, *thinking_end, *adapter;
    int64_t thinking_budget, min_tokens, num_beams;
    double length_penalty;
    const char *early_stopping;
} sampling_flags;
void sampling_flags_default(sampling_flags *f);

#define SAMPLING_OPTIONS(type, field)                                                                                                   \
    {OPT_SECTION, .help = "Sampling"},                                                                                                  \
    {OPT_INT, "max-tokens", "N", "longest answer (2048)", offsetof(type, field.max_tokens), NULL, 'n'},                                 \
    {OPT_NUMBER, "temperature", "T", "0: greedy (generation_config.json, else 0)", offsetof(type, field.temperature), NULL, 0},         \
    {OPT_NUMBER, "top-p", "P", "(generation_config.json, else 1)", offsetof(type, field.top_p), NULL, 0},                               \
    {OPT_INT, "top-k", "K", "0: off (generation_config.json, else 0)", offsetof(type, field.top_k), NULL, 0},                           \
    {OPT_NUMBER, "min-p", "P", "0: off (0)", offsetof(type, field.min_p), NULL, 0},                                                     \
    {OPT_NUMBER, "typical-p", "P", "1: off (1)", offsetof(type, field.typical_p), NULL, 0},                                             \
    {OPT_NUMBER, "top-n-sigma", "N", "0: off (0)", offsetof(type, field.top_n_sigma), NULL, 0},                                         \
    {OPT_NUMBER, "repetition-penalty", "X", "1: off (1)", offsetof(type, field.repetition_penalty), NULL, 0},                           \
    {OPT_INT, "repetition-context-size", "N", "last tokens that it looks at (20)", offsetof(type, field.repetition_context), NULL, 0},  \
    {OPT_NUMBER, "presence-penalty", "X", "(0)", offsetof(type, field.presence_penalty), NULL, 0},                                      \
    {OPT_INT, "presence-context-size", "N", "(20)", offsetof(type, field.presence_context), NULL, 0},                                   \
    {OPT_NUMBER, "frequency-penalty", "X", "(0)", offsetof(type, field.frequency_penalty), NULL, 0},                                    \
    {OPT_INT, "frequency-context-size", "N", "(20)", offsetof(type, field.frequency_context), NULL, 0},                                 \
    {OPT_TEXT, "logit-bias", "JSON", "{\"token id\": bias}", offsetof(type, field.logit_bias), NULL, 0},                                \
    {OPT_INT, "seed", "N", "draws depend on seed and position only (0)", offsetof(type, field.seed), NULL, 0},                          \
    {OPT_TEXTS, "stop", "TEXT", "strings that end the answer", offsetof(type, field.stop), NULL, 0},                                    \
    {OPT_INT, "min-tokens", "N", "the answer does not end before N tokens (0)", offsetof(type, field.min_tokens), NULL, 0},            \
    {OPT_INT, "num-beams", "N", "beam search; 1: none (generation_config.json, else 1)", offsetof(type, field.num_beams), NULL, 0},     \
    {OPT_NUMBER, "length-penalty", "X", "beams: scores are divided by length^X (generation_config.json, else 1)", offsetof(type, field.length_penalty), NULL, 0}, \
    {OPT_TEXT, "early-stopping", "WHEN", "beams: when the search is over (generation_config.json, else false)", offsetof(type, field.early_stopping), "true|false|never", 0}, \
    {OPT_TEXTS, "eos-tokens", "TOKEN", "further tokens that end it", offsetof(type, field.eos_tokens), NULL, 0},                        \
    {OPT_SWITCH, "ignore-eos", NULL, "go on after an end token", offsetof(type, field.ignore_eos), NULL, 0},                            \
    {OPT_INT, "top-logprobs", "N", "with --json: log-probabilities of N alternatives (-1: none)",                                       \
     offsetof(type, field.top_logprobs), NULL, 0},                                                                                      \
    {OPT_SWITCH, "skip-special-tokens", NULL, "leave control tokens out of the text", offsetof(type, field.skip_special_tokens), NULL, 0}, \
    {OPT_SWITCH, "enable-thinking", NULL, "template variable enable_thinking", offsetof(type, field.enable_thinking), NULL, 0},         \
    {OPT_TEXT, "adapter", "NAME", "adapter that the request runs with, several as A,B; none: without (the only one loaded)", offsetof(type, field.adapter), NULL, 0}, \
    {OPT_TEXT, "thinking-mode", "MODE", "template variable thinking_mode", offsetof(type, field.thinking_mode), "enabled|disabled|adaptive", 0}, \
    {OPT_INT, "thinking-budget", "N", "tokens of thinking, then its end is forced (-1: any number)", offsetof(type, field.thinking_budget), NULL, 0}, \
    {OPT_TEXT, "thinking-start-token", "TEXT", "text that begins thinking (the chat template's)", offsetof(type, field.thinking_start), NULL, 0}, \
    {OPT_TEXT, "thinking-end-token", "TEXT", "text that ends it (the chat template's)", offsetof(type, field.thinking_end), NULL, 0}

typedef struct media_flags {
    double fps;
    int64_t num_frames, min_frames, max_frames, min_pixels, max_pixels, max_soft_tokens, max_tiles;
    const char *detail;
    texts resize_shape;
    const char *processor_kwargs;
} media_flags;

#define MEDIA_OPTIONS(type, field)                                                                                                      \
    {OPT_SECTION, .help = "Media (sources: path, file://, http(s)://, data:, - for standard input)"},                                   \
    {OPT_NUMBER, "fps", "F", "frames per second taken from a video (the family's own, mostly 2)", offsetof(type, field.fps), NULL, 0},  \
    {OPT_INT, "video-num-frames", "N", "exactly that many frames; beats --fps", offsetof(type, field.num_frames), NULL, 0},             \
    {OPT_INT, "video-min-frames", "N", "at least", offsetof(type, field.min_frames), NULL, 0},                                          \
    {OPT_INT, "video-max-frames", "N", "at most", offsetof(type, field.max_frames), NULL, 0},                                           \
    {OPT_INT, "min-pixels", "N", "smallest image, for families that take it", offsetof(type, field.min_pixels), NULL, 0},               \
    {OPT_INT, "max-pixels", "N", "largest image, for families that take it", offsetof(type, field.max_pixels), NULL, 0},                \
    {OPT_INT, "max-soft-tokens", "N", "tokens of an image, for Gemma 4: 70, 140, 280, 560, 1120", offsetof(type, field.max_soft_tokens), NULL, 0}, \
    {OPT_INT, "max-tiles", "N", "tiles of an image, for families that cut it into tiles", offsetof(type, field.max_tiles), NULL, 0},   \
    {OPT_TEXT, "detail", "HOW", "low: few tokens of an image; high: all that the processor offers; auto", offsetof(type, field.detail), "auto|low|high", 0}, \
    {OPT_TEXTS, "resize-shape", "N", "one or two numbers (width height): images are made to fit, in proportion, first", offsetof(type, field.resize_shape), NULL, 0}, \
    {OPT_TEXT, "processor-kwargs", "JSON", "further processor options", offsetof(type, field.processor_kwargs), NULL, 0}

/* Fills a request's options from the flags. What must stay alive (JSON texts) is collected in `keep`, an array of strings. False after a message. */
bool request_from_flags(const sampling_flags *s, const media_flags *m, vlm_request_options *out, kept *keep);
void kept_free(kept *keep);
/* Takes a JSON value over and returns it as text that lives as long as keep; NULL when out of memory. */
const char *keep_json(kept *keep, json_t *value);

#endif

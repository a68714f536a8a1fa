/* output.h - from sampled tokens to text that may be shown: streaming detokenizer, then stop strings.
 *
 * Text that could still become a stop string is held back; a stop string itself and what follows it are never shown. The token
 * that ends a sequence (EOS) has no text. */
#ifndef VLM_ENGINE_OUTPUT_H
#define VLM_ENGINE_OUTPUT_H

#include "models/model.h"

typedef enum output_end { OUTPUT_GOES_ON, OUTPUT_EOS, OUTPUT_STOP_STRING } output_end;

typedef struct output {
    detokenizer *detok;
    char **stops;                  /* NULL-terminated */
    int32_t *eos;
    int n_eos;
    buf held;                      /* decoded, not shown yet */
    bool stopped;                  /* a stop string was met: */
    const char *stop_string;       /* which */
    bool include_stop;
    int count, least;              /* tokens so far; before `least` of them nothing stops */
} output;

/* As in vlm.h: JSON arrays of strings or ids, or NULL. */
typedef struct output_options {
    const char *stop, *eos_tokens, *stop_token_ids;
    bool ignore_eos, skip_special, include_stop;
    int min_tokens;
} output_options;
bool output_init(output *o, const vlm_model *m, const output_options *options, vlm_error *error);
void output_free(output *o);
/* One more token; appends what may be shown to *text. False: no memory or a broken tokenizer. */
bool output_add(output *o, int32_t token, buf *text, output_end *end, vlm_error *error);
/* No more tokens: appends what was held back. */
bool output_finish(output *o, buf *text, vlm_error *error);

#endif

/* check.h - the parts of `vlm check`: what is compared (check_report.c), the cases and their goldens (check_case.c), what lies before the
 * decoder (check_prompt.c), and running the cases on an engine in several ways (check_run.c). check.c is the command. */
#ifndef VLM_CLI_CHECK_H
#define VLM_CLI_CHECK_H

#include "engine/engine.h"

/* ---- results ------------------------------------------------------------------------------------------------------- */

typedef enum stage {
    STAGE_TOKENIZER, STAGE_PROMPT, STAGE_IDS, STAGE_PROCESSOR, STAGE_POSITIONS, STAGE_ENCODER, STAGE_LAYERS, STAGE_LOGITS, STAGE_TOKENS, STAGE_ANSWER, STAGE_MODE,
    STAGE_COUNT
} stage;
const char *stage_name(stage s);

typedef struct stage_result {
    int compared, failed;          /* texts, tensors, cases ... */
    double worst;                  /* largest difference / largest magnitude of the expected tensor */
    char worst_at[128], first[400];/* where; the first place that differs */
} stage_result;

typedef struct check_report { stage_result stage[STAGE_COUNT]; } check_report;

/* One more thing compared in a stage; the message of the first that differs is kept. */
void check_same(check_report *r, stage s, bool same, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* How numbers may differ: by `bound` times the largest magnitude expected; pixels (level > 0) by one level in 1 of 200 besides. */
typedef struct tolerance { double bound, level; } tolerance;
/* got and want [n]. `where` names the tensor; cols > 0: positions are shown as row, column. */
void check_numbers(check_report *r, stage s, const float *got, const float *want, int64_t n, int64_t cols, tolerance t, const char *where);
bool report_ok(const check_report *r);

/* ---- cases ----------------------------------------------------------------------------------------------------------- */

typedef struct check_case {
    const json_t *json;            /* its entry in cases.json */
    const char *name;
    ids prompt, answer;            /* input_ids, generated_ids */
    int memory_rows;               /* of what cross-attention reads; set by check_prompt */
} check_case;

typedef struct check_suite {
    json_t *root;                  /* cases.json */
    checkpoint *golden;            /* NULL: none */
    char *media_dir;
    char *checkpoint, *adapters;   /* where the model lies, and {name: path} of its adapters ("checkpoint" and "adapters" of cases.json, below the folder); NULL: the folder, none */
    check_case *cases;
    int count;
    bool stops;                    /* answers end at an end token (else 24 tokens whatever they are) */
} check_suite;

/* cases.json and golden.safetensors beside the checkpoint or one folder above; media in `media`, or DIR/media, DIR/../media, DIR/samples,
 * DIR/../samples. only: name of the one case to take, NULL: all. */
bool suite_load(check_suite *s, const char *dir, const char *media, const char *only, vlm_error *error);
void suite_free(check_suite *s);
/* The golden tensor of a case under its key in "tensors"; NULL: there is none. */
const stored_tensor *suite_golden(const check_suite *s, const check_case *c, const char *key);
/* A golden tensor widened to float32 ([elements]); the caller frees. NULL when out of memory. */
float *golden_floats(const stored_tensor *t);
int64_t golden_count(const stored_tensor *t);

/* ---- stages before the decoder ------------------------------------------------------------------------------------------- */

void check_tokenizer(check_report *r, const vlm_model *m, const check_suite *s);
bool case_prompt(const vlm_model *m, const check_suite *s, const check_case *c, prompt *out, vlm_error *error);
/* Prompt text, ids, processor tensors and positions of one case. */
void check_prompt(check_report *r, const vlm_model *m, const check_suite *s, check_case *c);

/* What the suite's "post_process" says of answers: [{task, text, image_size: [width, height], result}]. */
void check_answers(check_report *r, const vlm_model *m, const check_suite *s);

/* ---- runs ------------------------------------------------------------------------------------------------------------------ */

typedef enum check_mode { MODE_SOLO, MODE_BATCH, MODE_CHUNK, MODE_CACHED, MODE_PREEMPT, MODE_COUNT } check_mode;
const char *mode_name(check_mode m);
/* Every case through an engine; encoder rows, hidden states, logits and tokens are compared. False: no engine could be made. */
bool check_run(check_report *r, vlm_model *m, const check_suite *s, check_mode mode, double bound, vlm_error *error);

#endif

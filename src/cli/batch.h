/* batch.h - requests run on an engine from the command line, and their results as JSON. */
#ifndef VLM_CLI_BATCH_H
#define VLM_CLI_BATCH_H

#include <jansson.h>
#include "cli/options.h"

/* Runs one request to its end on the calling thread. */
vlm_status request_run(vlm_engine *engine, const vlm_request_options *options, vlm_event_fn on_event, void *user, vlm_result *result, vlm_error *error);
/* The file of requests, all at once on one engine; JSON lines to standard output in the file's order. Returns the exit code. */
int batch_run(vlm_model *model, const char *path, const vlm_request_options *defaults, int prefill_chunk, int context);
json_t *result_json(const vlm_result *result);
/* One line on standard output; the value is released. */
void print_json(json_t *value);
/* Bytes that this process had resident at most. */
double peak_memory(void);

#endif

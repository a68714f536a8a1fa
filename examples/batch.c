/* batch.c - several requests on one engine: they are computed together, each gets what it would get alone.
 *
 *     ./batch models/demo "What is 17 + 25?" "Spell the word kitchen." "What can you do?" */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlm.h>

enum { MAX_REQUESTS = 16 };

int main(int argc, char **argv)
{
    if (argc < 3 || argc - 2 > MAX_REQUESTS) {
        fprintf(stderr, "usage: %s MODEL QUESTION... (at most %d)\n", argv[0], MAX_REQUESTS);
        return 2;
    }
    vlm_error error = {0};
    vlm_model *model = vlm_load(argv[1], NULL, &error);
    vlm_engine *engine = model ? vlm_engine_new(model, NULL, &error) : NULL;
    vlm_request *requests[MAX_REQUESTS] = {0};
    int count = argc - 2, failed = !engine;

    for (int i = 0; i < count && !failed; i++) {
        char messages[2048];                       /* questions here are plain text without quotes */
        snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s\"}]", argv[2 + i]);
        vlm_request_options options = vlm_request_options_default();
        options.messages = messages;
        options.max_tokens = 64;
        options.sampling.temperature = 0;
        requests[i] = vlm_submit(engine, &options, &error);
        failed = !requests[i];
    }
    for (int i = 0; i < count && !failed; i++) {
        printf("%s\n  ", argv[2 + i]);
        vlm_event event;
        while (vlm_request_next(requests[i], &event, -1) > 0) {
            if (event.type == VLM_EVENT_TEXT) fwrite(event.text, 1, event.text_bytes, stdout);
            if (event.type == VLM_EVENT_DONE) printf("  [%s]\n", event.finish_reason);
            if (event.type == VLM_EVENT_ERROR) {
                error = *event.error;
                failed = 1;
            }
        }
    }
    if (failed) fprintf(stderr, "%s\n", error.message);
    for (int i = 0; i < count; i++) vlm_request_free(requests[i]);
    vlm_engine_free(engine);
    vlm_model_free(model);
    return failed;
}

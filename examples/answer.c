/* answer.c - one question about one picture, the answer printed as it comes.
 *
 *     cc answer.c $(pkg-config --cflags --libs vlm) -o answer
 *     ./answer models/demo models/demo/media/receipt.png "Read the text." */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlm.h>

static int print_text(const vlm_event *event, void *user)
{
    (void)user;
    if (event->type == VLM_EVENT_TEXT) {
        fwrite(event->text, 1, event->text_bytes, stdout);
        fflush(stdout);
    }
    return 0;
}

/* A JSON string literal with quotes; only what a path or a question can contain. */
static void add_json_string(char *out, size_t size, const char *text)
{
    size_t n = strlen(out);
    if (n + 1 < size) out[n++] = '"';
    for (; *text && n + 8 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') out[n++] = '\\';
        if (c < 0x20) n += (size_t)snprintf(out + n, size - n, "\\u%04x", c);
        else out[n++] = (char)c;
    }
    if (n + 1 < size) out[n++] = '"';
    out[n] = 0;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: %s MODEL IMAGE QUESTION\n", argv[0]);
        return 2;
    }
    vlm_error error = {0};
    vlm_model *model = vlm_load(argv[1], NULL, &error);
    if (!model) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    size_t size = 6 * (strlen(argv[2]) + strlen(argv[3])) + 256;
    char *messages = calloc(size, 1);
    if (!messages) return 1;
    strcat(messages, "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":");
    add_json_string(messages, size, argv[2]);
    strcat(messages, "},{\"type\":\"text\",\"text\":");
    add_json_string(messages, size, argv[3]);
    strcat(messages, "}]}]");

    vlm_request_options options = vlm_request_options_default();
    options.messages = messages;
    options.allow_local_files = 1;
    options.sampling.temperature = 0;
    vlm_result result = {0};
    vlm_status status = vlm_generate(model, &options, print_text, NULL, &result, &error);
    if (status) fprintf(stderr, "%s\n", error.message);
    else printf("\n[%d prompt tokens, %d answered, %.0f ms to the first]\n", result.usage.prompt_tokens, result.usage.completion_tokens,
                1e3 * result.usage.first_token_seconds);
    vlm_result_clear(&result);
    free(messages);
    vlm_model_free(model);
    return status != VLM_OK;
}

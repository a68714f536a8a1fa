/* receipt.c - two questions about one picture: the second turn encodes nothing, and computes only what is new in the conversation.
 *
 *     ./receipt models/demo models/demo/media/receipt.png
 *
 * The calls are those of MLX-VLM's introduction: load, load_config, apply_chat_template, generate. One engine keeps the picture and the prompt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlm.h>

/* One turn: the conversation as prompt text, then the answer of a request with that text and the picture. */
static int turn(const vlm_model *model, vlm_engine *engine, const char *messages, const char *media, vlm_result *result)
{
    vlm_error error = {0};
    char *prompt = vlm_apply_chat_template(model, messages, NULL, &error);
    vlm_request_options options = vlm_request_options_default();
    options.prompt = prompt;
    options.media = media;
    options.allow_local_files = 1;
    options.sampling.temperature = 0;
    options.max_tokens = 64;
    vlm_request *request = prompt ? vlm_submit(engine, &options, &error) : NULL;
    int ok = request && vlm_request_collect(request, NULL, NULL, result, &error) == VLM_OK;
    if (!ok) fprintf(stderr, "%s\n", error.message);
    else printf("%s\n[%d prompt tokens, %d of them cached; %d of %d media from the cache, encoded in %.1f ms]\n", result->text, result->usage.prompt_tokens,
                result->usage.cached_tokens, result->usage.media_cached, result->usage.media_items, 1e3 * result->usage.encode_seconds);
    vlm_request_free(request);
    vlm_free(prompt);
    return ok;
}

int main(int argc, char **argv)
{
    if (argc != 3 || strpbrk(argv[2], "\"\\")) {
        fprintf(stderr, "usage: %s MODEL IMAGE\n", argv[0]);
        return 2;
    }
    static const char first[] = "Extract the total amount from the receipt.", second[] = "Read the text.";
    vlm_error error = {0};
    vlm_model *model = vlm_load(argv[1], NULL, &error);
    char *config = model ? vlm_load_config(argv[1], &error) : NULL;
    vlm_engine *engine = config ? vlm_engine_new(model, NULL, &error) : NULL;
    vlm_result one = {0}, two = {0};
    size_t size = strlen(argv[2]) + 8192;
    char *media = malloc(size), *messages = malloc(size);
    int ok = engine && media && messages;
    if (!engine) fprintf(stderr, "%s\n", error.message);
    if (ok) {
        snprintf(media, size, "[{\"type\": \"image\", \"image\": \"%s\"}]", argv[2]);
        snprintf(messages, size, "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}, {\"type\": \"text\", \"text\": \"%s\"}]}]", first);
        ok = turn(model, engine, messages, media, &one);
    }
    if (ok && strpbrk(one.text, "\"\\\n")) ok = 0;          /* a real program builds its JSON with a library */
    if (ok) {
        snprintf(messages, size, "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}, {\"type\": \"text\", \"text\": \"%s\"}]}, "
                 "{\"role\": \"assistant\", \"content\": \"%s\"}, {\"role\": \"user\", \"content\": \"%s\"}]", first, one.text, second);
        ok = turn(model, engine, messages, media, &two);
    }
    if (ok) printf("%s\n", two.usage.media_cached == two.usage.media_items && two.usage.encode_seconds == 0 && two.usage.cached_tokens > 0 ? "the second turn encoded nothing"
                                                                                                                           : "the second turn encoded the picture again");
    vlm_result_clear(&one);
    vlm_result_clear(&two);
    vlm_engine_free(engine);
    vlm_free(config);
    vlm_model_free(model);
    free(media);
    free(messages);
    return !ok;
}

/* prompt.c - what the model is really asked: config, chat template and tokenizer of a checkpoint, without computing anything.
 *
 *     ./prompt models/demo "What is 17 + 25?" */
#include <stdio.h>
#include <stdlib.h>

#include <vlm.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL TEXT\n", argv[0]);
        return 2;
    }
    vlm_error error = {0};
    char *config = vlm_load_config(argv[1], &error);
    vlm_model *model = config ? vlm_load(argv[1], NULL, &error) : NULL;
    char messages[4096], *prompt = NULL, *again = NULL;
    int32_t *ids = NULL;
    size_t count = 0;

    snprintf(messages, sizeof messages, "[{\"role\":\"user\",\"content\":\"%s\"}]", argv[2]);
    vlm_chat_options options = vlm_chat_options_default();
    options.template_kwargs = "{\"enable_thinking\": false}";
    if (model) prompt = vlm_apply_chat_template(model, messages, &options, &error);
    int ok = prompt && vlm_tokenize(model, prompt, 1, &ids, &count, &error) == VLM_OK &&
             (again = vlm_detokenize(model, ids, count, 0, &error)) != NULL;
    if (ok) {
        printf("prompt: %s\nids:", prompt);
        for (size_t i = 0; i < count; i++) printf(" %d", ids[i]);
        printf("\nagain: %s\n", again);
    } else {
        fprintf(stderr, "%s\n", error.message);
    }
    vlm_free(again);
    vlm_free(ids);
    vlm_free(prompt);
    vlm_free(config);
    vlm_model_free(model);
    return !ok;
}

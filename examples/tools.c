/* tools.c - a tool call: the model asks for it, the program makes it, the model answers from what it gave.
 *
 *     ./tools models/demo "What is the weather in Paris?"
 *
 * What the assistant said goes back into the conversation as it was, followed by one message of the role "tool" for each call. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vlm.h>

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"Get the current weather for a city\","
    "  \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\", \"description\": \"The city name\"}}, \"required\": [\"city\"]}}}]";

/* The one tool. Its arguments are JSON text; a real program parses them. */
static const char *get_weather(const char *arguments)
{
    return strstr(arguments, "Paris") ? "{\"temperature\": 21, \"condition\": \"sunny\"}" : "{\"temperature\": 9, \"condition\": \"rainy\"}";
}

typedef struct call { char id[64], name[64], arguments[1024]; } call;

/* Notes the (first) call while it comes, and prints text. */
static int listen(const vlm_event *event, void *user)
{
    call *c = user;
    if (event->type == VLM_EVENT_TEXT) fwrite(event->text, 1, event->text_bytes, stdout);
    if (event->type != VLM_EVENT_TOOL_CALL || event->call_index > 0) return 0;
    if (event->call_event == VLM_CALL_START) {
        snprintf(c->id, sizeof c->id, "%s", event->call_id);
        snprintf(c->name, sizeof c->name, "%s", event->call_name);
    } else if (event->call_event == VLM_CALL_ARGUMENTS) {
        size_t n = strlen(c->arguments);
        snprintf(c->arguments + n, sizeof c->arguments - n, "%.*s", (int)event->text_bytes, event->text);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]);
        return 2;
    }
    vlm_error error = {0};
    vlm_model *model = vlm_load(argv[1], NULL, &error);
    vlm_engine *engine = model ? vlm_engine_new(model, NULL, &error) : NULL;
    char messages[8192];
    call c = {0};
    vlm_result first = {0}, second = {0};
    vlm_status status = engine ? VLM_OK : error.code;

    vlm_request_options options = vlm_request_options_default();
    options.messages = messages;
    options.chat.tools = tools;
    options.sampling.temperature = 0;

    snprintf(messages, sizeof messages, "[{\"role\": \"user\", \"content\": \"%s\"}]", argv[2]);     /* a question without quotes */
    vlm_request *request = !status ? vlm_submit(engine, &options, &error) : NULL;
    if (!status) status = request ? vlm_request_collect(request, listen, &c, &first, &error) : error.code;
    vlm_request_free(request);

    if (!status && first.tool_calls) {
        const char *result = strcmp(c.name, "get_weather") ? "{\"error\": \"no such tool\"}" : get_weather(c.arguments);
        printf("calls %s %s\n", c.name, c.arguments);
        snprintf(messages, sizeof messages,
                 "[{\"role\": \"user\", \"content\": \"%s\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": %s},"
                 " {\"role\": \"tool\", \"tool_call_id\": \"%s\", \"name\": \"%s\", \"content\": %s}]",
                 argv[2], first.tool_calls, c.id, c.name, result);
        request = vlm_submit(engine, &options, &error);
        status = request ? vlm_request_collect(request, listen, &c, &second, &error) : error.code;
        vlm_request_free(request);
    }
    if (status) fprintf(stderr, "%s\n", error.message);
    else printf("\n");
    vlm_result_clear(&first);
    vlm_result_clear(&second);
    vlm_engine_free(engine);
    vlm_model_free(model);
    return status != VLM_OK;
}

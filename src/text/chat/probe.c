/* probe.c - what a template can show, found by trying it on small conversations: forms of content, system messages, roles in a row, tool calls. */
#include <string.h>

#include "text/chat/internal.h"

typedef struct prober { const chat_variant *v; const tokenizer *tok; bool ok, memory; buf text; } prober;

/* Renders the messages (a reference is taken over). */
static void try_out(prober *p, json_t *messages)
{
    static const jinja_limits limits = {.steps = 200000, .output = 1 << 20, .memory = 8 << 20};
    json_t *variables = json_pack("{s:o, s:b, s:n, s:n}", "messages", messages, "add_generation_prompt", 0, "tools", "documents");
    vlm_error failed = {0};
    buf_clear(&p->text);
    if (variables && (p->tok ? !chat_special_tokens(variables, p->tok) : json_object_set_new(variables, "bos_token", json_string("<s>")) || json_object_set_new(variables, "eos_token", json_string("</s>")))) {
        json_decref(variables);
        variables = NULL;
    }
    p->ok = variables && jinja_render(p->v->j, variables, NULL, &limits, &p->text, NULL, &failed) && p->text.data;
    p->memory |= !variables || failed.code == VLM_MEMORY;
    json_decref(variables);
}

static bool shows(const prober *p, const char *what) { return p->ok && strstr(p->text.data, what); }

static json_t *message(const chat_form *f, const char *role, const char *text)
{
    if (f->takes_parts && !f->takes_strings) return json_pack("{s:s, s:[{s:s, s:s}]}", "role", role, "content", "type", "text", "text", text);
    return json_pack("{s:s, s:s}", "role", role, "content", text);
}

static void probe_content(prober *p, chat_form *f)
{
    try_out(p, json_pack("[{s:s, s:s}]", "role", "user", "content", "Probe7"));
    f->takes_strings = shows(p, "Probe7") && !shows(p, "'type'") && !shows(p, "\"type\"");
    try_out(p, json_pack("[{s:s, s:[{s:s, s:s}]}]", "role", "user", "content", "type", "text", "text", "Probe7"));
    f->takes_parts = shows(p, "Probe7") && !shows(p, "'type'") && !shows(p, "\"type\"");
}

static void probe_roles(prober *p, chat_form *f)
{
    f->takes_system = f->takes_systems = f->takes_late_system = f->takes_repeats = true;
    try_out(p, json_pack("[o, o, o]", message(f, "user", "Probe1"), message(f, "assistant", "Probe2"), message(f, "user", "Probe3")));
    if (!shows(p, "Probe1") || !shows(p, "Probe3")) return;              /* no chat template as we know them: left alone */
    try_out(p, json_pack("[o, o]", message(f, "system", "Probe1"), message(f, "user", "Probe2")));
    f->takes_system = shows(p, "Probe1") && shows(p, "Probe2");
    try_out(p, json_pack("[o, o, o]", message(f, "system", "Probe1"), message(f, "system", "Probe2"), message(f, "user", "Probe3")));
    f->takes_systems = shows(p, "Probe1") && shows(p, "Probe2") && shows(p, "Probe3");
    try_out(p, json_pack("[o, o, o, o]", message(f, "user", "Probe1"), message(f, "assistant", "Probe2"), message(f, "system", "Probe3"), message(f, "user", "Probe4")));
    f->takes_late_system = shows(p, "Probe3") && shows(p, "Probe4");
    try_out(p, json_pack("[o, o, o, o]", message(f, "user", "Probe1"), message(f, "user", "Probe2"), message(f, "assistant", "Probe3"), message(f, "user", "Probe4")));
    f->takes_repeats = shows(p, "Probe1") && shows(p, "Probe2");
}

static json_t *tool_talk(const chat_form *f, const char *id, json_t *arguments, json_t *result)
{
    return json_pack("[o, {s:s, s:s, s:[{s:s, s:s, s:{s:s, s:o}}]}, {s:s, s:s, s:s, s:o}]", message(f, "user", "Probe1"), "role", "assistant", "content", "", "tool_calls", "id", id,
                     "type", "function", "function", "name", "probe_tool", "arguments", arguments, "role", "tool", "tool_call_id", id, "name", "probe_tool", "content", result);
}

static json_t *probe_arguments(bool text) { return text ? json_string("{\"Probe5\": \"x\"}") : json_pack("{s:s}", "Probe5", "x"); }

/* Results given as an object on the message that called. */
static json_t *native_talk(const chat_form *f)
{
    json_t *talk = tool_talk(f, "abcdefghi", probe_arguments(f->arguments_as_text), json_string("Probe9"));
    json_array_remove(talk, 2);
    json_object_set_new(json_array_get(talk, 1), "tool_responses", json_pack("[{s:s, s:{s:s}}]", "name", "probe_tool", "response", "Probe6", "Probe8"));
    return talk;
}

/* Python's notation of a dictionary in a prompt is nobody's format. */
static void probe_tools(prober *p, chat_form *f)
{
    static const char nine[] = "abcdefghi", other[] = "call_probe_1";
    try_out(p, tool_talk(f, nine, probe_arguments(false), json_string("Probe6")));
    bool works = p->ok;
    if (!shows(p, "Probe5") || shows(p, "{'Probe5'")) {
        try_out(p, tool_talk(f, nine, probe_arguments(true), json_string("Probe6")));
        f->arguments_as_text = shows(p, "{\"Probe5\": \"x\"}");
        if (!works && !f->arguments_as_text) return;
    }
    bool quoted = shows(p, "\"Probe6\"");          /* a result that is text gets quotes and escapes: an object is meant */
    try_out(p, tool_talk(f, other, probe_arguments(f->arguments_as_text), json_string("Probe6")));
    f->ids_of_nine = !p->ok;
    try_out(p, tool_talk(f, nine, probe_arguments(f->arguments_as_text), json_pack("{s:s}", "Probe6", "Probe8")));
    bool json = shows(p, "\"Probe6\"");
    f->results_as_objects = shows(p, "Probe6") && shows(p, "Probe8") && !shows(p, "'Probe6'") && !shows(p, "\\\"Probe6") && (!json || quoted);
    if (!strstr(p->v->source, "tool_responses")) return;
    try_out(p, native_talk(f));
    f->results_in_call = shows(p, "Probe6") && shows(p, "Probe8") && !shows(p, "'Probe6'") && !shows(p, "\"Probe6\"");
}

static bool contains_none(const char *source)
{
    for (const char *p = source; (p = strstr(p, "one")); p += 3)
        if (p > source && (p[-1] == 'n' || p[-1] == 'N')) return true;
    return false;
}

bool chat_probe(chat_variant *v, const tokenizer *tok, vlm_error *error)
{
    prober p = {.v = v, .tok = tok};
    chat_form *f = &v->form;
    f->knows_none = contains_none(v->source);
    f->knows_developer = strstr(v->source, "developer") != NULL;
    f->ids_of_kimi = strstr(v->source, "<|tool_call_argument_begin|>") != NULL;
    probe_content(&p, f);
    probe_roles(&p, f);
    probe_tools(&p, f);
    buf_free(&p.text);
    return !p.memory || err_memory(error, 0);
}

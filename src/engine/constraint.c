/* constraint.c - see constraint.h. */
#include "engine/constraint.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "engine/core.h"
#include "text/constrain.h"
#include "text/toolgrammar.h"

void constraints_free(constraints *c)
{
    for (int i = 0; i < MAX_CONSTRAINTS; i++) {
        mem_free(c->entry[i].key);
        grammar_unref(c->entry[i].held.grammar);
    }
    *c = (constraints){0};
}

/* ---- kept ones ---- */

static bool find(vlm_engine *e, const char *key, constraint *out)
{
    constraints *c = &e->constraints;
    pthread_mutex_lock(&e->lock);
    for (int i = 0; i < MAX_CONSTRAINTS && !out->grammar; i++) {
        if (!c->entry[i].key || strcmp(c->entry[i].key, key)) continue;
        c->entry[i].used = ++c->clock;
        *out = c->entry[i].held;
        grammar_ref(out->grammar);
    }
    pthread_mutex_unlock(&e->lock);
    return out->grammar != NULL;
}

/* In the place of the one that was not used for longest. Takes the key over. */
static void keep(vlm_engine *e, char *key, const constraint *made)
{
    constraints *c = &e->constraints;
    grammar *old;
    int oldest = 0;
    pthread_mutex_lock(&e->lock);
    for (int i = 1; i < MAX_CONSTRAINTS; i++)
        if (c->entry[i].used < c->entry[oldest].used) oldest = i;
    old = c->entry[oldest].held.grammar;
    mem_free(c->entry[oldest].key);
    c->entry[oldest].key = key;
    c->entry[oldest].held = *made;
    grammar_ref(made->grammar);
    c->entry[oldest].used = ++c->clock;
    pthread_mutex_unlock(&e->lock);
    grammar_unref(old);
}

/* ---- making one ---- */

static bool is_strict(const json_t *tool)
{
    const json_t *function = json_object_get(tool, "function");
    return json_is_true(json_object_get(tool, "strict")) || json_is_true(json_object_get(function, "strict"));
}

/* Are calls a part of it? When one is asked for, when a tool is strict, and beside a response_format. */
static bool wants_calls(const vlm_request *r)
{
    size_t i;
    const json_t *tool;
    if (!request_tools(r)) return false;
    if (r->tool_choice || r->response_format) return true;
    json_array_foreach(r->tools, i, tool)
        if (is_strict(tool)) return true;
    return false;
}

static char *key_of(const vlm_request *r, const toolcall_format *format, bool calls, bool lead)
{
    json_t *all = json_pack("{s:O?, s:O?, s:O?, s:s, s:b, s:b}", "response", r->response_format, "tools", calls ? r->tools : NULL, "choice",
                            calls ? r->tool_choice : NULL, "format", calls ? toolcall_format_name(format) : "", "one", calls && r->one_call, "lead", lead);
    char *text = all ? json_dumps(all, JSON_COMPACT) : NULL, *key = text ? mem_strdup(text) : NULL;
    free(text);
    json_decref(all);
    return key;
}

static bool compile(vlm_engine *e, const vlm_request *r, const toolcall_format *format, bool calls, bool lead, constraint *out, vlm_error *error)
{
    grammar_vocab *vocab = model_vocabulary(e->m, error);
    grammar_builder *b = vocab ? grammar_builder_new(NULL) : NULL;
    grammar_expr root = 0, both = 0;
    if (vocab && !b) err_memory(error, 64);
    bool ok = b && (!r->response_format || constrain_format(b, r->response_format, lead, &root, error)) &&
              (!calls || toolgrammar(b, format, r->tools, r->tool_choice, !r->one_call, root, lead, &both, error));
    out->calls = both != 0;
    if (both) root = both;
    ok = ok && (!root || (out->grammar = grammar_compile(b, root, vocab, error)));
    grammar_builder_free(b);
    return ok;
}

bool constraint_make(vlm_engine *e, vlm_request *r, const toolcall_format *format, bool lead, constraint *out, vlm_error *error)
{
    bool calls = wants_calls(r);
    *out = (constraint){0};
    if (!calls && !r->response_format) return true;
    if (!e->m->tok) return err_set(error, VLM_UNSUPPORTED, "this model has no tokenizer");
    char *key = key_of(r, format, calls, lead);
    if (!key) return err_memory(error, 256);
    if (find(e, key, out)) return mem_free(key), true;
    bool ok = compile(e, r, format, calls, lead, out, error);
    if (ok && out->grammar) keep(e, key, out);
    else mem_free(key);
    return ok;
}

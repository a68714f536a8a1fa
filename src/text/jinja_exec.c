/* jinja_exec.c - statements, scopes, macros, loops; a render from start to end.
 *
 * A scope is a short list of variables with a parent. Loop passes, macro calls, with, set-blocks, filter-blocks and generation-blocks
 * open one; if does not. A macro keeps the scope in which it was defined and sees what is set there later, too. */
#include "text/jinja_internal.h"

/* ---- scopes ---- */

jscope *jinja_push_scope(jrun *r, jscope *parent)
{
    jscope *s = jinja_alloc(&r->m, sizeof *s);
    s->parent = parent;
    return s;
}

void jinja_assign(jrun *r, const jstr *name, jval value)
{
    jscope *s = r->scope;
    for (size_t i = 0; i < s->count; i++)
        if (s->var[i].name == name) {
            s->var[i].value = value;
            return;
        }
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 4;
        jvar *grown = jinja_alloc(&r->m, capacity * sizeof *grown);
        if (s->count) memcpy(grown, s->var, s->count * sizeof *grown);
        s->var = grown;
        s->capacity = capacity;
    }
    s->var[s->count++] = (jvar){name, value};
}

jval jinja_lookup(jrun *r, const jstr *name)
{
    for (const jscope *s = r->scope; s; s = s->parent)
        for (size_t i = s->count; i-- > 0;)
            if (s->var[i].name == name) return s->var[i].value;
    const jval *found = jdict_get_text(r->variables, name->data, name->size);
    if (found) return *found;
    const jbuiltin *fn = jinja_global(name);
    if (fn) return (jval){.kind = J_FUNCTION, .fn = fn};
    return jv_undefined(&r->m, "'%.*s' is undefined", (int)(name->size < 100 ? name->size : 100), name->data);
}

static void assign_target(jrun *r, const jnode *target, jval value)
{
    if (target->kind == N_NAME) {
        jinja_assign(r, target->name, value);
        return;
    }
    if (target->kind == N_NSREF) {
        jval ns = jinja_eval(r, target->a);
        if (ns.kind == J_UNDEFINED) jinja_undefined_error(r, ns);
        if (ns.kind != J_NAMESPACE) jinja_fail(&r->m, VLM_FORMAT, "cannot assign attribute on non-namespace object");
        if (target->name->size && target->name->data[0] == '_') jinja_fail(&r->m, VLM_FORMAT, "attributes of a namespace must not begin with '_'");
        jdict_set(r, ns.dict, jv_str(target->name), value);
        return;
    }
    jlist *items = jv_iterate(r, value);
    size_t want = target->list.count;
    if (items->count > want) jinja_fail(&r->m, VLM_FORMAT, "too many values to unpack (expected %zu)", want);
    if (items->count < want) jinja_fail(&r->m, VLM_FORMAT, "not enough values to unpack (expected %zu, got %zu)", want, items->count);
    for (size_t i = 0; i < want; i++) assign_target(r, target->list.item[i], items->item[i]);
}

jval jinja_capture(jrun *r, const jnodes *body, jflow *flow)
{
    jbuf text = {.m = &r->m, .limit = r->max_output};
    jbuf *outer = r->out;
    r->out = &text;
    jflow f = jinja_exec(r, body);
    r->out = outer;
    if (flow) *flow = f;
    return jv_buf(&text);
}

/* ---- loops ---- */

static jflow run_loop(jrun *r, const jnode *n, jval over, int depth)
{
    jscope *outer = r->scope;
    jlist *all = jv_iterate(r, over), *items = jlist_new(&r->m, all->count);
    for (size_t i = 0; i < all->count; i++) {
        if (n->c) {                                /* for ... if: what does not pass is not counted */
            r->scope = jinja_push_scope(r, outer);
            assign_target(r, n->a, all->item[i]);
            if (!jv_true(jinja_eval(r, n->c))) continue;
        }
        jlist_add(&r->m, items, all->item[i]);
    }
    jloop *loop = jinja_alloc(&r->m, sizeof *loop);
    *loop = (jloop){.items = items, .depth = depth, .node = n, .scope = outer};
    const jstr *loop_name = NULL;
    for (size_t i = 0; i < r->t->name_count && !loop_name; i++)
        if (jstr_is(r->t->names[i], "loop")) loop_name = r->t->names[i];
    jflow flow = FLOW_NEXT;
    for (size_t i = 0; i < items->count && flow != FLOW_BREAK; i++) {
        r->scope = jinja_push_scope(r, outer);
        loop->index = i;
        if (loop_name) jinja_assign(r, loop_name, (jval){.kind = J_LOOP, .loop = loop});
        assign_target(r, n->a, items->item[i]);
        flow = jinja_exec(r, &n->list);
    }
    r->scope = outer;
    if (!items->count && n->list2.count) {
        r->scope = jinja_push_scope(r, outer);
        flow = jinja_exec(r, &n->list2);
        r->scope = outer;
        return flow;
    }
    return FLOW_NEXT;
}

jval jinja_call_loop(jrun *r, jloop *loop, jargs *a)
{
    if (!loop->node->recursive) jinja_fail(&r->m, VLM_FORMAT, "the loop is not recursive: {%% for ... recursive %%}");
    if (a->n != 1 || a->n_kw) jinja_fail(&r->m, VLM_FORMAT, "loop() takes one argument");
    jbuf text = {.m = &r->m, .limit = r->max_output};
    jbuf *out = r->out;
    jscope *scope = r->scope;
    r->out = &text;
    r->scope = loop->scope;
    run_loop(r, loop->node, a->v[0], loop->depth + 1);
    r->out = out;
    r->scope = scope;
    return jv_buf(&text);
}

/* ---- macros ---- */

static const jstr *name_of(jrun *r, const char *text)
{
    for (size_t i = 0; i < r->t->name_count; i++)
        if (jstr_is(r->t->names[i], text)) return r->t->names[i];
    return NULL;                                   /* the template never mentions it */
}

static void bind_macro(jrun *r, jmacro *macro, jargs *a)
{
    const jnode *n = macro->node;
    size_t count = n->list.count, n_defaults = n->list2.count;
    bool *taken = jinja_alloc(&r->m, a->n_kw + 1);
    for (size_t i = 0; i < count; i++) {
        const jstr *name = n->list.item[i]->name;
        jval value = {.kind = J_MISSING};
        if (i < a->n) value = a->v[i];
        for (size_t k = 0; k < a->n_kw; k++) {
            if (taken[k] || a->kw[k].name->size != name->size || memcmp(a->kw[k].name->data, name->data, name->size) != 0) continue;
            if (i < a->n) jinja_fail(&r->m, VLM_FORMAT, "macro got two values for argument '%.*s'", (int)name->size, name->data);
            value = a->kw[k].value;
            taken[k] = true;
        }
        if (value.kind == J_MISSING && i + n_defaults >= count) value = jinja_eval(r, n->list2.item[i + n_defaults - count]);
        if (value.kind == J_MISSING) value = jv_undefined(&r->m, "parameter '%.*s' was not provided", (int)(name->size < 100 ? name->size : 100), name->data);
        jinja_assign(r, name, value);
    }
    jlist *more = jlist_new(&r->m, 0);
    for (size_t i = count; i < a->n; i++) jlist_add(&r->m, more, a->v[i]);
    if (n->uses_varargs) jinja_assign(r, name_of(r, "varargs"), jv_tuple(more));
    else if (more->count) jinja_fail(&r->m, VLM_FORMAT, "macro takes not more than %zu argument(s)", count);
    jdict *named = jdict_new(&r->m);
    const jstr *caller = n->uses_caller ? name_of(r, "caller") : NULL;
    if (caller) jinja_assign(r, caller, jv_undefined(&r->m, "no caller defined"));
    for (size_t k = 0; k < a->n_kw; k++) {
        if (taken[k]) continue;
        if (caller && jstr_is(a->kw[k].name, "caller")) jinja_assign(r, caller, a->kw[k].value);
        else if (n->uses_kwargs) jdict_set(r, named, jv_str(a->kw[k].name), a->kw[k].value);
        else jinja_fail(&r->m, VLM_FORMAT, "macro takes no keyword argument '%.*s'", (int)(a->kw[k].name->size < 60 ? a->kw[k].name->size : 60), a->kw[k].name->data);
    }
    if (n->uses_kwargs) jinja_assign(r, name_of(r, "kwargs"), jv_dict(named));
}

jval jinja_call_macro(jrun *r, jmacro *macro, jargs *a)
{
    jscope *outer = r->scope;
    r->scope = jinja_push_scope(r, macro->scope);
    bind_macro(r, macro, a);
    jval text = jinja_capture(r, &macro->node->c->list, NULL);
    r->scope = outer;
    return text;
}

static jval new_macro(jrun *r, const jnode *n)
{
    jmacro *macro = jinja_alloc(&r->m, sizeof *macro);
    *macro = (jmacro){n, r->scope, n->name};
    return (jval){.kind = J_MACRO, .macro = macro};
}

/* {% call(args) f(x) %}body{% endcall %}: f(x, caller=macro of the body). */
static void exec_call_block(jrun *r, const jnode *n)
{
    jnode call = *n->a, keyword = {.kind = N_KEYWORD, .line = n->line}, value = {.kind = N_CONST, .line = n->line};
    static const jstr name = {"caller", 6, 6};
    value.value = new_macro(r, n);
    keyword.name = &name;
    keyword.a = &value;
    jnode **named = jinja_alloc(&r->m, (call.list2.count + 1) * sizeof *named);
    if (call.list2.count) memcpy(named, call.list2.item, call.list2.count * sizeof *named);
    named[call.list2.count] = &keyword;
    call.list2.item = named;
    call.list2.count++;
    jv_write(r, r->out, jinja_eval(r, &call));
}

/* ---- statements ---- */

/* Runs filters whose innermost operand (NULL in the tree) is `text`. */
static jval run_filters(jrun *r, const jnode *filters, jval text)
{
    if (!filters) return text;
    jnode constant = {.kind = N_CONST, .line = filters->line, .value = text}, copy = *filters;
    jval inner = filters->a ? run_filters(r, filters->a, text) : text;
    constant.value = inner;
    copy.a = &constant;
    return jinja_eval(r, &copy);
}

static jval capture_in_scope(jrun *r, const jnodes *body, jflow *flow)
{
    jscope *outer = r->scope;
    r->scope = jinja_push_scope(r, outer);
    jval text = jinja_capture(r, body, flow);
    r->scope = outer;
    return text;
}

static jflow exec_with(jrun *r, const jnode *n)
{
    jscope *outer = r->scope, *inner = jinja_push_scope(r, outer);
    for (size_t i = 0; i < n->list.count; i++) {
        jval value = jinja_eval(r, n->list2.item[i]);   /* in the outer scope, all of them */
        r->scope = inner;
        assign_target(r, n->list.item[i], value);
        r->scope = outer;
    }
    r->scope = inner;
    jflow flow = jinja_exec(r, &n->c->list);
    r->scope = outer;
    return flow;
}

static jflow exec_node(jrun *r, const jnode *n)
{
    jflow flow = FLOW_NEXT;
    switch (n->kind) {
    case N_DATA: jbuf_addstr(r->out, n->value.s); break;
    case N_PRINT: jv_write(r, r->out, jinja_eval(r, n->a)); break;
    case N_BLOCK: return jinja_exec(r, &n->list);
    case N_FOR: return run_loop(r, n, jinja_eval(r, n->b), 0);
    case N_IF: return jinja_exec(r, jv_true(jinja_eval(r, n->a)) ? &n->list : &n->list2);
    case N_SET: assign_target(r, n->a, jinja_eval(r, n->b)); break;
    case N_SET_BLOCK: {
        jval text = capture_in_scope(r, &n->list, &flow);
        if (flow == FLOW_NEXT) assign_target(r, n->a, run_filters(r, n->b, text));
    } break;
    case N_MACRO: jinja_assign(r, n->name, new_macro(r, n)); break;
    case N_CALL_BLOCK: exec_call_block(r, n); break;
    case N_FILTER_BLOCK: {
        jval text = capture_in_scope(r, &n->list, &flow);
        jv_write(r, r->out, run_filters(r, n->a, text));
    } break;
    case N_WITH: return exec_with(r, n);
    case N_SCOPE: {
        jscope *outer = r->scope;
        r->scope = jinja_push_scope(r, outer);
        flow = jinja_exec(r, &n->list);
        r->scope = outer;
    } break;
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    default: jinja_fail(&r->m, VLM_INTERNAL, "node %d is no statement", n->kind);
    }
    return flow;
}

jflow jinja_exec(jrun *r, const jnodes *body)
{
    jflow flow = FLOW_NEXT;
    for (size_t i = 0; i < body->count && flow == FLOW_NEXT; i++) {
        jinja_enter(r);
        r->m.line = body->item[i]->line;
        flow = exec_node(r, body->item[i]);
        jinja_leave(r);
    }
    return flow;
}

/* ---- a render ---- */

bool jinja_render(const jinja *t, const json_t *variables, const struct tm *now, const jinja_limits *limits, buf *out, jinja_report *report,
                  vlm_error *error)
{
    static const jinja_limits none = {0};
    const jinja_limits *l = limits ? limits : &none;
    jrun *r = MEM_NEW(jrun);
    if (!r) return err_memory(error, sizeof *r);
    r->m.limit = l->memory ? l->memory : (size_t)512 << 20;
    r->m.error = error;
    r->t = t;
    const uint64_t steps = r->m.steps = l->steps ? l->steps : 50u * 1000 * 1000;
    r->report = report;
    r->max_depth = l->depth ? l->depth : 1000;
    r->max_output = l->output ? l->output : (size_t)64 << 20;
    if (now) r->now = *now;
    else {
        time_t seconds = time(NULL);
        localtime_r(&seconds, &r->now);
    }
    if (setjmp(r->m.escape)) {
        arena_free(&r->m.blocks);
        mem_free(r);
        return false;
    }
    r->scope = jinja_push_scope(r, NULL);
    r->variables = jinja_alloc(&r->m, sizeof *r->variables);
    if (json_is_object(variables)) *r->variables = *jv_from_json(r, variables).dict;
    jbuf text = {.m = &r->m, .limit = r->max_output};
    r->out = &text;
    jinja_exec(r, &t->root->list);
    bool ok = buf_add(out, text.data ? text.data : "", text.size) || err_memory(error, text.size);
    if (report) report->steps = steps - r->m.steps;
    arena_free(&r->m.blocks);
    mem_free(r);
    return ok;
}

/* exec.c - statements, frames, macros, loops; a render from start to end.
 *
 * A frame's names lie in slots (scope.c says which name is where). A macro keeps the frame in which it was defined and sees what is set
 * there later, too; all passes of a loop share one frame, which starts afresh with each. */
#include "text/jinja/internal.h"

/* ---- frames ---- */

static jval variable(jrun *r, const jstr *name)
{
    const jval *found = r->set ? jdict_get_text(r->set, name->data, name->size) : NULL;
    if (!found) found = jdict_get_text(r->variables, name->data, name->size);
    if (found) return *found;
    const jbuiltin *fn = jinja_global(name);
    return fn ? (jval){.kind = J_FUNCTION, .fn = fn} : (jval){.kind = J_MISSING};
}

static jscope *new_frame(jrun *r, const jplan *plan, jscope *parent)
{
    jscope *s = jinja_alloc(&r->m, sizeof *s);
    *s = (jscope){parent, jinja_alloc(&r->m, plan->count * sizeof *s->var)};
    return s;
}

/* Names get the values that they start with; parameters keep theirs. */
static void enter_frame(jrun *r, jscope *s, const jplan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        const jload *l = &plan->load[i];
        if (l->how == LOAD_VARIABLE) s->var[i] = variable(r, l->name);
        else if (l->how == LOAD_NOTHING) s->var[i] = (jval){.kind = J_MISSING};
        else if (l->how == LOAD_OUTER) {
            const jscope *outer = s->parent;
            for (int up = l->up; up; up--) outer = outer->parent;
            s->var[i] = outer->var[l->slot];
        }
    }
}

static void leave_frame(jscope *s, const jplan *plan)
{
    for (size_t i = 0; i < plan->count; i++) s->var[i] = (jval){.kind = J_MISSING};
}

static jval *place(jrun *r, const jnode *name)
{
    jscope *s = r->scope;
    for (int up = name->up; up; up--) s = s->parent;
    return &s->var[name->slot];
}

jval jinja_lookup(jrun *r, const jnode *n)
{
    jval v = *place(r, n);
    if (v.kind != J_MISSING) return v;
    return jv_undefined(&r->m, "'%.*s' is undefined", (int)(n->name->size < 100 ? n->name->size : 100), n->name->data);
}

/* What is set outside of loops and macros is seen by blocks. */
static void publish(jrun *r, const jnode *target)
{
    if (target->kind == N_NAME) {
        if (!r->set) r->set = jdict_new(&r->m);
        jdict_set(r, r->set, jv_str(target->name), *place(r, target));
    } else if (target->kind == N_TUPLE) for (size_t i = 0; i < target->list.count; i++) publish(r, target->list.item[i]);
}

void jinja_assign(jrun *r, const jnode *target, jval value)
{
    if (target->kind == N_NAME) {
        *place(r, target) = value;
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
    for (size_t i = 0; i < want; i++) jinja_assign(r, target->list.item[i], items->item[i]);
}

/* What these blocks give is not made a string, and what is none cannot be joined with the rest: an error, but not before all is there. */
static void write_text(jrun *r, jval v)
{
    if (v.kind == J_STRING) jbuf_addstr(r->out, v.s);
    else r->out->broken = jv_type(v);
}

static void check_text(jrun *r, const jbuf *text)
{
    if (text->broken) jinja_fail(&r->m, VLM_FORMAT, "expected str instance, %s found", text->broken);
}

jval jinja_capture(jrun *r, const jnodes *body, jflow *flow)
{
    jbuf text = {.m = &r->m, .limit = r->max_output};
    jbuf *outer = r->out;
    r->out = &text;
    jflow f = jinja_exec(r, body);
    r->out = outer;
    if (flow) *flow = f;
    check_text(r, &text);
    return jv_buf(&text);
}

/* ---- loops ---- */

static jflow run_loop(jrun *r, const jnode *n, jval over, int depth)
{
    jscope *outer = r->scope, *test = NULL;
    if (n->c) {
        test = new_frame(r, n->plan[2], outer);
        enter_frame(r, test, n->plan[2]);
    }
    jloop *loop = jinja_alloc(&r->m, sizeof *loop);
    *loop = (jloop){.run = r, .source = jloop_source(r, n, over, test), .depth = depth, .node = n, .scope = outer};
    loop->complete = !loop->source.iter;
    loop->items = loop->complete ? loop->source.items : jlist_new(&r->m, 0);
    jflow flow = FLOW_NEXT;
    jscope *frame = new_frame(r, n->plan[0], outer);
    bool finished = false;                         /* a pass that came to its end; without one else runs, as in jinja2 */
    for (size_t i = 0; flow != FLOW_BREAK && jloop_has(loop, i); i++) {
        r->scope = frame;
        loop->index = i;
        if (n->plan[0]->loop >= 0) frame->var[n->plan[0]->loop] = (jval){.kind = J_LOOP, .loop = loop};
        jinja_assign(r, n->a, loop->items->item[i]);
        enter_frame(r, frame, n->plan[0]);
        flow = jinja_exec(r, &n->list);
        finished |= flow == FLOW_NEXT;
    }
    if (!n->recursive) leave_frame(frame, n->plan[0]);
    r->scope = outer;
    if (finished || !n->list2.count) return FLOW_NEXT;
    r->scope = new_frame(r, n->plan[1], outer);
    enter_frame(r, r->scope, n->plan[1]);
    flow = jinja_exec(r, &n->list2);
    r->scope = outer;
    return flow;
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
    check_text(r, &text);
    return jv_buf(&text);
}

/* ---- macros ---- */

/* Arguments as jinja2's Macro takes them: positional, then named or defaults; what is left over belongs to caller, kwargs and varargs. */
static void bind_macro(jrun *r, const jmacro *macro, jscope *frame, const jargs *a)
{
    const jnode *n = macro->node;
    const jplan *plan = n->plan[0];
    size_t count = n->list.count, n_defaults = n->list2.count;
    bool *taken = jinja_alloc(&r->m, a->n_kw + 1), found_caller = a->n >= count && n->uses_caller && plan->caller < 0;
    for (size_t i = 0; i < count; i++) {
        const jstr *name = n->list.item[i]->name;
        jval value = i < a->n ? a->v[i] : (jval){.kind = J_MISSING};
        for (size_t k = 0; k < a->n_kw && i >= a->n; k++)
            if (!taken[k] && a->kw[k].name->size == name->size && memcmp(a->kw[k].name->data, name->data, name->size) == 0) {
                value = a->kw[k].value;
                taken[k] = true;
            }
        if (i >= a->n && jstr_is(name, "caller")) found_caller = true;
        frame->var[n->list.item[i]->slot] = value;
    }
    jlist *more = jlist_new(&r->m, 0);
    jdict *named = jdict_new(&r->m);
    jval caller = jv_undefined(&r->m, "No caller defined");
    for (size_t i = count; i < a->n; i++) jlist_add(&r->m, more, a->v[i]);
    for (size_t k = 0; k < a->n_kw; k++) {
        if (taken[k]) continue;
        if (n->uses_caller && !found_caller && jstr_is(a->kw[k].name, "caller")) {
            if (a->kw[k].value.kind != J_NONE) caller = a->kw[k].value;
        } else if (plan->kwargs >= 0) jdict_set(r, named, jv_str(a->kw[k].name), a->kw[k].value);
        else jinja_fail(&r->m, VLM_FORMAT, "macro takes no keyword argument '%.*s'", (int)(a->kw[k].name->size < 60 ? a->kw[k].name->size : 60), a->kw[k].name->data);
    }
    if (plan->caller >= 0) frame->var[plan->caller] = caller;
    if (plan->kwargs >= 0) frame->var[plan->kwargs] = jv_dict(named);
    if (plan->varargs >= 0) frame->var[plan->varargs] = jv_tuple(more);
    else if (more->count) jinja_fail(&r->m, VLM_FORMAT, "macro takes not more than %zu argument(s)", count);
    enter_frame(r, frame, plan);
    for (size_t i = 0; i < count; i++) {
        const jnode *parameter = n->list.item[i];
        jval *slot = &frame->var[parameter->slot];
        if (slot->kind != J_MISSING) continue;
        if (i + n_defaults >= count) *slot = jinja_eval(r, n->list2.item[i + n_defaults - count]);
        else *slot = jv_undefined(&r->m, "parameter '%.*s' was not provided", (int)(parameter->name->size < 100 ? parameter->name->size : 100), parameter->name->data);
    }
}

jval jinja_call_macro(jrun *r, jmacro *macro, jargs *a)
{
    jscope *outer = r->scope;
    r->scope = new_frame(r, macro->node->plan[0], macro->scope);
    bind_macro(r, macro, r->scope, a);
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
    write_text(r, jinja_eval(r, &call));
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

/* A body that is caught and filtered, in a frame of its own. */
static jval captured(jrun *r, const jnode *n, const jnode *filters, jflow *flow)
{
    jscope *outer = r->scope;
    r->scope = new_frame(r, n->plan[0], outer);
    enter_frame(r, r->scope, n->plan[0]);
    jval text = jinja_capture(r, &n->list, flow);
    if (*flow == FLOW_NEXT) text = run_filters(r, filters, text);
    leave_frame(r->scope, n->plan[0]);
    r->scope = outer;
    return text;
}

static jflow exec_with(jrun *r, const jnode *n)
{
    jscope *outer = r->scope, *inner = new_frame(r, n->plan[0], outer);
    enter_frame(r, inner, n->plan[0]);
    for (size_t i = 0; i < n->list.count; i++) {
        jval value = jinja_eval(r, n->list2.item[i]);   /* in the outer frame, all of them */
        r->scope = inner;
        jinja_assign(r, n->list.item[i], value);
        r->scope = outer;
    }
    r->scope = inner;
    jflow flow = jinja_exec(r, &n->c->list);
    leave_frame(inner, n->plan[0]);
    r->scope = outer;
    return flow;
}

static jflow exec_scope(jrun *r, const jnode *n, jscope *parent)
{
    jscope *outer = r->scope;
    r->scope = new_frame(r, n->plan[0], parent);
    enter_frame(r, r->scope, n->plan[0]);
    jflow flow = jinja_exec(r, &n->list);
    r->scope = outer;
    return flow;
}

static void exec_block_tag(jrun *r, const jnode *n)
{
    if (n->required) jinja_fail(&r->m, VLM_FORMAT, "Required block '%.*s' not found", (int)(n->name->size < 60 ? n->name->size : 60), n->name->data);
    jdict *variables = r->variables, *set = r->set;
    if (n->scoped) {
        jargs one = {.v = &(jval){.kind = J_DICT, .dict = variables}, .n = 1};
        r->variables = jinja_make_dict(r, &one);
        for (size_t i = 0; set && i < set->count; i++) jdict_set(r, r->variables, set->entry[i].key, set->entry[i].value);
        for (size_t i = 0; i < n->list2.count; i++) {
            jval v = *place(r, n->list2.item[i]);
            if (v.kind != J_MISSING) jdict_set(r, r->variables, jv_str(n->list2.item[i]->name), v);
        }
        r->set = NULL;
    }
    exec_scope(r, n, NULL);
    r->variables = variables;
    r->set = set;
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
    case N_SET:
        jinja_assign(r, n->a, jinja_eval(r, n->b));
        if (n->toplevel && r->t->has_blocks) publish(r, n->a);
        break;
    case N_SET_BLOCK: {
        jval text = captured(r, n, n->b, &flow);
        if (flow != FLOW_NEXT) break;
        jinja_assign(r, n->a, text);
        if (n->toplevel && r->t->has_blocks) publish(r, n->a);
    } break;
    case N_MACRO: {
        jnode name = {.kind = N_NAME, .name = n->name, .up = n->up, .slot = n->slot};
        *place(r, &name) = new_macro(r, n);
        if (n->toplevel && r->t->has_blocks) publish(r, &name);
    } break;
    case N_CALL_BLOCK: exec_call_block(r, n); break;
    case N_FILTER_BLOCK: {
        jval text = captured(r, n, n->a, &flow);
        if (flow == FLOW_NEXT) write_text(r, text);
    } break;
    case N_WITH: return exec_with(r, n);
    case N_SCOPE: return exec_scope(r, n, r->scope);
    case N_BLOCK_TAG: exec_block_tag(r, n); break;
    case N_TEMPLATE:
        jinja_eval(r, n->a);
        jinja_fail(&r->m, VLM_UNSUPPORTED, "{%% %.*s %%}: there are no other templates", (int)n->name->size, n->name->data);
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

enum { DEFAULT_STEPS = 2500 * 1000, DEFAULT_MEMORY = 48 << 20, DEFAULT_OUTPUT = 16 << 20 };

/* How much there is to render: values, and 16 bytes of text. */
static size_t json_extent(const json_t *j, int depth)
{
    size_t n = 1, i;
    const char *key;
    json_t *item;
    if (depth > 1000) return n;
    if (json_is_string(j)) n += json_string_length(j) / 16;
    else if (json_is_array(j)) json_array_foreach((json_t *)j, i, item) n += json_extent(item, depth + 1);
    else if (json_is_object(j)) json_object_foreach((json_t *)j, key, item) n += json_extent(item, depth + 1) + strlen(key) / 16;
    return n;
}

/* Limits that nobody has set grow with what there is to render: a long conversation may cost more than a short one, a template alone may not. */
static void grant(jrun *r, const jinja_limits *l, size_t extent)
{
    uint64_t more = extent < UINT64_C(1) << 32 ? extent : UINT64_C(1) << 32;
    if (!l->steps) r->m.steps += more * 2000;
    if (!l->memory) r->m.limit += more * 2048;
    if (!l->output) r->max_output += more * 256;
}

bool jinja_render(const jinja *t, const json_t *variables, const struct tm *now, const jinja_limits *limits, buf *out, jinja_report *report,
                  vlm_error *error)
{
    static const jinja_limits none = {0};
    const jinja_limits *const volatile l = limits ? limits : &none;      /* volatile: lives through the jump back */
    jrun *r = MEM_NEW(jrun);
    if (!r) return err_memory(error, sizeof *r);
    r->m.limit = l->memory ? l->memory : DEFAULT_MEMORY;
    r->m.error = error;
    memcpy(r->m.plain, l->plain, sizeof l->plain);
    r->t = t;
    r->m.steps = l->steps ? l->steps : DEFAULT_STEPS;
    r->report = report;
    r->max_depth = l->depth ? l->depth : 1000;
    r->max_output = l->output ? l->output : DEFAULT_OUTPUT;
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
    r->variables = jinja_alloc(&r->m, sizeof *r->variables);
    if (json_is_object(variables)) {
        size_t extent = json_extent(variables, 0);
        grant(r, l, extent);
        *r->variables = *jv_from_json(r, variables).dict;
    }
    const uint64_t steps = r->m.steps;
    jbuf text = {.m = &r->m, .limit = r->max_output};
    r->out = &text;
    r->scope = new_frame(r, t->root->plan[0], NULL);
    enter_frame(r, r->scope, t->root->plan[0]);
    jinja_exec(r, &t->root->list);
    check_text(r, &text);
    bool ok = buf_add(out, text.data ? text.data : "", text.size) || err_memory(error, text.size);
    if (report) report->steps = steps - r->m.steps;
    arena_free(&r->m.blocks);
    mem_free(r);
    return ok;
}

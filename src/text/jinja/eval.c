/* eval.c - expressions are evaluated by walking the tree; calls. */
#include "text/jinja/internal.h"

void jinja_enter(jrun *r)
{
    if (++r->depth > r->max_depth) jinja_fail(&r->m, VLM_LIMIT, "nested more than %d deep", r->max_depth);
    jinja_work(&r->m, 1);
}

/* ---- arguments ---- */

static void add_keyword(jrun *r, jargs *a, const jstr *name, jval value, size_t *capacity)
{
    if (a->n_kw == *capacity) {
        size_t grown = *capacity ? *capacity * 2 : 4;
        jkeyword *kw = jinja_alloc(&r->m, grown * sizeof *kw);
        if (a->n_kw) memcpy(kw, a->kw, a->n_kw * sizeof *kw);
        a->kw = kw;
        *capacity = grown;
    }
    for (size_t i = 0; i < a->n_kw; i++)
        if (a->kw[i].name->size == name->size && memcmp(a->kw[i].name->data, name->data, name->size) == 0)
            jinja_fail(&r->m, VLM_FORMAT, "got multiple values for keyword argument '%.*s'", (int)(name->size < 60 ? name->size : 60), name->data);
    a->kw[a->n_kw++] = (jkeyword){name, value};
}

static jargs eval_arguments(jrun *r, const jnode *n)
{
    jlist *positional = jlist_new(&r->m, n->list.count);
    for (size_t i = 0; i < n->list.count; i++) {
        const jnode *arg = n->list.item[i];
        if (arg->kind != N_STAR) {
            jlist_add(&r->m, positional, jinja_eval(r, arg));
            continue;
        }
        jlist *more = jv_iterate(r, jinja_eval(r, arg->a));
        for (size_t k = 0; k < more->count; k++) jlist_add(&r->m, positional, more->item[k]);
    }
    jargs a = {.v = positional->item, .n = positional->count};
    size_t capacity = 0;
    for (size_t i = 0; i < n->list2.count; i++) {
        const jnode *arg = n->list2.item[i];
        jval value = jinja_eval(r, arg->a);
        if (arg->kind == N_KEYWORD) add_keyword(r, &a, arg->name, value, &capacity);
        else if (value.kind != J_DICT) jinja_fail(&r->m, VLM_FORMAT, "argument after ** must be a mapping, not %s", jv_type(value));
        else
            for (size_t k = 0; k < value.dict->count; k++) {
                if (value.dict->entry[k].key.kind != J_STRING) jinja_fail(&r->m, VLM_FORMAT, "keywords must be strings");
                add_keyword(r, &a, value.dict->entry[k].key.s, value.dict->entry[k].value, &capacity);
            }
    }
    return a;
}

/* Place of a name in "a,b,c"; -1 if it is not there. */
static int parameter_index(const char *names, const jstr *name)
{
    int i = 0;
    for (const char *p = names; p && *p; i++) {
        size_t n = strcspn(p, ",");
        if (n == name->size && memcmp(p, name->data, n) == 0) return i;
        p += n + (p[n] == ',');
    }
    return -1;
}

jval jinja_call_builtin(jrun *r, const jbuiltin *fn, jval self, const jargs *a, const char *what)
{
    if (self.kind == J_STRING) jinja_work(&r->m, self.s->size / 64);
    if (fn->max < 0) {
        if ((int)a->n < fn->min) jinja_fail(&r->m, VLM_FORMAT, "%s %s: expected at least %d arguments, got %zu", what, fn->name, fn->min, a->n);
        jargs copy = *a;
        return fn->call(r, self, &copy);
    }
    if (a->n > (size_t)fn->max) jinja_fail(&r->m, VLM_FORMAT, "%s %s: expected at most %d arguments, got %zu", what, fn->name, fn->max, a->n);
    jval bound[8] = {{.kind = J_MISSING}, {.kind = J_MISSING}, {.kind = J_MISSING}, {.kind = J_MISSING},
                     {.kind = J_MISSING}, {.kind = J_MISSING}, {.kind = J_MISSING}, {.kind = J_MISSING}};
    for (size_t i = 0; i < a->n; i++) bound[i] = a->v[i];
    for (size_t i = 0; i < a->n_kw; i++) {
        int at = parameter_index(fn->names, a->kw[i].name);
        if (at < 0 || at >= fn->max || bound[at].kind != J_MISSING)
            jinja_fail(&r->m, VLM_FORMAT, "%s %s: unexpected argument '%.*s'", what, fn->name, (int)(a->kw[i].name->size < 60 ? a->kw[i].name->size : 60), a->kw[i].name->data);
        bound[at] = a->kw[i].value;
    }
    for (int i = 0; i < fn->min; i++)
        if (bound[i].kind == J_MISSING) jinja_fail(&r->m, VLM_FORMAT, "%s %s: expected at least %d arguments", what, fn->name, fn->min);
    jargs laid = {.v = bound, .n = (size_t)fn->max};
    return fn->call(r, self, &laid);
}

/* What methods of a text marked safe give is marked, too, also in lists. */
static jval call_method(jrun *r, const jmethod *method, jargs *a)
{
    jval out = jinja_call_builtin(r, method->fn, method->self, a, "method");
    if (method->self.kind != J_STRING || !method->self.markup) return out;
    for (size_t i = 0; (out.kind == J_LIST || out.kind == J_TUPLE) && i < out.list->count; i++) out.list->item[i] = jv_marked(out.list->item[i], true);
    return jv_marked(out, true);
}

jval jinja_call(jrun *r, jval callee, jargs *a)
{
    jval out;
    jinja_enter(r);
    switch (callee.kind) {
    case J_UNDEFINED: jinja_undefined_error(r, callee);
    case J_FUNCTION: out = jinja_call_builtin(r, callee.fn, jv_none(), a, "function"); break;
    case J_METHOD: out = call_method(r, callee.method, a); break;
    case J_MACRO: out = jinja_call_macro(r, callee.macro, a); break;
    case J_LOOP: out = jinja_call_loop(r, callee.loop, a); break;
    case J_JOINER:
        out = callee.joiner->used ? jv_str(callee.joiner->separator) : jv_textn(&r->m, "", 0);
        callee.joiner->used = true;
        break;
    default: jinja_fail(&r->m, VLM_FORMAT, "'%s' object is not callable", jv_type(callee));
    }
    jinja_leave(r);
    return out;
}

/* ---- nodes ---- */

static jval eval_compare(jrun *r, const jnode *n)
{
    jval left = jinja_eval(r, n->list.item[0]);
    for (size_t i = 0; i < n->list2.count; i++) {
        jval right = jinja_eval(r, n->list.item[i + 1]);
        int op = n->list2.item[i]->op;
        bool holds;
        switch (op) {
        case OP_EQ: holds = jv_equal(r, left, right); break;
        case OP_NE: holds = !jv_equal(r, left, right); break;
        case OP_IN: holds = jv_contains(r, right, left); break;
        case OP_NOT_IN: holds = !jv_contains(r, right, left); break;
        case '<': holds = jv_compare(r, left, right, "<") == -1; break;
        case '>': holds = jv_compare(r, left, right, ">") == 1; break;
        case OP_LE: {
            int c = jv_compare(r, left, right, "<=");
            holds = c == -1 || c == 0;
        } break;
        default: {
            int c = jv_compare(r, left, right, ">=");
            holds = c == 1 || c == 0;
        }
        }
        if (!holds) return jv_bool(false);
        left = right;
    }
    return jv_bool(true);
}

static jval eval_concat(jrun *r, const jnode *n)
{
    jbuf b = {.m = &r->m};
    for (size_t i = 0; i < n->list.count; i++) jv_write(r, &b, jinja_eval(r, n->list.item[i]));
    return jv_buf(&b);
}

static jval eval_items(jrun *r, const jnode *n)
{
    jlist *l = jlist_new(&r->m, n->list.count);
    for (size_t i = 0; i < n->list.count; i++) jlist_add(&r->m, l, jinja_eval(r, n->list.item[i]));
    return n->kind == N_LIST ? jv_list(l) : jv_tuple(l);
}

static jval eval_dict(jrun *r, const jnode *n)
{
    jdict *d = jdict_new(&r->m);
    for (size_t i = 0; i < n->list.count; i++) {
        jval key = jinja_eval(r, n->list.item[i]);
        jdict_set(r, d, key, jinja_eval(r, n->list2.item[i]));
    }
    return jv_dict(d);
}

static jval eval_item(jrun *r, const jnode *n)
{
    jval of = jinja_eval(r, n->a);
    if (n->b->kind != N_SLICE) return jv_item(r, of, jinja_eval(r, n->b));
    const jnode *s = n->b;
    jval start = s->a ? jinja_eval(r, s->a) : jv_none(), stop = s->b ? jinja_eval(r, s->b) : jv_none();
    return jv_slice(r, of, start, stop, s->c ? jinja_eval(r, s->c) : jv_none());
}

static jval eval_filter(jrun *r, const jnode *n)
{
    const jbuiltin *fn = jinja_filter(n->name);
    if (!fn) jinja_fail(&r->m, VLM_FORMAT, "no filter named '%.*s'", (int)(n->name->size < 60 ? n->name->size : 60), n->name->data);
    jval self = jinja_eval(r, n->a);
    jargs a = eval_arguments(r, n);
    return jinja_call_builtin(r, fn, self, &a, "filter");
}

static jval eval_test(jrun *r, const jnode *n)
{
    const jbuiltin *fn = jinja_test(n->name);
    if (!fn) jinja_fail(&r->m, VLM_FORMAT, "no test named '%.*s'", (int)(n->name->size < 60 ? n->name->size : 60), n->name->data);
    jval self = jinja_eval(r, n->a);
    jargs a = eval_arguments(r, n);
    return jinja_call_builtin(r, fn, self, &a, "test");
}

static jval eval_node(jrun *r, const jnode *n)
{
    jval v;
    switch (n->kind) {
    case N_CONST: return n->value;
    case N_NAME: return jinja_lookup(r, n);
    case N_LIST:
    case N_TUPLE: return eval_items(r, n);
    case N_DICT: return eval_dict(r, n);
    case N_ATTR: return jv_attr(r, jinja_eval(r, n->a), n->name);
    case N_ITEM: return eval_item(r, n);
    case N_CALL: {
        v = jinja_eval(r, n->a);
        jargs a = eval_arguments(r, n);
        r->m.line = n->line;
        return jinja_call(r, v, &a);
    }
    case N_FILTER: return eval_filter(r, n);
    case N_TEST: return eval_test(r, n);
    case N_COND:
        if (jv_true(jinja_eval(r, n->b))) return jinja_eval(r, n->a);
        return n->c ? jinja_eval(r, n->c) : jv_undefined(&r->m, "the inline if-expression on line %d evaluated to false and no else section was defined", n->line);
    case N_AND: v = jinja_eval(r, n->a); return jv_true(v) ? jinja_eval(r, n->b) : v;
    case N_OR: v = jinja_eval(r, n->a); return jv_true(v) ? v : jinja_eval(r, n->b);
    case N_NOT: return jv_bool(!jv_true(jinja_eval(r, n->a)));
    case N_NEG: return jv_negate(r, jinja_eval(r, n->a));
    case N_POS: return jv_negate(r, jv_negate(r, jinja_eval(r, n->a)));
    case N_BINARY: v = jinja_eval(r, n->a); return jv_binary(r, n->op, v, jinja_eval(r, n->b));
    case N_CONCAT: return eval_concat(r, n);
    case N_COMPARE: return eval_compare(r, n);
    default: jinja_fail(&r->m, VLM_INTERNAL, "node %d is no expression", n->kind);
    }
}

jval jinja_eval(jrun *r, const jnode *n)
{
    jinja_enter(r);
    r->m.line = n->line;
    jval v = eval_node(r, n);
    jinja_leave(r);
    return v;
}

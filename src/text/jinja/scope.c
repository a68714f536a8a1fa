/* scope.c - which variable a name means: decided once, when a template is compiled, by jinja2's rules (its idtracking.py).
 *
 * A frame is the body of the template, a macro, a loop, its else, its condition, with, a block that sets or filters, a block. Names that a frame
 * sets belong to the whole frame, also before they are set; so a name that a macro or loop reads and the template sets later is undefined until
 * then, even when there is a variable of that name. When a frame is entered each of its names gets a start value: nothing (it is only
 * set here), what the enclosing frame has (set here and there), or the variable of that name from outside (read first, or set in one branch of an
 * if). A name node is left with two numbers: so many frames out, that slot.
 *
 * As jinja2's code generator this pass also refuses unknown filters and tests, except below an if where they may never be reached. */
#include "text/jinja/internal.h"

typedef struct symbol { const jstr *name; jload_kind how; int up, slot; bool stored; } symbol;
typedef struct frame {
    struct frame *parent;
    jparser *p;
    symbol *item;
    size_t count, capacity;
    bool toplevel;
} frame;

/* ---- symbols ---- */

static symbol *own(const frame *f, const jstr *name)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->item[i].name == name) return &f->item[i];
    return NULL;
}

static bool find(const frame *f, const jstr *name, int *up, int *slot)
{
    for (*up = 0; f; f = f->parent, ++*up) {
        jinja_work(f->p->m, f->count / 16 + 1);
        const symbol *s = own(f, name);
        if (!s) continue;
        *slot = (int)(s - f->item);
        return true;
    }
    return false;
}

static symbol *define(frame *f, const jstr *name, jload_kind how)
{
    symbol *s = own(f, name);
    if (!s) {
        if (f->count == f->capacity) {
            size_t capacity = f->capacity ? f->capacity * 2 : 8;
            symbol *grown = jinja_alloc(f->p->m, capacity * sizeof *grown);
            if (f->count) memcpy(grown, f->item, f->count * sizeof *grown);
            f->item = grown;
            f->capacity = capacity;
        }
        s = &f->item[f->count++];
        *s = (symbol){.name = name};
    }
    s->how = how;
    return s;
}

/* The start value of a name that is set here: the enclosing frame's, else `otherwise`. */
static void define_set(frame *f, const jstr *name, jload_kind otherwise)
{
    int up, slot;
    if (f->parent && find(f->parent, name, &up, &slot)) {
        symbol *s = define(f, name, LOAD_OUTER);
        s->up = up;
        s->slot = slot;
    } else define(f, name, otherwise);
}

static void store(frame *f, const jstr *name)
{
    if (!own(f, name)) define_set(f, name, LOAD_NOTHING);
    own(f, name)->stored = true;
}

static int declare(frame *f, const jstr *name)
{
    symbol *s = define(f, name, LOAD_PARAMETER);
    s->stored = true;
    return (int)(s - f->item);
}

static void load(frame *f, const jstr *name)
{
    int up, slot;
    if (!find(f, name, &up, &slot)) define(f, name, LOAD_VARIABLE);
}

static jplan *plan_of(const frame *f)
{
    jplan *plan = jinja_alloc(f->p->m, sizeof *plan);
    *plan = (jplan){.load = jinja_alloc(f->p->m, f->count * sizeof(jload)), .count = f->count, .loop = -1, .caller = -1, .kwargs = -1, .varargs = -1};
    for (size_t i = 0; i < f->count; i++) plan->load[i] = (jload){f->item[i].how, f->item[i].name, f->item[i].up, f->item[i].slot};
    return plan;
}

/* ---- what a frame holds: its statements in order, not what is inside of inner frames ---- */

static void see_expression(frame *f, const jnode *n)
{
    if (!n) return;
    if (n->kind == N_NAME) load(f, n->name);
    see_expression(f, n->a);
    see_expression(f, n->b);
    see_expression(f, n->c);
    for (size_t i = 0; i < n->list.count; i++) see_expression(f, n->list.item[i]);
    for (size_t i = 0; i < n->list2.count; i++) see_expression(f, n->list2.item[i]);
}

static void see_target(frame *f, const jnode *n, bool parameter)
{
    if (n->kind == N_NSREF) load(f, n->a->name);
    else if (n->kind == N_NAME && parameter) declare(f, n->name);
    else if (n->kind == N_NAME) store(f, n->name);
    else for (size_t i = 0; i < n->list.count; i++) see_target(f, n->list.item[i], parameter);
}

static void see_body(frame *f, const jnodes *body);

/* Names that only some branches set start with the variable from outside. */
static void see_if(frame *f, const jnode *n)
{
    see_expression(f, n->a);
    size_t before = f->count;
    bool *stored = jinja_alloc(f->p->m, before + 1);
    for (size_t i = 0; i < before; i++) stored[i] = f->item[i].stored;
    see_body(f, &n->list);
    see_body(f, &n->list2);
    for (size_t i = 0; i < f->count; i++)
        if (f->item[i].stored && !(i < before && stored[i])) define_set(f, f->item[i].name, LOAD_VARIABLE);
}

static void see_statement(frame *f, const jnode *n)
{
    switch (n->kind) {
    case N_PRINT: see_expression(f, n->a); break;
    case N_BLOCK: see_body(f, &n->list); break;
    case N_FOR: see_expression(f, n->b); break;
    case N_IF: see_if(f, n); break;
    case N_SET:
        see_expression(f, n->b);
        see_target(f, n->a, false);
        break;
    case N_SET_BLOCK: see_target(f, n->a, false); break;
    case N_MACRO: store(f, n->name); break;
    case N_CALL_BLOCK:
    case N_FILTER_BLOCK: see_expression(f, n->a); break;
    case N_WITH:
        for (size_t i = 0; i < n->list2.count; i++) see_expression(f, n->list2.item[i]);
        break;
    case N_TEMPLATE:                               /* include, import, from, extends: fail when they are reached */
        see_expression(f, n->a);
        for (size_t i = 0; i < n->list.count; i++) store(f, n->list.item[i]->name);
        break;
    default: break;
    }
}

static void see_body(frame *f, const jnodes *body)
{
    for (size_t i = 0; i < body->count; i++) see_statement(f, body->item[i]);
}

/* ---- is a name read somewhere inside, before it is set? ---- */

typedef struct search { jmem *m; const jstr *name; bool found, set; } search;

static void search_nodes(search *s, const jnodes *list);

static void search_set(search *s, const jnode *n)
{
    if (n->kind == N_NAME) s->set |= n->name == s->name;
    else if (n->kind != N_NSREF) for (size_t i = 0; i < n->list.count; i++) search_set(s, n->list.item[i]);
}

static void search_node(search *s, const jnode *n)
{
    if (!n || s->found || n->kind == N_BLOCK_TAG) return;
    jinja_work(s->m, 1);
    switch (n->kind) {
    case N_NAME: s->found = !s->set && n->name == s->name; return;
    case N_FOR:
        search_set(s, n->a);
        search_node(s, n->b);
        search_nodes(s, &n->list);
        search_nodes(s, &n->list2);
        search_node(s, n->c);
        return;
    case N_SET:
    case N_SET_BLOCK:
        search_set(s, n->a);
        search_node(s, n->b);
        search_nodes(s, &n->list);
        return;
    case N_MACRO:
    case N_CALL_BLOCK:
    case N_WITH:
        search_node(s, n->a);
        for (size_t i = 0; i < n->list.count; i++) search_set(s, n->list.item[i]);
        search_nodes(s, &n->list2);
        search_node(s, n->c);
        return;
    default: break;
    }
    search_node(s, n->a);
    search_node(s, n->b);
    search_node(s, n->c);
    search_nodes(s, &n->list);
    search_nodes(s, &n->list2);
}

static void search_nodes(search *s, const jnodes *list)
{
    for (size_t i = 0; i < list->count; i++) search_node(s, list->item[i]);
}

static const jstr *intern(frame *f, const char *name) { return jinja_intern(f->p, jstr_new(f->p->m, name, strlen(name))); }

static bool reads(frame *f, const jnodes *body, const char *name)
{
    search s = {.m = f->p->m, .name = intern(f, name)};
    search_nodes(&s, body);
    return s.found;
}

/* Is the name set anywhere inside? */
static bool sets(jmem *m, const jnode *n, const jstr *name)
{
    if (!n) return false;
    jinja_work(m, 1);
    search s = {.m = m, .name = name};
    if (n->kind == N_FOR || n->kind == N_SET || n->kind == N_SET_BLOCK) search_set(&s, n->a);
    bool found = s.set || sets(m, n->b, name) || sets(m, n->c, name);
    for (size_t i = 0; !found && i < n->list.count; i++) found = sets(m, n->list.item[i], name);
    for (size_t i = 0; !found && i < n->list2.count; i++) found = sets(m, n->list2.item[i], name);
    return found;
}

/* ---- names to slots ---- */

static void resolve_body(frame *f, const jnodes *body, bool soft);

static void resolve_name(frame *f, jnode *n)
{
    if (!find(f, n->name, &n->up, &n->slot)) {
        f->p->m->line = n->line;
        jinja_fail(f->p->m, VLM_FORMAT, "'%.*s' is used where jinja2 does not look for names", (int)(n->name->size < 60 ? n->name->size : 60), n->name->data);
    }
}

/* soft: below an if */
static void resolve_expression(frame *f, jnode *n, bool soft)
{
    if (!n) return;
    if (n->kind == N_NAME) resolve_name(f, n);
    if (n->kind == N_COND) soft = true;
    if ((n->kind == N_FILTER && !jinja_filter(n->name)) || (n->kind == N_TEST && !jinja_test(n->name))) {
        f->p->m->line = n->line;
        if (!soft)
            jinja_fail(f->p->m, VLM_FORMAT, "No %s named '%.*s'.", n->kind == N_FILTER ? "filter" : "test", (int)(n->name->size < 60 ? n->name->size : 60), n->name->data);
    }
    resolve_expression(f, n->a, soft);
    bool decided = (n->kind == N_AND || n->kind == N_OR) && n->a->kind == N_CONST && jv_true(n->a->value) == (n->kind == N_OR);
    resolve_expression(f, n->b, soft || decided);
    resolve_expression(f, n->c, soft);
    for (size_t i = 0; i < n->list.count; i++) resolve_expression(f, n->list.item[i], soft);
    for (size_t i = 0; i < n->list2.count; i++) resolve_expression(f, n->list2.item[i], soft);
}

static void resolve_target(frame *f, jnode *n)
{
    if (n->kind == N_NAME) resolve_name(f, n);
    else if (n->kind == N_NSREF) resolve_name(f, n->a);
    else for (size_t i = 0; i < n->list.count; i++) resolve_target(f, n->list.item[i]);
}

static jnode *copy_target(frame *f, const jnode *n)
{
    jnode *copy = jinja_alloc(f->p->m, sizeof *copy);
    *copy = *n;
    copy->list = (jnodes){0};
    for (size_t i = 0; i < n->list.count; i++) jinja_nodes_add(f->p, &copy->list, copy_target(f, n->list.item[i]));
    return copy;
}

static void resolve_for(frame *f, jnode *n, bool soft)
{
    frame body = {.parent = f, .p = f->p}, otherwise = body, test = body;
    const jstr *name = intern(f, "loop");
    resolve_expression(f, n->b, soft);
    if (sets(f->p->m, n, name)) {
        f->p->m->line = n->line;
        jinja_fail(f->p->m, VLM_FORMAT, "Can't assign to special loop variable in for-loop target");
    }
    int loop = n->recursive || reads(f, &n->list, "loop") || f->p->scoped ? declare(&body, name) : -1;
    see_target(&body, n->a, true);
    see_body(&body, &n->list);
    if (n->c) {
        n->d = copy_target(f, n->a);
        see_target(&test, n->d, true);
        see_expression(&test, n->c);
        resolve_target(&test, n->d);
        resolve_expression(&test, n->c, false);
    }
    see_body(&otherwise, &n->list2);
    resolve_target(&body, n->a);
    n->plan[0] = plan_of(&body);
    n->plan[0]->loop = loop;
    n->plan[1] = plan_of(&otherwise);
    n->plan[2] = plan_of(&test);
    resolve_body(&body, &n->list, false);
    resolve_body(&otherwise, &n->list2, false);
}

/* Macro and call block. */
static void resolve_macro(frame *f, jnode *n)
{
    frame inner = {.parent = f, .p = f->p};
    const jnodes *body = &n->c->list;
    bool special[3] = {false, false, false};
    static const char *const names[3] = {"caller", "kwargs", "varargs"};
    for (size_t i = 0; i < n->list.count; i++) {
        declare(&inner, n->list.item[i]->name);
        for (int k = 0; k < 3; k++)
            if (jstr_is(n->list.item[i]->name, names[k])) special[k] = true;
        if (special[0] && jstr_is(n->list.item[i]->name, "caller") && i + n->list2.count < n->list.count && reads(f, body, "caller")) {
            f->p->m->line = n->line;
            jinja_fail(f->p->m, VLM_FORMAT, "When defining macros or call blocks the special \"caller\" argument must be omitted or be given a default.");
        }
    }
    for (size_t i = 0; i < n->list2.count; i++) see_expression(&inner, n->list2.item[i]);
    see_body(&inner, body);
    int slot[3] = {-1, -1, -1};
    for (int k = 0; k < 3; k++)
        if (reads(f, body, names[k])) {
            if (k == 0) n->uses_caller = true;
            if (!special[k]) slot[k] = declare(&inner, intern(f, names[k]));
        }
    n->plan[0] = plan_of(&inner);
    n->plan[0]->caller = slot[0];
    n->plan[0]->kwargs = slot[1];
    n->plan[0]->varargs = slot[2];
    for (size_t i = 0; i < n->list.count; i++) resolve_name(&inner, n->list.item[i]);
    for (size_t i = 0; i < n->list2.count; i++) resolve_expression(&inner, n->list2.item[i], false);
    resolve_body(&inner, body, false);
}

static void resolve_with(frame *f, jnode *n, bool soft)
{
    frame inner = {.parent = f, .p = f->p};
    for (size_t i = 0; i < n->list.count; i++) see_target(&inner, n->list.item[i], true);
    see_body(&inner, &n->c->list);
    for (size_t i = 0; i < n->list.count; i++) {
        resolve_target(&inner, n->list.item[i]);
        resolve_expression(f, n->list2.item[i], soft);
    }
    n->plan[0] = plan_of(&inner);
    resolve_body(&inner, &n->c->list, false);
}

/* A body in a frame of its own; filters belong to it: of a filter block they are looked through for names, of a set block not. */
static void resolve_captured(frame *f, jnode *n, jnode *filters, bool see_filters)
{
    frame inner = {.parent = f, .p = f->p};
    see_body(&inner, &n->list);
    if (see_filters) see_expression(&inner, filters);
    n->plan[0] = plan_of(&inner);
    resolve_body(&inner, &n->list, false);
    resolve_expression(&inner, filters, false);
}

/* A block stands alone: it sees variables, and what the template has set outside of loops and macros. A scoped one also what is set around it. */
static void resolve_block(frame *f, jnode *n)
{
    frame inner = {.p = f->p};
    see_body(&inner, &n->list);
    n->plan[0] = plan_of(&inner);
    for (frame *outer = f; n->scoped && outer; outer = outer->parent)
        for (size_t i = 0; i < outer->count; i++) {
            bool known = false;
            for (size_t k = 0; k < n->list2.count; k++) known |= n->list2.item[k]->name == outer->item[i].name;
            if (known || !outer->item[i].stored) continue;
            jnode *name = jinja_node(f->p, N_NAME);
            name->name = outer->item[i].name;
            resolve_name(f, name);
            jinja_nodes_add(f->p, &n->list2, name);
        }
    resolve_body(&inner, &n->list, false);
}

static void resolve_statement(frame *f, jnode *n, bool soft)
{
    n->toplevel = f->toplevel;
    switch (n->kind) {
    case N_PRINT: resolve_expression(f, n->a, soft); break;
    case N_BLOCK: resolve_body(f, &n->list, soft); break;
    case N_FOR: resolve_for(f, n, soft); break;
    case N_IF:
        resolve_expression(f, n->a, true);
        resolve_body(f, &n->list, true);
        resolve_body(f, &n->list2, true);
        break;
    case N_SET:
        resolve_expression(f, n->b, soft);
        resolve_target(f, n->a);
        break;
    case N_SET_BLOCK:
        resolve_captured(f, n, n->b, false);
        resolve_target(f, n->a);
        break;
    case N_MACRO:
        resolve_macro(f, n);
        if (!find(f, n->name, &n->up, &n->slot)) jinja_fail(f->p->m, VLM_INTERNAL, "a macro without a slot");
        break;
    case N_CALL_BLOCK:
        resolve_macro(f, n);
        resolve_expression(f, n->a, soft);
        break;
    case N_FILTER_BLOCK: resolve_captured(f, n, n->a, true); break;
    case N_WITH: resolve_with(f, n, soft); break;
    case N_SCOPE: resolve_captured(f, n, NULL, false); break;
    case N_BLOCK_TAG: resolve_block(f, n); break;
    case N_TEMPLATE:
        if (!f->toplevel && jstr_is(n->name, "extends")) jinja_fail(f->p->m, VLM_FORMAT, "cannot use extend from a non top-level scope");
        resolve_expression(f, n->a, soft);
        break;
    default: break;
    }
}

static void resolve_body(frame *f, const jnodes *body, bool soft)
{
    for (size_t i = 0; i < body->count; i++) resolve_statement(f, body->item[i], soft);
}

void jinja_resolve(jparser *p)
{
    frame root = {.p = p, .toplevel = true};
    see_body(&root, &p->t->root->list);
    p->t->root->plan[0] = plan_of(&root);
    resolve_body(&root, &p->t->root->list, false);
    p->m->line = 0;
}

/* jinja_parse.c - statements; compiling; the parser's small tools. */
#include <stdarg.h>
#include <stdio.h>

#include "text/jinja_internal.h"

enum { SOURCE_LIMIT = 1 << 20, COMPILE_MEMORY = 256 << 20 };

/* ---- tools ---- */

jnode *jinja_node(jparser *p, jnode_kind kind)
{
    jnode *n = jinja_alloc(p->m, sizeof *n);
    n->kind = kind;
    n->line = p->m->line = p->token->line;
    return n;
}

void jinja_nodes_add(jparser *p, jnodes *list, jnode *n)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4;
        jnode **grown = jinja_alloc(p->m, capacity * sizeof *grown);
        if (list->count) memcpy(grown, list->item, list->count * sizeof *grown);
        list->item = grown;
        list->capacity = capacity;
    }
    list->item[list->count++] = n;
}

const jstr *jinja_intern(jparser *p, const jstr *name)
{
    jinja *t = p->t;
    for (size_t i = 0; i < t->name_count; i++)
        if (t->names[i]->size == name->size && memcmp(t->names[i]->data, name->data, name->size) == 0) return t->names[i];
    if (t->name_count == t->name_capacity) {
        size_t capacity = t->name_capacity ? t->name_capacity * 2 : 64;
        const jstr **grown = jinja_alloc(p->m, capacity * sizeof *grown);
        if (t->name_count) memcpy(grown, t->names, t->name_count * sizeof *grown);
        t->names = grown;
        t->name_capacity = capacity;
        if (capacity > 4096) jinja_fail(p->m, VLM_LIMIT, "more than 4096 different names");
    }
    return t->names[t->name_count++] = name;
}

void jinja_unexpected(jparser *p, const char *expected)
{
    const jtoken *t = p->token;
    p->m->line = t->line;
    static const struct { int op; const char *text; } ops[] = {{OP_EQ, "=="}, {OP_NE, "!="}, {OP_LE, "<="}, {OP_GE, ">="}, {OP_POW, "**"}, {OP_FLOORDIV, "//"}};
    switch (t->kind) {
    case T_NAME: jinja_fail(p->m, VLM_FORMAT, "expected %s, got '%.*s'", expected, (int)(t->value.s->size < 60 ? t->value.s->size : 60), t->value.s->data);
    case T_OP:
        for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
            if (ops[i].op == t->op) jinja_fail(p->m, VLM_FORMAT, "expected %s, got '%s'", expected, ops[i].text);
        jinja_fail(p->m, VLM_FORMAT, "expected %s, got '%c'", expected, t->op);
    default: break;
    }
    static const char *const names[] = {"text", "a print statement", "the end of the print statement", "a tag", "the end of the tag", "", "a string", "a number",
                                        "", "the end of the template"};
    jinja_fail(p->m, VLM_FORMAT, "expected %s, got %s", expected, names[t->kind]);
}

bool jinja_is_op(const jparser *p, int op) { return p->token->kind == T_OP && p->token->op == op; }

bool jinja_skip_op(jparser *p, int op)
{
    if (!jinja_is_op(p, op)) return false;
    p->token++;
    return true;
}

void jinja_expect_op(jparser *p, int op)
{
    char text[4] = {'\'', (char)op, '\'', 0};
    if (!jinja_skip_op(p, op)) jinja_unexpected(p, text);
}

bool jinja_is_name(const jparser *p, const char *name) { return p->token->kind == T_NAME && jstr_is(p->token->value.s, name); }

bool jinja_skip_name(jparser *p, const char *name)
{
    if (!jinja_is_name(p, name)) return false;
    p->token++;
    return true;
}

const jstr *jinja_expect_name(jparser *p)
{
    if (p->token->kind != T_NAME) jinja_unexpected(p, "a name");
    return jinja_intern(p, p->token++->value.s);
}

static void end_tag(jparser *p)
{
    if (p->token->kind != T_BLOCK_END) jinja_unexpected(p, "the end of the tag");
    p->token++;
}

/* ---- bodies ---- */

static jnode *parse_statement(jparser *p);

/* Statements up to a tag that is one of `ends` (space-separated names); that tag's name is left as the current token. ends NULL: the
 * whole template. */
static void parse_body(jparser *p, jnodes *out, const char *ends)
{
    if (++p->depth > 200) jinja_fail(p->m, VLM_LIMIT, "blocks are nested more than 200 deep");
    for (;;) {
        switch (p->token->kind) {
        case T_DATA: {
            jnode *n = jinja_node(p, N_DATA);
            n->value = p->token++->value;
            jinja_nodes_add(p, &p->t->literals, n);
            jinja_nodes_add(p, out, n);
        } break;
        case T_PRINT_BEGIN: {
            p->token++;
            jnode *n = jinja_node(p, N_PRINT);
            n->a = jinja_parse_tuple(p, true, NULL);
            if (p->token->kind != T_PRINT_END) jinja_unexpected(p, "the end of the print statement");
            p->token++;
            jinja_nodes_add(p, out, n);
        } break;
        case T_BLOCK_BEGIN: {
            p->token++;
            if (p->token->kind != T_NAME) jinja_unexpected(p, "a statement");
            for (const char *e = ends; e && *e;) {
                size_t n = strcspn(e, " ");
                if (p->token->value.s->size == n && memcmp(p->token->value.s->data, e, n) == 0) {
                    p->depth--;
                    return;
                }
                e += n + (e[n] == ' ');
            }
            jnode *n = parse_statement(p);
            if (n) jinja_nodes_add(p, out, n);
            end_tag(p);
        } break;
        default:
            if (ends || p->token->kind != T_END) jinja_unexpected(p, ends ? ends : "text or a tag");
            p->depth--;
            return;
        }
    }
}

/* Body with its end tag, whose name is skipped. */
static void parse_block(jparser *p, jnodes *out, const char *end)
{
    end_tag(p);
    parse_body(p, out, end);
    p->token++;
}

/* ---- statements: the current token is what follows the name ---- */

static jnode *parse_for(jparser *p)
{
    jnode *n = jinja_node(p, N_FOR);
    n->a = jinja_parse_target(p, "in", false);
    if (!jinja_skip_name(p, "in")) jinja_unexpected(p, "'in'");
    n->b = jinja_parse_tuple(p, false, "recursive");
    if (jinja_skip_name(p, "if")) n->c = jinja_parse_expression(p, true);
    n->recursive = jinja_skip_name(p, "recursive");
    end_tag(p);
    p->loops++;
    parse_body(p, &n->list, "endfor else");
    p->loops--;
    if (jinja_skip_name(p, "else")) {
        end_tag(p);
        parse_body(p, &n->list2, "endfor");
    }
    p->token++;
    return n;
}

static jnode *parse_if(jparser *p)
{
    jnode *first = jinja_node(p, N_IF), *n = first;
    for (;;) {
        n->a = jinja_parse_tuple(p, false, NULL);
        end_tag(p);
        parse_body(p, &n->list, "elif else endif");
        if (!jinja_skip_name(p, "elif")) break;
        jnode *next = jinja_node(p, N_IF);
        jinja_nodes_add(p, &n->list2, next);
        n = next;
    }
    if (jinja_skip_name(p, "else")) {
        end_tag(p);
        parse_body(p, &n->list2, "endif");
    }
    p->token++;
    return first;
}

static jnode *parse_set(jparser *p)
{
    jnode *n = jinja_node(p, N_SET);
    n->a = jinja_parse_target(p, NULL, true);
    if (jinja_skip_op(p, '=')) {
        n->b = jinja_parse_tuple(p, true, NULL);
        return n;
    }
    n->kind = N_SET_BLOCK;
    n->b = jinja_is_op(p, '|') ? jinja_parse_filters(p, NULL, true) : NULL;
    parse_block(p, &n->list, "endset");
    return n;
}

/* (a, b=1): names in list, defaults in list2 (aligned to the end). */
static void parse_signature(jparser *p, jnode *n)
{
    jinja_expect_op(p, '(');
    while (!jinja_is_op(p, ')')) {
        if (n->list.count) jinja_expect_op(p, ',');
        jnode *name = jinja_node(p, N_NAME);
        name->name = jinja_expect_name(p);
        jinja_nodes_add(p, &n->list, name);
        if (jinja_skip_op(p, '=')) jinja_nodes_add(p, &n->list2, jinja_parse_expression(p, true));
        else if (n->list2.count) jinja_unexpected(p, "a default (the argument before has one)");
    }
    jinja_expect_op(p, ')');
}

/* Macro and call block: the body is a node of its own, n->c. */
static void parse_macro_body(jparser *p, jnode *n, const char *end)
{
    jnode *outer = p->macro;
    int loops = p->loops;
    p->macro = n;
    p->loops = 0;
    n->c = jinja_node(p, N_SCOPE);
    parse_block(p, &n->c->list, end);
    p->macro = outer;
    p->loops = loops;
    if (outer) {                                   /* a name used in an inner macro counts as used in the outer one, as in jinja2 */
        outer->uses_varargs |= n->uses_varargs;
        outer->uses_kwargs |= n->uses_kwargs;
    }
}

static jnode *parse_macro(jparser *p)
{
    jnode *n = jinja_node(p, N_MACRO);
    n->name = jinja_expect_name(p);
    parse_signature(p, n);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static jnode *parse_call_block(jparser *p)
{
    jnode *n = jinja_node(p, N_CALL_BLOCK);
    if (jinja_is_op(p, '(')) parse_signature(p, n);
    n->a = jinja_parse_expression(p, true);
    if (n->a->kind != N_CALL) jinja_fail(p->m, VLM_FORMAT, "expected a call in {%% call %%}");
    parse_macro_body(p, n, "endcall");
    return n;
}

static jnode *parse_with(jparser *p)
{
    jnode *n = jinja_node(p, N_WITH);
    jnode *body = jinja_node(p, N_SCOPE);
    while (p->token->kind != T_BLOCK_END) {
        if (n->list.count) jinja_expect_op(p, ',');
        jinja_nodes_add(p, &n->list, jinja_parse_target(p, NULL, false));
        jinja_expect_op(p, '=');
        jinja_nodes_add(p, &n->list2, jinja_parse_expression(p, true));
    }
    parse_block(p, &body->list, "endwith");
    n->c = body;
    return n;
}

static jnode *parse_scope(jparser *p, const char *end)
{
    jnode *n = jinja_node(p, N_SCOPE);
    parse_block(p, &n->list, end);
    return n;
}

static jnode *parse_statement(jparser *p)
{
    const jstr *name = p->token->value.s;
    jnode *n = NULL;
    p->m->line = p->token->line;
    p->token++;
    if (jstr_is(name, "if")) return parse_if(p);
    if (jstr_is(name, "for")) return parse_for(p);
    if (jstr_is(name, "set")) return parse_set(p);
    if (jstr_is(name, "macro")) return parse_macro(p);
    if (jstr_is(name, "call")) return parse_call_block(p);
    if (jstr_is(name, "with")) return parse_with(p);
    if (jstr_is(name, "generation")) return parse_scope(p, "endgeneration");
    if (jstr_is(name, "filter")) {
        n = jinja_node(p, N_FILTER_BLOCK);
        n->a = jinja_parse_filters(p, NULL, false);
        parse_block(p, &n->list, "endfilter");
        return n;
    }
    if (jstr_is(name, "block")) {                  /* without inheritance a block is its body */
        jinja_expect_name(p);
        while (jinja_skip_name(p, "scoped") || jinja_skip_name(p, "required")) { }
        n = parse_scope(p, "endblock");
        if (p->token->kind == T_NAME) p->token++;
        return n;
    }
    if (jstr_is(name, "print")) {
        n = jinja_node(p, N_BLOCK);
        do {
            jnode *print = jinja_node(p, N_PRINT);
            print->a = jinja_parse_expression(p, true);
            jinja_nodes_add(p, &n->list, print);
        } while (jinja_skip_op(p, ','));
        return n;
    }
    if (jstr_is(name, "break") || jstr_is(name, "continue")) {
        if (!p->loops) jinja_fail(p->m, VLM_FORMAT, "'%.8s' outside of a loop", name->data);
        return jinja_node(p, jstr_is(name, "break") ? N_BREAK : N_CONTINUE);
    }
    static const char *const refused[] = {"include", "import", "from", "extends", "trans", "autoescape", "do", "debug"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (jstr_is(name, refused[i])) jinja_fail(p->m, VLM_UNSUPPORTED, "{%% %s %%} is not supported in chat templates", refused[i]);
    jinja_fail(p->m, VLM_FORMAT, "unknown tag '%.*s'", (int)(name->size < 60 ? name->size : 60), name->data);
}

jnode *jinja_parse(jparser *p)
{
    jnode *root = jinja_node(p, N_BLOCK);
    parse_body(p, &root->list, NULL);
    return root;
}

/* ---- compiling ---- */

jinja *jinja_compile(const char *source, size_t size, vlm_error *error)
{
    if (size > SOURCE_LIMIT) {
        err_set(error, VLM_LIMIT, "chat template of %zu bytes: at most %d are taken", size, SOURCE_LIMIT);
        return NULL;
    }
    jinja *t = MEM_NEW(jinja);
    if (!t) {
        err_memory(error, sizeof *t);
        return NULL;
    }
    t->m.limit = COMPILE_MEMORY;
    t->m.steps = UINT64_MAX;
    t->m.error = error;
    if (setjmp(t->m.escape)) {
        jinja_free(t);
        return NULL;
    }
    if (!utf8_valid(source, size)) jinja_fail(&t->m, VLM_FORMAT, "not UTF-8");
    jparser p = {.m = &t->m, .t = t, .token = jinja_lex(&t->m, source, size)};
    t->root = jinja_parse(&p);
    t->m.error = NULL;
    return t;
}

void jinja_free(jinja *t)
{
    if (!t) return;
    arena_free(&t->m.blocks);
    mem_free(t);
}

bool jinja_writes(const jinja *t, const char *text)
{
    for (size_t i = 0; i < t->literals.count; i++) {
        const jstr *s = t->literals.item[i]->value.s;
        if (bytes_find(s->data, s->size, 0, text, strlen(text)) != SIZE_MAX) return true;
    }
    return false;
}

bool jinja_literals(const jinja *t, buf *out)
{
    for (size_t i = 0; i < t->literals.count; i++) {
        const jstr *s = t->literals.item[i]->value.s;
        if (!buf_add(out, s->data, s->size) || !buf_addc(out, 0)) return false;
    }
    return true;
}

bool jinja_has_string(const jinja *t, const char *text)
{
    for (size_t i = 0; i < t->literals.count; i++)
        if (t->literals.item[i]->kind == N_CONST && jstr_is(t->literals.item[i]->value.s, text)) return true;
    return false;
}

bool jinja_reads(const jinja *t, const char *name)
{
    for (size_t i = 0; i < t->name_count; i++)
        if (jstr_is(t->names[i], name)) return true;
    return false;
}

/* ---- memory and failing ---- */

void jinja_work(jmem *m, size_t steps)
{
    if (steps > m->steps) jinja_fail(m, VLM_LIMIT, "takes too many steps");
    m->steps -= steps;
}

void *jinja_alloc(jmem *m, size_t bytes)
{
    if (bytes > m->limit || m->used + bytes > m->limit) jinja_fail(m, VLM_LIMIT, "needs more than %zu MiB of memory", m->limit >> 20);
    size_t rounded = (bytes + 15) & ~(size_t)15;
    m->used += rounded;
    jinja_work(m, rounded / 64);
    if (rounded > 8192) {
        void *big = arena_alloc(&m->blocks, rounded);
        if (!big) jinja_fail(m, VLM_MEMORY, "out of memory");
        return big;
    }
    if (rounded > m->left) {
        m->chunk = arena_alloc(&m->blocks, 32768);
        if (!m->chunk) jinja_fail(m, VLM_MEMORY, "out of memory");
        m->left = 32768;
    }
    void *piece = m->chunk;
    m->chunk += rounded;
    m->left -= rounded;
    return piece;
}

void jinja_fail(jmem *m, vlm_status code, const char *format, ...)
{
    char message[700];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (m->line) err_set(m->error, code, "chat template, line %d: %s", m->line, message);
    else err_set(m->error, code, "%s", message);
    longjmp(m->escape, 1);
}

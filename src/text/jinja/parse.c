/* parse.c - statements; compiling; the parser's small tools. */
#include <stdarg.h>
#include <stdio.h>

#include "text/jinja/internal.h"

enum { SOURCE_LIMIT = 1 << 20, COMPILE_MEMORY = 256 << 20, COMPILE_STEPS = 20 * 1000 * 1000 };

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

static uint32_t *name_place(const jinja *t, const jstr *name)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < name->size; i++) h = (h ^ (unsigned char)name->data[i]) * 0x100000001B3u;
    size_t at = h % t->name_index_size;
    for (; t->name_index[at]; at = (at + 1) % t->name_index_size) {
        const jstr *other = t->names[t->name_index[at] - 1];
        if (other->size == name->size && memcmp(other->data, name->data, name->size) == 0) break;
    }
    return &t->name_index[at];
}

const jstr *jinja_intern(jparser *p, const jstr *name)
{
    jinja *t = p->t;
    if (t->name_count == t->name_capacity) {
        size_t capacity = t->name_capacity ? t->name_capacity * 2 : 64;
        if (capacity > 4096) jinja_fail(p->m, VLM_LIMIT, "more than 4096 different names");
        const jstr **grown = jinja_alloc(p->m, capacity * sizeof *grown);
        if (t->name_count) memcpy(grown, t->names, t->name_count * sizeof *grown);
        t->names = grown;
        t->name_capacity = capacity;
        t->name_index_size = capacity * 2;
        t->name_index = jinja_alloc(p->m, t->name_index_size * sizeof *t->name_index);
        for (size_t i = 0; i < t->name_count; i++) *name_place(t, t->names[i]) = (uint32_t)i + 1;
    }
    uint32_t *place = name_place(t, name);
    if (!*place) {
        t->names[t->name_count] = name;
        *place = (uint32_t)++t->name_count;
    }
    return t->names[*place - 1];
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

/* The end of a tag that a body follows. */
static void open_tag(jparser *p)
{
    jinja_skip_op(p, ':');                         /* {% if x: %}, as in Python */
    end_tag(p);
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
    open_tag(p);
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
    open_tag(p);
    p->loops++;
    parse_body(p, &n->list, "endfor else");
    p->loops--;
    if (jinja_skip_name(p, "else")) {
        open_tag(p);
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
        open_tag(p);
        parse_body(p, &n->list, "elif else endif");
        if (!jinja_skip_name(p, "elif")) break;
        jnode *next = jinja_node(p, N_IF);
        jinja_nodes_add(p, &n->list2, next);
        n = next;
    }
    if (jinja_skip_name(p, "else")) {
        open_tag(p);
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
    int loops = p->loops;
    p->loops = 0;
    n->c = jinja_node(p, N_SCOPE);
    parse_block(p, &n->c->list, end);
    p->loops = loops;
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

/* A body of its own, from which no loop can be left. */
static jnode *parse_scope(jparser *p, jnode_kind kind, const char *end)
{
    jnode *n = jinja_node(p, kind);
    int loops = p->loops;
    p->loops = 0;
    parse_block(p, &n->list, end);
    p->loops = loops;
    return n;
}

/* Without inheritance a block is its body. */
static jnode *parse_block_tag(jparser *p)
{
    const jstr *name = jinja_expect_name(p);
    for (size_t i = 0; i < p->blocks.count; i++)
        if (p->blocks.item[i]->name == name) jinja_fail(p->m, VLM_FORMAT, "block '%.*s' defined twice", (int)(name->size < 60 ? name->size : 60), name->data);
    bool scoped = jinja_skip_name(p, "scoped"), required = jinja_skip_name(p, "required");
    jnode *seen = jinja_node(p, N_BLOCK_TAG);
    seen->name = name;
    jinja_nodes_add(p, &p->blocks, seen);
    jnode *n = parse_scope(p, N_BLOCK_TAG, "endblock");
    n->name = name;
    n->scoped = scoped;
    n->required = required;
    p->scoped |= scoped;
    p->t->has_blocks = true;
    if (p->token->kind == T_NAME && jstr_is(p->token->value.s, name->data) && p->token->value.s->size == name->size) p->token++;
    return n;
}

/* with context, without context, ignore missing */
static bool skip_pair(jparser *p, const char *first, const char *second)
{
    if (!jinja_is_name(p, first) || p->token[1].kind != T_NAME || !jstr_is(p->token[1].value.s, second)) return false;
    p->token += 2;
    return true;
}

static bool skip_context(jparser *p) { return skip_pair(p, "with", "context") || skip_pair(p, "without", "context"); }

static void add_import(jparser *p, jnode *n)
{
    jnode *name = jinja_node(p, N_NAME);
    name->name = jinja_expect_name(p);
    if (jinja_skip_name(p, "as")) name->name = jinja_expect_name(p);
    else if (name->name->size && name->name->data[0] == '_') jinja_fail(p->m, VLM_FORMAT, "names starting with an underline can not be imported");
    jinja_nodes_add(p, &n->list, name);
}

/* include, import, from, extends: there are no other templates; an error when they are reached, as in an environment without a loader. */
static jnode *parse_template_tag(jparser *p, const jstr *tag)
{
    jnode *n = jinja_node(p, N_TEMPLATE);
    n->name = tag;
    n->a = jinja_parse_expression(p, true);
    if (jstr_is(tag, "import")) {
        if (!jinja_is_name(p, "as")) jinja_unexpected(p, "'as'");
        p->token++;
        jnode *name = jinja_node(p, N_NAME);
        name->name = jinja_expect_name(p);
        jinja_nodes_add(p, &n->list, name);
    }
    if (jstr_is(tag, "from")) {
        if (!jinja_skip_name(p, "import")) jinja_unexpected(p, "'import'");
        for (bool first = true;; first = false) {
            if (!first) jinja_expect_op(p, ',');
            if (skip_context(p)) break;
            add_import(p, n);
            if (skip_context(p) || !jinja_is_op(p, ',')) break;
        }
    } else if (!jstr_is(tag, "extends")) {
        if (jstr_is(tag, "include")) skip_pair(p, "ignore", "missing");
        skip_context(p);
    }
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
    if (jstr_is(name, "generation")) return parse_scope(p, N_SCOPE, "endgeneration");
    if (jstr_is(name, "filter")) {
        n = jinja_node(p, N_FILTER_BLOCK);
        n->a = jinja_parse_filters(p, NULL, false);
        parse_block(p, &n->list, "endfilter");
        return n;
    }
    if (jstr_is(name, "block")) return parse_block_tag(p);
    if (jstr_is(name, "include") || jstr_is(name, "import") || jstr_is(name, "from") || jstr_is(name, "extends")) return parse_template_tag(p, name);
    if (jstr_is(name, "print")) {
        n = jinja_node(p, N_BLOCK);
        while (p->token->kind != T_BLOCK_END) {
            if (n->list.count) jinja_expect_op(p, ',');
            jnode *print = jinja_node(p, N_PRINT);
            print->a = jinja_parse_expression(p, true);
            jinja_nodes_add(p, &n->list, print);
        }
        return n;
    }
    if (jstr_is(name, "break") || jstr_is(name, "continue")) {
        if (!p->loops) jinja_fail(p->m, VLM_FORMAT, "'%.8s' outside of a loop", name->data);
        return jinja_node(p, jstr_is(name, "break") ? N_BREAK : N_CONTINUE);
    }
    if (jstr_is(name, "autoescape")) jinja_fail(p->m, VLM_UNSUPPORTED, "{%% autoescape %%} is not supported in chat templates");
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
    t->m.steps = COMPILE_STEPS;
    t->m.error = error;
    if (setjmp(t->m.escape)) {
        jinja_free(t);
        return NULL;
    }
    if (!utf8_valid(source, size)) jinja_fail(&t->m, VLM_FORMAT, "not UTF-8");
    jparser p = {.m = &t->m, .t = t, .token = jinja_lex(&t->m, source, size)};
    t->root = jinja_parse(&p);
    jinja_resolve(&p);
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

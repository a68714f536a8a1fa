/* expr.c - expressions. Precedence from weak to strong, as in jinja2 (not quite Python's: ** is left-associative and weaker than a
 * sign): if-else, or, and, not, comparisons, + -, ~, * / // %, **, unary + -, postfix and filters. */
#include "text/jinja/internal.h"

static jnode *parse_or(jparser *p);

static void deeper(jparser *p)
{
    if (++p->depth > 200) jinja_fail(p->m, VLM_LIMIT, "expressions are nested more than 200 deep");
}

static jnode *binary(jparser *p, jnode_kind kind, int op, jnode *a, jnode *b)
{
    jnode *n = jinja_node(p, kind);
    n->op = op;
    n->a = a;
    n->b = b;
    return n;
}

static jnode *constant(jparser *p, jval v)
{
    jnode *n = jinja_node(p, N_CONST);
    n->value = v;
    if (v.kind == J_STRING) jinja_nodes_add(p, &p->t->literals, n);
    return n;
}

static jnode *parse_name(jparser *p)
{
    const jstr *name = jinja_expect_name(p);
    if (jstr_is(name, "true") || jstr_is(name, "True")) return constant(p, jv_bool(true));
    if (jstr_is(name, "false") || jstr_is(name, "False")) return constant(p, jv_bool(false));
    if (jstr_is(name, "none") || jstr_is(name, "None")) return constant(p, jv_none());
    jnode *n = jinja_node(p, N_NAME);
    n->name = name;
    return n;
}

static jnode *parse_strings(jparser *p)
{
    jbuf all = {.m = p->m};
    jval first = p->token->value;
    size_t count = 0;
    for (; p->token->kind == T_STRING; p->token++, count++) jbuf_addstr(&all, p->token->value.s);
    return constant(p, count == 1 ? first : jv_buf(&all));
}

static jnode *parse_list(jparser *p)
{
    jnode *n = jinja_node(p, N_LIST);
    jinja_expect_op(p, '[');
    while (!jinja_is_op(p, ']')) {
        if (n->list.count) jinja_expect_op(p, ',');
        if (jinja_is_op(p, ']')) break;
        jinja_nodes_add(p, &n->list, jinja_parse_expression(p, true));
    }
    jinja_expect_op(p, ']');
    return n;
}

static jnode *parse_dict(jparser *p)
{
    jnode *n = jinja_node(p, N_DICT);
    jinja_expect_op(p, '{');
    while (!jinja_is_op(p, '}')) {
        if (n->list.count) jinja_expect_op(p, ',');
        if (jinja_is_op(p, '}')) break;
        jinja_nodes_add(p, &n->list, jinja_parse_expression(p, true));
        jinja_expect_op(p, ':');
        jinja_nodes_add(p, &n->list2, jinja_parse_expression(p, true));
    }
    jinja_expect_op(p, '}');
    return n;
}

static jnode *parse_primary(jparser *p)
{
    switch (p->token->kind) {
    case T_NAME: return parse_name(p);
    case T_STRING: return parse_strings(p);
    case T_NUMBER: return constant(p, p->token++->value);
    case T_OP:
        if (jinja_is_op(p, '[')) return parse_list(p);
        if (jinja_is_op(p, '{')) return parse_dict(p);
        if (jinja_skip_op(p, '(')) {
            if (jinja_skip_op(p, ')')) return jinja_node(p, N_TUPLE);
            jnode *n = jinja_parse_tuple(p, true, NULL);
            jinja_expect_op(p, ')');
            return n;
        }
        break;
    default: break;
    }
    jinja_unexpected(p, "an expression");
}

static jnode *parse_subscript_item(jparser *p)
{
    jnode *start = NULL;
    if (!jinja_is_op(p, ':')) {
        start = jinja_parse_expression(p, true);
        if (!jinja_is_op(p, ':')) return start;
    }
    jnode *n = jinja_node(p, N_SLICE);
    n->a = start;
    jinja_expect_op(p, ':');
    if (!jinja_is_op(p, ':') && !jinja_is_op(p, ']') && !jinja_is_op(p, ',')) n->b = jinja_parse_expression(p, true);
    if (jinja_skip_op(p, ':') && !jinja_is_op(p, ']') && !jinja_is_op(p, ',')) n->c = jinja_parse_expression(p, true);
    return n;
}

static jnode *parse_subscript(jparser *p, jnode *of)
{
    if (jinja_skip_op(p, '.')) {
        if (p->token->kind == T_NUMBER && p->token->value.kind == J_INT) return binary(p, N_ITEM, 0, of, constant(p, p->token++->value));
        jnode *n = jinja_node(p, N_ATTR);
        n->a = of;
        n->name = jinja_expect_name(p);
        return n;
    }
    jinja_expect_op(p, '[');
    jnode *key = parse_subscript_item(p);
    if (jinja_is_op(p, ',')) {
        jnode *tuple = jinja_node(p, N_TUPLE);
        jinja_nodes_add(p, &tuple->list, key);
        while (jinja_skip_op(p, ',')) jinja_nodes_add(p, &tuple->list, parse_subscript_item(p));
        key = tuple;
    }
    jinja_expect_op(p, ']');
    return binary(p, N_ITEM, 0, of, key);
}

/* Arguments in parentheses: positional (and *more) in list, named (and **more) in list2. */
static void parse_arguments(jparser *p, jnode *n)
{
    jinja_expect_op(p, '(');
    for (bool any = false; !jinja_is_op(p, ')'); any = true) {
        if (any) {
            jinja_expect_op(p, ',');
            if (jinja_is_op(p, ')')) break;
        }
        bool star = jinja_is_op(p, '*'), starstar = jinja_is_op(p, OP_POW);
        bool named = p->token->kind == T_NAME && p->token[1].kind == T_OP && p->token[1].op == '=';
        if (star || starstar || named) {
            jnode *k = jinja_node(p, star ? N_STAR : starstar ? N_STARSTAR : N_KEYWORD);
            if (named) k->name = jinja_expect_name(p);
            p->token++;
            k->a = jinja_parse_expression(p, true);
            jinja_nodes_add(p, star ? &n->list : &n->list2, k);
        } else {
            if (n->list2.count) jinja_unexpected(p, "no positional argument after a named one");
            jinja_nodes_add(p, &n->list, jinja_parse_expression(p, true));
        }
    }
    jinja_expect_op(p, ')');
}

jnode *jinja_parse_call(jparser *p, jnode *callee)
{
    jnode *n = jinja_node(p, N_CALL);
    n->a = callee;
    parse_arguments(p, n);
    return n;
}

static const jstr *dotted_name(jparser *p)
{
    const jstr *name = jinja_expect_name(p);
    if (!jinja_is_op(p, '.')) return name;
    jbuf all = {.m = p->m};
    jbuf_addstr(&all, name);
    while (jinja_skip_op(p, '.')) {
        jbuf_addc(&all, '.');
        jbuf_addstr(&all, jinja_expect_name(p));
    }
    return jinja_intern(p, jv_buf(&all).s);
}

static jnode *parse_test(jparser *p, jnode *operand)
{
    jnode *n = jinja_node(p, N_TEST);
    bool negated = jinja_skip_name(p, "not");
    n->a = operand;
    n->name = dotted_name(p);
    jtoken_kind k = p->token->kind;
    bool starts = k == T_NAME || k == T_STRING || k == T_NUMBER || jinja_is_op(p, '[') || jinja_is_op(p, '{');
    if (jinja_is_op(p, '(')) parse_arguments(p, n);
    else if (starts && !jinja_is_name(p, "else") && !jinja_is_name(p, "or") && !jinja_is_name(p, "and")) {
        if (jinja_is_name(p, "is")) jinja_unexpected(p, "no second test (tests cannot be chained)");
        jnode *argument = parse_primary(p);
        while (jinja_is_op(p, '.') || jinja_is_op(p, '[') || jinja_is_op(p, '('))
            argument = jinja_is_op(p, '(') ? jinja_parse_call(p, argument) : parse_subscript(p, argument);
        jinja_nodes_add(p, &n->list, argument);
    }
    if (!negated) return n;
    jnode *not = jinja_node(p, N_NOT);
    not->a = n;
    return not;
}

jnode *jinja_parse_filters(jparser *p, jnode *operand, bool need_pipe)
{
    for (bool first = true; (first && !need_pipe) || jinja_skip_op(p, '|'); first = false) {
        jnode *n = jinja_node(p, N_FILTER);
        n->a = operand;
        n->name = dotted_name(p);
        if (jinja_is_op(p, '(')) parse_arguments(p, n);
        operand = n;
    }
    return operand;
}

jnode *jinja_parse_unary(jparser *p, bool with_filter)
{
    deeper(p);
    jnode *n;
    if (jinja_is_op(p, '-') || jinja_is_op(p, '+')) {
        n = jinja_node(p, jinja_is_op(p, '-') ? N_NEG : N_POS);
        p->token++;
        n->a = jinja_parse_unary(p, false);
    } else {
        n = parse_primary(p);
        while (jinja_is_op(p, '.') || jinja_is_op(p, '[') || jinja_is_op(p, '('))
            n = jinja_is_op(p, '(') ? jinja_parse_call(p, n) : parse_subscript(p, n);
    }
    while (with_filter) {
        if (jinja_is_op(p, '|')) n = jinja_parse_filters(p, n, true);
        else if (jinja_skip_name(p, "is")) n = parse_test(p, n);
        else if (jinja_is_op(p, '(')) n = jinja_parse_call(p, n);
        else break;
    }
    p->depth--;
    return n;
}

/* Left-associative operators of one level. */
static jnode *parse_level(jparser *p, int level)
{
    static const int ops[3][5] = {{'+', '-', 0}, {'*', '/', OP_FLOORDIV, '%', 0}, {OP_POW, 0}};
    if (level == 1) {                              /* ~ lies between + and * and takes any number of operands */
        jnode *first = parse_level(p, 2), *n = NULL;
        while (jinja_skip_op(p, '~')) {
            if (!n) {
                n = jinja_node(p, N_CONCAT);
                jinja_nodes_add(p, &n->list, first);
            }
            jinja_nodes_add(p, &n->list, parse_level(p, 2));
        }
        return n ? n : first;
    }
    const int *set = ops[level == 0 ? 0 : level - 1];
    jnode *left = level == 3 ? jinja_parse_unary(p, true) : parse_level(p, level + 1);
    for (;;) {
        int op = 0;
        for (int i = 0; set[i]; i++)
            if (jinja_is_op(p, set[i])) op = set[i];
        if (!op) return left;
        p->token++;
        left = binary(p, N_BINARY, op, left, level == 3 ? jinja_parse_unary(p, true) : parse_level(p, level + 1));
    }
}

/* a < b < c: list holds the operands, list2 the operators (as nodes with op). */
static jnode *parse_compare(jparser *p)
{
    jnode *first = parse_level(p, 0), *n = NULL;
    for (;;) {
        static const int ops[] = {OP_EQ, OP_NE, '<', '>', OP_LE, OP_GE};
        int op = 0;
        for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
            if (jinja_is_op(p, ops[i])) op = ops[i];
        if (op) p->token++;
        else if (jinja_skip_name(p, "in")) op = OP_IN;
        else if (jinja_is_name(p, "not") && p->token[1].kind == T_NAME && jstr_is(p->token[1].value.s, "in")) {
            p->token += 2;
            op = OP_NOT_IN;
        } else return n ? n : first;
        if (!n) {
            n = jinja_node(p, N_COMPARE);
            jinja_nodes_add(p, &n->list, first);
        }
        jnode *operator = jinja_node(p, N_CONST);
        operator->op = op;
        jinja_nodes_add(p, &n->list2, operator);
        jinja_nodes_add(p, &n->list, parse_level(p, 0));
    }
}

static jnode *parse_not(jparser *p)
{
    if (!jinja_skip_name(p, "not")) return parse_compare(p);
    deeper(p);
    jnode *n = jinja_node(p, N_NOT);
    n->a = parse_not(p);
    p->depth--;
    return n;
}

static jnode *parse_and(jparser *p)
{
    jnode *left = parse_not(p);
    while (jinja_skip_name(p, "and")) left = binary(p, N_AND, 0, left, parse_not(p));
    return left;
}

static jnode *parse_or(jparser *p)
{
    jnode *left = parse_and(p);
    while (jinja_skip_name(p, "or")) left = binary(p, N_OR, 0, left, parse_and(p));
    return left;
}

jnode *jinja_parse_expression(jparser *p, bool with_condition)
{
    deeper(p);
    jnode *n = parse_or(p);
    while (with_condition && jinja_skip_name(p, "if")) {
        jnode *cond = jinja_node(p, N_COND);
        cond->a = n;
        cond->b = parse_or(p);
        cond->c = jinja_skip_name(p, "else") ? jinja_parse_expression(p, true) : NULL;
        n = cond;
    }
    p->depth--;
    return n;
}

static bool ends_tuple(const jparser *p, const char *stop)
{
    jtoken_kind k = p->token->kind;
    return k == T_PRINT_END || k == T_BLOCK_END || k == T_END || jinja_is_op(p, ')') || (stop && jinja_is_name(p, stop));
}

jnode *jinja_parse_tuple(jparser *p, bool with_condition, const char *stop)
{
    jnode *first = jinja_parse_expression(p, with_condition);
    if (!jinja_is_op(p, ',')) return first;
    jnode *n = jinja_node(p, N_TUPLE);
    jinja_nodes_add(p, &n->list, first);
    while (jinja_skip_op(p, ',') && !ends_tuple(p, stop)) jinja_nodes_add(p, &n->list, jinja_parse_expression(p, with_condition));
    return n;
}

static jnode *parse_one_target(jparser *p, bool with_namespace)
{
    if (jinja_skip_op(p, '(')) {
        jnode *n = jinja_parse_target(p, NULL, false);
        jinja_expect_op(p, ')');
        return n;
    }
    const jstr *name = jinja_expect_name(p);
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < 6; i++)
        if (jstr_is(name, reserved[i])) jinja_fail(p->m, VLM_FORMAT, "cannot assign to '%s'", reserved[i]);
    if (with_namespace && jinja_skip_op(p, '.')) {
        jnode *n = jinja_node(p, N_NSREF), *of = jinja_node(p, N_NAME);
        of->name = name;
        n->a = of;
        n->name = jinja_expect_name(p);
        return n;
    }
    jnode *n = jinja_node(p, N_NAME);
    n->name = name;
    return n;
}

jnode *jinja_parse_target(jparser *p, const char *stop, bool with_namespace)
{
    deeper(p);
    jnode *n = parse_one_target(p, with_namespace);
    if (jinja_is_op(p, ',')) {
        jnode *tuple = jinja_node(p, N_TUPLE);
        jinja_nodes_add(p, &tuple->list, n);
        while (jinja_skip_op(p, ',') && !ends_tuple(p, stop) && !jinja_is_op(p, '=')) jinja_nodes_add(p, &tuple->list, parse_one_target(p, with_namespace));
        n = tuple;
    }
    p->depth--;
    return n;
}

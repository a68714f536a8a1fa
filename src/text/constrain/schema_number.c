/* schema_number.c - which spellings of a JSON number a schema admits, as an automaton over bytes.
 *
 * One walk of a simulated comparison: a state knows the sign, how many digits were read, how they compare so far with the lower and the upper
 * bound, and the remainder of the division by multipleOf. States that cannot end are taken out, so that a generator never walks into a number
 * that has no ending. Numbers with bounds or multipleOf have no exponent, integers no fraction: each value keeps a spelling, and the usual one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/constrain/schema_internal.h"

enum { NUMBER_MAX_STATES = 100000, NUMBER_MAX_DIVISOR = 20000 };

/* ---- decimals ---- */
bool schema_decimal(const json_t *number, schema_decimal_t *out)
{
    char text[64];
    if (json_is_integer(number)) {
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(number));
    } else {
        double v = json_real_value(number);
        if (!isfinite(v)) return false;
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof text, "%.*e", digits - 1, v);
            if (strtod(text, NULL) == v) break;
        }
    }
    *out = (schema_decimal_t){.negative = *text == '-'};
    char digit[64];
    int n = 0, point = -1;
    const char *s = text + out->negative;
    for (; *s && *s != 'e'; s++) {
        if (*s == '.') point = n;
        else digit[n++] = *s;
    }
    if (point < 0) point = n;
    if (*s == 'e') point += atoi(s + 1);
    int first = 0;
    while (first < n && digit[first] == '0') first++;
    while (n > first && digit[n - 1] == '0') n--;
    if (first == n) {
        out->negative = false;                     /* zero has no digits */
        return true;
    }
    out->whole = point > first ? point - first : 0;
    int zeros = point < first ? first - point : 0;     /* 0.00x: zeros after the point */
    out->fraction = zeros + (n > point ? n - (point > first ? point : first) : 0);
    if (out->whole + out->fraction > SCHEMA_DECIMAL_DIGITS) return false;
    memset(out->digit, '0', (size_t)(out->whole + out->fraction));
    memcpy(out->digit + (out->whole ? 0 : zeros), digit + first, (size_t)(n - first));
    return true;
}

static int magnitude_compare(const schema_decimal_t *a, const schema_decimal_t *b)
{
    if (a->whole != b->whole) return a->whole < b->whole ? -1 : 1;
    int n = a->fraction > b->fraction ? a->whole + a->fraction : b->whole + b->fraction;
    for (int i = 0; i < n; i++) {
        char x = i < a->whole + a->fraction ? a->digit[i] : '0', y = i < b->whole + b->fraction ? b->digit[i] : '0';
        if (x != y) return x < y ? -1 : 1;
    }
    return 0;
}

int schema_decimal_compare(const schema_decimal_t *a, const schema_decimal_t *b)
{
    if (a->negative != b->negative) return a->negative ? -1 : 1;
    int c = magnitude_compare(a, b);
    return a->negative ? -c : c;
}

/* ---- bounds and divisors of a conjunction ---- */
void schema_range_min(schema_range *r, const schema_decimal_t *v, bool exclusive)
{
    int c = r->has_min ? schema_decimal_compare(v, &r->min) : 1;
    if (c < 0 || (!c && (!exclusive || r->min_exclusive))) return;
    r->has_min = true;
    r->min = *v;
    r->min_exclusive = exclusive;
}

void schema_range_max(schema_range *r, const schema_decimal_t *v, bool exclusive)
{
    int c = r->has_max ? schema_decimal_compare(v, &r->max) : -1;
    if (c > 0 || (!c && (!exclusive || r->max_exclusive))) return;
    r->has_max = true;
    r->max = *v;
    r->max_exclusive = exclusive;
}

static uint64_t gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t c = a % b;
        a = b;
        b = c;
    }
    return a;
}

/* The multiples of several numbers are those of their least common multiple: divisor / 10^scale. */
bool schema_range_multiple(schema_range *r, const schema_decimal_t *v)
{
    if (v->negative || !(v->whole + v->fraction) || v->fraction > 15) return false;
    uint64_t m = 0, other = r->divisor;
    for (int i = 0; i < v->whole + v->fraction; i++) {
        if (m > UINT64_MAX / 100) return false;
        m = m * 10 + (uint64_t)(v->digit[i] - '0');
    }
    int scale = v->fraction;
    if (!other) {
        r->divisor = m;
        r->scale = scale;
    } else {
        for (; scale < r->scale; scale++, m *= 10)
            if (m > UINT64_MAX / 10) return false;
        for (; r->scale < scale; r->scale++, other *= 10)
            if (other > UINT64_MAX / 10) return false;
        m /= gcd(m, other);
        if (m > UINT64_MAX / other) return false;
        r->divisor = m * other;
    }
    return r->divisor <= NUMBER_MAX_DIVISOR;
}

/* ---- automata ---- */
bool dfa_edge_add(dfa *d, uint32_t from, uint32_t low, uint32_t high, uint32_t to)
{
    if (d->edges && d->edge[d->edges - 1].from == from && d->edge[d->edges - 1].to == to && d->edge[d->edges - 1].high + 1 == low) {
        d->edge[d->edges - 1].high = high;
        return true;
    }
    if (d->edges == d->capacity) {
        size_t n = d->capacity ? d->capacity * 2 : 64;
        dfa_edge *e = mem_resize(d->edge, n, sizeof *e);
        if (!e) return false;
        d->edge = e;
        d->capacity = n;
    }
    d->edge[d->edges++] = (dfa_edge){from, low, high, to};
    return true;
}

void dfa_free(dfa *d)
{
    mem_free(d->edge);
    mem_free(d->accept);
    *d = (dfa){0};
}

/* Takes out the states from which no accepting one is reached; states are renumbered, the start stays 0. No state left: d->states = 0. */
bool dfa_trim(dfa *d)
{
    uint32_t *first = MEM_ARRAY(d->states + 1, uint32_t), *next = MEM_ARRAY(d->edges + 1, uint32_t), *stack = MEM_ARRAY(d->states + 1, uint32_t);
    uint8_t *live = MEM_ARRAY(d->states + 1, uint8_t);
    bool ok = first && next && stack && live;
    if (!ok) goto done;
    for (size_t i = 0; i < d->edges; i++) {            /* edges by target */
        next[i] = first[d->edge[i].to];
        first[d->edge[i].to] = (uint32_t)i + 1;
    }
    size_t top = 0;
    for (uint32_t s = 0; s < d->states; s++)
        if (d->accept[s]) live[s] = 1, stack[top++] = s;
    while (top) {
        for (uint32_t e = first[stack[--top]]; e; e = next[e - 1]) {
            uint32_t from = d->edge[e - 1].from;
            if (!live[from]) live[from] = 1, stack[top++] = from;
        }
    }
    if (!live[0]) {
        d->states = 0;
        d->edges = 0;
        goto done;
    }
    uint32_t n = 0;
    for (uint32_t s = 0; s < d->states; s++) {
        stack[s] = n;                                  /* the new number */
        if (live[s]) d->accept[n++] = d->accept[s];
    }
    size_t kept = 0;
    for (size_t i = 0; i < d->edges; i++) {
        dfa_edge e = d->edge[i];
        if (live[e.from] && live[e.to]) d->edge[kept++] = (dfa_edge){stack[e.from], e.low, e.high, stack[e.to]};
    }
    d->edges = kept;
    d->states = n;
done:
    mem_free(first);
    mem_free(next);
    mem_free(stack);
    mem_free(live);
    return ok;
}

/* ---- the walk ---- */
enum { AT_START, AT_SIGN, AT_ZERO, AT_WHOLE, AT_POINT, AT_FRACTION, AT_E, AT_E_SIGN, AT_E_DIGITS };

typedef struct num_state {
    uint8_t phase, negative;
    int8_t low, high;              /* the digits read, compared with the bounds' first digits */
    uint16_t whole, fraction;      /* digits read, up to where they matter */
    uint32_t rest;                 /* of the division by the divisor, of the digits read */
} num_state;

typedef struct num_walk {
    const schema_range *range;
    bool integer, free;            /* free: neither bounds nor divisor */
    const schema_decimal_t *low, *high;   /* of the magnitude, for the sign that is being walked; NULL: none */
    bool low_exclusive, high_exclusive;
    int digits, places;            /* where counting digits before and after the point stops */
    num_state *state;
    uint32_t *slot;
    size_t slots;
    uint32_t count, capacity;
    dfa *out;
    bool failed, full;
} num_walk;

static uint32_t num_intern(num_walk *w, num_state s)
{
    if (w->count * 2 >= w->slots || w->count == w->capacity) {
        size_t n = w->slots ? w->slots * 2 : 256;
        uint32_t *slot = MEM_ARRAY(n, uint32_t);
        num_state *state = mem_resize(w->state, n, sizeof *state);
        if (state) w->state = state, w->capacity = (uint32_t)n;
        if (!slot || !state) {
            mem_free(slot);
            w->failed = true;
            return 0;
        }
        mem_free(w->slot);
        w->slot = slot;
        w->slots = n;
        for (uint32_t k = 0; k < w->count; k++) {
            const num_state *o = &w->state[k];
            size_t h = (o->phase * 31u + o->negative * 7u + (uint32_t)(o->low + 1) * 131u + (uint32_t)(o->high + 1) * 1031u + o->whole * 65599u + o->fraction * 9973u + o->rest) * 0x9E3779B97F4A7C15u >> 32;
            for (h &= n - 1; slot[h]; h = (h + 1) & (n - 1)) {}
            slot[h] = k + 1;
        }
    }
    size_t h = (s.phase * 31u + s.negative * 7u + (uint32_t)(s.low + 1) * 131u + (uint32_t)(s.high + 1) * 1031u + s.whole * 65599u + s.fraction * 9973u + s.rest) * 0x9E3779B97F4A7C15u >> 32;
    for (h &= w->slots - 1; w->slot[h]; h = (h + 1) & (w->slots - 1)) {
        const num_state *o = &w->state[w->slot[h] - 1];
        if (o->phase == s.phase && o->negative == s.negative && o->low == s.low && o->high == s.high && o->whole == s.whole && o->fraction == s.fraction &&
            o->rest == s.rest) return w->slot[h] - 1;
    }
    if (w->count >= NUMBER_MAX_STATES) {
        w->full = true;
        return 0;
    }
    w->state[w->count] = s;
    w->slot[h] = ++w->count;
    return w->count - 1;
}

/* The bounds of the magnitude when the number has this sign; false: no number of this sign is in the range. */
static bool num_side(num_walk *w, bool negative)
{
    const schema_range *r = w->range;
    w->low = w->high = NULL;
    if (negative) {
        if (r->has_min && !r->min.negative) return false;
        if (r->has_min) w->high = &r->min, w->high_exclusive = r->min_exclusive;
        if (r->has_max && (r->max.negative || !(r->max.whole + r->max.fraction))) w->low = &r->max, w->low_exclusive = r->max_exclusive;
        return true;
    }
    if (r->has_max && r->max.negative) return false;
    if (r->has_max) w->high = &r->max, w->high_exclusive = r->max_exclusive;
    if (r->has_min && !r->min.negative) w->low = &r->min, w->low_exclusive = r->min_exclusive;
    return true;
}

static int8_t compare_whole(const schema_decimal_t *b, int8_t so_far, int n, char digit)
{
    if (!b) return 0;
    if (n >= b->whole) return 1;                       /* more digits than the bound has */
    return so_far ? so_far : (int8_t)(digit < b->digit[n] ? -1 : digit > b->digit[n]);
}

/* At the point: fewer digits are a smaller number. */
static int8_t compare_point(const schema_decimal_t *b, int8_t so_far, int n)
{
    return !b ? 0 : n < b->whole ? -1 : so_far;
}

static int8_t compare_fraction(const schema_decimal_t *b, int8_t so_far, int n, char digit)
{
    if (!b || so_far) return so_far;
    char other = n < b->fraction ? b->digit[b->whole + n] : '0';
    return (int8_t)(digit < other ? -1 : digit > other);
}

static num_state num_point(const num_walk *w, num_state s)
{
    s.low = compare_point(w->low, s.low, s.whole);
    s.high = compare_point(w->high, s.high, s.whole);
    s.whole = 0;
    return s;
}

static bool num_accepts(const num_walk *w, num_state s)
{
    if (s.phase == AT_E_DIGITS) return true;
    if (s.phase != AT_ZERO && s.phase != AT_WHOLE && s.phase != AT_FRACTION) return false;
    if (s.phase != AT_FRACTION) s = num_point(w, s);
    if (w->low && !s.low && s.fraction < w->low->fraction) s.low = -1;
    if (w->high && !s.high && s.fraction < w->high->fraction) s.high = -1;
    if (w->low && (s.low < 0 || (!s.low && w->low_exclusive))) return false;
    if (w->high && (s.high > 0 || (!s.high && w->high_exclusive))) return false;
    if (w->range->divisor) {
        uint64_t rest = s.rest;
        for (int i = s.fraction; i < w->range->scale; i++) rest = rest * 10 % w->range->divisor;
        if (rest) return false;
    }
    return true;
}

/* Adds a digit; false: it cannot stand here. */
static bool num_digit(const num_walk *w, num_state *s, char digit)
{
    uint32_t m = (uint32_t)w->range->divisor;
    switch (s->phase) {
    case AT_START: case AT_SIGN:
        s->phase = digit == '0' ? AT_ZERO : AT_WHOLE;
        if (digit == '0') return true;                 /* zero: no digits */
        break;
    case AT_WHOLE: break;
    case AT_POINT: case AT_FRACTION:
        if (m && s->fraction >= w->range->scale && digit != '0') return false;
        if (m && s->fraction < w->range->scale) s->rest = (uint32_t)((s->rest * 10u + (uint32_t)(digit - '0')) % m);
        s->phase = AT_FRACTION;
        s->low = compare_fraction(w->low, s->low, s->fraction, digit);
        s->high = compare_fraction(w->high, s->high, s->fraction, digit);
        if (s->fraction < w->places) s->fraction++;
        return !(w->high && s->high > 0);
    case AT_E: case AT_E_SIGN: case AT_E_DIGITS:
        s->phase = AT_E_DIGITS;
        return true;
    default: return false;
    }
    s->low = compare_whole(w->low, s->low, s->whole, digit);
    s->high = compare_whole(w->high, s->high, s->whole, digit);
    if (m) s->rest = (uint32_t)(((uint64_t)s->rest * 10 + (uint64_t)(digit - '0')) % m);
    if (s->whole < w->digits) s->whole++;
    return !(w->high && s->high > 0 && s->whole >= w->high->whole);
}

static bool num_step(const num_walk *w, num_state *s, char c)
{
    bool number = s->phase == AT_ZERO || s->phase == AT_WHOLE || s->phase == AT_FRACTION;
    if (c >= '0' && c <= '9') return num_digit(w, s, c);
    if (c == '-' || c == '+') {
        if (s->phase == AT_E) s->phase = AT_E_SIGN;
        else if (s->phase == AT_START && c == '-') s->phase = AT_SIGN, s->negative = 1;
        else return false;
        return true;
    }
    if (c == '.' && !w->integer && number && s->phase != AT_FRACTION) {
        *s = num_point(w, *s);
        s->phase = AT_POINT;
        return true;
    }
    if ((c == 'e' || c == 'E') && !w->integer && w->free && number) {
        *s = (num_state){.phase = AT_E, .negative = s->negative};
        return true;
    }
    return false;
}

static int max_of(int a, int b) { return a > b ? a : b; }

bool schema_number_dfa(const schema_range *r, bool integer, dfa *out, vlm_error *error)
{
    static const char symbols[] = "+-.0123456789Ee";
    num_walk w = {.range = r, .integer = integer, .free = !r->has_min && !r->has_max && !r->divisor, .out = out};
    *out = (dfa){0};
    w.digits = max_of(r->has_min ? r->min.whole + 1 : 0, r->has_max ? r->max.whole + 1 : 0);
    w.places = max_of(max_of(r->has_min ? r->min.fraction + 1 : 0, r->has_max ? r->max.fraction + 1 : 0), r->divisor ? r->scale + 1 : 0);
    num_intern(&w, (num_state){0});
    for (uint32_t i = 0; i < w.count && !w.failed && !w.full; i++) {
        for (const char *c = symbols; *c; c++) {
            num_state s = w.state[i];
            bool negative = s.negative || (s.phase == AT_START && *c == '-');
            if (!num_side(&w, negative) || !num_step(&w, &s, *c)) continue;
            uint32_t to = num_intern(&w, s);
            if (!dfa_edge_add(out, i, (uint8_t)*c, (uint8_t)*c, to)) w.failed = true;
        }
    }
    out->states = w.count;
    out->accept = MEM_ARRAY(w.count + 1, uint8_t);
    if (!out->accept) w.failed = true;
    for (uint32_t i = 0; i < w.count && !w.failed; i++) out->accept[i] = num_side(&w, w.state[i].negative) && num_accepts(&w, w.state[i]);
    mem_free(w.state);
    mem_free(w.slot);
    bool ok = !w.failed && !w.full && dfa_trim(out);
    if (ok) return true;
    dfa_free(out);
    return w.full ? err_set(error, VLM_LIMIT, "the range of numbers needs more than %d states", NUMBER_MAX_STATES) : err_memory(error, 0);
}

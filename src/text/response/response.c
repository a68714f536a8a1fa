/* response.c - response templates: loading, checking, regular expressions. See response.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/response/internal.h"

#include <pcre2.h>

enum { MATCH_LIMIT = 2000000, DEPTH_LIMIT = 100000, PATTERN_MAX = 1 << 16, FIELDS_MAX = 64 };

/* ---- regular expressions ---- */

struct pattern {
    pcre2_code *code;
    pcre2_match_context *context;
    pcre2_match_data *data;        /* of the last match; a template's patterns are used by one thread at a time */
    bool literal, can_extend;
};

static void add_literal(buf *out, const char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x80 && !is_letter(*text) && !is_digit(*text)) buf_addc(out, '\\');
        buf_addc(out, *text);
    }
}

/* Longest first, so that the longer of two that both stand there wins. */
static bool join_literals(const json_t *list, buf *out, bool *can_extend)
{
    size_t n = json_is_string(list) ? 1 : json_array_size(list), longest = 0;
    for (size_t i = 0; i < n; i++) {
        size_t size = json_string_length(json_is_string(list) ? list : json_array_get(list, i));
        if (size > longest) longest = size;
    }
    for (size_t want = longest; want > 0; want--)
        for (size_t i = 0; i < n; i++) {
            const json_t *item = json_is_string(list) ? list : json_array_get(list, i);
            if (json_string_length(item) != want) continue;
            if (out->size) buf_addc(out, '|');
            add_literal(out, json_string_value(item));
            for (size_t k = 0; k < n && !json_is_string(list); k++) {
                const char *other = json_string_value(json_array_get(list, k)), *text = json_string_value(item);
                if (strlen(other) > want && !strncmp(other, text, want)) *can_extend = true;
            }
        }
    return !out->failed;
}

/* Python's \Z is PCRE's \z. */
static bool translate(const char *source, buf *out)
{
    for (; *source; source++) {
        buf_addc(out, *source);
        if (*source != '\\' || !source[1]) continue;
        source++;
        buf_addc(out, *source == 'Z' ? 'z' : *source);
    }
    return !out->failed;
}

pattern *pattern_new(const char *scope, const char *source, const json_t *literals, vlm_error *error)
{
    pattern *p = MEM_NEW(pattern);
    buf text = {.limit = PATTERN_MAX};
    bool extend = false;
    if (!p || !(literals ? join_literals(literals, &text, &extend) : translate(source, &text)) || !buf_adds(&text, "")) {
        err_set(error, VLM_LIMIT, "%s: pattern too long", scope);
        goto fail;
    }
    p->literal = literals != NULL;
    p->can_extend = extend;
    int code;
    PCRE2_SIZE offset;
    p->code = pcre2_compile((PCRE2_SPTR)text.data, text.size, PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL | PCRE2_NEVER_BACKSLASH_C | PCRE2_DUPNAMES, &code, &offset, NULL);
    if (!p->code) {
        PCRE2_UCHAR message[128];
        pcre2_get_error_message(code, message, sizeof message);
        err_set(error, VLM_FORMAT, "%s: invalid pattern: %s at %zu of %.200s", scope, (const char *)message, (size_t)offset, text.data);
        goto fail;
    }
    p->context = pcre2_match_context_create(NULL);
    p->data = pcre2_match_data_create_from_pattern(p->code, NULL);
    if (!p->context || !p->data) {
        err_memory(error, 0);
        goto fail;
    }
    pcre2_set_match_limit(p->context, MATCH_LIMIT);
    pcre2_set_depth_limit(p->context, DEPTH_LIMIT);
    buf_free(&text);
    return p;
fail:
    buf_free(&text);
    pattern_free(p);
    return NULL;
}

void pattern_free(pattern *p)
{
    if (!p) return;
    pcre2_code_free(p->code);
    pcre2_match_context_free(p->context);
    pcre2_match_data_free(p->data);
    mem_free(p);
}

bool pattern_find(const pattern *p, const char *text, size_t size, size_t start, bool partial, pattern_hit *hit, vlm_error *error)
{
    int rc = pcre2_match(p->code, (PCRE2_SPTR)(text ? text : ""), size, start, PCRE2_NO_UTF_CHECK | (partial ? PCRE2_PARTIAL_SOFT : 0), p->data, p->context);
    *hit = (pattern_hit){.found = rc > 0 || rc == PCRE2_ERROR_PARTIAL, .partial = rc == PCRE2_ERROR_PARTIAL};
    if (hit->found) {
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(p->data);
        hit->from = o[0] <= size ? o[0] : size;
        hit->to = hit->partial ? size : o[1];
        if (hit->to < hit->from) hit->to = hit->from;
        if (hit->from < start) hit->from = start;
        return true;
    }
    return rc == PCRE2_ERROR_NOMATCH || err_set(error, VLM_LIMIT, "response_template: a pattern takes too long (%d)", rc);
}

void pattern_groups(const pattern *p, const char *text, void (*add)(void *user, const char *name, const char *text, size_t size), void *user)
{
    uint32_t count = 0, entry = 0;
    PCRE2_SPTR table;
    pcre2_pattern_info(p->code, PCRE2_INFO_NAMECOUNT, &count);
    pcre2_pattern_info(p->code, PCRE2_INFO_NAMEENTRYSIZE, &entry);
    pcre2_pattern_info(p->code, PCRE2_INFO_NAMETABLE, &table);
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(p->data);
    for (uint32_t i = 0; i < count; i++, table += entry) {
        int group = table[0] << 8 | table[1];
        if (o[2 * group] == PCRE2_UNSET || o[2 * group + 1] < o[2 * group]) continue;
        add(user, (const char *)table + 2, text + o[2 * group], o[2 * group + 1] - o[2 * group]);
    }
}

bool pattern_has_groups(const pattern *p)
{
    uint32_t count = 0;
    if (p) pcre2_pattern_info(p->code, PCRE2_INFO_NAMECOUNT, &count);
    return count > 0;
}

bool pattern_can_extend(const pattern *p) { return !p->literal || p->can_extend; }

/* ---- loading ---- */

static bool check_literals(const char *scope, const char *key, const json_t *value, vlm_error *error)
{
    if (json_is_string(value) && json_string_length(value)) return true;
    bool ok = json_array_size(value) > 0;
    for (size_t i = 0; i < json_array_size(value); i++) ok &= json_string_length(json_array_get(value, i)) > 0;
    return ok || err_set(error, VLM_FORMAT, "%s: '%s' must be a text or a list of texts that are not empty", scope, key);
}

/* An anchor is a pattern, a text, or a list of texts; *out stays NULL when there is none. */
static bool load_anchor(const char *scope, const json_t *object, const char *key, const char *pattern_key, pattern **out, vlm_error *error)
{
    const json_t *literal = json_object_get(object, key), *source = json_object_get(object, pattern_key);
    if (literal && source) return err_set(error, VLM_FORMAT, "%s: both '%s' and '%s'", scope, key, pattern_key);
    if (literal) return check_literals(scope, key, literal, error) && (*out = pattern_new(scope, NULL, literal, error)) != NULL;
    if (!source) return true;
    if (!json_is_string(source)) return err_set(error, VLM_FORMAT, "%s: '%s' must be a text", scope, pattern_key);
    return (*out = pattern_new(scope, json_string_value(source), NULL, error)) != NULL;
}

static bool known_keys(const char *scope, const json_t *object, const char *const *known, vlm_error *error)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        int i = 0;
        while (known[i] && strcmp(known[i], key)) i++;
        if (!known[i]) return err_set(error, VLM_FORMAT, "%s: unknown key '%s'", scope, key);
    }
    return true;
}

static bool load_field(response_field_spec *f, const char *name, const json_t *spec, vlm_error *error)
{
    static const char *const known[] = {"open", "open_pattern", "close", "close_pattern", "content", "content_args", "repeats", "join", "optional", "transform",
                                        "transform_each", NULL};
    char scope[128];
    snprintf(scope, sizeof scope, "response_template field '%.80s'", name);
    if (!json_is_object(spec)) return err_set(error, VLM_FORMAT, "%s must be an object", scope);
    if (!known_keys(scope, spec, known, error)) return false;
    if (!(f->name = mem_strdup(name))) return err_memory(error, 0);
    const json_t *content = json_object_get(spec, "content"), *join = json_object_get(spec, "join"), *each = json_object_get(spec, "transform_each");
    f->content = content ? json_string_value(content) : "text";
    if (!f->content || !response_content_known(f->content)) return err_set(error, VLM_FORMAT, "%s: unknown content '%.60s'", scope, f->content ? f->content : "");
    if (!load_anchor(scope, spec, "open", "open_pattern", &f->open, error) || !load_anchor(scope, spec, "close", "close_pattern", &f->close, error)) return false;
    f->args = json_object_get(spec, "content_args");
    f->repeats = json_is_true(json_object_get(spec, "repeats"));
    f->optional = !json_is_false(json_object_get(spec, "optional"));
    f->transform = json_object_get(spec, "transform");
    if (json_is_null(f->transform)) f->transform = NULL;
    f->transform_each = json_is_true(each);
    if (join && !json_is_null(join) && !json_is_string(join)) return err_set(error, VLM_FORMAT, "%s: 'join' must be a text", scope);
    if (json_is_string(join) && !f->repeats) return err_set(error, VLM_FORMAT, "%s: 'join' needs 'repeats': true", scope);
    if (json_is_string(join) && !(f->join = mem_strdup(json_string_value(join)))) return err_memory(error, 0);
    if (each && !json_is_boolean(each)) return err_set(error, VLM_FORMAT, "%s: transform_each must be a boolean", scope);
    if (f->transform_each && !f->transform) return err_set(error, VLM_FORMAT, "%s: transform_each without transform", scope);
    if (f->transform && !response_check_transform(scope, f->transform, error)) return false;
    if (!f->transform && (pattern_has_groups(f->open) || pattern_has_groups(f->close)))
        return err_set(error, VLM_FORMAT, "%s: its patterns name groups, but it has no 'transform'", scope);
    const char *tag = json_string_value(json_object_get(f->args, "tag_pattern"));
    if (!strcmp(f->content, "xml-inline")) {
        if (!tag) return err_set(error, VLM_FORMAT, "%s: xml-inline needs content_args.tag_pattern", scope);
        if (!(f->tag = pattern_new(scope, tag, NULL, error))) return false;
    }
    return true;
}

static bool load(response_template *t, vlm_error *error)
{
    static const char *const known[] = {"version", "defaults", "fields", "start_anchor", "start_anchor_pattern", NULL};
    const json_t *version = json_object_get(t->spec, "version"), *defaults = json_object_get(t->spec, "defaults");
    json_t *fields = json_object_get(t->spec, "fields"), *spec;
    if (!json_is_object(t->spec)) return err_set(error, VLM_FORMAT, "response_template must be an object");
    if (version && json_integer_value(version) != 1) return err_set(error, VLM_UNSUPPORTED, "response_template: unknown version");
    if (!known_keys("response_template", t->spec, known, error)) return false;
    if (defaults && !json_is_object(defaults)) return err_set(error, VLM_FORMAT, "response_template.defaults must be an object");
    if (!json_object_size(fields) || json_object_size(fields) > FIELDS_MAX)
        return err_set(error, VLM_FORMAT, "response_template.fields must be an object with 1 to %d fields", FIELDS_MAX);
    if (!(t->field = MEM_ARRAY(json_object_size(fields), response_field_spec))) return err_memory(error, 0);
    const char *name;
    t->implicit = -1;
    json_object_foreach(fields, name, spec) {
        size_t i = t->count++;
        if (!load_field(&t->field[i], name, spec, error)) return false;
        if (t->field[i].open) continue;
        if (t->implicit >= 0) return err_set(error, VLM_FORMAT, "response_template: more than one field without 'open' or 'open_pattern'");
        t->implicit = (int)i;
    }
    if (!load_anchor("response_template", t->spec, "start_anchor", "start_anchor_pattern", &t->anchor, error)) return false;
    return t->anchor || err_set(error, VLM_FORMAT, "response_template: start_anchor or start_anchor_pattern is missing");
}

response_template *response_template_new(const json_t *spec, vlm_error *error)
{
    response_template *t = MEM_NEW(response_template);
    if (!t || !(t->spec = json_deep_copy(spec))) {
        mem_free(t);
        return err_memory(error, 0), NULL;
    }
    if (load(t, error)) return t;
    response_template_free(t);
    return NULL;
}

void response_template_free(response_template *t)
{
    if (!t) return;
    for (size_t i = 0; i < t->count; i++) {
        mem_free(t->field[i].name);
        mem_free(t->field[i].join);
        pattern_free(t->field[i].open);
        pattern_free(t->field[i].close);
        pattern_free(t->field[i].tag);
    }
    mem_free(t->field);
    pattern_free(t->anchor);
    json_decref(t->spec);
    mem_free(t);
}

/* schema_string.c - what a schema says of one string, as a set of strings: pattern, length, format, exclusions. */
#include <string.h>

#include "text/constrain/schema_internal.h"

enum { STRING_MAX_LENGTH = 20000 };

lang schema_pattern(schema_c *c, const json_t *node, const char *keyword, const char *pattern, size_t size)
{
    vlm_error error = {0};
    lang made = lang_regex(c->lang, pattern, size, true, &error);
    if (!made) schema_refuse(c, error.code ? error.code : VLM_LIMIT, node, keyword, "%s", *error.message ? error.message : "the pattern is too large");
    return made;
}

/* ---- formats ---- */
#define YEAR "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define DATE "(" YEAR "-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|" \
             "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
#define TIME "(([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])|23:59:60(\\.[0-9]+)?([Zz]|[+-]00:00))"
#define BYTE "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define IPV4 BYTE "\\." BYTE "\\." BYTE "\\." BYTE
#define H16 "[0-9A-Fa-f]{1,4}"
#define LS32 "(" H16 ":" H16 "|" IPV4 ")"
#define IPV6 "((" H16 ":){6}" LS32 "|::(" H16 ":){5}" LS32 "|(" H16 ")?::(" H16 ":){4}" LS32 "|((" H16 ":){0,1}" H16 ")?::(" H16 ":){3}" LS32 \
             "|((" H16 ":){0,2}" H16 ")?::(" H16 ":){2}" LS32 "|((" H16 ":){0,3}" H16 ")?::" H16 ":" LS32 "|((" H16 ":){0,4}" H16 ")?::" LS32 \
             "|((" H16 ":){0,5}" H16 ")?::" H16 "|((" H16 ":){0,6}" H16 ")?::)"
#define LABEL "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define HOSTNAME LABEL "(\\." LABEL ")*"
#define ATEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define ATEXT_ANY "([A-Za-z0-9!#$%&'*+/=?^_`{|}~-]|[^\\x00-\\x7F])+"
#define PCT "%[0-9A-Fa-f]{2}"
/* RFC 3986, or with other characters than ASCII (U) RFC 3987 */
#define CHARS(U, more) "([A-Za-z0-9._~!$&'()*+,;=" more "-]|" PCT U ")"
#define PCHAR(U) CHARS(U, ":@")
#define HOST(U) "(\\[(" IPV6 "|[Vv][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]|" CHARS(U, "") "*)"
#define AUTHORITY(U) "(" CHARS(U, ":") "*@)?" HOST(U) "(:[0-9]*)?"
#define TAIL(U) "(\\?" CHARS(U, ":@/?") "*)?(#" CHARS(U, ":@/?") "*)?"
#define SCHEME "[A-Za-z][A-Za-z0-9+.-]*:"
#define ABEMPTY(U) "(/" PCHAR(U) "*)*"
#define HIER(U) "(//" AUTHORITY(U) ABEMPTY(U) "|/(" PCHAR(U) "+" ABEMPTY(U) ")?|" PCHAR(U) "+" ABEMPTY(U) "|)"
#define RELATIVE(U) "(//" AUTHORITY(U) ABEMPTY(U) "|/(" PCHAR(U) "+" ABEMPTY(U) ")?|" CHARS(U, "@") "+" ABEMPTY(U) "|)"
#define OTHER "|[^\\x00-\\x7F]"

static const struct { const char *name, *pattern; } formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "[Tt]" TIME},
    {"duration", "P([0-9]+W|([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)(T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))?|"
                 "T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))"},
    {"email", "(" ATEXT "(\\." ATEXT ")*|\"([ !#-\\[\\]-~]|\\\\[ -~])*\")@(" HOSTNAME "|\\[" IPV4 "\\])"},
    {"idn-email", "(" ATEXT_ANY "(\\." ATEXT_ANY ")*)@([A-Za-z0-9-]|[^\\x00-\\x7F])+(\\.([A-Za-z0-9-]|[^\\x00-\\x7F])+)*"},
    {"hostname", HOSTNAME},
    {"ipv4", IPV4},
    {"ipv6", IPV6},
    {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
    {"uri", SCHEME HIER("") TAIL("")},
    {"uri-reference", "(" SCHEME HIER("") "|" RELATIVE("") ")" TAIL("")},
    {"iri", SCHEME HIER(OTHER) TAIL(OTHER)},
    {"iri-reference", "(" SCHEME HIER(OTHER) "|" RELATIVE(OTHER) ")" TAIL(OTHER)},
    {"json-pointer", "(/([^/~]|~[01])*)*"},
    {"relative-json-pointer", "(0|[1-9][0-9]*)(#|(/([^/~]|~[01])*)*)"},
    {"byte", "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"},
};

/* A format that no standard names is a remark, as the specification has it. */
lang schema_format(schema_c *c, const json_t *node, const char *name)
{
    static const char *const refused[] = {"idn-hostname", "uri-template", "regex"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name)) continue;
        vlm_error error = {0};
        lang made = lang_regex(c->lang, formats[i].pattern, strlen(formats[i].pattern), false, &error);
        if (!made) schema_refuse(c, VLM_INTERNAL, node, "format", "%s", error.message);
        return made;
    }
    for (size_t i = 0; i < 3; i++)
        if (!strcmp(refused[i], name)) return schema_refuse(c, VLM_UNSUPPORTED, node, "format", "\"%s\" cannot be enforced", name);
    return lang_any(c->lang);
}

/* ---- one string ---- */
static lang excluded(schema_c *c, const json_t *node)
{
    const json_t *one = json_object_get(node, "const"), *list = json_object_get(node, "enum"), *pattern = json_object_get(node, "pattern");
    if (!one && !list) return lang_not(c->lang, schema_pattern(c, node, "pattern", json_string_value(pattern), json_string_length(pattern)));
    lang all = lang_any(c->lang);
    for (size_t i = 0; i < (one ? 1 : json_array_size(list)); i++) {
        const json_t *v = one ? one : json_array_get(list, i);
        if (json_is_string(v)) all = lang_and(c->lang, all, lang_not(c->lang, lang_text(c->lang, json_string_value(v), json_string_length(v))));
    }
    return all;
}

lang schema_string_lang(schema_c *c, const schema_view *v, const schema_merged *m)
{
    lang all = lang_any(c->lang);
    for (uint32_t i = 0; i < v->count && all; i++) {
        const json_t *node = v->atom[i].node;
        if (v->atom[i].negated) {
            all = lang_and(c->lang, all, excluded(c, node));
            continue;
        }
        const json_t *pattern = json_object_get(node, "pattern"), *format = json_object_get(node, "format");
        if (pattern && !json_is_string(pattern)) return schema_refuse(c, VLM_INVALID, node, "pattern", "a string was expected");
        if (pattern) all = lang_and(c->lang, all, schema_pattern(c, node, "pattern", json_string_value(pattern), json_string_length(pattern)));
        if (json_is_string(format)) all = lang_and(c->lang, all, schema_format(c, node, json_string_value(format)));
    }
    if (m->min_length > m->max_length) return lang_fail(c->lang);
    bool bounded = m->max_length != UINT64_MAX;
    if (all && all != lang_any(c->lang) && (m->min_length > STRING_MAX_LENGTH || (bounded && m->max_length > STRING_MAX_LENGTH))) {
        const json_t *node = v->count ? v->atom[0].node : c->doc.root;
        return schema_refuse(c, VLM_UNSUPPORTED, node, bounded ? "maxLength" : "minLength", "together with a pattern or format, lengths up to %d can be enforced", STRING_MAX_LENGTH);
    }
    if (all && (m->min_length || bounded)) {
        lang any = lang_class(c->lang, NULL, 0, true);
        uint32_t least = m->min_length < LANG_MANY ? (uint32_t)m->min_length : LANG_MANY - 1, most = m->max_length < LANG_MANY ? (uint32_t)m->max_length : LANG_MANY;
        all = lang_and(c->lang, all, lang_repeat(c->lang, any, least, most));
    }
    if (!all && !c->failed) {
        vlm_error error = {0};
        lang_failed(c->lang, &error);
        schema_refuse(c, error.code ? error.code : VLM_LIMIT, v->count ? v->atom[0].node : c->doc.root, NULL, "%s", *error.message ? error.message : "the strings are too complex");
    }
    return all;
}

/* ---- the strings of a set (propertyNames) ---- */
typedef struct set_lang { lang all; } set_lang;

static bool add_view_lang(schema_c *c, const schema_view *v, void *user)
{
    set_lang *s = user;
    schema_merged m;
    if (!(v->types & TYPE_STRING)) return true;
    schema_view strings = *v;
    strings.types &= TYPE_STRING;
    if (!schema_merge(c, &strings, &m)) return false;
    lang one = lang_fail(c->lang);
    if (m.values) {
        const json_t *single = json_object_get(m.values, "const"), *list = json_object_get(m.values, "enum");
        for (size_t i = 0; i < (single ? 1 : json_array_size(list)); i++) {
            const json_t *value = single ? single : json_array_get(list, i);
            bool ok = json_is_string(value);
            for (uint32_t k = 0; k < v->count && ok; k++) {
                int answer = v->atom[k].negated ? 1 : schema_value_ok(c, v->atom[k].node, value, 0);
                if (answer < 0) return false;
                ok = answer;
            }
            if (ok) one = lang_alt(c->lang, one, lang_text(c->lang, json_string_value(value), json_string_length(value)));
        }
    } else if (m.types & TYPE_STRING) {
        one = schema_string_lang(c, v, &m);
    }
    s->all = lang_alt(c->lang, s->all, one);
    return s->all != LANG_NONE;
}

lang schema_set_lang(schema_c *c, const schema_set *set)
{
    for (uint32_t i = 0; i < set->count; i++)
        if (json_is_false(set->node[i])) return lang_fail(c->lang);
    set_lang s = {lang_fail(c->lang)};
    if (!schema_views(c, set, add_view_lang, &s)) return LANG_NONE;
    return s.all;
}

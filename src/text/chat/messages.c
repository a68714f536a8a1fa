/* messages.c - what clients send becomes what templates expect; media parts are collected on the way. */
#include <string.h>

#include "text/chat/internal.h"

enum { MAX_MESSAGES = 100000, MAX_PARTS = 100000 };

void chat_list_free(chat_list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        mem_free(l->item[i].source);
        json_decref(l->item[i].options);
    }
    mem_free(l->item);
    *l = (chat_list){0};
}

static bool add_media(chat_list *l, chat_media media, vlm_error *error)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 8;
        chat_media *grown = mem_resize(l->item, capacity, sizeof *grown);
        if (!grown) {
            mem_free(media.source);
            json_decref(media.options);
            return err_memory(error, capacity * sizeof *grown);
        }
        l->item = grown;
        l->capacity = capacity;
    }
    l->item[l->count++] = media;
    return true;
}

/* ---- parts ---- */

typedef enum part_kind { PART_TEXT, PART_MEDIA, PART_KEPT, PART_UNKNOWN } part_kind;

static const struct { const char *type; part_kind kind; media_kind media; } part_types[] = {
    {"text", PART_TEXT, 0}, {"input_text", PART_TEXT, 0}, {"output_text", PART_TEXT, 0}, {"refusal", PART_TEXT, 0},
    {"image", PART_MEDIA, MEDIA_IMAGE}, {"image_url", PART_MEDIA, MEDIA_IMAGE}, {"input_image", PART_MEDIA, MEDIA_IMAGE},
    {"video", PART_MEDIA, MEDIA_VIDEO}, {"video_url", PART_MEDIA, MEDIA_VIDEO}, {"input_video", PART_MEDIA, MEDIA_VIDEO},
    {"audio", PART_MEDIA, MEDIA_AUDIO}, {"audio_url", PART_MEDIA, MEDIA_AUDIO}, {"input_audio", PART_MEDIA, MEDIA_AUDIO},
    {"thinking", PART_KEPT, 0}, {"reasoning", PART_KEPT, 0},
};

/* Names under which a part holds its source, best first; the kind's own name and spellings come before. */
static const char *const source_keys[3][4] = {
    {"image", "image_url", "input_image", NULL}, {"video", "video_url", "input_video", NULL}, {"audio", "input_audio", "audio_url", NULL}};
static const char *const common_keys[] = {"url", "path", "base64", "data", NULL};

/* A text that may be a reference or base64 becomes a reference. */
static char *as_source(const char *text, const char *key, media_kind kind, const char *format)
{
    bool reference = strncmp(text, "data:", 5) == 0 || strstr(text, "://") != NULL;
    if (reference || (strcmp(key, "base64") != 0 && strcmp(key, "data") != 0)) return mem_strdup(text);
    static const char *const types[] = {"image/*", "video/*", "audio/*"};
    if (format && strlen(format) < 16) return mem_printf("data:%.5s/%s;base64,%s", types[kind], format, text);
    return mem_printf("data:%s;base64,%s", types[kind], text);
}

/* The source of a media part: a string, or an object {"url"} or {"data", "format"}. *used: the part's member that held it. */
static bool find_source(const json_t *part, media_kind kind, char **source, const char **used, vlm_error *error)
{
    const json_t *value = NULL;
    for (int i = 0; !value && source_keys[kind][i]; i++) value = json_object_get(part, *used = source_keys[kind][i]);
    for (int i = 0; !value && common_keys[i]; i++) value = json_object_get(part, *used = common_keys[i]);
    if (!value || json_is_null(value)) return true;
    const char *key = *used, *format = NULL;
    if (json_is_object(value)) {
        const json_t *inner = value;
        format = json_string_value(json_object_get(inner, "format"));
        value = NULL;
        for (int i = 0; !value && common_keys[i]; i++) value = json_object_get(inner, key = common_keys[i]);
    }
    if (json_is_array(value)) return err_set(error, VLM_UNSUPPORTED, "a list of frames as a %s; give one file, URL or folder", media_kind_name(kind));
    if (!json_is_string(value)) return err_set(error, VLM_INVALID, "the %s has no source: \"%s\" must be a string or {\"url\": ...}", media_kind_name(kind), *used);
    *source = as_source(json_string_value(value), key, kind, format);
    return *source || err_memory(error, 0);
}

/* Members of a media part that are options (num_frames, detail ...), including those beside a nested url. */
static json_t *part_options(const json_t *part, const char *used)
{
    json_t *out = json_object(), *value;
    const char *key;
    json_object_foreach((json_t *)part, key, value) {
        if (strcmp(key, "type") == 0 || strcmp(key, "text") == 0) continue;
        if (strcmp(key, used) != 0) json_object_set(out, key, value);
        else if (json_is_object(value)) {
            const char *inner;
            json_t *v;
            json_object_foreach(value, inner, v)
                if (strcmp(inner, "url") != 0 && strcmp(inner, "data") != 0 && strcmp(inner, "path") != 0 && strcmp(inner, "base64") != 0)
                    json_object_set(out, inner, v);
        }
    }
    return out;
}

/* The spelling of a media part that the template looks for. */
static const char *type_for(const jinja *j, media_kind kind)
{
    static const char *const spellings[3][3] = {{"image", "image_url", "input_image"}, {"video", "video_url", "input_video"},
                                                {"audio", "input_audio", "audio_url"}};
    for (int i = 0; j && i < 3; i++)
        if (jinja_has_string(j, spellings[kind][i])) return spellings[kind][i];
    return spellings[kind][0];
}

/* What the template sees of a medium: never the source itself, which may be megabytes or hold anything. */
static json_t *media_part(const jinja *j, media_kind kind)
{
    const char *type = type_for(j, kind);
    bool nested = strstr(type, "_url") != NULL;
    return nested ? json_pack("{s:s, s:{s:s}}", "type", type, type, "url", media_kind_name(kind)) : json_pack("{s:s, s:s}", "type", type, type, media_kind_name(kind));
}

static bool read_media(const json_t *part, media_kind kind, chat_media *m, vlm_error *error)
{
    const char *used = "";
    *m = (chat_media){.kind = kind};
    if (!find_source(part, kind, &m->source, &used, error)) return false;
    const json_t *fps = json_object_get(part, "fps");
    if (json_is_number(fps)) m->fps = json_number_value(fps);
    if (m->fps < 0) {
        mem_free(m->source);
        return err_set(error, VLM_INVALID, "fps of a video must be positive");
    }
    m->options = part_options(part, used);
    return true;
}

static bool append_new(json_t *list, json_t *part, vlm_error *error)
{
    return (part && json_array_append_new(list, part) == 0) || err_memory(error, 0);
}

/* A video that is shown as pictures. */
static bool add_stills(const jinja *j, chat_media clip, const chat_options *o, json_t *out, chat_list *media, vlm_error *error)
{
    int count = 1;
    if (o->stills && !o->stills(o->stills_user, &clip, &count, error)) {
        mem_free(clip.source);
        json_decref(clip.options);
        return false;
    }
    clip.kind = MEDIA_IMAGE;
    for (int i = 1; i <= count; i++) {
        chat_media still = i == 1 ? clip : (chat_media){.kind = MEDIA_IMAGE};
        still.still = i;
        if (!add_media(media, still, error) || !append_new(out, media_part(j, MEDIA_IMAGE), error)) return false;
    }
    return true;
}

static bool add_medium(const jinja *j, const json_t *part, media_kind kind, const chat_options *o, json_t *out, chat_list *media, vlm_error *error)
{
    chat_media m;
    if (!read_media(part, kind, &m, error)) return false;
    if (kind == MEDIA_VIDEO && o->video_as_stills) return add_stills(j, m, o, out, media, error);
    return add_media(media, m, error) && append_new(out, media_part(j, kind), error);
}

static part_kind kind_of_part(const json_t *part, const char **type, media_kind *media)
{
    *type = json_string_value(json_object_get(part, "type"));
    size_t n = sizeof part_types / sizeof *part_types;
    for (size_t i = 0; i < n; i++) {
        bool is = *type ? strcmp(*type, part_types[i].type) == 0 : json_object_get(part, part_types[i].type) != NULL;
        if (!is) continue;
        *media = part_types[i].media;
        return part_types[i].kind;
    }
    return PART_UNKNOWN;
}

/* Appends what the part becomes to `out`. */
static bool normalize_part(const jinja *j, const json_t *part, const chat_options *o, json_t *out, chat_list *media, vlm_error *error)
{
    const char *type;
    media_kind kind;
    if (json_is_string(part)) return append_new(out, json_pack("{s:s, s:O}", "type", "text", "text", part), error);
    if (!json_is_object(part)) return err_set(error, VLM_INVALID, "a part must be an object like {\"type\": \"text\", \"text\": ...}");
    switch (kind_of_part(part, &type, &kind)) {
    case PART_TEXT: {
        const json_t *text = json_object_get(part, "text");
        if (!text) text = json_object_get(part, "refusal");
        if (!json_is_string(text)) return err_set(error, VLM_INVALID, "a text part needs \"text\", a string");
        return append_new(out, json_pack("{s:s, s:O}", "type", "text", "text", text), error);
    }
    case PART_MEDIA: return add_medium(j, part, kind, o, out, media, error);
    case PART_KEPT: return append_new(out, json_deep_copy(part), error);
    case PART_UNKNOWN: break;
    }
    err_set(error, VLM_INVALID, "part type \"%.60s\" is not known", type ? type : "(none)");
    return err_hint(error, "text, image, image_url, video, video_url, audio and input_audio are");
}

static json_t *normalize_parts(const jinja *j, const json_t *parts, const chat_options *o, chat_list *media, vlm_error *error)
{
    json_t *out = json_array();
    if (json_array_size(parts) > MAX_PARTS) {
        err_set(error, VLM_LIMIT, "%zu parts in one message, at most %d are taken", json_array_size(parts), MAX_PARTS);
        json_decref(out);
        return NULL;
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        if (!out || !normalize_part(j, json_array_get(parts, i), o, out, media, error)) {
            err_prefix(error, "content[%zu]", i);
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* ---- content in the form that the template takes ---- */

static json_t *parts_of_string(const json_t *text) { return json_pack("[{s:s, s:O}]", "type", "text", "text", text); }

static const char *text_of(const json_t *part)
{
    static const char *const names[] = {"text", "thinking", "reasoning"};
    for (int i = 0; i < 3; i++)
        if (json_is_string(json_object_get(part, names[i]))) return json_string_value(json_object_get(part, names[i]));
    return NULL;
}

/* Parts as one string; where media stand, the mark and a digit for their kind. */
static json_t *string_of_parts(const json_t *parts, const char *mark)
{
    buf text = {0};
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type")), *s = text_of(part);
        media_kind kind = type && strstr(type, "video") ? MEDIA_VIDEO : type && strstr(type, "audio") ? MEDIA_AUDIO : MEDIA_IMAGE;
        if (s) buf_adds(&text, s);
        else if (*mark) buf_addf(&text, "%s%d", mark, kind);
    }
    json_t *out = text.failed ? NULL : json_stringn_nocheck(text.data ? text.data : "", text.size);
    buf_free(&text);
    return out;
}

static bool normalize_content(const chat_variant *t, const jinja *j, json_t *message, const char *mark, const chat_options *o, chat_list *media,
                              vlm_error *error)
{
    const json_t *content = json_object_get(message, "content");
    json_t *out = NULL;
    if (!content || json_is_null(content)) {           /* null is as if it were not there; chat_render tries the other ways */
        json_object_del(message, "content");
        return true;
    }
    if (json_is_string(content)) {
        if (strlen(json_string_value(content)) != json_string_length(content)) return err_set(error, VLM_INVALID, "content has a zero character");
        out = t && !t->form.takes_strings && t->form.takes_parts ? parts_of_string(content) : json_incref((json_t *)content);
    } else if (json_is_array(content)) {
        out = normalize_parts(j, content, o, media, error);
        if (!out) return false;
        if (t && t->form.takes_strings && !t->form.takes_parts) {
            json_t *joined = string_of_parts(out, mark);
            json_decref(out);
            out = joined;
        }
    } else if (json_is_object(content)) out = json_deep_copy(content);      /* tool results as objects: some templates take them */
    else return err_set(error, VLM_INVALID, "\"content\" must be a string, null or a list of parts");
    if (!out || json_object_set_new(message, "content", out) != 0) return err_memory(error, 0);
    return true;
}

/* ---- the rest of a message ---- */

static bool normalize_calls(json_t *message, vlm_error *error)
{
    json_t *calls = json_object_get(message, "tool_calls");
    if (!calls || json_is_null(calls)) return true;
    if (!json_is_array(calls)) return err_set(error, VLM_INVALID, "\"tool_calls\" must be a list");
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *call = json_array_get(calls, i);
        if (!json_is_object(call)) return err_set(error, VLM_INVALID, "tool_calls[%zu] is not an object", i);
    }
    if (!json_array_size(calls)) json_object_del(message, "tool_calls");         /* templates count calls by asking whether there is a list */
    return true;
}

static json_t *normalize_message(const chat_variant *t, const jinja *j, const json_t *message, const char *mark, const chat_options *o, chat_list *media,
                                 vlm_error *error)
{
    if (!json_is_object(message)) {
        err_set(error, VLM_INVALID, "a message must be an object with \"role\" and \"content\"");
        return NULL;
    }
    const json_t *role = json_object_get(message, "role");
    if (!json_is_string(role) || !json_string_length(role)) {
        err_set(error, VLM_INVALID, "\"role\" is missing or not a string");
        return NULL;
    }
    /* a copy that is deep but for the content, which is written anew and may hold megabytes of data: URLs; members that are null are as if they were
     * not there, as in transformers */
    json_t *copy = json_object(), *value;
    const char *key;
    bool ok = copy != NULL;
    json_object_foreach((json_t *)message, key, value) {
        if (!ok) break;
        if (strcmp(key, "content") == 0) ok = json_object_set_new(copy, key, json_null()) == 0;       /* keeps its place */
        else if (!json_is_null(value)) ok = json_object_set_new(copy, key, json_deep_copy(value)) == 0;
    }
    if (ok && t && !t->form.knows_developer && strcmp(json_string_value(role), "developer") == 0) ok = json_object_set_new(copy, "role", json_string("system")) == 0;
    json_t *out = ok ? chat_alias_reasoning(copy) : NULL, *content = json_object_get(message, "content");
    json_decref(copy);
    if (out && content && json_object_set(out, "content", content) != 0) {
        json_decref(out);
        out = NULL;
    }
    if (!out) err_memory(error, 0);
    else if (normalize_content(t, j, out, mark, o, media, error) && normalize_calls(out, error)) return out;
    json_decref(out);
    return NULL;
}

json_t *chat_normalize(const chat_variant *t, const jinja *j, const json_t *messages, const char *mark, const chat_options *o, chat_list *media,
                       vlm_error *error)
{
    size_t n = json_array_size(messages);
    if (!json_is_array(messages) || !n) {
        err_set(error, VLM_INVALID, "messages must be a list with at least one message");
        return NULL;
    }
    if (n > MAX_MESSAGES) {
        err_set(error, VLM_LIMIT, "%zu messages, at most %d are taken", n, MAX_MESSAGES);
        return NULL;
    }
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *message = normalize_message(t, j, json_array_get(messages, i), mark, o, media, error);
        if (!message || json_array_append_new(out, message) != 0) {
            err_prefix(error, "messages[%zu]", i);
            json_decref(out);
            return NULL;
        }
    }
    static const chat_form plain = {.takes_system = true, .takes_systems = true, .takes_late_system = true, .takes_repeats = true};
    if (out && chat_fit(t ? &t->form : &plain, out)) return out;
    err_memory(error, 0);
    json_decref(out);
    return NULL;
}

bool chat_fill_content(json_t *messages, bool null)
{
    bool any = false;
    for (size_t i = 0; i < json_array_size(messages); i++) {
        json_t *message = json_array_get(messages, i);
        bool missing = !json_object_get(message, "content") || (!null && json_is_null(json_object_get(message, "content")));
        if (missing && json_object_set_new(message, "content", null ? json_null() : json_string("")) == 0) any = true;
    }
    return any;
}

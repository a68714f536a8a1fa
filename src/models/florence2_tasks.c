/* florence2_tasks.c - see florence2.h. Rules: transformers' Florence2Processor and Florence2PostProcessor; the regular expressions there are
 * spelled out here, each beside its function. */
#include "models/florence2.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

typedef enum answer_kind { PURE_TEXT, OCR, BOXES, GROUNDING, POLYGONS, BOXES_OR_POLYGONS, ONLY_BOXES } answer_kind;

static const struct { const char *token, *before, *after; bool alone; answer_kind kind; } tasks[] = {
    {"<OCR>", "What is the text in the image?", "", true, PURE_TEXT},
    {"<OCR_WITH_REGION>", "What is the text in the image, with regions?", "", true, OCR},
    {"<CAPTION>", "What does the image describe?", "", true, PURE_TEXT},
    {"<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", "", true, PURE_TEXT},
    {"<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image.", "", true, PURE_TEXT},
    {"<OD>", "Locate the objects with category name in the image.", "", true, BOXES},
    {"<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions.", "", true, BOXES},
    {"<REGION_PROPOSAL>", "Locate the region proposals in the image.", "", true, ONLY_BOXES},
    {"<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: ", "", false, GROUNDING},
    {"<REFERRING_EXPRESSION_SEGMENTATION>", "Locate ", " in the image with mask", false, POLYGONS},
    {"<REGION_TO_SEGMENTATION>", "What is the polygon mask of region ", "", false, POLYGONS},
    {"<OPEN_VOCABULARY_DETECTION>", "Locate ", " in the image.", false, BOXES_OR_POLYGONS},
    {"<REGION_TO_CATEGORY>", "What is the region ", "?", false, PURE_TEXT},
    {"<REGION_TO_DESCRIPTION>", "What does the region ", " describe?", false, PURE_TEXT},
    {"<REGION_TO_OCR>", "What text is in the region ", "?", false, PURE_TEXT},
};
enum { TASKS = sizeof tasks / sizeof *tasks };

const char *florence2_token(int i, char room[24])
{
    static const char *const before[] = {"<od>", "</od>", "<ocr>", "</ocr>"};
    static const char *const after[] = {"<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>",
                                        "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>", "<proposal>", "</proposal>",
                                        "<poly>", "</poly>", "<and>", "<image>"};
    if (i < 4) return before[i];
    if (i < 1004) return snprintf(room, 24, "<loc_%d>", i - 4), room;
    return i < 1004 + (int)(sizeof after / sizeof *after) ? after[i - 1004] : NULL;
}

/* ---- prompts ---------------------------------------------------------------------------------------------------------- */

static int task_of(const char *text)
{
    for (int i = 0; i < TASKS; i++)
        if (strstr(text, tasks[i].token)) return i;
    return -1;
}

/* <loc_N> at s, whatever guards (beyond ASCII) stand inside; returns its length. */
static size_t guarded_location(const char *s, buf *out)
{
    char plain[24];
    size_t n = 0, used = 0;
    for (; used < sizeof plain - 1 && s[n]; n++) {
        if ((unsigned char)s[n] >= 0x80) continue;
        plain[used++] = s[n];
        if (s[n] == '>') { n++; break; }
    }
    plain[used] = 0;
    unsigned place;
    char end;
    if (sscanf(plain, "<loc_%3u%c", &place, &end) != 2 || end != '>') return 0;
    buf_adds(out, plain);
    return n;
}

static const char *skip_space(const char *s) { while (*s && strchr(" \t\n\r\v\f", *s)) s++; return s; }

bool florence2_prompt(const char *text, buf *out, vlm_error *error)
{
    int task = task_of(text);
    const char *token = task >= 0 ? tasks[task].token : "";
    size_t n = strlen(token);
    if (task >= 0 && tasks[task].alone) {
        if (strcmp(text, token)) return err_set(error, VLM_INVALID, "the task %s takes no text beside it", token);
        return buf_adds(out, tasks[task].before);
    }
    buf rest = {0};
    for (const char *s = text; *s;) {
        size_t location = *s == '<' ? guarded_location(s, &rest) : 0;
        if (n && !strncmp(s, token, n)) s += n;
        else if (location) s += location;
        else buf_add(&rest, s++, 1);
    }
    const char *from = rest.data ? rest.data : "";
    size_t size = rest.size;
    if (task >= 0) {
        from = skip_space(from);
        size = strlen(from);
        while (size && strchr(" \t\n\r\v\f", from[size - 1])) size--;
        buf_adds(out, tasks[task].before);
    }
    buf_add(out, from, size);
    if (task >= 0) buf_adds(out, tasks[task].after);
    bool ok = !rest.failed && !out->failed;
    buf_free(&rest);
    return ok || err_memory(error, size);
}

/* ---- answers: small parts ------------------------------------------------------------------------------------------------ */

typedef struct picture_size { int width, height; } picture_size;

/* <loc_\d+> at s: its length, and the number. */
static size_t location(const char *s, int *value)
{
    size_t n = 5;
    long v = 0;
    if (strncmp(s, "<loc_", 5)) return 0;
    for (; s[n] >= '0' && s[n] <= '9' && n < 15; n++) v = 10 * v + s[n] - '0';
    if (n == 5 || s[n] != '>') return 0;
    if (value) *value = v > 1000000 ? 1000000 : (int)v;
    return n + 1;
}

/* The middle of a bin in pixels, cut off: float32 as torch does it. */
static json_t *pixel(int bin, int size) { return json_integer((json_int_t)(((float)bin + 0.5f) * (float)(size / 1000.0))); }

static json_t *pixels(const int *bin, int n, picture_size size)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, pixel(bin[i], i % 2 ? size.height : size.width));
    return list;
}

static char *without(const char *text, const char *const *marks)
{
    char *s = mem_strdup(text);
    for (; s && *marks; marks++)
        for (char *at = s; (at = strstr(at, *marks));) memmove(at, at + strlen(*marks), strlen(at + strlen(*marks)) + 1);
    return s;
}

static json_t *stripped(const char *s, size_t n)
{
    while (n && strchr(" \t\n\r\v\f\x1c\x1d\x1e\x1f", *s)) s++, n--;
    while (n && strchr(" \t\n\r\v\f\x1c\x1d\x1e\x1f", s[n - 1])) n--;
    return json_stringn(s, n);
}

/* Without what is beyond ASCII. */
static json_t *ascii(json_t *text)
{
    buf out = {0};
    for (const char *s = json_string_value(text); s && *s; s++)
        if ((unsigned char)*s < 0x80) buf_add(&out, s, 1);
    json_decref(text);
    json_t *v = json_string(out.data ? out.data : "");
    buf_free(&out);
    return v;
}

/* ^\s*(.*?)(?=<od>|</od>|<box>|</box>|<bbox>|</bbox>|<loc_), and <poly> when polygons are meant: stripped; NULL: no match. */
static json_t *phrase_of(const char *s, bool poly)
{
    static const char *const marks[] = {"<od>", "</od>", "<box>", "</box>", "<bbox>", "</bbox>", "<loc_", "<poly>"};
    const char *from = skip_space(s);
    for (const char *at = from; *at; at++) {
        for (int i = 0; i < 7 + poly; i++)
            if (!strncmp(at, marks[i], strlen(marks[i]))) return stripped(from, (size_t)(at - from));
        if (*at == '\n') return NULL;
    }
    return NULL;
}

/* One of <loc_\d+>, and, when polygons are meant, <sep>, <poly>, </poly>. */
static size_t piece(const char *s, bool poly)
{
    static const char *const marks[] = {"<sep>", "<poly>", "</poly>"};
    size_t n = location(s, NULL);
    for (int i = 0; poly && !n && i < 3; i++)
        if (!strncmp(s, marks[i], strlen(marks[i]))) n = strlen(marks[i]);
    return n;
}

/* ([^<]+ unless empty)(?:piece){4,}: the next match from *at on; NULL: none. The caller frees. */
static char *next_phrase(const char **at, bool poly, bool empty)
{
    for (const char *s = *at; *s; s++) {
        const char *e = s;
        while (!empty && *e && *e != '<') e++;
        if (!empty && e == s) continue;
        int count = 0;
        size_t n;
        const char *end = e;
        for (; (n = piece(end, poly)); end += n) count++;
        if (count >= 4) return *at = end, mem_strndup(s, (size_t)(end - s));
        if (!empty) s = e - (*e == 0);
    }
    return NULL;
}

/* ---- answers: kinds --------------------------------------------------------------------------------------------------------- */

typedef struct found { json_t *boxes, *labels, *polygons, *polygon_labels; picture_size size; bool failed; } found;

/* Phrases and the boxes of four locations that follow each. */
static void find_boxes(found *f, const char *text, bool empty, const json_t *banned)
{
    char *phrase;
    for (const char *at = text; (phrase = next_phrase(&at, false, empty)); mem_free(phrase)) {
        json_t *label = phrase_of(phrase, false), *word;
        size_t i, n;
        bool skip = !label;
        json_array_foreach((json_t *)(uintptr_t)banned, i, word) skip = skip || json_equal(word, label);
        if (!skip) label = ascii(label);
        int bin[4], have = 0;
        for (const char *s = phrase; !skip && *s; s += n ? n : 1) {
            n = location(s, &bin[have]);
            have = n ? have + 1 : 0;
            if (have < 4) continue;
            have = 0;
            f->failed |= json_array_append_new(f->boxes, pixels(bin, 4, f->size)) || json_array_append(f->labels, label);
        }
        json_decref(label);
    }
}

/* ((?:<loc_\d+>)+)(?:<sep>|$) in s[0..n): polygons. */
static json_t *polygons_in(const char *s, size_t size, picture_size picture)
{
    json_t *list = json_array();
    const char *end = s + size;
    int *bin = MEM_ARRAY(size / 6 + 2, int), n = 0;
    while (bin && s < end) {
        size_t length = location(s, &bin[n]);
        if (length) { n++; s += length; }
        bool ends = n && (s >= end || !strncmp(s, "<sep>", 5) || (*s == '\n' && s + 1 == end));
        if (ends) json_array_append_new(list, pixels(bin, n / 2 * 2, picture));
        if (!length || ends) { n = 0; s += !length; }
    }
    mem_free(bin);
    return list;
}

static void add_polygons(found *f, const char *s, size_t n, json_t *label)
{
    json_t *list = polygons_in(s, n, f->size);
    if (json_array_size(list)) f->failed |= json_array_append(f->polygons, list) || json_array_append(f->polygon_labels, label);
    json_decref(list);
}

static void find_polygons(found *f, const char *text, bool empty)
{
    char *phrase;
    for (const char *at = text; (phrase = next_phrase(&at, true, empty)); mem_free(phrase)) {
        json_t *label = phrase_of(phrase + location(phrase, NULL), true);
        if (!label) continue;
        const char *open = strstr(phrase, "<poly>");
        if (!open || !strstr(phrase, "</poly>")) add_polygons(f, phrase, strlen(phrase), label);
        else
            for (const char *close; open && (close = strstr(open, "</poly>")); open = strstr(close, "<poly>")) add_polygons(f, open + 6, (size_t)(close - open - 6), label);
        json_decref(label);
    }
}

/* (.+?) and eight locations: a text and the corners of its quadrangle. */
static void find_lines(found *f, const char *text, double threshold)
{
    for (const char *start = text, *s = text; *s; s++) {
        if (*s == '\n') { start = s + 1; continue; }
        int bin[8], n = 0;
        const char *end = s;
        for (size_t length; s > start && n < 8 && (length = location(end, &bin[n])); end += length) n++;
        if (n < 8) continue;
        json_t *quad = pixels(bin, 8, f->size);
        double area = 0;
        for (size_t i = 0; i < 3; i++)
            area += (double)json_integer_value(json_array_get(quad, 2 * i)) * (double)json_integer_value(json_array_get(quad, 2 * i + 3)) -
                    (double)json_integer_value(json_array_get(quad, 2 * i + 2)) * (double)json_integer_value(json_array_get(quad, 2 * i + 1));
        if (!(threshold > 0) || 0.5 * fabs(area) >= (double)f->size.width * f->size.height * threshold)
            f->failed |= json_array_append(f->boxes, quad) || json_array_append_new(f->labels, stripped(start, (size_t)(s - start)));
        json_decref(quad);
        start = end;
        s = end - 1;
    }
}

/* Words that name nothing to be found: what the first processor has built in, where the file does not say. */
static json_t *unnamed(void)
{
    static const char *const words[] = {"it", "I", "me", "mine", "you", "your", "yours", "he", "him", "his", "she", "her", "hers", "they", "them", "their", "one",
        "oneself", "we", "us", "our", "ours", "its", "theirs", "myself", "yourself", "himself", "herself", "itself", "ourselves", "yourselves", "themselves",
        "this", "that", "these", "those", "who", "whom", "whose", "which", "what", "all", "another", "any", "anybody", "anyone", "anything", "each", "everybody",
        "everyone", "everything", "few", "many", "nobody", "none", "several", "some", "somebody", "someone", "something", "each other", "one another", "the image",
        "image", "images", "the", "a", "an", "a group", "other objects", "lots", "a set"};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) json_array_append_new(list, json_string(words[i]));
    return list;
}

static json_t *structured(config *processor, answer_kind kind, const char *text, picture_size size)
{
    found f = {json_array(), json_array(), json_array(), json_array(), size, false};
    const json_t *own = config_get(processor, "post_processor_config.phrase_grounding.banned_grounding_tokens");
    json_t *banned = kind != GROUNDING ? NULL : own ? json_incref((json_t *)(uintptr_t)own) : unnamed();
    bool poly = kind == POLYGONS || (kind == BOXES_OR_POLYGONS && strstr(text, "<poly>"));
    if (kind == OCR) find_lines(&f, text, json_number_value(config_get(processor, "post_processor_config.ocr.AREA_THRESHOLD")));
    else if (poly) find_polygons(&f, text, kind == POLYGONS);
    else find_boxes(&f, text, kind == ONLY_BOXES, banned);
    json_decref(banned);
    json_t *out;
    if (kind == BOXES_OR_POLYGONS)
        out = json_pack("{s:O, s:O, s:O, s:O}", "bboxes", f.boxes, "bboxes_labels", f.labels, "polygons", f.polygons, "polygons_labels", f.polygon_labels);
    else if (kind == POLYGONS) out = json_pack("{s:O, s:O}", "polygons", f.polygons, "labels", f.polygon_labels);
    else out = json_pack("{s:O, s:O}", kind == OCR ? "quad_boxes" : "bboxes", f.boxes, "labels", f.labels);
    json_decref(f.boxes);
    json_decref(f.labels);
    json_decref(f.polygons);
    json_decref(f.polygon_labels);
    if (!f.failed) return out;
    json_decref(out);
    return NULL;
}

json_t *florence2_answer(config *processor, const char *prompt, const char *text, int width, int height)
{
    static const char *const ends[] = {"<s>", "</s>", NULL}, *const all[] = {"<s>", "</s>", "<pad>", NULL};
    int task = task_of(prompt);
    if (task < 0) return NULL;
    char *clean = without(text, tasks[task].kind == PURE_TEXT ? ends : all);
    json_t *answer = NULL;
    if (clean && tasks[task].kind == PURE_TEXT) answer = stripped(clean, strlen(clean));
    else if (clean) answer = structured(processor, tasks[task].kind, clean, (picture_size){width, height});
    mem_free(clean);
    return answer ? json_pack("{s:o}", tasks[task].token, answer) : NULL;
}

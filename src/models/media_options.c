/* media_options.c - see media_options.h. */
#include "models/media_options.h"

#include <math.h>
#include <string.h>

#include "base/err.h"
#include "base/near.h"

const media_rules media_rules_fixed = {.image = "", .video = "", .audio = ""};
const media_rules media_rules_pixels = {
    .image = "min_pixels max_pixels resized_height resized_width", .video = "min_pixels max_pixels resized_height resized_width", .audio = "",
    .low = "{\"" MEDIA_AT_MOST "max_pixels\": 262144}"};
const media_rules media_rules_tiles = {
    .image = "crop_to_patches? min_patches max_patches", .video = "", .audio = "", .low = "{\"crop_to_patches\": false}"};

/* Which frames of a video: every family's. */
static const char frame_options[] = "fps num_frames min_frames max_frames";
/* Known, though perhaps no family of this build honours them. */
static const char further_options[] = "max_pixels min_pixels max_soft_tokens max_tiles min_tiles longest_edge shortest_edge height width max_height max_width "
                                      "size max_image_size";
/* How the reference is called, or what clients put beside a medium: nothing that could be honoured. */
static const char passive_options[] = "do_sample_frames video_metadata add_special_tokens return_tensors padding return_dict tokenize "
                                      "return_mm_token_type_ids cache_control id uuid name filename format media_type mime_type text alt";

/* Spellings of one thing, the common one first: a family is asked by the one that it knows. */
static const char *const alike[] = {
    "max_tiles max_image_tiles max_num_tiles max_patches max_crops max_slice_nums num_crops pan_and_scan_max_num_crops dynamic_hd max_num",
    "min_tiles min_patches min_num",
    "max_soft_tokens max_image_tokens",
    "num_frames nframes video_num_frames",
    "max_frames video_max_frames",
    "min_frames video_min_frames",
    "fps video_fps",
};
static const char *const pairs[][2] = {{"min_pixels", "max_pixels"}, {"min_frames", "max_frames"}, {"min_patches", "max_patches"}, {"min_tiles", "max_tiles"},
                                       {"min_image_tokens", "max_image_tokens"}};
#define COUNT(list) (sizeof(list) / sizeof *(list))

typedef struct resolving {
    const vlm_model *m;
    media_kind kind;
    bool of_part;                  /* else of the request */
    json_t *out;
    buf *notices;
    vlm_error *error;
} resolving;

/* ---- lists of names ----------------------------------------------------------------------------------------------- */

/* The next name of a list into to[64]; its kind: 'n' a number, '?' true or false, '*' anything; 0: no more. */
static char next_name(const char **list, char to[64])
{
    *list += strspn(*list, " ");
    size_t n = strcspn(*list, " ");
    if (!n || n >= 64) return 0;
    memcpy(to, *list, n);
    *list += n;
    char kind = strchr("?*", to[n - 1]) ? to[n - 1] : 'n';
    to[kind == 'n' ? n : n - 1] = 0;
    return kind;
}

static char listed(const char *list, const char *name)
{
    char one[64], kind = 0;
    while (list && (kind = next_name(&list, one)))
        if (!strcmp(one, name)) return kind;
    return 0;
}

static const char *rules_of(const media_rules *r, media_kind kind)
{
    const char *list = kind == MEDIA_IMAGE ? r->image : kind == MEDIA_VIDEO ? r->video : r->audio;
    return list ? list : "";
}

static char honoured(const vlm_model *m, media_kind kind, const char *name)
{
    char is = listed(rules_of(m->rules, kind), name);
    return is || kind != MEDIA_VIDEO ? is : listed(frame_options, name);
}

/* The family's spelling of a name, else the common one; `to` may hold it. */
static const char *spelled(const vlm_model *m, media_kind kind, const char *name, char to[64])
{
    if (honoured(m, kind, name)) return name;
    for (size_t i = 0; i < COUNT(alike); i++) {
        if (!listed(alike[i], name)) continue;
        for (const char *list = alike[i]; next_name(&list, to);)
            if (honoured(m, kind, to)) return to;
        const char *list = alike[i];
        next_name(&list, to);
        return to;
    }
    return name;
}

/* Calls `each` with every name that any family knows. */
static void all_names(void (*each)(void *user, const char *name), void *user)
{
    char one[64];
    const char *const own[] = {frame_options, further_options, "detail resize_shape images_kwargs videos_kwargs audio_kwargs"};
    for (size_t i = 0; i < COUNT(own); i++)
        for (const char *list = own[i]; next_name(&list, one);) each(user, one);
    for (size_t i = 0; i < COUNT(alike); i++)
        for (const char *list = alike[i]; next_name(&list, one);) each(user, one);
    for (const vlm_arch *const *a = vlm_archs; *a; a++)
        for (media_kind kind = MEDIA_IMAGE; (*a)->rules && kind <= MEDIA_AUDIO; kind++)
            for (const char *list = rules_of((*a)->rules, kind); next_name(&list, one);) each(user, one);
}

typedef struct wanted { const char *name; bool found; char near[64]; } wanted;

static void compare(void *user, const char *name)
{
    wanted *w = user;
    w->found |= !strcmp(name, w->name);
    if (!*w->near && near_enough(w->name, name)) memcpy(w->near, name, strlen(name) + 1);
}

/* ---- one option --------------------------------------------------------------------------------------------------- */

static const char *plural(media_kind kind) { return kind == MEDIA_IMAGE ? "images" : kind == MEDIA_VIDEO ? "videos" : "audio"; }

static bool set(resolving *r, const char *name, char kind, const json_t *value)
{
    bool fits = kind == '*' || (kind == '?' ? json_is_boolean(value) : json_is_number(value) && isfinite(json_number_value(value)) && json_number_value(value) > 0);
    if (!fits) return err_set(r->error, VLM_INVALID, "%s: %s was expected", name, kind == '?' ? "true or false" : "a number above 0");
    return json_object_set(r->out, name, (json_t *)(uintptr_t)value) == 0 || err_memory(r->error, 64);
}

/* Nobody listens to it: says so, unless it is meant for other media of the request. */
static bool refuse(resolving *r, const char *given, const char *name)
{
    const vlm_model *m = r->m;
    for (media_kind kind = MEDIA_IMAGE; kind <= MEDIA_AUDIO; kind++)
        if (kind != r->kind && !r->of_part && honoured(m, kind, name)) return true;
    if (listed(frame_options, name) || (r->kind == MEDIA_AUDIO && !r->of_part)) return true;
    wanted w = {.name = name};
    all_names(compare, &w);
    if (!w.found && !r->of_part) {
        err_set(r->error, VLM_INVALID, "\"%.60s\" is no option of media", given);
        return *w.near ? err_hint(r->error, "did you mean %s?", w.near) : false;
    }
    const char *list = rules_of(m->rules, r->kind);
    buf_addf(r->notices, "%.60s has no effect on %s with %s", given, plural(r->kind), m->arch->title ? m->arch->title : m->arch->name);
    char one[64];
    for (const char *at = list, *before = "; its options are "; next_name(&at, one); before = ", ") buf_addf(r->notices, "%s%s", before, one);
    buf_addc(r->notices, '\n');
    return true;
}

static bool take(resolving *r, const char *name, const json_t *value);

static bool take_all(resolving *r, const char *name, const json_t *object)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object)) return err_set(r->error, VLM_INVALID, "%s: an object was expected", name);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
        if (!take(r, key, value)) return false;
    return true;
}

/* {"shortest_edge", "longest_edge"} are sides where the processor knows sides, numbers of pixels in all where it knows those. */
static bool take_size(resolving *r, const json_t *size)
{
    const char *key;
    json_t *value;
    if (!json_is_object(size)) return refuse(r, "size", "size");
    json_object_foreach((json_t *)(uintptr_t)size, key, value) {
        const char *name = key;
        if (!honoured(r->m, r->kind, key)) name = !strcmp(key, "longest_edge") ? "max_pixels" : !strcmp(key, "shortest_edge") ? "min_pixels" : key;
        char kind = honoured(r->m, r->kind, name);
        if (!(kind ? set(r, name, kind, value) : refuse(r, "size", "size"))) return false;
    }
    return true;
}

static bool take(resolving *r, const char *name, const json_t *value)
{
    static const char *const kwargs[] = {[MEDIA_IMAGE] = "images_kwargs", [MEDIA_VIDEO] = "videos_kwargs", [MEDIA_AUDIO] = "audio_kwargs"};
    char other[64];
    if (json_is_null(value) || !strcmp(name, "detail")) return true;
    for (media_kind kind = MEDIA_IMAGE; kind <= MEDIA_AUDIO; kind++)
        if (!strcmp(name, kwargs[kind])) return kind != r->kind || take_all(r, name, value);
    if (!strcmp(name, "size") && !honoured(r->m, r->kind, name)) return take_size(r, value);
    if (!strcmp(name, "resize_shape")) return r->kind != MEDIA_IMAGE || set(r, name, '*', value);
    const char *own = spelled(r->m, r->kind, name, other);
    char kind = honoured(r->m, r->kind, own);
    if (kind) return set(r, own, kind, value);
    return listed(passive_options, name) || refuse(r, name, own);
}

/* ---- detail ------------------------------------------------------------------------------------------------------- */

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* What the request or part itself says stands; a part's detail stands above what the request says. */
static bool apply_detail(resolving *r, const json_t *request, const chat_media *part)
{
    const json_t *own = part ? part->options : NULL, *detail = json_object_get(own, "detail");
    bool of_part = detail && !json_is_null(detail);
    if (!of_part) detail = json_object_get(request, "detail");
    const char *word = json_string_value(detail), *key;
    json_t *value;
    if (!detail || json_is_null(detail)) return true;
    if (!word || (strcmp(word, "low") && strcmp(word, "high") && strcmp(word, "auto")))
        return err_set(r->error, VLM_INVALID, "detail: low, high or auto was expected");
    bool low = !strcmp(word, "low");
    const char *rule = low ? r->m->rules->low : !strcmp(word, "high") ? r->m->rules->high : NULL;
    if (low && !rule)
        buf_addf(r->notices, "detail low makes no difference to images with %s\n", r->m->arch->title ? r->m->arch->title : r->m->arch->name);
    json_t *options = rule ? json_loads(rule, 0, NULL) : NULL;
    bool ok = !rule || options;
    json_object_foreach(options, key, value) {
        const char *name = strncmp(key, MEDIA_AT_MOST, strlen(MEDIA_AT_MOST)) ? key : key + strlen(MEDIA_AT_MOST);
        if (json_object_get(of_part ? own : r->out, name)) continue;
        ok = ok && json_object_set(r->out, key, value) == 0;
    }
    json_decref(options);
    return ok || err_memory(r->error, 64);
}

static bool check_pairs(const resolving *r)
{
    for (size_t i = 0; i < COUNT(pairs); i++)
        if (number(r->out, pairs[i][0]) > number(r->out, pairs[i][1]))
            return err_set(r->error, VLM_INVALID, "%s (%g) is above %s (%g)", pairs[i][0], number(r->out, pairs[i][0]), pairs[i][1], number(r->out, pairs[i][1]));
    return true;
}

json_t *media_options_resolve(const vlm_model *m, media_kind kind, const json_t *request, const chat_media *part, buf *notices, vlm_error *error)
{
    resolving r = {.m = m, .kind = kind, .out = json_object(), .notices = notices, .error = error};
    const json_t *own = part ? part->options : NULL;
    bool ok = r.out || err_memory(error, 64);
    ok = ok && (!request || take_all(&r, "media_options", request));
    r.of_part = true;
    ok = ok && (!own || take_all(&r, "the part", own)) && check_pairs(&r);
    if (kind == MEDIA_IMAGE) ok = ok && apply_detail(&r, request, part);
    if (ok && kind == MEDIA_VIDEO && part && part->fps > 0) ok = json_object_set_new(r.out, "fps", json_real(part->fps)) == 0 || err_memory(error, 64);
    int pictures = part && m->arch->counts_images ? part->kind == MEDIA_VIDEO ? MANY_PICTURES : part->pictures : 0;
    if (ok && pictures) ok = json_object_set_new(r.out, "pictures", json_integer(pictures)) == 0 || err_memory(error, 64);
    if (ok) return r.out;
    json_decref(r.out);
    return NULL;
}

void media_describe(const vlm_model *m, buf *out)
{
    buf_adds(out, "text");
    if (m->takes & TAKES_IMAGE) buf_adds(out, m->arch->max_images == 1 ? ", one image" : ", images");
    if ((m->takes & TAKES_IMAGE) && m->arch->max_images > 1) buf_addf(out, " (at most %d)", m->arch->max_images);
    if (m->takes & TAKES_VIDEO) buf_adds(out, ", video");
    else if (stills_wanted(m)) buf_adds(out, ", video as stills");
    if (m->takes & TAKES_AUDIO) buf_adds(out, ", audio");
}

/* ---- stills ------------------------------------------------------------------------------------------------------- */

bool stills_wanted(const vlm_model *m) { return (m->takes & TAKES_IMAGE) && !(m->takes & TAKES_VIDEO) && m->arch->max_images != 1; }

/* numpy.linspace(0, last, n).round()[k] */
static int64_t evenly(int64_t last, int64_t n, int64_t k) { return n < 2 ? 0 : k == n - 1 ? last : (int64_t)nearbyint((double)k * ((double)last / (double)(n - 1))); }

/* As mlx-vlm samples for processors without videos: whole pairs of frames first (an old habit of Qwen's), evenly thinned afterwards. */
bool stills_pick(const chat_media *part, const json_t *options, int videos, const video_info *info, int64_t **indices, int *count, vlm_error *error)
{
    double total = (double)info->total_frames, native = info->fps > 0 ? info->fps : 24;
    if (total < 1) return err_set(error, VLM_INVALID, "video without frames");
    double exact = number(options, "num_frames"), fps = number(options, "fps"), least = number(options, "min_frames"), most = number(options, "max_frames");
    if (!(fps > 0) || (info->folder && part && part->fps > 0)) fps = 2;        /* a part's fps is the rate of a folder */
    if (!(least > 0)) least = 4;
    double cap = most > 0 ? most : 768;
    if (!(most > 0)) most = fmax(2, floor((double)STILLS_MOST / (videos > 1 ? videos : 1)));
    double sampled = 2 * floor(fmin(fmax(total / native * fps, 2 * ceil(least / 2)), 2 * floor(fmin(cap, total) / 2)) / 2), n = fmin(fmax(sampled, 1), most);
    if (exact > 0) n = sampled = fmin(floor(exact), total);
    if (n < 1 || n > 1024) return err_set(error, VLM_INVALID, "%g pictures of a video; 1 to 1024 can be taken", n);
    int64_t *list = MEM_ARRAY((size_t)n, int64_t);
    if (!list) return err_memory(error, (size_t)n * sizeof *list);
    for (int64_t i = 0; i < (int64_t)n; i++) {
        int64_t k = sampled > n && n > 1 ? (int64_t)nearbyint((double)i * (sampled - 1) / (n - 1)) : i;
        list[i] = evenly(info->total_frames - 1, (int64_t)fmax(sampled, 1), k);
    }
    *indices = list;
    *count = (int)n;
    return true;
}

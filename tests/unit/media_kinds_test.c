/* media_kinds_test.c - every family and every kind of media: taken, shown as stills, or refused with a message that says what the family takes; every
 * option honoured, or a notice. Over all checkpoints in tests/data/checkpoints and, when VLM_CHECKPOINTS names a folder, over those in it. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "engine/prompt.h"
#include "models/media_options.h"

#define MEDIA "tests/data/checkpoints/media"
static const char picture[] = "{\"type\": \"image\", \"image\": \"wide_103x75.png\"}", clip[] = "{\"type\": \"video\", \"video\": \"clip8\"}",
                  sound[] = "{\"type\": \"audio\", \"audio\": \"sweep_0.31s.wav\"}", words[] = "{\"type\": \"text\", \"text\": \"and\"}";

/* The prompt of one user message with these parts. */
static bool ask(const vlm_model *m, const char *parts, const char *options, prompt *out, vlm_error *error)
{
    char *text = mem_printf("[{\"role\": \"user\", \"content\": [%s]}]", parts);
    json_t *messages = json_loads(text, 0, NULL), *given = options ? json_loads(options, 0, NULL) : NULL;
    assert_non_null(messages);
    prompt_source source = {.messages = messages, .chat = {.add_generation_prompt = true}, .media_options = given, .policy = media_policy_default(), .media_dir = MEDIA};
    source.policy.local_files = true;
    *error = (vlm_error){0};
    bool ok = prompt_build(m, &source, out, error);
    json_decref(messages);
    json_decref(given);
    mem_free(text);
    return ok;
}

static bool has(const prompt *p, const char *text) { return p->notices.data && strstr(p->notices.data, text); }

/* A chat template may know that its model looks at one image only. */
static bool says_one(const vlm_error *error) { return strstr(error->message, "takes one image") != NULL; }

/* Parts are taken: n media, each with rows in the ids. */
static void takes(const vlm_model *m, const char *name, const char *parts, int n)
{
    prompt p;
    vlm_error error;
    if (!ask(m, parts, NULL, &p, &error)) {
        if (n > 1 && says_one(&error)) return;
        fail_msg("%s: %s: %s", name, parts, error.message);
    }
    int given = 0, rows = 0, tokens = 0;
    for (int i = 0; i < p.n_media; i++) given += p.media[i]->kind != MEDIA_PROMPT;
    if (given != n) fail_msg("%s: %s: %d media, expected %d", name, parts, given, n);
    for (int i = 0; i < p.n_spans; i++) rows += p.spans[i].count;
    bool apart = false;            /* rows are read by cross-attention */
    for (int i = 0; i < p.n_media; i++) tokens += p.media[i]->tokens, apart |= p.media[i]->rows > 0 || p.media[i]->kind == MEDIA_PROMPT;
    if (!apart && (rows != tokens || !tokens)) fail_msg("%s: %s: %d media tokens for %d rows", name, parts, rows, tokens);
    prompt_free(&p);
}

static void refuses(const vlm_model *m, const char *name, const char *parts)
{
    prompt p;
    vlm_error error;
    if (ask(m, parts, NULL, &p, &error)) fail_msg("%s takes %s", name, parts);
    if (error.code != VLM_UNSUPPORTED || !strstr(error.message, "this model (") || !*error.hint) fail_msg("%s: %s: %s (%s)", name, parts, error.message, error.hint);
}

/* Stills stand where the video stands, in order, and are what the frames alone would be. */
static void shows_stills(const vlm_model *m, const char *name)
{
    static const char *const frames[] = {"000", "002", "005", "007"};
    char *parts = mem_printf("%s, %s, %s", picture, words, clip);
    prompt p;
    vlm_error error;
    if (!ask(m, parts, NULL, &p, &error)) {
        if (!says_one(&error)) fail_msg("%s: %s", name, error.message);
        mem_free(parts);
        return;
    }
    assert_int_equal(p.n_media, 5);
    if (!has(&p, "takes no video: 4 pictures")) fail_msg("%s: notices: %s", name, p.notices.data ? p.notices.data : "none");
    for (int i = 0; i < 4; i++) {
        prompt one;
        char *alone = mem_printf("{\"type\": \"image\", \"image\": \"clip8/%s.png\"}", frames[i]);
        if (!ask(m, alone, NULL, &one, &error)) fail_msg("%s: %s", name, error.message);
        const processed *a = &p.media[i + 1]->tensors[0], *b = &one.media[0]->tensors[0];
        size_t size = dtype_size(a->type);
        for (int d = 0; d < a->dims; d++) size *= (size_t)a->dim[d];
        if (a->dims != b->dims || memcmp(a->dim, b->dim, (size_t)a->dims * sizeof *a->dim) || memcmp(a->data, b->data, size)) fail_msg("%s: still %d is not frame %s", name, i, frames[i]);
        prompt_free(&one);
        mem_free(alone);
    }
    prompt_free(&p);
    mem_free(parts);
}

static void kinds(const vlm_model *m, const char *name)
{
    const struct { const char *part; unsigned bit; } each[] = {{picture, TAKES_IMAGE}, {clip, TAKES_VIDEO}, {sound, TAKES_AUDIO}};
    for (int i = 0; i < 3; i++) {
        bool film = each[i].bit == TAKES_VIDEO;
        if (m->takes & each[i].bit) takes(m, name, each[i].part, 1);
        else if (film && stills_wanted(m)) takes(m, name, each[i].part, 4);
        else refuses(m, name, each[i].part);
    }
    char *two = mem_printf("%s, %s, %s", picture, words, picture);
    if ((m->takes & TAKES_IMAGE) && m->arch->max_images != 1) takes(m, name, two, 2);
    else refuses(m, name, two);
    mem_free(two);
    if (stills_wanted(m)) shows_stills(m, name);
}

/* ---- options -------------------------------------------------------------------------------------------------------- */

static bool knows(const vlm_model *m, const char *option)
{
    size_t n = strlen(option);
    for (const char *at = m->rules->image; at && (at = strstr(at, option)); at += n)
        if ((at == m->rules->image || at[-1] == ' ') && strchr(" ?*", at[n])) return true;
    return false;
}

/* Each option of any family is honoured or answered. */
static void options(const vlm_model *m, const char *name)
{
    static const char *const all[][2] = {{"min_pixels", "3136"}, {"max_pixels", "100352"}, {"longest_edge", "56"}, {"do_pan_and_scan", "true"}, {"crop_to_patches", "true"},
        {"do_image_splitting", "false"}, {"min_patches", "1"}, {"max_soft_tokens", "70"}, {"min_image_tokens", "4"}, {"slice_mode", "false"}, {"image_grid_pinpoints", "[[28, 28]]"}};
    vlm_error error;
    if (!(m->takes & TAKES_IMAGE)) return;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        prompt p;
        char *json = mem_printf("{\"%s\": %s}", all[i][0], all[i][1]);
        if (!ask(m, picture, json, &p, &error) && error.code != VLM_LIMIT && !(error.code == VLM_INVALID && strstr(error.message, "is no option"))) fail_msg("%s: %s: %s", name, json, error.message);
        if (!error.code && !knows(m, all[i][0]) && !knows(m, "max_image_tokens") && !has(&p, "has no effect")) fail_msg("%s: nothing was said about %s", name, json);
        if (!error.code && knows(m, all[i][0]) && p.notices.size) fail_msg("%s: %s: %s", name, json, p.notices.data);
        if (!error.code) prompt_free(&p);
        mem_free(json);
    }
    prompt p, whole;
    char *low = mem_printf("{\"type\": \"image_url\", \"image_url\": {\"url\": \"large_260x150.png\", \"detail\": \"low\"}}");
    if (!ask(m, low, NULL, &p, &error)) fail_msg("%s: detail low: %s", name, error.message);
    if (!m->rules->low != has(&p, "detail low makes no difference")) fail_msg("%s: detail low: %s", name, p.notices.data ? p.notices.data : "no notice");
    if (!ask(m, "{\"type\": \"image\", \"image\": \"large_260x150.png\"}", "{\"detail\": \"auto\", \"fps\": 3}", &whole, &error) || whole.notices.size) fail_msg("%s: detail auto: %s", name, error.message);
    if (p.media[0]->tokens > whole.media[0]->tokens) fail_msg("%s: detail low makes it longer", name);
    prompt_free(&whole);
    prompt_free(&p);
    mem_free(low);
    assert_false(ask(m, picture, "{\"max_pixel\": 9}", &p, &error));
    assert_string_equal(error.hint, "did you mean max_pixels?");
    assert_false(ask(m, picture, "{\"detail\": \"much\"}", &p, &error));
    assert_false(ask(m, picture, "{\"resize_shape\": \"a\"}", &p, &error));
    if (knows(m, "max_pixels") && knows(m, "min_pixels")) {
        assert_false(ask(m, picture, "{\"max_pixels\": \"many\"}", &p, &error));
        assert_false(ask(m, picture, "{\"min_pixels\": 4000, \"max_pixels\": 3000}", &p, &error));
        assert_non_null(strstr(error.message, "is above"));
    }
}

static void each_checkpoint(const char *folder, void (*check)(const vlm_model *, const char *))
{
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char *path = path_join(folder, entry->d_name), *cases = path_join(path, "cases.json");
        vlm_error error = {0};
        vlm_load_options quiet = vlm_load_options_default();
        quiet.threads = 1;
        vlm_model *m = *entry->d_name != '.' && file_exists(cases) ? vlm_load(path, &quiet, &error) : NULL;
        if (m && m->tok) check(m, entry->d_name);
        vlm_model_free(m);
        mem_free(cases);
        mem_free(path);
    }
    closedir(dir);
}

static void everywhere(void (*check)(const vlm_model *, const char *))
{
    each_checkpoint("tests/data/checkpoints", check);
    const char *more = getenv("VLM_CHECKPOINTS");
    if (more) each_checkpoint(more, check);
}

static void every_kind(void **state)
{
    (void)state;
    everywhere(kinds);
}

static void every_option(void **state)
{
    (void)state;
    everywhere(options);
}

static void families_state_their_options(void **state)
{
    (void)state;
    for (const vlm_arch *const *a = vlm_archs; *a; a++)
        if (((*a)->takes & (TAKES_IMAGE | TAKES_VIDEO)) && !(*a)->rules) fail_msg("%s: vlm_arch.rules is missing (media_rules_fixed, if its processor has no options)", (*a)->name);
}

/* ---- which frames --------------------------------------------------------------------------------------------------- */

static void frames_of_stills(void **state)
{
    (void)state;
    json_t *golden = json_load_file("tests/data/models/stills.json", 0, NULL), *g;
    size_t k;
    json_array_foreach(json_object_get(golden, "stills"), k, g) {
        video_info info = {.total_frames = json_integer_value(json_object_get(g, "total")), .fps = json_number_value(json_object_get(g, "fps"))};
        json_t *options = json_pack("{s:O, s:O, s:O}", "fps", json_object_get(g, "asked"), "min_frames", json_object_get(g, "least"), "max_frames", json_object_get(g, "most"));
        const json_t *want = json_object_get(g, "indices");
        int64_t *index = NULL;
        int count = 0;
        assert_true(stills_pick(NULL, options, 1, &info, &index, &count, NULL));
        if ((size_t)count != json_array_size(want)) fail_msg("case %zu: %d frames, expected %zu", k, count, json_array_size(want));
        for (int i = 0; i < count; i++) assert_int_equal(index[i], json_integer_value(json_array_get(want, (size_t)i)));
        mem_free(index);
        json_decref(options);
    }
    json_t *exact = json_pack("{s:i}", "num_frames", 3);
    int64_t *index = NULL;
    int count = 0;
    assert_true(stills_pick(NULL, exact, 5, &(video_info){.total_frames = 11, .fps = 1}, &index, &count, NULL));
    assert_int_equal(count, 3);
    assert_int_equal(index[1], 5);
    mem_free(index);
    assert_true(stills_pick(NULL, NULL, 1, &(video_info){.total_frames = 1, .fps = 1}, &index, &count, NULL));
    assert_int_equal(count, 1);
    mem_free(index);
    json_decref(exact);
    json_decref(golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind), cmocka_unit_test(every_option), cmocka_unit_test(families_state_their_options), cmocka_unit_test(frames_of_stills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* embed_test.c - embeddings and relevance against sentence-transformers and transformers (tests/data/embeddings): alone, all in one batch with answers being
 * written beside them, in chunks, with pages short, from the caches. Each file names a checkpoint and what lies in its folder instead. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine/engine.h"
#include "models/model.h"

static char dir[64], media[600];

/* ---- the folder ------------------------------------------------------------------------------------------------------ */

static void put(const char *name, const char *text)
{
    char path[300], *slash;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if ((slash = strchr(path + strlen(dir) + 1, '/'))) { *slash = 0; mkdir(path, 0755); *slash = '/'; }
    unlink(path);
    assert_true(file_write(path, text, strlen(text), NULL));
}

static void link_all(const char *from)
{
    DIR *d = opendir(from);
    char here[512], target[1000], path[400];
    assert_non_null(d);
    assert_non_null(getcwd(here, sizeof here));
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' || strstr(e->d_name, "golden")) continue;
        snprintf(target, sizeof target, "%s/%s/%s", here, from, e->d_name);
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        assert_int_equal(symlink(target, path), 0);
    }
    closedir(d);
    snprintf(media, sizeof media, "%s/tests/data/checkpoints/media", here);
}

static char *replaced(char *text, const char *old, const char *new)
{
    char *at = strstr(text, old), *out = at ? mem_printf("%.*s%s%s", (int)(at - text), text, new, at + strlen(old)) : NULL;
    if (!at) fail_msg("no %s", old);
    mem_free(text);
    return out;
}

/* The tokenizer with other names for two tokens, or one that ends every text with a token. */
static void change_tokenizer(const json_t *suite)
{
    char path[200];
    const char *old, *append = json_string_value(json_object_get(suite, "append"));
    buf file = {0};
    json_t *new;
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_true(file_read(path, 64 << 20, &file, NULL));
    char *text = buf_take(&file);
    json_object_foreach(json_object_get(suite, "rename"), old, new) {
        char *a = mem_printf("\"%s\"", old), *b = mem_printf("\"%s\"", json_string_value(new));
        text = replaced(text, a, b);
        mem_free(a);
        mem_free(b);
    }
    if (append) {
        json_t *root = json_text_parse(text, strlen(text), "tokenizer.json", NULL), *added = json_object_get(root, "added_tokens"), *token;
        size_t i;
        json_int_t id = -1;
        json_array_foreach(added, i, token)
            if (!strcmp(json_string_value(json_object_get(token, "content")), append)) id = json_integer_value(json_object_get(token, "id"));
        json_t *last = json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[{s:{s:s, s:i}}], s:{s:{s:s, s:[I], s:[s]}}}", "type", "TemplateProcessing", "single", "Sequence", "id", "A",
                                 "type_id", 0, "SpecialToken", "id", append, "type_id", 0, "pair", "Sequence", "id", "A", "type_id", 0, "special_tokens", append, "id", append, "ids", id,
                                 "tokens", append);
        assert_non_null(last);
        json_object_set_new(root, "post_processor", last);
        char *dumped = json_dumps(root, 0);
        mem_free(text);
        text = mem_strdup(dumped);
        free(dumped);
        json_decref(root);
    }
    if (append || json_object_get(suite, "rename")) put("tokenizer.json", text);
    mem_free(text);
}

/* A projection beside the weights: two files and an index. */
static void add_projection(const char *name)
{
    char path[600];
    json_t *index = json_object(), *map = json_object();
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    checkpoint *base = checkpoint_open_file(path, NULL);
    snprintf(path, sizeof path, "tests/data/embeddings/%s", name);
    checkpoint *extra = checkpoint_open_file(path, NULL);
    assert_true(base && extra);
    for (size_t i = 0; i < checkpoint_count(base); i++) json_object_set_new(map, checkpoint_at(base, i)->name, json_string("model.safetensors"));
    for (size_t i = 0; i < checkpoint_count(extra); i++) json_object_set_new(map, checkpoint_at(extra, i)->name, json_string("projection.safetensors"));
    checkpoint_close(base);
    checkpoint_close(extra);
    json_object_set_new(index, "weight_map", map);
    char *text = json_dumps(index, 0), here[512], link[600];
    put("model.safetensors.index.json", text);
    free(text);
    json_decref(index);
    assert_non_null(getcwd(here, sizeof here));
    snprintf(path, sizeof path, "%.400s/tests/data/embeddings/%.80s", here, name);
    snprintf(link, sizeof link, "%s/projection.safetensors", dir);
    assert_int_equal(symlink(path, link), 0);
}

static vlm_model *open_suite(const char *name, json_t **suite)
{
    char path[300];
    const char *file;
    json_t *value;
    vlm_error error = {0};
    snprintf(path, sizeof path, "tests/data/embeddings/%s.json", name);
    *suite = json_load_file_limited(path, 1 << 20, &error);
    assert_non_null(*suite);
    strcpy(dir, "/tmp/vlm-embed-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "tests/data/checkpoints/%s", json_string_value(json_object_get(*suite, "checkpoint")));
    link_all(path);
    json_object_foreach(json_object_get(*suite, "files"), file, value) {
        char *text = json_dumps(value, 0);
        put(file, text);
        free(text);
    }
    change_tokenizer(*suite);
    if (json_object_get(*suite, "projection")) add_projection(json_string_value(json_object_get(*suite, "projection")));
    vlm_load_options o = vlm_load_options_default();
    o.precision = "exact";
    vlm_model *m = vlm_load(dir, &o, &error);
    if (!m) fail_msg("%s: %s", name, error.message);
    return m;
}

static void close_suite(vlm_model *m, json_t *suite)
{
    char command[100];
    vlm_model_free(m);
    json_decref(suite);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static vlm_request *ask(vlm_engine *e, const json_t *one, const char *task)
{
    vlm_error error = {0};
    vlm_request_options o = vlm_request_options_default();
    char *messages = json_dumps(json_object_get(one, "messages"), 0);
    media_policy policy = media_policy_default();
    policy.local_files = true;
    o.messages = messages;
    o.task = task;
    o.instruction = json_string_value(json_object_get(one, "instruction"));
    o.dimensions = (int)json_integer_value(json_object_get(one, "dimensions"));
    o.max_tokens = 12;
    o.ignore_eos = 1;
    vlm_request *r = engine_submit(e, &o, &(engine_extra){.media_dir = media, .policy = &policy}, &error);
    if (!r) fail_msg("%s: %s", messages, error.message);
    free(messages);
    return r;
}

static void compare(const char *name, const json_t *one, const vlm_result *got)
{
    const json_t *want = json_object_get(one, "embedding");
    size_t n = json_array_size(want);
    int rows = json_object_get(one, "rows") ? (int)json_integer_value(json_object_get(one, "rows")) : 1;
    if (got->embedding_rows != rows || (size_t)got->embedding_rows * (size_t)got->embedding_cols != n)
        fail_msg("%s: %d x %d numbers, %d rows of %zu in all were expected", name, got->embedding_rows, got->embedding_cols, rows, n);
    for (size_t i = 0; i < n; i++)
        if (!(fabs(got->embedding[i] - json_number_value(json_array_get(want, i))) < 2e-4))
            fail_msg("%s: number %zu is %g, %g was expected", name, i, (double)got->embedding[i], json_number_value(json_array_get(want, i)));
}

static void all_together(const char *name, vlm_model *m, const json_t *suite, int chunk, bool preempt)
{
    const json_t *list = json_object_get(suite, "embed");
    size_t n = json_array_size(list);
    vlm_engine_options o = vlm_engine_options_default();
    o.prefill_chunk = chunk;
    o.kv_bytes = preempt ? engine_sequence_bytes(m, 500) : 64 << 20;
    vlm_engine *e = vlm_engine_new(m, &o, NULL);
    assert_non_null(e);
    if (preempt) engine_tune(e, &(engine_tuning){.preempt_every = 2});
    json_t *chat = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", "Tell me.");
    vlm_request *requests[40], *beside = m->chat && !m->recipe.project.data ? ask(e, chat, "generate") : NULL;
    for (int round = 0; round < 2; round++) {                        /* the second one finds prefixes and media */
        for (size_t i = 0; i < n; i++) requests[i] = ask(e, json_array_get(list, i), "embed");
        for (size_t i = 0; i < n; i++) {
            vlm_result result = {0};
            vlm_error error = {0};
            if (vlm_request_collect(requests[i], NULL, NULL, &result, &error)) fail_msg("%s: %s", name, error.message);
            compare(name, json_array_get(list, i), &result);
            vlm_result_clear(&result);
            vlm_request_free(requests[i]);
        }
    }
    if (beside) {
        vlm_result in_company = {0}, alone = {0};
        assert_int_equal(vlm_request_collect(beside, NULL, NULL, &in_company, NULL), VLM_OK);
        vlm_request_free(beside);
        beside = ask(e, chat, "generate");
        assert_int_equal(vlm_request_collect(beside, NULL, NULL, &alone, NULL), VLM_OK);
        vlm_request_free(beside);
        assert_int_equal(in_company.token_count, 12);
        assert_memory_equal(in_company.tokens, alone.tokens, 12 * sizeof *alone.tokens);
        vlm_result_clear(&in_company);
        vlm_result_clear(&alone);
    }
    json_decref(chat);
    vlm_engine_free(e);
}

/* Names of pictures to paths. */
static void find_media(json_t *value)
{
    size_t i;
    json_t *part;
    json_array_foreach(value, i, part) {
        const char *file = json_is_object(part) ? json_string_value(json_object_get(part, "image")) : NULL;
        char *path = file ? mem_printf("%s/%s", media, file) : NULL;
        if (path) json_object_set_new(part, "image", json_string(path));
        mem_free(path);
        if (json_is_array(part)) find_media(part);
    }
}

static void rankings(const char *name, vlm_model *m, const json_t *suite)
{
    size_t g;
    json_t *group;
    vlm_engine *e = vlm_engine_new(m, NULL, NULL);
    json_array_foreach(json_object_get(suite, "rerank"), g, group) {
        vlm_request_options o = vlm_request_options_default();
        vlm_error error = {0};
        json_t *want = json_object_get(group, "scores");
        double scores[16];
        o.instruction = json_string_value(json_object_get(group, "instruction"));
        o.allow_local_files = 1;
        find_media(json_object_get(group, "query"));
        find_media(json_object_get(group, "documents"));
        char *query = json_dumps(json_object_get(group, "query"), JSON_ENCODE_ANY), *documents = json_dumps(json_object_get(group, "documents"), 0);
        if (vlm_rerank(e, query, documents, &o, scores, NULL, &error)) fail_msg("%s: %s", name, error.message);
        for (size_t i = 0; i < json_array_size(want); i++) {
            double w = json_number_value(json_array_get(want, i));
            if (!(fabs(scores[i] - w) < 2e-4 * (1 + fabs(w)))) fail_msg("%s: score %zu is %g, %g was expected", name, i, scores[i], w);
        }
        free(query);
        free(documents);
    }
    vlm_engine_free(e);
}

static void run_suite(const char *name)
{
    json_t *suite;
    vlm_model *m = open_suite(name, &suite);
    all_together(name, m, suite, 0, false);
    all_together(name, m, suite, 7, false);
    all_together(name, m, suite, 16, true);
    rankings(name, m, suite);
    close_suite(m, suite);
}

static void last_token(void **state) { (void)state; run_suite("qwen3_last"); }
static void mean(void **state) { (void)state; run_suite("qwen3_mean"); }
static void first_token(void **state) { (void)state; run_suite("qwen3_cls"); }
static void largest(void **state) { (void)state; run_suite("qwen3_max"); }
static void reranker(void **state) { (void)state; run_suite("qwen3_rerank"); }
static void pictures(void **state) { (void)state; run_suite("qwen2_5_vl"); }
static void late_interaction(void **state) { (void)state; run_suite("colqwen2_5"); }

/* ---- what goes wrong ------------------------------------------------------------------------------------------------------ */

static void refused(vlm_engine *e, const char *task, const char *messages, int dimensions, const char *message)
{
    vlm_error error = {0};
    vlm_request_options o = vlm_request_options_default();
    o.task = task;
    o.messages = messages;
    o.dimensions = dimensions;
    vlm_request *r = vlm_submit(e, &o, &error);
    if (r) vlm_request_collect(r, NULL, NULL, NULL, &error);
    vlm_request_free(r);
    if (!error.code || !strstr(error.message, message)) fail_msg("%s: %s", messages, error.message);
}

static void complaints(void **state)
{
    (void)state;
    vlm_error error = {0};
    vlm_model *m = vlm_load("tests/data/checkpoints/qwen3", NULL, &error);
    vlm_engine *e = vlm_engine_new(m, NULL, NULL);
    static const char pair[] = "[{\"role\":\"query\",\"content\":\"a\"},{\"role\":\"document\",\"content\":\"b\"}]";
    refused(e, "dream", pair, 0, "generate, embed or rerank");
    refused(e, "embed", "[{\"role\":\"tool\",\"content\":\"a\"}]", 0, "query, document or user");
    refused(e, "embed", pair, 65, "1 to 64");
    refused(e, "embed", pair, -1, "1 to 64");
    refused(e, "embed", "[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"x\"}]}]", 0, "image");
    refused(e, "rerank", "[{\"role\":\"query\",\"content\":\"a\"}]", 0, "query and document");
    refused(e, "rerank", pair, 0, "no tokens");
    double score;
    assert_int_equal(vlm_rerank(e, "\"a\"", "[]", NULL, &score, NULL, &error), VLM_INVALID);
    assert_int_equal(vlm_rerank(e, "{", "[\"b\"]", NULL, &score, NULL, &error), VLM_INVALID);
    vlm_engine_free(e);
    vlm_model_free(m);
}

/* modules.json and what it names: hostile ones are refused. */
static void wrong_files(void **state)
{
    (void)state;
    static const struct { const char *modules, *pooling, *message; } wrong[] = {
        {"[{\"type\":\"x.Dense\",\"path\":\"2_Dense\"}]", NULL, "Dense"}, {"[{\"type\":\"x.Pooling\",\"path\":\"../a\"}]", NULL, "folder beside"},
        {"[{\"type\":\"x.Pooling\",\"path\":\"/etc\"}]", NULL, "folder beside"}, {"[{\"type\":\"x.Pooling\",\"path\":\"nowhere\"}]", NULL, "cannot be read"},
        {"[{\"type\":\"x.Pooling\"}]", NULL, "folder beside"}, {"[{\"type\":\"x.Pooling\",\"path\":\"1_Pooling\"}]", "{\"pooling_mode\":\"weightedmean\"}", "one of the poolings"},
        {"[{\"type\":\"x.Pooling\",\"path\":\"1_Pooling\"}]", "{\"pooling_mode_mean_tokens\":true,\"pooling_mode_cls_token\":true}", "one of the poolings"}, {"[1,null,{\"type\":7}]", NULL, "step of type"},
        {"{", NULL, "modules.json"},
    };
    strcpy(dir, "/tmp/vlm-embed-XXXXXX");
    assert_non_null(mkdtemp(dir));
    link_all("tests/data/checkpoints/qwen3");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        vlm_error error = {0};
        put("modules.json", wrong[i].modules);
        if (wrong[i].pooling) put("1_Pooling/config.json", wrong[i].pooling);
        vlm_model *m = vlm_load(dir, NULL, &error);
        if (m || !strstr(error.message, wrong[i].message)) fail_msg("%s: %s", wrong[i].modules, m ? "it loads" : error.message);
    }
    close_suite(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_token), cmocka_unit_test(mean), cmocka_unit_test(first_token), cmocka_unit_test(largest), cmocka_unit_test(reranker), cmocka_unit_test(pictures),
        cmocka_unit_test(late_interaction), cmocka_unit_test(complaints), cmocka_unit_test(wrong_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

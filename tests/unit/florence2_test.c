/* florence2_test.c - models/florence2_tasks.c: prompts of tasks, answers that are not as they should be; and the rules of its generation config. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sampler.h"
#include "models/florence2.h"

static void asks(const char *text, const char *expected)
{
    buf out = {0};
    vlm_error error = {0};
    assert_true(florence2_prompt(text, &out, &error));
    assert_string_equal(out.data ? out.data : "", expected);
    buf_free(&out);
}

static void tasks_become_sentences(void **state)
{
    (void)state;
    asks("<CAPTION>", "What does the image describe?");
    asks("<OCR_WITH_REGION>", "What is the text in the image, with regions?");
    asks("<CAPTION_TO_PHRASE_GROUNDING> a red circle ", "Locate the phrases in the caption: a red circle");
    asks("<OPEN_VOCABULARY_DETECTION>a fox", "Locate a fox in the image.");
    asks("<REGION_TO_CATEGORY><loc_1><loc_2><loc_3><loc_4>", "What is the region <loc_1><loc_2><loc_3><loc_4>?");
    asks("<REGION_TO_OCR><\xE2\x80\x8Bloc_52><loc_3\xE2\x80\x8B>", "What text is in the region <loc_52><loc_3>?");        /* guards */
    asks("<loc_x> and \xC3\xA9", "<loc_x> and \xC3\xA9");
    asks("Is it red?", "Is it red?");
    buf out = {0};
    vlm_error error = {0};
    assert_false(florence2_prompt("<CAPTION> of the dog", &out, &error));
    assert_int_equal(error.code, VLM_INVALID);
    assert_non_null(strstr(error.message, "<CAPTION>"));
    buf_free(&out);
}

static void means(const char *task, const char *text, const char *expected)
{
    config *processor = config_from_json(json_object(), "processor", NULL);
    json_t *got = florence2_answer(processor, task, text, 1000, 500), *want = json_loads(expected, JSON_DECODE_ANY, NULL);
    assert_non_null(want);
    assert_true(json_equal(json_object_get(got, task), want));
    json_decref(got);
    json_decref(want);
    config_free(processor);
}

static void broken_answers(void **state)
{
    (void)state;
    means("<OD>", "", "{\"bboxes\": [], \"labels\": []}");
    means("<OD>", "car<loc_1><loc_2><loc_3>", "{\"bboxes\": [], \"labels\": []}");
    means("<OD>", "car<loc_1><loc_2><loc_3><loc_4><loc_5>", "{\"bboxes\": [[1, 1, 3, 2]], \"labels\": [\"car\"]}");
    means("<OD>", "a\nb<loc_1><loc_2><loc_3><loc_4>", "{\"bboxes\": [], \"labels\": []}");
    means("<OD>", "\xC3\xA9t\xC3\xA9<loc_0><loc_0><loc_999><loc_999>", "{\"bboxes\": [[0, 0, 999, 499]], \"labels\": [\"t\"]}");
    means("<OD>", "x<loc_99999999999999999999><loc_2><loc_3><loc_4>", "{\"bboxes\": [], \"labels\": []}");
    means("<CAPTION_TO_PHRASE_GROUNDING>", "it<loc_1><loc_2><loc_3><loc_4>dog<loc_1><loc_2><loc_3><loc_4>", "{\"bboxes\": [[1, 1, 3, 2]], \"labels\": [\"dog\"]}");
    means("<REFERRING_EXPRESSION_SEGMENTATION>", "<loc_1><loc_2><loc_3><loc_4><loc_5>", "{\"polygons\": [[[1, 1, 3, 2]]], \"labels\": [\"\"]}");
    means("<REGION_TO_SEGMENTATION>", "<poly><loc_1><loc_2></poly><sep><sep>", "{\"polygons\": [[[1, 1]]], \"labels\": [\"\"]}");
    means("<OCR_WITH_REGION>", "a\nb<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>", "{\"quad_boxes\": [[1, 1, 3, 2, 5, 3, 7, 4]], \"labels\": [\"b\"]}");
    means("<CAPTION>", "</s><s> a dog </s>", "\"a dog\"");
    config *processor = config_from_json(json_object(), "processor", NULL);
    assert_null(florence2_answer(processor, "What is it?", "a dog", 10, 10));
    config_free(processor);
}

static void rules_of_generation(void **state)
{
    (void)state;
    enum { VOCAB = 8 };
    void *scratch = malloc(sampler_scratch(VOCAB));
    sampler s = {.options = {.repetition_penalty = 1}, .no_repeat = 3, .forced_first = 5, .forced_last = 6};
    const int32_t tokens[] = {1, 2, 3, 1, 2};
    float logits[VOCAB] = {0};
    sampler_rules(&s, logits, VOCAB, tokens, 5, 1, NULL, scratch);
    for (int i = 0; i < VOCAB; i++) assert_true(i == 3 ? isinf(logits[i]) : logits[i] == 0);       /* 1 2 3 was there */
    sampler_rules(&s, logits, VOCAB, tokens, 1, 1, NULL, scratch);
    for (int i = 0; i < VOCAB; i++) assert_true(i == 5 ? logits[i] == 0 : isinf(logits[i]));
    memset(logits, 0, sizeof logits);
    sampler_rules(&s, logits, VOCAB, tokens, 4, 1, &(sampler_limits){.last = true}, scratch);
    for (int i = 0; i < VOCAB; i++) assert_true(i == 6 ? logits[i] == 0 : isinf(logits[i]));
    free(scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(tasks_become_sentences), cmocka_unit_test(broken_answers), cmocka_unit_test(rules_of_generation)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* check.c - `vlm check`: does this build compute what the reference computed? Stage by stage, so that the first thing that is wrong is
 * the first thing that is named. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "cli/batch.h"
#include "cli/check.h"
#include "cli/commands.h"

typedef struct check_options {
    const char *modes, *media, *only, *precision, *kv_dtype;
    double tolerance;
    int64_t threads;
    bool json;
} check_options;

static void defaults(void *memory)
{
    check_options *o = memory;
    o->modes = "solo";
    o->precision = "exact";
    o->kv_dtype = "auto";
    o->tolerance = 1e-3;
}

static const option options_table[] = {
    {OPT_TEXT, "modes", "LIST", "solo,batch,chunk,cached,preempt, or all (solo)", offsetof(check_options, modes), NULL, 0},
    {OPT_TEXT, "media", "DIR", "where the cases' media lie (DIR/media, DIR/../media, DIR/samples)", offsetof(check_options, media), NULL, 0},
    {OPT_TEXT, "case", "NAME", "only this case", offsetof(check_options, only), NULL, 0},
    {OPT_TEXT, "precision", "WHICH", "exact, fast or auto (exact)", offsetof(check_options, precision), "auto|exact|fast", 0},
    {OPT_TEXT, "kv-dtype", "TYPE", "keys and values in auto, f32, bf16 or f16", offsetof(check_options, kv_dtype), "auto|f32|bf16|f16", 0},
    {OPT_NUMBER, "tolerance", "X", "largest error of rows and logits, of the largest magnitude (0.001)", offsetof(check_options, tolerance), NULL, 0},
    {OPT_INT, "threads", "N", "compute threads (all CPUs of the process)", offsetof(check_options, threads), NULL, 't'},
    {OPT_SWITCH, "json", NULL, "as JSON", offsetof(check_options, json), NULL, 0},
    {0},
};

/* ---- printing --------------------------------------------------------------------------------------------------------------- */

static void print_report(const char *part, const check_report *r)
{
    for (int s = 0; s < STAGE_COUNT; s++) {
        const stage_result *x = &r->stage[s];
        if (!x->compared) continue;
        printf("  %-8s %-10s %-6s %4d", part, stage_name((stage)s), x->failed ? "FAILED" : "ok", x->compared);
        if (x->failed) printf(", %d differ", x->failed);
        if (x->worst_at[0]) printf(", largest error %.2g (%s)", x->worst, x->worst_at);
        printf("\n");
        if (x->failed) printf("  %-8s %-10s %s\n", "", "", x->first);
    }
    fflush(stdout);
}

static json_t *report_json(const check_report *r)
{
    json_t *stages = json_object();
    for (int s = 0; s < STAGE_COUNT; s++) {
        const stage_result *x = &r->stage[s];
        if (!x->compared) continue;
        json_t *one = json_pack("{s:b, s:i, s:i}", "ok", !x->failed, "compared", x->compared, "failed", x->failed);
        if (x->worst_at[0]) {
            json_object_set_new(one, "largest_error", json_real(x->worst < 1e300 ? x->worst : 1e300));
            json_object_set_new(one, "largest_error_at", json_string(x->worst_at));
        }
        if (x->failed) json_object_set_new(one, "first", json_string(x->first));
        json_object_set_new(stages, stage_name((stage)s), one);
    }
    return stages;
}

/* ---- one folder ---------------------------------------------------------------------------------------------------------------- */

static bool read_modes(const char *list, bool wanted[MODE_COUNT], vlm_error *error)
{
    for (const char *p = list; *p;) {
        size_t n = strcspn(p, ",");
        bool found = n == 3 && !strncmp(p, "all", 3);
        for (int m = 0; m < MODE_COUNT; m++) {
            bool this_one = (n == 3 && !strncmp(p, "all", 3)) || (strlen(mode_name((check_mode)m)) == n && !strncmp(p, mode_name((check_mode)m), n));
            wanted[m] = wanted[m] || this_one;
            found = found || this_one;
        }
        if (!found) return err_set(error, VLM_INVALID, "--modes: \"%.*s\" is none of solo, batch, chunk, cached, preempt, all", (int)n, p);
        p += n + (p[n] == ',');
    }
    return true;
}

static vlm_model *load(const check_options *o, const check_suite *s, const char *dir, vlm_error *error)
{
    vlm_load_options load_options = vlm_load_options_default();
    load_options.precision = o->precision;
    load_options.kv_dtype = o->kv_dtype;
    load_options.threads = (int)o->threads;
    load_options.adapters = s->adapters;
    if (interactive() && !o->json) load_options.progress = progress_bar;
    vlm_model *m = vlm_load(s->checkpoint ? s->checkpoint : dir, &load_options, error);
    progress_clear();
    return m;
}

static bool take_report(const check_options *o, const char *part, const check_report *r, json_t *parts)
{
    if (!o->json) print_report(part, r);
    json_object_set_new(parts, part, report_json(r));
    return report_ok(r);
}

/* True when everything agrees; *exit_code is set when the folder could not be checked at all. */
static bool check_folder(const check_options *o, const char *dir, const bool wanted[MODE_COUNT], json_t *list, int *exit_code)
{
    check_suite suite = {0};
    vlm_error error = {0};
    json_t *parts = json_object();
    vlm_model *m = suite_load(&suite, dir, o->media, o->only, &error) ? load(o, &suite, dir, &error) : NULL;
    bool ran = m != NULL, same = true;
    if (ran) {
        check_report *r = MEM_NEW(check_report);
        if (!o->json)
            printf("%s: %s, %d case%s, %s, %s\n", dir, m->arch->name, suite.count, suite.count == 1 ? "" : "s",
                   m->dev.precision == PRECISION_EXACT ? "exact" : "fast", m->dev.isa);
        if (r) {
            check_tokenizer(r, m, &suite);
            for (int i = 0; i < suite.count; i++) check_prompt(r, m, &suite, &suite.cases[i]);
            check_answers(r, m, &suite);
            same = take_report(o, "prompt", r, parts);
        } else {
            ran = err_memory(&error, sizeof *r);
        }
        for (int mode = 0; ran && mode < MODE_COUNT; mode++) {
            if (!wanted[mode]) continue;
            *r = (check_report){0};
            ran = check_run(r, m, &suite, (check_mode)mode, o->tolerance, &error);
            if (ran) same = take_report(o, mode_name((check_mode)mode), r, parts) && same;
        }
        mem_free(r);
    }
    if (!ran) *exit_code = report(&error);
    json_array_append_new(list, json_pack("{s:s, s:b, s:o}", "path", dir, "ok", ran && same, "parts", parts));
    vlm_model_free(m);
    suite_free(&suite);
    return ran && same;
}

static int run_check(const command *self, void *memory, texts words)
{
    (void)self;
    const check_options *o = memory;
    bool wanted[MODE_COUNT] = {0}, same = true;
    vlm_error error = {0};
    int exit_code = 0;
    if (!read_modes(o->modes, wanted, &error)) return report(&error);
    json_t *list = json_array();
    const char *demo = demo_model();
    for (int i = 0; i < (words.count ? words.count : 1); i++)
        same = check_folder(o, words.count ? words.item[i] : demo, wanted, list, &exit_code) && same;
    if (o->json) print_json(list);
    else json_decref(list);
    return exit_code ? exit_code : same ? 0 : 1;
}

const command command_check = {
    .name = "check", .help = "Compare a checkpoint with its reference cases, stage by stage", .usage = "[options] [DIR ...]",
    .options = options_table, .size = sizeof(check_options), .defaults = defaults, .run = run_check,
    .description = "Reads cases.json and golden.safetensors beside (or one folder above) the checkpoint and compares tokenizer, prompt text, ids, processor "
                   "tensors, positions, encoder rows, hidden states after each layer, logits and greedy tokens. For each stage the largest relative error and the "
                   "first place that differs are shown. Exit code 1 when anything differs.\n"
                   "Modes: solo runs one case at a time; batch all in one ragged batch with staggered arrival; chunk with prompts in chunks of 7 tokens; cached "
                   "each case twice, the second from the prefix and vision caches; preempt with so few pages that sequences are preempted.",
};

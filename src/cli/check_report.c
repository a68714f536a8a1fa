/* check_report.c - see check.h: comparing, and remembering the largest error and the first place that differs. */
#include "cli/check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

const char *stage_name(stage s)
{
    static const char *const names[] = {"tokenizer", "prompt", "ids", "processor", "positions", "rows", "hidden", "logits", "tokens", "answer", "mode"};
    return names[s];
}

void check_same(check_report *r, stage s, bool same, const char *format, ...)
{
    stage_result *result = &r->stage[s];
    result->compared++;
    if (same) return;
    if (!result->failed++) {
        va_list args;
        va_start(args, format);
        vsnprintf(result->first, sizeof result->first, format, args);
        va_end(args);
    }
}

static double magnitude(const float *x, int64_t n)
{
    double largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)x[i]));
    return largest;
}

void check_numbers(check_report *r, stage s, const float *got, const float *want, int64_t n, int64_t cols, tolerance t, const char *where)
{
    stage_result *result = &r->stage[s];
    double largest = magnitude(want, n), bound = t.bound * (largest > 0 ? largest : 1), worst = 0, level = t.level * 1.02 + bound;
    int64_t first = -1, worst_at = 0, off = 0;
    for (int64_t i = 0; i < n; i++) {
        double error = fabs((double)got[i] - (double)want[i]);
        if (!(error <= bound)) {                                      /* not a number counts as far away */
            if (!(t.level > 0 && error <= level)) off = n + 200;
            off++;
            if (first < 0) first = i;
        }
        if (!(error <= worst)) worst = isnan(error) ? INFINITY : error, worst_at = i;
    }
    bool same = t.level > 0 ? off <= (n + 199) / 200 : off == 0;
    double relative = worst / (largest > 0 ? largest : 1);
    if (!(relative <= result->worst)) {
        result->worst = relative;
        snprintf(result->worst_at, sizeof result->worst_at, "%s", where);
    }
    if (same) return check_same(r, s, true, "%s", "");
    if (first < 0) first = worst_at;
    char place[64];
    if (cols > 0) snprintf(place, sizeof place, "row %lld, column %lld", (long long)(first / cols), (long long)(first % cols));
    else snprintf(place, sizeof place, "element %lld", (long long)first);
    check_same(r, s, false, "%s: %s is %.6g, %.6g was expected; largest difference %.3g of %.3g", where, place, (double)got[first], (double)want[first],
               worst, largest);
}

bool report_ok(const check_report *r)
{
    for (int s = 0; s < STAGE_COUNT; s++)
        if (r->stage[s].failed) return false;
    return true;
}

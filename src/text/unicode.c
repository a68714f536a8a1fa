/* unicode.c - see unicode.h: binary search in the tables. */
#include "text/unicode.h"

#include <string.h>

typedef struct unicode_case_range { uint32_t first, last, step; int32_t distance; } unicode_case_range;
typedef struct unicode_script_range { uint32_t first, last; uint8_t script; } unicode_script_range;

#include "text/unicode_tables.h"

#define COUNT(table) (sizeof (table) / sizeof *(table))

/* Index of the last run that begins at or before `code`. */
static size_t category_index(uint32_t code)
{
    size_t low = 0, high = COUNT(unicode_categories);
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (unicode_categories[middle] >> 5 <= code) low = middle;
        else high = middle;
    }
    return low;
}

unicode_category unicode_category_of(uint32_t code) { return (unicode_category)(unicode_categories[category_index(code)] & 31); }

bool unicode_category_run(uint32_t from, unicode_range *run, unicode_category *category)
{
    if (from >= UNICODE_POINTS) return false;
    size_t i = category_index(from);
    *category = (unicode_category)(unicode_categories[i] & 31);
    run->first = from;
    run->last = i + 1 < COUNT(unicode_categories) ? (unicode_categories[i + 1] >> 5) - 1 : UNICODE_POINTS - 1;
    return true;
}

void unicode_expand(uint8_t *table)
{
    for (size_t i = 0; i < COUNT(unicode_categories); i++) {
        uint32_t first = unicode_categories[i] >> 5, end = i + 1 < COUNT(unicode_categories) ? unicode_categories[i + 1] >> 5 : UNICODE_POINTS;
        memset(table + first, (int)(unicode_categories[i] & 31), end - first);
    }
}

#define SET(table) {table, COUNT(table)}
static const struct { const unicode_range *range; size_t count; } sets[] = {
    SET(unicode_word), SET(unicode_numeric), SET(unicode_punctuation), SET(unicode_bert_control), SET(unicode_bert_accent), SET(unicode_mark),
    SET(unicode_inert), SET(unicode_regex_word), SET(unicode_regex_alphabetic), SET(unicode_regex_han), SET(unicode_regex_hiragana),
    SET(unicode_regex_katakana), SET(unicode_regex_hangul), SET(unicode_regex_arabic), SET(unicode_regex_cyrillic), SET(unicode_regex_greek),
    SET(unicode_regex_latin), SET(unicode_regex_thai), SET(unicode_regex_hebrew), SET(unicode_regex_devanagari),
};

const unicode_range *unicode_ranges(unicode_set set, size_t *count)
{
    *count = sets[set].count;
    return sets[set].range;
}

bool unicode_in(unicode_set set, uint32_t code)
{
    const unicode_range *range = sets[set].range;
    size_t low = 0, high = sets[set].count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > range[middle].last) low = middle + 1;
        else if (code < range[middle].first) high = middle;
        else return true;
    }
    return false;
}

uint32_t unicode_lower(uint32_t code, uint32_t *second)
{
    *second = 0;
    if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
    if (code == 0x130) {
        *second = 0x307;
        return 'i';
    }
    size_t low = 0, high = COUNT(unicode_lowercase);
    while (low < high) {
        size_t middle = (low + high) / 2;
        const unicode_case_range *r = &unicode_lowercase[middle];
        if (code > r->last) low = middle + 1;
        else if (code < r->first) high = middle;
        else return (code - r->first) % r->step ? code : (uint32_t)((int64_t)code + r->distance);
    }
    return code;
}

int unicode_script(uint32_t code)
{
    size_t low = 0, high = COUNT(unicode_scripts);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (code > unicode_scripts[middle].last) low = middle + 1;
        else if (code < unicode_scripts[middle].first) high = middle;
        else return unicode_scripts[middle].script;
    }
    return 0;
}

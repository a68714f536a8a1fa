/* unicode.h - properties of characters as Hugging Face `tokenizers` sees them (tools/unicode.py says why they are not one version of Unicode). */
#ifndef VLM_TEXT_UNICODE_H
#define VLM_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct unicode_range { uint32_t first, last; } unicode_range;

/* General categories, in the order of the tables. */
typedef enum unicode_category {
    UC_CN, UC_LU, UC_LL, UC_LT, UC_LM, UC_LO, UC_MN, UC_MC, UC_ME, UC_ND, UC_NL, UC_NO, UC_ZS, UC_ZL, UC_ZP, UC_CC, UC_CF, UC_CO, UC_CS, UC_PC, UC_PD, UC_PS,
    UC_PE, UC_PI, UC_PF, UC_PO, UC_SM, UC_SC, UC_SK, UC_SO, UC_COUNT
} unicode_category;
/* Sets of categories as bits. */
#define UC_BIT(category) (1u << (category))
enum {
    UC_LETTER = 1 << UC_LU | 1 << UC_LL | 1 << UC_LT | 1 << UC_LM | 1 << UC_LO,
    UC_MARK = 1 << UC_MN | 1 << UC_MC | 1 << UC_ME,
    UC_NUMBER = 1 << UC_ND | 1 << UC_NL | 1 << UC_NO,
    UC_SEPARATOR = 1 << UC_ZS | 1 << UC_ZL | 1 << UC_ZP,
    UC_OTHER = 1 << UC_CN | 1 << UC_CC | 1 << UC_CF | 1 << UC_CO | 1 << UC_CS,
    UC_PUNCTUATION = 1 << UC_PC | 1 << UC_PD | 1 << UC_PS | 1 << UC_PE | 1 << UC_PI | 1 << UC_PF | 1 << UC_PO,
    UC_SYMBOL = 1 << UC_SM | 1 << UC_SC | 1 << UC_SK | 1 << UC_SO
};
unicode_category unicode_category_of(uint32_t code);
/* The next run of code points of one category at or after `from`; false when there is none. */
bool unicode_category_run(uint32_t from, unicode_range *run, unicode_category *category);
enum { UNICODE_POINTS = 0x110000 };
/* The category of every code point, for quick looking up: table has UNICODE_POINTS places. */
void unicode_expand(uint8_t *table);

typedef enum unicode_set {
    UNICODE_WORD,                  /* \w of added tokens and of the pre-tokenizer Whitespace */
    UNICODE_NUMERIC, UNICODE_PUNCTUATION, UNICODE_BERT_CONTROL, UNICODE_BERT_ACCENT, UNICODE_MARK_REMOVED,
    UNICODE_INERT,                 /* what the normal forms leave alone, being younger than their data */
    UNICODE_REGEX_WORD,            /* \w of expressions, beside letters, marks, Nd, Nl and Pc */
    UNICODE_REGEX_ALPHABETIC,      /* Alphabetic beside letters and Nl */
    UNICODE_HAN, UNICODE_HIRAGANA, UNICODE_KATAKANA, UNICODE_HANGUL, UNICODE_ARABIC, UNICODE_CYRILLIC, UNICODE_GREEK, UNICODE_LATIN, UNICODE_THAI,
    UNICODE_HEBREW, UNICODE_DEVANAGARI
} unicode_set;
bool unicode_in(unicode_set set, uint32_t code);
const unicode_range *unicode_ranges(unicode_set set, size_t *count);

/* Lower case; U+0130 becomes U+0069 U+0307: *second is 0 otherwise. */
uint32_t unicode_lower(uint32_t code, uint32_t *second);
/* A number for the script, 0 for none: for the pre-tokenizer UnicodeScripts, for which Hiragana and Katakana are Han. */
int unicode_script(uint32_t code);

#endif

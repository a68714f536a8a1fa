/* utf8.h - UTF-8 in and out of text that may be broken. */
#ifndef VLM_TEXT_UTF8_H
#define VLM_TEXT_UTF8_H

#include "base/mem.h"

/* Decodes one code point of s[0..n), n > 0; returns how many bytes it took. Bytes that are not UTF-8 give U+FFFD for each
 * maximal subpart (as Python's and Rust's "replace"). Returns 0 when s is a correct but unfinished beginning. */
size_t utf8_next(const char *s, size_t n, uint32_t *code);
/* The same, but an unfinished beginning counts as broken: never returns 0. */
size_t utf8_next_lossy(const char *s, size_t n, uint32_t *code);
bool utf8_valid(const char *s, size_t n);
/* Number of code points of valid UTF-8. */
size_t utf8_length(const char *s, size_t n);
/* Appends s with every broken part replaced by U+FFFD. */
bool utf8_add_lossy(buf *out, const char *s, size_t n);
/* Length of the UTF-8 sequence that begins with byte `lead` of valid text. */
static inline size_t utf8_size(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }
/* First occurrence of what[0..m) in s[from..n); SIZE_MAX if there is none. */
size_t bytes_find(const char *s, size_t n, size_t from, const char *what, size_t m);
/* Length in bytes of the first grapheme cluster of valid text, n > 0. */
size_t utf8_grapheme(const char *s, size_t n);
/* Unicode White_Space. */
bool unicode_is_space(uint32_t code);

#endif

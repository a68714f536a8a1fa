/* string.c - JSON strings and numbers: escaping, decoding, what is a number. */
#include "text/toolcall/internal.h"

bool value_add_escaped(buf *out, const char *text, size_t size)
{
    size_t from = 0;
    for (size_t i = 0; i <= size; i++) {
        unsigned char c = i < size ? (unsigned char)text[i] : 0;
        if (i < size && c >= 0x20 && c != '"' && c != '\\') continue;
        buf_add(out, text + from, i - from);
        from = i + 1;
        if (i == size) break;
        const char *at = strchr("\nn\tt\rr\"\"\\\\\bb\ff", c);
        if (c && at) {
            buf_addc(out, '\\');
            buf_addc(out, at[1]);
        }
        else buf_addf(out, "\\u%04x", c);
    }
    return !out->failed;
}

bool value_add_string(buf *out, const char *text, size_t size)
{
    return buf_addc(out, '"') && value_add_escaped(out, text, size) && buf_addc(out, '"');
}

static int hex(char c) { return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

long value_hex(const char *s, size_t n)
{
    long value = 0;
    for (size_t i = 0; i < n; i++) {
        int digit = hex(s[i]);
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

bool value_decode_string(const char *json, size_t size, buf *out)
{
    if (size < 2 || json[0] != '"' || json[size - 1] != '"') return false;
    for (size_t i = 1; i < size - 1; i++) {
        if (json[i] != '\\') {
            buf_addc(out, json[i]);
            continue;
        }
        char c = json[++i];
        const char *at = strchr("n\nt\tr\rb\bf\f", c);
        if (c != 'u') {
            buf_addc(out, at && c >= 'a' ? at[1] : c);
            continue;
        }
        long code = i + 4 < size ? value_hex(json + i + 1, 4) : -1;
        i += 4;
        if (code >= 0xD800 && code < 0xDC00 && i + 6 < size && json[i + 1] == '\\' && json[i + 2] == 'u') {
            long low = value_hex(json + i + 3, 4);
            if (low >= 0xDC00 && low < 0xE000) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                i += 6;
            }
        }
        buf_add_utf8(out, code < 0 ? 0xFFFD : (uint32_t)code);
    }
    return !out->failed;
}

bool value_is_number(const char *s, size_t n)
{
    size_t i = n && s[0] == '-';
    if (i >= n || !is_digit(s[i])) return false;
    if (s[i] == '0') i++;
    else while (i < n && is_digit(s[i])) i++;
    if (i < n && s[i] == '.') {
        if (++i >= n || !is_digit(s[i])) return false;
        while (i < n && is_digit(s[i])) i++;
    }
    if (i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '+' || s[i] == '-')) i++;
        if (i >= n || !is_digit(s[i])) return false;
        while (i < n && is_digit(s[i])) i++;
    }
    return i == n;
}

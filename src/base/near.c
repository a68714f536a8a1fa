/* near.c - see near.h: optimal string alignment on three rows. */
#include "base/near.h"

#include <ctype.h>
#include <string.h>

enum { LETTERS = 64 };

static int min(int a, int b) { return a < b ? a : b; }
static int lower(char c) { return tolower((unsigned char)c); }

int near_distance(const char *a, const char *b)
{
    int n = (int)strnlen(a, LETTERS - 1), m = (int)strnlen(b, LETTERS - 1), row[3][LETTERS];
    for (int j = 0; j <= m; j++) row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int differ = lower(a[i - 1]) != lower(b[j - 1]);
            now[j] = min(min(last[j] + 1, now[j - 1] + 1), last[j - 1] + differ);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) now[j] = min(now[j], before[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

bool near_enough(const char *typed, const char *known)
{
    size_t n = strlen(typed), m = strlen(known), longer = n > m ? n : m, shorter = n < m ? n : m;
    bool prefix = shorter >= 3;
    for (size_t i = 0; prefix && i < shorter; i++) prefix = lower(typed[i]) == lower(known[i]);
    return prefix || near_distance(typed, known) <= (int)(longer < 6 ? 1 : longer < 12 ? 3 : 4);
}

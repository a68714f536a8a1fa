/* near.h - "did you mean": how far apart two names are. */
#ifndef VLM_BASE_NEAR_H
#define VLM_BASE_NEAR_H

#include <stdbool.h>

/* Letters to insert, delete, replace or swap to get from a to b, case ignored; only the first 63 letters count. */
int near_distance(const char *a, const char *b);
/* Close enough to be worth a suggestion: few letters differ, or one begins with the other. */
bool near_enough(const char *typed, const char *known);

#endif

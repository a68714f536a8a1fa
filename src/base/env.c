/* env.c - see env.h. */
#include "base/env.h"

#include <stdlib.h>

static const char *get(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

const char *env_cpu(void) { return get("VLM_CPU"); }

/* version.c - the two calls of the public interface that belong to no floor. */
#include "base/mem.h"
#include "vlm.h"

#define TEXT2(x) #x
#define TEXT(x) TEXT2(x)

const char *vlm_version(void) { return TEXT(VLM_VERSION_MAJOR) "." TEXT(VLM_VERSION_MINOR) "." TEXT(VLM_VERSION_PATCH); }

void vlm_free(void *memory) { mem_free(memory); }

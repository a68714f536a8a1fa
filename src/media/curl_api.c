/* curl_api.c - finds libcurl's functions at run time; see curl_api.h. */
#include "media/curl_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "base/err.h"

struct curl_api curl_api;
static const char *missing;

static void look_up(void *handle, const char *name, void *function, size_t size)
{
    void *symbol = handle ? dlsym(handle, name) : NULL;
    if (!symbol && !missing) missing = name;
    memcpy(function, &symbol, size);
}

static void load(void)
{
    void *handle = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!handle) missing = "libcurl.so.4";
#define X(name) look_up(handle, #name, &curl_api.name, sizeof curl_api.name);
    CURL_API_TABLE(X)
#undef X
    if (!missing && curl_api.curl_global_init(CURL_GLOBAL_DEFAULT) != 0) missing = "curl_global_init";
}

bool curl_load(vlm_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return !missing || err_set(error, VLM_UNSUPPORTED, "URLs need libcurl: %s cannot be loaded", missing);
}

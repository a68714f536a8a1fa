/* curl_api.h - libcurl's functions, loaded when the first URL comes: most runs never fetch anything (see av_api.h). */
#ifndef VLM_MEDIA_CURL_API_H
#define VLM_MEDIA_CURL_API_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#undef curl_easy_setopt            /* macros that count arguments */
#undef curl_easy_getinfo

#include "base/err.h"

#define CURL_API_TABLE(X)                                                                                       \
    X(curl_global_init) X(curl_easy_init) X(curl_easy_setopt) X(curl_easy_getinfo) X(curl_easy_perform)          \
    X(curl_easy_cleanup) X(curl_easy_strerror) X(curl_url) X(curl_url_set) X(curl_url_get) X(curl_url_cleanup)   \
    X(curl_url_strerror) X(curl_free)

struct curl_api {
#define X(name) __typeof__(&name) name;
    CURL_API_TABLE(X)
#undef X
};
extern struct curl_api curl_api;

/* Loads and prepares the library, once. False with a message when it is missing. Any thread. */
bool curl_load(vlm_error *error);

#endif

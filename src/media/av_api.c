/* av_api.c - finds libav's functions at run time; see av_api.h. */
#define AV_API_TABLE_ONLY
#include "media/av_api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "base/err.h"

struct av_api av_api;
static const char *missing;        /* the library or function that is not there */

#define TEXT(x) #x
#define SONAME(library, version) "lib" #library ".so." TEXT(version)

static void *library(const char *name)
{
    void *handle = missing ? NULL : dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle && !missing) missing = name;
    return handle;
}

/* A function pointer out of an object pointer, as POSIX has it. */
static void look_up(void *handle, const char *name, void *function, size_t size)
{
    void *symbol = handle ? dlsym(handle, name) : NULL;
    if (!symbol && !missing) missing = name;
    memcpy(function, &symbol, size);
}

/* Process-wide switches of the library, too: no messages, and no allocation beyond the largest frame that the default ceilings
 * let through (boxes of an MP4 may claim a gigabyte). */
static void load(void)
{
    void *avutil = library(SONAME(avutil, LIBAVUTIL_VERSION_MAJOR)), *avcodec = library(SONAME(avcodec, LIBAVCODEC_VERSION_MAJOR));
    void *avformat = library(SONAME(avformat, LIBAVFORMAT_VERSION_MAJOR)), *swscale = library(SONAME(swscale, LIBSWSCALE_VERSION_MAJOR));
#define X(lib, name) look_up(lib, #name, &av_api.name, sizeof av_api.name);
    AV_API_TABLE(X)
#undef X
    if (missing) return;
    av_api.av_log_set_level(AV_LOG_QUIET);
    av_api.av_max_alloc((size_t)800 << 20);
}

bool av_load(vlm_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    if (!missing) return true;
    err_set(error, VLM_UNSUPPORTED, "videos, compressed sounds and rare picture formats need FFmpeg's libraries: %s cannot be loaded", missing);
    return err_hint(error, "install libavformat%d, libavcodec%d and libswscale%d", LIBAVFORMAT_VERSION_MAJOR, LIBAVCODEC_VERSION_MAJOR, LIBSWSCALE_VERSION_MAJOR);
}

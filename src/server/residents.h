/* residents.h - the models that the server holds: name, checkpoint, engine, state. A request borrows one for its time. */
#ifndef VLM_SERVER_RESIDENTS_H
#define VLM_SERVER_RESIDENTS_H

#include <jansson.h>

#include "server/refuse.h"

typedef enum resident_state { RESIDENT_LOADING, RESIDENT_READY, RESIDENT_FAILED } resident_state;
typedef struct residents residents;
typedef struct resident {
    struct resident *next;
    residents *owner;
    char *name, *path;
    resident_state state;          /* under the owner's lock */
    vlm_error error;               /* FAILED: why */
    vlm_model *model;
    vlm_engine *engine;
    int refs;                      /* under the owner's lock */
    double created, used;          /* seconds since 1970 */
} resident;

residents *residents_new(const vlm_load_options *load, const vlm_engine_options *engine, vlm_error *error);
/* Every borrowed one must have been given back. */
void residents_free(residents *all);
/* Loads the checkpoint at `path` as `name` on the calling thread; the first one added is the default. */
bool residents_add(residents *all, const char *name, const char *path, vlm_error *error);
/* Borrows the model of that name (NULL or "": the default one). NULL: refused. */
resident *residents_borrow(residents *all, const char *name, refusal *why);
void residents_return(resident *r);
/* All are loaded. */
bool residents_ready(residents *all);
/* [{"id", "object", "created", "owned_by", "loaded"}]; only the one of that name unless NULL. */
json_t *residents_list(residents *all, const char *name);
/* Calls fn for every one that is ready. */
void residents_each(residents *all, void (*fn)(void *user, resident *r), void *user);

#endif

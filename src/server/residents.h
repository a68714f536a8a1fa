/* residents.h - the models that may be served: name, checkpoint, and, while it is loaded, model and engine. A request borrows one for its time.
 *
 *   LISTED ──asked for──> LOADING ──> READY ──idle, and its place is needed; or unload──> LISTED
 *                            └──────> FAILED ──asked for again, some seconds later──> LOADING
 *
 * One thread loads and unloads; nobody else waits for it: a request for a model that is being loaded is put aside and served again when that has ended.
 * Only what is listed at the start is ever loaded: a client's words never become a path. */
#ifndef VLM_SERVER_RESIDENTS_H
#define VLM_SERVER_RESIDENTS_H

#include <jansson.h>

#include "server/refuse.h"

typedef enum resident_state { RESIDENT_LISTED, RESIDENT_LOADING, RESIDENT_READY, RESIDENT_FAILED } resident_state;
typedef struct residents residents;
typedef struct resident {
    struct resident *next;
    residents *owner;
    char *name, *path;
    uint64_t bytes;                /* of its weight files */
    /* under the owner's lock */
    resident_state state;
    bool wanted, unwanted;         /* to be loaded; to be unloaded when idle */
    vlm_error error;               /* FAILED: why */
    int refs;
    double created, used, failed;  /* seconds since 1970 */
    /* READY: fixed */
    vlm_model *model;
    vlm_engine *engine;
} resident;

typedef struct residents_options {
    vlm_load_options load;
    vlm_engine_options engine;
    int max_loaded;                /* models at once; 0: any number */
    uint64_t max_bytes;            /* of weights at once; 0: any */
} residents_options;

residents *residents_new(const residents_options *options, vlm_error *error);
/* Every borrowed one must have been given back. */
void residents_free(residents *all);
/* Lists the checkpoint at `path` as `name`; the first one is the default. A name that is there already keeps its path. */
bool residents_list_model(residents *all, const char *name, const char *path, vlm_error *error);
/* Lists every folder below `dir` that holds a config.json, by its name (owner/name when it lies two deep). */
bool residents_list_folder(residents *all, const char *dir, vlm_error *error);
/* Loads it, and waits until that has ended: at the start. */
bool residents_load(residents *all, const char *name, vlm_error *error);

/* Borrows the model of that name (NULL or "": the default one). NULL: refused; or put aside (why->status 0), then x will be served again, and the caller just returns. */
resident *residents_borrow(residents *all, const char *name, exchange *x, refusal *why);
void residents_return(resident *r);
/* Unloads the models that are idle; those in use when they are. How many were loaded. names: filled with them. */
int residents_unload(residents *all, json_t *names);
/* Is everything loaded that was asked for? */
bool residents_ready(residents *all);
/* [{"id", "object", "created", "owned_by", "loaded"}]; only the one of that name unless NULL. */
json_t *residents_json(residents *all, const char *name);
/* Calls fn for every one that is loaded; under the lock. */
void residents_each(residents *all, void (*fn)(void *user, resident *r), void *user);

#endif

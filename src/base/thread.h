/* thread.h - the fork-join pool of compute threads.
 *
 * One pool belongs to one device; only one thread (the engine's, or the caller of a tool) forks on it at a time.
 * Work is cut into `count` items that threads take by atomic chunks, so that a late thread (shared cores) does not hold
 * the rest. Waiting threads spin briefly and then sleep in a futex: long spinning loses two thirds on shared cores. */
#ifndef VLM_BASE_THREAD_H
#define VLM_BASE_THREAD_H

#include <stdbool.h>
#include "vlm.h"

typedef struct pool pool;

/* threads: workers including the caller; 0: as many as the process may run on. NULL on failure. */
pool *pool_new(int threads, vlm_error *error);
void pool_free(pool *p);
int pool_threads(const pool *p);

/* One owner at a time: several engines on one model share its device; each takes it for one step. NULL: nothing to wait for. */
void pool_enter(pool *p);
void pool_leave(pool *p);

/* Calls fn(arg, begin, end, thread) for disjoint ranges that cover [0, count); `grain` items at least per call (the last may
 * be shorter). thread is 0 .. pool_threads-1 and identifies scratch. Returns when all is done; p == NULL runs it inline.
 * What fn computes for an item must not depend on the ranges: results have to be the same for any number of threads. */
typedef void (*pool_fn)(void *arg, int64_t begin, int64_t end, int thread);
void pool_for(pool *p, int64_t count, int64_t grain, pool_fn fn, void *arg);

/* CPUs this process may run on (affinity mask, cgroup quota rounded up). */
int cpu_count(void);

#endif

/* jobs.h - the server's own threads: short pieces of work that must not hold up sockets (parsing bodies, writing answers) or the
 * engine (which only says that something happened). Nothing here waits for a model: an answer in progress is an actor that is
 * run again whenever there is news (call.h). */
#ifndef VLM_SERVER_JOBS_H
#define VLM_SERVER_JOBS_H

#include "vlm.h"

typedef struct jobs jobs;
typedef void job_fn(void *user);

/* threads: how many; at least 1. */
jobs *jobs_new(int threads, vlm_error *error);
/* Runs what is queued, then ends the threads. */
void jobs_free(jobs *j);

/* A job is part of what it works on, so that queueing cannot fail. It may be queued again once it has begun to run. */
typedef struct job { struct job *next; job_fn *run; void *user; } job;
void jobs_push(jobs *j, job *work);

#endif

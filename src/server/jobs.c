/* jobs.c - see jobs.h: a queue, a lock and some threads. */
#include "server/jobs.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "base/err.h"
#include "base/mem.h"

struct jobs {
    pthread_mutex_t lock;
    pthread_cond_t news;
    job *first, *last;
    bool over;
    int count;
    pthread_t thread[];
};

static void *work(void *user)
{
    jobs *j = user;
    pthread_mutex_lock(&j->lock);
    for (;;) {
        while (!j->first && !j->over) pthread_cond_wait(&j->news, &j->lock);
        job *next = j->first;
        if (!next) break;
        if (!(j->first = next->next)) j->last = NULL;
        pthread_mutex_unlock(&j->lock);
        next->run(next->user);
        pthread_mutex_lock(&j->lock);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

jobs *jobs_new(int threads, vlm_error *error)
{
    jobs *j = mem_new(1, sizeof *j + (size_t)threads * sizeof *j->thread);
    if (!j) return err_memory(error, sizeof *j), NULL;
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->news, NULL);
    while (j->count < threads) {
        int failed = pthread_create(&j->thread[j->count], NULL, work, j);
        if (failed) {
            err_set(error, VLM_IO, "a thread of the server cannot be started: %s", strerror(failed));
            jobs_free(j);
            return NULL;
        }
        j->count++;
    }
    return j;
}

void jobs_free(jobs *j)
{
    if (!j) return;
    pthread_mutex_lock(&j->lock);
    j->over = true;
    pthread_cond_broadcast(&j->news);
    pthread_mutex_unlock(&j->lock);
    for (int i = 0; i < j->count; i++) pthread_join(j->thread[i], NULL);
    pthread_cond_destroy(&j->news);
    pthread_mutex_destroy(&j->lock);
    mem_free(j);
}

void jobs_push(jobs *j, job *next)
{
    pthread_mutex_lock(&j->lock);
    next->next = NULL;
    if (j->last) j->last->next = next;
    else j->first = next;
    j->last = next;
    pthread_cond_signal(&j->news);
    pthread_mutex_unlock(&j->lock);
}

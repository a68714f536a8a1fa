/* thread.c - see thread.h. One job at a time: its fields are written before `state` is opened and `ticket` is raised; a worker that
 * sees a new ticket joins while the state is open, takes chunks from `next`, and counts itself out. The caller takes chunks too; when none
 * are left it closes the state and waits for those who joined, never for one that is asleep or that the kernel has taken off its
 * core: it finds the state closed when it comes. So a second thread on a busy machine costs little, and nothing waits for it. */
#define _GNU_SOURCE
#include "base/thread.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mem.h"

enum { SPIN_ROUNDS = 2000 };                      /* some ten microseconds: longer than a gap between two operations */
static const uint32_t OPEN = 1u << 31, WAITED = 1u << 30, JOINED = (1u << 30) - 1;

struct pool {
    int threads;                                  /* with the caller */
    pthread_t *workers;
    _Atomic uint32_t ticket;                      /* raised for every job; workers wait on it */
    _Atomic uint32_t sleepers;                    /* workers in the kernel, or on their way: only then a wake-up is needed */
    _Atomic uint32_t state;                       /* OPEN: workers may join; WAITED: the caller sleeps on it; workers in the job */
    atomic_bool stop;
    pool_fn fn;
    void *arg;
    int64_t count, chunk;
    _Atomic int64_t next;
    _Atomic int ids;
    pthread_mutex_t owner;                        /* pool_enter */
};

static void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int most)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, most, NULL, NULL, 0);
}

/* The ticket, when it is no longer `seen`. */
static uint32_t wait_ticket(pool *p, uint32_t seen)
{
    uint32_t now;
    for (int i = 0; i < SPIN_ROUNDS; i++) {
        if ((now = atomic_load_explicit(&p->ticket, memory_order_acquire)) != seen) return now;
        cpu_relax();
    }
    atomic_fetch_add(&p->sleepers, 1);            /* before the ticket is looked at: pool_for raises it before it looks here */
    while ((now = atomic_load(&p->ticket)) == seen) futex_wait(&p->ticket, seen);
    atomic_fetch_sub(&p->sleepers, 1);
    return now;
}

static bool join(pool *p)
{
    uint32_t state = atomic_load_explicit(&p->state, memory_order_relaxed);
    while (state & OPEN) {
        if (atomic_compare_exchange_weak_explicit(&p->state, &state, state + 1, memory_order_acquire, memory_order_relaxed)) return true;
    }
    return false;
}

static void leave(pool *p)
{
    uint32_t state = atomic_fetch_sub_explicit(&p->state, 1, memory_order_acq_rel);
    if ((state & WAITED) && (state & JOINED) == 1) futex_wake(&p->state, 1);
}

/* No one joins any more; returns when those who have joined are out. */
static void close_job(pool *p)
{
    uint32_t state = atomic_fetch_and_explicit(&p->state, ~OPEN, memory_order_acq_rel) & ~OPEN;
    for (int i = 0; (state & JOINED) && i < SPIN_ROUNDS; i++) {
        cpu_relax();
        state = atomic_load_explicit(&p->state, memory_order_acquire);
    }
    while (state & JOINED) {
        if (state & WAITED) futex_wait(&p->state, state);
        else if (!atomic_compare_exchange_weak(&p->state, &state, state | WAITED)) continue;
        state = atomic_load_explicit(&p->state, memory_order_acquire);
    }
}

static void take_chunks(pool *p, int thread)
{
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->chunk, memory_order_relaxed);
        if (begin >= p->count) return;
        int64_t end = begin + p->chunk < p->count ? begin + p->chunk : p->count;
        p->fn(p->arg, begin, end, thread);
    }
}

static void *worker_main(void *arg)
{
    pool *p = arg;
    int thread = atomic_fetch_add(&p->ids, 1) + 1;
    for (uint32_t seen = 0;;) {
        seen = wait_ticket(p, seen);
        if (atomic_load(&p->stop)) return NULL;
        if (!join(p)) continue;
        take_chunks(p, thread);
        leave(p);
    }
}

void pool_for(pool *p, int64_t count, int64_t grain, pool_fn fn, void *arg)
{
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    if (!p || p->threads == 1 || count <= grain) {
        fn(arg, 0, count, 0);
        return;
    }
    int64_t chunk = count / (16 * (int64_t)p->threads);     /* many chunks a thread: the last ones even out what came before */
    p->chunk = chunk < grain ? grain : chunk / grain * grain;
    p->fn = fn;
    p->arg = arg;
    p->count = count;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->state, OPEN, memory_order_release);
    atomic_fetch_add(&p->ticket, 1);
    if (atomic_load(&p->sleepers)) {
        int64_t helpers = (count - 1) / p->chunk;
        futex_wake(&p->ticket, helpers < p->threads ? (int)helpers : p->threads);
    }
    take_chunks(p, 0);
    close_job(p);
}

pool *pool_new(int threads, vlm_error *error)
{
    if (threads <= 0) threads = cpu_count();
    if (threads > 1024) threads = 1024;
    pool *p = MEM_NEW(pool);
    if (p) pthread_mutex_init(&p->owner, NULL);
    if (!p || !(p->workers = MEM_ARRAY((size_t)threads, pthread_t))) {
        mem_free(p);
        return err_memory(error, sizeof *p), NULL;
    }
    for (p->threads = 1; p->threads < threads; p->threads++) {
        if (mem_inject() || pthread_create(&p->workers[p->threads - 1], NULL, worker_main, p)) {
            err_set(error, VLM_MEMORY, "cannot start compute thread %d of %d", p->threads, threads);
            pool_free(p);
            return NULL;
        }
    }
    return p;
}

void pool_free(pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    atomic_fetch_add(&p->ticket, 1);
    futex_wake(&p->ticket, INT_MAX);
    for (int i = 0; i < p->threads - 1; i++) pthread_join(p->workers[i], NULL);
    pthread_mutex_destroy(&p->owner);
    mem_free(p->workers);
    mem_free(p);
}

void pool_enter(pool *p) { if (p) pthread_mutex_lock(&p->owner); }
void pool_leave(pool *p) { if (p) pthread_mutex_unlock(&p->owner); }

int pool_threads(const pool *p) { return p ? p->threads : 1; }

/* CPUs allowed by a cgroup v2 quota ("max 100000" or "150000 100000"), or a large number. */
static int cgroup_cpus(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    long long quota = 0, period = 0;
    int fields = f ? fscanf(f, "%lld %lld", &quota, &period) : 0;
    if (f) fclose(f);
    if (fields != 2 || quota <= 0 || period <= 0) return INT_MAX;
    return (int)((quota + period - 1) / period);
}

int cpu_count(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = cgroup_cpus();
    if (n > quota) n = quota;
    return n < 1 ? 1 : n;
}

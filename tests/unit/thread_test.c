/* thread_test.c - base/thread.h: every item once, whatever threads come when. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/thread.h"

typedef struct work { uint8_t done[5000]; _Atomic int64_t sum; int threads; int nap; } work;

static void add(void *arg, int64_t begin, int64_t end, int thread)
{
    work *w = arg;
    int64_t sum = 0;
    assert_true(thread >= 0 && thread < w->threads && begin < end);
    for (int64_t i = begin; i < end; i++) {
        w->done[i]++;
        sum += i;
    }
    atomic_fetch_add(&w->sum, sum);
    if (w->nap && thread) usleep((useconds_t)w->nap);
}

static void run_jobs(int threads, int jobs, int nap, int pause)
{
    pool *p = pool_new(threads, NULL);
    work *w = MEM_NEW(work);
    assert_true(p && w);
    w->threads = pool_threads(p);
    w->nap = nap;
    for (int j = 0; j < jobs; j++) {
        int64_t count = j * 37 % 5000, sum = count * (count - 1) / 2;
        atomic_store(&w->sum, 0);
        for (int64_t i = 0; i < count; i++) w->done[i] = 0;
        pool_for(p, count, 1 + j % 7, add, w);
        assert_int_equal(atomic_load(&w->sum), sum);
        for (int64_t i = 0; i < count; i++) assert_int_equal(w->done[i], 1);
        if (pause && j % 16 == 0) usleep((useconds_t)pause);      /* the workers fall asleep */
    }
    mem_free(w);
    pool_free(p);
}

static void every_item_once(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 8};
    for (int i = 0; i < 4; i++) run_jobs(threads[i], 1000, 0, 0);
}

static void workers_that_sleep(void **state)
{
    (void)state;
    run_jobs(3, 300, 0, 500);
}

static void workers_that_are_slow(void **state)                   /* the caller has to wait for those who joined */
{
    (void)state;
    run_jobs(3, 60, 200, 0);
}

static void no_pool(void **state)
{
    (void)state;
    work *w = MEM_NEW(work);
    assert_non_null(w);
    w->threads = 1;
    pool_for(NULL, 100, 10, add, w);
    assert_int_equal(atomic_load(&w->sum), 4950);
    pool_for(NULL, 0, 10, add, w);
    assert_int_equal(atomic_load(&w->sum), 4950);
    mem_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_item_once), cmocka_unit_test(workers_that_sleep), cmocka_unit_test(workers_that_are_slow),
                                       cmocka_unit_test(no_pool)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* http_watch.c - one thread that sees what libmicrohttpd does not: a client that closes while its connection sleeps (epoll tells at once), and
 * heads and bodies that come too slowly (a look each half second). A client that shuts down its sending side only counts as gone: it cannot be told
 * from one that has closed before something is written to it. */
#define _GNU_SOURCE
#include "server/http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/err.h"

enum { LOOK_MS = 500, EVENTS = 64 };

void watch_exchange(http *h, exchange *x)
{
    struct epoll_event event = {.events = EPOLLRDHUP | EPOLLONESHOT, .data.u64 = x->number};
    if (epoll_ctl(h->epoll, EPOLL_CTL_MOD, x->client->fd, &event) && errno == ENOENT) epoll_ctl(h->epoll, EPOLL_CTL_ADD, x->client->fd, &event);
}

/* The socket of exchange `number` has been closed by the client. The number may be of one that has ended since: then nothing is found. */
static void left(http *h, uint64_t number)
{
    pthread_mutex_lock(&h->lock);
    exchange *x = h->exchanges;
    while (x && x->number != number) x = x->next;
    if (x && !exchange_try_ref(x)) x = NULL;
    pthread_mutex_unlock(&h->lock);
    if (!x) return;
    exchange_leave(x);
    exchange_unref(x);
}

static void cut_late(http *h)
{
    double now = http_now();
    pthread_mutex_lock(&h->lock);
    for (client *l = h->links; l; l = l->next) {
        if (!l->until || now < l->until || l->cut) continue;
        l->cut = true;
        shutdown(l->fd, SHUT_RDWR);                        /* the library sees the end, and closes */
    }
    pthread_mutex_unlock(&h->lock);
}

static void *watch(void *user)
{
    http *h = user;
    double looked = 0;
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(h->epoll, events, EVENTS, LOOK_MS);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == 0) return NULL;      /* woken to end */
            left(h, events[i].data.u64);
        }
        if (http_now() - looked < LOOK_MS * 1e-3) continue;
        looked = http_now();
        cut_late(h);
    }
}

bool watch_start(http *h, vlm_error *error)
{
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0};
    if (h->epoll < 0 || pipe2(h->wake, O_CLOEXEC) || epoll_ctl(h->epoll, EPOLL_CTL_ADD, h->wake[0], &event))
        return err_set(error, VLM_IO, "the watch over connections cannot be set up: %s", strerror(errno));
    int failed = pthread_create(&h->watcher, NULL, watch, h);
    if (failed) return err_set(error, VLM_IO, "the watch over connections cannot be started: %s", strerror(failed));
    return h->watching = true;
}

void watch_stop(http *h)
{
    if (h->watching) {
        while (write(h->wake[1], "", 1) < 0 && errno == EINTR) { }
        pthread_join(h->watcher, NULL);
    }
    if (h->epoll >= 0) close(h->epoll);
    if (h->wake[0] >= 0) { close(h->wake[0]); close(h->wake[1]); }
}

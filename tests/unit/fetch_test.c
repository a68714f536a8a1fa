/* fetch_test.c - media_fetch: what is read, what is refused, how much. A small HTTP server on the loopback plays the internet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "media/fetch.h"

/* ---- the server: /ok, /large (no length, endless), /liar (length 2^40), /loop, /file (redirects to file:), /slow, /missing ---- */

static int listener = -1, port;

static void answer(int fd, const char *path)
{
    char head[400] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if (strcmp(path, "/ok") == 0) strcpy(head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    if (strcmp(path, "/hop") == 0) snprintf(head, sizeof head, "HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:%d/ok\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", port);
    if (strcmp(path, "/loop") == 0) strcpy(head, "HTTP/1.1 302 F\r\nLocation: /loop\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    if (strcmp(path, "/file") == 0) strcpy(head, "HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    if (strcmp(path, "/user") == 0) snprintf(head, sizeof head, "HTTP/1.1 302 F\r\nLocation: http://a:b@127.0.0.1:%d/ok\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", port);
    if (strcmp(path, "/liar") == 0) strcpy(head, "HTTP/1.1 200 OK\r\nContent-Length: 1099511627776\r\nConnection: close\r\n\r\n");
    if (strcmp(path, "/large") == 0) strcpy(head, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    ssize_t n = write(fd, head, strlen(head));
    char block[4096];
    memset(block, 'x', sizeof block);
    if (strcmp(path, "/large") == 0)
        for (int i = 0; i < 100 && n > 0; i++) n = send(fd, block, sizeof block, MSG_NOSIGNAL);
    if (strcmp(path, "/slow") == 0) sleep(2);
    close(fd);
}

static void *serve(void *unused)
{
    (void)unused;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) return NULL;
        char request[2048] = "", path[256] = "";
        ssize_t n = recv(fd, request, sizeof request - 1, 0);
        if (n > 0 && sscanf(request, "GET %255s", path) == 1) answer(fd, path);
        else close(fd);
    }
}

static int start_server(void **state)
{
    static pthread_t thread;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 8)) return 1;
    getsockname(listener, (struct sockaddr *)&a, &size);
    port = ntohs(a.sin_port);
    *state = NULL;
    return pthread_create(&thread, NULL, serve, NULL);
}

static bool get(const char *path, media_policy policy, buf *out, vlm_error *error)
{
    char url[300];
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", port, path);
    *error = (vlm_error){0};
    buf_clear(out);
    return media_fetch(url, &policy, out, NULL, error);
}

static void network(void **state)
{
    (void)state;
    media_policy p = media_policy_default();
    p.private_addresses = true;
    p.max_bytes = 100000;
    buf b = {0};
    vlm_error e = {0};
    assert_true(get("/ok", p, &b, &e));
    assert_string_equal(b.data, "hello");
    assert_true(get("/hop", p, &b, &e));
    assert_string_equal(b.data, "hello");
    assert_false(get("/missing", p, &b, &e));
    assert_int_equal(e.code, VLM_NOT_FOUND);
    assert_false(get("/large", p, &b, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_true(b.size <= p.max_bytes);
    assert_false(get("/liar", p, &b, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_false(get("/loop", p, &b, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_false(get("/file", p, &b, &e));
    assert_int_equal(e.code, VLM_INVALID);
    assert_false(get("/user", p, &b, &e));
    p.max_redirects = 0;
    assert_false(get("/hop", p, &b, &e));
    p.timeout_seconds = 1;
    assert_false(get("/slow", p, &b, &e));
    p.network = false;
    assert_false(get("/ok", p, &b, &e));
    assert_int_equal(e.code, VLM_INVALID);
    buf_free(&b);
}

static void private_addresses_refused(void **state)
{
    (void)state;
    static const char *const hosts[] = {"127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::1]", "[::ffff:127.0.0.1]",
                                        "[::ffff:7f00:1]", "0.0.0.0", "169.254.169.254", "10.0.0.1", "[fe80::1]", "[fd00::1]"};
    media_policy p = media_policy_default();
    p.timeout_seconds = 2;
    buf b = {0};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char url[300];
        vlm_error e = {0};
        snprintf(url, sizeof url, "http://%s:%d/ok", hosts[i], port);
        assert_false(media_fetch(url, &p, &b, NULL, &e));
        assert_int_equal(e.code, VLM_INVALID);
        assert_non_null(strstr(e.message, "private address"));
    }
    assert_int_equal(b.size, 0);
    buf_free(&b);
}

static void crooked_urls_refused(void **state)
{
    (void)state;
    static const char *const urls[] = {"http://user@example.com/", "http://user:pw@example.com/", "http://example.com\\@127.0.0.1/", "http://",
                                       "http:///x", "http://exa mple.com/", "http://a\nb/", "ftp://example.com/x", "gopher://x/", "s3://bucket/x", "",
                                       "file://host/etc/passwd", "file:///a%00b", "file:///a%zz", "data:image/png;base64"};
    media_policy p = media_policy_default();
    p.timeout_seconds = 2;
    buf b = {0};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        vlm_error e = {0};
        if (media_fetch(urls[i], &p, &b, NULL, &e)) fail_msg("%s was fetched", urls[i]);
        assert_true(e.code != VLM_OK && e.message[0]);
    }
    buf_free(&b);
}

static bool v6_public(const char *text)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6};
    assert_int_equal(inet_pton(AF_INET6, text, &a.sin6_addr), 1);
    return fetch_address_is_public((struct sockaddr *)&a);
}

static bool v4_public(const char *text)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, text, &a.sin_addr), 1);
    return fetch_address_is_public((struct sockaddr *)&a);
}

static void addresses(void **state)
{
    (void)state;
    static const char *const closed4[] = {"0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.255", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "240.0.0.1", "255.255.255.255"};
    static const char *const open4[] = {"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.167.0.1", "198.17.0.1", "223.255.255.1"};
    static const char *const closed6[] = {"::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::", "2002:a00:1::",
        "2001::1", "2001:db8::1", "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "100::1", "64:ff9b:1::1"};
    static const char *const open6[] = {"2606:4700::1", "2a00:1450::1", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::8.8.8.8", "2001:4860:4860::8888"};
    for (size_t i = 0; i < sizeof closed4 / sizeof *closed4; i++) assert_false(v4_public(closed4[i]));
    for (size_t i = 0; i < sizeof open4 / sizeof *open4; i++) assert_true(v4_public(open4[i]));
    for (size_t i = 0; i < sizeof closed6 / sizeof *closed6; i++) assert_false(v6_public(closed6[i]));
    for (size_t i = 0; i < sizeof open6 / sizeof *open6; i++) assert_true(v6_public(open6[i]));
}

static void data_urls(void **state)
{
    (void)state;
    static const struct { const char *url, *text; } good[] = {
        {"data:,hello%20there", "hello there"}, {"data:text/plain;charset=utf-8;base64,aGVsbG8=", "hello"}, {"DATA:;BASE64,aGVs\nbG8", "hello"},
        {"data:;base64,aGVsbG8%3D", "hello"}, {"data:image/png;base64,", ""}, {"data:;base64,__-_", "\xff\xff\xbf"},
    };
    static const char *const bad[] = {"data:;base64,a", "data:;base64,a*bc", "data:;base64,aG=Vs", "data:,%4", "data:,%zz", "data:"};
    media_policy p = media_policy_default();
    p.local_files = p.network = false;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        buf b = {0};
        assert_true(media_fetch(good[i].url, &p, &b, NULL, NULL));
        assert_int_equal(b.size, strlen(good[i].text));
        if (b.size) assert_memory_equal(b.data, good[i].text, b.size);
        buf_free(&b);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        buf b = {0};
        vlm_error e = {0};
        assert_false(media_fetch(bad[i], &p, &b, NULL, &e));
        assert_int_equal(e.code, VLM_FORMAT);
        buf_free(&b);
    }
    buf b = {0};
    vlm_error e = {0};
    p.max_bytes = 10;
    assert_false(media_fetch("data:;base64,aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8=", &p, &b, NULL, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    assert_false(media_fetch("data:,01234567890", &p, &b, NULL, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    buf_free(&b);
}

static void local_files(void **state)
{
    (void)state;
    media_policy p = media_policy_default();
    buf b = {0};
    vlm_error e = {0};
    bool directory = false;
    assert_true(media_fetch("tests/unit/fetch_test.c", &p, &b, &directory, &e));
    assert_true(b.size > 1000 && !directory);
    assert_true(media_fetch("tests/unit", &p, &b, &directory, &e));
    assert_true(directory);
    assert_false(media_fetch("tests/unit", &p, &b, NULL, &e));
    assert_false(media_fetch("tests/none.png", &p, &b, NULL, &e));
    assert_int_equal(e.code, VLM_NOT_FOUND);
    char cwd[2000], url[2100];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(url, sizeof url, "file://%s/tests/unit/fetch%%5Ftest.c", cwd);
    buf_clear(&b);
    assert_true(media_fetch(url, &p, &b, NULL, &e));
    assert_true(b.size > 1000);
    p.max_bytes = 100;
    assert_false(media_fetch(url, &p, &b, NULL, &e));
    assert_int_equal(e.code, VLM_LIMIT);
    p.local_files = false;
    static const char *const refused[] = {"tests/unit/fetch_test.c", "-", "file:///etc/passwd", "/etc/passwd"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_false(media_fetch(refused[i], &p, &b, &directory, &e));
        assert_int_equal(e.code, VLM_INVALID);
    }
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_urls), cmocka_unit_test(local_files), cmocka_unit_test(addresses), cmocka_unit_test(network),
        cmocka_unit_test(private_addresses_refused), cmocka_unit_test(crooked_urls_refused),
    };
    return cmocka_run_group_tests(tests, start_server, NULL);
}

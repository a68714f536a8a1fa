/* fetch_http.c - media from http and https URLs, under the policy.
 *
 * There is one URL parser: the parsed URL (curl_url) is what curl connects with. Whether an address may be reached is decided
 * where the socket is opened, so that names that resolve to private addresses, other spellings of addresses and every hop of
 * a redirect are all judged by the address that is really connected to. No proxy then: it would connect in our place. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/err.h"
#include "media/curl_api.h"
#include "media/fetch.h"

/* ---- addresses ---- */

static bool public_v4(uint32_t a)
{
    static const struct { uint32_t net; int bits; } closed[] = {
        {0x00000000, 8},  {0x0a000000, 8},  {0x64400000, 10}, {0x7f000000, 8},  {0xa9fe0000, 16}, {0xac100000, 12}, {0xc0000000, 24},
        {0xc0000200, 24}, {0xc0586300, 24}, {0xc0a80000, 16}, {0xc6120000, 15}, {0xc6336400, 24}, {0xcb007100, 24}, {0xe0000000, 3},
    };
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
        if ((a ^ closed[i].net) >> (32 - closed[i].bits) == 0) return false;
    return true;
}

static uint32_t v4_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool public_v6(const uint8_t *a)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, nat64[12] = {0, 0x64, 0xff, 0x9b};
    if (memcmp(a, mapped, 12) == 0 || memcmp(a, nat64, 12) == 0) return public_v4(v4_at(a + 12));
    if ((a[0] & 0xe0) != 0x20) return false;                            /* global unicast is 2000::/3 */
    if (a[0] == 0x20 && a[1] == 0x02) return public_v4(v4_at(a + 2));   /* 6to4 */
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 0x02) return false;      /* 2001::/23: Teredo, ORCHID, benchmarks */
    return !(a[0] == 0x20 && a[1] == 0x01 && a[2] == 0x0d && a[3] == 0xb8);
}

bool fetch_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) return public_v4(ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr));
    if (address->sa_family == AF_INET6) return public_v6(((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr);
    return false;
}

/* ---- the transfer ---- */

typedef struct transfer {
    const media_policy *policy;
    buf *out;
    size_t received;
    bool too_large, private_address, no_memory;
} transfer;

static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    transfer *t = user;
    bool internet = address->family == AF_INET || address->family == AF_INET6;
    if (purpose != CURLSOCKTYPE_IPCXN || !internet || !(t->policy->private_addresses || fetch_address_is_public(&address->addr))) {
        t->private_address = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t on_bytes(char *data, size_t size, size_t n, void *user)
{
    transfer *t = user;
    n *= size;
    t->received += n;
    t->too_large = t->received > t->policy->max_bytes;
    if (t->too_large) return 0;
    if (buf_add(t->out, data, n)) return n;
    t->no_memory = true;
    return 0;
}

/* Only what a careful client would write: no user names, no backslashes, no control characters or spaces. */
static CURLU *parse_url(const char *url, char host[256], vlm_error *error)
{
    for (const unsigned char *p = (const unsigned char *)url; *p; p++)
        if (*p <= ' ' || *p == 0x7f || *p == '\\') return err_set(error, VLM_INVALID, "a URL with a space, backslash or control character"), NULL;
    CURLU *parsed = curl_api.curl_url();
    if (!parsed) return err_memory(error, 0), NULL;
    char *name = NULL;
    CURLUcode failed = curl_api.curl_url_set(parsed, CURLUPART_URL, url, CURLU_DISALLOW_USER);
    if (!failed) failed = curl_api.curl_url_get(parsed, CURLUPART_HOST, &name, 0);
    if (!failed) {
        snprintf(host, 256, "%s", name);
        curl_api.curl_free(name);
        return parsed;
    }
    curl_api.curl_url_cleanup(parsed);
    if (failed == CURLUE_USER_NOT_ALLOWED) err_set(error, VLM_INVALID, "a URL with a user name or password in it");
    else err_set(error, VLM_INVALID, "not a URL that can be fetched: %s", curl_api.curl_url_strerror(failed));
    return NULL;
}

static void set_options(CURL *curl, CURLU *url, transfer *t)
{
    const media_policy *p = t->policy;
    curl_api.curl_easy_setopt(curl, CURLOPT_CURLU, url);
    curl_api.curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_api.curl_easy_setopt(curl, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_api.curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, p->max_redirects > 0 ? 1L : 0L);
    curl_api.curl_easy_setopt(curl, CURLOPT_MAXREDIRS, (long)p->max_redirects);
    curl_api.curl_easy_setopt(curl, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
    curl_api.curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    curl_api.curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, t);
    if (!p->private_addresses) curl_api.curl_easy_setopt(curl, CURLOPT_PROXY, "");
    curl_api.curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_api.curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
    curl_api.curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)p->max_bytes);
    curl_api.curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)p->timeout_seconds);
    curl_api.curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)p->timeout_seconds);
    curl_api.curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_api.curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_api.curl_easy_setopt(curl, CURLOPT_USERAGENT, "vlm.c");
}

static bool report(CURLcode result, CURL *curl, const transfer *t, const char *host, vlm_error *error)
{
    long status = 0;
    curl_api.curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->no_memory) return err_memory(error, t->received);
    if (t->too_large || result == CURLE_FILESIZE_EXCEEDED)
        return err_set(error, VLM_LIMIT, "the file at %s is larger than the %zu bytes that are fetched", host, t->policy->max_bytes);
    if (t->private_address) return err_set(error, VLM_INVALID, "%s leads to a private address, which may not be reached", host);
    switch (result) {
    case CURLE_OK:
        if (status >= 300) return err_set(error, VLM_IO, "%s answers with status %ld (redirects are not followed)", host, status);
        return true;
    case CURLE_HTTP_RETURNED_ERROR:
        return err_set(error, status == 404 || status == 410 ? VLM_NOT_FOUND : VLM_IO, "%s answers with status %ld", host, status);
    case CURLE_OPERATION_TIMEDOUT: return err_set(error, VLM_LIMIT, "%s took longer than %d seconds", host, t->policy->timeout_seconds);
    case CURLE_TOO_MANY_REDIRECTS: return err_set(error, VLM_LIMIT, "more than %d redirects from %s", t->policy->max_redirects, host);
    case CURLE_UNSUPPORTED_PROTOCOL: return err_set(error, VLM_INVALID, "%s redirects to something else than http(s)", host);
    default: return err_set(error, VLM_IO, "cannot fetch from %s: %s", host, curl_api.curl_easy_strerror(result));
    }
}

bool fetch_http(const char *url, const media_policy *policy, buf *out, vlm_error *error)
{
    if (!policy->network) return err_set(error, VLM_INVALID, "media may not be fetched from the network here");
    if (!curl_load(error)) return false;
    char host[256];
    CURLU *parsed = parse_url(url, host, error);
    if (!parsed) return false;
    transfer t = {.policy = policy, .out = out};
    CURL *curl = mem_inject() ? NULL : curl_api.curl_easy_init();
    bool ok = curl != NULL || err_memory(error, 0);
    if (ok) {
        set_options(curl, parsed, &t);
        ok = report(curl_api.curl_easy_perform(curl), curl, &t, host, error);
    }
    curl_api.curl_easy_cleanup(curl);
    curl_api.curl_url_cleanup(parsed);
    return ok;
}

/* fetch.h - the parts of fetch.c and fetch_http.c that are worth testing on their own. */
#ifndef VLM_MEDIA_FETCH_H
#define VLM_MEDIA_FETCH_H

#include "media/media.h"

struct sockaddr;
/* Is this address out on the internet? False for loopback, private, link-local, carrier-grade NAT, documentation, multicast,
 * and for IPv6 forms that carry such an IPv4 address (mapped, compatible, 6to4, NAT64). */
bool fetch_address_is_public(const struct sockaddr *address);

/* Appends the decoded bytes. */
bool fetch_data_url(media_text url, const media_attached *attached, size_t limit, buf *out, vlm_error *error);
/* %41 becomes A. False for a broken escape and for %00. */
bool fetch_unescape(const char *text, size_t size, buf *out);
bool fetch_http(const char *url, const media_policy *policy, buf *out, vlm_error *error);

#endif

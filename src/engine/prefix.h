/* prefix.h - the prefix cache: finished pages found again by what was computed into them.
 *
 *   block     0           1           2           3 ...            KV_PAGE_TOKENS tokens each
 *   key       k0 ───────> k1 ───────> k2 ───────> k3               k[i] = SHA-256(k[i-1], tokens, media under them)
 *             │           │           │           │
 *   full      [page]      [page]      [page]      [page]           every block is needed
 *   sliding   evicted     evicted     [page]      [page]           only the window's blocks are needed
 *   state                             [state]                      only the state after the last block is needed
 *
 * k[-1], the root, is SHA-256(salt, model identity, adapters, tenant): tenants never see each other's pages, and nobody outside can
 * compute a key. Media count by the digest of their bytes and settings and by the rows that lie at which offset, not by
 * their placeholder tokens. Where a media block sees itself whole, keys and values under its first half depend on its second:
 * then all media of the block are part of the key of every page that the block touches, and no prefix ends inside a block.
 *
 * A prefix of b blocks is usable when the full groups have all b pages, the sliding groups those that a query at the next
 * position looks at, and the state group the state after block b-1. At least one token is always left to compute: its logits
 * are what comes next. The allocator (pages.h) is the cache's memory; evicting a page needs no word to anybody. */
#ifndef VLM_ENGINE_PREFIX_H
#define VLM_ENGINE_PREFIX_H

#include "engine/pages.h"
#include "engine/prompt.h"

bool prefix_root(const digest *salt, const digest *identity, const digest *adapters, const char *tenant, digest *out);
/* With cross-attention every token depends on all of the memory: root becomes a root for that memory alone. */
bool prefix_root_memory(const prompt *p, digest *root);
/* Key of page `index` of the memory below such a root. */
bool prefix_memory_key(const digest *root, int index, digest *out);
/* Key of block `index` of prompt + answer tokens. parent: of the block before, or the root. */
bool prefix_key(const prompt *p, const int32_t *tokens, int index, const digest *parent, digest *out);
/* Number of blocks, at most n_keys, that can be taken over. */
int prefix_match(const pages *pg, const prompt *p, const digest *keys, int n_keys);

#endif

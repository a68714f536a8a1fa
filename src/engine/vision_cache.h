/* vision_cache.h - embedding rows of media that were encoded, and media that are being encoded.
 *
 *   key = SHA-256(salt, model identity, adapters that change the encoder, tenant, media_input.key)       media_input.key = kind, raw bytes, processor settings
 *   entry = rows [levels][count][cols] + the processed input without its pixels (token count, grid, times)
 *
 *   state      NEW -> PENDING -> READY          NEW: the first who claims it has to encode; later ones wait for that one
 *                            \-> FAILED         whoever claims it next tries again
 *
 * A hit skips decoding, resizing and the encoder. Pinned entries stay (a request pins its rows until it ends, so that a
 * preempted one never encodes again); the others are dropped, least recently used first, when the byte budget is exceeded.
 * With a budget of 0 entries live only while they are pinned: simultaneous requests for one medium still share its encoding.
 * Prompt threads look up (vision_find), the engine thread does the rest; one mutex guards all. */
#ifndef VLM_ENGINE_VISION_CACHE_H
#define VLM_ENGINE_VISION_CACHE_H

#include "models/model.h"

typedef struct vision_cache vision_cache;
typedef struct vision_entry vision_entry;
typedef enum vision_state { VISION_NEW, VISION_PENDING, VISION_READY, VISION_FAILED } vision_state;

typedef struct vision_stats { uint64_t entries, bytes, budget, hits, misses, evictions; } vision_stats;

vision_cache *vision_cache_new(uint64_t budget, const digest *identity, const digest *salt, vlm_error *error);
/* All entries must have been released. */
void vision_cache_free(vision_cache *c);

/* READY rows of a medium: its input with one more owner, *entry pinned. NULL: not there. Any thread. */
media_input *vision_find(vision_cache *c, const digest *media_key, const digest *adapters, const char *tenant, vision_entry **entry);
/* The entry of a processed medium, made if there is none; pinned. NULL: out of memory. */
vision_entry *vision_claim(vision_cache *c, media_input *in, const digest *adapters, const char *tenant);
vision_state vision_get_state(vision_entry *e);
/* NEW or FAILED -> PENDING: the caller encodes. The input that is encoded gets one more owner. */
void vision_begin(vision_entry *e, media_input *in);
media_input *vision_input(vision_entry *e);
/* PENDING -> READY. Takes rows.data (mem_*); drops the input's pixels. */
void vision_ready(vision_entry *e, media_rows rows);
void vision_fail(vision_entry *e);
/* Does anybody but the encoding itself want it? An encoding nobody waits for is given up. */
bool vision_wanted(vision_entry *e);
const media_rows *vision_rows(const vision_entry *e);          /* READY and pinned */
void vision_release(vision_entry *e);                          /* NULL is fine; any thread */
void vision_drop_unused(vision_cache *c);
vision_stats vision_get_stats(vision_cache *c);

#endif

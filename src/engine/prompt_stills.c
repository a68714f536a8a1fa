/* prompt_stills.c - a video for a model that sees images only becomes some pictures out of it, evenly over the clip, each an image of its own.
 *
 * Pictures are processed as they are decoded, so that no more than one lies in memory at its full size. Each has a key of its own in the vision
 * cache (video's bytes, number of the frame, options): asked again, nothing is decoded. */
#include <string.h>

#include "base/err.h"
#include "engine/prompt.h"
#include "models/media_options.h"

typedef struct clip {
    stills *s;
    const chat_media *part;
    json_t *options, *sampling;    /* of each picture; of the video */
    digest digest;
    bool folder, known;            /* known: all pictures are in the cache */
    media_input **input;
    vision_entry **rows;
    int64_t *indices;
    int *slot;                     /* of the i-th frame that is decoded */
    int n;
} clip;

static void clip_clear(clip *c)
{
    for (int i = 0; i < c->n; i++) {
        media_input_free(c->input ? c->input[i] : NULL);
        vision_release(c->rows ? c->rows[i] : NULL);
    }
    mem_free(c->input);
    mem_free(c->rows);
    mem_free(c->indices);
    mem_free(c->slot);
    c->input = NULL, c->rows = NULL, c->indices = NULL, c->slot = NULL;
    c->n = 0;
}

static bool frame_key(const clip *c, const digest *own, int64_t index, digest *key)
{
    digest both;
    hasher h = hash_start();
    hash_text(&h, "still");
    hash_part(&h, own, sizeof *own);
    hash_u64(&h, (uint64_t)index);
    return hash_finish(&h, &both) && prompt_media_key(MEDIA_IMAGE, &both, c->options, c->folder, key);
}

/* Those that the cache does not have are decoded. */
static bool pick(void *user, const video_info *info, int64_t **indices, int *count, vlm_error *error)
{
    clip *c = user;
    const prompt_source *source = c->s->source;
    int n = 0, missing = 0;
    clip_clear(c);
    if (!stills_pick(c->part, c->sampling, c->s->videos, info, &c->indices, &n, error)) return false;
    int64_t *list = MEM_ARRAY((size_t)n, int64_t);
    c->n = n;
    c->input = MEM_ARRAY((size_t)n, media_input *);
    c->rows = MEM_ARRAY((size_t)n, vision_entry *);
    c->slot = MEM_ARRAY((size_t)n, int);
    bool ok = list && c->input && c->rows && c->slot;
    for (int i = 0; ok && i < n; i++) {
        digest key;
        if (!c->folder && source->cache && frame_key(c, &c->digest, c->indices[i], &key)) c->input[i] = vision_find(source->cache, &key, &source->adapters, source->tenant, &c->rows[i]);
        if (c->input[i]) continue;
        c->slot[missing] = i;
        list[missing++] = c->indices[i];
    }
    c->known = ok && missing == 0;
    if (!ok || !missing) {
        mem_free(list);
        return ok ? false : err_memory(error, (size_t)n * sizeof *list);
    }
    *indices = list;
    *count = missing;
    return true;
}

static bool take_frame(void *user, int index, image *frame, vlm_error *error)
{
    clip *c = user;
    int i = c->slot[index];
    digest own = c->digest, key;
    if (c->folder && !hash_bytes(frame->rgb, (size_t)frame->width * (size_t)frame->height * 3, &own)) return err_memory(error, 64);
    if (!frame_key(c, &own, c->indices[i], &key)) return err_memory(error, 64);
    if (!prompt_reshape(c->options, frame, error)) return false;
    media_item item = {.kind = MEDIA_IMAGE, .part = c->part, .image = *frame, .digest = own};
    c->input[i] = prompt_process_item(c->s->m, &item, c->options, &key, error);
    image_free(frame);
    return c->input[i] != NULL;
}

static bool decode(clip *c, const char *path, const buf *bytes, vlm_error *error)
{
    const media_policy *policy = &c->s->source->policy;
    video v;
    vlm_error why = {0};
    bool ok = c->folder ? video_from_folder_each(path, c->part->fps > 0 ? c->part->fps : 24, policy, pick, take_frame, c, &v, &why)
                        : video_decode_each(bytes->data, bytes->size, policy, pick, take_frame, c, &v, &why);
    if (ok) video_free(&v);
    if (ok || c->known) return true;
    if (error) *error = why;
    return err_prefix(error, "%s", c->folder || strncmp(c->part->source, "data:", 5) ? c->part->source : "data URL");
}

static bool keep(stills *s, clip *c, vlm_error *error)
{
    size_t n = (size_t)(s->n + c->n);
    media_input **input = mem_resize(s->input, n, sizeof *input);
    if (input) s->input = input;
    vision_entry **rows = input ? mem_resize(s->rows, n, sizeof *rows) : NULL;
    if (!rows) return err_memory(error, n * sizeof *rows);
    s->rows = rows;
    for (int i = 0; i < c->n; i++, s->n++) {
        s->input[s->n] = c->input[i];
        s->rows[s->n] = c->rows[i];
        c->input[i] = NULL;
        c->rows[i] = NULL;
    }
    return true;
}

bool stills_add(void *user, const chat_media *part, int *count, vlm_error *error)
{
    stills *s = user;
    clip c = {.s = s, .part = part};
    buf bytes = {0}, unheard = {0};
    char *path = NULL;
    bool ok = prompt_takes(s->m, MEDIA_IMAGE, error) && (c.options = media_options_resolve(s->m, MEDIA_IMAGE, s->source->media_options, part, s->notices, error)) &&
              (c.sampling = media_options_resolve(s->m, MEDIA_VIDEO, s->source->media_options, part, &unheard, error)) &&
              prompt_fetch(s->source, part, &path, &bytes, &c.folder, error) &&
              (c.folder || hash_bytes(bytes.data ? bytes.data : "", bytes.size, &c.digest) || err_memory(error, 64)) &&
              decode(&c, path, &bytes, error) && keep(s, &c, error);
    *count = c.n;
    if (ok)
        buf_addf(s->notices, "%s takes no video: %d picture%s out of it, evenly over the clip, stand%s in its place\n", s->m->arch->title ? s->m->arch->title : s->m->arch->name,
                 c.n, c.n == 1 ? "" : "s", c.n == 1 ? "s" : "");
    clip_clear(&c);
    json_decref(c.options);
    json_decref(c.sampling);
    mem_free(path);
    buf_free(&bytes);
    buf_free(&unheard);
    return ok;
}

media_input *stills_take(stills *s, vision_entry **rows)
{
    if (s->taken >= s->n) return NULL;
    media_input *in = s->input[s->taken];
    *rows = s->rows[s->taken];
    s->input[s->taken] = NULL;
    s->rows[s->taken++] = NULL;
    return in;
}

void stills_free(stills *s)
{
    for (int i = 0; i < s->n; i++) {
        media_input_free(s->input[i]);
        vision_release(s->rows[i]);
    }
    mem_free(s->input);
    mem_free(s->rows);
}

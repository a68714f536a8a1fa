/* prompt_media.c - one medium on its way from a source to processor tensors: fetch under the policy, digest, decode, process.
 *
 * The key of the result is what caches go by: kind, digest of the raw bytes, and every option that had a say (media_options.h). The model's identity
 * and the tenant are added by the caches. */
#include "engine/prompt.h"

#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "models/media_options.h"

bool prompt_media_key(media_kind kind, const digest *bytes, const json_t *options, bool folder, digest *out)
{
    char *text = json_dumps(options, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17));
    if (!text) return false;
    hasher h = hash_start();
    hash_text(&h, "media");
    hash_u64(&h, (uint64_t)kind);
    hash_u64(&h, folder);
    hash_part(&h, bytes, sizeof *bytes);
    hash_text(&h, text);
    free(text);
    return hash_finish(&h, out);
}

typedef struct picker { const vlm_model *m; media_item *item; const json_t *options; } picker;

static bool pick(void *user, const video_info *info, int64_t **indices, int *count, vlm_error *error)
{
    const picker *p = user;
    return p->m->arch->pick_frames(p->m, p->item->part, p->options, info, indices, count, error);
}

/* A frame becomes as small as the processor wants it before the next one is decoded. */
static bool shrink(void *user, int index, image *frame, vlm_error *error)
{
    const picker *p = user;
    int width, height;
    resize_filter filter;
    image small;
    (void)index;
    if (!p->m->arch->frame_size(p->m, p->item, p->options, &width, &height, &filter, error)) return false;
    if (width == frame->width && height == frame->height) return true;
    if (!image_resize(frame, width, height, filter, &small, error)) return false;
    image_free(frame);
    *frame = small;
    return true;
}

/* A folder of frames has no bytes of its own: what identifies it is the frames that were picked. */
static bool digest_frames(const video *v, digest *out)
{
    hasher h = hash_start();
    for (int i = 0; i < v->count; i++) {
        hash_u64(&h, (uint64_t)v->indices[i]);
        hash_u64(&h, (uint64_t)v->frames[i].width);
        hash_part(&h, v->frames[i].rgb, (size_t)v->frames[i].width * (size_t)v->frames[i].height * 3);
    }
    return hash_finish(&h, out);
}

/* resize_shape: [n] or [width, height], which the image is made to fit, in proportion, before the family's own processor sees it. */
bool prompt_reshape(const json_t *options, image *img, vlm_error *error)
{
    enum { MOST = 16384 };
    const json_t *shape = json_object_get(options, "resize_shape");
    if (!shape) return true;
    json_int_t width = json_integer_value(json_is_array(shape) ? json_array_get(shape, 0) : shape);
    json_int_t height = json_array_size(shape) == 2 ? json_integer_value(json_array_get(shape, 1)) : width;
    if (width < 1 || height < 1 || width > MOST || height > MOST || json_array_size(shape) > 2)
        return err_set(error, VLM_INVALID, "resize_shape: [n] or [width, height] with 1 to %d was expected", MOST);
    double across = (double)width / img->width, down = (double)height / img->height, by = across < down ? across : down;
    int to_width = (int)(img->width * by), to_height = (int)(img->height * by);
    image out = {0};
    if (!image_resize(img, to_width > 0 ? to_width : 1, to_height > 0 ? to_height : 1, RESIZE_BICUBIC, &out, error)) return false;
    image_free(img);
    *img = out;
    return true;
}

static bool decode(const vlm_model *m, const prompt_source *source, const char *path, const buf *bytes, bool folder, const json_t *options,
                   media_item *item, vlm_error *error)
{
    picker p = {m, item, options};
    video_frame_fn each = m->arch->frame_size ? shrink : NULL;
    switch (item->kind) {
    case MEDIA_IMAGE:
        return image_decode_compact(bytes->data, bytes->size, &source->policy, &item->image, error) && prompt_reshape(options, &item->image, error);
    case MEDIA_VIDEO:
        if (!m->arch->pick_frames) return err_set(error, VLM_UNSUPPORTED, "this model does not take video");
        if (folder) return video_from_folder_each(path, item->part->fps > 0 ? item->part->fps : 24, &source->policy, pick, each, &p, &item->video, error);
        return video_decode_each(bytes->data, bytes->size, &source->policy, pick, each, &p, &item->video, error);
    case MEDIA_PROMPT: break;
    case MEDIA_AUDIO:
        return audio_decode(bytes->data, bytes->size, m->arch->audio_rate ? m->arch->audio_rate(m) : 16000, &source->policy, &item->audio, error);
    }
    return err_set(error, VLM_INTERNAL, "unknown kind of media");
}

bool prompt_takes(const vlm_model *m, media_kind kind, vlm_error *error)
{
    static const unsigned bit[] = {[MEDIA_IMAGE] = TAKES_IMAGE, [MEDIA_VIDEO] = TAKES_VIDEO, [MEDIA_AUDIO] = TAKES_AUDIO};
    bool has_place = m->arch->placeholder && m->arch->placeholder(m, kind) && m->arch->process;
    if ((m->takes & bit[kind]) && has_place) return true;
    buf what = {0};
    media_describe(m, &what);
    err_set(error, VLM_UNSUPPORTED, "this model (%s) does not take %s", m->arch->title ? m->arch->title : m->arch->name,
            kind == MEDIA_IMAGE ? "images" : media_kind_name(kind));
    err_hint(error, "it takes %s", what.data ? what.data : "text");
    buf_free(&what);
    return false;
}

/* Where a relative path lies: below media_dir if it is there. */
static char *locate(const prompt_source *source, const char *path)
{
    if (source->media_dir && path[0] != '/' && strcmp(path, "-") && !strstr(path, "://") && strncmp(path, "data:", 5)) {
        char *joined = path_join(source->media_dir, path);
        if (!joined || file_exists(joined) || file_is_directory(joined)) return joined;
        mem_free(joined);
    }
    return mem_strdup(path);
}

/* Which source an error is about, as people know it. */
static void name_source(const chat_media *part, vlm_error *error)
{
    if (!error || !error->code || strstr(error->message, part->source)) return;
    if (!strncmp(part->source, "data:", 5)) err_prefix(error, "data URL");
    else err_prefix(error, "%.80s", part->source);
}

bool prompt_fetch(const prompt_source *source, const chat_media *part, char **path, buf *bytes, bool *folder, vlm_error *error)
{
    if (!part->source) return err_set(error, VLM_INVALID, "the %s part of the message names no source", media_kind_name(part->kind));
    if (!(*path = locate(source, part->source))) return err_memory(error, 64);
    return media_fetch(*path, &source->policy, bytes, part->kind == MEDIA_VIDEO ? folder : NULL, error) || (name_source(part, error), false);
}

media_input *prompt_process_item(const vlm_model *m, const media_item *item, const json_t *options, const digest *key, vlm_error *error)
{
    media_input *in = MEM_NEW(media_input);
    vlm_error why = {0};
    if (!in) return err_memory(error, sizeof *in), NULL;
    in->kind = item->kind;
    bool ok = m->arch->process(m, item, options, in, &why);
    if (!ok && !why.code) err_memory(&why, 0);
    if (!ok && error) *error = why;
    in->key = *key;
    if (ok && (in->tokens < 0 || in->tokens > 1 << 24)) ok = err_set(error, VLM_INTERNAL, "processor asks for %d tokens", in->tokens);
    if (ok) return in;
    media_input_free(in);
    return NULL;
}

media_input *prompt_process_media(const vlm_model *m, const prompt_source *source, const chat_media *part, vision_entry **rows, buf *notices,
                                  vlm_error *error)
{
    media_item item = {.kind = part->kind, .part = part};
    media_input *in = NULL;
    json_t *options = NULL;
    char *path = NULL;
    buf bytes = {0};
    bool folder = false;
    digest key;
    if (!prompt_takes(m, part->kind, error)) return NULL;
    if (!(options = media_options_resolve(m, part->kind, source->media_options, part, notices, error)) ||
        !prompt_fetch(source, part, &path, &bytes, &folder, error)) goto done;
    if (!folder) {
        if (!hash_bytes(bytes.data ? bytes.data : "", bytes.size, &item.digest) || !prompt_media_key(part->kind, &item.digest, options, false, &key)) {
            err_memory(error, 64);
            goto done;
        }
        if (source->cache && (in = vision_find(source->cache, &key, &source->adapters, source->tenant, rows))) goto done;
    }
    if (!decode(m, source, path, &bytes, folder, options, &item, error)) {
        name_source(part, error);
        goto done;
    }
    buf_free(&bytes);
    if (folder && (!digest_frames(&item.video, &item.digest) || !prompt_media_key(part->kind, &item.digest, options, true, &key))) err_memory(error, 64);
    else in = prompt_process_item(m, &item, options, &key, error);
done:
    image_free(&item.image);
    video_free(&item.video);
    audio_free(&item.audio);
    buf_free(&bytes);
    json_decref(options);
    mem_free(path);
    return in;
}

/* video_folder.c - a folder of numbered images as a video; and what it shares with video.c. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/file.h"
#include "media/video_pick.h"

/* ---- choosing frames ---- */

static bool too_large(const video *v, const media_policy *policy, vlm_error *error)
{
    err_set(error, VLM_LIMIT, "%d frames of %d x %d pixels: %lld pixels in all are kept at most", v->count, v->info.width, v->info.height,
            (long long)policy->max_video_pixels);
    return err_hint(error, "take fewer frames");
}

static bool check_indices(const video *v, const media_policy *policy, bool kept_whole, vlm_error *error)
{
    if (v->count > policy->max_frames)
        return err_set(error, VLM_LIMIT, "%d frames of a video were asked for, %d at most are kept", v->count, policy->max_frames);
    for (int i = 0; i < v->count; i++)
        if (v->indices[i] < (i ? v->indices[i - 1] : 0) || v->indices[i] >= v->info.total_frames)
            return err_set(error, VLM_INVALID, "frame %lld was asked for, of %lld (in rising order)", (long long)v->indices[i],
                           (long long)v->info.total_frames);
    int64_t pixels = (int64_t)v->info.width * v->info.height;
    return !kept_whole || pixels == 0 || v->count <= policy->max_video_pixels / pixels || too_large(v, policy, error);
}

static bool all_indices(video *v, const media_policy *policy, vlm_error *error)
{
    if (v->info.total_frames > policy->max_frames)
        return err_set(error, VLM_LIMIT, "%lld frames, %d at most are kept", (long long)v->info.total_frames, policy->max_frames);
    v->count = (int)v->info.total_frames;
    v->indices = MEM_ARRAY((size_t)v->count, int64_t);
    if (!v->indices) return err_memory(error, 0);
    for (int i = 0; i < v->count; i++) v->indices[i] = i;
    return true;
}

bool video_choose(video *out, const media_policy *policy, video_plan *plan, vlm_error *error)
{
    if (out->info.total_frames < 1) return err_set(error, VLM_FORMAT, "the video has no frames");
    if (!(plan->pick ? plan->pick(plan->user, &out->info, &out->indices, &out->count, error) : all_indices(out, policy, error))) return false;
    if (out->count < 1 || !out->indices) return err_set(error, VLM_INVALID, "no frame of the video was chosen");
    if (!check_indices(out, policy, !plan->frame, error)) return false;
    out->frames = MEM_ARRAY((size_t)out->count, image);
    out->seconds = MEM_ARRAY((size_t)out->count, double);
    if (!out->frames || !out->seconds) return err_memory(error, (size_t)out->count * sizeof(image));
    for (int i = 0; i < out->count; i++) out->seconds[i] = out->info.fps > 0 ? (double)out->indices[i] / out->info.fps : 0;
    return true;
}

bool video_keep(video *out, int index, const media_policy *policy, video_plan *plan, vlm_error *error)
{
    image *frame = &out->frames[index];
    if (plan->frame && !plan->frame(plan->user, index, frame, error)) return false;
    if (frame->rgb) plan->pixels += (int64_t)frame->width * frame->height;
    return plan->pixels <= policy->max_video_pixels || too_large(out, policy, error);
}

bool image_copy(const image *from, image *to, vlm_error *error)
{
    size_t size = (size_t)from->width * (size_t)from->height * 3;
    uint8_t *rgb = mem_aligned(size);
    if (!rgb) return err_memory(error, size);
    *to = (image){.width = from->width, .height = from->height, .rgb = memcpy(rgb, from->rgb, size)};
    return true;
}

/* ---- the folder ---- */

static bool is_picture(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"};
    const char *dot = strrchr(name, '.');
    if (!dot || name[0] == '.') return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (strcasecmp(dot, endings[i]) == 0) return true;
    return false;
}

static int by_number(const void *a, const void *b)      /* frame2 before frame10 */
{
    return strverscmp(*(char *const *)a, *(char *const *)b);
}

typedef struct names { char **name; size_t count, capacity; } names;

static void names_free(names *n)
{
    for (size_t i = 0; i < n->count; i++) mem_free(n->name[i]);
    mem_free(n->name);
}

static bool names_add(names *n, const char *name, vlm_error *error)
{
    if (n->count == n->capacity) {
        size_t capacity = n->capacity ? 2 * n->capacity : 64;
        char **grown = mem_resize(n->name, capacity, sizeof *grown);
        if (!grown) return err_memory(error, capacity * sizeof *grown);
        n->name = grown;
        n->capacity = capacity;
    }
    n->name[n->count] = mem_strdup(name);
    if (!n->name[n->count]) return err_memory(error, strlen(name));
    n->count++;
    return true;
}

static bool list_pictures(const char *path, names *out, vlm_error *error)
{
    enum { MOST = 1000000 };
    DIR *dir = opendir(path);
    if (!dir) return err_set(error, VLM_NOT_FOUND, "cannot open the folder %s", path);
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        if (!is_picture(entry->d_name)) continue;
        ok = out->count < MOST ? names_add(out, entry->d_name, error)
                               : err_set(error, VLM_LIMIT, "%s holds more than %d pictures", path, MOST);
    }
    closedir(dir);
    if (ok && out->count) qsort(out->name, out->count, sizeof *out->name, by_number);
    return ok;
}

static bool read_picture(const char *folder, const char *name, const media_policy *policy, buf *bytes, vlm_error *error)
{
    char *path = path_join(folder, name);
    if (!path) return err_memory(error, 0);
    bool ok = file_read(path, policy->max_bytes, bytes, error);
    mem_free(path);
    return ok;
}

static bool load_frame(const char *folder, const char *name, const media_policy *policy, const video_info *info, image *out,
                       vlm_error *error)
{
    buf bytes = {0};
    bool ok = read_picture(folder, name, policy, &bytes, error) && image_decode(bytes.data, bytes.size, policy, out, error);
    buf_free(&bytes);
    if (ok && (out->width != info->width || out->height != info->height))
        ok = err_set(error, VLM_FORMAT, "%d x %d pixels, the first frame has %d x %d", out->width, out->height, info->width, info->height);
    return ok || err_prefix(error, "frame %s", name);
}

static bool probe_first(const char *folder, const char *name, const media_policy *policy, video_info *info, vlm_error *error)
{
    buf bytes = {0};
    bool ok = read_picture(folder, name, policy, &bytes, error) &&
              image_probe(bytes.data, bytes.size, &info->width, &info->height, error);
    buf_free(&bytes);
    return ok || err_prefix(error, "frame %s", name);
}

bool video_from_folder(const char *path, double fps, const media_policy *policy, video_pick_fn pick, void *user, video *out,
                       vlm_error *error)
{
    return video_from_folder_each(path, fps, policy, pick, NULL, user, out, error);
}

bool video_from_folder_each(const char *path, double fps, const media_policy *policy, video_pick_fn pick, video_frame_fn frame, void *user, video *out,
                            vlm_error *error)
{
    video_plan plan = {pick, frame, user, 0};
    *out = (video){0};
    media_policy standard = media_policy_default();
    if (!policy) policy = &standard;
    if (!policy->local_files) return err_set(error, VLM_INVALID, "local files may not be read");
    names list = {0};
    bool ok = list_pictures(path, &list, error);
    if (ok && list.count == 0) ok = err_set(error, VLM_FORMAT, "the folder %s holds no pictures", path);
    if (ok) {
        out->info.total_frames = (int64_t)list.count;
        out->info.fps = fps > 0 ? fps : 24;
        out->info.folder = true;
        out->info.duration = (double)list.count / out->info.fps;
        ok = probe_first(path, list.name[0], policy, &out->info, error) && video_choose(out, policy, &plan, error);
    }
    for (int i = 0; ok && i < out->count; i++)
        ok = load_frame(path, list.name[out->indices[i]], policy, &out->info, &out->frames[i], error) && video_keep(out, i, policy, &plan, error);
    names_free(&list);
    if (!ok) video_free(out);
    return ok;
}

/* prompt.c - see prompt.h.
 *
 *   messages ── chat_render ──> text with guards + media parts
 *   media parts ── prompt_process_media (one thread each) ──> media_input: tensors, token count, key
 *   text ── each placeholder becomes begin + n media tokens + end (arch->expand) ──> expanded text
 *   expanded ── tokenizer ──> ids ── runs of media tokens ──> spans ──> rope positions, blocks that see themselves
 *
 * Placeholders come from the template alone: what a user typed carries guards (chat.h) until the tokenizer drops them.
 * Media and placeholders must agree in number, and so must the rows of the media and the media tokens in the ids. */
#include "engine/prompt.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/thread.h"
#include "models/media_options.h"

enum { MAX_MEDIA = 1024, MAX_MEDIA_THREADS = 8, KINDS = 3 };
static const media_kind kinds[KINDS] = {MEDIA_IMAGE, MEDIA_VIDEO, MEDIA_AUDIO};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void prompt_free(prompt *p)
{
    if (!p) return;
    mem_free(p->text);
    mem_free(p->expanded);
    ids_free(&p->ids);
    for (int i = 0; p->media && i < p->n_media; i++) media_input_free(p->media[i]);
    for (int i = 0; p->rows && i < p->n_media; i++) vision_release(p->rows[i]);
    mem_free(p->media);
    mem_free(p->rows);
    mem_free(p->spans);
    for (int a = 0; a < MAX_ROPE_AXES; a++) mem_free(p->rope[a]);
    mem_free(p->see_to);
    mem_free(p->see_from);
    mem_free(p->places);
    ids_free(&p->start);
    mem_free(p->memory.parts);
    mem_free(p->memory.from);
    mem_free(p->memory.to);
    buf_free(&p->notices);
    *p = (prompt){0};
}

/* ---- media, several at a time ---- */

typedef struct media_work {
    const vlm_model *m;
    const prompt_source *source;
    const chat_prompt *chat;
    prompt *out;
    vlm_error *errors;             /* [count] */
    buf *notices;                  /* [count] */
    atomic_size_t next;
    pthread_mutex_t lock;
    size_t done;                   /* under lock */
} media_work;

static void *media_worker(void *arg)
{
    media_work *w = arg;
    for (size_t i; (i = atomic_fetch_add(&w->next, 1)) < w->chat->media_count;) {
        if (!w->out->media[i])                           /* else a still, which is there already */
            w->out->media[i] = prompt_process_media(w->m, w->source, &w->chat->media[i], &w->out->rows[i], &w->notices[i], &w->errors[i]);
        pthread_mutex_lock(&w->lock);
        w->done++;
        if (w->source->media_done) w->source->media_done(w->source->user, w->done, w->chat->media_count);
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* A line that is not there yet. */
static void add_notices(buf *to, const buf *lines)
{
    for (const char *line = lines->data; line && *line;) {
        size_t n = strcspn(line, "\n") + 1;
        bool seen = false;
        for (const char *old = to->data; old && *old && !seen; old += strcspn(old, "\n") + 1) seen = !strncmp(old, line, n);
        if (!seen) buf_add(to, line, n);
        line += n;
    }
}

/* Families that look at one image, or some. */
static bool few_enough(const vlm_model *m, const chat_prompt *chat, vlm_error *error)
{
    int n = 0, pictures = 0;
    for (size_t i = 0; i < chat->media_count; i++) n += chat->media[i].kind == MEDIA_IMAGE, pictures += chat->media[i].still > 0;
    if (!m->arch->max_images || n <= m->arch->max_images) return true;
    err_set(error, VLM_UNSUPPORTED, "this model (%s) takes %d image%s, %d were given", m->arch->title, m->arch->max_images, m->arch->max_images == 1 ? "" : "s", n);
    return err_hint(error, "%s", pictures ? "ask for fewer pictures of the video (num_frames)" : "ask about one after the other, or put them together in one picture");
}

static void count_images(const vlm_model *m, chat_prompt *chat)
{
    int n = 0;
    for (size_t i = 0; i < chat->media_count; i++) n += chat->media[i].kind == MEDIA_IMAGE;
    for (size_t i = 0; m->arch->counts_images && i < chat->media_count; i++) chat->media[i].pictures = n;
}

static bool build_media(const vlm_model *m, const prompt_source *source, const chat_prompt *chat, stills *pictures, prompt *out, vlm_error *error)
{
    size_t n = chat->media_count;
    if (!n) return true;
    if (n > MAX_MEDIA) return err_set(error, VLM_LIMIT, "%zu media in one request; at most %d are taken", n, MAX_MEDIA);
    double start = now();
    if (!few_enough(m, chat, error)) return false;
    vlm_error *errors = MEM_ARRAY(n, vlm_error);
    buf *notices = MEM_ARRAY(n, buf);
    out->media = MEM_ARRAY(n, media_input *);
    out->rows = MEM_ARRAY(n, vision_entry *);
    if (!errors || !notices || !out->media || !out->rows) return mem_free(errors), mem_free(notices), err_memory(error, n * sizeof *errors);
    out->n_media = (int)n;
    for (size_t i = 0; i < n; i++)
        if (chat->media[i].still) out->media[i] = stills_take(pictures, &out->rows[i]);
    media_work work = {.m = m, .source = source, .chat = chat, .out = out, .errors = errors, .notices = notices};
    pthread_mutex_init(&work.lock, NULL);
    pthread_t threads[MAX_MEDIA_THREADS];
    int wanted = cpu_count() < MAX_MEDIA_THREADS ? cpu_count() : MAX_MEDIA_THREADS, started = 0;
    if ((size_t)wanted > n) wanted = (int)n;
    while (started < wanted - 1 && !mem_inject() && !pthread_create(&threads[started], NULL, media_worker, &work)) started++;
    media_worker(&work);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    pthread_mutex_destroy(&work.lock);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        if (out->media[i]) continue;
        ok = false;
        if (error) *error = errors[i];
        if (n > 1) err_prefix(error, "%s (medium %zu of %zu)", media_kind_name(chat->media[i].kind), i + 1, n);
    }
    for (size_t i = 0; i < n; i++) {
        add_notices(&out->notices, &notices[i]);
        buf_free(&notices[i]);
    }
    mem_free(errors);
    mem_free(notices);
    out->media_seconds = now() - start;
    return ok;
}

/* ---- placeholders ---- */

static const char *placeholder(const vlm_model *m, media_kind kind)
{
    return m->arch->placeholder ? m->arch->placeholder(m, kind) : NULL;
}

/* The next placeholder at or after `text`: the earliest, of those the longest. NULL: none. */
static const char *find_placeholder(const vlm_model *m, const char *text, const char **which)
{
    const char *best = NULL;
    *which = NULL;
    for (int k = 0; k < KINDS; k++) {
        const char *mark = placeholder(m, kinds[k]), *at = mark && *mark ? strstr(text, mark) : NULL;
        if (at && (!best || at < best || (at == best && strlen(mark) > strlen(*which)))) { best = at; *which = mark; }
    }
    return best;
}

static int places_of(const vlm_model *m, const char *text, const char *mark)
{
    const char *which;
    int n = 0;
    for (const char *at = text; (at = find_placeholder(m, at, &which)); at += strlen(which)) n += !strcmp(which, mark);
    return n;
}

/* Says which kind's numbers differ. */
static bool count_mismatch(const vlm_model *m, const char *text, const prompt *p, vlm_error *error)
{
    for (int k = 0; k < KINDS; k++) {
        const char *mark = placeholder(m, kinds[k]);
        if (!mark) continue;
        int places = places_of(m, text, mark), media = 0;
        for (int i = 0; i < p->n_media; i++) {
            const char *own = placeholder(m, p->media[i]->kind);
            media += own && !strcmp(own, mark);
        }
        if (places == media) continue;
        err_set(error, VLM_INVALID, "the prompt has %d %s placeholder%s \"%s\", but %d %s given", places, media_kind_name(kinds[k]),
                places == 1 ? "" : "s", mark, media, media == 1 ? "was" : "were");
        return err_hint(error, "%s", places < media ? "the chat template leaves some media out, or the prompt text names too few"
                                                    : "give one medium for each placeholder"), false;
    }
    return err_set(error, VLM_INVALID, "media and placeholders of the prompt do not agree");
}

/* Does one placeholder stand for all the pictures of a video? In a prompt text that was rendered before anybody knew how many there would be. */
static bool stills_share(const vlm_model *m, const char *text, const chat_prompt *chat)
{
    const char *mark = placeholder(m, MEDIA_IMAGE);
    int images = 0, pictures = 0;
    for (size_t i = 0; i < chat->media_count; i++) images += chat->media[i].kind == MEDIA_IMAGE && chat->media[i].still <= 1, pictures += chat->media[i].still > 1;
    return mark && pictures && places_of(m, text, mark) == images;
}

/* Expanded text; order[k] = the medium at the k-th placeholder. */
static bool expand(const vlm_model *m, const char *text, const chat_prompt *chat, prompt *p, int *order, buf *out, vlm_error *error)
{
    uint8_t used[MAX_MEDIA] = {0};
    int n = 0;
    const char *which;
    bool share = stills_share(m, text, chat);
    for (const char *at; (at = find_placeholder(m, text, &which)); text = at + strlen(which)) {
        int i = 0;
        for (; i < p->n_media; i++) {
            const char *own = placeholder(m, p->media[i]->kind);
            if (!used[i] && own && !strcmp(own, which)) break;
        }
        if (i == p->n_media) return false;               /* the caller words it */
        buf_add(out, text, (size_t)(at - text));
        do {
            used[i] = 1;
            order[n++] = i;
            if (m->arch->expand ? !m->arch->expand(m, p->media[i], out, error) : !buf_adds(out, which)) return false;
        } while (share && ++i < p->n_media && chat->media[i].still > 1);
    }
    buf_adds(out, text);
    if (n != p->n_media || !m->arch->finish) return n == p->n_media;
    media_input **media = MEM_ARRAY((size_t)n + 1, media_input *);
    if (!media) return err_memory(error, (size_t)n * sizeof *media);
    for (int i = 0; i < n; i++) media[i] = p->media[order[i]];
    bool ok = m->arch->finish(m, media, n, out, error);
    mem_free(media);
    return ok;
}

/* Placeholders of all media in front of a text that shows none. */
static bool put_first(const vlm_model *m, const prompt *p, const char *text, buf *out, vlm_error *error)
{
    for (int i = 0; i < p->n_media; i++) {
        const char *mark = placeholder(m, p->media[i]->kind);
        if (mark) buf_adds(out, mark);
    }
    return buf_adds(out, text) || err_memory(error, out->size);
}

static char *without_guard(const char *text, const char *guard)
{
    size_t n = strlen(guard);
    buf out = {0};
    if (n)
        for (const char *at; (at = strstr(text, guard)); text = at + n) buf_add(&out, text, (size_t)(at - text));
    buf_adds(&out, text);
    return buf_take(&out);
}

/* ---- ids: spans, positions, blocks ---- */

static bool add_span(prompt *p, int *capacity, media_span span)
{
    if (p->n_spans == *capacity) {
        int more = *capacity ? 2 * *capacity : 16;
        media_span *spans = mem_resize(p->spans, (size_t)more, sizeof *spans);
        if (!spans) return false;
        p->spans = spans;
        *capacity = more;
    }
    p->spans[p->n_spans++] = span;
    return true;
}

/* Runs of media tokens; each medium takes its rows in order. order NULL: 0, 1, 2 ... */
static bool find_spans(const vlm_model *m, prompt *p, const int *order, vlm_error *error)
{
    int32_t token[KINDS];
    bool any = false;
    for (int k = 0; k < KINDS; k++) {
        token[k] = m->arch->media_token ? m->arch->media_token(m, kinds[k]) : -1;
        any |= token[k] >= 0;
    }
    int current = 0, row = 0, capacity = 0;
    for (size_t i = 0; any && i < p->ids.count; i++) {
        int32_t id = p->ids.id[i];
        bool also = m->arch->also_media && m->arch->also_media(m, id);
        if (id < 0 || (!also && id != token[0] && id != token[1] && id != token[2])) continue;
        media_input *in = NULL;
        for (; current < p->n_media; current++, row = 0) {
            in = p->media[order ? order[current] : current];
            if (row < in->tokens) break;
        }
        if (also && current == p->n_media) continue;
        if (current == p->n_media || (!also && id != token[in->kind]))
            return err_set(error, VLM_INVALID, "the prompt holds more media tokens (\"%s\", position %zu) than its media have rows",
                           m->tok && tokenizer_token(m->tok, id) ? tokenizer_token(m->tok, id) : "?", i);
        int which = order ? order[current] : current;
        media_span *last = p->n_spans ? &p->spans[p->n_spans - 1] : NULL;
        if (row && last && last->media == which && last->first + last->count == (int)i) last->count++;
        else if (!add_span(p, &capacity, (media_span){(int)i, 1, which, row})) return err_memory(error, sizeof(media_span));
        row++;
    }
    for (; current < p->n_media; current++, row = 0) {
        const media_input *in = p->media[order ? order[current] : current];
        if (row < in->tokens)
            return err_set(error, VLM_INVALID, "%s %d needs %d tokens in the prompt, %d are there", media_kind_name(in->kind),
                           (order ? order[current] : current) + 1, in->tokens, row);
    }
    return true;
}

static bool find_positions(const vlm_model *m, prompt *p, vlm_error *error)
{
    size_t n = prompt_tokens(p)->count;
    for (int a = 0; a < m->rope_axes; a++)
        if (!(p->rope[a] = MEM_ARRAY(n, int32_t))) return err_memory(error, n * sizeof(int32_t));
    if (m->arch->positions)
        return m->arch->positions(m, p->ids.id, (int)n, p->spans, p->n_spans, p->media, p->rope, &p->rope_next, error);
    for (int a = 0; a < m->rope_axes; a++)
        for (size_t i = 0; i < n; i++) p->rope[a][i] = (int32_t)i;
    p->rope_next = (int32_t)n;
    return true;
}

static bool in_block(const vlm_model *m, int32_t id)
{
    for (int i = 0; i < m->n_block_tokens; i++)
        if (m->block_tokens[i] == id) return true;
    return false;
}

/* All blocks are one that has gaps: from the first to the end of the last everything is computed in one step; tokens in gaps see what is before them. */
static bool join_blocks(const vlm_model *m, prompt *p, vlm_error *error)
{
    int n = (int)p->ids.count, count = 0;
    for (int i = 0; i < n; i++) count += in_block(m, p->ids.id[i]) && (i == 0 || !in_block(m, p->ids.id[i - 1]));
    if (!count) return true;
    if (!(p->places = MEM_ARRAY((size_t)count * 2, int32_t))) return err_memory(error, (size_t)count * 8);
    for (int i = 0, k = 0; i < n; i++) {
        bool inside = in_block(m, p->ids.id[i]);
        if (inside && (i == 0 || !in_block(m, p->ids.id[i - 1]))) p->places[k++] = i;
        if (inside && (i == n - 1 || !in_block(m, p->ids.id[i + 1]))) p->places[k++] = i + 1;
    }
    p->joined = (joined_blocks){count, p->places};
    for (int i = p->places[0]; i < p->places[2 * count - 1]; i++) {
        p->see_from[i] = p->places[0];
        if (in_block(m, p->ids.id[i])) p->see_to[i] = p->places[2 * count - 1];
    }
    return true;
}

/* Images and video frames see themselves whole: a block is a run of such tokens without text between. In some models the whole prompt is one. */
static bool find_blocks(const vlm_model *m, prompt *p, vlm_error *error)
{
    int n = (int)p->ids.count;
    bool any = false;
    for (int s = 0; s < p->n_spans; s++) any |= p->media[p->spans[s].media]->kind != MEDIA_AUDIO;
    if (!m->bidirectional_media || (!any && !m->whole_prompt)) return true;
    p->see_to = MEM_ARRAY((size_t)n, int32_t);
    p->see_from = MEM_ARRAY((size_t)n, int32_t);
    if (!p->see_to || !p->see_from) return err_memory(error, (size_t)n * sizeof(int32_t));
    for (int i = 0; i < n; i++) { p->see_to[i] = m->whole_prompt ? n : i + 1; p->see_from[i] = m->whole_prompt ? 0 : i; }
    if (m->n_block_tokens) return join_blocks(m, p, error);
    for (int s = 0; s < p->n_spans && !m->whole_prompt;) {
        int first = p->spans[s].first, end = first;
        for (; s < p->n_spans && p->spans[s].first == end && p->media[p->spans[s].media]->kind != MEDIA_AUDIO; s++)
            end += p->spans[s].count;
        if (end == first) { s++; continue; }             /* audio */
        for (int i = first; i < end; i++) { p->see_to[i] = end; p->see_from[i] = first; }
    }
    return true;
}

/* The encoder's prompt becomes the last medium; the decoder begins with a token of its own. */
static bool hand_to_encoder(const vlm_model *m, prompt *p, vlm_error *error)
{
    size_t n = p->ids.count;
    media_input **media = mem_resize(p->media, (size_t)p->n_media + 1, sizeof *media);
    if (media) p->media = media;
    vision_entry **rows = media ? mem_resize(p->rows, (size_t)p->n_media + 1, sizeof *rows) : NULL;
    media_input *in = rows ? MEM_NEW(media_input) : NULL;
    if (rows) p->rows = rows;
    if (!in) return err_memory(error, sizeof *in);
    p->media[p->n_media] = in;
    p->rows[p->n_media++] = NULL;
    prompt_reading *reading = in->family = arena_alloc(&in->memory, sizeof *reading);
    if (!reading || !(reading->ids = arena_alloc(&in->memory, n * sizeof(int32_t))) ||
        !(reading->spans = arena_alloc(&in->memory, (size_t)(p->n_spans + 1) * sizeof(media_span))))
        return err_memory(error, n * sizeof(int32_t));
    in->kind = MEDIA_PROMPT;
    in->rows = reading->n = (int)n;
    reading->n_spans = p->n_spans;
    memcpy(reading->ids, p->ids.id, n * sizeof(int32_t));
    hasher h = hash_start();
    hash_text(&h, "prompt");
    hash_part(&h, p->ids.id, n * sizeof(int32_t));
    for (int i = 0; i < p->n_spans; i++) {
        reading->spans[i] = p->spans[i];
        hash_u64(&h, (uint64_t)p->spans[i].first);
        hash_u64(&h, (uint64_t)p->spans[i].row);
        hash_part(&h, &p->media[p->spans[i].media]->key, sizeof(digest));
    }
    p->n_spans = 0;
    return (hash_finish(&h, &in->key) && ids_add(&p->start, m->start)) || err_memory(error, n);
}

static bool plan_memory(const vlm_model *m, prompt *p, vlm_error *error)
{
    const ids *tokens = prompt_tokens(p);
    if (!m->arch->plan_memory) return true;
    for (int i = 0; i < p->n_media; i++)
        if (p->media[i]->kind != MEDIA_PROMPT && !m->arch->reads_prompt && !p->media[i]->rows)
            return err_set(error, VLM_INTERNAL, "medium %d has no rows for cross-attention", i + 1);
    return m->arch->plan_memory(m, tokens->id, (int)tokens->count, p->media, p->n_media, &p->memory, error);
}

static bool place(const vlm_model *m, prompt *p, const int *order, vlm_error *error)
{
    if (p->ids.count == 0) return err_set(error, VLM_INVALID, "the prompt is empty");
    if (p->ids.count > INT32_MAX / 2) return err_set(error, VLM_LIMIT, "the prompt has %zu tokens", p->ids.count);
    for (size_t i = 0; i < p->ids.count; i++)
        if (p->ids.id[i] < 0 || p->ids.id[i] >= m->vocab + m->more_vocab)
            return err_set(error, VLM_FORMAT, "token id %d at position %zu: the model's vocabulary ends at %d", p->ids.id[i], i, m->vocab + m->more_vocab - 1);
    if (!find_spans(m, p, order, error)) return false;
    if (m->arch->place) m->arch->place(m, p->spans, p->n_spans, p->media);
    return (!m->arch->reads_prompt || hand_to_encoder(m, p, error)) && find_positions(m, p, error) &&
           find_blocks(m, p, error) && plan_memory(m, p, error);
}

bool prompt_place(const vlm_model *m, prompt *p, vlm_error *error) { return place(m, p, NULL, error); }

/* ---- the whole ---- */

static int videos_among(const json_t *parts)
{
    size_t i;
    const json_t *part;
    int n = 0;
    json_array_foreach(parts, i, part) {
        const char *type = json_string_value(json_object_get(part, "type"));
        n += type ? strstr(type, "video") != NULL : json_object_get(part, "video") != NULL;
    }
    return n;
}

static int count_videos(const prompt_source *source)
{
    size_t i;
    const json_t *message;
    int n = videos_among(source->media);
    json_array_foreach(source->messages, i, message) n += videos_among(json_object_get(message, "content"));
    return n;
}

/* Begin and end tokens of the tokenizer's post-processor are added as the references' processors do: always to a plain prompt, to a
 * rendered one when the model takes media; not when the text begins with the begin token already. */
static bool tokenize(const vlm_model *m, const char *text, const char *guard, bool rendered, prompt *out, vlm_error *error)
{
    const char *bos = tokenizer_role(m->tok, "bos_token");
    bool has_bos = bos && *bos && !strncmp(text, bos, strlen(bos));
    encode_options options = {.special = true, .add_special = !has_bos && !m->arch->no_special_tokens && (!rendered || (m->arch->process && m->takes)),
                              .guard = *guard ? guard : NULL};
    if (!tokenizer_encode(m->tok, text, strlen(text), &options, &out->ids, error)) return false;
    return out->ids.failed ? err_memory(error, out->ids.count * sizeof(int32_t)) : true;
}

/* Media parts of a plain prompt: chat_render reads them, its text is not used. */
static bool render(const vlm_model *m, const prompt_source *source, stills *pictures, chat_prompt *chat, vlm_error *error)
{
    if (source->messages) {
        const char *marks[KINDS + 1] = {NULL};
        chat_options options = source->chat;
        for (int k = 0, n = 0; k < KINDS; k++)
            if ((marks[n] = placeholder(m, kinds[k]))) n++;
        if (!options.placeholders) options.placeholders = marks;
        options.typed = m->arch->typed;
        for (int k = 0; k < KINDS; k++) options.marks[kinds[k]] = placeholder(m, kinds[k]);
        options.video_as_stills = stills_wanted(m);
        options.stills = stills_add;
        options.stills_user = pictures;
        return chat_render(source->own ? source->own : m->chat, m->tok, source->messages, &options, chat, error);
    }
    if (!source->media || !json_array_size(source->media)) return true;
    json_t *messages = json_pack("[{s:s,s:O}]", "role", "user", "content", (json_t *)source->media);
    if (!messages) return err_memory(error, 64);
    chat_options plain = {.add_generation_prompt = false, .video_as_stills = stills_wanted(m), .stills = stills_add, .stills_user = pictures};
    bool ok = chat_render(NULL, m->tok, messages, &plain, chat, error);
    json_decref(messages);
    return ok;
}

bool prompt_build(const vlm_model *m, const prompt_source *source, prompt *out, vlm_error *error)
{
    *out = (prompt){0};
    chat_prompt chat = {0};
    stills pictures = {.m = m, .source = source, .videos = count_videos(source), .notices = &out->notices};
    buf expanded = {.limit = 256 << 20}, rewritten = {.limit = 256 << 20}, fronted = {.limit = 256 << 20};
    int *order = NULL;
    bool ok = false;
    if (!m->tok) {
        err_set(error, VLM_UNSUPPORTED, "this model has no tokenizer: it takes token ids only");
        goto done;
    }
    if (!source->messages == !source->text) {
        err_set(error, VLM_INVALID, "a request has either messages or a prompt text");
        goto done;
    }
    if (!render(m, source, &pictures, &chat, error)) goto done;
    count_images(m, &chat);
    if (!build_media(m, source, &chat, &pictures, out, error)) goto done;
    const char *text = source->messages ? chat.text : source->text, *guard = source->messages ? chat.guard : "";
    if (!text) { err_memory(error, 64); goto done; }
    if (out->n_media && !(order = MEM_ARRAY((size_t)out->n_media, int))) { err_memory(error, 64); goto done; }
    vlm_error why = {0};
    const char *shown;
    if (m->arch->media_first && out->n_media && !find_placeholder(m, text, &shown)) {
        if (!put_first(m, out, text, &fronted, error)) goto done;
        text = fronted.data;
    }
    if (m->arch->rewrite) {
        if (!m->arch->rewrite(m, text, &rewritten, error)) goto done;
        if (rewritten.failed) { err_memory(error, rewritten.size); goto done; }
    }
    if (!expand(m, m->arch->rewrite ? rewritten.data : text, &chat, out, order, &expanded, &why)) {
        if (!why.code) count_mismatch(m, m->arch->rewrite ? rewritten.data : text, out, error);
        else if (error) *error = why;
        goto done;
    }
    if (expanded.failed) { err_set(error, VLM_LIMIT, "the prompt text is too long or memory ran out"); goto done; }
    out->text = without_guard(text, guard);
    out->expanded = without_guard(expanded.data ? expanded.data : "", guard);
    if (!out->text || !out->expanded) { err_memory(error, expanded.size); goto done; }
    ok = tokenize(m, expanded.data ? expanded.data : "", guard, source->messages && (m->chat || source->own) && !source->plain, out, error) && place(m, out, order, error);
done:
    chat_prompt_free(&chat);
    stills_free(&pictures);
    buf_free(&fronted);
    buf_free(&expanded);
    buf_free(&rewritten);
    mem_free(order);
    if (!ok) prompt_free(out);
    return ok;
}

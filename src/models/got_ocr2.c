/* got_ocr2.c - GOT-OCR 2.0.  https://arxiv.org/abs/2409.01704
 *
 *   page -> squeezed to 1024 x 1024 (crop_to_patches: tiles in the nearest grid, and the whole) -> SAM's encoder, two strided convolutions -> linear
 *        -> 256 rows for each tile that replace <imgpad> -> Qwen2
 *   prompt: no template in the checkpoints; the processor writes the only one that the model was trained on, with a query made of its options:
 *           [colour] [box in thousandths] OCR with format across multi pages upon the patch reference:
 *
 * Bites: the box is scaled by the page's own size and cut to whole numbers. Without colour or box the query still begins with a blank. */
#include "models/sam_tower.h"
#include "models/tower_lm.h"

#include <ctype.h>
#include <string.h>

#include "base/err.h"

enum { MOST_COLOUR = 32 };

typedef struct got_ocr2 {
    tower_lm base;                 /* its image_tower is not used, but for the size */
    sam_tower sam;
    tile_grid grid;
    int tokens;                    /* of a tile */
    weight project;
    const float *project_bias;
} got_ocr2;

/* What the options ask for, for the query. */
typedef struct asked { bool format, tiled, has_box; char colour[MOST_COLOUR + 1]; int box[4]; } asked;

static const char chat[] =
    "{%- if messages[0].role != 'system' -%}<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail.<|im_end|>{%- endif -%}"
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{%- set pages = message.content | selectattr('type', 'equalto', 'image') | list -%}"
    "{{ '\\n' if message.role == 'user' and not pages }}{%- if pages -%}{{ '\\n<img>' }}{%- for page in pages -%}<imgpad>{%- endfor -%}{{ '</img>\\n' }}{%- endif -%}"
    "{%- for part in message.content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

static bool fill_in(config *c)
{
    if (!config_has(c, "image_token_index|image_token_id")) json_object_set_new(c->root, "image_token_index", json_integer(151859));
    return config_defaults(c, "text_config", "{\"model_type\":\"qwen2\",\"vocab_size\":151860,\"hidden_size\":1024,\"intermediate_size\":2816,\"num_hidden_layers\":24,"
                                             "\"num_attention_heads\":16,\"num_key_value_heads\":16,\"max_position_embeddings\":32768,\"rms_norm_eps\":1e-6,"
                                             "\"rope_theta\":1000000.0,\"tie_word_embeddings\":true}");
}

static bool configure(vlm_model *m, config *c)
{
    got_ocr2 *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    config *p = m->processor;
    if (!fill_in(c) || !tower_lm_config(&v->base, m, c) || !sam_tower_config(&v->sam, c, "vision_config.")) return false;
    int side = v->sam.side * v->sam.patch;
    v->base.tower.image = side;
    v->sam.down[0] = 2 * v->sam.neck;
    v->sam.down[1] = v->base.text.spec.hidden;
    v->tokens = sam_tower_side(&v->sam, side) * sam_tower_side(&v->sam, side);
    tile_grid_config(&v->grid, p);
    v->grid.tiled = config_bool(p, "image_processor.crop_to_patches", false);
    if (p->failed) return false;
    if (config_int(p, "image_processor.size.height", side, 1, 1 << 15) != side || config_int(p, "image_processor.size.width", side, 1, 1 << 15) != side)
        return config_fail(c, VLM_FORMAT, "the processor's pages are not the vision tower's, %d x %d", side, side);
    return picture_config(&v->base.norm, p, "image_processor", picture_clip, RESIZE_BICUBIC) && !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    got_ocr2 *v = m->family;
    int64_t d = v->base.text.spec.hidden;
    if (!decoder_bind(&v->base.text, b)) return false;
    bind_prefix(b, "vision_tower.", "model.vision_tower.", NULL);
    sam_tower_bind(&v->sam, b, &sam_names_tf);
    bind_prefix(b, "multi_modal_projector.", "model.multi_modal_projector.", NULL);
    sam_tower_bind_down(&v->sam, b, "conv_upsampler1", "conv_upsampler2");
    bind_linear(b, &v->project, d, d, "multimodal_projector");
    bind_vector(b, &v->project_bias, d, "multimodal_projector.bias");
    return !b->failed;
}

/* ---- processor ---------------------------------------------------------------------------------------------------- */

static const json_t *option(const media_item *item, const json_t *options, const char *key)
{
    const json_t *v = item->part && item->part->options ? json_object_get(item->part->options, key) : NULL;
    if (!v || json_is_null(v)) v = json_object_get(options, key);
    return v && !json_is_null(v) ? v : NULL;
}

/* Words come from strangers: letters, digits and blanks only, so that no control token can be spelled. */
static bool read_colour(const json_t *value, asked *a, vlm_error *error)
{
    const char *text = json_string_value(value);
    bool ok = text && *text && strlen(text) <= MOST_COLOUR;
    for (const char *p = text; ok && *p; p++) ok = isalnum((unsigned char)*p) || *p == ' ';
    if (!ok) return err_set(error, VLM_INVALID, "color: a word of up to %d letters was expected", MOST_COLOUR);
    memcpy(a->colour, text, strlen(text) + 1);
    return true;
}

static bool read_box(const json_t *value, const image *img, asked *a, vlm_error *error)
{
    for (size_t i = 0; i < 4; i++) {
        const json_t *n = json_array_get(value, i);
        double at = json_number_value(n) / (i % 2 ? img->height : img->width) * 1000;
        if (json_array_size(value) != 4 || !json_is_number(n) || !(at > -1e6 && at < 1e6))
            return err_set(error, VLM_INVALID, "box: [x1, y1, x2, y2] in pixels was expected");
        a->box[i] = (int)at;
    }
    return a->has_box = true;
}

static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const got_ocr2 *v = m->family;
    if (!tower_lm_only_images(m, item, error)) return false;
    asked *a = out->family = arena_alloc(&out->memory, sizeof *a);
    if (!a) return err_memory(error, sizeof *a);
    const json_t *colour = option(item, options, "color"), *box = option(item, options, "box"), *tiled = option(item, options, "crop_to_patches");
    a->format = json_is_true(option(item, options, "format"));
    a->tiled = tiled ? json_is_true(tiled) : v->grid.tiled;
    if ((colour && !read_colour(colour, a, error)) || (box && !read_box(box, &item->image, a, error))) return false;
    out->kind = item->kind;
    return tile_grid_process(m, &v->grid, &v->base, item, options, v->tokens, out, error);
}

/* ---- prompt ------------------------------------------------------------------------------------------------------- */

static void write_query(const asked *a, int pages, bool all, buf *out)
{
    if (*a->colour) buf_addf(out, "[%s] ", a->colour);
    if (a->has_box && pages == 1) buf_addf(out, "[%d, %d, %d, %d]", a->box[0], a->box[1], a->box[2], a->box[3]);
    if (all)
        buf_addf(out, " OCR%s%s%s: ", a->format ? " with format" : "", pages > 1 ? " across multi pages" : "", a->tiled ? " upon the patch reference" : "");
}

/* Behind the pages of a message comes the query: colour and box before the user's own words, or all of it. */
static bool finish(const vlm_model *m, media_input *const *media, int n, buf *text, vlm_error *error)
{
    static const char last[] = "<imgpad></img>\n";
    buf out = {.limit = text->limit};
    const char *from = text->data ? text->data : "", *pad = tower_lm_placeholder(m, MEDIA_IMAGE);
    int used = 0;
    for (const char *at; pad && (at = strstr(from, last)); from = at) {
        int64_t pads = 0, rows = 0, pages = 0;
        const char *first = at += strlen(last);
        for (first -= strlen(last); first - from >= (ptrdiff_t)strlen(pad) && !memcmp(first - strlen(pad), pad, strlen(pad)); first -= strlen(pad)) pads++;
        for (pads++; used + pages < n && rows < pads; pages++) rows += media[used + pages]->tokens;
        buf_add(&out, from, (size_t)(at - from));
        if (pages) write_query(media[used]->family, (int)pages, !strncmp(at, "<|im_end|>", 10), &out);
        used += (int)pages;
    }
    buf_adds(&out, from);
    if (out.failed) return buf_free(&out), err_memory(error, text->size);
    buf_free(text);
    *text = out;
    return true;
}

/* ---- encoder: after the tower, a stage for each tile ------------------------------------------------------------------- */

static bool encode_start(run *r, const vlm_model *m, encode_job *job)
{
    const got_ocr2 *v = m->family;
    const processed *p = media_input_find(job->in, "pixel_values");
    if (!p || !p->data) return run_fail(r, VLM_INTERNAL, "no pixels to encode");
    int n = (int)p->dim[0], side = (int)p->dim[2];
    sam_picture *pictures = run_alloc(r, (size_t)n * sizeof *pictures);
    for (int i = 0; pictures && i < n; i++) pictures[i] = (sam_picture){(const float *)p->data + (int64_t)i * 3 * side * side, side};
    if (!pictures || !sam_tower_start(r, &v->sam, job, pictures, n)) return false;
    job->stages += n;
    return true;
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const got_ocr2 *v = m->family;
    if (job->stage < v->sam.layers) return sam_tower_encode(r, &v->sam, job);
    int i = job->stage++ - v->sam.layers;
    if (!i) image_tower_set_rows(r, job, run_zeros(r, job->in->tokens, v->base.text.spec.hidden));
    tensor x = sam_tower_features(r, &v->sam, job, i);
    if (run_ok(r)) op_linear_to(r, tensor_rows(job->rows, (int64_t)i * v->tokens, v->tokens), x, &v->project, v->project_bias);
    return run_ok(r);
}

static const char *const types[] = {"got_ocr2", NULL};

static const media_rules rules = {.image = "crop_to_patches? min_patches max_patches format? color* box*", .low = "{\"crop_to_patches\": false}"};

const vlm_arch vlm_arch_got_ocr2 = {
    .name = "got_ocr2",
    .title = "GOT-OCR 2.0",
    .model_types = types,
    .rules = &rules,
    .task = TASK_GENERATE,
    .takes = TAKES_IMAGE,
    .chat = chat,
    .configure = configure,
    .bind = bind,
    .process = process,
    .placeholder = tower_lm_placeholder,
    .media_token = tower_lm_media_token,
    .expand = tower_lm_expand,
    .finish = finish,
    .encode_start = encode_start,
    .encode = encode,
    .forward = tower_lm_forward,
};

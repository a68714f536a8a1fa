/* llava_next.c - LLaVA-NeXT (1.6): tiles at the best of some sizes.  https://llava-vl.github.io/blog/2024-01-30-llava-next/
 *
 *   picture -> whole, squeezed to 336 x 336                                          -> tile 0
 *           -> resized into the best size of image_grid_pinpoints, black around, cut -> tiles 1 ...
 *   tiles -> CLIP (last layer but one, no class row) -> linear, GELU, linear -> tile 0's features,
 *   then the others' as one field: rows and columns of padding dropped, image_newline behind each row -> rows that replace <image>
 *
 * Bites: what is padding follows from the picture's own proportions, rounded to 7 digits first. */
#include "models/tower_lm.h"

#include "base/err.h"

typedef struct llava_next {
    tower_lm base;
    mlp_connector connector;
    anyres sizes;
    weight newline;
} llava_next;

static bool configure(vlm_model *m, config *c)
{
    llava_next *v = m->family = arena_alloc(&m->memory, sizeof *v);
    if (!v) return config_fail(c, VLM_MEMORY, "out of memory");
    int layer = (int)config_int(c, "vision_feature_layer", -2, -1024, 1024);
    v->connector.act = config_activation(c, "projector_hidden_act", "gelu");
    if (!tower_lm_config(&v->base, m, c) || !image_tower_config(&v->base.tower, &m->memory, c, layer, false)) return false;
    if (!anyres_config(&v->sizes, m->processor, c) || !picture_config(&v->base.norm, m->processor, "image_processor", picture_clip, RESIZE_BICUBIC)) return false;
    for (int i = 0; i < v->sizes.n; i++)
        if (v->sizes.size[i][0] % v->base.tower.image || v->sizes.size[i][1] % v->base.tower.image)
            return config_fail(c, VLM_FORMAT, "image_grid_pinpoints: %d x %d is not made of tiles of %d", v->sizes.size[i][0], v->sizes.size[i][1], v->base.tower.image);
    return !c->failed;
}

static bool bind(vlm_model *m, binder *b)
{
    llava_next *v = m->family;
    int64_t d = v->base.text.spec.hidden;
    const float *newline = NULL;
    tower_lm_bind(&v->base, b);
    mlp_connector_bind(&v->connector, b, v->base.tower.vit.hidden, d);
    bind_vector(b, &newline, d, "image_newline");
    v->newline = (weight){.format = WF_F32, .rows = 1, .cols = d, .data = newline, .name = "image_newline"};
    return !b->failed;
}

/* Tiles, and what of their field of features is kept: grid = tiles down, tiles across. */
static bool process(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error)
{
    const llava_next *v = m->family;
    const image *img = &item->image;
    int side = v->base.tower.image, unit = side / v->base.tower.patch, height, width, inside_height, inside_width, top, left;
    if (!tower_lm_only_images(m, item, error)) return false;
    anyres_choose(&v->sizes, img->height, img->width, &height, &width);
    anyres_inside(img->height, img->width, height, width, &inside_height, &inside_width);
    int down = height / side, across = width / side;
    anyres_unpad(img->height, img->width, down * unit, across * unit, &top, &left);
    out->kind = item->kind;
    out->grid[0] = 1, out->grid[1] = down, out->grid[2] = across;
    out->tokens = unit * unit + (down * unit - 2 * top) * (across * unit - 2 * left + 1);
    if (!tower_lm_fits(m, item, out->tokens, error)) return false;
    processed *size = media_input_add(out, "image_sizes", DT_I64, 2, (const int64_t[]){1, 2});
    float *pixels = size ? picture_tiles(out, 1 + down * across, side, side, error) : NULL;
    if (!pixels) return err_memory(error, 64);
    ((int64_t *)size->data)[0] = img->height;
    ((int64_t *)size->data)[1] = img->width;
    if (!picture_resized(&v->base.norm, img, side, side, 0, 0, side, side, pixels, error)) return false;
    image inside;
    if (!image_resize(img, inside_width, inside_height, v->base.norm.filter, &inside, error)) return false;
    for (int i = 0; i < down * across; i++)
        picture_window(&v->base.norm, &inside, i % across * side - (width - inside_width) / 2, i / across * side - (height - inside_height) / 2, side, side,
                       pixels + (int64_t)(i + 1) * 3 * side * side);
    image_free(&inside);
    return true;
}

/* Which of the features [tiles * unit * unit] stands where; -1 is a newline. */
static void lay_out(const llava_next *v, const media_input *in, int32_t *index)
{
    const processed *size = media_input_find(in, "image_sizes");
    const int64_t *own = size->data;
    int unit = v->base.tower.image / v->base.tower.patch, rows = in->grid[1] * unit, columns = in->grid[2] * unit, top, left;
    anyres_unpad((int)own[0], (int)own[1], rows, columns, &top, &left);
    for (int i = 0; i < unit * unit; i++) *index++ = i;
    for (int y = top; y < rows - top; y++) {
        for (int x = left; x < columns - left; x++) {
            int tile = 1 + y / unit * in->grid[2] + x / unit;
            *index++ = (tile * unit + y % unit) * unit + x % unit;
        }
        *index++ = -1;
    }
}

static bool encode(run *r, const vlm_model *m, encode_job *job)
{
    const llava_next *v = m->family;
    if (!image_tower_encode(r, &v->base.tower, job)) return false;
    if (job->stage < job->stages) return run_ok(r);
    int32_t *index = run_alloc(r, (size_t)(job->in->tokens + 1) * sizeof *index), *zeros = run_alloc(r, (size_t)(job->in->tokens + 1) * sizeof *zeros);
    tensor x = mlp_connector_apply(r, &v->connector, image_tower_features(r, &v->base.tower, job));
    if (!run_ok(r)) return false;
    lay_out(v, job->in, index);
    image_tower_set_rows(r, job, op_gather(r, x, index, job->in->tokens));
    for (int i = 0; run_ok(r) && i < job->in->tokens; i++)
        if (index[i] < 0) op_add_inplace(r, tensor_rows(job->rows, i, 1), op_embed(r, &v->newline, zeros, 1, 1));
    return run_ok(r);
}

static const char *const types[] = {"llava_next", NULL};

const vlm_arch vlm_arch_llava_next = {
    .name = "llava_next",
    .title = "LLaVA-NeXT (1.6)",
    .model_types = types,
    .takes = TAKES_IMAGE,
    .configure = configure,
    .bind = bind,
    .process = process,
    .encode = encode,
    TOWER_LM_ARCH,
};

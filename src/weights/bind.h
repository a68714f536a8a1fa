/* bind.h - the checked weight table: a family names each weight with the shape that its config implies; a mismatch is a message.
 *
 *     bind_linear(b, &w->q_proj, heads * head_dim, hidden, "layers.%d.self_attn.q_proj", i);
 *
 * Names are looked up below the binder's current prefix; a prefix may have several spellings (bind_prefix), all tried in order. A linear's
 * storage format is what the file has: F32, F16, BF16, or MLX affine (weight U32 + scales + biases; bits and group from config.json
 * "quantization", per-module overrides by path). Sticky: after the first failure nothing more is done.
 *
 * A bound `weight` must stay where it is (in the family's arena memory): bind_release gives it back to the device. A copy of the struct
 * (a tied head) shares what it points to and is not bound again.
 *
 * In dummy mode (vlm bench on a bare config) weights are made up at random in the asked format; bind_exists and experts say "there",
 * an optional vector is absent, an optional matrix too, but for lm_head when the config says that embeddings are not tied. */
#ifndef VLM_WEIGHTS_BIND_H
#define VLM_WEIGHTS_BIND_H

#include "tensor/ops.h"
#include "weights/adapter.h"
#include "weights/checkpoint.h"
#include "weights/config.h"

typedef struct binder {
    const checkpoint *files;       /* NULL in dummy mode */
    config *cfg;
    device *dev;                   /* whose prepare is called for every matrix */
    arena *memory;                 /* lives as long as the model: converted vectors, permuted kernels, dummy weights */
    const char *prefixes[12];      /* alternatives of the current prefix, NULL-terminated; "" is none */
    const char *const *spellings;  /* pairs: parts of names (whole between dots) and how the file may spell them; NULL-terminated, or NULL */
    const char *dummy_format;      /* NULL: real weights */
    uint8_t *used;                 /* [checkpoint_count] for vlm inspect */
    struct bound_list *bound;      /* every weight handed out, for device release and sizes */
    uint64_t parameters;
    bool rows_only;                /* in bind_table */
    const char *outer;             /* may stand before every prefix ("vlm."); NULL: nothing */
    adapter_set *adapters;         /* what they change hangs on the weights (weight.low_rank); NULL: none */
    bool in_decoder;               /* what is bound now works on tokens: adapters of it leave the encoders' rows alone */
    bool failed;
    vlm_error error;
    vlm_progress_fn progress;
    void *progress_user;
} binder;

/* Zero-initialises b for `files` (NULL: dummy mode in `dummy_format`). dev may be NULL (nothing is prepared). */
bool bind_start(binder *b, const checkpoint *files, config *cfg, device *dev, arena *memory, const char *dummy_format, vlm_error *error);
/* Sets the prefix alternatives (11 at most; the texts must outlive their use), e.g. bind_prefix(b, "model.language_model.", "language_model.model.", "model.", NULL). */
void bind_prefix(binder *b, const char *first, ...) __attribute__((sentinel));
/* Matrix `name`.weight, else `name` [rows, cols] (further dimensions of 1, as of a 1x1 convolution, are fine); an optional bias `name`.bias comes through bind_vector_optional. */
void bind_linear(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Like bind_linear, of a table whose rows are looked up and never multiplied with: the backend does not prepare it. */
void bind_table(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Like bind_linear, but absent is fine: out->data == NULL, returns false. */
bool bind_linear_optional(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Several matrices that the file holds as one, one below the other (q, k, v): out[i] are the rows[i] next rows. */
void bind_linear_parts(binder *b, int count, weight *const *out, const int64_t *rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* `experts` matrices in one tensor [experts, rows, cols] (plain or affine). The full tensor name is given, without ".weight" added
 * when a tensor of just that name exists. */
void bind_experts(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 6, 7)));
bool bind_experts_optional(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* The same from matrices that lie one by one, NAME.0.SUFFIX.weight, NAME.1.SUFFIX.weight ...: copied together (plain formats of one type). */
void bind_experts_each(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *suffix, const char *format, ...) __attribute__((format(printf, 7, 8)));
/* ... from NAME.first on. */
void bind_experts_range(binder *b, weight *out, int64_t first, int64_t experts, int64_t rows, int64_t cols, const char *suffix, const char *format, ...) __attribute__((format(printf, 8, 9)));
/* The same from one tensor [experts, cols, rows] of a plain format, transposed by copying. */
void bind_experts_transposed(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* ... whose outputs alternate gate, up, gate, up ...: gates first in `out`. The same for biases [experts, rows]. */
void bind_experts_interleaved(binder *b, weight *out, int64_t experts, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 6, 7)));
void bind_vector_interleaved(binder *b, const float **out, int64_t experts, int64_t rows, const char *format, ...) __attribute__((format(printf, 5, 6)));
void bind_linear_transposed(binder *b, weight *out, int64_t rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* One matrix [heads * (key_rows + value_rows), cols], each head's keys before its values, as matrices of heads: keys turned, heads x [cols, key_rows], and
 * values, heads x [value_rows, cols]. Copied; quantized ones become float32. */
void bind_heads(binder *b, weight *keys, weight *values, int64_t heads, int64_t key_rows, int64_t value_rows, int64_t cols, const char *format, ...) __attribute__((format(printf, 8, 9)));
/* Matrices whose rows are mixed in one of the file: row r of out[i] is row pick[i][r] there. Copied, in the file's format. */
void bind_linear_picks(binder *b, int count, weight *const *out, const int64_t *rows, const int32_t *const *pick, int64_t cols, const char *format, ...) __attribute__((format(printf, 7, 8)));
/* The full tensor name, values widened to float32. n is checked against the number of elements. */
void bind_vector(binder *b, const float **out, int64_t n, const char *format, ...) __attribute__((format(printf, 4, 5)));
bool bind_vector_optional(binder *b, const float **out, int64_t n, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* Convolution kernel [out, in, kh, kw] (or [out, kh, kw, in] as MLX stores it) as the matrix [out, kh * kw * in] that op_conv2d wants; float32.
 * `name`.weight, as bind_linear. */
void bind_conv2d(binder *b, weight *out, int64_t outputs, int64_t inputs, int kh, int kw, const char *format, ...) __attribute__((format(printf, 7, 8)));
/* Kernel over time [out, in, k] (or [out, k, in]) as the matrix [out, k * in] over k rows side by side; float32. */
void bind_conv1d(binder *b, weight *out, int64_t outputs, int64_t inputs, int kernel, const char *format, ...) __attribute__((format(printf, 6, 7)));
/* Patch embedding kernel `name`.weight [out, in, frames, kh, kw], [out, in, kh, kw] when frames is 1, or channels last as MLX stores it, as the
 * matrix [out, in * frames * kh * kw] (columns ordered in, frame, y, x: a patch as processors flatten it) in the format of the file. */
void bind_conv3d(binder *b, weight *out, int64_t outputs, int64_t inputs, int frames, int kh, int kw, const char *format, ...) __attribute__((format(printf, 8, 9)));
/* Depthwise kernel `name`.weight [channels, 1, k] or [channels, k, 1] as float32 [channels, k]. */
void bind_conv1d_depthwise(binder *b, const float **out, int64_t channels, int kernel, const char *format, ...) __attribute__((format(printf, 5, 6)));
/* What adapters change about w under the given name (bind_linear and its kin do it themselves): a head that is a copy of the embedding has a name of its own. */
void bind_adapters(binder *b, weight *w, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Announces an adapter that lies in the checkpoint itself, before the matrices that it changes are bound; its products are times `scale`. Returns its bit in
 * masks (vlm_arch.adapters says which requests want it). Matrices are found as NAME.base_layer.weight then, too. */
int bind_built_in_adapter(binder *b, const char *name, double scale);
/* Did MLX's converter write the files? They say "format": "mlx" or carry its quantization; kernels have channels last, some norms are stored otherwise. */
bool bind_is_mlx(const binder *b);
/* Is there a tensor of that name below the prefix (always true in dummy mode)? */
bool bind_exists(binder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool bind_fail(binder *b, vlm_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void bind_release(binder *b);      /* gives every bound weight back to the device and frees the lists */
uint64_t bind_bytes(const binder *b);                                /* of all bound matrices */
size_t bind_count(const binder *b);
const weight *bind_at(const binder *b, size_t index);                /* in the order of binding */

#endif

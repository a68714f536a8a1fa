/* adapter.h - low-rank adapters beside a checkpoint: LoRA and DoRA as PEFT and as MLX write them.
 *
 *   PEFT   adapter_config.json {"peft_type": "LORA", "r", "lora_alpha", "use_rslora", "alpha_pattern" ...}, adapter_model.safetensors
 *          base_model.model.MODULE.lora_A.weight [rank, in], .lora_B.weight [out, rank] (.lora_B.bias), .lora_magnitude_vector [out],
 *          .lora_embedding_A [rank, rows], .lora_embedding_B [cols, rank]; MODULE.weight, .bias of modules that were trained whole
 *   MLX    adapter_config.json {"fine_tune_type": "lora" | "dora", "lora_parameters": {"rank", "scale"}}, adapters.safetensors
 *          MODULE.lora_a [in, rank], .lora_b [rank, out], .m [out]; before that {"rank", "alpha"} with .A, .B
 *   inside a checkpoint (Phi-4 multimodal): MODULE.lora_A.NAME.weight, MODULE.lora_B.NAME.weight, MODULE.base_layer.weight
 *
 * An adapter is opened before the family binds its weights; the binder then asks for each matrix under all the names that it looks for
 * in the checkpoint (bind.h), so names differ between layouts exactly as far as weights' names do. A tensor that nobody asked
 * for is an error in the end: adapters_placed. */
#ifndef VLM_WEIGHTS_ADAPTER_H
#define VLM_WEIGHTS_ADAPTER_H

#include "base/hash.h"
#include "weights/checkpoint.h"
#include "weights/config.h"

enum { MAX_ADAPTERS = 64 };                        /* bits of a mask (run.adapters) */

typedef enum adapter_role {
    ADAPTER_DOWN, ADAPTER_UP, ADAPTER_UP_BIAS, ADAPTER_MAGNITUDE, ADAPTER_TABLE_DOWN, ADAPTER_TABLE_UP,
    ADAPTER_DOWN_T, ADAPTER_UP_T,                  /* MLX: transposed */
    ADAPTER_WEIGHT, ADAPTER_BIAS,                  /* take the place of the base's */
    ADAPTER_UNKNOWN
} adapter_role;

typedef struct adapter adapter;
typedef struct adapter_set { adapter *list[MAX_ADAPTERS]; int count; } adapter_set;

/* Opens the adapter in folder `path` (or the file, with adapter_config.json beside it); its bit is its place in the list. */
bool adapters_open(adapter_set *set, const char *name, const char *path, vlm_error *error);
/* The adapter `name` that lies in the checkpoint itself; `scale` times its products. *bit: its place. */
bool adapters_built_in(adapter_set *set, const char *name, const checkpoint *files, double scale, int *bit, vlm_error *error);
void adapters_close(adapter_set *set);
/* Names with commas between them to a mask. */
bool adapters_mask(const adapter_set *set, const char *names, uint64_t *mask, vlm_error *error);
/* What the adapters of a mask are, for cache keys; media: only of those that change what encoders give. All zeros when there are none. */
bool adapters_digest(const adapter_set *set, uint64_t mask, bool media, digest *out);
/* Did every tensor of every adapter find a place? The message names those that did not. */
bool adapters_placed(const adapter_set *set, vlm_error *error);

const char *adapter_name(const adapter *a);
bool adapter_chosen_by_user(const adapter *a);                     /* not built in */
uint64_t adapter_parameters(const adapter *a);
/* The tensor with that role for that module (a tensor name without ".weight"); NULL: there is none. Counts as placed. */
const stored_tensor *adapter_find(adapter *a, const char *module, adapter_role role);
/* What its product is times, for a module whose matrices have that rank. */
bool adapter_scale(const adapter *a, const char *module, int64_t rank, double *scale, vlm_error *error);
void adapter_touches_media(adapter *a);            /* it changes a matrix outside the decoder */
const char *adapter_base(const adapter *a);        /* name of the model that it was made for, "" when it does not say */

#endif

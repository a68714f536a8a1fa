/* model.h - what a family is (vlm_arch), what a loaded checkpoint is (struct vlm_model), and what passes between engine and family.
 *
 * A family is one file: src/models/NAME.c ends with `const vlm_arch vlm_arch_NAME = {...}` and models.def gets one line. */
#ifndef VLM_MODELS_MODEL_H
#define VLM_MODELS_MODEL_H

#include <stdatomic.h>
#include "blocks/batch.h"
#include "media/media.h"
#include "models/recipe.h"
#include "tensor/ops.h"
#include "tensor/tap.h"
#include "text/chat.h"
#include "text/grammar.h"
#include "text/tokenizer.h"
#include "weights/bind.h"
#include "weights/checkpoint.h"
#include "weights/config.h"

enum { TAKES_IMAGE = 1, TAKES_VIDEO = 2, TAKES_AUDIO = 4 };
enum { MAX_PROCESSED = 8, MANY_PICTURES = 1000 };

/* ---- media on their way into the decoder ------------------------------------------------------------------------- */

/* A fetched, decoded medium. */
typedef struct media_item {
    media_kind kind;
    const chat_media *part;        /* its options */
    image image;
    video video;
    audio audio;
    digest digest;                 /* of the raw bytes and the sampling options */
} media_item;

/* A tensor of the family's processor under the name that the reference gives it ("pixel_values", "image_grid_thw" ...). */
typedef struct processed {
    const char *name;
    dtype type;
    int dims;
    int64_t dim[5];
    void *data;
    int64_t span;                  /* > 0: values from 0 on are rows of so many; those of the prompt's next medium count on behind them */
    bool end_to_end;               /* media of a prompt follow each other along the last dimension, not the first */
} processed;

/* What the family's processor made of one medium. Memory is its arena. */
typedef struct media_input {
    media_kind kind;
    processed tensors[MAX_PROCESSED];
    int n_tensors;
    int tokens;                    /* embedding rows that the encoder will give = placeholder tokens in the prompt */
    int rows;                      /* how many rows the encoder gives, when not `tokens`: cross-attention reads them (tokens is 0), or place() chooses among them; else 0 */
    int grid[3];                   /* t, h, w in patches, where the family has it */
    double *seconds;               /* [frames] time of each frame group, where the family has it */
    int frames;
    double seconds_per_grid;
    digest key;                    /* raw bytes + processor settings: with the model's identity the vision cache's key */
    void *family;                  /* anything else the family wants to remember */
    arena memory;
    arena bulk;                    /* data of tensors over 16 KiB: for the encoder alone; gone (data NULL) when expand() and
                                    * positions() see an input whose rows come from the vision cache */
    atomic_int shares;             /* owners beyond the first: media_input_share, media_input_free */
} media_input;
const processed *media_input_find(const media_input *in, const char *name);
/* Adds a tensor with zeroed data in the input's arena; NULL when out of memory. */
processed *media_input_add(media_input *in, const char *name, dtype type, int dims, const int64_t *dim);
media_input *media_input_share(media_input *in);                   /* one more owner; returns in */
void media_input_drop(media_input *in);                            /* frees the data of large tensors */
void media_input_free(media_input *in);                            /* one owner less; the last one frees. Allocated with MEM_NEW */
static inline int media_input_rows(const media_input *in) { return in->rows ? in->rows : in->tokens; }

/* An encoding in progress. Encoders can be interrupted between layers: the engine runs a few stages per step. */
typedef struct encode_job {
    const media_input *in;
    int stage, stages;             /* next and number; encode() does one stage and raises `stage` */
    double cost;                   /* rough FLOPs of one stage, for the budget */
    arena *memory;                 /* lives until the job ends: what must survive from stage to stage */
    void *family;
    tensor x;                      /* activations between stages, in `memory` */
    tensor rows;                   /* result after the last stage: [levels * tokens, hidden], in `memory` */
    const embed_rows *embeds;      /* MEDIA_PROMPT: rows of the media that the prompt shows */
    int n_embeds;
} encode_job;

/* ---- the prompt (the batch is in blocks/batch.h) ------------------------------------------------------------------- */

/* A medium in the prompt's ids. */
typedef struct media_span {
    int first, count;              /* ids [first, first + count) that rows replace */
    int media;                     /* index of the media_input */
    int row;                       /* first row of that medium which this span shows (a video can be cut into several spans) */
} media_span;

/* An encoder-decoder's encoder reads the prompt as if it were a medium: media_input.family of MEDIA_PROMPT. */
typedef struct prompt_reading {
    int32_t *ids;
    media_span *spans;             /* of the ids */
    int n, n_spans;
} prompt_reading;

/* What cross-attention reads in a sequence: rows of media one after the other, and which of them each token of the prompt sees. Tokens of the answer
 * see what the prompt's last one sees. */
typedef struct memory_part { int media, row, count; } memory_part;
typedef struct memory_plan {
    memory_part *parts;
    int n_parts, rows;
    int32_t *from, *to;            /* [tokens of the prompt]; NULL: all see everything */
} memory_plan;
bool memory_plan_add(memory_plan *p, int media, int row, int count);        /* false: out of memory */

/* ---- family ------------------------------------------------------------------------------------------------------- */

/* What a request may say about a medium of each kind, as far as the family's processor knows it: names of options with blanks between; `name?` is
 * true or false, `name*` any JSON, others are numbers > 0. "": none. Which frames of a video are taken (fps, num_frames, min_frames, max_frames) and
 * resize_shape need no mention. Options of other families are refused by a notice, see media_options.h. */
typedef struct media_rules {
    const char *image, *video, *audio;
    const char *low, *high;        /* detail "low", "high" of an image: a JSON object of options; NULL: makes no difference. {"at_most_NAME": n} is a
                                    * ceiling of what media_option() gives for NAME */
} media_rules;
#define MEDIA_AT_MOST "at_most_"
extern const media_rules media_rules_fixed;                /* every picture becomes one size */
extern const media_rules media_rules_pixels;               /* min_pixels, max_pixels: Qwen's way */
extern const media_rules media_rules_tiles;                /* crop_to_patches, min_patches, max_patches: InternVL's */

typedef struct vlm_arch {
    const char *name;              /* of the file */
    const char *title;             /* for people: "Gemma 4 (E2B, E4B, 26B-A4B, 31B)" */
    const char *const *model_types;/* values of config.json model_type, NULL-terminated */
    const char *const *architectures;  /* values of its architectures that say more than a model_type shared with others; NULL: none */
    vlm_task task;
    unsigned also;                 /* 1 << task of further ones that checkpoints of the family are published for, and that were compared with a reference */
    unsigned takes;                /* TAKES_*: what the family can take; configure() may narrow it per checkpoint */
    const char *chat;              /* Jinja template for checkpoints that bring none: the prompt that the reference's processor writes; NULL: text/chat_fallback.h */
    const media_rules *rules;      /* configure() may set others (m->rules). NULL: media_rules_fixed */
    bool counts_images;            /* process() gets an option "pictures": how many images the conversation has (MANY_PICTURES for stills of a video) */
    int max_images;                /* in one request; 0: any number. 1: video cannot be shown as stills either */

    /* config -> m->family (from m->memory), m->hidden, vocab, context, cache shape ... Failures through the config's sticky error. */
    bool (*configure)(vlm_model *m, config *c);
    bool (*bind)(vlm_model *m, binder *b);

    /* Medium -> processor tensors and token count. options: request's media_options object, may be NULL. Any thread. */
    bool (*process)(const vlm_model *m, const media_item *item, const json_t *options, media_input *out, vlm_error *error);
    bool no_special_tokens;        /* the tokenizer adds none around a prompt */
    /* Members for tokenizer_config.json, where it lacks them: roles, tokens that the reference's processor adds (added_tokens_decoder). NULL: none. */
    bool (*tokens)(const vlm_model *m, json_t *config);
    /* What an answer means, as JSON: prompt is the rendered text, text the answer with its control tokens; sides of the first picture. NULL when it is
     * nothing but text. NULL: it never is more. */
    json_t *(*answer)(const vlm_model *m, const char *prompt, const char *text, int width, int height);
    /* Which frames of a video to decode. */
    bool (*pick_frames)(const vlm_model *m, const chat_media *part, const json_t *options, const video_info *info, int64_t **indices,
                        int *count, vlm_error *error);
    /* The size that process() gives each frame first: frames are resized to it as they are decoded and never kept as they were. item->video has
     * info, count, indices and seconds; process() must ask item->video.info for the size that frames had. NULL: frames are kept whole. */
    bool (*frame_size)(const vlm_model *m, const media_item *item, const json_t *options, int *width, int *height, resize_filter *filter,
                       vlm_error *error);
    int (*audio_rate)(const vlm_model *m);                            /* NULL: 16000 */
    /* The placeholder text that the chat template writes for a kind (NULL: the kind is not taken), and the token id that is
     * replaced by rows, -1 if none. */
    const char *(*placeholder)(const vlm_model *m, media_kind kind);
    int32_t (*media_token)(const vlm_model *m, media_kind kind);
    /* Other ids that rows replace, too, where a medium has rows left (Ovis2's marks around tiles). NULL: none. */
    bool (*also_media)(const vlm_model *m, int32_t id);
    bool media_first;              /* media that the chat template shows nothing of stand before the prompt */
    /* The rendered prompt as the reference's processor changes it before placeholders are expanded (PaliGemma's begin token in the middle). NULL:
     * not at all. User text may hold guards. */
    bool (*rewrite)(const vlm_model *m, const char *text, buf *out, vlm_error *error);
    /* The text that takes the placeholder's place: begin marker, `tokens` media tokens, end marker, timestamps ... */
    bool (*expand)(const vlm_model *m, const media_input *in, buf *text, vlm_error *error);
    const char *const *typed;      /* control tokens that people type in prompts (<|grounding|>), see chat_options; NULL: none */
    /* The prompt when all placeholders are expanded, with all its media in order of appearance (GOT-OCR's query, made of options). NULL: as it is. */
    bool (*finish)(const vlm_model *m, media_input *const *media, int n, buf *text, vlm_error *error);
    /* Which of its medium's rows each span shows, when the encoder gives more than the prompt has tokens: sets spans[i].row. NULL: all in order. */
    void (*place)(const vlm_model *m, media_span *spans, int n_spans, media_input *const *media);
    /* Rope positions of a prompt: axes[a][i]. *next: position of the token after the prompt (all axes). NULL: 0,1,2... */
    bool (*positions)(const vlm_model *m, const int32_t *id, int n, const media_span *spans, int n_spans, media_input *const *media,
                      int32_t *const *axes, int32_t *next, vlm_error *error);

    /* Bits of the adapters inside the checkpoint (bind_built_in_adapter) that a request with media of these kinds (TAKES_*) runs with. NULL: none. */
    uint64_t (*adapters)(const vlm_model *m, unsigned kinds);
    /* Families with cross-attention: what a prompt's tokens read of its media; left empty when there is nothing. NULL: no cross-attention. Memory
     * with mem_*. Called with the prompt as the last medium when the family reads it (reads_prompt). */
    bool (*plan_memory)(const vlm_model *m, const int32_t *id, int n, media_input *const *media, int n_media, memory_plan *out, vlm_error *error);
    /* Keys and values of encoder rows into the memory's pages. */
    bool (*remember)(run *r, const vlm_model *m, const memory_fill *fill);
    bool reads_prompt;             /* encoder-decoder: the prompt goes to the encoder, as a medium of kind MEDIA_PROMPT; the answer begins with m->start */

    /* Sets job->stages, cost, x ...; then encode() once per stage. NULL: text only. */
    bool (*encode_start)(run *r, const vlm_model *m, encode_job *job);
    bool (*encode)(run *r, const vlm_model *m, encode_job *job);
    /* The batch through the decoder; logits [n_logits, vocab] (in scratch). */
    tensor (*forward)(run *r, const vlm_model *m, const batch *b);
} vlm_arch;

struct vlm_model {
    const vlm_arch *arch;
    char *path;
    config *cfg;                   /* config.json + generation_config.json */
    /* One object of all processor files, never NULL: processor_config.json over preprocessor_config.json, with the members image_processor,
     * video_processor and feature_extractor always there; where processor_config.json does not nest them, they are (video_)preprocessor_config.json. */
    config *processor;
    checkpoint *files;
    tokenizer *tok;
    chat_template *chat;           /* NULL: none */
    _Atomic(grammar_vocab *) vocabulary;       /* model_vocabulary() */
    device dev;
    binder binder;
    arena memory;
    void *family;
    recipe recipe;                 /* how embeddings and relevance come out of it */
    adapter_set adapters;          /* what low_rank parts of weights belong to: the user's, then those that the checkpoint holds itself */
    digest identity;               /* of config, weight file names, sizes and times: part of every cache key */

    /* set by configure() */
    int hidden, vocab, layers, context;
    unsigned takes;
    const media_rules *rules;      /* never NULL */
    int rope_axes;                 /* 1, or 3 for M-RoPE */
    int trained;                   /* > 0: longer texts have other rope frequencies, from their first token on */
    bool whole_prompt;             /* the whole prompt sees itself (a prefix language model); goes with bidirectional_media */
    bool bidirectional_media;      /* media blocks see themselves whole: their tokens must be computed in one step */
    int more_vocab;                /* ids behind vocab that prompts may have and answers never */
    int32_t block_tokens[8];       /* with bidirectional_media: the tokens that media blocks are made of; all blocks of a prompt see each other */
    int n_block_tokens;            /* 0: blocks are the media's rows, each alone */
    int n_groups;
    kv_shape group[MAX_KV_GROUPS]; /* type is filled in by vlm_load */
    size_t state_bytes;            /* recurrent state per sequence; 0: none */
    kv_shape memory_shape;         /* what cross-attention reads (blocks/cross.h); slots 0: none. type is filled in by vlm_load */
    int32_t start;                 /* reads_prompt: the token that the decoder starts with */

    /* from generation_config.json, config.json and tokenizer */
    int32_t eos[32];
    int n_eos;
    int32_t bos;                   /* -1: none */
    float temperature, top_p;      /* NAN: not given */
    int top_k;                     /* -1: not given */
};

/* vlm_load with a family that is given (NULL: found by model_type); load options as there. */
vlm_model *model_load(const char *path, const vlm_arch *arch, const vlm_load_options *options, vlm_error *error);

/* The tokens' bytes as grammars want them; made when it is first asked for, lives as long as the model. Any thread. */
grammar_vocab *model_vocabulary(vlm_model *m, vlm_error *error);

/* NULL-terminated list from models.def. */
extern const vlm_arch *const vlm_archs[];
/* By one of config.json's architectures, else by its model_type. Unknown: the message lists near names. */
const vlm_arch *arch_find(const char *model_type, const json_t *architectures, vlm_error *error);

#endif

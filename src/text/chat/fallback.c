/* fallback.c - see chat_fallback.h.
 *
 * A single message of the user is the prompt as it is; a conversation becomes lines "Role: text". Media stand where their parts stand; what is not
 * shown (PROMPT, TEXT) the family's processor places by itself. */
#include "text/chat_fallback.h"

#include <string.h>

#include "base/mem.h"

typedef enum style {
    LIST,                          /* a token for each, a blank between it and text that follows */
    TOKEN,                         /* a token for each, nothing between */
    ONCE,                          /* one token in a message, however many images */
    NUMBERED,                      /* <|image_1|>, <|image_2|> ... through the conversation */
    PROMPT,                        /* the text alone */
    LAST_TOKEN,                    /* all tokens before the text of the last message, nothing else of the conversation */
    LAST,                          /* the text of the last message alone */
    TEXT                           /* a conversation of texts */
} style;

typedef struct family { const char *type; style style; const char *image; bool after, single; } family;

static const family families[] = {
    {"llava", LIST, "<image>", true, false}, {"llava_next", LIST, "<image>", true, true}, {"llava_onevision", LIST, "<image>", true, false},
    {"granite_vision", LIST, "<image>", true, false}, {"granite4_vision", LIST, "<image>", true, false}, {"idefics2", LIST, "<image>", true, false},
    {"idefics3", LIST, "<image>", false, false}, {"smolvlm", LIST, "<image>", false, false}, {"aya_vision", LIST, "<image>", true, false},
    {"cohere2_vision", LIST, "<image>", true, false}, {"mllama", LIST, "<|image|>", true, true}, {"llama4", LIST, "<|image|>", true, false},
    {"kimi_vl", LIST, "<image>", true, false}, {"kimi_k25", LIST, "<image>", true, false}, {"kimi_k3", LIST, "<image>", true, false},
    {"qwen2_vl", LIST, "<|vision_start|><|image_pad|><|vision_end|>", true, false}, {"qwen2_5_vl", LIST, "<|vision_start|><|image_pad|><|vision_end|>", false, false},
    {"qwen3_vl", LIST, "<|vision_start|><|image_pad|><|vision_end|>", false, false}, {"qwen3_vl_moe", LIST, "<|vision_start|><|image_pad|><|vision_end|>", false, false},
    {"mistral3", LIST, "[IMG]", false, false}, {"pixtral", LIST, "[IMG]", false, false}, {"lfm2_vl", LIST, "<image>", false, false},
    {"paddleocr_vl", LIST, "<image>", false, false}, {"internvl", LIST, "<image>", false, false}, {"internvl_chat", LIST, "<image>", false, false},
    {"gemma3", TOKEN, "<start_of_image>", true, false}, {"minicpmo", TOKEN, "<image>", false, false}, {"minicpmv4_6", TOKEN, "(<image>./</image>)\\n", false, false},
    {"llmjpvl", TOKEN, "<image>", false, false}, {"multi_modality", TOKEN, "<image>", false, true}, {"jina_vlm", TOKEN, "<|image|>", false, false},
    {"jvlm", TOKEN, "<|image|>", false, false}, {"step3p7", TOKEN, "<im_patch>", false, false}, {"llava-qwen2", TOKEN, "<image>\\n", false, true},
    {"llava_qwen2", TOKEN, "<image>\\n", false, false}, {"bunny-llama", TOKEN, "<image>\\n", false, true}, {"deepseek_vl_v2", TOKEN, "<image>\\n", false, false},
    {"deepseekocr", TOKEN, "<image>\\n", false, false}, {"deepseekocr_2", TOKEN, "<image>\\n", false, false}, {"deepseek_ocr", TOKEN, "<image>\\n", false, false}, {"deepseek_ocr2", TOKEN, "<image>\\n", false, false}, {"phi4-siglip", TOKEN, "<image>\\n", false, false},
    {"unlimited-ocr", ONCE, "<image>", false, false}, {"phi3_v", NUMBERED, "", false, false}, {"phi4mm", NUMBERED, "", false, false},
    {"paligemma", LAST_TOKEN, "<image>", false, true}, {"florence2", LAST, "", false, false}, {"falcon_ocr", LAST, "", false, true},
    {"moondream1", PROMPT, "", false, false}, {"moondream2", PROMPT, "", false, false}, {"moondream3", PROMPT, "", false, false}, {"plamo2vl", PROMPT, "", false, false}, {"molmo", TEXT, "", false, false},
};

static const family *find(const char *type)
{
    for (size_t i = 0; type && i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].type, type)) return &families[i];
    return NULL;
}

bool chat_media_after_text(const char *model_type)
{
    const family *f = find(model_type);
    return f && f->after;
}

/* Variables in front of it: style, image, single. seen: media in the conversation so far; in this message; did one come last? */
static const char body[] =
    "{%- set seen = namespace(images=0, audios=0, here=0, token=false) -%}"
    "{%- macro mark(text) -%}{{ text }}{%- set seen.token = style == 'list' -%}{%- endmacro -%}"
    "{%- macro say(text) -%}{{ ' ' if seen.token and text and not text[0].isspace() }}{{ text }}{%- if text -%}{%- set seen.token = false -%}{%- endif -%}{%- endmacro -%}"
    "{%- macro picture() -%}"
    "{%- set seen.images = seen.images + 1 -%}{%- set seen.here = seen.here + 1 -%}"
    "{%- if single and seen.images > 1 -%}{{ raise_exception('this model takes one image') }}{%- endif -%}"
    "{%- if style == 'numbered' -%}<|image_{{ seen.images }}|>{%- elif style != 'once' or seen.here == 1 -%}{{ mark(image) }}{%- endif -%}"
    "{%- endmacro -%}"
    "{%- macro sound() -%}{%- set seen.audios = seen.audios + 1 -%}"
    "{%- if style == 'list' -%}{{ mark('<audio>') }}{%- elif style in ('token', 'numbered', 'once') -%}<|audio_{{ seen.audios }}|>{%- endif -%}{%- endmacro -%}"
    "{%- macro show(content) -%}"
    "{%- set seen.here = 0 -%}{%- set seen.token = false -%}"
    "{%- if content is string -%}{{ content }}"
    "{%- elif content is mapping -%}{{ content | tojson }}"
    "{%- elif content is none -%}"
    "{%- elif style in ('prompt', 'last', 'last_token', 'text') or content | rejectattr('type', 'equalto', 'text') | list | length == 0 -%}"
    "{%- if style == 'last_token' -%}{%- for part in content if part.type == 'image' -%}{{ picture() }}{%- endfor -%}{%- endif -%}"
    "{%- if single and content | selectattr('type', 'equalto', 'image') | list | length > 1 -%}{{ raise_exception('this model takes one image') }}{%- endif -%}"
    "{{ content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') | trim }}"
    "{%- else -%}"
    "{%- for part in content -%}"
    "{%- if part.type == 'text' -%}{{ say(part.text) }}"
    "{%- elif part.type == 'image' -%}{{ picture() }}"
    "{%- elif part.type == 'audio' -%}{{ sound() }}"
    "{%- elif part.type == 'video' and style == 'list' -%}{{ mark('<video>') }}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- endmacro -%}"
    "{%- if style in ('last_token', 'last') -%}{{ show(messages[-1].content) }}"
    "{%- elif messages | length == 1 and messages[0].role == 'user' -%}{{ show(messages[0].content) | trim if style == 'list' else show(messages[0].content) }}"
    "{%- else -%}"
    "{%- set lines = namespace(first=true) -%}"
    "{%- for message in messages -%}"
    "{{ '' if lines.first else '\\n' }}{%- set lines.first = false -%}"
    "{%- set text = show(message.content) -%}{%- set text = text | trim if style == 'list' else text -%}"
    "{%- if message.role in ('system', 'user', 'assistant', 'tool') -%}{{ message.role | capitalize }}:{{ ' ' ~ text if text }}{%- else -%}{{ text }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '\\nAssistant:' }}{%- endif -%}"
    "{%- endif -%}";

char *chat_fallback(const char *model_type, const char *image_token, bool *known)
{
    static const char *const names[] = {"list", "token", "once", "numbered", "prompt", "last_token", "last", "text"};
    const family *f = find(model_type);
    *known = f != NULL;
    if (!f) return NULL;
    bool own = image_token && *image_token && (f->style == LIST || f->style == LAST_TOKEN) && !strpbrk(image_token, "'\\\n");
    return mem_printf("{%%- set style = '%s' -%%}{%%- set image = '%s' -%%}{%%- set single = %s -%%}%s", names[f->style], own ? image_token : f->image, f->single ? "true" : "false", body);
}

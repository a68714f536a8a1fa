/* chat_fallback.h - prompts of families whose checkpoints have no chat template: LLaVA 1.5, Florence-2, PaliGemma ... One table says how each writes its
 * media; the rest is a Jinja text that this becomes. */
#ifndef VLM_TEXT_CHAT_FALLBACK_H
#define VLM_TEXT_CHAT_FALLBACK_H

#include <stdbool.h>

/* The template for config.json's model_type; image_token replaces the table's when it is not NULL (the processor or tokenizer may name it).
 * *known: is the family in the table? The caller frees; NULL when it is not, or out of memory. */
char *chat_fallback(const char *model_type, const char *image_token, bool *known);

/* Media that come beside the text, not as parts of it (generate --image): do they stand before the text or after it? False also for families
 * that are not in the table. */
bool chat_media_after_text(const char *model_type);

#endif

/* constraint.h - the grammar that a request's answer has to keep to: from response_format, tool_choice and strict tools.
 *
 * Compiled on the prompt threads and kept by what it was made from: masks that one request had computed serve the next. */
#ifndef VLM_ENGINE_CONSTRAINT_H
#define VLM_ENGINE_CONSTRAINT_H

#include "text/grammar.h"
#include "text/toolcall.h"

enum { MAX_CONSTRAINTS = 32 };

typedef struct constraint {
    grammar *grammar;              /* NULL: none */
    bool calls;                    /* it covers calls, too, with all that stands before them */
} constraint;

typedef struct constraints {       /* under the engine's lock */
    struct { char *key; constraint held; uint64_t used; } entry[MAX_CONSTRAINTS];
    uint64_t clock;
} constraints;
void constraints_free(constraints *c);

struct vlm_engine;
struct vlm_request;
/* lead: white space may come first, as after thinking. out->grammar: one reference, or NULL when nothing has to be kept to. */
bool constraint_make(struct vlm_engine *e, struct vlm_request *r, const toolcall_format *format, bool lead, constraint *out, vlm_error *error);

#endif

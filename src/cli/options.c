/* options.c - see options.h. */
#include "cli/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/near.h"

/* ---- messages ---- */

static int exit_code_of(vlm_status status)
{
    switch (status) {
#define X(name, code, text) case VLM_##name: return code;
        VLM_STATUS_TABLE(X)
#undef X
    }
    return 70;
}

int report(const vlm_error *error)
{
    progress_clear();
    fprintf(stderr, "vlm: %s\n", error->message[0] ? error->message : vlm_status_text(error->code));
    if (error->hint[0]) fprintf(stderr, "     %s\n", error->hint);
    return exit_code_of(error->code);
}

int usage_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("vlm: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return exit_code_of(VLM_INVALID);
}

const char *nearest_name(const char *word, const char *const *names)
{
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 2;
    for (; *names; names++) {
        int d = near_distance(word, *names);
        if (d < least) least = d, best = *names;
    }
    return best;
}

/* ---- parsing ---- */

static bool at_end(const option *o) { return !o->name && o->kind != OPT_SECTION; }

static const option *find_option(const command *cmd, const char *name, size_t length, bool *negated)
{
    *negated = false;
    for (const option *o = cmd->options; !at_end(o); o++) {
        if (o->kind == OPT_SECTION) continue;
        if (strlen(o->name) == length && !strncmp(o->name, name, length)) return o;
        if (o->kind == OPT_SWITCH && length > 3 && !strncmp(name, "no-", 3) && strlen(o->name) == length - 3 &&
            !strncmp(o->name, name + 3, length - 3)) {
            *negated = true;
            return o;
        }
    }
    return NULL;
}

static const option *find_letter(const command *cmd, char letter)
{
    for (const option *o = cmd->options; !at_end(o); o++)
        if (o->letter && o->letter == letter) return o;
    return NULL;
}

static int unknown_flag(const command *cmd, const char *flag)
{
    const char *names[128];
    int n = 0;
    for (const option *o = cmd->options; !at_end(o) && n < 127; o++)
        if (o->kind != OPT_SECTION) names[n++] = o->name;
    names[n] = NULL;
    const char *near = nearest_name(flag[1] == '-' ? flag + 2 : flag + 1, names);
    if (near) return usage_error("%s: unknown option %s; did you mean --%s?", cmd->name, flag, near);
    return usage_error("%s: unknown option %s (vlm %s --help lists them)", cmd->name, flag, cmd->name);
}

static bool allowed(const option *o, const char *value)
{
    if (!o->choices) return true;
    size_t n = strlen(value);
    for (const char *p = o->choices; *p;) {
        const char *end = strchr(p, '|');
        size_t length = end ? (size_t)(end - p) : strlen(p);
        if (length == n && !strncmp(p, value, n)) return true;
        if (!end) break;
        p = end + 1;
    }
    return false;
}

static bool texts_add(texts *list, const char *item)
{
    const char **grown = mem_resize(list->item, (size_t)list->count + 1, sizeof *grown);
    if (!grown) return false;
    list->item = grown;
    list->item[list->count++] = item;
    return true;
}

/* 0, or the exit code after a message. */
static int set_option(const command *cmd, const option *o, void *options, const char *value)
{
    void *field = (char *)options + o->offset;
    char *end = NULL;
    if (!allowed(o, value)) return usage_error("%s: --%s is one of %s, not '%s'", cmd->name, o->name, o->choices, value);
    errno = 0;
    switch (o->kind) {
    case OPT_INT:
        *(int64_t *)field = strtoll(value, &end, 10);
        if (end == value || *end || errno) return usage_error("%s: --%s takes a whole number, not '%s'", cmd->name, o->name, value);
        return 0;
    case OPT_NUMBER:
        *(double *)field = strtod(value, &end);
        if (end == value || *end) return usage_error("%s: --%s takes a number, not '%s'", cmd->name, o->name, value);
        return 0;
    case OPT_TEXT: *(const char **)field = value; return 0;
    case OPT_TEXTS: return texts_add(field, value) ? 0 : usage_error("out of memory");
    default: return usage_error("%s: --%s takes no value", cmd->name, o->name);
    }
}

/* A negative number is a value, not a flag; so is "-" (standard input). */
static bool is_flag(const char *word)
{
    return word[0] == '-' && word[1] && !(word[1] >= '0' && word[1] <= '9') && word[1] != '.';
}

/* Parses the flag at argv[*i]; moves *i to its last word. Returns 0, an exit code, or -1 for help. */
static int parse_flag(const command *cmd, void *options, int argc, char **argv, int *i)
{
    char *word = argv[*i];
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) return -1;
    bool negated = false, is_long = word[1] == '-';
    char *equals = is_long ? strchr(word, '=') : NULL;
    const option *o = is_long ? find_option(cmd, word + 2, equals ? (size_t)(equals - word - 2) : strlen(word + 2), &negated)
                      : word[2] ? NULL : find_letter(cmd, word[1]);
    if (!o) return unknown_flag(cmd, word);
    if (o->kind == OPT_SWITCH) {
        if (equals) return usage_error("%s: --%s is a switch and takes no value", cmd->name, o->name);
        *(bool *)((char *)options + o->offset) = !negated;
        return 0;
    }
    if (equals) return set_option(cmd, o, options, equals + 1);
    if (*i + 1 >= argc || (is_flag(argv[*i + 1]) && o->kind != OPT_TEXT))
        return usage_error("%s: --%s needs a value (%s)", cmd->name, o->name, o->value ? o->value : "text");
    int code = set_option(cmd, o, options, argv[++*i]);
    while (!code && o->kind == OPT_TEXTS && *i + 1 < argc && !is_flag(argv[*i + 1])) code = set_option(cmd, o, options, argv[++*i]);
    return code;
}

void *options_parse(const command *cmd, int argc, char **argv, texts *words, bool *done, int *exit_code)
{
    *words = (texts){0};
    *done = true;
    void *options = mem_new(1, cmd->size);
    *exit_code = options ? 0 : usage_error("out of memory");
    if (options && cmd->defaults) cmd->defaults(options);
    bool only_words = false;
    for (int i = 0; i < argc && !*exit_code; i++) {
        if (!only_words && !strcmp(argv[i], "--")) only_words = true;
        else if (!only_words && is_flag(argv[i])) *exit_code = parse_flag(cmd, options, argc, argv, &i);
        else if (!texts_add(words, argv[i])) *exit_code = usage_error("out of memory");
    }
    if (*exit_code == -1) {
        options_help(cmd);
        *exit_code = 0;
        return options;
    }
    *done = *exit_code != 0;
    return options;
}

void options_free(const command *cmd, void *options, texts *words)
{
    for (const option *o = cmd->options; options && !at_end(o); o++)
        if (o->kind == OPT_TEXTS) mem_free(((texts *)((char *)options + o->offset))->item);
    mem_free(words->item);
    mem_free(options);
}

void options_help(const command *cmd)
{
    printf("vlm %s %s\n%s.\n", cmd->name, cmd->usage, cmd->help);
    if (cmd->description) printf("\n%s\n", cmd->description);
    for (const option *o = cmd->options; !at_end(o); o++) {
        if (o->kind == OPT_SECTION) {
            printf("\n%s\n", o->help);
            continue;
        }
        char left[96], letter[8] = "    ";
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "  %s--%s%s%s%s", letter, o->name, o->value ? " " : "", o->value ? o->value : "",
                 o->kind == OPT_TEXTS ? " ..." : "");
        if (strlen(left) > 36) printf("%s\n%38s%s\n", left, "", o->help);
        else printf("%-38s%s\n", left, o->help);
    }
}

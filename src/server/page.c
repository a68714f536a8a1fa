/* page.c - the web page at /: the files of src/server/web, part of the program. They ask nobody but this server, and the content-security policy sees to it. */
#include "server/server_internal.h"

#include <string.h>

/* The file's bytes in the program, from name to name_end. */
#define EMBED(name, file)                                                                                                  \
    __asm__(".pushsection .rodata\n.global " #name "\n.balign 16\n" #name ":\n.incbin \"" VLM_WEB "/" file "\"\n"          \
            ".global " #name "_end\n" #name "_end:\n.byte 0\n.popsection\n");                                              \
    extern const char name[], name##_end[];
EMBED(web_index, "index.html")
EMBED(web_css, "app.css")
EMBED(web_app, "app.js")
EMBED(web_api, "api.js")
EMBED(web_markdown, "markdown.js")
EMBED(web_record, "record.js")
EMBED(web_store, "store.js")

#define JAVASCRIPT "text/javascript; charset=utf-8"
static const struct { const char *name, *type, *begin, *end; } files[] = {
    {"index.html", "text/html; charset=utf-8", web_index, web_index_end}, {"app.css", "text/css; charset=utf-8", web_css, web_css_end},
    {"app.js", JAVASCRIPT, web_app, web_app_end}, {"api.js", JAVASCRIPT, web_api, web_api_end}, {"markdown.js", JAVASCRIPT, web_markdown, web_markdown_end},
    {"record.js", JAVASCRIPT, web_record, web_record_end}, {"store.js", JAVASCRIPT, web_store, web_store_end}};

static void send_file(exchange *x, const char *name)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(files[i].name, name)) continue;
        exchange_add_header(x, "Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src data: blob:; "
                                                          "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
        exchange_add_header(x, "Referrer-Policy", "no-referrer");
        exchange_add_header(x, "Cache-Control", "no-cache");
        exchange_reply(x, 200, files[i].type, files[i].begin, (size_t)(files[i].end - files[i].begin));
        return;
    }
    refusal why;
    refuse(&why, 404, NULL, "There is no page '%.80s'.", name);
    refusal_send(x, &why, OPENAI);
}

void route_page(server *s, exchange *x, const char *argument) { send_file(x, "index.html"); }
void route_web(server *s, exchange *x, const char *name) { send_file(x, name); }

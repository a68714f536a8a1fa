/* safetensors_fuzz.c - any bytes as a weight file: opened, every tensor read to its last byte, and bound in every way. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "weights/bind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void touch(const stored_tensor *t)
{
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < t->bytes; i++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[i]);
}

static void read_rows(const weight *w)
{
    float row[4096];
    if (!w->data || w->cols > 4096) return;
    int64_t rows = w->rows * (w->experts ? w->experts : 1);
    for (int64_t r = 0; r < rows && r < 4096; r++) weight_row_f32(w, r, row);
}

static void bind_all(const checkpoint *files, config *cfg)
{
    arena memory = {0};
    binder b;
    weight w;
    const float *v;
    if (!bind_start(&b, files, cfg, NULL, &memory, NULL, NULL)) return;
    for (size_t i = 0; i < checkpoint_count(files) && i < 64; i++) {
        const stored_tensor *t = checkpoint_at(files, i);
        int64_t n = t->dims > 0 ? t->dim[0] : 1, last = t->dims > 1 ? t->dim[t->dims - 1] : 1;
        char name[256];
        size_t length = strlen(t->name);
        snprintf(name, sizeof name, "%.*s", (int)(length > 7 && !strcmp(t->name + length - 7, ".weight") ? length - 7 : length), t->name);
        bind_linear(&b, &w, n, last, "%s", name);
        read_rows(&w);
        b.failed = false;
        bind_linear(&b, &w, n, last < 4096 ? last * 8 : 1, "%s", name);
        read_rows(&w);
        b.failed = false;
        bind_experts(&b, &w, n, t->dims > 1 ? t->dim[1] : 1, last, "%s", name);
        read_rows(&w);
        b.failed = false;
        bind_vector(&b, &v, n, "%s", name);
        b.failed = false;
        bind_conv2d(&b, &w, n, 2, 2, 2, "%s", name);
        read_rows(&w);
        b.failed = false;
        bind_conv3d(&b, &w, n, last, 1, 2, 2, "%s", name);
        b.failed = false;
        bind_conv1d_depthwise(&b, &v, n, 3, "%s", name);
        b.failed = false;
    }
    bind_release(&b);
    arena_free(&memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char quantization[] = "{\"quantization\":{\"bits\":4,\"group_size\":32},\"hidden_size\":4,\"head_dim\":2,\"num_attention_heads\":3}";
    char path[64];
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) return close(fd), 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    checkpoint *c = checkpoint_open_file(path, NULL);
    config *cfg = config_from_json(json_text_parse(quantization, sizeof quantization - 1, "config.json", NULL), "config.json", NULL);
    if (c && cfg) {
        for (size_t i = 0; i < checkpoint_count(c); i++) touch(checkpoint_at(c, i));
        bind_all(c, cfg);
    }
    config_free(cfg);
    checkpoint_close(c);
    close(fd);
    return 0;
}

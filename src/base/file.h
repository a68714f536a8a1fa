/* file.h - whole files: mapped (weights) or read under a ceiling (everything else). */
#ifndef VLM_BASE_FILE_H
#define VLM_BASE_FILE_H

#include <stdbool.h>
#include "base/mem.h"
#include "vlm.h"

typedef struct mapped_file { const uint8_t *data; size_t size; } mapped_file;

/* Read-only private mapping; an empty file gives data NULL, size 0. */
bool file_map(const char *path, mapped_file *out, vlm_error *error);
void file_unmap(mapped_file *file);
/* These bytes will hardly be read again: gives their memory back (they come from the file when they are). Bytes outside the mapping are left alone. */
void file_drop(const mapped_file *file, const void *data, size_t bytes);
/* The whole file, at most `limit` bytes (VLM_LIMIT beyond; the size is checked before reading). Appends to *out. "-" is stdin. */
bool file_read(const char *path, size_t limit, buf *out, vlm_error *error);
/* Writes beside the target and renames: a reader sees the old file or the new one. */
bool file_write(const char *path, const void *data, size_t size, vlm_error *error);
bool file_exists(const char *path);
bool file_is_directory(const char *path);
/* dir + "/" + name; NULL when out of memory. Caller frees. */
char *path_join(const char *dir, const char *name);

#endif

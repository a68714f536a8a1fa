/* file.c - see file.h. */
#define _GNU_SOURCE
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"

static bool fail_errno(vlm_error *error, const char *doing, const char *path)
{
    vlm_status code = errno == ENOENT || errno == ENOTDIR ? VLM_NOT_FOUND : VLM_IO;
    return err_set(error, code, "cannot %s %s: %s", doing, path, strerror(errno));
}

static int open_regular(const char *path, struct stat *st, vlm_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_errno(error, "open", path), -1;
    if (fstat(fd, st) < 0) {
        fail_errno(error, "look at", path);
    } else if (S_ISDIR(st->st_mode)) {
        err_set(error, VLM_INVALID, "%s is a directory, a file was expected", path);
    } else {
        return fd;
    }
    close(fd);
    return -1;
}

bool file_map(const char *path, mapped_file *out, vlm_error *error)
{
    *out = (mapped_file){0};
    struct stat st;
    int fd = open_regular(path, &st, error);
    if (fd < 0) return false;
    bool ok = true;
    if (!S_ISREG(st.st_mode)) {
        ok = err_set(error, VLM_INVALID, "%s is not a regular file", path);
    } else if (st.st_size > 0) {
        void *data = mem_inject() ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) ok = fail_errno(error, "map", path);
        else *out = (mapped_file){data, (size_t)st.st_size};
    }
    close(fd);
    return ok;
}

void file_unmap(mapped_file *file)
{
    if (file->data) munmap((void *)(uintptr_t)file->data, file->size);
    *file = (mapped_file){0};
}

void file_drop(const mapped_file *file, const void *data, size_t bytes)
{
    uintptr_t start = (uintptr_t)file->data, page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)data, end = from + bytes;
    if (!file->data || from < start || from - start > file->size || bytes > file->size - (from - start)) return;
    from = (from + page - 1) / page * page;
    end = end / page * page;
    if (from < end) madvise((void *)from, end - from, MADV_DONTNEED);
}

static bool read_all(int fd, const char *path, size_t limit, buf *out, vlm_error *error)
{
    char chunk[65536];
    for (size_t total = 0;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno(error, "read", path);
        if (n == 0) return true;
        total += (size_t)n;
        if (total > limit) return err_set(error, VLM_LIMIT, "%s is larger than the %zu bytes that are read", path, limit);
        if (!buf_add(out, chunk, (size_t)n)) return err_memory(error, total);
    }
}

bool file_read(const char *path, size_t limit, buf *out, vlm_error *error)
{
    if (strcmp(path, "-") == 0) return read_all(STDIN_FILENO, "standard input", limit, out, error);
    struct stat st;
    int fd = open_regular(path, &st, error);
    if (fd < 0) return false;
    bool ok;
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > limit)
        ok = err_set(error, VLM_LIMIT, "%s has %lld bytes, at most %zu are read", path, (long long)st.st_size, limit);
    else
        ok = read_all(fd, path, limit, out, error);
    close(fd);
    return ok;
}

bool file_write(const char *path, const void *data, size_t size, vlm_error *error)
{
    char *temporary = mem_printf("%s.%ld.tmp", path, (long)getpid());
    if (!temporary) return err_memory(error, strlen(path));
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok = fd >= 0 || fail_errno(error, "create", temporary);
    for (size_t done = 0; ok && done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) ok = fail_errno(error, "write", temporary);
        else done += (size_t)n;
    }
    if (fd >= 0 && close(fd) < 0 && ok) ok = fail_errno(error, "write", temporary);
    if (ok && rename(temporary, path) < 0) ok = fail_errno(error, "rename to", path);
    if (!ok && fd >= 0) unlink(temporary);
    mem_free(temporary);
    return ok;
}

bool file_exists(const char *path) { return access(path, F_OK) == 0; }

bool file_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return mem_printf("%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

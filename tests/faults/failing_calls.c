/* Makes the N-th system call that touches a place fail, for the processes that it is loaded into (LD_PRELOAD).

   A process that changes into a folder with a file `fault.plan` lives by it from then on:

       MARK KIND FIRST LAST        e.g.  out/train ENOSPC 17 17

   Calls on paths, and on open files, whose name holds MARK are counted from 1. Those from FIRST to LAST fail: `kill`
   is SIGKILL before the call, or in the middle of a write; `EIO` and `ENOSPC` are answered without doing anything;
   `short` writes a half, and says ENOSPC to whoever comes again while the fault lasts. The names of all calls that
   were counted are added to `fault.log`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char mark[256], kind[16];
static int first, last, count, begun, log_file = -1;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *name_of(int descriptor, char *text) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, text, PATH_MAX - 1);
    text[length > 0 ? length : 0] = 0;
    return text;
}

/* Counts a call and says whether it is to fail: with errno set, unless it is to write a half. */
static int fails(const char *call, const char *path, const char *other) {
    if (!mark[0] || !((path && strstr(path, mark)) || (other && strstr(other, mark)))) return 0;
    count++;
    char line[32];
    syscall(SYS_write, log_file, line, snprintf(line, sizeof line, "%s\n", call));
    if (count < first || count > last) return 0;
    if (!strcmp(kind, "kill") && strcmp(call, "write")) syscall(SYS_kill, getpid(), SIGKILL);
    errno = !strcmp(kind, "EIO") ? EIO : ENOSPC;
    return !strcmp(kind, "short") && !begun ? !strcmp(call, "write") : 1;
}

int chdir(const char *path) {
    int result = REAL(chdir)(path);
    FILE *plan = result ? NULL : fopen("fault.plan", "r");
    if (plan) {
        if (fscanf(plan, "%255s %15s %d %d", mark, kind, &first, &last) != 4) mark[0] = 0;
        fclose(plan);
        log_file = syscall(SYS_openat, AT_FDCWD, "fault.log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    }
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char text[PATH_MAX];
    if (fails("write", name_of(descriptor, text), NULL)) {
        int halves = !strcmp(kind, "kill") || (!strcmp(kind, "short") && !begun);
        if (!halves) return -1;
        begun = 1;
        ssize_t written = REAL(write)(descriptor, data, size > 1 ? size / 2 : size);
        if (!strcmp(kind, "kill")) syscall(SYS_kill, getpid(), SIGKILL);
        return written;
    }
    return REAL(write)(descriptor, data, size);
}

#define ON_FILE(type, name, call, parameters, arguments)                       \
    type name parameters {                                                     \
        char text[PATH_MAX];                                                   \
        return fails(call, name_of(descriptor, text), NULL) ? -1 : REAL(name) arguments; \
    }
#define ON_PATH(name, call, parameters, arguments, path, other)                \
    int name parameters { return fails(call, path, other) ? -1 : REAL(name) arguments; }
#define OPENING(name, parameters, arguments)                                   \
    int name parameters {                                                      \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        int mode = flags & O_CREAT ? va_arg(rest, int) : 0;                    \
        va_end(rest);                                                          \
        return fails("open", path, NULL) ? -1 : REAL(name) arguments;          \
    }

OPENING(open, (const char *path, int flags, ...), (path, flags, mode))
OPENING(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENING(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPENING(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
ON_FILE(int, fsync, "fsync", (int descriptor), (descriptor))
ON_FILE(int, fdatasync, "fsync", (int descriptor), (descriptor))
ON_FILE(int, ftruncate, "truncate", (int descriptor, off_t size), (descriptor, size))
ON_FILE(int, ftruncate64, "truncate", (int descriptor, off64_t size), (descriptor, size))
ON_FILE(ssize_t, pwrite64, "write", (int descriptor, const void *d, size_t n, off64_t at), (descriptor, d, n, at))
ON_PATH(truncate, "truncate", (const char *path, off_t size), (path, size), path, NULL)
ON_PATH(truncate64, "truncate", (const char *path, off64_t size), (path, size), path, NULL)
ON_PATH(rename, "rename", (const char *old, const char *new), (old, new), old, new)
ON_PATH(renameat, "rename", (int a, const char *old, int b, const char *new), (a, old, b, new), old, new)
ON_PATH(link, "link", (const char *old, const char *new), (old, new), old, new)
ON_PATH(linkat, "link", (int a, const char *old, int b, const char *new, int f), (a, old, b, new, f), old, new)
ON_PATH(unlink, "unlink", (const char *path), (path), path, NULL)
ON_PATH(unlinkat, "unlink", (int folder, const char *path, int flags), (folder, path, flags), path, NULL)
ON_PATH(rmdir, "rmdir", (const char *path), (path), path, NULL)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode), path, NULL)
ON_PATH(mkdirat, "mkdir", (int folder, const char *path, mode_t mode), (folder, path, mode), path, NULL)

/* A faulty file layer: counts, fails, tears and records what a process does to files.
 *
 * Loaded by LD_PRELOAD, it stands between a process and libc's file functions. Every change of a
 * file below one directory is an operation: a creation, write, truncation, preallocation, sync,
 * rename or removal. Operations are numbered from 1 in the order in which they happen, all threads
 * together, and happen one at a time. See tests/src/fault/shim.rs for who sets these variables:
 *
 *   FAULT_DIRECTORY  the directory, as an absolute path without symbolic links
 *   FAULT_AT         the number of the operation that goes wrong; 0 or absent: none
 *   FAULT_KIND       eio, enospc: it fails so
 *                    kill: half of it is written, then the process is killed; what lies within
 *                          one sector is not written at all, as disks write sectors whole
 *                    tear: the first write from it on is written half and reported as whole
 *                    nosync: every sync does nothing and reports success, whatever FAULT_AT is
 *   FAULT_FILES      if set, only operations on paths that match this pattern are numbered
 *   FAULT_FOREVER    if set, eio and enospc hit every operation from FAULT_AT on
 *   FAULT_LOG        a file that records every operation that succeeded
 *   FAULT_NOTES      a file elsewhere; what is written to it is recorded too, and not counted
 *
 * What it cannot see: system calls made without libc, stdio (RocksDB writes nothing by it but its
 * text log) and writes through mappings, of which the store has none. Rust's rustix makes system
 * calls of its own: locks, and the preallocated ballast, which holds no data.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS_MAX = 4096, PATH_BYTES = 4096, SECTOR_BYTES = 512 };

/* The layout that tests/src/fault/log.rs reads; after it come path, other path and data. */
struct record {
    uint8_t kind;
    uint8_t zero[7];
    uint32_t path_bytes;
    uint32_t other_bytes;
    uint64_t offset;
    uint64_t data_bytes;
};

enum verdict { PASS, FAIL, KILL, TEAR };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char directory[PATH_BYTES], notes[PATH_BYTES], files[PATH_BYTES];
static size_t directory_bytes;
static uint64_t count, fault_at;
static int fault_forever, fault_errno, fault_kills, fault_tears, fault_nosync;
static int log_fd = -1;
/* By file descriptor: the path of a file below the directory, or of the notes. */
static char *paths[FDS_MAX];

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    if (!symbol) {
        fprintf(stderr, "shim: libc has no %s\n", name);
        abort();
    }
    return symbol;
}

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

static void start(void)
{
    const char *kind = variable("FAULT_KIND"), *log = variable("FAULT_LOG");
    snprintf(directory, sizeof directory, "%s", variable("FAULT_DIRECTORY"));
    snprintf(notes, sizeof notes, "%s", variable("FAULT_NOTES"));
    snprintf(files, sizeof files, "%s", variable("FAULT_FILES"));
    directory_bytes = strlen(directory);
    fault_at = strtoull(variable("FAULT_AT"), NULL, 10);
    fault_forever = *variable("FAULT_FOREVER") != 0;
    fault_errno = strcmp(kind, "enospc") ? EIO : ENOSPC;
    fault_kills = !strcmp(kind, "kill");
    fault_tears = !strcmp(kind, "tear");
    fault_nosync = !strcmp(kind, "nosync");
    if (*log && (log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) {
        perror(log);
        abort();
    }
}

static void enter(void)
{
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
}

/* Unlocks, and keeps errno for the caller. */
static void leave(void)
{
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* Counts one operation on a path and says what becomes of it. */
static enum verdict next(const char *path)
{
    if (*files && fnmatch(files, path, 0))
        return PASS;
    count++;
    if (fault_tears)
        return fault_at && count >= fault_at ? TEAR : PASS;
    if (!fault_at || (fault_forever ? count < fault_at : count != fault_at))
        return PASS;
    if (fault_kills)
        return KILL;
    errno = fault_errno;
    return FAIL;
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* For operations that cannot be half done: whether it is done. */
static int goes_on(const char *path)
{
    switch (next(path)) {
    case KILL:
        die();
        return 0;
    case FAIL:
        return 0;
    default:
        return 1;
    }
}

static void record(char kind, const char *path, const char *other, uint64_t offset,
                   const void *data, size_t data_bytes)
{
    struct record head = { .kind = (uint8_t)kind, .path_bytes = (uint32_t)strlen(path),
                           .other_bytes = (uint32_t)strlen(other), .offset = offset,
                           .data_bytes = data_bytes };
    struct iovec parts[] = { { &head, sizeof head },
                             { (void *)path, head.path_bytes },
                             { (void *)other, head.other_bytes },
                             { (void *)data, data_bytes } };
    ssize_t whole = (ssize_t)(sizeof head + head.path_bytes + head.other_bytes + data_bytes);
    int error = errno;
    if (log_fd >= 0 && REAL(writev)(log_fd, parts, 4) != whole) {
        perror("shim: the log");
        abort();
    }
    errno = error;
}

static int is_below(const char *path)
{
    return directory_bytes && !strncmp(path, directory, directory_bytes) &&
           (path[directory_bytes] == '/' || !path[directory_bytes]);
}

/* Makes a path absolute; says whether it lies below the directory. */
static int resolve(int at, const char *path, char out[static PATH_BYTES])
{
    char link[64], base[PATH_BYTES / 2];
    ssize_t base_bytes;
    if (*path == '/')
        return snprintf(out, PATH_BYTES, "%s", path) < PATH_BYTES && is_below(out);
    if (at == AT_FDCWD)
        snprintf(link, sizeof link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    base_bytes = readlink(link, base, sizeof base - 1);
    if (base_bytes < 0)
        return 0;
    base[base_bytes] = 0;
    return snprintf(out, PATH_BYTES, "%s/%s", base, path) < PATH_BYTES && is_below(out);
}

static const char *path_of(int fd)
{
    return fd >= 0 && fd < FDS_MAX ? paths[fd] : NULL;
}

static int is_notes(const char *path)
{
    return *notes && !strcmp(path, notes);
}

static void forget(int fd)
{
    if (path_of(fd)) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
}

static void remember(int fd, const char *path)
{
    if (fd < 0 || fd >= FDS_MAX)
        return;
    forget(fd);
    paths[fd] = strdup(path);
}

static uint64_t size_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) ? 0 : (uint64_t)status.st_size;
}

static int open_at(int at, const char *path, int flags, mode_t mode)
{
    char full[PATH_BYTES];
    struct stat status;
    int below, exists, creates, cuts, fd = -1;
    enter();
    below = resolve(at, path, full);
    exists = below && !stat(full, &status);
    creates = below && (flags & O_CREAT) && !exists;
    cuts = exists && (flags & O_TRUNC) && status.st_size > 0;
    if (!(creates || cuts) || goes_on(full))
        fd = REAL(openat)(at, path, flags, mode);
    if (fd >= 0 && (below || (*path == '/' && is_notes(path))))
        remember(fd, below ? full : path);
    if (fd >= 0 && creates)
        record('C', full, "", 0, NULL, 0);
    if (fd >= 0 && cuts)
        record('T', full, "", 0, NULL, 0);
    leave();
    return fd;
}

/* `at` is an offset, or -1 for the file's own position. */
static ssize_t put(int fd, const void *data, size_t bytes, off64_t at)
{
    if (at < 0)
        return REAL(write)(fd, data, bytes);
    return REAL(pwrite64)(fd, data, bytes, at);
}

static ssize_t write_at(int fd, const void *data, size_t bytes, off64_t at)
{
    const char *path;
    off64_t offset;
    ssize_t written = -1;
    enter();
    path = path_of(fd);
    if (!path || is_notes(path)) {
        written = put(fd, data, bytes, at);
        if (path && written > 0)
            record('A', path, "", 0, data, (size_t)written);
        leave();
        return written;
    }
    offset = at;
    if (at < 0)
        offset = fcntl(fd, F_GETFL) & O_APPEND ? (off64_t)size_of(fd) : lseek64(fd, 0, SEEK_CUR);
    switch (next(path)) {
    case FAIL:
        break;
    case KILL:
        if (bytes && (size_t)offset / SECTOR_BYTES != ((size_t)offset + bytes - 1) / SECTOR_BYTES)
            put(fd, data, bytes / 2, at);
        die();
        break;
    case TEAR:
        fault_at = 0;
        written = put(fd, data, bytes / 2, at);
        if (written >= 0 && at < 0)
            lseek64(fd, (off64_t)bytes - written, SEEK_CUR);
        if (written >= 0)
            record('W', path, "", (uint64_t)offset, data, (size_t)written);
        written = (ssize_t)bytes;
        break;
    case PASS:
        written = put(fd, data, bytes, at);
        if (written > 0)
            record('W', path, "", (uint64_t)offset, data, (size_t)written);
        break;
    }
    leave();
    return written;
}

static ssize_t write_parts(int fd, const struct iovec *parts, int parts_count, off64_t at)
{
    size_t bytes = 0;
    ssize_t written;
    char *whole, *end;
    for (int i = 0; i < parts_count; i++)
        bytes += parts[i].iov_len;
    whole = end = malloc(bytes ? bytes : 1);
    if (!whole) {
        errno = ENOMEM;
        return -1;
    }
    for (int i = 0; i < parts_count; i++)
        end = mempcpy(end, parts[i].iov_base, parts[i].iov_len);
    written = write_at(fd, whole, bytes, at);
    free(whole);
    return written;
}

/* Does `call` if it is of no interest, or is counted and goes on; then records it. */
#define ON_FD(fd, call, kind, offset)                                                              \
    do {                                                                                           \
        const char *path_;                                                                         \
        int result_ = -1;                                                                          \
        enter();                                                                                   \
        path_ = path_of(fd);                                                                       \
        if (!path_ || is_notes(path_))                                                             \
            result_ = (call);                                                                      \
        else if (goes_on(path_) && !(result_ = (call)))                                            \
            record(kind, path_, "", offset, NULL, 0);                                              \
        leave();                                                                                   \
        return result_;                                                                            \
    } while (0)

#define ON_PATH(at, path, call, kind)                                                              \
    do {                                                                                           \
        char full_[PATH_BYTES];                                                                    \
        int result_ = -1;                                                                          \
        enter();                                                                                   \
        if (!resolve(at, path, full_))                                                             \
            result_ = (call);                                                                      \
        else if (goes_on(full_) && !(result_ = (call)))                                            \
            record(kind, full_, "", 0, NULL, 0);                                                   \
        leave();                                                                                   \
        return result_;                                                                            \
    } while (0)

/* Gives open files their new names. */
static void follow(const char *from, const char *to)
{
    size_t from_bytes = strlen(from);
    for (int fd = 0; fd < FDS_MAX; fd++) {
        char moved[PATH_BYTES];
        const char *rest = paths[fd] ? paths[fd] + from_bytes : NULL;
        if (!rest || strncmp(paths[fd], from, from_bytes) || (*rest && *rest != '/'))
            continue;
        if (snprintf(moved, sizeof moved, "%s%s", to, rest) < PATH_BYTES)
            remember(fd, moved);
    }
}

static int two_paths(int from_at, const char *from, int to_at, const char *to, char kind)
{
    char full_from[PATH_BYTES], full_to[PATH_BYTES];
    int below, result = -1;
    enter();
    below = resolve(from_at, from, full_from);
    below = resolve(to_at, to, full_to) && below;
    if (!below || goes_on(full_from))
        result = kind == 'R' ? REAL(renameat)(from_at, from, to_at, to)
                             : REAL(linkat)(from_at, from, to_at, to, 0);
    if (!result && below) {
        record(kind, full_from, full_to, 0, NULL, 0);
        if (kind == 'R')
            follow(full_from, full_to);
    }
    leave();
    return result;
}

static int sync_nothing(int fd)
{
    int nothing;
    enter();
    nothing = fault_nosync && path_of(fd);
    leave();
    return nothing;
}

static int sync_fd(int fd, int data_only)
{
    if (sync_nothing(fd))
        return 0;
    ON_FD(fd, data_only ? REAL(fdatasync)(fd) : REAL(fsync)(fd), 'S', 0);
}

static int cut_fd(int fd, off64_t bytes)
{
    ON_FD(fd, REAL(ftruncate64)(fd, bytes), 'T', (uint64_t)bytes);
}

/* Recorded as a truncation to the size that it leaves, which is mostly the size that it found. */
static int preallocate(int fd, int mode, off64_t offset, off64_t bytes)
{
    ON_FD(fd, REAL(fallocate64)(fd, mode, offset, bytes), 'T', size_of(fd));
}

/* What libc exports. The names with 64 are the same functions on 64-bit systems. */

#define MODE(flags, mode)                                                                          \
    mode_t mode = 0;                                                                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                         \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode = va_arg(arguments, mode_t);                                                          \
        va_end(arguments);                                                                         \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(AT_FDCWD, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...)
{
    MODE(flags, mode)
    return open_at(at, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd)
{
    int result;
    enter();
    forget(fd);
    result = REAL(close)(fd);
    leave();
    return result;
}

ssize_t write(int fd, const void *data, size_t bytes)
{
    return write_at(fd, data, bytes, -1);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    return write_at(fd, data, bytes, at);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    return write_at(fd, data, bytes, at);
}

ssize_t writev(int fd, const struct iovec *parts, int parts_count)
{
    return write_parts(fd, parts, parts_count, -1);
}

ssize_t pwritev(int fd, const struct iovec *parts, int parts_count, off_t at)
{
    return write_parts(fd, parts, parts_count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int parts_count, off64_t at)
{
    return write_parts(fd, parts, parts_count, at);
}

int ftruncate(int fd, off_t bytes) { return cut_fd(fd, bytes); }
int ftruncate64(int fd, off64_t bytes) { return cut_fd(fd, bytes); }

int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    return preallocate(fd, mode, offset, bytes);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes)
{
    return preallocate(fd, mode, offset, bytes);
}

int posix_fallocate(int fd, off_t offset, off_t bytes)
{
    return preallocate(fd, 0, offset, bytes) ? errno : 0;
}

int posix_fallocate64(int fd, off64_t offset, off64_t bytes)
{
    return preallocate(fd, 0, offset, bytes) ? errno : 0;
}

int fsync(int fd) { return sync_fd(fd, 0); }
int fdatasync(int fd) { return sync_fd(fd, 1); }

/* Starts writing and promises nothing: no sync for what is replayed. */
int sync_file_range(int fd, off64_t offset, off64_t bytes, unsigned flags)
{
    ON_FD(fd, REAL(sync_file_range)(fd, offset, bytes, flags), 'T', size_of(fd));
}

int rename(const char *from, const char *to) { return two_paths(AT_FDCWD, from, AT_FDCWD, to, 'R'); }

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    return two_paths(from_at, from, to_at, to, 'R');
}

int link(const char *from, const char *to) { return two_paths(AT_FDCWD, from, AT_FDCWD, to, 'L'); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags)
{
    (void)flags;
    return two_paths(from_at, from, to_at, to, 'L');
}

int unlink(const char *path) { ON_PATH(AT_FDCWD, path, REAL(unlink)(path), 'U'); }

int unlinkat(int at, const char *path, int flags)
{
    ON_PATH(at, path, REAL(unlinkat)(at, path, flags), 'U');
}

int rmdir(const char *path) { ON_PATH(AT_FDCWD, path, REAL(rmdir)(path), 'U'); }

int mkdir(const char *path, mode_t mode) { ON_PATH(AT_FDCWD, path, REAL(mkdir)(path, mode), 'D'); }

/* A disk that loses at the kill what was not fsynced. Preloaded into a node whose data lives under JINDOU_SHIM_ROOT, it keeps
 * in JINDOU_SHIM_SHADOW what a power cut would leave of it: at the start the two are equal (the test copies), and
 *
 *   fsync, fdatasync of a file    its content goes to the shadow, under the name it has now, up to this moment
 *   fsync of a folder             its names do: new files appear (empty when never fsynced), renames move, removed ones vanish
 *   nothing else                  changes the shadow: not write, ftruncate, rename, unlink, close or the end of the process
 *
 * An fsync takes JINDOU_SHIM_FSYNC_US microseconds first (none when unset), so that what is acknowledged too early is lost by most kills.
 * Fsyncing a file makes its own name durable too, as ext4, xfs and btrfs do; a rename over a file needs the fsync of one of the two.
 * Only the bytes written since the last fsync of a file are copied (its dirty range), so a node runs at about its usual speed.
 * Seen are calls through libc, which is how Rust's std::fs writes; io_uring and mmap would go unseen, so neither may write data. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536
#define FILES 65536

/* What is known of a file since this process began. */
struct file {
    ino_t ino;        /* 0: the entry is free */
    int born;         /* created by this process: the shadow of its name is not its own until it is fsynced */
    off_t low, high;  /* dirty range; low >= high: clean */
    off_t cut;        /* smallest size since the last fsync, or -1 */
    char *shadow;     /* where the shadow has it, or NULL: under the name it had at the start */
};

static struct file files[FILES];
static struct file *open_files[FDS];  /* by file descriptor */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], shadow[PATH_MAX];
static size_t root_size;

#define REAL(name)                                                                                \
    ({                                                                                            \
        static __typeof__(&name) found_##name;                                                    \
        if (!found_##name) found_##name = (__typeof__(&name))real(#name);                         \
        found_##name;                                                                             \
    })
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static void die(const char *what, const char *path) {
    dprintf(2, "lossy disk: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *r = getenv("JINDOU_SHIM_ROOT"), *s = getenv("JINDOU_SHIM_SHADOW");
    if (!r || !s || !realpath(r, root) || !realpath(s, shadow)) die("needs folders in", "JINDOU_SHIM_ROOT and JINDOU_SHIM_SHADOW");
    root_size = strlen(root);
}

/* The shadow's place for a path under the root; 0 for other paths. */
static int shadow_of(const char *path, char *out) {
    if (!root_size || strncmp(path, root, root_size) || (path[root_size] && path[root_size] != '/')) return 0;
    return snprintf(out, PATH_MAX, "%s%s", shadow, path + root_size) < PATH_MAX;
}

/* The path that a descriptor has now; 0 when it has none (removed, or no file). */
static int path_of(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, out, PATH_MAX - 1);
    if (size <= 0) return 0;
    out[size] = 0;
    return out[0] == '/' && access(out, F_OK) == 0;
}

/* The entry of an inode; a new one when there is none and `make` is set. */
static struct file *entry(ino_t ino, int make) {
    size_t i = (size_t)ino * 2654435761u % FILES, tried = 0;
    for (; files[i].ino && files[i].ino != ino; i = (i + 1) % FILES)
        if (++tried == FILES) die("too many files below", root);
    if (!files[i].ino) {
        if (!make) return NULL;
        files[i] = (struct file){.ino = ino, .cut = -1};
    }
    return &files[i];
}

static void parents(char *path) {
    for (char *p = path + strlen(shadow) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        if (mkdir(path, 0755) && errno != EEXIST) die("mkdir", path);
        *p = '/';
    }
}

/* ---- what makes a file dirty ---- */

static void dirty(int fd, off_t from, off_t to) {
    int saved = errno;
    pthread_mutex_lock(&lock);
    struct file *f = fd >= 0 && fd < FDS ? open_files[fd] : NULL;
    if (f && from < to) {
        if (f->low >= f->high) f->low = from, f->high = to;
        if (from < f->low) f->low = from;
        if (to > f->high) f->high = to;
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static int tracked(int fd) { return fd >= 0 && fd < FDS && open_files[fd]; }

/* A write at the descriptor's own place, which now stands behind it. */
static ssize_t wrote(int fd, ssize_t size) {
    if (size > 0 && tracked(fd)) {
        off_t end = lseek(fd, 0, SEEK_CUR);
        dirty(fd, end - size, end);
    }
    return size;
}

static ssize_t wrote_at(int fd, ssize_t size, off_t place) {
    if (size > 0 && tracked(fd)) dirty(fd, place, place + size);
    return size;
}

/* While bytes are copied to the shadow no write may be half told: the lock is not held over write(2), so a write that ends after
 * the copy is told after it too, stays dirty and goes with the next fsync. */
ssize_t write(int fd, const void *b, size_t n) { return wrote(fd, REAL(write)(fd, b, n)); }
ssize_t writev(int fd, const struct iovec *v, int n) { return wrote(fd, REAL(writev)(fd, v, n)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return wrote_at(fd, REAL(pwrite)(fd, b, n, o), o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) { return wrote_at(fd, REAL(pwrite64)(fd, b, n, o), o); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { return wrote_at(fd, REAL(pwritev)(fd, v, n, o), o); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) { return wrote_at(fd, REAL(pwritev64)(fd, v, n, o), o); }

ssize_t copy_file_range(int in, off64_t *pi, int out, off64_t *po, size_t n, unsigned f) {
    off64_t place = po ? *po : -1;
    ssize_t size = REAL(copy_file_range)(in, pi, out, po, n, f);
    return place < 0 ? wrote(out, size) : wrote_at(out, size, place);
}

static void cut(int fd, off_t size) {
    pthread_mutex_lock(&lock);
    struct file *f = tracked(fd) ? open_files[fd] : NULL;
    if (f && (f->cut < 0 || size < f->cut)) f->cut = size;
    pthread_mutex_unlock(&lock);
}

int ftruncate(int fd, off_t n) { cut(fd, n); return REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { cut(fd, n); return REAL(ftruncate64)(fd, n); }

/* ---- which descriptors are files of ours ---- */

static int opened(int fd, int existed, int flags) {
    char now[PATH_MAX], copy[PATH_MAX];
    struct stat s;
    int saved = errno;
    if (fd >= 0 && fd < FDS && !fstat(fd, &s) && S_ISREG(s.st_mode) && path_of(fd, now) && shadow_of(now, copy)) {
        pthread_mutex_lock(&lock);
        struct file *f = entry(s.st_ino, 1);
        if (!existed) {  /* maybe on the inode of a file that was removed */
            free(f->shadow);
            *f = (struct file){.ino = s.st_ino, .born = 1, .cut = 0};
        } else if (flags & O_TRUNC) {
            f->cut = 0;
        }
        open_files[fd] = f;
        pthread_mutex_unlock(&lock);
    } else if (fd >= 0 && fd < FDS) {
        open_files[fd] = NULL;
    }
    errno = saved;
    return fd;
}

#define OPEN(name, at, call)                                                                      \
    {                                                                                             \
        mode_t mode = 0;                                                                          \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                      \
            va_list rest;                                                                         \
            va_start(rest, flags);                                                                \
            mode = va_arg(rest, mode_t);                                                          \
            va_end(rest);                                                                         \
        }                                                                                         \
        int existed = !(flags & O_CREAT) || faccessat(at, path, F_OK, 0) == 0;                    \
        return opened(REAL(name) call, existed, flags);                                                \
    }
int open(const char *path, int flags, ...) OPEN(open, AT_FDCWD, (path, flags, mode))
int open64(const char *path, int flags, ...) OPEN(open64, AT_FDCWD, (path, flags, mode))
int openat(int at, const char *path, int flags, ...) OPEN(openat, at, (at, path, flags, mode))
int openat64(int at, const char *path, int flags, ...) OPEN(openat64, at, (at, path, flags, mode))

int close(int fd) {
    if (fd >= 0 && fd < FDS) open_files[fd] = NULL;
    return REAL(close)(fd);
}

static int copied(int from, int to) {
    if (to >= 0 && to < FDS) open_files[to] = from >= 0 && from < FDS ? open_files[from] : NULL;
    return to;
}
int dup(int fd) { return copied(fd, REAL(dup)(fd)); }
int dup2(int fd, int to) { return copied(fd, REAL(dup2)(fd, to)); }
int dup3(int fd, int to, int flags) { return copied(fd, REAL(dup3)(fd, to, flags)); }
#define FCNTL(name)                                                                               \
    int name(int fd, int what, ...) {                                                             \
        va_list rest;                                                                             \
        va_start(rest, what);                                                                     \
        void *argument = va_arg(rest, void *);                                                    \
        va_end(rest);                                                                             \
        int result = REAL(name)(fd, what, argument);                                              \
        return what == F_DUPFD || what == F_DUPFD_CLOEXEC ? copied(fd, result) : result;          \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

/* ---- what reaches the shadow ---- */

/* Copies the dirty range of a file, or all of it when the shadow has nothing of it yet. */
static void sync_file(const struct stat *s, const char *now, char *copy) {
    static char buffer[1 << 16];
    struct file *f = entry(s->st_ino, 0);
    if (!f) {  /* opened by a way that is not seen here, so its writes were not either */
        f = entry(s->st_ino, 1);
        f->low = 0, f->high = s->st_size;
    }
    if (f->shadow && strcmp(f->shadow, copy)) {
        parents(copy);
        if (rename(f->shadow, copy) && errno != ENOENT) die("rename", copy);
    }
    if (!f->shadow && f->born) {
        if (unlink(copy) && errno != ENOENT) die("unlink", copy);
        f->low = 0, f->high = s->st_size;
    }
    parents(copy);
    int in = REAL(open)(now, O_RDONLY | O_CLOEXEC), out = REAL(open)(copy, O_WRONLY | O_CREAT | O_CLOEXEC, s->st_mode & 0777);
    if (in < 0 || out < 0) die("open", copy);
    if (f->cut >= 0) {
        struct stat had;
        if (fstat(out, &had) || (had.st_size > f->cut && REAL(ftruncate)(out, f->cut))) die("ftruncate", copy);
    }
    /* A preallocated file is mostly holes: those stay holes. */
    for (off_t place = f->low; place < f->high && place < s->st_size;) {
        off_t data = lseek(in, place, SEEK_DATA);
        if (data < 0) break;
        off_t hole = lseek(in, data, SEEK_HOLE), end = hole < f->high ? hole : f->high;
        while (data < end) {
            size_t want = (size_t)(end - data) < sizeof buffer ? (size_t)(end - data) : sizeof buffer;
            ssize_t got = pread(in, buffer, want, data);
            if (got <= 0 || REAL(pwrite)(out, buffer, (size_t)got, data) != got) die("copy", copy);
            data += got;
        }
        place = data > place ? data : f->high;
    }
    if (REAL(ftruncate)(out, s->st_size)) die("ftruncate", copy);
    REAL(close)(in);
    REAL(close)(out);
    f->low = f->high = 0;
    f->cut = -1;
    f->born = 0;
    if (!f->shadow || strcmp(f->shadow, copy)) {
        free(f->shadow);
        f->shadow = strdup(copy);
    }
}

static void forget(char *copy) {
    struct stat s;
    if (lstat(copy, &s)) return;
    if (S_ISDIR(s.st_mode)) {
        DIR *d = opendir(copy);
        for (struct dirent *e; d && (e = readdir(d));) {
            char inner[PATH_MAX];
            if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && snprintf(inner, PATH_MAX, "%s/%s", copy, e->d_name) < PATH_MAX) forget(inner);
        }
        if (d) closedir(d);
    }
    if (remove(copy)) die("remove", copy);
}

/* Makes the names of a folder durable. */
static void sync_folder(const char *now, char *copy) {
    char path[PATH_MAX], twin[PATH_MAX];
    struct stat s, had;
    parents(copy);
    if (mkdir(copy, 0755) && errno != EEXIST) die("mkdir", copy);
    DIR *d = opendir(now);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (snprintf(path, PATH_MAX, "%s/%s", now, e->d_name) >= PATH_MAX || lstat(path, &s)) continue;
        if (snprintf(twin, PATH_MAX, "%s/%s", copy, e->d_name) >= PATH_MAX) continue;
        struct file *f = entry(s.st_ino, 0);
        if (S_ISDIR(s.st_mode)) {
            if (mkdir(twin, 0755) && errno != EEXIST) die("mkdir", twin);
        } else if (f && f->shadow) {
            if (strcmp(f->shadow, twin)) {
                if (rename(f->shadow, twin) && errno != ENOENT) die("rename", twin);
                free(f->shadow);
                f->shadow = strdup(twin);
            }
        } else if ((f && f->born) || lstat(twin, &had)) {
            /* Never fsynced, or renamed here unfsynced: the name is there, the content is not. */
            int fd = REAL(open)(twin, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
            if (fd < 0) die("create", twin);
            REAL(close)(fd);
        }
    }
    if (d) closedir(d);
    d = opendir(copy);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (snprintf(path, PATH_MAX, "%s/%s", now, e->d_name) >= PATH_MAX || snprintf(twin, PATH_MAX, "%s/%s", copy, e->d_name) >= PATH_MAX) continue;
        if (lstat(path, &s) && errno == ENOENT) forget(twin);
    }
    if (d) closedir(d);
}

/* First the shadow, then the disk: what the caller learns is durable is in the shadow by then. */
static void durable(int fd) {
    char now[PATH_MAX], copy[PATH_MAX];
    struct stat s;
    if (fstat(fd, &s) || !path_of(fd, now) || !shadow_of(now, copy)) return;
    pthread_mutex_lock(&lock);
    if (S_ISREG(s.st_mode)) {
        if (!fstat(fd, &s)) sync_file(&s, now, copy);
    } else if (S_ISDIR(s.st_mode)) {
        sync_folder(now, copy);
    }
    pthread_mutex_unlock(&lock);
}

/* The time that a disk takes. */
static void slow(void) {
    const char *us = getenv("JINDOU_SHIM_FSYNC_US");
    if (us) usleep((useconds_t)atoi(us));
}

/* The real disk need not be waited for: the test reads the shadow only. */
int fsync(int fd) { slow(); durable(fd); return 0; }
int fdatasync(int fd) { slow(); durable(fd); return 0; }

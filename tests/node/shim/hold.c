/* Holds fsync back: while the file JINDOU_SHIM_HOLD exists, no call that makes data durable returns.
 * Each such call adds one byte to the file JINDOU_SHIM_COUNT before it waits.
 * Preload it (LD_PRELOAD) into a node: nothing may be acknowledged until the file is gone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void wait_for_release(void) {
    int saved = errno;
    const char *hold = getenv("JINDOU_SHIM_HOLD"), *count = getenv("JINDOU_SHIM_COUNT");
    if (count) {
        long fd = syscall(SYS_openat, AT_FDCWD, count, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (fd >= 0) {
            syscall(SYS_write, fd, ".", 1);
            syscall(SYS_close, fd);
        }
    }
    while (hold && syscall(SYS_faccessat, AT_FDCWD, hold, F_OK) == 0) {
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
    }
    errno = saved;
}

int fsync(int fd) {
    wait_for_release();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    wait_for_release();
    return (int)syscall(SYS_fdatasync, fd);
}

int syncfs(int fd) {
    wait_for_release();
    return (int)syscall(SYS_syncfs, fd);
}

void sync(void) {
    wait_for_release();
    syscall(SYS_sync);
}

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned int flags) {
    wait_for_release();
    return (int)syscall(SYS_sync_file_range, fd, offset, size, flags);
}

int msync(void *start, size_t size, int flags) {
    if (flags & MS_SYNC) wait_for_release();
    return (int)syscall(SYS_msync, start, size, flags);
}

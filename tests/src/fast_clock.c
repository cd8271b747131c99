/* The monotonic clock of a process, and all that waits by it, FAST_CLOCK times as fast. The time of day stays. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>

#define SECOND 1000000000LL

static long (*kernel)(long, ...);
static long long speed = 1, begin;

static long long nanos(const struct timespec *time) { return time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec of_nanos(long long nanos) {
    struct timespec time = {nanos / SECOND, nanos % SECOND};
    return time;
}

__attribute__((constructor)) static void start(void) {
    if (kernel) return;
    struct timespec now;
    long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    next(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    begin = nanos(&now);
    if (getenv("FAST_CLOCK")) speed = atoll(getenv("FAST_CLOCK"));
    kernel = next;
}

static int is_fast(clockid_t clock) { return clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE; }

/* A moment of the fast clock, by the kernel's. Rounded up: nothing is early. */
static struct timespec kernels(const struct timespec *moment) {
    return of_nanos(begin + (nanos(moment) - begin + speed - 1) / speed);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    start();
    int failed = kernel(SYS_clock_gettime, clock, time);
    if (!failed && is_fast(clock)) *time = of_nanos(begin + (nanos(time) - begin) * speed);
    return failed;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int millis) {
    start();
    if (millis > 0) millis = (millis + speed - 1) / speed;
    return kernel(SYS_epoll_wait, epoll, events, most, millis);
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    start();
    if (!is_fast(clock)) return kernel(SYS_clock_nanosleep, clock, flags, time, left) ? errno : 0;
    struct timespec rest = {0, 0};
    struct timespec until = flags & TIMER_ABSTIME ? kernels(time) : of_nanos((nanos(time) + speed - 1) / speed);
    int failed = kernel(SYS_clock_nanosleep, clock, flags, &until, &rest) ? errno : 0;
    if (failed && left) *left = of_nanos(nanos(&rest) * speed);
    return failed;
}

/* What waits for another thread: Rust's and tokio's locks call the kernel by `syscall`. */
long syscall(long number, ...) {
    start();
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    struct timespec until;
    if (number == SYS_futex && a[3] && !(a[1] & FUTEX_CLOCK_REALTIME)) {
        const struct timespec *time = (const struct timespec *)a[3];
        switch (a[1] & FUTEX_CMD_MASK) {
        case FUTEX_WAIT_BITSET:
            until = kernels(time);
            a[3] = (long)&until;
            break;
        case FUTEX_WAIT:
            until = of_nanos((nanos(time) + speed - 1) / speed);
            a[3] = (long)&until;
            break;
        }
    }
    return kernel(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

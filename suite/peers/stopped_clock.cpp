// Preloaded into a program that is stopped and continued by turns (`suite/peers/slices.py`): the clocks that it reads
// stand still while it is stopped, and what it waits for until a time of theirs comes at that time. QUANTGATE_STOPPED names
// a file with the nanoseconds in which it was.

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <dlfcn.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const int64_t * stopped;
static int (*kernel)(clockid_t, timespec *);
static int (*kernel_sleep)(clockid_t, int, const timespec *, timespec *);
static int (*kernel_wait)(sem_t *, clockid_t, const timespec *);

template <typename F> static void find(F & function, const char * name) {
    function = reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

// Whoever reads a clock before constructors run comes here, too.
__attribute__((constructor)) static void begin() {
    if (kernel) {
        return;
    }
    find(kernel_sleep, "clock_nanosleep");
    find(kernel_wait, "sem_clockwait");
    find(kernel, "clock_gettime");
    const char * path = getenv("QUANTGATE_STOPPED");
    const int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        return;
    }
    const void * page = mmap(nullptr, sizeof *stopped, PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) {
        stopped = static_cast<const int64_t *>(page);
    }
    close(file);
}

// A time later by so often the nanoseconds in which it was stopped.
static timespec moved(clockid_t clock, timespec time, int times) {
    if (stopped && (clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME)) {
        constexpr int64_t second = 1000000000;
        const int64_t all = time.tv_sec * second + time.tv_nsec + times * __atomic_load_n(stopped, __ATOMIC_ACQUIRE);
        time.tv_sec = all / second;
        time.tv_nsec = all % second;
    }
    return time;
}

extern "C" int clock_gettime(clockid_t clock, timespec * now) noexcept {
    begin();
    const int status = kernel(clock, now);
    if (status == 0) {
        *now = moved(clock, *now, -1);
    }
    return status;
}

// Whether a time has not come yet. What is stopped while it waits gets up too early: the time then was another one.
static bool ahead(clockid_t clock, const timespec & until) {
    timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec < until.tv_sec || (now.tv_sec == until.tv_sec && now.tv_nsec < until.tv_nsec);
}

// Python's time.sleep and its locks wait until a time.
extern "C" int clock_nanosleep(clockid_t clock, int flags, const timespec * until, timespec * left) {
    begin();
    if (!(flags & TIMER_ABSTIME)) {
        return kernel_sleep(clock, flags, until, left);
    }
    int status;
    do {
        const timespec real = moved(clock, *until, 1);
        status = kernel_sleep(clock, flags, &real, left);
    } while (status == 0 && ahead(clock, *until));
    return status;
}

extern "C" int sem_clockwait(sem_t * semaphore, clockid_t clock, const timespec * until) {
    begin();
    int status;
    do {
        const timespec real = moved(clock, *until, 1);
        status = kernel_wait(semaphore, clock, &real);
    } while (status == -1 && errno == ETIMEDOUT && ahead(clock, *until));
    return status;
}

// What the pool wants of the system, POSIX or Windows.
#define _GNU_SOURCE // sched_getaffinity, sched_getcpu
#include "system.h"

#include <stdlib.h>

#if defined(_WIN32)

void frnn_lock(frnn_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
void frnn_unlock(frnn_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
void frnn_wait(frnn_condition *condition, frnn_mutex *mutex) {
    SleepConditionVariableSRW(condition, mutex, INFINITE, 0);
}
void frnn_wake_all(frnn_condition *condition) { WakeAllConditionVariable(condition); }

int64_t frnn_now_ns(void) {
    LARGE_INTEGER count, frequency;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&frequency);
    const int64_t whole = count.QuadPart / frequency.QuadPart, part = count.QuadPart % frequency.QuadPart;
    return whole * 1000000000 + part * 1000000000 / frequency.QuadPart;
}

void frnn_yield(void) { SwitchToThread(); }

int frnn_start_thread(frnn_thread run, void *argument) {
    const HANDLE thread = CreateThread(NULL, 0, run, argument, 0, NULL);
    return thread && CloseHandle(thread);
}

static BOOL CALLBACK run_once(INIT_ONCE *once, void *reset, void **unused) {
    (void)once, (void)unused;
    (*(void (**)(void))reset)();
    return TRUE;
}

void frnn_reset_once(void (*reset)(void)) {
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    InitOnceExecuteOnce(&once, run_once, &reset, NULL);
}

int frnn_this_cpu(void) { return -1; }
void frnn_stay_off(int cpu) { (void)cpu; }

int frnn_cpus(void) {
    DWORD_PTR mine = 0, all = 0;
    int count = 0;
    if (GetProcessAffinityMask(GetCurrentProcess(), &mine, &all))
        for (; mine; mine &= mine - 1) count++;
    return count ? count : 1;
}

#else

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

void frnn_lock(frnn_mutex *mutex) { pthread_mutex_lock(mutex); }
void frnn_unlock(frnn_mutex *mutex) { pthread_mutex_unlock(mutex); }
void frnn_wait(frnn_condition *condition, frnn_mutex *mutex) { pthread_cond_wait(condition, mutex); }
void frnn_wake_all(frnn_condition *condition) { pthread_cond_broadcast(condition); }

int64_t frnn_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void frnn_yield(void) { sched_yield(); }

int frnn_start_thread(frnn_thread run, void *argument) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    const int failed = pthread_create(&thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed && pthread_detach(thread) == 0;
}

static void (*_Atomic reset_pool)(void);

static void reset_and_watch(void) {
    reset_pool();
    pthread_atfork(NULL, NULL, reset_pool);
}

void frnn_reset_once(void (*reset)(void)) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    atomic_store_explicit(&reset_pool, reset, memory_order_relaxed); // the same from whoever asks
    pthread_once(&once, reset_and_watch);
}

#if defined(__linux__)

int frnn_this_cpu(void) { return sched_getcpu(); }

void frnn_stay_off(int cpu) {
    static _Thread_local cpu_set_t allowed;
    static _Thread_local int known;
    if (frnn_this_cpu() != cpu) return;
    if (!known && sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    known = 1;
    cpu_set_t others = allowed;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others)) (void)sched_setaffinity(0, sizeof others, &others);
}

// CPUs' worth of time that a control group grants, or 0 for no limit.
static int group_limit(void) {
    long long quota = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (file) {
        if (fscanf(file, "%lld %lld", &quota, &period) != 2) quota = 0;
        fclose(file);
    } else if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r"))) {
        if (fscanf(file, "%lld", &quota) != 1) quota = 0;
        fclose(file);
        if ((file = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r"))) {
            if (fscanf(file, "%lld", &period) != 1) period = 0;
            fclose(file);
        }
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int frnn_cpus(void) {
    cpu_set_t set;
    const int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    const int limit = group_limit();
    return limit && limit < count ? limit : count;
}

#else

int frnn_this_cpu(void) { return -1; }
void frnn_stay_off(int cpu) { (void)cpu; }
int frnn_cpus(void) {
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

#endif
#endif

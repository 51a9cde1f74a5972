// What the pool wants of the system, POSIX or Windows: locks, threads, CPUs and the time.
#ifndef FRNN_SYSTEM_H
#define FRNN_SYSTEM_H

#include <stdint.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
typedef SRWLOCK frnn_mutex;
typedef CONDITION_VARIABLE frnn_condition;
#define FRNN_MUTEX_INIT SRWLOCK_INIT
#define FRNN_CONDITION_INIT CONDITION_VARIABLE_INIT
#define FRNN_THREAD(name) DWORD WINAPI name(void *argument) // what a thread runs; it returns 0
typedef LPTHREAD_START_ROUTINE frnn_thread;
#else
#include <pthread.h>
typedef pthread_mutex_t frnn_mutex;
typedef pthread_cond_t frnn_condition;
#define FRNN_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define FRNN_CONDITION_INIT PTHREAD_COND_INITIALIZER
#define FRNN_THREAD(name) void *name(void *argument)
typedef void *(*frnn_thread)(void *);
#endif

void frnn_lock(frnn_mutex *mutex);
void frnn_unlock(frnn_mutex *mutex);
void frnn_wait(frnn_condition *condition, frnn_mutex *mutex);
void frnn_wake_all(frnn_condition *condition);

int64_t frnn_now_ns(void);
void frnn_yield(void);
// A thread that nobody waits for and no signal of the host's reaches; 0 where none could be started.
int frnn_start_thread(frnn_thread run, void *argument);
// Runs `reset` if it is the first call, and from then on in the child of every fork.
void frnn_reset_once(void (*reset)(void));

int frnn_this_cpu(void); // its number, or -1 where the system does not say
// A virtual machine wakes a thread on its waker's CPU, where it waits for that to end, even if the others are idle:
// to the scheduler a halted virtual CPU is one that its host has taken away. A worker that finds itself there leaves
// for the others, and stays off.
void frnn_stay_off(int cpu);
int frnn_cpus(void); // that this process may use, at least 1

#endif

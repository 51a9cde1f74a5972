// The threads: started on first use, spinning and yielding for a while before they sleep, made anew after a fork;
// or a team that the program has.
//
// One job runs at a time. A caller that finds the pool busy runs its job alone, so many Python threads
// may call at once and none waits. Everything that waits does so on a gate: a value that another thread
// changes.
#include "internal.h"
#include "system.h"

#include <stdatomic.h>
#include <stdlib.h>

#define MAX_THREADS 255

#if defined(__x86_64__)
#define PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define PAUSE() __asm__ volatile("yield")
#else
#define PAUSE() ((void)0)
#endif

// --- A gate -------------------------------------------------------------------------------------

typedef struct {
    _Alignas(64) atomic_uint value;
    atomic_int sleepers;
    frnn_mutex mutex;
    frnn_condition changed;
} gate;

static void gate_init(gate *g) {
    atomic_init(&g->value, 0);
    atomic_init(&g->sleepers, 0);
    g->mutex = (frnn_mutex)FRNN_MUTEX_INIT;
    g->changed = (frnn_condition)FRNN_CONDITION_INIT;
}

// After a change of the value.
static void gate_wake(gate *g) {
    if (atomic_load(&g->sleepers)) {
        frnn_lock(&g->mutex);
        frnn_wake_all(&g->changed);
        frnn_unlock(&g->mutex);
    }
}

static void gate_set(gate *g, unsigned value) {
    atomic_store(&g->value, value);
    gate_wake(g);
}

// A wait goes on with yielding, which leaves the CPU to whoever needs it, and then sleeps: without a job
// when the next call seems not to come; inside one late, for who slept at every barrier would be woken on its
// waker's CPU, and two could share one for good. There it yields early: it may wait for who needs the CPU.
#define IDLE_YIELD_FROM_NS 20000
#define IDLE_SLEEP_FROM_NS 100000
#define JOB_YIELD_FROM_NS 1500
#define JOB_SLEEP_FROM_NS 5000000

// Where another program wants the CPU a yield gives it a whole turn, some milliseconds. For a while after one
// of them has met that, threads keep the CPU for waits inside a job, which end sooner; without a job they sleep,
// for who is woken soon has its turn; and a job goes on without those that do not come.
#define LONG_YIELD_NS 500000
#define CROWDED_FOR_NS 100000000
#define CROWDED_YIELD_FROM_NS 50000
#define CROWDED_SLEEP_FROM_NS 20000
static _Atomic int64_t crowded_until;

static void yield(int64_t now) {
    frnn_yield();
    const int64_t back = frnn_now_ns();
    if (back - now > LONG_YIELD_NS)
        atomic_store_explicit(&crowded_until, back + CROWDED_FOR_NS, memory_order_relaxed);
}

// Waits until the value is no longer `seen`, and returns it.
static unsigned gate_wait(gate *g, unsigned seen, int in_job) {
    unsigned value;
    int64_t start = 0, now, sleep_from;
    do {
        for (int i = 0; i < 64; i++) {
            value = atomic_load_explicit(&g->value, memory_order_acquire);
            if (value != seen) return value;
            PAUSE();
        }
        now = frnn_now_ns();
        if (!start) start = now;
        const int crowded = now < atomic_load_explicit(&crowded_until, memory_order_relaxed);
        const int64_t own = in_job ? JOB_YIELD_FROM_NS : IDLE_YIELD_FROM_NS;
        if (now - start > (crowded ? CROWDED_YIELD_FROM_NS : own)) yield(now);
        sleep_from = in_job ? JOB_SLEEP_FROM_NS : crowded ? CROWDED_SLEEP_FROM_NS : IDLE_SLEEP_FROM_NS;
    } while (now - start < sleep_from);
    frnn_lock(&g->mutex);
    atomic_fetch_add(&g->sleepers, 1);
    while ((value = atomic_load(&g->value)) == seen) frnn_wait(&g->changed, &g->mutex);
    atomic_fetch_sub(&g->sleepers, 1);
    frnn_unlock(&g->mutex);
    return value;
}

// --- The pool -----------------------------------------------------------------------------------

struct frnn_barrier {
    _Alignas(64) atomic_int arrived;
    int threads;
    gate open;
};

void frnn_barrier_wait(frnn_barrier *barrier) {
    if (barrier->threads == 1) return;
    if (barrier->threads == 2) {
        // The gate counts who came: the first of a pair waits for that of the second, by way of one cache line.
        const unsigned count = atomic_fetch_add(&barrier->open.value, 1) + 1;
        if (count % 2)
            gate_wait(&barrier->open, count, 1);
        else
            gate_wake(&barrier->open);
        return;
    }
    const unsigned seen = atomic_load(&barrier->open.value);
    if (atomic_fetch_add(&barrier->arrived, 1) + 1 == barrier->threads) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        gate_set(&barrier->open, seen + 1);
    } else {
        gate_wait(&barrier->open, seen, 1);
    }
}

static struct {
    gate start; // value: job number * 512 + 256 if it goes on with who comes + the threads that it wants
    gate go;    // of such a job: who came may begin
    gate done;
    atomic_uint came; // job number * 256 + the workers that came; the next number once it is too late
    frnn_barrier barriers[FRNN_MAX_CALLS]; // one for each of the jobs
    atomic_flag busy;                      // whoever holds it owns all that follows
    frnn_team team;                        // without functions: our own threads
    int64_t last_ns;                       // what the last job took that went on with who came
    int workers;                           // started
    struct {
        int thread;
        unsigned seen;
    } birth[MAX_THREADS + 1];
    frnn_job job;
    void *const *contexts;
    int jobs, at_once, threads;
    int cpu; // the caller's
    atomic_int running;
} pool = {.busy = ATOMIC_FLAG_INIT};

static void run_in_turn(frnn_job job, void *const *contexts, int jobs, int first, int step) {
    frnn_barrier barrier = {.threads = 1};
    const frnn_fp_mode mode = frnn_fp_enter();
    for (int i = first; i < jobs; i += step) job(contexts[i], 0, 1, &barrier);
    frnn_fp_leave(mode);
}

static void run_share(int thread) {
    if (!pool.at_once) {
        run_in_turn(pool.job, pool.contexts, pool.jobs, thread, pool.threads);
        return;
    }
    int mine = 0;
    while (thread >= pool.barriers[mine].threads) thread -= pool.barriers[mine++].threads;
    const frnn_fp_mode mode = frnn_fp_enter();
    pool.job(pool.contexts[mine], thread, pool.barriers[mine].threads, &pool.barriers[mine]);
    frnn_fp_leave(mode);
}

// A worker's place in a job that goes on with who comes; 0 if it is too late.
static int come(unsigned job) {
    unsigned came = atomic_load(&pool.came);
    do {
        if (came / 256 != job) return 0;
    } while (!atomic_compare_exchange_weak(&pool.came, &came, came + 1));
    return (int)(came % 256) + 1;
}

// Waits for the workers of such a job, for a small part of what it may take alone; how many came.
static int gather(unsigned job, int wanted) {
    const int64_t until = frnn_now_ns() + pool.last_ns / 8;
    while ((int)(atomic_load(&pool.came) % 256) < wanted && frnn_now_ns() < until) PAUSE();
    return (int)(atomic_exchange(&pool.came, (job + 1) * 256) % 256);
}

static FRNN_THREAD(worker) {
    const int number = *(int *)argument;
    unsigned seen = pool.birth[number].seen;
    for (;;) {
        seen = gate_wait(&pool.start, seen, 0);
        if (number >= (int)(seen % 256)) continue;
        int place = number;
        if (seen & 256) {
            const unsigned go = atomic_load(&pool.go.value);
            place = come(seen / 512);
            if (!place) continue;
            gate_wait(&pool.go, go, 1);
        }
        frnn_stay_off(pool.cpu);
        run_share(place);
        if (atomic_fetch_sub(&pool.running, 1) == 1) gate_set(&pool.done, atomic_load(&pool.done.value) + 1);
    }
    return 0;
}

// No thread but the caller's lives on in a forked child.
static void reset(void) {
    pool.team = (frnn_team){0};
    gate_init(&pool.start);
    gate_init(&pool.go);
    gate_init(&pool.done);
    for (int i = 0; i < FRNN_MAX_CALLS; i++) {
        gate_init(&pool.barriers[i].open);
        atomic_init(&pool.barriers[i].arrived, 0);
    }
    pool.workers = 0;
    atomic_flag_clear(&pool.busy);
}

static int start_workers(int wanted) {
    while (pool.workers < wanted) {
        const int number = pool.workers + 1;
        pool.birth[number].thread = number;
        pool.birth[number].seen = atomic_load(&pool.start.value);
        if (!frnn_start_thread(worker, &pool.birth[number].thread)) break;
        pool.workers++;
    }
    return (int)frnn_min(pool.workers, wanted);
}

// What a job is to be done by: one job gets along with fewer threads than it wants.
static void divide(int threads, const int *wanted) {
    int all = 0;
    for (int i = 0; i < pool.jobs; i++) all += wanted[i];
    pool.threads = threads;
    pool.at_once = pool.jobs == 1 || threads == all;
    for (int i = 0; i < pool.jobs; i++) {
        pool.barriers[i].threads = pool.jobs == 1 ? threads : wanted[i];
        atomic_store(&pool.barriers[i].open.value, 0);
    }
}

static void run_on_workers(int most, const int *wanted) {
    const int64_t until = atomic_load_explicit(&crowded_until, memory_order_relaxed);
    const int crowded = until && frnn_now_ns() < until;
    int workers = start_workers(most - 1);
    pool.cpu = frnn_this_cpu();
    const unsigned number = atomic_load(&pool.start.value) / 512 + 1, done = atomic_load(&pool.done.value);
    const unsigned start = number * 512 + (unsigned)crowded * 256 + 1 + (unsigned)workers;
    if (workers && crowded) {
        atomic_store(&pool.came, number * 256);
        gate_set(&pool.start, start);
        workers = gather(number, workers);
    }
    const int64_t began = crowded ? frnn_now_ns() : 0;
    divide(1 + workers, wanted);
    atomic_store(&pool.running, workers);
    if (workers && crowded)
        gate_set(&pool.go, atomic_load(&pool.go.value) + 1);
    else if (workers)
        gate_set(&pool.start, start);
    run_share(0);
    if (workers) gate_wait(&pool.done, done, 1);
    if (crowded) pool.last_ns = frnn_now_ns() - began;
}

typedef struct {
    int most;
    const int *wanted;
    unsigned go;
} team_job;

static void run_in_team(void *data) {
    const team_job *t = data;
    const int thread = pool.team.thread_num();
    if (thread >= t->most) return;
    if (thread == 0) {
        divide((int)frnn_min(pool.team.num_threads(), t->most), t->wanted);
        gate_set(&pool.go, t->go + 1);
    } else {
        gate_wait(&pool.go, t->go, 1);
    }
    run_share(thread);
}

void frnn_pool_run_each(frnn_job job, void *const *contexts, const int *wanted, int jobs, int threads) {
    int all = 0;
    for (int i = 0; i < jobs; i++) all += wanted[i];
    const int most = (int)frnn_min(frnn_min(all, threads), MAX_THREADS);
    if (most <= 1) {
        run_in_turn(job, contexts, jobs, 0, 1);
        return;
    }
    frnn_reset_once(reset);
    if (atomic_flag_test_and_set(&pool.busy)) {
        run_in_turn(job, contexts, jobs, 0, 1);
        return;
    }
    pool.job = job;
    pool.contexts = contexts;
    pool.jobs = jobs;
    team_job own = {most, wanted, atomic_load(&pool.go.value)};
    if (!pool.team.parallel)
        run_on_workers(most, wanted);
    else if (pool.team.max_threads() > 1)
        pool.team.parallel(run_in_team, &own, 0, 0);
    else
        run_in_turn(job, contexts, jobs, 0, 1);
    atomic_flag_clear(&pool.busy);
}

void frnn_set_team(const frnn_team *team) {
    frnn_reset_once(reset);
    pool.team = team ? *team : (frnn_team){0};
}

void frnn_pool_run(frnn_job job, void *context, int wanted) {
    frnn_pool_run_each(job, &context, &wanted, 1, wanted);
}

// --- How many -----------------------------------------------------------------------------------

int frnn_default_num_threads(void) {
    const char *wanted = getenv("FASTRNN_NUM_THREADS");
    const long number = wanted ? strtol(wanted, NULL, 10) : 0;
    if (number > 0) return (int)frnn_min(number, MAX_THREADS);
    return (int)frnn_min(frnn_cpus(), MAX_THREADS);
}

static atomic_int num_threads; // 0: not asked yet

int frnn_num_threads(void) {
    int threads = atomic_load_explicit(&num_threads, memory_order_relaxed);
    if (!threads) {
        threads = frnn_default_num_threads();
        atomic_store(&num_threads, threads);
    }
    return threads;
}

frnn_status frnn_set_num_threads(int threads) {
    if (threads < 0 || threads > MAX_THREADS) return FRNN_BAD_ARGUMENT;
    atomic_store(&num_threads, threads);
    return FRNN_OK;
}

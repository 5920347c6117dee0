/* Threads for the kernels: torch's own OpenMP pool, so that no second pool fights for the cores.

   team_run calls `work` once in each thread of the pool; team_wait is a barrier inside it. The pool is reached through
   function pointers that Python takes from the OpenMP library torch has loaded (team_use), so any C compiler will do and
   nothing is linked. Without pointers everything runs in the calling thread. */
#ifndef WHETSTONE_TEAM_H
#define WHETSTONE_TEAM_H

#include <sched.h>
#include <stdatomic.h>

typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int round;
    atomic_int size; /* threads at work */
} Team;

typedef void (*Work)(void *what, Team *team, int me);

/* Run `work` in at most `most` threads; returns when all have. */
void team_run(Work work, void *what, int most);

static inline void team_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until every thread of the team is here. What each wrote before, all may read after. */
static inline void team_wait(Team *team) {
    if (team->size == 1) return;
    int round = atomic_load_explicit(&team->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&team->arrived, 1, memory_order_acq_rel) == team->size - 1) {
        atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&team->round, round + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&team->round, memory_order_acquire) == round; spins++) {
        if (spins < 4096) team_pause();
        else sched_yield(); /* the other thread may need this core to get here */
    }
}

/* The share of `me` of 0..n-1 in pieces of `grain`: [*first, *last). */
static inline void team_share(const Team *team, int me, long n, long grain, long *first, long *last) {
    long pieces = (n + grain - 1) / grain;
    *first = pieces * me / team->size * grain;
    *last = pieces * (me + 1) / team->size * grain;
    if (*first > n) *first = n;
    if (*last > n) *last = n;
}

#endif

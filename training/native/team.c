/* See team.h. */
#include "team.h"

typedef void (*Region)(void *);
static void (*start_region)(Region, void *, unsigned, unsigned); /* GOMP_parallel */
static int (*thread_number)(void);                               /* omp_get_thread_num */
static int (*thread_count)(void);                                /* omp_get_num_threads */

typedef struct {
    Team team;
    Work work;
    void *what;
} Call;

void team_use(void *parallel, void *number, void *count) {
    start_region = (void (*)(Region, void *, unsigned, unsigned))parallel;
    thread_number = (int (*)(void))number;
    thread_count = (int (*)(void))count;
}

static void enter(void *given) {
    Call *call = given;
    /* The pool may lend fewer threads than were asked for; each writes the same number before it reads it. */
    atomic_store_explicit(&call->team.size, thread_count(), memory_order_relaxed);
    call->work(call->what, &call->team, thread_number());
}

void team_run(Work work, void *what, int most) {
    Call call = {.work = work, .what = what};
    atomic_init(&call.team.arrived, 0);
    atomic_init(&call.team.round, 0);
    atomic_init(&call.team.size, 1);
    if (start_region == 0 || most < 2) {
        work(what, &call.team, 0);
        return;
    }
    start_region(enter, &call, (unsigned)most, 0);
}

/* What a new library is tried with: the sum of x [n], each thread's share first, all shares after a barrier. A NaN in x
   must come back as a NaN, whatever the compiler was told about arithmetic. */
typedef struct {
    const float *x;
    long n;
    float shares[256];
    float sum;
} Sum;

static void sum_share(void *what, Team *team, int me) {
    Sum *sum = what;
    long first, last;
    team_share(team, me, sum->n, 16, &first, &last);
    float share = 0;
    for (long i = first; i < last; i++) share += sum->x[i];
    sum->shares[me] = share;
    team_wait(team);
    if (me == 0)
        for (int other = 0; other < team->size; other++) sum->sum += sum->shares[other];
}

float native_sum(const float *x, long n, int threads) {
    Sum sum = {.x = x, .n = n};
    team_run(sum_share, &sum, threads < 256 ? threads : 256);
    return sum.sum;
}

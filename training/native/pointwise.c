/* What a transformer block computes between its matrix products, forward and backward. The twins in torch are in
   training/trunk/pointwise.py and vocabulary.py. Rows are shared out among the threads. */
#include "team.h"
#include "lanes.h"

#define ROWS 8 /* rows of a thread's share come in pieces of so many */

typedef struct {
    void *table, *other; /* in float32 or bfloat16, as `half` says */
    float *a, *b, *c;
    const float *x, *y, *z, *w;
    const int64_t *index;
    long n, width, heads, stride;
    float eps;
    int flag, half;
} Call;

/* A kernel whose rows are written for either kind of table. */
#define BOTH_KINDS(call, rows, ...) \
    do { \
        if ((call)->half) rows(__VA_ARGS__, 1); \
        else rows(__VA_ARGS__, 0); \
    } while (0)

/* y = w x / sqrt(mean x^2 + eps), scale = that root's inverse.  x y [n, width], w [width], scale [n]; y of either kind */
static ALWAYS_INLINE void norm_rows(Call *call, long first, long last, const int half) {
    long width = call->width;
    const float *w = call->w;
    for (long i = first; i < last; i++) {
        const float *restrict x = call->x + i * width;
        void *restrict y = at(call->table, i * width, half);
        float sum = 0;
        for (long j = 0; j < width; j++) sum += x[j] * x[j];
        float scale = 1.0f / __builtin_sqrtf(sum / (float)width + call->eps);
        call->b[i] = scale;
        for (long j = 0; j < width; j++) put(y, j, x[j] * scale * w[j], half);
    }
}

static void norm_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last;
    team_share(team, me, call->n, ROWS, &first, &last);
    BOTH_KINDS(call, norm_rows, call, first, last);
}

void trunk_norm(const float *x, const float *w, void *y, float *scale, long n, long width, float eps, int half, int threads) {
    Call call = {.x = x, .w = w, .table = y, .b = scale, .n = n, .width = width, .eps = eps, .half = half};
    team_run(norm_share, &call, threads);
}

/* dx = plus + (the gradient of x), share of dw in sums [threads, width].  dy x plus dx [n, width]; plus may be 0 or dx, dy of
   either kind */
static ALWAYS_INLINE void norm_backward_rows(Call *call, float *restrict dw, long first, long last, const int half) {
    long width = call->width;
    for (long i = first; i < last; i++) {
        const void *restrict dy = at(call->table, i * width, half);
        const float *restrict x = call->x + i * width, *w = call->w, *plus = call->z ? call->z + i * width : 0;
        float *dx = call->a + i * width, scale = call->c[i], dot = 0;
        for (long j = 0; j < width; j++) {
            float pulled = get(dy, j, half);
            dot += pulled * w[j] * x[j];
            dw[j] += pulled * x[j] * scale;
        }
        float back = dot * scale * scale * scale / (float)width;
        if (plus)
            for (long j = 0; j < width; j++) dx[j] = plus[j] + get(dy, j, half) * w[j] * scale - x[j] * back;
        else
            for (long j = 0; j < width; j++) dx[j] = get(dy, j, half) * w[j] * scale - x[j] * back;
    }
}

static void norm_backward_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, ROWS, &first, &last);
    float *dw = call->b + me * width;
    for (long j = 0; j < width; j++) dw[j] = 0;
    BOTH_KINDS(call, norm_backward_rows, call, dw, first, last);
    team_wait(team);
    if (me) return;
    for (int other = 1; other < team->size; other++)
        for (long j = 0; j < width; j++) call->b[j] += call->b[other * width + j];
}

void trunk_norm_backward(const void *dy, const float *x, const float *w, float *scale, const float *plus, float *dx,
                         float *sums, long n, long width, int half, int threads) {
    Call call = {.table = (void *)dy, .x = x, .w = w, .c = scale, .z = plus, .a = dx, .b = sums, .n = n, .width = width,
                 .half = half};
    team_run(norm_backward_share, &call, threads);
}

/* Rotate components i and i + width/2 of each head, in place; backwards with flag.  x rows stride apart, cos sin [n, width/2] */
static void turn_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, half = call->width / 2;
    team_share(team, me, call->n, ROWS, &first, &last);
    float sign = call->flag ? -1.0f : 1.0f;
    for (long i = first; i < last; i++) {
        const float *cosine = call->x + i * half, *sine = call->y + i * half;
        for (long h = 0; h < call->heads; h++) {
            float *restrict left = call->a + i * call->stride + h * 2 * half, *restrict right = left + half;
            for (long j = 0; j < half; j++) {
                float l = left[j], r = right[j], s = sine[j] * sign;
                left[j] = l * cosine[j] - r * s;
                right[j] = r * cosine[j] + l * s;
            }
        }
    }
}

void trunk_turn(float *x, const float *cosine, const float *sine, long n, long heads, long width, long stride, int back,
                int threads) {
    Call call = {.a = x, .x = cosine, .y = sine, .n = n, .heads = heads, .width = width, .stride = stride, .flag = back};
    team_run(turn_share, &call, threads);
}

/* The same into a table of the other kind: the first `heads` heads of each row of `all` are turned, the rest copied.
   x is in bfloat16 and y in float32 with half, else the other way round; rows are dense in both. */
static ALWAYS_INLINE void turn_into_rows(Call *call, long first, long last, const int half) {
    long part = call->width / 2, all = call->stride * call->width;
    float sign = call->flag ? -1.0f : 1.0f;
    for (long i = first; i < last; i++) {
        const float *restrict cosine = call->x + i * part, *restrict sine = call->y + i * part;
        const void *restrict from = at(call->table, i * all, half);
        void *restrict to = at(call->other, i * all, !half);
        long h = 0;
        for (; h < call->heads * call->width; h += call->width)
            for (long j = h; j < h + part; j++) {
                float l = get(from, j, half), r = get(from, j + part, half), c = cosine[j - h], s = sine[j - h] * sign;
                put(to, j, l * c - r * s, !half);
                put(to, j + part, r * c + l * s, !half);
            }
        for (; h < all; h++) put(to, h, get(from, h, half), !half);
    }
}

static void turn_into_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last;
    team_share(team, me, call->n, ROWS, &first, &last);
    BOTH_KINDS(call, turn_into_rows, call, first, last);
}

void trunk_turn_into(const void *x, void *y, const float *cosine, const float *sine, long n, long heads, long all, long width,
                     int back, int half, int threads) {
    Call call = {.table = (void *)x, .other = y, .x = cosine, .y = sine, .n = n, .heads = heads, .stride = all, .width = width,
                 .flag = back, .half = half};
    team_run(turn_into_share, &call, threads);
}

/* found = silu(gate) up.  gate_up [n, 2 width], found [n, width], both of either kind */
static ALWAYS_INLINE void gate_rows(Call *call, long first, long last, const int half) {
    long width = call->width;
    for (long i = first; i < last; i++) {
        const void *restrict gate = at(call->table, 2 * i * width, half), *restrict up = at(gate, width, half);
        void *restrict found = at(call->other, i * width, half);
        for (long j = 0; j < width; j++) {
            float x = get(gate, j, half);
            put(found, j, x / (1.0f + exp_one(-x)) * get(up, j, half), half);
        }
    }
}

static void gate_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last;
    team_share(team, me, call->n, ROWS, &first, &last);
    BOTH_KINDS(call, gate_rows, call, first, last);
}

void trunk_gate(const void *gate_up, void *found, long n, long width, int half, int threads) {
    Call call = {.table = (void *)gate_up, .other = found, .n = n, .width = width, .half = half};
    team_run(gate_share, &call, threads);
}

/* gate_up becomes its gradient, gradient becomes what trunk_gate had found; both of either kind. */
static ALWAYS_INLINE void gate_backward_rows(Call *call, long first, long last, const int half) {
    long width = call->width;
    for (long i = first; i < last; i++) {
        void *restrict gate = at(call->table, 2 * i * width, half), *restrict up = at(gate, width, half);
        void *restrict gradient = at(call->other, i * width, half);
        for (long j = 0; j < width; j++) {
            float x = get(gate, j, half), y = get(up, j, half), pulled = get(gradient, j, half);
            float share = 1.0f / (1.0f + exp_one(-x)), silu = x * share;
            put(gradient, j, silu * y, half);
            put(gate, j, pulled * y * (share + silu * (1.0f - share)), half);
            put(up, j, pulled * silu, half);
        }
    }
}

static void gate_backward_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last;
    team_share(team, me, call->n, ROWS, &first, &last);
    BOTH_KINDS(call, gate_backward_rows, call, first, last);
}

void trunk_gate_backward(void *gate_up, void *gradient, long n, long width, int half, int threads) {
    Call call = {.table = gate_up, .other = gradient, .n = n, .width = width, .half = half};
    team_run(gate_backward_share, &call, threads);
}

/* Of softmax(factor logits): log p of the tokens, entropies, and the logarithm of the sum of exponentials.  logits [n, width]
   of either kind, index logp entropy total [n] */
static ALWAYS_INLINE void normalise_rows(Call *call, long first, long last, const int half) {
    long width = call->width;
    float factor = call->eps;
    for (long i = first; i < last; i++) {
        const void *logits = at(call->table, i * width, half);
        float most = largest_in(logits, width, half) * factor, sum = 0, mean = 0;
        for (long j = 0; j < width; j++) {
            float z = get(logits, j, half) * factor - most, p = exp_one(z);
            z = z < -100.0f ? -100.0f : z; /* there p is 0 and adds nothing, be z infinite */
            sum += p;
            mean += p * z;
        }
        float over = __builtin_logf(sum);
        call->a[i] = most + over;
        call->b[i] = get(logits, call->index[i], half) * factor - most - over;
        call->c[i] = over - mean / sum;
    }
}

static void normalise_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last;
    team_share(team, me, call->n, 1, &first, &last);
    BOTH_KINDS(call, normalise_rows, call, first, last);
}

void trunk_normalise(const void *logits, const int64_t *tokens, float *logp, float *entropy, float *total, float factor,
                     long n, long width, int half, int threads) {
    Call call = {.table = (void *)logits, .index = tokens, .b = logp, .c = entropy, .a = total, .eps = factor, .n = n,
                 .width = width, .half = half};
    team_run(normalise_share, &call, threads);
}

/* Logits become (1[token] - p) g in place, p = e^(factor logits - total).  logits [n, width] of either kind, index gradient
   total [n] */
static ALWAYS_INLINE void denormalise_rows(Call *call, long first, long last, const int half) {
    long width = call->width;
    float factor = call->eps;
    for (long i = first; i < last; i++) {
        void *row = at(call->table, i * width, half);
        float g = call->x[i], total = call->y[i];
        float token = (1.0f - exp_one(get(row, call->index[i], half) * factor - total)) * g;
        for (long j = 0; j < width; j++) put(row, j, exp_one(get(row, j, half) * factor - total) * -g, half);
        put(row, call->index[i], token, half);
    }
}

static void denormalise_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last;
    team_share(team, me, call->n, 1, &first, &last);
    BOTH_KINDS(call, denormalise_rows, call, first, last);
}

void trunk_denormalise(void *logits, const int64_t *tokens, const float *gradient, const float *total, float factor, long n,
                       long width, int half, int threads) {
    Call call = {.table = logits, .index = tokens, .x = gradient, .y = total, .eps = factor, .n = n, .width = width,
                 .half = half};
    team_run(denormalise_share, &call, threads);
}

/* What a transformer block computes between its matrix products, forward and backward. The twins in torch are in
   training/trunk/pointwise.py and vocabulary.py. Rows are shared out among the threads. */
#include "team.h"
#include "lanes.h"

#define ROWS 8 /* rows of a thread's share come in pieces of so many */

typedef struct {
    float *a, *b, *c, *d;
    const float *x, *y, *z, *w;
    const int64_t *index;
    long n, width, heads, stride;
    float eps;
    int flag;
} Call;

/* y = w x / sqrt(mean x^2 + eps), scale = that root's inverse.  x y [n, width], w [width], scale [n] */
static void norm_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, ROWS, &first, &last);
    for (long i = first; i < last; i++) {
        const float *x = call->x + i * width;
        float *y = call->a + i * width, sum = 0;
        for (long j = 0; j < width; j++) sum += x[j] * x[j];
        float scale = 1.0f / __builtin_sqrtf(sum / (float)width + call->eps);
        call->b[i] = scale;
        for (long j = 0; j < width; j++) y[j] = x[j] * scale * call->w[j];
    }
}

void trunk_norm(const float *x, const float *w, float *y, float *scale, long n, long width, float eps, int threads) {
    Call call = {.x = x, .w = w, .a = y, .b = scale, .n = n, .width = width, .eps = eps};
    team_run(norm_share, &call, threads);
}

/* dx = plus + (the gradient of x), share of dw in sums [threads, width].  dy x plus dx [n, width]; plus may be 0 or dx */
static void norm_backward_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, ROWS, &first, &last);
    float *restrict dw = call->b + me * width;
    for (long j = 0; j < width; j++) dw[j] = 0;
    for (long i = first; i < last; i++) {
        const float *restrict dy = call->y + i * width, *restrict x = call->x + i * width, *w = call->w;
        const float *plus = call->z ? call->z + i * width : 0;
        float *dx = call->a + i * width, scale = call->c[i], dot = 0;
        for (long j = 0; j < width; j++) {
            dot += dy[j] * w[j] * x[j];
            dw[j] += dy[j] * x[j] * scale;
        }
        float back = dot * scale * scale * scale / (float)width;
        if (plus)
            for (long j = 0; j < width; j++) dx[j] = plus[j] + dy[j] * w[j] * scale - x[j] * back;
        else
            for (long j = 0; j < width; j++) dx[j] = dy[j] * w[j] * scale - x[j] * back;
    }
    team_wait(team);
    if (me) return;
    for (int other = 1; other < team->size; other++)
        for (long j = 0; j < width; j++) call->b[j] += call->b[other * width + j];
}

void trunk_norm_backward(const float *dy, const float *x, const float *w, float *scale, const float *plus, float *dx,
                         float *sums, long n, long width, int threads) {
    Call call = {.y = dy, .x = x, .w = w, .c = scale, .z = plus, .a = dx, .b = sums, .n = n, .width = width};
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

/* found = silu(gate) up.  gate_up [n, 2 width], found [n, width] */
static void gate_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, ROWS, &first, &last);
    for (long i = first; i < last; i++) {
        const float *restrict gate = call->x + 2 * i * width, *restrict up = gate + width;
        float *restrict found = call->a + i * width;
        for (long j = 0; j < width; j++) found[j] = gate[j] / (1.0f + exp_one(-gate[j])) * up[j];
    }
}

void trunk_gate(const float *gate_up, float *found, long n, long width, int threads) {
    Call call = {.x = gate_up, .a = found, .n = n, .width = width};
    team_run(gate_share, &call, threads);
}

/* gate_up becomes its gradient, gradient becomes what trunk_gate had found. */
static void gate_backward_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, ROWS, &first, &last);
    for (long i = first; i < last; i++) {
        float *restrict gate = call->a + 2 * i * width, *restrict up = gate + width;
        float *restrict gradient = call->b + i * width;
        for (long j = 0; j < width; j++) {
            float share = 1.0f / (1.0f + exp_one(-gate[j])), silu = gate[j] * share, pulled = gradient[j];
            gradient[j] = silu * up[j];
            gate[j] = pulled * up[j] * (share + silu * (1.0f - share));
            up[j] = pulled * silu;
        }
    }
}

void trunk_gate_backward(float *gate_up, float *gradient, long n, long width, int threads) {
    Call call = {.a = gate_up, .b = gradient, .n = n, .width = width};
    team_run(gate_backward_share, &call, threads);
}

/* Logits become probabilities in place; log p of the tokens, entropies.  logits [n, width], index logp entropy [n] */
static void normalise_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, 1, &first, &last);
    for (long i = first; i < last; i++) {
        float *restrict logits = call->a + i * width, factor = call->eps, sum = 0, mean = 0;
        float wanted = logits[call->index[i]] * factor, most = largest(logits, width) * factor;
        for (long j = 0; j < width; j++) {
            float z = logits[j] * factor - most, p = exp_one(z);
            z = z < -100.0f ? -100.0f : z; /* there p is 0 and adds nothing, be z infinite */
            sum += p;
            mean += p * z;
            logits[j] = p;
        }
        float share = 1.0f / sum, total = __builtin_logf(sum);
        for (long j = 0; j < width; j++) logits[j] *= share;
        call->b[i] = wanted - most - total;
        call->c[i] = total - mean * share;
    }
}

void trunk_normalise(float *logits, const int64_t *tokens, float *logp, float *entropy, float factor, long n, long width,
                     int threads) {
    Call call = {.a = logits, .index = tokens, .b = logp, .c = entropy, .eps = factor, .n = n, .width = width};
    team_run(normalise_share, &call, threads);
}

/* Probabilities become (1[token] - p) g in place.  probability [n, width], index gradient [n] */
static void denormalise_share(void *what, Team *team, int me) {
    Call *call = what;
    long first, last, width = call->width;
    team_share(team, me, call->n, 1, &first, &last);
    for (long i = first; i < last; i++) {
        float *p = call->a + i * width, g = call->x[i];
        for (long j = 0; j < width; j++) p[j] *= -g;
        p[call->index[i]] += g;
    }
}

void trunk_denormalise(float *probability, const int64_t *tokens, const float *gradient, long n, long width, int threads) {
    Call call = {.a = probability, .index = tokens, .x = gradient, .n = n, .width = width};
    team_run(denormalise_share, &call, threads);
}

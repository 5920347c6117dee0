/* Small things that several kernels compute with. */
#ifndef WHETSTONE_LANES_H
#define WHETSTONE_LANES_H

#include <stdint.h>
#include <string.h>

#include "half.h"

#define WIDE 16
typedef float Wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

static inline long padded(long n) { return (n + WIDE - 1) / WIDE * WIDE; }

typedef int32_t Masks __attribute__((vector_size(4 * WIDE)));

/* Numbers j .. j + WIDE - 1 of a row. */
static ALWAYS_INLINE Wide get_wide(const void *row, long j, const int half) {
    if (!half) return *(const Wide *)((const float *)row + j);
    typedef Half Halves __attribute__((vector_size(2 * WIDE), aligned(2), may_alias));
    typedef uint32_t Bits __attribute__((vector_size(4 * WIDE)));
    return (Wide)(__builtin_convertvector(*(const Halves *)((const Half *)row + j), Bits) << 16);
}

static inline Wide larger(Wide a, Wide b) {
    Masks more = a > b;
    return (Wide)(((Masks)a & more) | ((Masks)b & ~more));
}

/* x with its lanes moved round by so many. */
#define ROUND(by) (0 + by) % 16, (1 + by) % 16, (2 + by) % 16, (3 + by) % 16, (4 + by) % 16, (5 + by) % 16, (6 + by) % 16, \
    (7 + by) % 16, (8 + by) % 16, (9 + by) % 16, (10 + by) % 16, (11 + by) % 16, (12 + by) % 16, (13 + by) % 16, \
    (14 + by) % 16, (15 + by) % 16
#if defined(__clang__)
#define MOVED(x, by) __builtin_shufflevector(x, x, ROUND(by))
#else
#define MOVED(x, by) __builtin_shuffle(x, (Masks){ROUND(by)})
#endif

/* Over all lanes, in four steps: one lane after the other would take longer than a short row's whole work. */
static inline float largest_lane(Wide x) {
    x = larger(x, MOVED(x, 8));
    x = larger(x, MOVED(x, 4));
    x = larger(x, MOVED(x, 2));
    return larger(x, MOVED(x, 1))[0];
}

static inline float sum_of_lanes(Wide x) {
    x += MOVED(x, 8);
    x += MOVED(x, 4);
    x += MOVED(x, 2);
    return (x + MOVED(x, 1))[0];
}

/* The largest of x [n], n > 0; a NaN may be passed over. Written out, since compilers keep the order of such comparisons. */
static ALWAYS_INLINE float largest_in(const void *x, long n, const int half) {
    float most = get(x, 0, half);
    long j = 0;
    if (n >= WIDE) {
        Wide best = get_wide(x, 0, half);
        for (j = WIDE; j + WIDE <= n; j += WIDE) best = larger(get_wide(x, j, half), best);
        most = largest_lane(best);
    }
    for (; j < n; j++) most = get(x, j, half) > most ? get(x, j, half) : most;
    return most;
}

static inline float largest(const float *x, long n) { return largest_in(x, n, 0); }

/* e^x to about one unit in the last place, in a form that compilers turn into vector code; 0 below -87, NaN stays NaN. */
static inline float exp_one(float x) {
    float y = x < -87.0f ? -87.0f : x;
    y = y > 88.0f ? 88.0f : y;
    float n = __builtin_rintf(y * 1.44269504088896341f);
    float r = __builtin_fmaf(n, -0.693359375f, y);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r + 1.0f);
    union {
        int32_t bits;
        float number;
    } power = {.bits = ((int32_t)n + 127) << 23};
    float found = p * power.number;
    return x < -87.0f ? 0.0f : found;
}

#endif

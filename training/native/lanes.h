/* Small things that several kernels compute with. */
#ifndef WHETSTONE_LANES_H
#define WHETSTONE_LANES_H

#include <stdint.h>
#include <string.h>

#include "half.h"
#include "vectors.h"

#define WIDE 16 /* rows of tables are filled up to so many numbers, whatever the processor's vectors hold */

static inline long whole_wide(long n) { return (n + WIDE - 1) / WIDE * WIDE; }

/* Numbers j .. j + LANES - 1 of a row. */
static ALWAYS_INLINE Floats get_lanes(const void *row, long j, const int half) {
    if (!half) return load((const float *)row + j);
    typedef Half Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
    typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
    return (Floats)(__builtin_convertvector(*(const Halves *)((const Half *)row + j), Bits) << 16);
}

/* Into them, as `put` does it. */
static ALWAYS_INLINE void put_lanes(void *row, long j, Floats x, const int half) {
    if (!half) {
        store((float *)row + j, x);
        return;
    }
    typedef Half Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
    typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
    Bits bits = (Bits)x, rounded = bits + 0x7fff + (bits >> 16 & 1), odd = (Bits)(x != x);
    *(Halves *)((Half *)row + j) = __builtin_convertvector(((odd & 0x7fc00000) | (~odd & rounded)) >> 16, Halves);
}

static inline Floats larger(Floats a, Floats b) { return pick(a > b, a, b); }

/* x with its lanes moved round by so many. */
#define TURN(lane, by) (lane + by) % LANES
#define FOUR_TURNS(lane, by) TURN(lane, by), TURN(lane + 1, by), TURN(lane + 2, by), TURN(lane + 3, by)
#if LANES == 16
#define ROUND(by) FOUR_TURNS(0, by), FOUR_TURNS(4, by), FOUR_TURNS(8, by), FOUR_TURNS(12, by)
#elif LANES == 8
#define ROUND(by) FOUR_TURNS(0, by), FOUR_TURNS(4, by)
#else
#define ROUND(by) FOUR_TURNS(0, by)
#endif
#if defined(__clang__)
#define MOVED(x, by) __builtin_shufflevector(x, x, ROUND(by))
#else
#define MOVED(x, by) __builtin_shuffle(x, (Ints){ROUND(by)})
#endif

/* Over all lanes, by halves: one lane after the other would take longer than a short row's whole work. */
static inline float largest_lane(Floats x) {
    if (LANES > 8) x = larger(x, MOVED(x, 8));
    if (LANES > 4) x = larger(x, MOVED(x, 4));
    x = larger(x, MOVED(x, 2));
    return larger(x, MOVED(x, 1))[0];
}

static inline float sum_of_lanes(Floats x) {
    if (LANES > 8) x += MOVED(x, 8);
    if (LANES > 4) x += MOVED(x, 4);
    x += MOVED(x, 2);
    return (x + MOVED(x, 1))[0];
}

/* The largest of x [n], n > 0; a NaN may be passed over. Written out, since compilers keep the order of such comparisons. */
static ALWAYS_INLINE float largest_in(const void *x, long n, const int half) {
    float most = get(x, 0, half);
    long j = 0;
    if (n >= LANES) {
        Floats best = get_lanes(x, 0, half);
        for (j = LANES; j + LANES <= n; j += LANES) best = larger(get_lanes(x, j, half), best);
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
        uint32_t bits;
        float number;
    } power = {.bits = ((uint32_t)(int32_t)n + 127) << 23}; /* of a NaN whatever: p is one */
    float found = p * power.number;
    return x < -87.0f ? 0.0f : found;
}

#endif

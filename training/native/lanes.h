/* Small things that several kernels compute with. */
#ifndef WHETSTONE_LANES_H
#define WHETSTONE_LANES_H

#include <stdint.h>
#include <string.h>

#define LANES 16
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

/* e^x to about one unit in the last place, in a form that compilers turn into vector code; 0 below -87, NaN stays NaN. */
static inline float exp_of(float x) {
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

/* Small things that several kernels compute with. */
#ifndef WHETSTONE_LANES_H
#define WHETSTONE_LANES_H

#include <stdint.h>
#include <string.h>

#define LANES 16
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline long padded(long n) { return (n + LANES - 1) / LANES * LANES; }

/* The largest of x [n], n > 0; a NaN may be passed over. Written out, since compilers keep the order of such comparisons. */
static inline float largest(const float *x, long n) {
    typedef int32_t Masks __attribute__((vector_size(4 * LANES)));
    float most = x[0];
    long j = 0;
    if (n >= LANES) {
        Lanes best = *(const Lanes *)x;
        for (j = LANES; j + LANES <= n; j += LANES) {
            Lanes other = *(const Lanes *)(x + j);
            Masks more = other > best;
            best = (Lanes)(((Masks)other & more) | ((Masks)best & ~more));
        }
        most = best[0];
        for (int lane = 1; lane < LANES; lane++) most = best[lane] > most ? best[lane] : most;
    }
    for (; j < n; j++) most = x[j] > most ? x[j] : most;
    return most;
}

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

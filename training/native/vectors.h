/* Vectors as wide as the processor's, written with the extensions that gcc and clang share. */
#ifndef WHETSTONE_VECTORS_H
#define WHETSTONE_VECTORS_H

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int Ints __attribute__((vector_size(LANES * 4)));

static inline Floats load(const float *from) { return *(const Unaligned *)from; }
static inline void store(float *to, Floats x) { *(Unaligned *)to = x; }
static inline Floats spread(float x) { return (Floats){0} + x; }

/* The number of each lane. */
#if LANES == 16
#define COUNTED ((Ints){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
#elif LANES == 8
#define COUNTED ((Ints){0, 1, 2, 3, 4, 5, 6, 7})
#else
#define COUNTED ((Ints){0, 1, 2, 3})
#endif

/* The lower halves of a and b with their numbers taken in turn, and the upper ones. */
#if LANES == 16
#define LOW_TURNS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_TURNS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LOW_TURNS 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_TURNS 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LOW_TURNS 0, 4, 1, 5
#define HIGH_TURNS 2, 6, 3, 7
#endif
#if defined(__clang__)
#define LOW_HALVES(a, b) __builtin_shufflevector(a, b, LOW_TURNS)
#define HIGH_HALVES(a, b) __builtin_shufflevector(a, b, HIGH_TURNS)
#else
#define LOW_HALVES(a, b) __builtin_shuffle(a, b, (Ints){LOW_TURNS})
#define HIGH_HALVES(a, b) __builtin_shuffle(a, b, (Ints){HIGH_TURNS})
#endif

/* a where the mask is set, b elsewhere. */
static inline Floats pick(Ints mask, Floats a, Floats b) { return (Floats)((mask & (Ints)a) | (~mask & (Ints)b)); }

/* e^x to the last bit or two; 0 below -87, a NaN for a NaN. 2^(n+f) with f in [-1/2, 1/2] by its series: no constant is
   split in two here, so the compiler may order the sums as it likes. */
static inline Floats exp_of(Floats x) {
    Ints tiny = x < spread(-87.0f);
    Floats bounded = pick(tiny, spread(-87.0f), pick(x > spread(88.0f), spread(88.0f), x));
    Floats turns = bounded * 1.44269504f;
    Ints n = __builtin_convertvector(turns + pick(turns < spread(0), spread(-0.5f), spread(0.5f)), Ints);
    Floats f = bounded * 1.44269504f - __builtin_convertvector(n, Floats);
    Floats power = f * 1.5252734e-5f + 1.5403530e-4f;
    power = power * f + 1.3333558e-3f;
    power = power * f + 9.6181291e-3f;
    power = power * f + 5.5504109e-2f;
    power = power * f + 2.4022651e-1f;
    power = power * f + 6.9314718e-1f;
    power = power * f + 1.0f;
    return pick(tiny, spread(0), power * (Floats)((n + 127) << 23));
}

#endif

/* Tables in float32 or bfloat16. `half` says which, and is a constant wherever these are called with it, so that a loop is
   compiled once for each kind and has no question in it. */
#ifndef WHETSTONE_HALF_H
#define WHETSTONE_HALF_H

#include <stdint.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

typedef uint16_t Half; /* the upper half of a float32 */

typedef union {
    uint32_t bits;
    float number;
} Single;

static ALWAYS_INLINE float widened(Half x) { return ((Single){.bits = (uint32_t)x << 16}).number; }

/* To the nearest, ties to even, as torch rounds; a NaN stays one. */
static ALWAYS_INLINE Half narrowed(float x) {
    uint32_t bits = ((Single){.number = x}).bits, rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (Half)(x != x ? 0x7fc0 : rounded >> 16);
}

static ALWAYS_INLINE float get(const void *row, long j, const int half) {
    return half ? widened(((const Half *)row)[j]) : ((const float *)row)[j];
}

static ALWAYS_INLINE void put(void *row, long j, float x, const int half) {
    if (half) ((Half *)row)[j] = narrowed(x);
    else ((float *)row)[j] = x;
}

/* Where the number at `offset` of a table lies. */
static ALWAYS_INLINE void *at(const void *table, long offset, const int half) {
    return (char *)table + offset * (half ? (long)sizeof(Half) : (long)sizeof(float));
}

#endif

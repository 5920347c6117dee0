/* See products.h. */
#include "products.h"

#include <string.h>

#include "lanes.h"
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

/* The compiler must turn the loops over rows and parts into registers. */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))
#define AHEAD (32 * PANEL) /* floats by which weights are asked for before they are used */
#define BLOCK 96           /* rows that stay in the cache while a panel passes */

typedef Floats Totals[AT_ONCE][PARTS];

INLINE void gather(const int rows, const int ways, Totals *total, float *sums) {
    UNROLLED for (int row = 0; row < rows; row++) {
        UNROLLED for (int part = 0; part < PARTS; part++) {
            Floats sum = total[0][row][part];
            UNROLLED for (int way = 1; way < ways; way++) sum += total[way][row][part];
            store(sums + row * PANEL + part * LANES, sum);
        }
    }
}

/* Sums of `rows` rows over one panel; `ways` sums a number where few rows would leave the multipliers waiting. */
INLINE void sums_of(const int rows, const int ways, long inputs, const float *x, long stride, const float *panel,
                    float *sums) {
    Totals total[4];
    UNROLLED for (int way = 0; way < ways; way++)
        UNROLLED for (int row = 0; row < rows; row++)
            UNROLLED for (int part = 0; part < PARTS; part++) total[way][row][part] = (Floats){0};
    long k = 0;
    for (; k + ways <= inputs; k += ways) {
        UNROLLED for (int way = 0; way < ways; way++) {
            const float *weights = panel + (k + way) * PANEL;
            __builtin_prefetch(weights + AHEAD);
            __builtin_prefetch(weights + AHEAD + 16);
            Floats weight[PARTS];
            UNROLLED for (int part = 0; part < PARTS; part++) weight[part] = load(weights + part * LANES);
            UNROLLED for (int row = 0; row < rows; row++) {
                Floats number = spread(x[row * stride + k + way]);
                UNROLLED for (int part = 0; part < PARTS; part++) total[way][row][part] += number * weight[part];
            }
        }
    }
    for (; k < inputs; k++) {
        UNROLLED for (int row = 0; row < rows; row++)
            UNROLLED for (int part = 0; part < PARTS; part++)
                total[0][row][part] += spread(x[row * stride + k]) * load(panel + k * PANEL + part * LANES);
    }
    gather(rows, ways, total, sums);
}

/* One function for each number of rows. */
#define SUMS(rows, ways)                                                                                              \
    static void sums_##rows(long inputs, const float *x, long stride, const float *panel, float *sums) {              \
        sums_of(rows, ways, inputs, x, stride, panel, sums);                                                          \
    }
SUMS(1, 4)
SUMS(2, 2)
SUMS(3, 2)
#if LANES == 16
SUMS(4, 1)
SUMS(5, 1)
SUMS(6, 1)
SUMS(7, 1)
SUMS(8, 1)
SUMS(9, 1)
SUMS(10, 1)
SUMS(11, 1)
SUMS(12, 1)
#endif

typedef void (*Sums)(long inputs, const float *x, long stride, const float *panel, float *sums);
static const Sums SUMS_OF[] = {
    0, sums_1, sums_2, sums_3,
#if LANES == 16
    sums_4, sums_5, sums_6, sums_7, sums_8, sums_9, sums_10, sums_11, sums_12,
#endif
};

#ifdef __AVX512BF16__
/* One pair of inputs of every row, times the panel's weights of it. */
INLINE void add_pair(const int rows, const Half *x, long stride, const Half *weights, Totals total) {
    __builtin_prefetch(weights + 2 * AHEAD);
    __builtin_prefetch(weights + 2 * AHEAD + 32);
    __m512bh weight[PARTS];
    UNROLLED for (int part = 0; part < PARTS; part++)
        weight[part] = (__m512bh)_mm512_loadu_si512(weights + part * 2 * LANES);
    UNROLLED for (int row = 0; row < rows; row++) {
        int pair;
        memcpy(&pair, x + row * stride, sizeof pair);
        __m512bh numbers = (__m512bh)_mm512_set1_epi32(pair);
        UNROLLED for (int part = 0; part < PARTS; part++)
            total[row][part] = (Floats)_mm512_dpbf16_ps((__m512)total[row][part], numbers, weight[part]);
    }
}

/* The same in bfloat16: `pairs` of inputs, rows `stride` apart. */
INLINE void half_sums_of(const int rows, const int ways, long pairs, const Half *x, long stride, const Half *panel,
                         float *sums) {
    Totals total[4];
    UNROLLED for (int way = 0; way < ways; way++)
        UNROLLED for (int row = 0; row < rows; row++)
            UNROLLED for (int part = 0; part < PARTS; part++) total[way][row][part] = (Floats){0};
    long k = 0;
    for (; k + ways <= pairs; k += ways)
        UNROLLED for (int way = 0; way < ways; way++)
            add_pair(rows, x + 2 * (k + way), stride, panel + (k + way) * 2 * PANEL, total[way]);
    for (; k < pairs; k++) add_pair(rows, x + 2 * k, stride, panel + k * 2 * PANEL, total[0]);
    gather(rows, ways, total, sums);
}

#define HALF_SUMS(rows, ways)                                                                                         \
    static void half_sums_##rows(long pairs, const Half *x, long stride, const Half *panel, float *sums) {            \
        half_sums_of(rows, ways, pairs, x, stride, panel, sums);                                                      \
    }
HALF_SUMS(1, 4)
HALF_SUMS(2, 2)
HALF_SUMS(3, 2)
HALF_SUMS(4, 1)
HALF_SUMS(5, 1)
HALF_SUMS(6, 1)
HALF_SUMS(7, 1)
HALF_SUMS(8, 1)
HALF_SUMS(9, 1)
HALF_SUMS(10, 1)
HALF_SUMS(11, 1)
HALF_SUMS(12, 1)

typedef void (*HalfSums)(long pairs, const Half *x, long stride, const Half *panel, float *sums);
static const HalfSums HALF_SUMS_OF[] = {
    0, half_sums_1, half_sums_2, half_sums_3, half_sums_4, half_sums_5, half_sums_6, half_sums_7, half_sums_8, half_sums_9,
    half_sums_10, half_sums_11, half_sums_12,
};

static void narrow_rows(Half *to, long to_stride, const float *x, long stride, long n, long inputs) {
    for (long row = 0; row < n; row++, to += to_stride, x += stride) {
        long k = 0;
        for (; k + LANES <= inputs; k += LANES) put_lanes(to, k, load(x + k), 1);
        for (; k < inputs; k++) to[k] = narrowed(x[k]);
        for (; k < to_stride; k++) to[k] = 0;
    }
}
#endif

/* Whether matrices may be in bfloat16: only where the processor multiplies it, which is what it is for. */
int native_has_half(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

static void finish(After after, int rows, const float *sums, const float *scale, const float *bias, float *y, long stride) {
    for (int row = 0; row < rows; row++, sums += PANEL, y += stride) {
        if (after == ADDED) {
            for (int i = 0; i < PANEL; i += LANES) {
                Floats sum = load(sums + i) + load(y + i);
                store(y + i, bias ? sum + load(bias + i) : sum);
            }
            continue;
        }
        Floats r = spread(scale[row]), part[PARTS];
        for (int i = 0; i < PARTS; i++) {
            part[i] = load(sums + i * LANES) * r;
            if (bias) part[i] += load(bias + i * LANES);
            if (after == SCALED) store(y + i * LANES, part[i]);
        }
        if (after == GATED)
            for (int i = 0; i < PARTS / 2; i++)
                store(y + i * LANES, part[i] / (1.0f + exp_of(-part[i])) * part[i + PARTS / 2]);
    }
}

void product(const Matrix *matrix, After after, long n, const float *x, long x_stride, const float *scale, float *y,
             long y_stride, void *narrow, const Team *team, int me) {
    long panels = (matrix->outputs + PANEL - 1) / PANEL, blocks = (n + BLOCK - 1) / BLOCK, first, last;
    long width = after == GATED ? PANEL / 2 : PANEL;
    float sums[AT_ONCE * PANEL];
    team_share(team, me, panels * blocks, 1, &first, &last);
#ifdef __AVX512BF16__
    long pairs = (matrix->inputs + 1) / 2, narrow_stride = 2 * narrow_room(1, matrix->inputs);
    if (matrix->half && first < last) narrow_rows(narrow, narrow_stride, x, x_stride, n, matrix->inputs);
#else
    (void)narrow;
#endif
    for (long unit = first; unit < last; unit++) {
        long panel = unit / blocks, row = n * (unit % blocks) / blocks, end = n * (unit % blocks + 1) / blocks;
        const float *bias = matrix->bias ? matrix->bias + panel * PANEL : 0;
        for (long left = (end - row + AT_ONCE - 1) / AT_ONCE; left > 0; left--) {
            int rows = (int)((end - row + left - 1) / left);
#ifdef __AVX512BF16__
            if (matrix->half)
                HALF_SUMS_OF[rows](pairs, (const Half *)narrow + row * narrow_stride, narrow_stride,
                                   (const Half *)matrix->panels + panel * PANEL * 2 * pairs, sums);
            else
#endif
                SUMS_OF[rows](matrix->inputs, x + row * x_stride, x_stride,
                              (const float *)matrix->panels + panel * PANEL * matrix->inputs, sums);
            finish(after, rows, sums, scale ? scale + row : 0, bias, y + row * y_stride + panel * width, y_stride);
            row += rows;
        }
    }
}

/* Packing: row i of `weight` [rows, inputs], times `factor` [inputs] where given, becomes output
   first + i/group·step + i%group. */
typedef struct {
    const float *weight, *factor;
    long rows, inputs, first, group, step;
    void *panels;
    int half;
} Packing;

static void pack_share(void *what, Team *team, int me) {
    const Packing *p = what;
    long from, to;
    team_share(team, me, p->rows, 16, &from, &to);
    for (long row = from; row < to; row += 16) {
        long count = to - row < 16 ? to - row : 16;
        const float *rows[16];
        float *places[16];
        Half *halves[16];
        for (long i = 0; i < count; i++) {
            long output = p->first + (row + i) / p->group * p->step + (row + i) % p->group;
            rows[i] = p->weight + (row + i) * p->inputs;
            places[i] = (float *)p->panels + output / PANEL * PANEL * p->inputs + output % PANEL;
            halves[i] = (Half *)p->panels + output / PANEL * PANEL * 2 * ((p->inputs + 1) / 2) + output % PANEL * 2;
        }
        for (long k = 0; k < p->inputs; k++) {
            float factor = p->factor ? p->factor[k] : 1.0f;
            if (p->half)
                for (long i = 0; i < count; i++) halves[i][k / 2 * 2 * PANEL + k % 2] = narrowed(rows[i][k] * factor);
            else
                for (long i = 0; i < count; i++) places[i][k * PANEL] = rows[i][k] * factor;
        }
    }
}

void native_pack(const float *weight, const float *factor, long rows, long inputs, long first, long group, long step,
                 void *panels, int half, int threads) {
    Packing packing = {weight, factor, rows, inputs, first, group, step, panels, half};
    team_run(pack_share, &packing, threads);
}

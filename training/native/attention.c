/* Attention over packed sequences and its gradient; the twin in torch is in training/trunk/attention.py.

   A piece of work is one key head of one group: the keys and values of the group's columns, and all the queries of the
   query heads that share them. The scores of QUERIES queries at a time are kept whole, so softmax needs no second pass;
   rows and columns that fill a block up are 0. Different pieces write to different places, so the result does not depend
   on the number of threads. Segments as in training/trunk/layout.py. */
#include <stdlib.h>

#include "team.h"
#include "lanes.h"
#include "vectors.h"

#define QUERIES 16

typedef struct {
    int64_t prefix, prefix_length, start, length, query, queries;
} Segment;

typedef struct {
    const Segment *segments;
    const int64_t *groups; /* number of the first segment of each, and the number of segments */
    const int64_t *reach;  /* how many own columns each query sees; ascending in a segment */
    long count, heads, key_heads, width; /* groups, query heads, key heads, width of a head */
    const float *query, *key, *value;    /* rows query_stride, key_stride, value_stride apart */
    long query_stride, key_stride, value_stride;
    void *found;                             /* [M, heads width], in float32 or bfloat16 as `half` says */
    float *total;                            /* [M, heads] log of the sum of exponentials */
    const void *gradient;                    /* as found */
    int half;
    float *into_query, *into_key, *into_value; /* rows into_stride apart */
    long into_query_stride, into_stride;
    _Atomic long next;
    atomic_int failed;
} Attention;

/* c [rows, vectors LANES] (+)= a b; a's element (i, k) at i*a_row + k*a_column, b [inner, vectors LANES]. */
static ALWAYS_INLINE void block(const float *a, long a_row, long a_column, const float *b, long ldb, float *c, long ldc,
                                long inner, int add, const int rows, const int vectors) {
    Floats sums[8][4];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) sums[i][j] = add ? load(c + i * ldc + j * LANES) : (Floats){0};
    for (long k = 0; k < inner; k++) {
        Floats row[4];
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) row[j] = load(b + k * ldb + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            float x = a[i * a_row + k * a_column];
#pragma GCC unroll 4
            for (int j = 0; j < vectors; j++) sums[i][j] += x * row[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int j = 0; j < vectors; j++) store(c + i * ldc + j * LANES, sums[i][j]);
}

/* Vectors of a block whose sums fit the registers beside a row of b: AVX-512 and NEON have 32, AVX2 16. With more, every sum
   would be written to memory and read again at every step, which took five times as long. */
#if LANES == 16 || defined(__aarch64__)
#define VECTORS 4
#else
#define VECTORS 2
#endif

/* c [rows, columns] (+)= a b; rows % 8 == columns % WIDE == 0 */
static void product(const float *a, long a_row, long a_column, const float *b, long ldb, float *c, long ldc, long rows,
                    long columns, long inner, int add) {
    long j = 0;
    for (; j + VECTORS * LANES <= columns; j += VECTORS * LANES)
        for (long i = 0; i < rows; i += 4)
            block(a + i * a_row, a_row, a_column, b + j, ldb, c + i * ldc + j, ldc, inner, add, 4, VECTORS);
#if LANES == 16
    for (; j + 2 * LANES <= columns; j += 2 * LANES)
        for (long i = 0; i < rows; i += 8)
            block(a + i * a_row, a_row, a_column, b + j, ldb, c + i * ldc + j, ldc, inner, add, 8, 2);
    for (; j < columns; j += LANES)
        for (long i = 0; i < rows; i += 8)
            block(a + i * a_row, a_row, a_column, b + j, ldb, c + i * ldc + j, ldc, inner, add, 8, 1);
#endif
}

/* Memory of a thread, kept from call to call. */
static float *scratch(long floats) {
    static _Thread_local float *kept;
    static _Thread_local long room;
    if (floats > room) {
        free(kept);
        room = floats + floats / 4;
        kept = aligned_alloc(64, (size_t)(room * 4 + 63) / 64 * 64);
        if (kept == 0) room = 0;
    }
    return kept;
}

static float *take(float **from, long floats) {
    float *taken = *from;
    *from += whole_wide(floats);
    return taken;
}

/* Loops over a row go by whole vectors, and the compiler is not left to find them: of a row's 64 numbers it would first ask
   whether there are any, whether they overlap and where they end. */
static ALWAYS_INLINE void copy_row(void *restrict to, const int to_half, const void *restrict from, const int half, long width,
                                   float factor) {
    long j = 0;
    for (; j + LANES <= width; j += LANES) put_lanes(to, j, get_lanes(from, j, half) * factor, to_half);
    for (; j < width; j++) put(to, j, get(from, j, half) * factor, to_half);
}

static ALWAYS_INLINE float dot(const float *a, const void *b, long width, const int half) {
    Floats sums = {0};
    float sum = 0;
    long j = 0;
    for (; j + LANES <= width; j += LANES) sums += load(a + j) * get_lanes(b, j, half);
    for (; j < width; j++) sum += a[j] * get(b, j, half);
    return sum + sum_of_lanes(sums);
}

/* Rows [count] of `width`, `stride` apart, into rows of `wide`; what is left of `rows` rows and `wide` columns is 0. */
static ALWAYS_INLINE void copy_rows_of(float *restrict to, const void *restrict from, long stride, long count, long width,
                                       long wide, long rows, float factor, const int half) {
    for (long i = 0; i < count; i++) {
        copy_row(to + i * wide, 0, at(from, i * stride, half), half, width, factor);
        for (long j = width; j < wide; j++) to[i * wide + j] = 0;
    }
    memset(to + count * wide, 0, (size_t)((rows - count) * wide) * 4);
}

/* Ask for rows that are read soon; they lie far apart, and no processor foresees that. */
static ALWAYS_INLINE void expect(const void *rows, long stride, long count, long width, const int half) {
    for (long i = 0; i < count; i++)
        for (long j = 0; j < width; j += half ? 32 : 16) __builtin_prefetch(at(rows, i * stride + j, half));
}

static void copy_rows(float *to, const float *from, long stride, long count, long width, long wide, long rows, float factor) {
    copy_rows_of(to, from, stride, count, width, wide, rows, factor, 0);
}

/* LANES rows of LANES numbers, transposed. To shuffle the upper half of the rows into the lower as one shuffles cards moves
   every number's row by a bit towards its column; after as many times as there are bits, they have changed places. */
static inline void transpose(float *to, long ld, const float *from, long stride) {
    Floats rows[LANES], turned[LANES];
    for (int i = 0; i < LANES; i++) rows[i] = load(from + i * stride);
    for (int bit = 1; bit < LANES; bit *= 2) {
        for (int i = 0; i < LANES / 2; i++) {
            turned[2 * i] = LOW_HALVES(rows[i], rows[i + LANES / 2]);
            turned[2 * i + 1] = HIGH_HALVES(rows[i], rows[i + LANES / 2]);
        }
        memcpy(rows, turned, sizeof rows);
    }
    for (int j = 0; j < LANES; j++) store(to + j * ld, rows[j]);
}

/* The same, transposed: to [width, ld]. */
static void copy_columns(float *to, const float *from, long stride, long count, long width, long ld) {
    long whole = count / LANES * LANES, wide = width / LANES * LANES;
    for (long i = 0; i < whole; i += LANES) {
        for (long j = 0; j < wide; j += LANES) transpose(to + j * ld + i, ld, from + i * stride + j, stride);
        for (long j = wide; j < width; j++)
            for (long k = 0; k < LANES; k++) to[j * ld + i + k] = from[(i + k) * stride + j];
    }
    for (long i = whole; i < count; i++)
        for (long j = 0; j < width; j++) to[j * ld + i] = from[i * stride + j];
    for (long j = 0; j < width; j++) memset(to + j * ld + count, 0, (size_t)(ld - count) * 4);
}

typedef struct {
    long begin, columns; /* of the group */
    long ld;             /* of transposed keys and values */
    long wide;           /* width of a head, filled up */
    long most;           /* columns of scores, filled up */
} Room;

static Room room_of(const Attention *a, long group) {
    const Segment *first = a->segments + a->groups[group], *last = a->segments + a->groups[group + 1] - 1;
    Room room = {.begin = first->start, .columns = last->start + last->length - first->start, .wide = whole_wide(a->width)};
    room.ld = whole_wide(room.columns) + WIDE;
    room.most = whole_wide(room.columns) + 2 * WIDE;
    return room;
}

/* Scores of the queries of one block: prefix columns, then own ones up to the farthest reach. */
typedef struct {
    long queries, rows; /* rows: filled up */
    long prefix, own;   /* columns filled up */
    long prefix_real, own_real;
    long prefix_at, own_at; /* first column in the group */
    const int64_t *reach;
} Block;

static Block block_of(const Attention *a, const Segment *segment, long first, long begin) {
    long left = segment->queries - first, count = left < QUERIES ? left : QUERIES;
    const int64_t *reach = a->reach + segment->query + first;
    return (Block){.queries = count,
                   .rows = (count + 7) / 8 * 8,
                   .prefix = whole_wide(segment->prefix_length),
                   .own = whole_wide(reach[count - 1]),
                   .prefix_real = segment->prefix_length,
                   .own_real = reach[count - 1],
                   .prefix_at = segment->prefix - begin,
                   .own_at = segment->start - begin,
                   .reach = reach};
}

/* scores [rows, ld] = q k^T over both ranges of columns. */
static void scores_of(const Block *b, const float *queries, long wide, const float *transposed, long ldt, float *scores,
                      long ld, long width) {
    if (b->prefix) product(queries, wide, 1, transposed + b->prefix_at, ldt, scores, ld, b->rows, b->prefix, width, 0);
    product(queries, wide, 1, transposed + b->own_at, ldt, scores + b->prefix, ld, b->rows, b->own, width, 0);
}

/* Rows of scores are worked on in whole lanes, since loops over their odd ends would take longer than all the rest: what a
   query does not see is minus infinity, and then a probability of 0. */
static inline void hide(float *row, long from, long to) {
    for (long j = from / LANES * LANES; j < to; j += LANES)
        store(row + j, pick(COUNTED < (int)(from - j), load(row + j), spread(-__builtin_inff())));
}

static inline void hide_ends(const Block *b, float *row, long reach) {
    hide(row, b->prefix_real, b->prefix);
    hide(row + b->prefix, reach, whole_wide(reach));
}

/* row = e^(row - less); the sum.  row [n], n % WIDE == 0 */
static inline float exponentials(float *row, long n, float less) {
    Floats sum = {0};
    for (long j = 0; j < n; j += LANES) {
        Floats power = exp_of(load(row + j) - less);
        store(row + j, power);
        sum += power;
    }
    return sum_of_lanes(sum);
}

/* scores become probabilities p, pulls p (pull - mean).  [n], n % WIDE == 0 */
static inline void pull_back(float *scores, float *pulls, long n, float total, float mean) {
    for (long j = 0; j < n; j += LANES) {
        Floats p = exp_of(load(scores + j) - total);
        store(scores + j, p);
        store(pulls + j, p * (load(pulls + j) - mean));
    }
}

/* row [from, to) = 0, both % WIDE == 0 */
static inline void clear(float *row, long from, long to) {
    for (long j = from; j < to; j += LANES) store(row + j, (Floats){0});
}

static ALWAYS_INLINE void forward_piece(Attention *a, long group, long key_head, const int half) {
    Room room = room_of(a, group);
    long wide = room.wide, width = a->width, shared = a->heads / a->key_heads;
    float *memory = scratch(width * room.ld + (room.columns + WIDE) * wide + QUERIES * (room.most + 2 * wide) + 8 * WIDE);
    if (memory == 0) {
        atomic_store(&a->failed, 1);
        return;
    }
    float *keys = take(&memory, width * room.ld), *values = take(&memory, (room.columns + WIDE) * wide);
    float *scores = take(&memory, QUERIES * room.most), *queries = take(&memory, QUERIES * wide);
    float *found = take(&memory, QUERIES * wide), factor = 1.0f / __builtin_sqrtf((float)width);
    copy_columns(keys, a->key + room.begin * a->key_stride + key_head * width, a->key_stride, room.columns, width, room.ld);
    copy_rows(values, a->value + room.begin * a->value_stride + key_head * width, a->value_stride, room.columns, width, wide,
              room.columns + WIDE, 1);
    for (long number = a->groups[group]; number < a->groups[group + 1]; number++) {
        const Segment *segment = a->segments + number;
        for (long head = key_head * shared; head < (key_head + 1) * shared; head++)
            for (long first = 0; first < segment->queries; first += QUERIES) {
                Block b = block_of(a, segment, first, room.begin);
                long row = segment->query + first;
                copy_rows(queries, a->query + row * a->query_stride + head * width, a->query_stride, b.queries, width, wide,
                          b.rows, factor);
                scores_of(&b, queries, wide, keys, room.ld, scores, room.most, width);
                float shares[QUERIES];
                for (long i = 0; i < b.queries; i++) {
                    float *row_of = scores + i * room.most;
                    long far = b.prefix + whole_wide(b.reach[i]); /* the prefix and what is in reach lie side by side */
                    hide_ends(&b, row_of, b.reach[i]);
                    float most = largest(row_of, far), sum = exponentials(row_of, far, most);
                    clear(row_of, far, b.prefix + b.own);
                    shares[i] = 1.0f / sum;
                    a->total[(row + i) * a->heads + head] = most + __builtin_logf(sum);
                }
                for (long i = b.queries; i < b.rows; i++) memset(scores + i * room.most, 0, (size_t)(b.prefix + b.own) * 4);
                if (b.prefix)
                    product(scores, room.most, 1, values + b.prefix_at * wide, wide, found, wide, b.rows, wide, b.prefix_real, 0);
                product(scores + b.prefix, room.most, 1, values + b.own_at * wide, wide, found, wide, b.rows, wide, b.own_real,
                        b.prefix > 0);
                for (long i = 0; i < b.queries; i++) {
                    void *into = at(a->found, ((row + i) * a->heads + head) * width, half);
                    copy_row(into, half, found + i * wide, 0, width, shares[i]);
                }
            }
    }
}

static ALWAYS_INLINE void backward_piece(Attention *a, long group, long key_head, const int half) {
    Room room = room_of(a, group);
    long wide = room.wide, width = a->width, shared = a->heads / a->key_heads, rows = room.columns + WIDE;
    float *memory = scratch(2 * width * room.ld + 3 * rows * wide + QUERIES * (2 * room.most + 3 * wide) + 12 * WIDE);
    if (memory == 0) {
        atomic_store(&a->failed, 1);
        return;
    }
    float *keys = take(&memory, width * room.ld), *values = take(&memory, width * room.ld);
    float *key_rows = take(&memory, rows * wide), *into_keys = take(&memory, rows * wide);
    float *into_values = take(&memory, rows * wide), *scores = take(&memory, QUERIES * room.most);
    float *pulls = take(&memory, QUERIES * room.most), *queries = take(&memory, QUERIES * wide);
    float *gradients = take(&memory, QUERIES * wide), *into = take(&memory, QUERIES * wide);
    float factor = 1.0f / __builtin_sqrtf((float)width);
    const float *key = a->key + room.begin * a->key_stride + key_head * width;
    copy_columns(keys, key, a->key_stride, room.columns, width, room.ld);
    copy_rows(key_rows, key, a->key_stride, room.columns, width, wide, rows, 1);
    copy_columns(values, a->value + room.begin * a->value_stride + key_head * width, a->value_stride, room.columns, width, room.ld);
    memset(into_keys, 0, (size_t)(rows * wide) * 4);
    memset(into_values, 0, (size_t)(rows * wide) * 4);
    for (long number = a->groups[group]; number < a->groups[group + 1]; number++) {
        const Segment *segment = a->segments + number;
        for (long head = key_head * shared; head < (key_head + 1) * shared; head++)
            for (long first = 0; first < segment->queries; first += QUERIES) {
                Block b = block_of(a, segment, first, room.begin);
                long row = segment->query + first, stride = a->heads * width;
                const void *gradient = at(a->gradient, row * stride + head * width, half);
                const void *found = at(a->found, row * stride + head * width, half);
                copy_rows(queries, a->query + row * a->query_stride + head * width, a->query_stride, b.queries, width, wide,
                          b.rows, factor);
                copy_rows_of(gradients, gradient, stride, b.queries, width, wide, b.rows, 1, half);
                expect(found, stride, b.queries, width, half);
                scores_of(&b, queries, wide, keys, room.ld, scores, room.most, width);
                scores_of(&b, gradients, wide, values, room.ld, pulls, room.most, width);
                for (long i = 0; i < b.queries; i++) {
                    float *p = scores + i * room.most, *pull = pulls + i * room.most;
                    float total = a->total[(row + i) * a->heads + head];
                    float mean = dot(gradients + i * wide, at(found, i * stride, half), width, half);
                    long far = b.prefix + whole_wide(b.reach[i]);
                    hide_ends(&b, p, b.reach[i]);
                    pull_back(p, pull, far, total, mean);
                    clear(p, far, b.prefix + b.own);
                    clear(pull, far, b.prefix + b.own);
                }
                for (long i = b.queries; i < b.rows; i++) {
                    memset(scores + i * room.most, 0, (size_t)(b.prefix + b.own) * 4);
                    memset(pulls + i * room.most, 0, (size_t)(b.prefix + b.own) * 4);
                }
                if (b.prefix) {
                    long at = b.prefix_at * wide;
                    product(pulls, room.most, 1, key_rows + at, wide, into, wide, b.rows, wide, b.prefix_real, 0);
                    product(scores, 1, room.most, gradients, wide, into_values + at, wide, b.prefix, wide, b.queries, 1);
                    product(pulls, 1, room.most, queries, wide, into_keys + at, wide, b.prefix, wide, b.queries, 1);
                }
                long at = b.own_at * wide;
                product(pulls + b.prefix, room.most, 1, key_rows + at, wide, into, wide, b.rows, wide, b.own_real, b.prefix > 0);
                product(scores + b.prefix, 1, room.most, gradients, wide, into_values + at, wide, b.own, wide, b.queries, 1);
                product(pulls + b.prefix, 1, room.most, queries, wide, into_keys + at, wide, b.own, wide, b.queries, 1);
                for (long i = 0; i < b.queries; i++)
                    copy_row(a->into_query + (row + i) * a->into_query_stride + head * width, 0, into + i * wide, 0, width, factor);
            }
    }
    for (long i = 0; i < room.columns; i++) {
        long place = (room.begin + i) * a->into_stride + key_head * width;
        copy_row(a->into_key + place, 0, into_keys + i * wide, 0, width, 1);
        copy_row(a->into_value + place, 0, into_values + i * wide, 0, width, 1);
    }
}

static void pieces(void *what, Team *team, int me) {
    (void)team;
    (void)me;
    Attention *a = what;
    long number, all = a->count * a->key_heads;
    while ((number = atomic_fetch_add(&a->next, 1)) < all) {
        long group = number / a->key_heads, key_head = number % a->key_heads;
        if (a->gradient && a->half) backward_piece(a, group, key_head, 1);
        else if (a->gradient) backward_piece(a, group, key_head, 0);
        else if (a->half) forward_piece(a, group, key_head, 1);
        else forward_piece(a, group, key_head, 0);
    }
}

/* 0, or 1 when there was no memory. Strides in floats. */
int trunk_attend(const int64_t *segments, const int64_t *groups, const int64_t *reach, long count, long heads, long key_heads,
                 long width, const float *query, long query_stride, const float *key, long key_stride, const float *value,
                 long value_stride, void *found, float *total, int half, int threads) {
    Attention a = {.segments = (const Segment *)segments, .groups = groups, .reach = reach, .count = count, .heads = heads,
                   .key_heads = key_heads, .width = width, .query = query, .query_stride = query_stride, .key = key,
                   .key_stride = key_stride, .value = value, .value_stride = value_stride, .found = found, .total = total,
                   .half = half};
    team_run(pieces, &a, threads);
    return atomic_load(&a.failed);
}

int trunk_attend_backward(const int64_t *segments, const int64_t *groups, const int64_t *reach, long count, long heads,
                          long key_heads, long width, const float *query, long query_stride, const float *key,
                          long key_stride, const float *value, long value_stride, void *found, float *total,
                          const void *gradient, float *into_query, long into_query_stride, float *into_key,
                          float *into_value, long into_stride, int half, int threads) {
    Attention a = {.segments = (const Segment *)segments, .groups = groups, .reach = reach, .count = count, .heads = heads,
                   .key_heads = key_heads, .width = width, .query = query, .query_stride = query_stride, .key = key,
                   .key_stride = key_stride, .value = value, .value_stride = value_stride, .found = found, .total = total,
                   .gradient = gradient, .into_query = into_query, .into_query_stride = into_query_stride,
                   .into_key = into_key, .into_value = into_value, .into_stride = into_stride,
                   .half = half};
    team_run(pieces, &a, threads);
    return atomic_load(&a.failed);
}

/* Products of a few rows with a packed weight matrix: y [n, N] = x [n, K] Wᵀ.

   W lies in panels of PANEL outputs: panel p holds, for each k, the weights of outputs p·PANEL .. p·PANEL+PANEL-1 side by
   side, so that a row's number x[k] multiplies whole vectors and the panel is read once from front to back. In bfloat16 two k
   lie together, [k/2, PANEL, 2], and so do two numbers of a row: one instruction adds both products, in float32. */
#ifndef WHETSTONE_PRODUCTS_H
#define WHETSTONE_PRODUCTS_H

#include "team.h"
#include "vectors.h"

#define PANEL 32
#define PARTS (PANEL / LANES)
#define AT_ONCE (LANES == 16 ? 12 : 3) /* rows whose sums fit the registers beside a panel's weights */

/* What becomes of the sums of a row over a panel. */
typedef enum {
    SCALED,  /* y = s·r + b, r the row's scale */
    ADDED,   /* y += s + b */
    GATED,   /* the panel is 16 gates g and 16 ups u: y = silu(g)·u, g and u scaled and biased as above */
} After;

typedef struct {
    const void *panels; /* float32, or bfloat16 as `half` says */
    const float *bias;  /* [N rounded up to PANEL], or null */
    long inputs;        /* K */
    long outputs;       /* N */
    long half;
} Matrix;

/* Floats of room in which a thread narrows n rows of up to `inputs` numbers. */
static inline long narrow_room(long n, long inputs) { return n * ((inputs + 31) / 32 * 16); }

/* One thread's share of a product. Strides count floats; y has room for whole panels (half of that for GATED), and `narrow` for
   the thread's own copy of x in bfloat16 where the matrix is. */
void product(const Matrix *matrix, After after, long n, const float *x, long x_stride, const float *scale, float *y,
             long y_stride, void *narrow, const Team *team, int me);

#endif

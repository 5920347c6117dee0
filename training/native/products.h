/* Products of a few rows with a packed weight matrix: y [n, N] = x [n, K] Wᵀ.

   W lies in panels of PANEL outputs: panel p holds, for each k, the weights of outputs p·PANEL .. p·PANEL+PANEL-1 side by
   side, so that a row's number x[k] multiplies whole vectors and the panel is read once from front to back. */
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
    const float *panels;
    const float *bias; /* [N rounded up to PANEL], or null */
    long inputs;       /* K */
    long outputs;      /* N */
} Matrix;

/* One thread's share of a product. Strides count floats; y has room for whole panels (half of that for GATED). */
void product(const Matrix *matrix, After after, long n, const float *x, long x_stride, const float *scale, float *y,
             long y_stride, const Team *team, int me);

#endif

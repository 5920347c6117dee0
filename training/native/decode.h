/* A Llama-shaped model laid out for decoding, its key-value rows, and one pass over some tokens.

   Every struct here has a twin in training/native/decoding.py. */
#ifndef WHETSTONE_DECODE_H
#define WHETSTONE_DECODE_H

#include "products.h"

#define KEYS 16 /* keys of as many columns lie side by side, so that one pass over a query scores them all */

typedef struct {
    Matrix qkv, out, gate_up, down; /* the norm before a product is in its weights: products.h's `factor` */
    const float *query_norm, *key_norm; /* [head_dim], or null */
    float *keys;   /* [slots, kv_heads, columns/KEYS, head_dim, KEYS] */
    float *values; /* [slots, kv_heads, columns, value_width] */
} Layer;

typedef struct {
    long width, heads, kv_heads, head_dim, inner, words, layers, columns;
    long value_width; /* head_dim rounded up to PANEL */
    double eps;
    const Layer *layer;
    const float *embedding; /* [words, width] */
    const float *cos, *sin; /* [columns, head_dim/2] */
    Matrix head;
} Model;

/* One token of each of n rows, `steps` times; or n tokens of any rows once (steps = 0), those of one row in order. */
typedef struct {
    const Model *model;
    long n, steps;
    long *token, *position; /* [n] what is read and where; the token drawn last afterwards */
    const int *place;       /* [n] which key-value row each belongs to */
    const int *wanted;      /* [wanted_n] the tokens whose logits are wanted (steps = 0) */
    long wanted_n;
    long together;          /* whether several tokens may be of one row */
    const float *temperature, *uniform; /* [n], [n, uniform_stride] by position */
    long uniform_stride;
    const unsigned char *stops; /* [words] 1 where a token ends its reply */
    long *out_token;            /* [steps, n] */
    float *out_logp;            /* [steps, n] */
    float *scratch;             /* native_scratch floats */
    float *logits;              /* rows of logits_stride(words) floats */
    long done;                  /* out: steps taken; it stops after the first that ends a reply */
} Pass;

static inline long whole_panels(long n) { return (n + PANEL - 1) / PANEL * PANEL; }
/* Rows of a power of two would all fall on the same places of the cache. */
static inline long stride_of(long n) { return whole_panels(n) + 16; }

/* Draw a token for each of n rows of logits; row i is logits + from[i]·stride, or i·stride where from is null. */
typedef struct {
    const float *logits;
    long stride, words, n;
    const int *from;
    const float *temperature;
    const float *uniform; /* number of row i: uniform[i·uniform_stride + (position ? position[i] + step : 0)] */
    const long *position;
    long uniform_stride, step;
    long *token; /* out [n] */
    float *logp; /* out [n] */
    float *scratch; /* choice_scratch(n, words) floats */
} Choice;

long choice_scratch(long n, long words);
/* One thread's share; holds barriers, so every thread of the team must come. */
void choose(const Choice *choice, Team *team, int me);

#endif

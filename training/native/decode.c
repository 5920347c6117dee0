/* Forward passes of a Llama-shaped model, all layers in one call, and many tokens of many replies in one call. */
#include "decode.h"

#include <math.h>
#include <string.h>

#include "lanes.h"

/* Where the pass keeps what is between the products; all in `scratch`. */
typedef struct {
    float *x, *qkv, *attended, *gated, *chosen, *scale, *score, *narrow, *choice;
    long narrow_room; /* of a thread */
    long x_stride, qkv_stride, attended_stride, gated_stride;
} Rows;

static Rows rows_in(float *scratch, const Model *m, long n, long wanted, long threads, long *floats) {
    Rows r;
    long heads = m->heads + 2 * m->kv_heads;
    r.x_stride = stride_of(m->width);
    r.qkv_stride = stride_of(heads * m->head_dim);
    r.attended_stride = stride_of(m->heads * m->head_dim);
    r.gated_stride = stride_of(m->inner);
    r.x = scratch;
    r.qkv = r.x + n * r.x_stride;
    r.attended = r.qkv + n * r.qkv_stride;
    r.gated = r.attended + n * r.attended_stride;
    r.chosen = r.gated + n * r.gated_stride;
    r.scale = r.chosen + wanted * r.x_stride;
    r.score = r.scale + threads * whole_panels(n);
    r.narrow = r.score + threads * (whole_panels(m->columns) + 4 * KEYS);
    r.narrow_room = m->head.half ? narrow_room(n, r.x_stride > r.attended_stride ? r.x_stride : r.attended_stride) : 0;
    if (m->head.half && narrow_room(n, m->inner) > r.narrow_room) r.narrow_room = narrow_room(n, m->inner);
    r.choice = r.narrow + threads * r.narrow_room;
    *floats = r.choice + choice_scratch(wanted, m->words) - scratch;
    return r;
}

long native_scratch(const Model *m, long n, long wanted, long threads) {
    static float nothing;
    long floats;
    rows_in(&nothing, m, n, wanted, threads, &floats);
    return floats;
}

long native_logits_stride(long words) { return stride_of(words); }

/* 1 / root mean square of each row. */
static void scales(const Model *m, long n, const float *x, long stride, float *scale) {
    for (long row = 0; row < n; row++) {
        Floats squares = {0};
        const float *from = x + row * stride;
        for (long i = 0; i < m->width; i += LANES) squares += load(from + i) * load(from + i); /* zeros beyond width */
        scale[row] = 1.0f / sqrtf(sum_of_lanes(squares) / (float)m->width + (float)m->eps);
    }
}

/* RMS norm of one head, where the architecture has one; then its rotation; then `factor`. */
static void turn(const Model *m, float *head, const float *norm, long position, float factor) {
    long half = m->head_dim / 2;
    const float *cos = m->cos + position * half, *sin = m->sin + position * half;
    float r = factor;
    if (norm) {
        float squares = 0;
        for (long i = 0; i < m->head_dim; i++) squares += head[i] * head[i];
        r /= sqrtf(squares / (float)m->head_dim + (float)m->eps);
        for (long i = 0; i < m->head_dim; i++) head[i] *= norm[i];
    }
    for (long i = 0; i < half; i++) {
        float a = head[i] * r, b = head[i + half] * r;
        head[i] = a * cos[i] - b * sin[i];
        head[i + half] = b * cos[i] + a * sin[i];
    }
}

/* Turn one token's key and the queries that share it; keep its key and value. */
static void keep(const Model *m, const Layer *l, float *qkv, long kv, long place, long position) {
    long size = m->head_dim, group = m->heads / m->kv_heads, row = place * m->kv_heads + kv;
    float *key = qkv + (m->heads + kv) * size, *value = key + m->kv_heads * size;
    for (long i = 0; i < group; i++) turn(m, qkv + (kv * group + i) * size, l->query_norm, position, 1 / sqrtf((float)size));
    turn(m, key, l->key_norm, position, 1);
    float *kept = l->keys + row * m->columns * size + position / KEYS * size * KEYS + position % KEYS;
    for (long i = 0; i < size; i++) kept[i * KEYS] = key[i];
    memcpy(l->values + (row * m->columns + position) * m->value_width, value, (size_t)size * sizeof(float));
}

#define HELD 4 /* blocks of keys scored at once */
#define SLICE (KEYS / LANES)

/* Attention of one turned query over columns 0..reach-1. */
static void attend(const Model *m, const float *keys, const float *values, const float *query, long reach, float *score,
                   float *out) {
    long size = m->head_dim, blocks = (reach + KEYS - 1) / KEYS;
    for (long block = 0; block < blocks;) {
        Floats sum[HELD][SLICE] = {{{0}}};
        const float *from = keys + block * size * KEYS;
        int held = blocks - block >= HELD ? HELD : 1;
        if (held == HELD)
            for (long i = 0; i < size; i++)
                for (int b = 0; b < HELD; b++)
                    for (int s = 0; s < SLICE; s++) sum[b][s] += query[i] * load(from + (b * size + i) * KEYS + s * LANES);
        else
            for (long i = 0; i < size; i++)
                for (int s = 0; s < SLICE; s++) sum[0][s] += query[i] * load(from + i * KEYS + s * LANES);
        for (int b = 0; b < held; b++)
            for (int s = 0; s < SLICE; s++) store(score + (block + b) * KEYS + s * LANES, sum[b][s]);
        block += held;
    }
    for (long i = reach; i < blocks * KEYS; i++) score[i] = -INFINITY;
    float most = largest(score, blocks * KEYS);
    Floats sums = {0};
    for (long i = 0; i < blocks * KEYS; i += LANES) {
        Floats weight = exp_of(load(score + i) - most);
        store(score + i, weight);
        sums += weight;
    }
    float share = 1 / sum_of_lanes(sums);
    for (long part = 0; part < size; part += 2 * LANES) {
        Floats mean[4][2] = {{{0}}};
        const float *from = values + part;
        long column = 0;
        for (; column + 4 <= reach; column += 4)
            for (int way = 0; way < 4; way++)
                for (int s = 0; s < 2; s++)
                    mean[way][s] += score[column + way] * load(from + (column + way) * m->value_width + s * LANES);
        for (; column < reach; column++)
            for (int s = 0; s < 2; s++) mean[0][s] += score[column] * load(from + column * m->value_width + s * LANES);
        for (int s = 0; s < 2; s++) {
            Floats found = ((mean[0][s] + mean[1][s]) + (mean[2][s] + mean[3][s])) * share;
            long left = size - part - s * LANES;
            if (left >= LANES) store(out + part + s * LANES, found);
            else
                for (int lane = 0; lane < left; lane++) out[part + s * LANES + lane] = found[lane];
        }
    }
}

static void attention(const Pass *p, const Model *m, const Layer *l, const Rows *r, long step, Team *team, int me) {
    long units = p->n * m->kv_heads, group = m->heads / m->kv_heads, first, last;
    float *score = r->score + me * (whole_panels(m->columns) + 4 * KEYS);
    team_share(team, me, units, 1, &first, &last);
    if (p->together) {
        for (long unit = first; unit < last; unit++)
            keep(m, l, r->qkv + unit % p->n * r->qkv_stride, unit / p->n, p->place[unit % p->n], p->position[unit % p->n]);
        team_wait(team);
    }
    for (long unit = first; unit < last; unit++) {
        long kv = unit / p->n, token = unit % p->n, position = p->position[token] + step;
        float *qkv = r->qkv + token * r->qkv_stride;
        if (!p->together) keep(m, l, qkv, kv, p->place[token], position);
        long row = p->place[token] * m->kv_heads + kv;
        for (long head = kv * group; head < (kv + 1) * group; head++)
            attend(m, l->keys + row * m->columns * m->head_dim, l->values + row * m->columns * m->value_width,
                   qkv + head * m->head_dim, position + 1, score, r->attended + token * r->attended_stride + head * m->head_dim);
    }
}

/* Read one token of each row; the logits of those wanted. Ends with a barrier. */
static void forward(const Pass *p, const Rows *r, long step, Team *team, int me) {
    const Model *m = p->model;
    float *scale = r->scale + me * whole_panels(p->n), *narrow = r->narrow + me * r->narrow_room;
    long first, last;
    team_share(team, me, p->n, 1, &first, &last);
    for (long row = first; row < last; row++) {
        memcpy(r->x + row * r->x_stride, m->embedding + p->token[row] * m->width, (size_t)m->width * sizeof(float));
        memset(r->x + row * r->x_stride + m->width, 0, (size_t)(r->x_stride - m->width) * sizeof(float));
    }
    team_wait(team);
    for (const Layer *l = m->layer; l < m->layer + m->layers; l++) {
        scales(m, p->n, r->x, r->x_stride, scale);
        product(&l->qkv, SCALED, p->n, r->x, r->x_stride, scale, r->qkv, r->qkv_stride, narrow, team, me);
        team_wait(team);
        attention(p, m, l, r, step, team, me);
        team_wait(team);
        product(&l->out, ADDED, p->n, r->attended, r->attended_stride, 0, r->x, r->x_stride, narrow, team, me);
        team_wait(team);
        scales(m, p->n, r->x, r->x_stride, scale);
        product(&l->gate_up, GATED, p->n, r->x, r->x_stride, scale, r->gated, r->gated_stride, narrow, team, me);
        team_wait(team);
        product(&l->down, ADDED, p->n, r->gated, r->gated_stride, 0, r->x, r->x_stride, narrow, team, me);
        team_wait(team);
    }
    const float *x = r->x;
    long n = p->n;
    if (p->steps == 0) {
        if (p->wanted_n == 0) return;
        n = p->wanted_n;
        team_share(team, me, n, 1, &first, &last);
        for (long row = first; row < last; row++)
            memcpy(r->chosen + row * r->x_stride, r->x + p->wanted[row] * r->x_stride, (size_t)r->x_stride * sizeof(float));
        team_wait(team);
        x = r->chosen;
    }
    scales(m, n, x, r->x_stride, scale);
    product(&m->head, SCALED, n, x, r->x_stride, scale, p->logits, stride_of(m->words), narrow, team, me);
    team_wait(team);
}

static void pass_share(void *what, Team *team, int me) {
    Pass *p = what;
    long floats, step = 0;
    Rows r = rows_in(p->scratch, p->model, p->n, p->steps ? p->n : p->wanted_n, team->size, &floats);
    if (p->steps == 0) forward(p, &r, 0, team, me);
    for (int ended = 0; step < p->steps && !ended; step++) {
        forward(p, &r, step, team, me);
        Choice choice = {
            .logits = p->logits, .stride = stride_of(p->model->words), .words = p->model->words, .n = p->n,
            .temperature = p->temperature, .uniform = p->uniform, .uniform_stride = p->uniform_stride,
            .position = p->position, .step = step,
            .token = p->token, .logp = p->out_logp + step * p->n, .scratch = r.choice,
        };
        choose(&choice, team, me);
        for (long row = 0; row < p->n; row++) {
            ended |= p->stops[p->token[row]];
            if (me == 0) p->out_token[step * p->n + row] = p->token[row];
        }
    }
    if (me == 0) p->done = step;
}

void native_pass(Pass *pass, int threads) { team_run(pass_share, pass, threads); }

/* Give key-value row `target` the first `length` columns of row `source`. */
void native_copy_row(const Model *m, long source, long target, long length) {
    for (const Layer *l = m->layer; l < m->layer + m->layers; l++)
        for (long kv = 0; kv < m->kv_heads; kv++) {
            long from = (source * m->kv_heads + kv) * m->columns, to = (target * m->kv_heads + kv) * m->columns;
            memcpy(l->keys + to * m->head_dim, l->keys + from * m->head_dim,
                   (size_t)((length + KEYS - 1) / KEYS * KEYS * m->head_dim) * sizeof(float));
            memcpy(l->values + to * m->value_width, l->values + from * m->value_width,
                   (size_t)(length * m->value_width) * sizeof(float));
        }
}

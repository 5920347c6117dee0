/* Drawing tokens by inverse CDF, as `choose` of training/sampling/sampling.py defines it (without top_p). */
#include "decode.h"

#include <math.h>

#include "lanes.h"

#define PIECE 256 /* logits whose probabilities are summed as one before the token is sought among them */
#define CHUNK 4096

long choice_scratch(long n, long words) {
    return n * ((words + CHUNK - 1) / CHUNK + (words + PIECE - 1) / PIECE) + 2 * LANES;
}

static float warmth(const Choice *c, long row) {
    float temperature = c->temperature ? c->temperature[row] : 1.0f;
    return temperature > 0 ? temperature : 1.0f;
}

static const float *logits_of(const Choice *c, long row) { return c->logits + (c->from ? c->from[row] : row) * c->stride; }

/* e^(logit/T - most) of `count` <= LANES logits, 0 beyond them. */
static inline Floats weights_at(const float *logits, long count, float temperature, float most) {
    Floats x;
    if (count >= LANES) x = load(logits);
    else
        for (int lane = 0; lane < LANES; lane++) x[lane] = lane < count ? logits[lane] : -INFINITY;
    if (temperature != 1.0f) x /= temperature;
    return exp_of(x - most);
}

void choose(const Choice *c, Team *team, int me) {
    long chunks = (c->words + CHUNK - 1) / CHUNK, pieces = (c->words + PIECE - 1) / PIECE, first, last;
    float *mosts = c->scratch, *sums = mosts + c->n * chunks;

    /* 1. The highest logit of each chunk. */
    team_share(team, me, c->n * chunks, 1, &first, &last);
    for (long unit = first; unit < last; unit++) {
        long from = unit % chunks * CHUNK, to = from + CHUNK < c->words ? from + CHUNK : c->words;
        const float *logits = logits_of(c, unit / chunks);
        mosts[unit] = largest(logits + from, to - from) / warmth(c, unit / chunks);
    }
    team_wait(team);

    /* 2. The weight of each piece. */
    long row_pieces = CHUNK / PIECE;
    for (long unit = first; unit < last; unit++) {
        long row = unit / chunks;
        const float *logits = logits_of(c, row);
        float most = largest(mosts + row * chunks, chunks), temperature = warmth(c, row);
        for (long piece = unit % chunks * row_pieces; piece < pieces && piece < (unit % chunks + 1) * row_pieces; piece++) {
            long to = (piece + 1) * PIECE < c->words ? (piece + 1) * PIECE : c->words;
            Floats sum = {0};
            for (long i = piece * PIECE; i < to; i += LANES) sum += weights_at(logits + i, to - i, temperature, most);
            sums[row * pieces + piece] = sum_of_lanes(sum);
        }
    }
    team_wait(team);

    /* 3. The token under the number drawn. */
    team_share(team, me, c->n, 1, &first, &last);
    for (long row = first; row < last; row++) {
        const float *logits = logits_of(c, row), *piece_sums = sums + row * pieces;
        float temperature = warmth(c, row), most = largest(mosts + row * chunks, chunks);
        double total = 0;
        for (long piece = 0; piece < pieces; piece++) total += piece_sums[piece];
        long token = c->words - 1;
        if (c->temperature && !(c->temperature[row] > 0)) {
            for (token = 0; token < c->words - 1 && logits[token] / temperature != most;) token++;
        } else {
            double sought = (double)c->uniform[row * c->uniform_stride + (c->position ? c->position[row] + c->step : 0)] * total;
            double before = 0;
            long piece = 0;
            while (piece < pieces - 1 && !(before + piece_sums[piece] > sought)) before += piece_sums[piece++];
            long to = (piece + 1) * PIECE < c->words ? (piece + 1) * PIECE : c->words, possible = -1, found = -1;
            for (long i = piece * PIECE; i < to && found < 0; i += LANES) {
                Floats weight = weights_at(logits + i, to - i, temperature, most);
                for (int lane = 0; lane < LANES && found < 0; lane++) {
                    before += weight[lane];
                    if (weight[lane] > 0) possible = i + lane;
                    if (before > sought) found = i + lane;
                }
            }
            /* The piece's sum, added in another order, may be a last bit above its parts'. */
            if (found >= 0) token = found;
            else if (possible >= 0) token = possible;
        }
        c->token[row] = token;
        c->logp[row] = (float)((double)logits[token] / temperature - most - log(total));
    }
    team_wait(team);
}


static void choose_share(void *what, Team *team, int me) { choose(what, team, me); }

void native_choose(Choice *choice, int threads) { team_run(choose_share, choice, threads); }
long native_choice_scratch(long n, long words) { return choice_scratch(n, words); }

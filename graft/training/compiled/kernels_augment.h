/* Samples of a batch, each rotated and all rolled by random numbers that the caller drew. */

#pragma once

#include "kernels_state.h"

/* A vector is `axes` neighbouring channels (0: nothing is rotated); `pieces` above zero: rows of a
   dense network are the outline of a window in that many pieces (encoders.Outline). */
typedef struct {
    int64_t axes, channels, height, width, pieces;
    const float *rotations; /* (steps, batch, axes, axes) */
    const int64_t *shifts;  /* (steps, 2): along the height and the width, not negative */
} Augment;

static int64_t augment_scratch(const Augment *a) { return a->channels * a->height * a->width; }

/* Floats that a sample takes in the table of rows: dense rows are not outlined there yet. */
static int64_t augment_size(const Plan *plan, const Augment *a) {
    const Block *b = &plan->blocks[0];
    if (plan->dense) return augment_scratch(a);
    return (b->height + 2 * b->pad_h) * (b->width + 2 * b->pad_w) * b->inputs;
}

/* One position's channels, `apart` floats from each other, rotated. */
INLINE void rotate(const Augment *a, const float *rotation, const float *from, float *to,
                   int64_t apart) {
    const int64_t axes = a->axes, whole = axes ? a->channels / axes * axes : 0;
    for (int64_t k = 0; k < whole; k += axes)
        for (int64_t i = 0; i < axes; i++) {
            float sum = 0.0f;
            for (int64_t j = 0; j < axes; j++) sum += rotation[i * axes + j] * from[(k + j) * apart];
            to[(k + i) * apart] = sum;
        }
    for (int64_t k = whole; k < a->channels; k++) to[k * apart] = from[k * apart];
}

/* Mean and mean absolute deviation of each channel in pieces. */
static void outline(const Augment *a, const float *x, float *to) {
    const int64_t length = a->width, pieces = a->pieces;
    for (int64_t k = 0; k < a->channels; k++, x += length) {
        float mean = 0.0f;
        for (int64_t t = 0; t < length; t++) mean += x[t];
        mean /= (float)length;
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t start = i * length / pieces, stop = ceil_div((i + 1) * length, pieces);
            float sum = 0.0f, away = 0.0f;
            for (int64_t t = start; t < stop; t++) {
                sum += x[t];
                away += x[t] > mean ? x[t] - mean : mean - x[t];
            }
            to[k * pieces + i] = sum / (float)(stop - start);
            to[(a->channels + k) * pieces + i] = away / (float)(stop - start);
        }
    }
}

/* Row `n` of a step's batch, as the first block reads it. */
static void augment_row(const Plan *plan, const Augment *a, int64_t step, int64_t n,
                        const float *from, float *scratch, float *to) {
    const Block *b = &plan->blocks[0];
    const float *rotation = a->rotations + (step * plan->batch + n) * a->axes * a->axes;
    const int64_t *shift = a->shifts + 2 * step;
    const int64_t pad_h = plan->dense ? 0 : b->pad_h, pad_w = plan->dense ? 0 : b->pad_w;
    const int64_t row = a->width + 2 * pad_w;
    /* Channels lie side by side, or a whole picture apart where the network is dense. */
    const int64_t apart = plan->dense ? a->height * a->width : 1;
    const int64_t wide = plan->dense ? 1 : a->channels;
    float *moved = plan->dense && a->pieces ? scratch : to;
    for (int64_t h = 0; h < a->height; h++)
        for (int64_t w = 0; w < a->width; w++) {
            const int64_t y = (h + shift[0]) % a->height, x = (w + shift[1]) % a->width;
            rotate(a, rotation, from + ((pad_h + h) * row + pad_w + w) * wide,
                   moved + ((pad_h + y) * row + pad_w + x) * wide, apart);
        }
    if (moved == scratch) outline(a, scratch, to);
}

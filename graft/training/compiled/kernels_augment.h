/* Samples of a batch, each rotated and all rolled by random numbers that the caller drew. */

#pragma once

#include "kernels_state.h"

#if defined(__clang__)
#define CAN_SHUFFLE 0 /* its vectors are shuffled by constants alone */
#define SHUFFLED(x, places) (x)
#else
#define CAN_SHUFFLE 1
#define SHUFFLED(x, places) __builtin_shuffle(x, places)
#endif

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

/* Neighbouring positions whose channels lie side by side. Lanes of whole vectors are rotated at
   once: lane i of the j-th factor is the j-th number of lane i's vector. */
static void rotate_beside(const Augment *a, const float *rotation, const float *from, float *to,
                          int64_t positions) {
    const int64_t axes = a->axes, group = CAN_SHUFFLE && axes ? LANES / axes * axes : 0;
    const int64_t count = positions * a->channels;
    if (!axes) {
        memcpy(to, from, sizeof(float) * count);
        return;
    }
    int64_t done = 0;
    if (axes <= 3 && a->channels % axes == 0 && group) {
        ivec places[3];
        vec factors[3];
        for (int64_t j = 0; j < axes; j++)
            for (int64_t i = 0; i < LANES; i++) {
                places[j][i] = (int32_t)(i < group ? i / axes * axes + j : i);
                factors[j][i] = rotation[i % axes * axes + j];
            }
        /* Lanes past the group are written again by the next one, so the last is left out. */
        for (; done + LANES <= count; done += group) {
            const vec x = load(from + done);
            vec sum = {0};
            for (int64_t j = 0; j < axes; j++)
                sum += factors[j] * SHUFFLED(x, places[j]);
            store(to + done, sum);
        }
    }
    for (int64_t first = done / a->channels * a->channels; first < count; first += a->channels)
        for (int64_t k = 0; k < a->channels; k++) {
            const int64_t i = k % axes, vector = first + k - i;
            float sum = 0.0f;
            if (k - i + axes > a->channels) sum = from[first + k];
            else for (int64_t j = 0; j < axes; j++) sum += rotation[i * axes + j] * from[vector + j];
            to[first + k] = sum;
        }
}

/* The same where each channel's positions lie side by side, `apart` floats from the next. */
static void rotate_planes(const Augment *a, const float *rotation, const float *from, float *to,
                          int64_t apart, int64_t positions) {
    const int64_t axes = a->axes, whole = axes ? a->channels / axes * axes : 0;
    for (int64_t k = 0; k < whole; k += axes)
        for (int64_t i = 0; i < axes; i++)
            for (int64_t t = 0; t < positions; t++) {
                float sum = 0.0f;
                for (int64_t j = 0; j < axes; j++)
                    sum += rotation[i * axes + j] * from[(k + j) * apart + t];
                to[(k + i) * apart + t] = sum;
            }
    for (int64_t k = whole; k < a->channels; k++)
        memcpy(to + k * apart, from + k * apart, sizeof(float) * positions);
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
    for (int64_t h = 0; h < a->height; h++) {
        const int64_t y = (h + shift[0]) % a->height, over = a->width - shift[1];
        const float *line = from + ((pad_h + h) * row + pad_w) * wide;
        float *onto = moved + ((pad_h + y) * row + pad_w) * wide;
        /* Up to `over` positions move on by the shift, the others come round. */
        for (int part = 0; part < 2; part++) {
            const float *first = line + (part ? over : 0) * wide;
            float *goal = onto + (part ? 0 : shift[1]) * wide;
            const int64_t positions = part ? shift[1] : over;
            if (plan->dense) rotate_planes(a, rotation, first, goal, apart, positions);
            else rotate_beside(a, rotation, first, goal, positions);
        }
    }
    if (moved == scratch) outline(a, scratch, to);
}

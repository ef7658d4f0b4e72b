/* Linear heads on fixed features, each held near the head that it starts from. */

#pragma once

#include "kernels_adam.h"
#include "kernels_state.h"

#define UNKNOWN -30.0f /* the logit of a class that a source does not know */

typedef struct {
    int64_t heads, rows, features, classes, class_lanes, steps;
    double learning_rate, pull; /* of the squared distance from the start */
    const float *x;             /* (heads, rows, features) */
    const int64_t *y;           /* (rows) */
    const float *known;         /* (heads, classes): 1 or 0 */
    float *weight, *bias;       /* (heads, features, classes), (heads, classes): in place */
} Heads;

/* One step's gradient: the rows' mean cross-entropy, and the pull. */
static void heads_gradient(const Heads *h, const float *x, const float *known, const float *start,
                           const float *weight, float *logits, float *slope) {
    const int64_t lanes = h->class_lanes, size = h->features * lanes;
    const float *bias = weight + size;
    product(h->rows, x, h->features, 1, 0, h->features, weight, lanes, logits, lanes);
    for (int64_t n = 0; n < h->rows; n++) {
        float *row = logits + n * lanes, top = -INFINITY, sum = 0.0f;
        for (int64_t c = 0; c < h->classes; c++) {
            row[c] = known[c] != 0.0f ? row[c] + bias[c] : UNKNOWN;
            top = row[c] > top ? row[c] : top;
        }
        for (int64_t c = 0; c < h->classes; c++) sum += row[c] = expf(row[c] - top);
        const float share = 1.0f / (sum * (float)h->rows);
        for (int64_t c = 0; c < h->classes; c++) row[c] = known[c] != 0.0f ? row[c] * share : 0.0f;
        if (known[h->y[n]] != 0.0f) row[h->y[n]] -= 1.0f / (float)h->rows;
        for (int64_t c = h->classes; c < lanes; c++) row[c] = 0.0f;
    }
    memset(slope, 0, sizeof(float) * size);
    transposed_product(1, h->rows, x, h->features, 0, h->features, logits, lanes, 0, slope, 0,
                       h->features, lanes);
    add_rows(logits, h->rows, lanes, slope + size);
    const float pull = 2.0f * (float)h->pull;
    for (int64_t i = 0; i < size; i++) slope[i] += pull * (weight[i] - start[i]);
}

/* All steps of every head; 0, or 1 where memory ran out. */
int graft_heads(const Heads *h) {
    const int64_t lanes = h->class_lanes, size = h->features * lanes, count = size + lanes;
    float *memory = aligned_alloc(64, sizeof(float) * (size_t)(5 * count + h->rows * lanes));
    if (memory == NULL) return 1;
    float *start = memory, *weight = start + count, *slope = weight + count;
    float *mean = slope + count, *square = mean + count, *logits = square + count;
    for (int64_t t = 0; t < h->heads; t++) {
        float *own = h->weight + t * h->features * h->classes, *bias = h->bias + t * h->classes;
        memset(memory, 0, sizeof(float) * 5 * count);
        pad_matrix(h->features, h->classes, lanes, start, own, 0);
        memcpy(start + size, bias, sizeof(float) * h->classes);
        memcpy(weight, start, sizeof(float) * count);
        for (int64_t step = 1; step <= h->steps; step++) {
            heads_gradient(h, h->x + t * h->rows * h->features, h->known + t * h->classes, start,
                           weight, logits, slope);
            adam(count, weight, slope, mean, square, 0.0f,
                 (float)(h->learning_rate / (1.0 - pow(0.9, (double)step))),
                 (float)sqrt(1.0 - pow(0.999, (double)step)));
        }
        pad_matrix(h->features, h->classes, lanes, weight, own, 1);
        memcpy(bias, weight + size, sizeof(float) * h->classes);
    }
    free(memory);
    return 0;
}

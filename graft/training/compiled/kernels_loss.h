/* What a step minimises at the logits. */

#pragma once

#include <math.h>

#include "kernels_hat.h"

/* The batch's sum of weight_n * -sum_c wanted[row_n, c] log p_nc, where `weights` are of a
   position in the batch and `wanted` of a row. Classes of which `known` is 0 have p = 0.
   `information`: of the rows from `labelled` on, the mean entropy of p_n minus the entropy of
   their mean is added. `fixed_head`: the head does not move. */
typedef struct {
    float *wanted, *weights;
    const float *known;
    int64_t labelled, information, fixed_head;
    Hat *hat; /* fills in what is wanted of the unlabelled rows, or NULL */
} Loss;

#define SMALLEST 1e-6f /* an exact 0 has no finite slope in p log p */

/* p log p's slope, for p and the logarithm that is cut off at SMALLEST. */
static float entropy_slope(float p) { return logf(p + SMALLEST) + p / (p + SMALLEST); }

/* The loss' value; `p` (batch, lanes) of the logits becomes their gradient. */
static float learn_logits(const Plan *plan, const Loss *loss, const int64_t *rows, float *p) {
    const int64_t batch = plan->batch, lanes = plan->class_lanes, classes = plan->classes;
    double value = 0.0;
    float mean[lanes], slope[lanes];
    memset(mean, 0, sizeof mean);
    const float share = 1.0f / (float)(batch - loss->labelled);
    for (int64_t n = 0; n < batch; n++) {
        float *row = p + n * lanes, top = -INFINITY, sum = 0.0f, dot = 0.0f, mass = 0.0f;
        const float *wanted = loss->wanted + rows[n] * classes;
        for (int64_t c = 0; c < classes; c++) {
            if (loss->known && loss->known[c] == 0.0f) row[c] = -INFINITY;
            top = row[c] > top ? row[c] : top;
            if (wanted[c] != 0.0f) dot += wanted[c] * row[c], mass += wanted[c];
        }
        for (int64_t c = 0; c < classes; c++) sum += row[c] = expf(row[c] - top);
        value += (double)loss->weights[n] * (mass * (logf(sum) + top) - dot);
        for (int64_t c = 0; c < classes; c++) row[c] /= sum;
        if (loss->information && n >= loss->labelled)
            for (int64_t c = 0; c < classes; c++) mean[c] += row[c] * share;
        for (int64_t c = classes; c < lanes; c++) row[c] = 0.0f;
    }
    for (int64_t c = 0; loss->information && c < classes; c++) {
        value += mean[c] * logf(mean[c] + SMALLEST);
        mean[c] = entropy_slope(mean[c]);
    }
    for (int64_t n = 0; n < batch; n++) {
        float *row = p + n * lanes, mass = 0.0f, along = 0.0f;
        const float *wanted = loss->wanted + rows[n] * classes;
        const float weight = loss->weights[n];
        const int informed = loss->information && n >= loss->labelled;
        for (int64_t c = 0; c < classes; c++) mass += wanted[c];
        for (int64_t c = 0; informed && c < classes; c++) {
            slope[c] = share * (mean[c] - entropy_slope(row[c]));
            along += row[c] * slope[c];
            value -= share * row[c] * logf(row[c] + SMALLEST);
        }
        for (int64_t c = 0; c < classes; c++) {
            const float more = informed ? row[c] * (slope[c] - along) : 0.0f;
            row[c] = weight * (row[c] * mass - wanted[c]) + more;
        }
    }
    return (float)value;
}

/* The loss of the batch that is made of these rows; leaves d_features and the head's gradients. */
static float learn_head(State *s, const Loss *loss, const int64_t *rows) {
    const Plan *plan = s->plan;
    const int64_t batch = plan->batch, lanes = plan->class_lanes, width = plan->features;
    product(batch, s->features, width, 1, 0, width, s->head, lanes, s->logits, lanes);
    for (int64_t n = 0; n < batch; n++)
        for (int64_t c = 0; c < lanes; c++) s->logits[n * lanes + c] += s->bias[c];
    if (loss->hat) hat_step(loss->hat, s->features, rows, loss->wanted, loss->weights);
    const float value = learn_logits(plan, loss, rows, s->logits);
    memset(s->d_head, 0, sizeof(float) * width * lanes);
    transposed_product(1, batch, s->features, width, 0, width, s->logits, lanes, 0, s->d_head, 0,
                       width, lanes);
    add_rows(s->logits, batch, lanes, s->d_bias);
    turn(s->head, width, 0, width, lanes, s->turned_head, lanes, 0);
    product(batch, s->logits, lanes, 1, 0, lanes, s->turned_head, width, s->d_features, width);
    return value;
}

/* Trains, and asks, one small network on one thread: its whole step stays in the second-level cache.

   A network is blocks of convolution (or dense layer), batch norm and ReLU, then a mean over
   positions or a GRU, then a linear head under cross-entropy. Activations are channels-last;
   convolutions are matrix products whose left rows overlap in memory. A dense layer is a
   convolution over a line whose positions are the batch. No threads, no state: equal
   arguments give equal bits. NaN and infinity pass through as they do in PyTorch. */

#include <math.h>
#include <stdlib.h>

#include "kernels_augment.h"
#include "kernels_blocks.h"
#include "kernels_gru.h"
#include "kernels_heads.h"
#include "kernels_loss.h"
#include "kernels_pairs.h"

/* Features of the batch that lies in the first block's input. With a momentum above zero the batch
   is normalised by itself and the running statistics move by it, otherwise by those. */
static void forward(State *s, float *statistics, float momentum) {
    const Plan *plan = s->plan;
    const int64_t end = plan->num_blocks - 1;
    for (int64_t i = 0; i <= end; i++) {
        const Block *b = &plan->blocks[i], *next = i < end ? b + 1 : NULL;
        const Work *w = &s->work[i];
        if (w->taps) convolve_pairs(b, w);
        else convolve(b, w);
        const int64_t pad_h = next ? next->pad_h : 0, pad_w = next ? next->pad_w : 0;
        const int64_t row = (b->out_w + 2 * pad_w) * b->outputs;
        float *out = next ? s->work[i + 1].in + pad_h * row + pad_w * b->outputs : s->last;
        if (momentum > 0.0f) measure_batch(b, w, statistics, momentum);
        else recall_statistics(b, w, statistics);
        normalise(b, w, out, row, (b->out_h + 2 * pad_h) * row);
        statistics += 2 * b->outputs;
    }
    const Block *last = &plan->blocks[end];
    const int64_t positions = last->out_h * last->out_w, width = last->outputs;
    if (plan->gru_width) run_gru(plan, &s->gru, s->last, s->features);
    else if (plan->dense) memcpy(s->features, s->last, sizeof(float) * plan->batch * width);
    else
        for (int64_t n = 0; n < plan->batch; n++) {
            add_rows(s->last + n * positions * width, positions, width, s->features + n * width);
            for (int64_t c = 0; c < width; c++) s->features[n * width + c] /= (float)positions;
        }
}

/* One forward and backward pass over the batch that lies in the first block's input, which is
   made of these rows. */
static float pass(State *s, float *statistics, const Loss *loss, const int64_t *rows) {
    const Plan *plan = s->plan;
    const int64_t end = plan->num_blocks - 1;
    const Block *last = &plan->blocks[end];
    const Work *w = &s->work[end];
    const int64_t positions = last->out_h * last->out_w, width = last->outputs;
    forward(s, statistics, 0.1f);
    const float value = learn_head(s, loss, rows);
    if (plan->gru_width) gru_gradient(plan, &s->gru, s->d_features, w->d_out);
    else if (plan->dense) memcpy(w->d_out, s->d_features, sizeof(float) * plan->batch * width);
    else
        for (int64_t n = 0; n < plan->batch; n++) {
            float *d = s->d_features + n * width, *to = w->d_out + n * positions * width;
            for (int64_t c = 0; c < width; c++) d[c] /= (float)positions;
            for (int64_t p = 0; p < positions; p++)
                memcpy(to + p * width, d, sizeof(float) * width);
        }
    for (int64_t i = end; i >= 0; i--) {
        const Block *b = &plan->blocks[i];
        const Work *own = &s->work[i];
        denormalise(b, own);
        if (own->taps) {
            weight_gradient_pairs(b, own);
            input_gradient_pairs(b, own, s->work[i - 1].d_out);
        } else {
            weight_gradient(b, own);
            if (i > 0) input_gradient(b, own, s->work[i - 1].d_out);
        }
    }
    return value;
}

/* Row-major matrices -> panels, or back. */
static void repack(const Plan *plan, float *to, const float *from, int64_t back) {
    int64_t at = 0;
#define MATRIX(rows, columns)                                                          \
    do {                                                                               \
        const int64_t r_ = (rows), c_ = (columns);                                     \
        for (int64_t u = 0, stop; u < c_ / UNIT; u = stop) {                           \
            stop = panel_end(u, c_ / UNIT);                                            \
            const int64_t run = (stop - u) * UNIT;                                     \
            for (int64_t j = 0; j < r_; j++) {                                         \
                const int64_t flat = at + j * c_ + u * UNIT;                           \
                const int64_t panel = at + u * UNIT * r_ + j * run;                    \
                memcpy(to + (back ? flat : panel), from + (back ? panel : flat), run * 4); \
            }                                                                          \
        }                                                                              \
        at += r_ * c_;                                                                 \
    } while (0)
#define VECTOR(count) (memcpy(to + at, from + at, (count) * 4), at += (count))
    for (int64_t i = 0; i < plan->num_blocks; i++) {
        const Block *b = &plan->blocks[i];
        MATRIX(b->kernel_h * b->kernel_w * b->inputs, b->outputs);
        VECTOR(2 * b->outputs);
    }
    if (plan->gru_width) {
        MATRIX(plan->blocks[plan->num_blocks - 1].outputs, 3 * plan->gru_width);
        MATRIX(plan->gru_width, 3 * plan->gru_width);
        VECTOR(6 * plan->gru_width);
    }
    MATRIX(plan->features, plan->class_lanes);
    VECTOR(plan->class_lanes);
}

/* Floats that one sample takes in the first block's input. */
static int64_t sample_size(const Plan *plan) {
    const Block *b = &plan->blocks[0];
    if (plan->dense) return b->inputs;
    return (b->height + 2 * b->pad_h) * (b->width + 2 * b->pad_w) * b->inputs;
}

/* What a training takes up from its last call, and leaves for the next. The moving means of the
   gradient and of its square are in the order of panels. */
typedef struct {
    int64_t num_parameters, done; /* steps so far */
    float *parameters, *gradients, *mean, *square, *statistics;
} Training;

static void run_features(State *s, float *statistics, const float *x, int64_t num_rows,
                         float momentum, float *features) {
    const Plan *plan = s->plan;
    const int64_t sample = sample_size(plan), width = plan->features;
    for (int64_t n = 0; n < num_rows; n += plan->batch) {
        const int64_t left = num_rows - n, rows = left < plan->batch ? left : plan->batch;
        memcpy(s->work[0].in, x + n * sample, sizeof(float) * rows * sample);
        forward(s, statistics, momentum);
        memcpy(features + n * width, s->features, sizeof(float) * rows * width);
    }
}

/* Trains on rows x (N, sample) by `steps` batches of row numbers (steps, batch), each at its own
   learning rate; `gradients` holds the last step's. A rate of zero leaves the parameters as they
   are. 0, or 1 where memory ran out. */
int graft_train(const Plan *plan, Training *t, const float *x, const Loss *loss,
                const Augment *augment, const int64_t *batches, int64_t steps,
                const double *rates, double decay, float *losses) {
    State s;
    const int64_t stride = (t->num_parameters + 15) / 16 * 16;
    float *panels = aligned_alloc(64, (size_t)stride * 8), *slopes = panels + stride;
    if (panels == NULL) return 1;
    int failed = prepare(&s, plan, panels, slopes) || s.num_parameters != t->num_parameters;
    float *scratch = augment ? claim(&s, augment_scratch(augment)) : NULL;
    Hat *hat = loss->hat;
    if (hat && hat_begin(hat)) failed = 1;
    if (!failed && !s.failed) {
        repack(plan, panels, t->parameters, 0);
        const int64_t sample = sample_size(plan);
        const int64_t raw = augment ? augment_size(plan, augment) : sample;
        const int64_t head = plan->class_lanes * (plan->features + 1);
        for (int64_t step = 0; step < steps; step++) {
            const int64_t *rows = batches + step * plan->batch;
            if (hat && step % hat->epoch == 0) {
                run_features(&s, t->statistics, x, hat->labelled, 0.0f, hat_features(hat));
                hat_check(hat);
            }
            for (int64_t n = 0; n < plan->batch; n++) {
                float *to = s.work[0].in + n * sample;
                const float *from = x + rows[n] * raw;
                if (augment) augment_row(plan, augment, step, n, from, scratch, to);
                else memcpy(to, from, sizeof(float) * sample);
            }
            losses[step] = pass(&s, t->statistics, loss, rows);
            t->done++;
            if (rates[step] == 0.0) continue;
            const double first = 1.0 - pow(0.9, (double)t->done);
            const double root = sqrt(1.0 - pow(0.999, (double)t->done));
            adam(t->num_parameters - (loss->fixed_head ? head : 0), panels, slopes, t->mean,
                 t->square, (float)decay, (float)(rates[step] / first), (float)root);
        }
        repack(plan, t->parameters, panels, 1);
        repack(plan, t->gradients, slopes, 1);
    } else failed = 1;
    if (hat) hat_end(hat);
    release(&s);
    free(panels);
    return failed;
}

/* Features (num_rows, plan->features) of rows (num_rows, sample), by the running statistics. With
   a momentum above zero the rows are one batch, and the statistics move by it instead.
   0, or 1 where memory ran out. */
int graft_features(const Plan *plan, int64_t num_parameters, const float *parameters,
                   float *statistics, const float *x, int64_t num_rows, float momentum,
                   float *features) {
    State s;
    float *panels = aligned_alloc(64, (size_t)(num_parameters + 15) / 16 * 64);
    if (panels == NULL) return 1;
    const int failed = prepare(&s, plan, panels, NULL) || s.num_parameters != num_parameters;
    if (!failed) {
        repack(plan, panels, parameters, 0);
        run_features(&s, statistics, x, num_rows, momentum, features);
    }
    release(&s);
    free(panels);
    return failed;
}

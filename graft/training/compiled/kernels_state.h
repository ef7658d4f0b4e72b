/* What a network is made of, and the memory that its training takes. */

#pragma once

#include <stdlib.h>

#include "kernels_products.h"

typedef struct {
    int64_t inputs, outputs;  /* channels; outputs a multiple of UNIT */
    int64_t height, width;    /* positions in, before padding */
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int64_t out_h, out_w;
} Block;

typedef struct {
    int64_t batch, dense, num_blocks, gru_width, features, classes, class_lanes;
    Block blocks[8];
} Plan;

typedef struct {
    float *in, *z, *dz, *turned;      /* padded input, normalised, padded gradient, W^T */
    float *taps, *d_taps, *left, *right;  /* scratch of kernels_pairs.h */
    float *d_out, *mean, *scale;      /* gradient of the output; z's mean, 1 / deviation */
    float *weight, *gamma, *beta;     /* views into the parameters, gradients beside them */
    float *d_weight, *d_gamma, *d_beta;
    int64_t lines, line_count, count; /* samples, lines of out_w positions, positions */
    int64_t front_h, front_w, dz_h, dz_w;
} Work;

typedef struct {
    float *x, *d_x, *gates, *recurrent, *steps, *d_h, *more, *turned_in, *turned;
    float *w_in, *w, *b_in, *b, *d_w_in, *d_w, *d_b_in, *d_b;
    int64_t num_steps, inputs;
} Gru;

typedef struct {
    const Plan *plan;
    Work work[8];
    Gru gru;
    float *head, *bias, *d_head, *d_bias, *turned_head;
    float *features, *d_features, *logits, *last;
    int64_t num_parameters;
    void *memory[128];
    int64_t num_memory, failed;
} State;

/* Zeroed, so that padding is zero for good; freed all at once. */
static float *claim(State *s, int64_t count) {
    size_t bytes = ((size_t)count * sizeof(float) + 127) / 64 * 64;
    float *p = aligned_alloc(64, bytes);
    if (p == NULL) s->failed = 1;
    else memset(p, 0, bytes), s->memory[s->num_memory++] = p;
    return p;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Whether kernels_pairs.h has a block, and how many samples it takes at once. */
#define PAIR_ROWS 32

static int has_pairs(const Block *b, int64_t i) {
    return i > 0 && b->height == 1 && b->kernel_h == 1 && b->stride_h == 1 && b->pad_h == 0 &&
           b->kernel_w == 5 && b->stride_w == 2 && b->pad_w == 2 && b->width % 4 == 0;
}

static int64_t pairs_group(const Block *b) {
    const int64_t pairs = b->out_w / 2;
    return pairs < PAIR_ROWS ? PAIR_ROWS / pairs : 1;
}

/* Without gradients there is no memory for a backward pass. */
static int prepare(State *s, const Plan *plan, float *parameters, float *gradients) {
    const int trains = gradients != NULL;
    if (!trains) gradients = parameters;
    memset(s, 0, sizeof *s);
    s->plan = plan;
    int64_t at = 0;
#define TAKE(name, size) (s->name = parameters + at, s->d_##name = gradients + at, at += (size))
    for (int64_t i = 0; i < plan->num_blocks; i++) {
        const Block *b = &plan->blocks[i];
        Work *w = &s->work[i];
        const int64_t taps = b->kernel_h * b->kernel_w;
        w->lines = plan->dense ? 1 : plan->batch;
        w->line_count = w->lines * b->out_h;
        w->count = w->line_count * b->out_w;
        w->front_h = ceil_div(b->kernel_h, b->stride_h) - 1;
        w->front_w = ceil_div(b->kernel_w, b->stride_w) - 1;
        /* Positions past the last output that a gradient's row of taps still reads. */
        const int64_t last_h = (b->height + b->pad_h - 1) / b->stride_h;
        const int64_t last_w = (b->width + b->pad_w - 1) / b->stride_w;
        w->dz_h = w->front_h + (last_h + 1 > b->out_h ? last_h + 1 : b->out_h);
        w->dz_w = w->front_w + (last_w + 1 > b->out_w ? last_w + 1 : b->out_w);
        w->weight = parameters + at, w->d_weight = gradients + at;
        at += taps * b->inputs * b->outputs;
        w->gamma = parameters + at, w->d_gamma = gradients + at, at += b->outputs;
        w->beta = parameters + at, w->d_beta = gradients + at, at += b->outputs;
        w->in = claim(s, w->lines * (b->height + 2 * b->pad_h) * (b->width + 2 * b->pad_w) *
                             b->inputs);
        w->z = claim(s, w->count * b->outputs);
        if (trains) {
            w->d_out = claim(s, w->count * b->outputs);
            w->dz = claim(s, w->lines * w->dz_h * w->dz_w * b->outputs);
        }
        w->mean = claim(s, b->outputs);
        w->scale = claim(s, b->outputs);
        if (trains && i > 0) w->turned = claim(s, taps * b->inputs * b->outputs);
        if (has_pairs(b, i)) {
            const int64_t wide = b->inputs > b->outputs ? b->inputs : b->outputs;
            const int64_t rows = pairs_group(b) * b->out_w / 2;
            w->taps = claim(s, 7 * b->inputs * b->outputs);
            if (trains) w->d_taps = claim(s, 7 * b->inputs * b->outputs);
            w->left = claim(s, rows * 7 * wide);
            w->right = claim(s, rows * 7 * wide);
        }
    }
    const Block *last = &plan->blocks[plan->num_blocks - 1];
    const int64_t positions = s->work[plan->num_blocks - 1].count;
    s->last = claim(s, positions * last->outputs);
    if (plan->gru_width) {
        Gru *g = &s->gru;
        const int64_t width = plan->gru_width, three = 3 * width;
        g->inputs = last->outputs, g->num_steps = last->out_w;
        g->w_in = parameters + at, g->d_w_in = gradients + at, at += g->inputs * three;
        g->w = parameters + at, g->d_w = gradients + at, at += width * three;
        g->b_in = parameters + at, g->d_b_in = gradients + at, at += three;
        g->b = parameters + at, g->d_b = gradients + at, at += three;
        g->gates = claim(s, positions * three);
        g->recurrent = claim(s, positions * three);
        g->x = claim(s, positions * g->inputs);
        if (trains) g->d_x = claim(s, positions * g->inputs);
        if (trains) g->more = claim(s, plan->batch * width);
        g->steps = claim(s, (positions + plan->batch) * width);
        if (trains) g->d_h = claim(s, plan->batch * width);
        if (trains) g->turned_in = claim(s, g->inputs * three);
        if (trains) g->turned = claim(s, width * three);
    }
    TAKE(head, plan->features * plan->class_lanes);
    TAKE(bias, plan->class_lanes);
    if (trains) s->turned_head = claim(s, plan->features * plan->class_lanes);
    s->features = claim(s, plan->batch * plan->features);
    if (trains) s->d_features = claim(s, plan->batch * plan->features);
    s->logits = claim(s, plan->batch * plan->class_lanes);
    s->num_parameters = at;
    return s->failed;
}

static void release(State *s) {
    while (s->num_memory > 0) free(s->memory[--s->num_memory]);
}

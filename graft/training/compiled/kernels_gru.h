/* A GRU from zero and the mean over its steps: forward and backward. */

#pragma once

#include <math.h>

#include "kernels_state.h"

/* e^x by 2^k times a polynomial of the rest; below the range 0, above it infinity. */
INLINE vec exponential(vec x) {
    const vec low = {0}, t = x * 1.44269504f;
    vec bounded = choose(t < -126.0f, low - 126.0f, t);
    bounded = choose(bounded > 127.0f, low + 127.0f, bounded);
    const vec half = choose(bounded < 0.0f, low - 0.5f, low + 0.5f);
    const ivec whole = __builtin_convertvector(bounded + half, ivec);
    const vec k = __builtin_convertvector(whole, vec);
    const vec r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const ivec bits = (whole + 127) << 23;
    const vec y = p * (vec)bits;
    return choose(t < -126.0f, low, choose(t > 127.0f, low + INFINITY, y));
}

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }
INLINE vec hyperbolic_tangent(vec x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

/* (outer, inner, width) -> (inner, outer, width). */
static void swap_axes(const float *from, int64_t outer, int64_t inner, int64_t width, float *to) {
    for (int64_t i = 0; i < inner; i++)
        for (int64_t o = 0; o < outer; o++)
            memcpy(to + (i * outer + o) * width, from + (o * inner + i) * width,
                   sizeof(float) * width);
}

/* Rows are (step, sample): the whole batch of one step lies together. */
static void run_gru(const Plan *plan, Gru *g, const float *x, float *features) {
    const int64_t batch = plan->batch, width = plan->gru_width, three = 3 * width;
    const float share = 1.0f / (float)g->num_steps;
    swap_axes(x, batch, g->num_steps, g->inputs, g->x);
    product(g->num_steps * batch, g->x, g->inputs, 1, 0, g->inputs, g->w_in, three, g->gates,
            three);
    memset(features, 0, sizeof(float) * batch * width);
    for (int64_t t = 0; t < g->num_steps; t++) {
        float *gates = g->gates + t * batch * three, *own = g->recurrent + t * batch * three;
        const float *old = g->steps + t * batch * width;
        float *now = g->steps + (t + 1) * batch * width;
        product(batch, old, width, 1, 0, width, g->w, three, own, three);
        for (int64_t n = 0; n < batch; n++)
            for (int64_t o = 0; o < width; o += LANES) {
                float *a = gates + n * three + o, *c = own + n * three + o;
#define BIAS(part) (load(g->b_in + part * width + o))
#define OWN_BIAS(part) (load(g->b + part * width + o))
                const vec r = sigmoid(load(a) + BIAS(0) + load(c) + OWN_BIAS(0));
                const vec z = sigmoid(load(a + width) + BIAS(1) + load(c + width) + OWN_BIAS(1));
                const vec m = load(c + 2 * width) + OWN_BIAS(2);
                const vec v = hyperbolic_tangent(load(a + 2 * width) + BIAS(2) + r * m);
                const vec h = v + z * (load(old + n * width + o) - v);
                store(a, r), store(a + width, z), store(a + 2 * width, v);
                store(c + 2 * width, m);
                store(now + n * width + o, h);
                float *mean = features + n * width + o;
                store(mean, load(mean) + h * share);
            }
    }
}

/* Gradients take the place of the gates that they come from: half the memory to pass through. */
static void gru_gradient(const Plan *plan, Gru *g, const float *d_features, float *d_x) {
    const int64_t batch = plan->batch, width = plan->gru_width, three = 3 * width;
    const int64_t count = g->num_steps * batch;
    const float share = 1.0f / (float)g->num_steps;
    turn(g->w, width, 0, width, three, g->turned, three, 0);
    memset(g->d_h, 0, sizeof(float) * batch * width);
    memset(g->more, 0, sizeof(float) * batch * width);
    for (int64_t t = g->num_steps - 1; t >= 0; t--) {
        float *gates = g->gates + t * batch * three, *own = g->recurrent + t * batch * three;
        const float *old = g->steps + t * batch * width;
        for (int64_t n = 0; n < batch; n++)
            for (int64_t o = 0; o < width; o += LANES) {
                float *a = gates + n * three + o, *c = own + n * three + o;
                const vec r = load(a), z = load(a + width), v = load(a + 2 * width);
                float *carried = g->d_h + n * width + o;
                const vec d = load(carried) + load(g->more + n * width + o) +
                              load(d_features + n * width + o) * share;
                const vec d_v = d * (1.0f - z) * (1.0f - v * v);
                const vec d_z = d * (load(old + n * width + o) - v) * z * (1.0f - z);
                const vec d_r = d_v * load(c + 2 * width) * r * (1.0f - r);
                store(a, d_r), store(a + width, d_z), store(a + 2 * width, d_v);
                store(c, d_r), store(c + width, d_z), store(c + 2 * width, d_v * r);
                store(carried, d * z);
            }
        product(batch, own, three, 1, 0, three, g->turned, width, g->more, width);
    }
    memset(g->d_w, 0, sizeof(float) * width * three);
    memset(g->d_w_in, 0, sizeof(float) * g->inputs * three);
    for (int64_t r = 0; r < count; r += CHUNK) {
        const int64_t rows = count - r < CHUNK ? count - r : CHUNK;
        transposed_product(1, rows, g->steps + r * width, width, 0, width,
                           g->recurrent + r * three, three, 0, g->d_w, 0, width, three);
        transposed_product(1, rows, g->x + r * g->inputs, g->inputs, 0, g->inputs,
                           g->gates + r * three, three, 0, g->d_w_in, 0, g->inputs, three);
    }
    add_rows(g->gates, count, three, g->d_b_in);
    add_rows(g->recurrent, count, three, g->d_b);
    turn(g->w_in, g->inputs, 0, g->inputs, three, g->turned_in, three, 0);
    product(count, g->gates, three, 1, 0, three, g->turned_in, g->inputs, g->d_x, g->inputs);
    swap_axes(g->d_x, g->num_steps, batch, g->inputs, d_x);
}

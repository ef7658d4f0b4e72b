/* Adam's step. */

#pragma once

#include <math.h>
#include <stdint.h>

/* Adam with weight decay in the gradient, in the order of PyTorch's fused kernel. */
static void adam(int64_t count, float *restrict p, const float *restrict g, float *restrict m,
                 float *restrict v, float decay, float rate, float root) {
    const float over = 1.0f / root;
    for (int64_t i = 0; i < count; i++) {
        const float d = g[i] + decay * p[i];
        m[i] += (1.0f - 0.9f) * (d - m[i]);
        v[i] = 0.999f * v[i] + (float)(1.0 - 0.999) * d * d;
        p[i] -= rate * m[i] / (sqrtf(v[i]) * over + 1e-8f);
    }
}

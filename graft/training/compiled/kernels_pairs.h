/* Stride 2, five taps: two outputs at once by seven products in place of ten.

   Even and odd input positions are apart: y[t] = sum_j even[t + j] w[2j] + odd[t + j] w[2j + 1],
   three taps and two. Winograd's minimal filtering makes two outputs of three taps by four
   products and of two taps by three; those that enter both outputs with one sign are joined:

     y[t]     = first + both + twist          first = (e0 - e2) w0 + (o0 - o1) w1
     y[t + 1] = both - twist - second         both  = (e1 + e2) (w0 + w2 + w4) / 2 + o1 (w1 + w3)
                                              twist = (e2 - e1) (w0 - w2 + w4) / 2
                                              second = (e1 - e3) w4 + (o1 - o2) w3

   The gradients are the same sums transposed. */

#include "kernels_state.h"

/* The taps w0..w4, each `size` floats: -> first (2), both (2), twist, second (2). */
INLINE void mix_taps(const float *const w[5], float *const u[7], int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) {
        const vec w0 = load(w[0] + i), w1 = load(w[1] + i), w2 = load(w[2] + i);
        const vec w3 = load(w[3] + i), w4 = load(w[4] + i), ends = w0 + w4;
        store(u[0] + i, w0), store(u[1] + i, w1);
        store(u[2] + i, 0.5f * (ends + w2)), store(u[3] + i, w1 + w3);
        store(u[4] + i, 0.5f * (ends - w2));
        store(u[5] + i, w4), store(u[6] + i, w3);
    }
}

/* Where each panel's seven mixed row blocks lie: four matrices one after another. */
static const int64_t pair_first[4] = {0, 2, 4, 5}, pair_count[4] = {2, 2, 1, 2};

static void mix_weight(const Block *b, const Work *w) {
    const int64_t inputs = b->inputs, outputs = b->outputs;
    for (int64_t p = 0, end; p < outputs / UNIT; p = end) {
        end = panel_end(p, outputs / UNIT);
        const int64_t size = inputs * (end - p) * UNIT;
        const float *from[5];
        float *to[7];
        for (int k = 0; k < 5; k++) from[k] = w->weight + p * UNIT * 5 * inputs + k * size;
        for (int m = 0, i = 0; m < 4; m++)
            for (int k = 0; k < pair_count[m]; k++, i++)
                to[i] = w->taps + pair_first[m] * inputs * outputs +
                        p * UNIT * pair_count[m] * inputs + k * size;
        mix_taps(from, to, size);
    }
}

/* The mixed inputs of `count` samples from `n` on, a row of 7 * inputs floats a pair. */
static void mix_inputs(const Block *b, const Work *w, int64_t n, int64_t count) {
    const int64_t c = b->inputs, sample = (b->width + 4) * c, pairs = b->out_w / 2;
    for (int64_t r = 0; r < count * pairs; r++) {
        const float *x = w->in + (n + r / pairs) * sample + (r % pairs) * 4 * c;
        float *to = w->left + r * 7 * c;
        for (int64_t i = 0; i < c; i += LANES, x += LANES, to += LANES) {
            const vec e0 = load(x), o0 = load(x + c), e1 = load(x + 2 * c), o1 = load(x + 3 * c);
            const vec e2 = load(x + 4 * c), o2 = load(x + 5 * c), e3 = load(x + 6 * c);
            store(to, e0 - e2), store(to + c, o0 - o1);
            store(to + 2 * c, e1 + e2), store(to + 3 * c, o1);
            store(to + 4 * c, e2 - e1);
            store(to + 5 * c, e1 - e3), store(to + 6 * c, o1 - o2);
        }
    }
}

static void convolve_pairs(const Block *b, const Work *w) {
    const int64_t c = b->inputs, outputs = b->outputs, pairs = b->out_w / 2;
    const int64_t group = pairs_group(b);
    mix_weight(b, w);
    for (int64_t n = 0; n < w->lines; n += group) {
        const int64_t count = w->lines - n < group ? w->lines - n : group, rows = count * pairs;
        mix_inputs(b, w, n, count);
        for (int m = 0; m < 4; m++)
            product(rows, w->left + pair_first[m] * c, 7 * c, 1, 0, pair_count[m] * c,
                    w->taps + pair_first[m] * c * outputs, outputs, w->right + m * outputs,
                    4 * outputs);
        for (int64_t r = 0; r < rows; r++) {
            const float *from = w->right + r * 4 * outputs;
            float *z = w->z + (n * pairs + r) * 2 * outputs;
            for (int64_t o = 0; o < outputs; o += LANES, from += LANES, z += LANES) {
                const vec both = load(from + outputs), twist = load(from + 2 * outputs);
                store(z, load(from) + both + twist);
                store(z + outputs, both - twist - load(from + 3 * outputs));
            }
        }
    }
}

static void weight_gradient_pairs(const Block *b, const Work *w) {
    const int64_t c = b->inputs, outputs = b->outputs, pairs = b->out_w / 2;
    const int64_t group = pairs_group(b);
    memset(w->d_taps, 0, sizeof(float) * 7 * c * outputs);
    for (int64_t n = 0; n < w->lines; n += group) {
        const int64_t count = w->lines - n < group ? w->lines - n : group, rows = count * pairs;
        mix_inputs(b, w, n, count);
        for (int64_t r = 0; r < rows; r++) {
            const float *d = w->dz + ((n + r / pairs) * w->dz_w + w->front_w + 2 * (r % pairs)) *
                                         outputs;
            float *to = w->right + r * 4 * outputs;
            for (int64_t o = 0; o < outputs; o += LANES, d += LANES, to += LANES) {
                const vec one = load(d), two = load(d + outputs);
                store(to, one), store(to + outputs, one + two);
                store(to + 2 * outputs, one - two), store(to + 3 * outputs, -two);
            }
        }
        for (int m = 0; m < 4; m++)
            transposed_product(1, rows, w->left + pair_first[m] * c, 7 * c, 0, pair_count[m] * c,
                               w->right + m * outputs, 4 * outputs, 0,
                               w->d_taps + pair_first[m] * c * outputs, 0, pair_count[m] * c,
                               outputs);
    }
    for (int64_t p = 0, end; p < outputs / UNIT; p = end) {
        end = panel_end(p, outputs / UNIT);
        const int64_t size = c * (end - p) * UNIT;
        const float *u[7];
        float *g = w->d_weight + p * UNIT * 5 * c;
        for (int m = 0, i = 0; m < 4; m++)
            for (int k = 0; k < pair_count[m]; k++, i++)
                u[i] = w->d_taps + pair_first[m] * c * outputs + p * UNIT * pair_count[m] * c +
                       k * size;
        for (int64_t i = 0; i < size; i += LANES, g += LANES) {
            const vec both = 0.5f * load(u[2] + i), twist = 0.5f * load(u[4] + i);
            const vec odd = load(u[3] + i);
            store(g, load(u[0] + i) + both + twist), store(g + size, load(u[1] + i) + odd);
            store(g + 2 * size, both - twist), store(g + 3 * size, load(u[6] + i) + odd);
            store(g + 4 * size, load(u[5] + i) + both + twist);
        }
    }
}

/* Four neighbours at once: even[u] = d[u-2] w4 + d[u-1] w2 + d[u] w0, odd[u] = d[u-1] w3 +
   d[u] w1, for u and u + 1; the mixed taps are those above in reverse order, turned. */
static void input_gradient_pairs(const Block *b, const Work *w, float *d_in) {
    const int64_t c = b->inputs, outputs = b->outputs, pairs = b->out_w / 2;
    const int64_t group = pairs_group(b), size = c * outputs;
    const float *from[5];
    float *to[7];
    for (int k = 0; k < 5; k++) {
        float *tap = w->turned + (4 - k) * size;
        turn(w->weight, 5 * c, k * c, c, outputs, tap, outputs, 0);
        from[4 - k] = tap;
    }
    for (int i = 0; i < 7; i++) to[i] = w->taps + i * size;
    mix_taps(from, to, size);
    for (int64_t n = 0; n < w->lines; n += group) {
        const int64_t count = w->lines - n < group ? w->lines - n : group, rows = count * pairs;
        for (int64_t r = 0; r < rows; r++) {
            const float *d = w->dz + ((n + r / pairs) * w->dz_w + w->front_w + 2 * (r % pairs) -
                                      1) * outputs;
            float *left = w->left + r * 7 * outputs;
            for (int64_t o = 0; o < outputs; o += LANES, d += LANES, left += LANES) {
                const vec d0 = load(d), d1 = load(d + outputs), d2 = load(d + 2 * outputs);
                const vec d3 = load(d + 3 * outputs);
                store(left, d0 - d2), store(left + outputs, d1 - d2);
                store(left + 2 * outputs, d1 + d2), store(left + 3 * outputs, d2);
                store(left + 4 * outputs, d2 - d1);
                store(left + 5 * outputs, d1 - d3), store(left + 6 * outputs, d2 - d3);
            }
        }
        for (int i = 0; i < 7; i++)
            product(rows, w->left + i * outputs, 7 * outputs, 1, 0, outputs, to[i], c,
                    w->right + i * c, 7 * c);
        for (int64_t r = 0; r < rows; r++) {
            const float *y = w->right + r * 7 * c;
            float *dx = d_in + (n * pairs + r) * 4 * c;
            for (int64_t i = 0; i < c; i += LANES, y += LANES, dx += LANES) {
                const vec both = load(y + 2 * c), odd = load(y + 3 * c), twist = load(y + 4 * c);
                store(dx, load(y) + both + twist), store(dx + c, load(y + c) + odd);
                store(dx + 2 * c, both - twist - load(y + 5 * c));
                store(dx + 3 * c, odd - load(y + 6 * c));
            }
        }
    }
}

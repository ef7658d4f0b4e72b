/* Convolution (or dense layer), batch norm and ReLU: forward and backward. */

#pragma once

#include <math.h>

#include "kernels_state.h"

static void convolve(const Block *b, const Work *w) {
    const int64_t row = (b->width + 2 * b->pad_w) * b->inputs;
    const int64_t sample = (b->height + 2 * b->pad_h) * row;
    for (int64_t n = 0; n < w->lines; n++)
        for (int64_t h = 0; h < b->out_h; h++)
            product(b->out_w, w->in + n * sample + h * b->stride_h * row,
                    b->stride_w * b->inputs, b->kernel_h, row, b->kernel_w * b->inputs,
                    w->weight, b->outputs, w->z + (n * b->out_h + h) * b->out_w * b->outputs,
                    b->outputs);
}

/* Mean and summed squared deviation of each channel, chunks merged as they come. */
static void measure(const float *z, int64_t count, int64_t outputs, float *mean, float *square) {
    memset(mean, 0, sizeof(float) * outputs), memset(square, 0, sizeof(float) * outputs);
    for (int64_t first = 0; first < count; first += CHUNK) {
        const int64_t rows = count - first < CHUNK ? count - first : CHUNK;
        const float share = (float)rows / (float)(first + rows);
        for (int64_t o = 0; o < outputs; o += LANES) {
            const float *from = z + first * outputs + o;
            vec sum = {0}, squares = {0};
            for (int64_t r = 0; r < rows; r++) sum += load(from + r * outputs);
            const vec centre = sum / (float)rows, step = centre - load(mean + o);
            for (int64_t r = 0; r < rows; r++) {
                const vec x = load(from + r * outputs) - centre;
                squares += x * x;
            }
            store(mean + o, load(mean + o) + step * share);
            store(square + o, load(square + o) + squares + step * step * ((float)first * share));
        }
    }
}

/* The batch's own mean and 1 / deviation; the running statistics move. */
static void measure_batch(const Block *b, const Work *w, float *running, float momentum) {
    const int64_t outputs = b->outputs;
    const float kept = 1.0f - momentum;
    measure(w->z, w->count, outputs, w->mean, w->scale);
    for (int64_t o = 0; o < outputs; o++) {
        const float variance = w->scale[o] / (float)(w->count - 1);
        running[o] = kept * running[o] + momentum * w->mean[o];
        running[outputs + o] = kept * running[outputs + o] + momentum * variance;
        w->scale[o] = 1.0f / sqrtf(w->scale[o] / (float)w->count + 1e-5f);
    }
}

/* The running mean and 1 / deviation, of a model that is not in training. */
static void recall_statistics(const Block *b, const Work *w, const float *running) {
    for (int64_t o = 0; o < b->outputs; o++) {
        w->mean[o] = running[o];
        w->scale[o] = 1.0f / sqrtf(running[b->outputs + o] + 1e-5f);
    }
}

/* z becomes normalised, ReLU of it goes to `out` line by line. */
static void normalise(const Block *b, const Work *w, float *out, int64_t out_row,
                      int64_t out_sample) {
    const int64_t outputs = b->outputs;
    for (int64_t line = 0; line < w->line_count; line++)
        for (int64_t o = 0; o < outputs; o += LANES) {
            const vec centre = load(w->mean + o), scale = load(w->scale + o);
            const vec gamma = load(w->gamma + o), beta = load(w->beta + o);
            float *z = w->z + line * b->out_w * outputs + o;
            float *to = out + line / b->out_h * out_sample + line % b->out_h * out_row + o;
            for (int64_t r = 0; r < b->out_w; r++, z += outputs, to += outputs) {
                const vec x = (load(z) - centre) * scale, y = gamma * x + beta;
                store(z, x);
                store(to, choose(y <= 0.0f, (vec){0}, y));
            }
        }
}

/* From the gradient of the output: those of gamma and beta, and the padded one of z. */
static void denormalise(const Block *b, const Work *w) {
    const int64_t outputs = b->outputs;
    memset(w->d_gamma, 0, sizeof(float) * outputs), memset(w->d_beta, 0, sizeof(float) * outputs);
    for (int64_t first = 0; first < w->count; first += CHUNK) {
        const int64_t rows = w->count - first < CHUNK ? w->count - first : CHUNK;
        for (int64_t o = 0; o < outputs; o += LANES) {
            const vec gamma = load(w->gamma + o), beta = load(w->beta + o);
            const float *z = w->z + first * outputs + o, *d_out = w->d_out + first * outputs + o;
            vec part = {0}, with = {0};
            for (int64_t r = 0; r < rows; r++, z += outputs, d_out += outputs) {
                const vec x = load(z);
                const vec d = choose(gamma * x + beta <= 0.0f, (vec){0}, load(d_out));
                part += d, with += d * x;
            }
            store(w->d_beta + o, load(w->d_beta + o) + part);
            store(w->d_gamma + o, load(w->d_gamma + o) + with);
        }
    }
    for (int64_t line = 0; line < w->line_count; line++)
        for (int64_t o = 0; o < outputs; o += LANES) {
            const vec gamma = load(w->gamma + o), beta = load(w->beta + o);
            const vec shift = load(w->d_beta + o) / (float)w->count;
            const vec slope = load(w->d_gamma + o) / (float)w->count;
            const vec factor = gamma * load(w->scale + o);
            const float *z = w->z + line * b->out_w * outputs + o;
            const float *d_out = w->d_out + line * b->out_w * outputs + o;
            const int64_t n = line / b->out_h, h = line % b->out_h;
            float *to = w->dz + o +
                        outputs * ((n * w->dz_h + w->front_h + h) * w->dz_w + w->front_w);
            for (int64_t r = 0; r < b->out_w; r++) {
                const vec x = load(z + r * outputs);
                const vec d = choose(gamma * x + beta <= 0.0f, (vec){0}, load(d_out + r * outputs));
                store(to + r * outputs, factor * (d - shift - x * slope));
            }
        }
}

static void weight_gradient(const Block *b, const Work *w) {
    const int64_t row = (b->width + 2 * b->pad_w) * b->inputs;
    const int64_t sample = (b->height + 2 * b->pad_h) * row;
    const int64_t length = b->kernel_w * b->inputs, total = b->kernel_h * length;
    const int64_t d_row = w->dz_w * b->outputs;
    const int64_t group = 1 + 127 / b->out_w;
    memset(w->d_weight, 0, sizeof(float) * total * b->outputs);
    for (int64_t n = 0; n < w->lines; n += group)
        for (int64_t h = 0; h < b->out_h; h++)
            for (int64_t k = 0; k < b->kernel_h; k++) {
                const int64_t lines = w->lines - n < group ? w->lines - n : group;
                transposed_product(
                    lines, b->out_w, w->in + n * sample + (h * b->stride_h + k) * row,
                    b->stride_w * b->inputs, sample, length,
                    w->dz + ((n * w->dz_h + w->front_h + h) * w->dz_w + w->front_w) * b->outputs,
                    b->outputs, w->dz_h * d_row, w->d_weight, k * length, total, b->outputs);
            }
}

/* Input positions that share a remainder modulo the stride meet the same taps: for each such
   class the gradient of the input is a product of the gradient of z with those taps, turned. */
static void input_gradient(const Block *b, const Work *w, float *d_in) {
    const int64_t total = b->kernel_h * b->kernel_w * b->inputs;
    float *taps = w->turned;
    for (int64_t i = 0; i < b->stride_h; i++)
        for (int64_t j = 0; j < b->stride_w; j++) {
            const int64_t high = i < b->kernel_h ? ceil_div(b->kernel_h - i, b->stride_h) : 0;
            const int64_t wide = j < b->kernel_w ? ceil_div(b->kernel_w - j, b->stride_w) : 0;
            for (int64_t p = 0; p < high; p++)
                for (int64_t q = 0; q < wide; q++) {
                    const int64_t tap = (i + p * b->stride_h) * b->kernel_w + j + q * b->stride_w;
                    turn(w->weight, total, tap * b->inputs, b->inputs, b->outputs, taps,
                         high * wide * b->outputs,
                         ((high - 1 - p) * wide + wide - 1 - q) * b->outputs);
                }
            const int64_t first = b->pad_w > j ? ceil_div(b->pad_w - j, b->stride_w) : 0;
            const int64_t start = first * b->stride_w + j - b->pad_w;
            const int64_t rows = start < b->width ? ceil_div(b->width - start, b->stride_w) : 0;
            for (int64_t n = 0; n < w->lines; n++)
                for (int64_t u = b->pad_h > i ? ceil_div(b->pad_h - i, b->stride_h) : 0;
                     u * b->stride_h + i - b->pad_h < b->height; u++) {
                    const int64_t h = u * b->stride_h + i - b->pad_h;
                    const int64_t at = (n * w->dz_h + w->front_h + u - (high - 1)) * w->dz_w +
                                       w->front_w + first - (wide - 1);
                    product(rows, w->dz + at * b->outputs, b->outputs, high,
                            w->dz_w * b->outputs, wide * b->outputs, taps, b->inputs,
                            d_in + ((n * b->height + h) * b->width + start) * b->inputs,
                            b->stride_w * b->inputs);
                }
            taps += high * wide * b->outputs * b->inputs;
        }
}

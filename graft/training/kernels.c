/* Trains one small network on one thread: its whole step stays in the second-level cache.

   A network is blocks of convolution (or dense layer), batch norm and ReLU, then a mean over
   positions or a GRU, then a linear head under cross-entropy. Activations are channels-last;
   convolutions are matrix products whose left rows overlap in memory. A dense layer is a
   convolution over a line whose positions are the batch. No threads, no state: equal
   arguments give equal bits. NaN and infinity pass through as they do in PyTorch. */

#include <math.h>
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

static int has_pairs(const Block *b, int64_t i);
static int64_t pairs_group(const Block *b);
static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int prepare(State *s, const Plan *plan, float *parameters, float *gradients) {
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
        w->d_out = claim(s, w->count * b->outputs);
        w->dz = claim(s, w->lines * w->dz_h * w->dz_w * b->outputs);
        w->mean = claim(s, b->outputs);
        w->scale = claim(s, b->outputs);
        if (i > 0) w->turned = claim(s, taps * b->inputs * b->outputs);
        if (has_pairs(b, i)) {
            const int64_t wide = b->inputs > b->outputs ? b->inputs : b->outputs;
            const int64_t rows = pairs_group(b) * b->out_w / 2;
            w->taps = claim(s, 7 * b->inputs * b->outputs);
            w->d_taps = claim(s, 7 * b->inputs * b->outputs);
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
        g->d_x = claim(s, positions * g->inputs);
        g->more = claim(s, plan->batch * width);
        g->steps = claim(s, (positions + plan->batch) * width);
        g->d_h = claim(s, plan->batch * width);
        g->turned_in = claim(s, g->inputs * three);
        g->turned = claim(s, width * three);
    }
    TAKE(head, plan->features * plan->class_lanes);
    TAKE(bias, plan->class_lanes);
    s->turned_head = claim(s, plan->features * plan->class_lanes);
    s->features = claim(s, plan->batch * plan->features);
    s->d_features = claim(s, plan->batch * plan->features);
    s->logits = claim(s, plan->batch * plan->class_lanes);
    s->num_parameters = at;
    return s->failed;
}

static void release(State *s) {
    while (s->num_memory > 0) free(s->memory[--s->num_memory]);
}

/* Row j of panels of (total, outputs): where unit u's run of floats begins. */
INLINE int64_t panel_at(int64_t u, int64_t units, int64_t total, int64_t j) {
    return u * UNIT * total + j * units * UNIT;
}

/* Panels of (length, outputs) -> panels of (outputs, length): both multiples of UNIT. Row o of
   the result lands at row `row + o` of panels of (total, length). */
static void turn(const float *from, int64_t from_total, int64_t from_row, int64_t length,
                 int64_t outputs, float *to, int64_t total, int64_t row) {
    for (int64_t u = 0, end; u < outputs / UNIT; u = end) {
        end = panel_end(u, outputs / UNIT);
        const int64_t wide = (end - u) * UNIT;
        const float *source = from + panel_at(u, end - u, from_total, from_row);
        for (int64_t v = 0, stop; v < length / UNIT; v = stop) {
            stop = panel_end(v, length / UNIT);
            const int64_t run = (stop - v) * UNIT;
            float *goal = to + panel_at(v, stop - v, total, row + u * UNIT);
            for (int64_t o = 0; o < wide; o++)
                for (int64_t c = 0; c < run; c++)
                    goal[o * run + c] = source[(v * UNIT + c) * wide + o];
        }
    }
}

#include "kernels_pairs.h"

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

/* Sums run over sixty-four rows at a time: those stay in the first-level cache, and short sums
   keep a float's digits. */
#define CHUNK 64

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

/* z becomes normalised, the running statistics move, ReLU of it goes to `out` line by line. */
static void normalise(const Block *b, const Work *w, float *running, float *out,
                      int64_t out_row, int64_t out_sample) {
    const int64_t outputs = b->outputs;
    measure(w->z, w->count, outputs, w->mean, w->scale);
    for (int64_t o = 0; o < outputs; o++) {
        running[o] = 0.9f * running[o] + 0.1f * w->mean[o];
        running[outputs + o] =
            0.9f * running[outputs + o] + 0.1f * (w->scale[o] / (float)(w->count - 1));
        w->scale[o] = 1.0f / sqrtf(w->scale[o] / (float)w->count + 1e-5f);
    }
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
                store(mean, load(mean) + h / (float)g->num_steps);
            }
    }
}

static void add_rows(const float *rows, int64_t count, int64_t width, float *sums) {
    for (int64_t o = 0; o < width; o += LANES) {
        vec sum = {0};
        for (int64_t first = 0; first < count; first += CHUNK) {
            const int64_t stop = first + CHUNK < count ? first + CHUNK : count;
            vec part = {0};
            for (int64_t r = first; r < stop; r++) part += load(rows + r * width + o);
            sum += part;
        }
        store(sums + o, sum);
    }
}

/* Gradients take the place of the gates that they come from: half the memory to pass through. */
static void gru_gradient(const Plan *plan, Gru *g, const float *d_features, float *d_x) {
    const int64_t batch = plan->batch, width = plan->gru_width, three = 3 * width;
    const int64_t count = g->num_steps * batch;
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
                              load(d_features + n * width + o) / (float)g->num_steps;
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

/* Mean cross-entropy of the batch; leaves d_features and the head's gradients. */
static float learn_head(State *s, const int64_t *labels) {
    const Plan *plan = s->plan;
    const int64_t batch = plan->batch, lanes = plan->class_lanes, width = plan->features;
    double loss = 0.0;
    product(batch, s->features, width, 1, 0, width, s->head, lanes, s->logits, lanes);
    for (int64_t n = 0; n < batch; n++) {
        float *row = s->logits + n * lanes, top = -INFINITY, sum = 0.0f;
        for (int64_t c = 0; c < plan->classes; c++) {
            row[c] += s->bias[c];
            top = row[c] > top ? row[c] : top;
        }
        const float right = row[labels[n]];
        for (int64_t c = 0; c < plan->classes; c++) sum += row[c] = expf(row[c] - top);
        loss += logf(sum) + top - right;
        for (int64_t c = 0; c < plan->classes; c++) row[c] /= sum * (float)batch;
        row[labels[n]] -= 1.0f / (float)batch;
        for (int64_t c = plan->classes; c < lanes; c++) row[c] = 0.0f;
    }
    memset(s->d_head, 0, sizeof(float) * width * lanes);
    transposed_product(1, batch, s->features, width, 0, width, s->logits, lanes, 0, s->d_head, 0,
                       width, lanes);
    add_rows(s->logits, batch, lanes, s->d_bias);
    turn(s->head, width, 0, width, lanes, s->turned_head, lanes, 0);
    product(batch, s->logits, lanes, 1, 0, lanes, s->turned_head, width, s->d_features, width);
    return (float)(loss / (double)batch);
}

/* One forward and backward pass over the batch that lies in the first block's input. */
static float pass(State *s, float *statistics, const int64_t *labels) {
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
        normalise(b, w, statistics, out, row, (b->out_h + 2 * pad_h) * row);
        statistics += 2 * b->outputs;
    }
    const Block *last = &plan->blocks[end];
    const Work *w = &s->work[end];
    const int64_t positions = last->out_h * last->out_w, width = last->outputs;
    if (plan->gru_width) run_gru(plan, &s->gru, s->last, s->features);
    else if (plan->dense) memcpy(s->features, s->last, sizeof(float) * plan->batch * width);
    else
        for (int64_t n = 0; n < plan->batch; n++) {
            add_rows(s->last + n * positions * width, positions, width, s->features + n * width);
            for (int64_t c = 0; c < width; c++) s->features[n * width + c] /= (float)positions;
        }
    const float loss = learn_head(s, labels);
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
    return loss;
}

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

/* Trains on rows (N, sample) by `steps` batches of row numbers (steps, batch). Parameters and
   statistics are changed in place; `gradients` holds the last step's. A rate of zero leaves the
   parameters as they are. 0, or 1 where memory ran out. */
int graft_train(const Plan *plan, int64_t num_parameters, float *parameters, float *gradients,
                float *statistics, const float *x, const int64_t *y, const int64_t *batches,
                int64_t steps, double learning_rate, double decay, float *losses) {
    State s;
    float *panels = aligned_alloc(64, (size_t)(num_parameters + 16) / 16 * 64 * 4);
    if (panels == NULL) return 1;
    const int64_t stride = (num_parameters + 15) / 16 * 16;
    float *slopes = panels + stride, *m = slopes + stride, *v = m + stride;
    memset(m, 0, sizeof(float) * 2 * stride);
    int failed = prepare(&s, plan, panels, slopes) || s.num_parameters != num_parameters;
    int64_t *labels = malloc(sizeof(int64_t) * plan->batch);
    if (!failed && labels != NULL) {
        repack(plan, panels, parameters, 0);
        const Block *b = &plan->blocks[0];
        const int64_t lines = plan->dense ? 1 : (b->height + 2 * b->pad_h);
        const int64_t sample =
            plan->dense ? b->inputs : lines * (b->width + 2 * b->pad_w) * b->inputs;
        for (int64_t step = 0; step < steps; step++) {
            const int64_t *rows = batches + step * plan->batch;
            for (int64_t n = 0; n < plan->batch; n++) {
                memcpy(s.work[0].in + n * sample, x + rows[n] * sample, sizeof(float) * sample);
                labels[n] = y[rows[n]];
            }
            losses[step] = pass(&s, statistics, labels);
            if (learning_rate == 0.0) continue;
            const double first = 1.0 - pow(0.9, (double)(step + 1));
            const double root = sqrt(1.0 - pow(0.999, (double)(step + 1)));
            adam(num_parameters, panels, slopes, m, v, (float)decay,
                 (float)(learning_rate / first), (float)root);
        }
        repack(plan, parameters, panels, 1);
        repack(plan, gradients, slopes, 1);
    } else failed = 1;
    free(labels);
    release(&s);
    free(panels);
    return failed;
}

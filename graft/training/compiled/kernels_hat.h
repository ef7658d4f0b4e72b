/* HaT-style fusion beside a network in training: mixer, copies of the source heads, dictionary.

   The equations are those of graft/methods/hat. Replica r never trains on its held-out rows. Only
   labelled rows teach the mixer; unlabelled ones are fused, enter the dictionary, and become what
   the network is to learn. */

#pragma once

#include "kernels_adam.h"
#include "kernels_gru.h"

typedef struct {
    int64_t replicas, sources, width, features, source_features, classes;
    int64_t labelled, rows, batch, batch_labelled, epoch;
    double learning_rate, head_rate, decay;
    double insert_quality, keep_quality, kept, sharpness, max_injection, accuracy;
    const float *x;      /* (sources, rows, source_features): labelled rows first */
    const int64_t *y;    /* (labelled) */
    const float *known;  /* (sources, classes): 1 or 0 */
    const float *trains; /* (replicas, labelled): 0 where a row is held out */
    float *query, *key, *tau, *head, *bias; /* in place: (R, F, W), (R, S, G, W), (R), (R, S, G, C),
                                               (R, S, C) */
    float *fused, *quality;                 /* of unlabelled rows: (., classes), (.) */
    float *notes; /* (epochs, 3): filled fraction, mean quality, held-out accuracy */
    void *work;
} Hat;

/* Everything in panels, with the widths padded, and what a step needs. */
typedef struct {
    float *p, *slope, *mean, *square;            /* the mixer's own parameters, then the heads' */
    int64_t own, all, key_at, tau_at, bias_at, wide, lanes, step, epochs;
    float *x, *q, *k, *length_q, *length_k;      /* gathered features, unit vectors, lengths */
    float *cosine, *mixture, *prob, *fused;      /* (batch, S), (batch, S), (S, batch, lanes), ... */
    float *mean_fused, *d_cosine, *d_q, *d_k, *d_z, *target, *precision;
} HatWork;

static int64_t whole_units(int64_t count) { return (count + UNIT - 1) / UNIT * UNIT; }

/* Flat parameters into panels, or back. */
static void hat_pack(const Hat *h, HatWork *w, int64_t back) {
    const int64_t pairs = h->replicas * h->sources, f = h->features, g = h->source_features;
    for (int64_t r = 0; r < h->replicas; r++)
        pad_matrix(f, h->width, w->wide, w->p + r * f * w->wide, h->query + r * f * h->width, back);
    for (int64_t i = 0; i < pairs; i++) {
        pad_matrix(g, h->width, w->wide, w->p + w->key_at + i * g * w->wide,
                   h->key + i * g * h->width, back);
        pad_matrix(g, h->classes, w->lanes, w->p + w->own + i * g * w->lanes,
                   h->head + i * g * h->classes, back);
        pad_matrix(1, h->classes, w->lanes, w->p + w->bias_at + i * w->lanes,
                   h->bias + i * h->classes, back);
    }
    pad_matrix(1, h->replicas, whole_units(h->replicas), w->p + w->tau_at, h->tau, back);
}

/* 0, or 1 where memory ran out; hat_end frees what it took. */
static int hat_begin(Hat *h) {
    HatWork *w = calloc(1, sizeof *w);
    h->work = w;
    if (w == NULL) return 1;
    const int64_t r = h->replicas, s = h->sources, b = h->batch, g = h->source_features;
    w->wide = whole_units(h->width), w->lanes = whole_units(h->classes);
    w->key_at = r * h->features * w->wide;
    w->tau_at = w->key_at + r * s * g * w->wide;
    w->own = w->tau_at + whole_units(r);
    w->bias_at = w->own + r * s * g * w->lanes;
    w->all = w->bias_at + r * s * w->lanes;
    const int64_t most = h->labelled > b ? h->labelled : b;
    float **parts[] = {&w->p, &w->slope, &w->mean, &w->square, &w->x, &w->q, &w->k, &w->length_q,
                       &w->length_k, &w->cosine, &w->mixture, &w->prob, &w->fused, &w->mean_fused,
                       &w->d_cosine, &w->d_q, &w->d_k, &w->d_z, &w->target, &w->precision};
    const int64_t sizes[] = {w->all, w->all, w->all, w->all, s * b * g, b * w->wide,
                             s * b * w->wide, b, s * b, b * s, b * s, s * b * w->lanes,
                             b * w->lanes, b * w->lanes, b * s, b * w->wide, b * w->wide,
                             b * w->lanes, most * h->features, w->lanes};
    int64_t total = 0, count = sizeof sizes / sizeof *sizes;
    for (int64_t i = 0; i < count; i++) total += whole_units(sizes[i]);
    float *memory = aligned_alloc(64, sizeof(float) * (size_t)total);
    if (memory == NULL) return 1;
    memset(memory, 0, sizeof(float) * (size_t)total);
    for (int64_t i = 0; i < count; memory += whole_units(sizes[i++])) *parts[i] = memory;
    hat_pack(h, w, 0);
    return 0;
}

static void hat_end(Hat *h) {
    HatWork *w = h->work;
    if (w != NULL && w->p != NULL) hat_pack(h, w, 1), free(w->p);
    free(w);
    h->work = NULL;
}

static void hat_gather(const Hat *h, const int64_t *rows, int64_t count) {
    HatWork *w = h->work;
    const int64_t g = h->source_features;
    for (int64_t s = 0; s < h->sources; s++)
        for (int64_t n = 0; n < count; n++)
            memcpy(w->x + (s * h->batch + n) * g, h->x + (s * h->rows + rows[n]) * g,
                   sizeof(float) * g);
}

/* Rows become unit vectors. */
static void to_unit(float *rows, int64_t count, int64_t width, float *length) {
    for (int64_t n = 0; n < count; n++) {
        float *row = rows + n * width, sum = 0.0f;
        for (int64_t i = 0; i < width; i++) sum += row[i] * row[i];
        length[n] = sqrtf(sum) > 1e-12f ? sqrtf(sum) : 1e-12f;
        for (int64_t i = 0; i < width; i++) row[i] /= length[n];
    }
}

/* softmax over the known of `count` numbers, the others 0. */
static void softmax(float *row, const float *known, int64_t count) {
    float top = -INFINITY, sum = 0.0f;
    for (int64_t c = 0; c < count; c++)
        if ((!known || known[c] != 0.0f) && row[c] > top) top = row[c];
    for (int64_t c = 0; c < count; c++)
        sum += row[c] = !known || known[c] != 0.0f ? expf(row[c] - top) : 0.0f;
    for (int64_t c = 0; c < count; c++) row[c] /= sum;
}

/* Replica r's mixture, predictions and fused prediction of the rows that are gathered. */
static void hat_mix(const Hat *h, const float *features, int64_t count, int64_t r) {
    HatWork *w = h->work;
    const int64_t f = h->features, g = h->source_features, wide = w->wide, lanes = w->lanes;
    product(count, features, f, 1, 0, f, w->p + r * f * wide, wide, w->q, wide);
    to_unit(w->q, count, wide, w->length_q);
    memset(w->fused, 0, sizeof(float) * count * lanes);
    for (int64_t s = 0; s < h->sources; s++) {
        const int64_t pair = r * h->sources + s;
        const float *x = w->x + s * h->batch * g, *bias = w->p + w->bias_at + pair * lanes;
        float *k = w->k + s * h->batch * wide, *prob = w->prob + s * h->batch * lanes;
        product(count, x, g, 1, 0, g, w->p + w->key_at + pair * g * wide, wide, k, wide);
        to_unit(k, count, wide, w->length_k + s * h->batch);
        product(count, x, g, 1, 0, g, w->p + w->own + pair * g * lanes, lanes, prob, lanes);
        for (int64_t n = 0; n < count; n++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < wide; i++) sum += w->q[n * wide + i] * k[n * wide + i];
            w->cosine[n * h->sources + s] = sum;
            w->mixture[n * h->sources + s] = w->p[w->tau_at + r] * sum;
            for (int64_t c = 0; c < h->classes; c++) prob[n * lanes + c] += bias[c];
            softmax(prob + n * lanes, h->known + s * h->classes, h->classes);
        }
    }
    for (int64_t n = 0; n < count; n++) {
        float *mixture = w->mixture + n * h->sources;
        softmax(mixture, NULL, h->sources);
        for (int64_t s = 0; s < h->sources; s++)
            for (int64_t c = 0; c < h->classes; c++)
                w->fused[n * lanes + c] +=
                    mixture[s] * w->prob[(s * h->batch + n) * lanes + c];
    }
}

/* d of -log p, as it is cut off at 1e-6. */
static float log_slope(float p) { return p >= 1e-6f ? -1.0f / p : 0.0f; }

/* Gradients of replica r: its fused prediction, and each source by itself, of labelled rows. */
static void hat_gradient(const Hat *h, const float *features, const int64_t *rows, int64_t r) {
    HatWork *w = h->work;
    const int64_t count = h->batch_labelled, sources = h->sources, f = h->features;
    const int64_t g = h->source_features, wide = w->wide, lanes = w->lanes;
    const float *trains = h->trains + r * h->labelled, tau = w->p[w->tau_at + r];
    float num = 0.0f;
    for (int64_t n = 0; n < count; n++) num += trains[rows[n]];
    const float share = 1.0f / (num > 1.0f ? num : 1.0f);
    memset(w->d_q, 0, sizeof(float) * count * wide);
    for (int64_t n = 0; n < count; n++) {
        const int64_t y = h->y[rows[n]];
        const float d_fused = trains[rows[n]] * share * log_slope(w->fused[n * lanes + y]);
        const float *mixture = w->mixture + n * sources;
        float *d = w->d_cosine + n * sources, along = 0.0f;
        for (int64_t s = 0; s < sources; s++) {
            d[s] = d_fused * w->prob[(s * h->batch + n) * lanes + y];
            along += mixture[s] * d[s];
        }
        for (int64_t s = 0; s < sources; s++) {
            d[s] = mixture[s] * (d[s] - along);
            w->slope[w->tau_at + r] += d[s] * w->cosine[n * sources + s];
            d[s] *= tau;
        }
    }
    for (int64_t s = 0; s < sources; s++) {
        const int64_t pair = r * sources + s;
        const float *x = w->x + s * h->batch * g;
        for (int64_t n = 0; n < count; n++) {
            const int64_t y = h->y[rows[n]];
            const float *q = w->q + n * wide, *k = w->k + (s * h->batch + n) * wide;
            const float *p = w->prob + (s * h->batch + n) * lanes;
            const float cosine = w->cosine[n * sources + s], d = w->d_cosine[n * sources + s];
            const float to_k = d / w->length_k[s * h->batch + n], to_q = d / w->length_q[n];
            for (int64_t i = 0; i < wide; i++) {
                w->d_k[n * wide + i] = to_k * (q[i] - cosine * k[i]);
                w->d_q[n * wide + i] += to_q * (k[i] - cosine * q[i]);
            }
            const float d_fused = log_slope(w->fused[n * lanes + y]) * w->mixture[n * sources + s];
            const float d_p = trains[rows[n]] * share * (d_fused + log_slope(p[y]) / (float)sources);
            for (int64_t c = 0; c < lanes; c++) w->d_z[n * lanes + c] = -d_p * p[y] * p[c];
            w->d_z[n * lanes + y] += d_p * p[y];
        }
        transposed_product(1, count, x, g, 0, g, w->d_k, wide, 0,
                           w->slope + w->key_at + pair * g * wide, 0, g, wide);
        transposed_product(1, count, x, g, 0, g, w->d_z, lanes, 0,
                           w->slope + w->own + pair * g * lanes, 0, g, lanes);
        add_rows(w->d_z, count, lanes, w->slope + w->bias_at + pair * lanes);
    }
    transposed_product(1, count, features, f, 0, f, w->d_q, wide, 0, w->slope + r * f * wide, 0, f,
                       wide);
}

static int64_t largest(const float *row, int64_t count) {
    int64_t top = 0;
    for (int64_t c = 1; c < count; c++)
        if (row[c] > row[top]) top = c;
    return top;
}

/* What of the unlabelled rows has a place in the dictionary, 0 to 1, and its mean quality. */
static double hat_filled(const Hat *h, double *quality) {
    const int64_t rows = h->rows - h->labelled;
    int64_t filled = 0;
    *quality = 0.0;
    for (int64_t u = 0; u < rows; u++)
        if (h->quality[u] > 0.0f) filled++, *quality += h->quality[u];
    *quality /= filled > 0 ? (double)filled : 1.0;
    return rows > 0 ? (double)filled / (double)rows : NAN;
}

/* The dictionary learns the fused predictions of a batch's unlabelled rows, and those become what
   the network is to learn of them. A row may be in a batch twice, and is the same both times. */
static void hat_inject(const Hat *h, const int64_t *rows, float *wanted, float *weights) {
    HatWork *w = h->work;
    const int64_t classes = h->classes;
    float total = 0.0f;
    double unused;
    for (int64_t n = h->batch_labelled; n < h->batch; n++) {
        float *mean = w->mean_fused + n * w->lanes;
        const float *old = h->fused + (rows[n] - h->labelled) * classes;
        const float old_quality = h->quality[rows[n] - h->labelled];
        const int64_t top = largest(mean, classes);
        weights[n] = mean[top] * w->precision[top];
        const float least = old_quality > 0.0f ? (float)h->keep_quality * old_quality
                                               : (float)h->insert_quality;
        if (!(weights[n] >= least)) {
            memcpy(mean, old, sizeof(float) * classes), weights[n] = old_quality;
            continue;
        }
        const float kept = old_quality > 0.0f ? (float)h->kept : 0.0f;
        for (int64_t c = 0; c < classes; c++) mean[c] = kept * old[c] + (1.0f - kept) * mean[c];
    }
    for (int64_t n = h->batch_labelled; n < h->batch; n++) {
        float *row = wanted + rows[n] * classes, sum = 0.0f;
        memcpy(h->fused + (rows[n] - h->labelled) * classes, w->mean_fused + n * w->lanes,
               sizeof(float) * classes);
        h->quality[rows[n] - h->labelled] = weights[n];
        for (int64_t c = 0; c < classes; c++)
            sum += row[c] = powf(w->mean_fused[n * w->lanes + c], (float)h->sharpness);
        for (int64_t c = 0; c < classes; c++) row[c] /= sum > 1e-12f ? sum : 1e-12f;
        total += weights[n];
    }
    const double filled = h->batch > h->batch_labelled ? hat_filled(h, &unused) : 0.0;
    const float alpha = (float)(h->max_injection * h->accuracy * filled);
    for (int64_t n = h->batch_labelled; n < h->batch; n++)
        weights[n] *= alpha / (total > 1e-6f ? total : 1e-6f);
}

/* One step of mixer and heads beside the network's; fills in `wanted` and `weights`. */
static void hat_step(Hat *h, const float *features, const int64_t *rows, float *wanted,
                     float *weights) {
    HatWork *w = h->work;
    const int64_t lanes = w->lanes, from = h->batch_labelled * lanes, size = h->batch * lanes;
    hat_gather(h, rows, h->batch);
    memset(w->slope, 0, sizeof(float) * w->all);
    memset(w->mean_fused, 0, sizeof(float) * size);
    for (int64_t r = 0; r < h->replicas; r++) {
        hat_mix(h, features, h->batch, r);
        for (int64_t i = from; i < size; i++) w->mean_fused[i] += w->fused[i] / (float)h->replicas;
        hat_gradient(h, features, rows, r);
    }
    hat_inject(h, rows, wanted, weights);
    w->step++;
    const double first = 1.0 - pow(0.9, (double)w->step);
    const float root = (float)sqrt(1.0 - pow(0.999, (double)w->step)), decay = (float)h->decay;
    adam(w->own, w->p, w->slope, w->mean, w->square, decay, (float)(h->learning_rate / first), root);
    adam(w->all - w->own, w->p + w->own, w->slope + w->own, w->mean + w->own, w->square + w->own,
         decay, (float)(h->head_rate / first), root);
}

/* Where the target's features (labelled, features) are put for hat_check. */
static float *hat_features(const Hat *h) { return ((HatWork *)h->work)->target; }

/* Before an epoch: the fused predictor on held-out rows, from the target's features of L; notes the epoch. */
static void hat_check(Hat *h) {
    HatWork *w = h->work;
    int64_t times[h->classes], right[h->classes], rows[h->batch], held = 0, correct = 0;
    memset(times, 0, sizeof times), memset(right, 0, sizeof right);
    for (int64_t first = 0; first < h->labelled; first += h->batch) {
        const int64_t left = h->labelled - first, count = left < h->batch ? left : h->batch;
        for (int64_t n = 0; n < count; n++) rows[n] = first + n;
        hat_gather(h, rows, count);
        for (int64_t r = 0; r < h->replicas; r++) {
            hat_mix(h, w->target + first * h->features, count, r);
            for (int64_t n = 0; n < count; n++) {
                if (h->trains[r * h->labelled + first + n] != 0.0f) continue;
                const int64_t top = largest(w->fused + n * w->lanes, h->classes);
                held++, times[top]++;
                if (top == h->y[first + n]) correct++, right[top]++;
            }
        }
    }
    for (int64_t c = 0; c < h->classes; c++)
        w->precision[c] = (float)(right[c] + 1) / (float)(times[c] + 2);
    h->accuracy = (double)(correct + 1) / (double)(held + 2);
    double quality;
    float *note = h->notes + 3 * w->epochs++;
    note[0] = (float)hat_filled(h, &quality), note[1] = (float)quality;
    note[2] = (float)h->accuracy;
}

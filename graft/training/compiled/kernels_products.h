/* Matrix products over panels: the only inner loops that do real work.

   A panel is a (J, width) block of a matrix, rows one after another, where width is one to
   three units of UNIT floats. A matrix (J, O) is stored panel after panel, so that the
   innermost loop reads one stream and keeps ROWS x width sums in registers. */

#pragma once

#include <stdint.h>
#include <string.h>

#define UNIT 16
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8
#elif defined(__AVX__)
#define LANES 8
#define ROWS 2
#elif defined(__aarch64__)
#define LANES 4
#define ROWS 2
#else
#define LANES 4
#define ROWS 1
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec v) { *(vec *)p = v; }
INLINE vec splat(float x) { return x - (vec){0}; }

/* Lane by lane: `yes` where the comparison held, else `no`. */
INLINE vec choose(ivec held, vec yes, vec no) {
    return (vec)((held & (ivec)yes) | (~held & (ivec)no));
}

/* Panels share the units as evenly as they can: 8 units are panels of 3, 3 and 2. */
static int64_t panel_end(int64_t first, int64_t units) {
    int64_t left = units - first, panels = (left + 2) / 3;
    return first + (left + panels - 1) / panels;
}

/* c[i] (=|+=) sum over spans s and k of a[i * lda + s * gap + k] * b[s, k], b a panel. */
INLINE void multiply(int rows, int units, const float *a, int64_t lda, int64_t spans,
                     int64_t gap, int64_t length, const float *b, float *c, int64_t ldc) {
    const int wide = units * UNIT / LANES;
    vec sum[ROWS][3 * UNIT / LANES];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < wide; v++) sum[i][v] = (vec){0};
    for (int64_t s = 0; s < spans; s++) {
        const float *from = a + s * gap;
        for (int64_t k = 0; k < length; k++, b += wide * LANES) {
            vec right[3 * UNIT / LANES];
            for (int v = 0; v < wide; v++) right[v] = load(b + v * LANES);
            for (int i = 0; i < rows; i++) {
                vec left = splat(from[i * lda + k]);
                for (int v = 0; v < wide; v++) sum[i][v] += left * right[v];
            }
        }
    }
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < wide; v++) store(c + i * ldc + v * LANES, sum[i][v]);
}

/* g[i] += sum over lines l and rows r of a[l * line_a + r * lda + i] * d[l * line_d + r * ldd]. */
INLINE void correlate(int columns, int units, const float *a, int64_t lda, int64_t line_a,
                      const float *d, int64_t ldd, int64_t line_d, int64_t lines,
                      int64_t rows, float *g) {
    const int wide = units * UNIT / LANES;
    vec sum[ROWS][3 * UNIT / LANES];
    for (int i = 0; i < columns; i++)
        for (int v = 0; v < wide; v++) sum[i][v] = load(g + (i * wide + v) * LANES);
    for (int64_t l = 0; l < lines; l++) {
        const float *left = a + l * line_a, *from = d + l * line_d;
        for (int64_t r = 0; r < rows; r++, left += lda, from += ldd) {
            vec right[3 * UNIT / LANES];
            for (int v = 0; v < wide; v++) right[v] = load(from + v * LANES);
            for (int i = 0; i < columns; i++) {
                vec x = splat(left[i]);
                for (int v = 0; v < wide; v++) sum[i][v] += x * right[v];
            }
        }
    }
    for (int i = 0; i < columns; i++)
        for (int v = 0; v < wide; v++) store(g + (i * wide + v) * LANES, sum[i][v]);
}

#define FOR_UNITS(CALL, n)              \
    switch (units) {                    \
        case 3: CALL(n, 3); break;      \
        case 2: CALL(n, 2); break;      \
        default: CALL(n, 1); break;     \
    }
#define FOR_COUNT(CALL, count)          \
    switch (count) {                    \
        case 1: FOR_UNITS(CALL, 1) break; \
        case 2: FOR_UNITS(CALL, 2) break; \
        case 3: FOR_UNITS(CALL, 3) break; \
        case 4: FOR_UNITS(CALL, 4) break; \
        case 5: FOR_UNITS(CALL, 5) break; \
        case 6: FOR_UNITS(CALL, 6) break; \
        case 7: FOR_UNITS(CALL, 7) break; \
        default: FOR_UNITS(CALL, 8) break; \
    }

/* (rows, spans * length) times the panels of (spans * length, outputs), into c (rows, ldc). */
static void product(int64_t rows, const float *a, int64_t lda, int64_t spans, int64_t gap,
                    int64_t length, const float *panels, int64_t outputs, float *c,
                    int64_t ldc) {
    for (int64_t u = 0, end; u < outputs / UNIT; u = end) {
        end = panel_end(u, outputs / UNIT);
        const int64_t units = end - u;
        const float *b = panels + u * UNIT * spans * length;
        for (int64_t r = 0; r < rows; r += ROWS) {
            const int64_t count = rows - r < ROWS ? rows - r : ROWS;
            const float *from = a + r * lda;
            float *to = c + r * ldc + u * UNIT;
#define MULTIPLY(n, w) multiply(n, w, from, lda, spans, gap, length, b, to, ldc)
            FOR_COUNT(MULTIPLY, count)
        }
    }
}

/* Adds a^T d, summed over all lines' rows, to rows first.. of the panels of (total, outputs). */
static void transposed_product(int64_t lines, int64_t rows, const float *a, int64_t lda,
                           int64_t line_a, int64_t length, const float *d, int64_t ldd,
                           int64_t line_d, float *panels, int64_t first, int64_t total,
                           int64_t outputs) {
    for (int64_t u = 0, end; u < outputs / UNIT; u = end) {
        end = panel_end(u, outputs / UNIT);
        const int64_t units = end - u;
        float *g = panels + u * UNIT * total + first * units * UNIT;
        const float *from = d + u * UNIT;
        for (int64_t j = 0; j < length; j += ROWS, g += ROWS * units * UNIT) {
            const int64_t count = length - j < ROWS ? length - j : ROWS;
            const float *left = a + j;
#define CORRELATE(n, w) correlate(n, w, left, lda, line_a, from, ldd, line_d, lines, rows, g)
            FOR_COUNT(CORRELATE, count)
        }
    }
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

/* A row-major matrix (rows, columns) -> panels of (rows, lanes), or back; what is past the columns
   stays as it is. */
static void pad_matrix(int64_t rows, int64_t columns, int64_t lanes, float *panels, float *flat,
                       int64_t back) {
    for (int64_t u = 0, stop; u < lanes / UNIT; u = stop) {
        stop = panel_end(u, lanes / UNIT);
        const int64_t run = (stop - u) * UNIT, first = u * UNIT;
        const int64_t count = columns - first < run ? columns - first : run;
        for (int64_t j = 0; j < rows && count > 0; j++) {
            float *padded = panels + first * rows + j * run, *own = flat + j * columns + first;
            if (back) memcpy(own, padded, sizeof(float) * count);
            else memcpy(padded, own, sizeof(float) * count);
        }
    }
}

/* Sums run over sixty-four rows at a time: those stay in the first-level cache, and short sums
   keep a float's digits. */
#define CHUNK 64

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

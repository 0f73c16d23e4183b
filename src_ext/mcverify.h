/* The C interface of the random primitives. Knows no Python, keeps no state.
 *
 * Every function exists once per instruction set, in a table; all take whole runs of replicates, write
 * C-contiguous arrays, and return 0, or -1 when memory ran out. Arguments are assumed to be checked.
 */
#ifndef MCVERIFY_H
#define MCVERIFY_H

#include <stddef.h>
#include <stdint.h>

/* The address of one layer's draws in one role: see docs/streams.md. */
typedef struct {
    uint64_t key;
    uint64_t start; /* first replicate */
    uint64_t count;
    uint32_t layer;
    uint32_t role;
} mcv_site;

/* What to draw. The laws carry the codes of mcverify/weights.py. */
enum {
    MCV_GAUSSIAN = 0,
    MCV_UNIFORM = 1,
    MCV_TRUNCATED_NORMAL = 2,
    MCV_RADEMACHER = 3,
    MCV_ORTHOGONAL = 4, /* random maps only */
    MCV_UNIT = 5,       /* uniforms in (0, 1) */
    MCV_WORDS = 6       /* the bits themselves */
};

/* out: (count, rows, cols); its first tile is number first_tile of the matrix it is part of */
typedef int (*mcv_draw_f32)(const mcv_site *, int what, uint64_t first_tile, size_t rows, size_t cols,
                            float *out);
typedef int (*mcv_draw_f64)(const mcv_site *, int what, uint64_t first_tile, size_t rows, size_t cols,
                            double *out);

/* What a convolution's kernel sees: columns are positions of a grid, one grid after another, and tap t at position p
 * looks at position seen[p * taps + t], or at nothing where that is negative. */
typedef struct {
    size_t positions, taps;
    const int32_t *seen;
} mcv_window;

/* y = W x, or y = W' x: x (x_count = 1 or count, columns, n_in or n_out), y (count, columns, the other).
 * With a window (NULL: none; laws of independent entries only) W acts on patches, n_in / taps entries of every
 * position that is seen, and W' x is folded back, each entry added where it was seen: the side of n_in is held as
 * (columns, n_in / taps). */
typedef int (*mcv_map_f32)(const mcv_site *, int law, size_t n_out, size_t n_in, size_t columns,
                           const mcv_window *, const float *x, size_t x_count, float *y);
typedef int (*mcv_map_f64)(const mcv_site *, int law, size_t n_out, size_t n_in, size_t columns,
                           const mcv_window *, const double *x, size_t x_count, double *y);

typedef struct {
    const char *name;
    int (*available)(void);
    mcv_draw_f32 draw_f32;
    mcv_draw_f64 draw_f64;
    mcv_map_f32 matmul_f32;
    mcv_map_f64 matmul_f64;
    mcv_map_f32 transpose_f32;
    mcv_map_f64 transpose_f64;
} mcv_path;

/* The i-th path this machine can run, fastest first, or NULL past the last. */
const mcv_path *mcv_path_at(int i);

#endif

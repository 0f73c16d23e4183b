/* Everything, for one instruction set: included by path_portable.c, path_avx2.c and path_avx512.c, which
 * name it (MCV_NAME, MCV_TABLE) and set what the compiler may use. */
#include <math.h>
#include <stdlib.h>

#include "fill.h"

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define FN(name) JOIN(name, TYPE)
#define CACHE_LINE (64 / sizeof(REAL))

#define ROW_BLOCK 4    /* rows of W multiplied together in W x ... */
#define COLUMN_BLOCK 4 /* ... with as many columns: simd.h sums four by four */
#define CHUNK_TILES 16 /* tiles of those rows generated at a time: a 16 kB buffer */
#define PITCH (CHUNK_TILES * TILE + CACHE_LINE) /* rows not a power of two apart, for the cache's sake */

#define TRANSPOSE_ROWS 64 /* rows of W generated at a time in W' d, one tile wide: a 16 kB buffer */
#define TRANSPOSE_COLUMNS (FLOATS == 16 ? 4 : 2) /* as many sums as there are registers for */
#define TRANSPOSE_VECTORS 4

static void *allocate(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

#define REAL float
#define TYPE f32
#define VEC f32v
#define VLANES FLOATS
#define TILE TILE_F32
#define LOAD load_f32
#define STORE store_f32
#define ALL all_f32
#define FMA fma_f32
#define SUM sum_f32
#define SUMS sums_f32
#include "maps.h"
#undef REAL
#undef TYPE
#undef VEC
#undef VLANES
#undef TILE
#undef LOAD
#undef STORE
#undef ALL
#undef FMA
#undef SUM
#undef SUMS

#define REAL double
#define TYPE f64
#define VEC f64v
#define VLANES DOUBLES
#define TILE TILE_F64
#define LOAD load_f64
#define STORE store_f64
#define ALL all_f64
#define FMA fma_f64
#define SUM sum_f64
#define SUMS sums_f64
#include "maps.h"

static int available(void);

const mcv_path MCV_TABLE = {
    MCV_NAME, available, draw_f32, draw_f64, matmul_f32, matmul_f64, transpose_f32, transpose_f64,
};

/* Rows of draws: blocks of the generator laid out as docs/streams.md says.
 *
 * In a tile of 16 blocks, word j of block i belongs to draw 16 j + i (float32), or words 2j and 2j + 1 to
 * draw 16 j + i (float64). Vector lanes are blocks, so nothing is transposed; a vector of FLOATS lanes
 * takes the tile in 16 / FLOATS parts.
 */
#ifndef MCV_FILL_H
#define MCV_FILL_H

#include "laws.h"
#include "philox.h"

#define TILE_F32 64
#define TILE_F64 32

/* A rectangle of whole tiles in a matrix whose rows have `per_row` tiles. */
typedef struct {
    uint64_t per_row;
    uint64_t row, rows;
    uint64_t tile, tiles;
} tile_range;

typedef void fill_f32(philox_stream *, tile_range, float *out, size_t stride);
typedef void fill_f64(philox_stream *, tile_range, double *out, size_t stride);

/* For float32 the two vectors of 64-bit lanes are the even and the odd blocks; for float64 they are the
 * first and the second half. */
static const uint64_t even_odd[2][LANES / 2] = {{0, 2, 4, 6, 8, 10, 12, 14}, {1, 3, 5, 7, 9, 11, 13, 15}};
static const uint64_t in_order[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

INLINE void lanes_f32(int part, u64v lane[2])
{
    lane[0] = load_u64(even_odd[0] + part * DOUBLES);
    lane[1] = load_u64(even_odd[1] + part * DOUBLES);
}

INLINE void lanes_f64(int part, u64v lane[2])
{
    lane[0] = load_u64(in_order + part * FLOATS);
    lane[1] = load_u64(in_order + part * FLOATS + DOUBLES);
}

/* ---- one part of a tile ------------------------------------------------------------------------------ */

INLINE void gaussian_part_f32(const u64v words[4][2], float *out)
{
    for (int j = 0; j < 4; j += 2) {
        f32v x, y;
        const f32v u = unit_f32(interleave(words[j][0], words[j][1]));
        polar_f32(sqrt_f32(minus_two_log_f32(u)), interleave(words[j + 1][0], words[j + 1][1]), &x, &y);
        store_f32(out + j * LANES, x);
        store_f32(out + (j + 1) * LANES, y);
    }
}

INLINE void gaussian_part_f64(const u64v words[4][2], double *out)
{
    for (int h = 0; h < 2; h++) {
        f64v x, y;
        const f64v u = unit_f64(join(words[0][h], words[1][h]));
        polar_f64(sqrt_f64(minus_two_log_f64(u)), join(words[2][h], words[3][h]), &x, &y);
        store_f64(out + h * DOUBLES, x);
        store_f64(out + h * DOUBLES + LANES, y);
    }
}

#define EACH_WORD(LAW)                                                                        \
    INLINE void LAW##_part_f32(const u64v words[4][2], float *out)                            \
    {                                                                                         \
        for (int j = 0; j < 4; j++)                                                           \
            store_f32(out + j * LANES, LAW##_f32(interleave(words[j][0], words[j][1])));      \
    }                                                                                         \
    INLINE void LAW##_part_f64(const u64v words[4][2], double *out)                           \
    {                                                                                         \
        for (int j = 0; j < 2; j++)                                                           \
            for (int h = 0; h < 2; h++)                                                       \
                store_f64(out + j * LANES + h * DOUBLES,                                      \
                          LAW##_f64(join(words[2 * j][h], words[2 * j + 1][h])));             \
    }

INLINE f32v words_f32(u32v w) { return (f32v)w; }
INLINE f64v words_f64(u64v w) { return (f64v)w; }

EACH_WORD(uniform)
EACH_WORD(truncated_normal)
EACH_WORD(rademacher)
EACH_WORD(unit)
EACH_WORD(words)

/* ---- rectangles of tiles ------------------------------------------------------------------------------ */

#define FILL(LAW, REAL, TYPE, TILE)                                                           \
    static void LAW##_fill_##TYPE(philox_stream *s, tile_range a, REAL *out, size_t stride)   \
    {                                                                                         \
        for (uint64_t row = 0; row < a.rows; row++, out += stride)                            \
            for (uint64_t tile = 0; tile < a.tiles; tile++) {                                 \
                const uint64_t block = ((a.row + row) * a.per_row + a.tile + tile) * LANES;   \
                if (__builtin_expect(block >> 32 != s->block_high, 0))                        \
                    philox_front(s, block >> 32);                                             \
                for (int part = 0; part < LANES / FLOATS; part++) {                           \
                    u64v lane[2], words[4][2];                                                \
                    lanes_##TYPE(part, lane);                                                 \
                    philox_blocks(s, block, lane, words);                                     \
                    LAW##_part_##TYPE(words, out + tile * TILE + part * FLOATS);              \
                }                                                                             \
            }                                                                                 \
    }

#define FILLS(LAW)                    \
    FILL(LAW, float, f32, TILE_F32)   \
    FILL(LAW, double, f64, TILE_F64)

FILLS(gaussian)
FILLS(uniform)
FILLS(truncated_normal)
FILLS(rademacher)
FILLS(unit)
FILLS(words)

#define CHOOSE_FILL(TYPE)                                              \
    static fill_##TYPE *choose_fill_##TYPE(int what)                   \
    {                                                                  \
        switch (what) {                                                \
        case MCV_UNIFORM: return uniform_fill_##TYPE;                  \
        case MCV_TRUNCATED_NORMAL: return truncated_normal_fill_##TYPE;\
        case MCV_RADEMACHER: return rademacher_fill_##TYPE;            \
        case MCV_UNIT: return unit_fill_##TYPE;                        \
        case MCV_WORDS: return words_fill_##TYPE;                      \
        default: return gaussian_fill_##TYPE;                          \
        }                                                              \
    }

CHOOSE_FILL(f32)
CHOOSE_FILL(f64)

#endif

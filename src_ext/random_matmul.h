/* Random maps with independent entries: y = W x and z = W' d, W drawn by address and never stored.
 *
 * A template: included once with REAL = float and once with double (see path.h). A block of rows of W is
 * generated into a buffer that stays in the first-level cache, then multiplied with all columns. Every
 * result is accumulated in an order that depends on n_in, n_out and the window alone: adding columns or replicates
 * changes no bit of the others. Patches exist only as the packed columns, and are folded tile by tile.
 */

/* The patches of all columns of x, each padded with zeros to `pitch`. */
static void FN(pack_patches)(const mcv_window *window, const REAL *x, size_t columns, size_t n_in, REAL *packed,
                             size_t pitch)
{
    const size_t taps = window->taps, units = n_in / taps;
    for (size_t c = 0, position = 0; c < columns; c++, position = position + 1 < window->positions ? position + 1 : 0) {
        const REAL *grid = x + (c - position) * units;
        const int32_t *seen = window->seen + position * taps;
        REAL *to = packed + c * pitch;
        for (size_t tap = 0; tap < taps; tap++, to += units) {
            if (seen[tap] >= 0) memcpy(to, grid + (size_t)seen[tap] * units, units * sizeof(REAL));
            else memset(to, 0, units * sizeof(REAL));
        }
        memset(to, 0, (pitch - n_in) * sizeof(REAL));
    }
}

/* Adds entries [first, first + width) of every column's patch where they were seen. They are runs, each in one tap:
 * the first begins inside of it, the others at their beginning. */
static void FN(fold_tile)(const mcv_window *window, const REAL *tile, size_t columns, size_t n_in, size_t first,
                          size_t width, REAL *z)
{
    const size_t taps = window->taps, units = n_in / taps, first_tap = first / units, inside = first % units;
    for (size_t c = 0, position = 0; c < columns; c++, position = position + 1 < window->positions ? position + 1 : 0) {
        const REAL *from = tile + c * TILE;
        REAL *grid = z + (c - position) * units;
        const int32_t *seen = window->seen + position * taps + first_tap;
        for (size_t done = 0, u = inside; done < width; seen++, u = 0) {
            const size_t run = MIN(units - u, width - done);
            if (*seen >= 0) {
                REAL *to = grid + (size_t)*seen * units + u;
                for (size_t i = 0; i < run; i++) to[i] += from[done + i];
            }
            done += run;
        }
    }
}

static int FN(matmul)(const mcv_site *site, int law, size_t n_out, size_t n_in, size_t columns,
                      const mcv_window *window, const REAL *x, size_t x_count, REAL *y)
{
    if (n_in == 0 || n_out == 0 || columns == 0 || site->count == 0) {
        memset(y, 0, site->count * columns * n_out * sizeof(REAL));
        return 0;
    }
    if (law == MCV_ORTHOGONAL) return FN(orthogonal)(site, n_out, n_in, columns, x, x_count, y, 0);
    FN(fill) *fill = FN(choose_fill)(law);
    const size_t per_row = (n_in + TILE - 1) / TILE;
    const size_t x_pitch = per_row * TILE + CACHE_LINE;
    REAL *w = allocate((ROW_BLOCK * PITCH + columns * x_pitch) * sizeof(REAL));
    if (w == NULL) return -1;
    REAL *packed = w + ROW_BLOCK * PITCH;
    for (size_t r = 0; r < site->count; r++, y += columns * n_out) {
        philox_stream stream = philox_open(site, r);
        if (r == 0 || x_count > 1) {
            if (window == NULL) FN(pack)(x + r * columns * n_in, columns, n_in, packed, x_pitch);
            else FN(pack_patches)(window, x + r * columns * (n_in / window->taps), columns, n_in, packed, x_pitch);
        }
        for (size_t i0 = 0; i0 < n_out; i0 += ROW_BLOCK) {
            const int rows = (int)MIN((size_t)ROW_BLOCK, n_out - i0);
            for (size_t t0 = 0; t0 < per_row; t0 += CHUNK_TILES) {
                const size_t tiles = MIN((size_t)CHUNK_TILES, per_row - t0);
                fill(&stream, (tile_range){per_row, i0, (uint64_t)rows, t0, tiles}, w, PITCH);
                for (size_t c0 = 0; c0 < columns; c0 += COLUMN_BLOCK) {
                    REAL sums[ROW_BLOCK * COLUMN_BLOCK];
                    const int width = (int)MIN((size_t)COLUMN_BLOCK, columns - c0);
                    const REAL *xc = packed + c0 * x_pitch + t0 * TILE;
                    FN(dots)(w, PITCH, rows, xc, x_pitch, width, tiles * TILE, sums);
                    for (int c = 0; c < width; c++) {
                        REAL *to = y + (c0 + (size_t)c) * n_out + i0;
                        const REAL *sum = sums + c * ROW_BLOCK;
                        if (t0 > 0) for (int i = 0; i < rows; i++) to[i] += sum[i];
                        else if (rows == ROW_BLOCK) memcpy(to, sum, ROW_BLOCK * sizeof(REAL));
                        else for (int i = 0; i < rows; i++) to[i] = sum[i];
                    }
                }
            }
        }
    }
    free(w);
    return 0;
}

/* out_c = sum_i d_c[i] w_i over TRANSPOSE_VECTORS vectors of each row, or added to it */
INLINE void FN(outer_block)(const REAL *w, size_t rows, const REAL *d, size_t d_pitch, REAL *out,
                            const int columns, int add)
{
    VEC acc[TRANSPOSE_COLUMNS][TRANSPOSE_VECTORS];
#pragma GCC unroll 4
    for (int c = 0; c < columns; c++)
#pragma GCC unroll 4
        for (int v = 0; v < TRANSPOSE_VECTORS; v++) acc[c][v] = add ? LOAD(out + c * TILE + v * VLANES) : (VEC){0};
    for (size_t i = 0; i < rows; i++) {
        VEC wv[TRANSPOSE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < TRANSPOSE_VECTORS; v++) wv[v] = LOAD(w + i * TILE + (size_t)(v * VLANES));
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) {
            const VEC dv = ALL(d[(size_t)c * d_pitch + i]);
#pragma GCC unroll 4
            for (int v = 0; v < TRANSPOSE_VECTORS; v++) acc[c][v] = FMA(wv[v], dv, acc[c][v]);
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < columns; c++)
#pragma GCC unroll 4
        for (int v = 0; v < TRANSPOSE_VECTORS; v++) STORE(out + c * TILE + v * VLANES, acc[c][v]);
}

static int FN(transpose)(const mcv_site *site, int law, size_t n_out, size_t n_in, size_t columns,
                         const mcv_window *window, const REAL *d, size_t d_count, REAL *z)
{
    const size_t held = window == NULL ? n_in : n_in / window->taps;
    if (n_in == 0 || n_out == 0 || columns == 0 || site->count == 0) {
        memset(z, 0, site->count * columns * held * sizeof(REAL));
        return 0;
    }
    if (law == MCV_ORTHOGONAL) return FN(orthogonal)(site, n_out, n_in, columns, d, d_count, z, 1);
    FN(fill) *fill = FN(choose_fill)(law);
    const size_t per_row = (n_in + TILE - 1) / TILE;
    REAL *w = allocate((TRANSPOSE_ROWS + columns) * TILE * sizeof(REAL));
    if (w == NULL) return -1;
    REAL *out = w + TRANSPOSE_ROWS * TILE;
    for (size_t r = 0; r < site->count; r++, z += columns * held) {
        philox_stream stream = philox_open(site, r);
        const REAL *dr = d + (d_count > 1 ? r : 0) * columns * n_out;
        if (window != NULL) memset(z, 0, columns * held * sizeof(REAL));
        for (size_t t = 0; t < per_row; t++) {
            for (size_t i0 = 0; i0 < n_out; i0 += TRANSPOSE_ROWS) {
                const size_t rows = MIN((size_t)TRANSPOSE_ROWS, n_out - i0);
                fill(&stream, (tile_range){per_row, i0, rows, t, 1}, w, TILE);
                for (size_t part = 0; part < TILE; part += TRANSPOSE_VECTORS * VLANES) {
                    const REAL *wp = w + part, *di = dr + i0;
                    REAL *to = out + part;
                    size_t c = 0;
                    for (; c + TRANSPOSE_COLUMNS <= columns; c += TRANSPOSE_COLUMNS)
                        FN(outer_block)(wp, rows, di + c * n_out, n_out, to + c * TILE, TRANSPOSE_COLUMNS,
                                        i0 > 0);
                    for (; c < columns; c++)
                        FN(outer_block)(wp, rows, di + c * n_out, n_out, to + c * TILE, 1, i0 > 0);
                }
            }
            const size_t width = MIN((size_t)TILE, n_in - t * TILE);
            if (window != NULL) FN(fold_tile)(window, out, columns, n_in, t * TILE, width, z);
            else for (size_t c = 0; c < columns; c++)
                memcpy(z + c * n_in + t * TILE, out + c * TILE, width * sizeof(REAL));
        }
    }
    free(w);
    return 0;
}

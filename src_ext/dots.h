/* Inner products of a few rows with a few columns: the inner loop of the random maps.
 *
 * A template, like random_matmul.h. Each product is one chain of vector sums whatever the blocks, so that
 * it is the same to the bit next to any other columns.
 */

/* out[c * ROW_BLOCK + i] = w_i . x_c over n entries, a whole number of vectors */
INLINE void FN(dot_block)(const REAL *w, size_t w_pitch, const REAL *x, size_t x_pitch, size_t n, REAL *out,
                          const int rows, const int columns)
{
    _Static_assert(ROW_BLOCK == 4 && COLUMN_BLOCK == 4, "SUMS adds up four rows by four columns");
    VEC acc[ROW_BLOCK][COLUMN_BLOCK];
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) acc[i][c] = (VEC){0};
    for (size_t k = 0; k < n; k += VLANES) {
        VEC wv[ROW_BLOCK];
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++) wv[i] = LOAD(w + (size_t)i * w_pitch + k);
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) {
            const VEC xv = LOAD(x + (size_t)c * x_pitch + k);
#pragma GCC unroll 4
            for (int i = 0; i < rows; i++) acc[i][c] = FMA(wv[i], xv, acc[i][c]);
        }
    }
    if (rows == ROW_BLOCK && columns == COLUMN_BLOCK) {
        SUMS((const VEC(*)[4])acc, out);
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) out[c * ROW_BLOCK + i] = SUM(acc[i][c]);
}

static void FN(dots)(const REAL *w, size_t w_pitch, int rows, const REAL *x, size_t x_pitch, int columns,
                     size_t n, REAL *out)
{
    if (rows == ROW_BLOCK && columns == COLUMN_BLOCK)
        FN(dot_block)(w, w_pitch, x, x_pitch, n, out, ROW_BLOCK, COLUMN_BLOCK);
    else if (rows == ROW_BLOCK)
        for (int c = 0; c < columns; c++)
            FN(dot_block)(w, w_pitch, x + (size_t)c * x_pitch, 0, n, out + c * ROW_BLOCK, ROW_BLOCK, 1);
    else if (columns == COLUMN_BLOCK)
        for (int i = 0; i < rows; i++)
            FN(dot_block)(w + (size_t)i * w_pitch, 0, x, x_pitch, n, out + i, 1, COLUMN_BLOCK);
    else
        for (int i = 0; i < rows; i++)
            for (int c = 0; c < columns; c++)
                FN(dot_block)(w + (size_t)i * w_pitch, 0, x + (size_t)c * x_pitch, 0, n,
                              out + c * ROW_BLOCK + i, 1, 1);
}

/* n rows of x, each padded with zeros to `pitch`. */
static void FN(pack)(const REAL *x, size_t rows, size_t n, REAL *packed, size_t pitch)
{
    for (size_t i = 0; i < rows; i++) {
        memcpy(packed + i * pitch, x + i * n, n * sizeof(REAL));
        memset(packed + i * pitch + n, 0, (pitch - n) * sizeof(REAL));
    }
}

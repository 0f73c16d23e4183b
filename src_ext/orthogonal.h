/* Haar orthogonal maps without the matrix: a template, like random_matmul.h.
 *
 * Stewart, "The efficient generation of random orthogonal matrices" (SIAM J. Numer. Anal. 17, 1980): with
 * independent Gaussian vectors g_k on the coordinates k..m-1, H_k the reflection that takes g_k to a
 * multiple of e_k, and s_k the sign that makes s_k H_k e_k = g_k / |g_k|,
 *     Q = H_0 S_0 H_1 S_1 ... (S_k multiplies coordinate k by s_k)
 * is exactly Haar. With m the larger side and k the smaller, the first k columns of Q need k reflections;
 * the map is sqrt(m) times them, or their transpose when there are fewer rows than columns.
 */

/* The vector of reflection i in v[i..m), zeros around it to the ends of its tiles; returns 2 / v'v (or 0
 * where there is nothing to reflect) and the sign s_i. Sums of squares are in double. */
static double FN(reflector)(philox_stream *stream, size_t per_row, size_t m, size_t i, REAL *v, REAL *sign)
{
    const size_t tile = i / TILE;
    FN(gaussian_fill)(stream, (tile_range){per_row, i, 1, tile, per_row - tile}, v + tile * TILE, 0);
    memset(v + tile * TILE, 0, (i - tile * TILE) * sizeof(REAL));
    memset(v + m, 0, (per_row * TILE - m) * sizeof(REAL));
    const double first = v[i];
    *sign = first >= 0 ? 1 : -1;
    if (i == m - 1) return 0;
    v[i] = 0;
    double below = 0, part[8] = {0};
    for (size_t j = tile * TILE; j < per_row * TILE; j += 8)
        for (int l = 0; l < 8; l++) part[l] += (double)v[j + l] * (double)v[j + l];
    for (int l = 0; l < 8; l++) below += part[l];
    v[i] = (REAL)(first + (double)*sign * sqrt(below + first * first));
    *sign = -*sign;
    const double square = below + (double)v[i] * (double)v[i];
    return square > 0 ? 2 / square : 0;
}

/* z_c -= beta (v . z_c) v, from vector `begin` of the row on */
static void FN(reflect)(const REAL *v, double beta, REAL *z, size_t pitch, size_t columns, size_t n)
{
    for (size_t c0 = 0; c0 < columns; c0 += COLUMN_BLOCK) {
        REAL products[ROW_BLOCK * COLUMN_BLOCK];
        const int width = (int)MIN((size_t)COLUMN_BLOCK, columns - c0);
        FN(dots)(v, 0, 1, z + c0 * pitch, pitch, width, n, products);
        for (int c = 0; c < width; c++) {
            REAL *zc = z + (c0 + (size_t)c) * pitch;
            const VEC scale = ALL((REAL)(-beta * (double)products[c * ROW_BLOCK]));
            for (size_t j = 0; j < n; j += VLANES) STORE(zc + j, FMA(scale, LOAD(v + j), LOAD(zc + j)));
        }
    }
}

/* y = Q[:, :k] x (or its transpose applied to x), times sqrt m */
static int FN(orthogonal)(const mcv_site *site, size_t n_out, size_t n_in, size_t columns, const REAL *x,
                          size_t x_count, REAL *y, int transposed)
{
    const size_t m = n_out > n_in ? n_out : n_in, k = n_out > n_in ? n_in : n_out;
    const size_t from = transposed ? n_out : n_in, to = transposed ? n_in : n_out;
    /* W is sqrt m Q[:, :k] when it has at least as many rows as columns, else the transpose of that */
    const int forward = transposed ? n_out < n_in : n_out >= n_in;
    const size_t per_row = (m + TILE - 1) / TILE, pitch = per_row * TILE + CACHE_LINE;
    const REAL scale = (REAL)sqrt((double)m);
    REAL *v = allocate((columns + 1) * pitch * sizeof(REAL));
    if (v == NULL) return -1;
    REAL *z = v + pitch;
    for (size_t r = 0; r < site->count; r++, y += columns * to) {
        philox_stream stream = philox_open(site, r);
        FN(pack)(x + (x_count > 1 ? r : 0) * columns * from, columns, from, z, pitch);
        for (size_t step = 0; step < k; step++) {
            const size_t i = forward ? k - 1 - step : step, begin = i / TILE * TILE;
            REAL sign;
            const double beta = FN(reflector)(&stream, per_row, m, i, v, &sign);
            if (forward)
                for (size_t c = 0; c < columns; c++) z[c * pitch + i] *= sign;
            if (beta != 0) FN(reflect)(v + begin, beta, z + begin, pitch, columns, per_row * TILE - begin);
            if (!forward)
                for (size_t c = 0; c < columns; c++) z[c * pitch + i] *= sign;
        }
        for (size_t c = 0; c < columns; c++)
            for (size_t j = 0; j < to; j++) y[c * to + j] = scale * z[c * pitch + j];
    }
    free(v);
    return 0;
}

/* Explicit matrices of draws: a template, like random_matmul.h. */

static int FN(draw)(const mcv_site *site, int what, uint64_t first, size_t rows, size_t cols, REAL *out)
{
    FN(fill) *fill = FN(choose_fill)(what);
    const size_t per_row = (cols + TILE - 1) / TILE, whole = cols / TILE;
    const size_t left = cols - whole * TILE;
    REAL last[TILE];
    for (size_t r = 0; r < site->count; r++) {
        philox_stream stream = philox_open(site, r);
        for (size_t i = 0; i < rows; i++, out += cols) {
            fill(&stream, (tile_range){per_row, i, 1, first, whole}, out, 0);
            if (left > 0) {
                fill(&stream, (tile_range){per_row, i, 1, first + whole, 1}, last, 0);
                memcpy(out + whole * TILE, last, left * sizeof(REAL));
            }
        }
    }
    return 0;
}

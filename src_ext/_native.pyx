# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The thin binding of src_ext/*.c: arguments are checked in mcverify/kernels/cpu.py, not here."""

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef extern from "mcverify.h" nogil:
    ctypedef struct mcv_site:
        uint64_t key
        uint64_t start
        uint64_t count
        uint32_t layer
        uint32_t role

    ctypedef struct mcv_window:
        size_t positions
        size_t taps
        const int32_t *seen

    ctypedef int (*mcv_draw_f32)(const mcv_site *, int, uint64_t, size_t, size_t, float *) noexcept nogil
    ctypedef int (*mcv_draw_f64)(const mcv_site *, int, uint64_t, size_t, size_t, double *) noexcept nogil
    ctypedef int (*mcv_map_f32)(
        const mcv_site *, int, size_t, size_t, size_t, const mcv_window *, const float *, size_t, float *) noexcept nogil
    ctypedef int (*mcv_map_f64)(
        const mcv_site *, int, size_t, size_t, size_t, const mcv_window *, const double *, size_t, double *) noexcept nogil

    ctypedef struct mcv_path:
        const char *name
        mcv_draw_f32 draw_f32
        mcv_draw_f64 draw_f64
        mcv_map_f32 matmul_f32
        mcv_map_f64 matmul_f64
        mcv_map_f32 transpose_f32
        mcv_map_f64 transpose_f64

    const mcv_path *mcv_path_at(int i)

ctypedef fused real:
    float
    double

# The instruction set in use: the fastest there is, until a test sets another.
cdef const mcv_path *_path = mcv_path_at(0)


def paths():
    """Names of the instruction sets this machine can run, fastest first."""
    names = []
    cdef int i = 0
    while mcv_path_at(i) != NULL:
        names.append(mcv_path_at(i).name.decode())
        i += 1
    return tuple(names)


def path():
    """The one in use."""
    return _path.name.decode()


def set_path(str name):
    """Use another instruction set, for the whole process: for tests and benchmarks.

    Raises ValueError for one that this machine cannot run."""
    global _path
    cdef int i = 0
    while mcv_path_at(i) != NULL:
        if mcv_path_at(i).name.decode() == name:
            _path = mcv_path_at(i)
            return
        i += 1
    raise ValueError(f"no path {name!r} here: {', '.join(paths())}")


cdef mcv_site _site(uint64_t key, uint32_t layer, uint32_t role, uint64_t start, uint64_t count) noexcept:
    cdef mcv_site site
    site.key = key
    site.layer = layer
    site.role = role
    site.start = start
    site.count = count
    return site


def draw(
    uint64_t key, uint32_t layer, uint32_t role, uint64_t start, int what, uint64_t first_tile,
    real[:, :, ::1] out,
):
    """Fill out (replicate, rows, cols), from tile first_tile of each replicate on."""
    cdef mcv_site site = _site(key, layer, role, start, out.shape[0])
    cdef size_t rows = out.shape[1], cols = out.shape[2]
    cdef const mcv_path *path = _path
    if out.shape[0] == 0 or rows == 0 or cols == 0:
        return
    with nogil:
        if real is float:
            path.draw_f32(&site, what, first_tile, rows, cols, &out[0, 0, 0])
        else:
            path.draw_f64(&site, what, first_tile, rows, cols, &out[0, 0, 0])


def random_matmul(
    uint64_t key, uint32_t layer, uint32_t role, uint64_t start, int law,
    const real[:, :, ::1] x, real[:, :, ::1] y, bint transposed, const int32_t[:, ::1] seen=None,
):
    """y = W x for each replicate of y and each of its columns, or W' x; x (1 or replicate, columns, units).

    seen (position, tap): W acts on patches, as mcv_window says.
    Raises MemoryError when there is no room for the working buffers."""
    cdef mcv_site site = _site(key, layer, role, start, y.shape[0])
    cdef size_t columns = y.shape[1], n_x = x.shape[2], n_y = y.shape[2], count_x = x.shape[0]
    cdef mcv_window patches
    cdef const mcv_window *window = NULL
    cdef const mcv_path *path = _path
    cdef const real *to_x
    cdef real *to_y
    cdef int failed
    if y.shape[0] == 0 or columns == 0 or n_y == 0:
        return
    if seen is not None:
        patches.positions, patches.taps, patches.seen = seen.shape[0], seen.shape[1], &seen[0, 0]
        window = &patches
        if transposed:
            n_y *= patches.taps
        else:
            n_x *= patches.taps
    to_y = &y[0, 0, 0]
    to_x = &x[0, 0, 0] if n_x > 0 else to_y
    with nogil:
        if real is float:
            if transposed:
                failed = path.transpose_f32(&site, law, n_x, n_y, columns, window, to_x, count_x, to_y)
            else:
                failed = path.matmul_f32(&site, law, n_y, n_x, columns, window, to_x, count_x, to_y)
        else:
            if transposed:
                failed = path.transpose_f64(&site, law, n_x, n_y, columns, window, to_x, count_x, to_y)
            else:
                failed = path.matmul_f64(&site, law, n_y, n_x, columns, window, to_x, count_x, to_y)
    if failed:
        raise MemoryError("no room for the working buffers of a random map")

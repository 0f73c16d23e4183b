/* Vectors of one instruction set: what GNU C cannot say itself.
 *
 * MCV_AVX512 or MCV_AVX2 is defined by the file that is being compiled, or neither (portable).
 * A vector holds FLOATS 32-bit or DOUBLES 64-bit lanes. Arithmetic, shifts and comparisons are written
 * with operators; here are the operations that have none. fma() is one rounding on the first two paths
 * and two on the portable one: the compiler itself is told to fuse nothing.
 */
#ifndef MCV_SIMD_H
#define MCV_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "vectors of 32-bit words are read as vectors of 64-bit words: little-endian machines only"
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(MCV_AVX512)
#define FLOATS 16
#elif defined(MCV_AVX2)
#define FLOATS 8
#else
#define FLOATS 4
#endif
#define DOUBLES (FLOATS / 2)
#define VECTOR_BYTES (4 * FLOATS)

typedef float f32v __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef double f64v __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef uint32_t u32v __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef int32_t i32v __attribute__((vector_size(VECTOR_BYTES), may_alias));
typedef uint64_t u64v __attribute__((vector_size(VECTOR_BYTES), may_alias));

typedef float f32v_unaligned __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(4)));
typedef double f64v_unaligned __attribute__((vector_size(VECTOR_BYTES), may_alias, aligned(8)));

INLINE f32v load_f32(const float *p) { return *(const f32v_unaligned *)p; }
INLINE u64v load_u64(const uint64_t *p) { return (u64v)*(const f64v_unaligned *)p; }
INLINE f64v load_f64(const double *p) { return *(const f64v_unaligned *)p; }
INLINE void store_f32(float *p, f32v x) { *(f32v_unaligned *)p = x; }
INLINE void store_f64(double *p, f64v x) { *(f64v_unaligned *)p = x; }
INLINE f32v all_f32(float x) { return x - (f32v){0}; }
INLINE f64v all_f64(double x) { return x - (f64v){0}; }

#if defined(MCV_AVX512)

INLINE f32v fma_f32(f32v a, f32v b, f32v c) { return _mm512_fmadd_ps(a, b, c); }
INLINE f64v fma_f64(f64v a, f64v b, f64v c) { return _mm512_fmadd_pd(a, b, c); }
INLINE f32v sqrt_f32(f32v a) { return _mm512_sqrt_ps(a); }
INLINE f64v sqrt_f64(f64v a) { return _mm512_sqrt_pd(a); }
/* The product of the low halves of 64-bit lanes. */
INLINE u64v mul_low(u64v a, u64v b) { return (u64v)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
INLINE u64v xor3(u64v a, u64v b, u64v c)
{
    return (u64v)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
}
/* Each rounded to nearest once. */
INLINE f32v float_of_u32(u32v a) { return _mm512_cvtepu32_ps((__m512i)a); }
INLINE f32v float_of_i32(i32v a) { return _mm512_cvtepi32_ps((__m512i)a); }
/* Exact for a < 2^53. */
INLINE f64v double_of_u53(u64v a) { return _mm512_cvtepu64_pd((__m512i)a); }
/* Lane by lane: yes where the top bit of s is set, else no. */
INLINE f32v select_f32(u32v s, f32v yes, f32v no)
{
    return _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)s), no, yes);
}
INLINE f64v select_f64(u64v s, f64v yes, f64v no)
{
    return _mm512_mask_blend_pd(_mm512_movepi64_mask((__m512i)s), no, yes);
}

#else

#if defined(MCV_AVX2)

INLINE f32v fma_f32(f32v a, f32v b, f32v c) { return _mm256_fmadd_ps(a, b, c); }
INLINE f64v fma_f64(f64v a, f64v b, f64v c) { return _mm256_fmadd_pd(a, b, c); }
INLINE f32v sqrt_f32(f32v a) { return _mm256_sqrt_ps(a); }
INLINE f64v sqrt_f64(f64v a) { return _mm256_sqrt_pd(a); }
INLINE u64v mul_low(u64v a, u64v b) { return (u64v)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
INLINE f32v float_of_i32(i32v a) { return _mm256_cvtepi32_ps((__m256i)a); }
INLINE f32v select_f32(u32v s, f32v yes, f32v no) { return _mm256_blendv_ps(no, yes, (__m256)s); }
INLINE f64v select_f64(u64v s, f64v yes, f64v no) { return _mm256_blendv_pd(no, yes, (__m256d)s); }

#else

INLINE f32v fma_f32(f32v a, f32v b, f32v c) { return a * b + c; }
INLINE f64v fma_f64(f64v a, f64v b, f64v c) { return a * b + c; }
#if defined(__x86_64__)
INLINE f32v sqrt_f32(f32v a) { return _mm_sqrt_ps(a); }
INLINE f64v sqrt_f64(f64v a) { return _mm_sqrt_pd(a); }
INLINE u64v mul_low(u64v a, u64v b) { return (u64v)_mm_mul_epu32((__m128i)a, (__m128i)b); }
INLINE f32v float_of_i32(i32v a) { return _mm_cvtepi32_ps((__m128i)a); }
#else
INLINE f32v sqrt_f32(f32v a)
{
    for (int i = 0; i < FLOATS; i++) a[i] = __builtin_sqrtf(a[i]);
    return a;
}
INLINE f64v sqrt_f64(f64v a)
{
    for (int i = 0; i < DOUBLES; i++) a[i] = __builtin_sqrt(a[i]);
    return a;
}
INLINE u64v mul_low(u64v a, u64v b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
INLINE f32v float_of_i32(i32v a) { return __builtin_convertvector(a, f32v); }
#endif
INLINE f32v select_f32(u32v s, f32v yes, f32v no)
{
    const u32v mask = (u32v)((i32v)s >> 31);
    return (f32v)(((u32v)yes & mask) | ((u32v)no & ~mask));
}
INLINE f64v select_f64(u64v s, f64v yes, f64v no)
{
    const u64v mask = -(s >> 63);
    return (f64v)(((u64v)yes & mask) | ((u64v)no & ~mask));
}

#endif

INLINE u64v xor3(u64v a, u64v b, u64v c) { return a ^ b ^ c; }

/* Both halves are exact, so the sum rounds once. */
INLINE f32v float_of_u32(u32v a)
{
    return float_of_i32((i32v)(a >> 16)) * 65536.0f + float_of_i32((i32v)(a & 0xffffu));
}

/* The bits of 2^84 + high 2^32 and 2^52 + low; all sums are exact for a < 2^53. */
INLINE f64v double_of_u53(u64v a)
{
    const f64v high = (f64v)((a >> 32) | 0x4530000000000000u);
    const f64v low = (f64v)((a & 0xffffffffu) | 0x4330000000000000u);
    return (high - 0x1.00000001p84) + low;
}

#endif

/* Sums over lanes, by halves. */
INLINE float sum_f32(f32v a)
{
#if defined(MCV_AVX512)
    return _mm512_reduce_add_ps(a);
#else
    float s[FLOATS];
    store_f32(s, a);
    for (int n = FLOATS / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
#endif
}

INLINE double sum_f64(f64v a)
{
#if defined(MCV_AVX512)
    return _mm512_reduce_add_pd(a);
#else
    double s[DOUBLES];
    store_f64(s, a);
    for (int n = DOUBLES / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
#endif
}

/* out[4 c + i], the sum over lanes of a[i][c]: four rows by four columns at once, to the same bits. */
INLINE void sums_f32(const f32v a[4][4], float *out)
{
#if defined(MCV_AVX512)
    __m512 halves[8], quarters[4], pairs[2];
#pragma GCC unroll 8
    for (int k = 0; k < 8; k++) {
        const __m512 x = (__m512)a[k / 2][k % 2 * 2], y = (__m512)a[k / 2][k % 2 * 2 + 1];
        halves[k] = _mm512_shuffle_f32x4(x, y, 0x44) + _mm512_shuffle_f32x4(x, y, 0xee);
    }
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const __m512 x = halves[2 * k], y = halves[2 * k + 1];
        quarters[k] = _mm512_shuffle_f32x4(x, y, 0x88) + _mm512_shuffle_f32x4(x, y, 0xdd);
    }
#pragma GCC unroll 2
    for (int k = 0; k < 2; k++) {
        const __m512 x = quarters[2 * k], y = quarters[2 * k + 1];
        pairs[k] = _mm512_shuffle_ps(x, y, 0x44) + _mm512_shuffle_ps(x, y, 0xee);
    }
    const __m512 x = pairs[0], y = pairs[1];
    _mm512_storeu_ps(out, _mm512_shuffle_ps(x, y, 0x88) + _mm512_shuffle_ps(x, y, 0xdd));
#else
    for (int i = 0; i < 4; i++)
        for (int c = 0; c < 4; c++) out[c * 4 + i] = sum_f32(a[i][c]);
#endif
}

INLINE void sums_f64(const f64v a[4][4], double *out)
{
    for (int i = 0; i < 4; i++)
        for (int c = 0; c < 4; c++) out[c * 4 + i] = sum_f64(a[i][c]);
}

#endif

/* From words to numbers: uniforms, Box-Muller normals, and the other laws of unit variance.
 *
 * The polynomials were fitted for this program at the Chebyshev nodes of their intervals; beside each
 * stands the largest error of the polynomial itself. docs/streams.md states what each law is and how
 * far the results may be from the reference.
 */
#ifndef MCV_LAWS_H
#define MCV_LAWS_H

#include "simd.h"

/* ---- float32, from a 32-bit word ------------------------------------------------------------------- */

/* (w + 1/2) 2^-32: the product is exact, so fusing it changes nothing. */
INLINE f32v unit_f32(u32v w) { return fma_f32(float_of_u32(w), all_f32(0x1p-32f), all_f32(0x1p-33f)); }

/* 2u - 1, with float32's relative precision near 0 */
INLINE f32v signed_unit_f32(u32v w)
{
    return fma_f32(float_of_i32((i32v)(w ^ 0x80000000u)), all_f32(0x1p-31f), all_f32(0x1p-32f));
}

/* -2 ln u for u in [2^-33, 1]: u = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt 2);
 * -2 ln(1 + f) = -2 f + f^2 P(f), P to 2^-26.8 of the logarithm. */
INLINE f32v minus_two_log_f32(f32v u)
{
    const u32v bits = (u32v)u;
    const u32v shifted = bits - 0x3f3504f3u;
    const f32v e = float_of_i32((i32v)shifted >> 23);
    const f32v f = (f32v)(bits - (shifted & 0xff800000u)) - 1.0f;
    f32v p = all_f32(0.15347283f);
    p = fma_f32(p, f, all_f32(-0.2544534558f));
    p = fma_f32(p, f, all_f32(0.262551113f));
    p = fma_f32(p, f, all_f32(-0.2840971191f));
    p = fma_f32(p, f, all_f32(0.3325329126f));
    p = fma_f32(p, f, all_f32(-0.4000246892f));
    p = fma_f32(p, f, all_f32(0.5000156248f));
    p = fma_f32(p, f, all_f32(-0.6666666006f));
    p = fma_f32(p, f, all_f32(0.999999953f));
    return fma_f32(f, all_f32(-2.0f), fma_f32(p, f * f, e * -1.3862943611f));
}

/* cos and sin of 2 pi (w + 1/2) 2^-32, times r. The two top bits of w + 2^29 are the quadrant; what is
 * left, w mod 2^30 read as signed, is a fraction z of a quarter turn in [-1/2, 1/2].
 * sin(pi z / 2) = z S(z^2) to 2^-28.1, cos(pi z / 2) = C(z^2) to 2^-33.8. */
INLINE void polar_f32(f32v r, u32v w, f32v *x, f32v *y)
{
    const u32v turned = w + 0x20000000u;
    const f32v z = fma_f32(float_of_i32((i32v)(w << 2)), all_f32(0x1p-32f), all_f32(0x1p-31f));
    const f32v z2 = z * z;
    f32v s = all_f32(-0.004602149213f), c = all_f32(0.0009036280664f);
    s = fma_f32(s, z2, all_f32(0.07968021765f));
    c = fma_f32(c, z2, all_f32(-0.0208600695f));
    s = fma_f32(s, z2, all_f32(-0.6459634777f));
    c = fma_f32(c, z2, all_f32(0.2536692037f));
    s = fma_f32(s, z2, all_f32(1.570796322f));
    c = fma_f32(c, z2, all_f32(-1.233700541f));
    c = fma_f32(c, z2, all_f32(1.0f));
    s = s * (z * r);
    c = c * r;
    const u32v odd = turned << 1;
    *x = (f32v)((u32v)select_f32(odd, s, c) ^ ((turned + 0x40000000u) & 0x80000000u));
    *y = (f32v)((u32v)select_f32(odd, c, s) ^ (turned & 0x80000000u));
}

INLINE f32v uniform_f32(u32v w) { return signed_unit_f32(w) * 1.7320508f; }

/* The top bit as a sign: set is +1. */
INLINE f32v rademacher_f32(u32v w) { return (f32v)((w & 0x80000000u) ^ 0xbf800000u); }

/* v -> sqrt 2 erfinv(v erf sqrt 2) / sd = v T(-2 ln(1 - (v erf sqrt 2)^2)), T to 2^-33.4 on [0, 4.84] */
INLINE f32v truncated_normal_f32(u32v w)
{
    const f32v v = signed_unit_f32(w);
    const f32v x = v * 0.9544997361f;
    const f32v t = minus_two_log_f32(fma_f32(x, -x, all_f32(1.0f)));
    f32v p = all_f32(7.131176511e-10f);
    p = fma_f32(p, t, all_f32(-1.803553277e-8f));
    p = fma_f32(p, t, all_f32(7.007760312e-8f));
    p = fma_f32(p, t, all_f32(2.186189606e-6f));
    p = fma_f32(p, t, all_f32(-1.221219716e-5f));
    p = fma_f32(p, t, all_f32(-0.0004479848756f));
    p = fma_f32(p, t, all_f32(0.004430906007f));
    p = fma_f32(p, t, all_f32(0.1780231501f));
    p = fma_f32(p, t, all_f32(1.35999672f));
    return v * p;
}

/* ---- float64, from a 64-bit word ------------------------------------------------------------------- */

INLINE f64v unit_f64(u64v w) { return (double_of_u53(w >> 11) + 0.5) * 0x1p-53; }

/* exact */
INLINE f64v signed_unit_f64(u64v w) { return (double_of_u53(w >> 11) - 0x1p52 + 0.5) * 0x1p-52; }

/* -2 ln u for u in [2^-54, 1], u = 2^e (1 + f) as above. With s = f / (2 + f),
 * ln(1 + f) = 2 artanh s = f - s (f - s^2 R(s^2)), R to 2^-57.6 of the logarithm. */
INLINE f64v minus_two_log_f64(f64v u)
{
    const u64v bits = (u64v)u;
    /* the exponent, biased by 1023 to stay positive: its bits are those above the 52 of sqrt(1/2) 2^e */
    const u64v shifted = bits + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu);
    const f64v e = (f64v)((shifted >> 52) | 0x4330000000000000u) - (0x1p52 + 1023.0);
    const f64v f = (f64v)(bits - ((shifted & 0xfff0000000000000u) - 0x3ff0000000000000u)) - 1.0;
    const f64v s = f / (f + 2.0);
    const f64v s2 = s * s;
    f64v p = all_f64(0.1461644968504340586);
    p = fma_f64(p, s2, all_f64(0.1533172160055604127));
    p = fma_f64(p, s2, all_f64(0.1818288912526172208));
    p = fma_f64(p, s2, all_f64(0.2222221113479507986));
    p = fma_f64(p, s2, all_f64(0.2857142862597548492));
    p = fma_f64(p, s2, all_f64(0.3999999999989950449));
    p = fma_f64(p, s2, all_f64(0.6666666666666669686));
    const f64v g = fma_f64(p, -s2, f); /* f - s^2 R */
    return fma_f64(g, s + s, fma_f64(e, all_f64(-1.3862943611198906188), f * -2.0));
}

/* As polar_f32, of 2 pi (A + 1/2) 2^-54 with A the top 54 bits of w; S to 2^-58.0, C to 2^-64.3.
 * The double whose exponent is that of 2^52 and whose last 52 bits are n is 2^52 + n. */
INLINE void polar_f64(f64v r, u64v w, f64v *x, f64v *y)
{
    const u64v turned = w + 0x2000000000000000u;
    const f64v n = (f64v)((turned << 2) >> 12 | 0x4330000000000000u) - (0x1p52 + 0x1p51);
    const f64v z = (n + 0.5) * 0x1p-52;
    const f64v z2 = z * z;
    f64v s = all_f64(5.633933781537853954e-8), c = all_f64(-6.321256869628588411e-9);
    s = fma_f64(s, z2, all_f64(-3.598643352982309702e-6));
    c = fma_f64(c, z2, all_f64(4.710609726757823012e-7));
    s = fma_f64(s, z2, all_f64(0.0001604411507421909105));
    c = fma_f64(c, z2, all_f64(-0.00002520203677046025844));
    s = fma_f64(s, z2, all_f64(-0.004681754132340975992));
    c = fma_f64(c, z2, all_f64(0.0009192602741831557208));
    s = fma_f64(s, z2, all_f64(0.07969262624604300313));
    c = fma_f64(c, z2, all_f64(-0.0208634807633112091));
    s = fma_f64(s, z2, all_f64(-0.6459640975062443157));
    c = fma_f64(c, z2, all_f64(0.2536695079010467091));
    s = fma_f64(s, z2, all_f64(1.570796326794896614));
    c = fma_f64(c, z2, all_f64(-1.233700550136169812));
    c = fma_f64(c, z2, all_f64(1.0));
    s = s * (z * r);
    c = c * r;
    const u64v odd = turned << 1;
    *x = (f64v)((u64v)select_f64(odd, s, c) ^ ((turned + 0x4000000000000000u) & 0x8000000000000000u));
    *y = (f64v)((u64v)select_f64(odd, c, s) ^ (turned & 0x8000000000000000u));
}

INLINE f64v uniform_f64(u64v w) { return signed_unit_f64(w) * 1.7320508075688772; }

INLINE f64v rademacher_f64(u64v w) { return (f64v)((w & 0x8000000000000000u) ^ 0xbff0000000000000u); }

/* As truncated_normal_f32, T to 2^-64.8 */
INLINE f64v truncated_normal_f64(u64v w)
{
    const f64v v = signed_unit_f64(w);
    const f64v x = v * 0.9544997361036415856;
    const f64v t = minus_two_log_f64(fma_f64(x, -x, all_f64(1.0)));
    f64v p = all_f64(-5.128716450469073726e-20);
    p = fma_f64(p, t, all_f64(2.270775664183807689e-18));
    p = fma_f64(p, t, all_f64(-3.760493106329432179e-17));
    p = fma_f64(p, t, all_f64(1.896086675220169253e-16));
    p = fma_f64(p, t, all_f64(1.566641414175138784e-15));
    p = fma_f64(p, t, all_f64(-3.515028260379618405e-15));
    p = fma_f64(p, t, all_f64(-3.996316505309270939e-13));
    p = fma_f64(p, t, all_f64(1.144061377150304407e-12));
    p = fma_f64(p, t, all_f64(6.829816265549390273e-11));
    p = fma_f64(p, t, all_f64(-2.235456521572821196e-10));
    p = fma_f64(p, t, all_f64(-1.213952852654270401e-8));
    p = fma_f64(p, t, all_f64(4.843529723930525837e-8));
    p = fma_f64(p, t, all_f64(2.235298184926056605e-6));
    p = fma_f64(p, t, all_f64(-0.00001228088816341401513));
    p = fma_f64(p, t, all_f64(-0.0004479285272328269318));
    p = fma_f64(p, t, all_f64(0.004430881874713467569));
    p = fma_f64(p, t, all_f64(0.1780231542762646925));
    p = fma_f64(p, t, all_f64(1.359996719418173334));
    return v * p;
}

#endif

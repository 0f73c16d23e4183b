/* Philox4x32-10 on vector lanes: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3" (SC 2011). The layout of the counter is that of mcverify/streams.py.
 *
 * A 32-bit word lives in the low half of a 64-bit lane, and what is in the high half never matters: the
 * multiply reads low halves, its low result is in place, its high result is one shift away.
 */
#ifndef MCV_PHILOX_H
#define MCV_PHILOX_H

#include "mcverify.h"
#include "simd.h"

#define LANES 16 /* blocks of a tile */
#define ROUNDS 10
#define MULTIPLIER_0 0xD2511F53u
#define MULTIPLIER_1 0xCD9E8D57u

/* One replicate's stream. Within it only the block index moves, and within 2^32 blocks only counter
 * word 0: so half of the first two rounds is the same for all blocks and is done once (`front`). */
typedef struct {
    uint64_t key_0[ROUNDS], key_1[ROUNDS];
    uint32_t word_1, word_2, word_3; /* word_1 without its block bits */
    uint64_t block_high;             /* block bits 32..47 that the front was made for */
    uint64_t front_1, front_2, front_3, front_4;
} philox_stream;

static void philox_front(philox_stream *s, uint64_t block_high)
{
    const uint32_t word_1 = s->word_1 | (uint32_t)block_high;
    const uint64_t product_1 = (uint64_t)MULTIPLIER_1 * s->word_2;
    const uint32_t word_0 = (uint32_t)(product_1 >> 32) ^ word_1 ^ (uint32_t)s->key_0[0];
    const uint64_t product_0 = (uint64_t)MULTIPLIER_0 * word_0;
    s->block_high = block_high;
    s->front_1 = s->word_3 ^ s->key_1[0];
    s->front_2 = (uint32_t)product_1 ^ s->key_0[1];
    s->front_3 = (product_0 >> 32) ^ s->key_1[1];
    s->front_4 = (uint32_t)product_0 ^ s->key_1[2];
}

static philox_stream philox_open(const mcv_site *site, uint64_t replicate)
{
    philox_stream s;
    uint32_t k0 = (uint32_t)site->key, k1 = (uint32_t)(site->key >> 32);
    for (int r = 0; r < ROUNDS; r++) {
        s.key_0[r] = k0;
        s.key_1[r] = k1;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    replicate += site->start;
    s.word_1 = site->role << 16 | (uint32_t)(replicate >> 32) << 24;
    s.word_2 = site->layer;
    s.word_3 = (uint32_t)replicate;
    philox_front(&s, 0);
    return s;
}

#define ALL_U64(x) ((u64v){0} + (x))

/* words[j][h]: word j of blocks `block` + lane[h]. All blocks share their bits 32..47. */
INLINE void philox_blocks(const philox_stream *s, uint64_t block, const u64v lane[2], u64v words[4][2])
{
    const u64v m0 = ALL_U64((uint64_t)MULTIPLIER_0), m1 = ALL_U64((uint64_t)MULTIPLIER_1);
    u64v c0[2], c1[2], c2[2], c3[2];
    for (int h = 0; h < 2; h++) {
        const u64v a = mul_low(lane[h] + (uint64_t)(uint32_t)block, m0);
        const u64v b = mul_low((a >> 32) ^ s->front_1, m1);
        const u64v p0 = mul_low((b >> 32) ^ s->front_2, m0);
        const u64v p1 = mul_low(a ^ s->front_3, m1);
        c0[h] = xor3(p1 >> 32, b, ALL_U64(s->key_0[2]));
        c1[h] = p1;
        c2[h] = (p0 >> 32) ^ s->front_4;
        c3[h] = p0;
    }
#pragma GCC unroll 10
    for (int r = 3; r < ROUNDS; r++)
        for (int h = 0; h < 2; h++) {
            const u64v p0 = mul_low(c0[h], m0), p1 = mul_low(c2[h], m1);
            c0[h] = xor3(p1 >> 32, c1[h], ALL_U64(s->key_0[r]));
            c1[h] = p1;
            c2[h] = xor3(p0 >> 32, c3[h], ALL_U64(s->key_1[r]));
            c3[h] = p0;
        }
    for (int h = 0; h < 2; h++) {
        words[0][h] = c0[h];
        words[1][h] = c1[h];
        words[2][h] = c2[h];
        words[3][h] = c3[h];
    }
}

/* The low halves of two vectors as one vector of 32-bit lanes: a in the even lanes, b in the odd. */
INLINE u32v interleave(u64v a, u64v b) { return (u32v)((a & 0xffffffffu) | (b << 32)); }
/* ... as one vector of 64-bit lanes, low word first. */
INLINE u64v join(u64v low, u64v high) { return (low & 0xffffffffu) | (high << 32); }

#endif

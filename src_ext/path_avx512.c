/* The random primitives for x86-64 with AVX-512 (F, DQ, VL, BW). */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")
#endif

#define MCV_AVX512
#define MCV_NAME "avx512"
#define MCV_TABLE mcv_avx512
#include "path.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

static int available(void)
{
    return __builtin_cpu_supports("avx512f")
           && __builtin_cpu_supports("avx512dq")
           && __builtin_cpu_supports("avx512vl")
           && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx2")
           && __builtin_cpu_supports("fma");
}
#else
typedef int not_for_this_machine;
#endif

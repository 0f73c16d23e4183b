/* The random primitives for x86-64 with AVX2 and FMA. */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define MCV_AVX2
#define MCV_NAME "avx2"
#define MCV_TABLE mcv_avx2
#include "path.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif

static int available(void)
{
    return __builtin_cpu_supports("avx2")
           && __builtin_cpu_supports("fma");
}
#else
typedef int not_for_this_machine;
#endif

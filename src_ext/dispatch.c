/* Which instruction sets this machine has. */
#include "mcverify.h"

#if defined(__x86_64__)
extern const mcv_path mcv_avx512, mcv_avx2;
#endif
extern const mcv_path mcv_portable;

static const mcv_path *const all_paths[] = {
#if defined(__x86_64__)
    &mcv_avx512,
    &mcv_avx2,
#endif
    &mcv_portable,
};

const mcv_path *mcv_path_at(int i)
{
    for (size_t k = 0; k < sizeof all_paths / sizeof all_paths[0]; k++)
        if (all_paths[k]->available() && i-- == 0) return all_paths[k];
    return NULL;
}

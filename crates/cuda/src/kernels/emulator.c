/* The kernels as plain C: a block's threads one after the other, phase by phase. See kernels.cu. */

#include <math.h>
#include <string.h>

/* Few, so that the emulator is not slow; more than one, so that what threads leave each other is put to the test. */
#define THREADS 8

/* `dsom_NAME` runs one block. */
#define KERNEL(name, Arguments)                                                                  \
    static void name(const Arguments a, const unsigned long long BLOCK);                         \
    void dsom_##name(const void *arguments, unsigned long long block);                           \
    void dsom_##name(const void *arguments, unsigned long long block) {                          \
        name(*(const Arguments *)arguments, block);                                              \
    }                                                                                            \
    static void name(const Arguments a, const unsigned long long BLOCK)
#define FUNCTION static inline
#define SHARED
#define BARRIER (void)0
/* From the last to the first: a phase that relied on an order would get it wrong here. */
#define EACH_THREAD for (u32 thread = THREADS; thread-- > 0;)
#define NOTHING (-(double)INFINITY)
#define BITS(x) bits_of(x)
#define FLOAT(x) float_of(x)

static inline unsigned int bits_of(float x) {
    unsigned int bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float float_of(unsigned int bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#include "kernels.cu"

/* The kernels as plain C: a block's threads one after the other, phase by phase. See kernels.cu. */

#include <math.h>
#include <string.h>

/* A power of two, as on a device. Few, so that the emulator is not slow; more than one, so that what threads leave each other is put to the test. */
#define THREADS 8

/* `dsom_NAME` runs one block. */
#define KERNEL(name, Arguments)                                                                  \
    static void name(const Arguments a, const unsigned long long BLOCK);                         \
    void dsom_##name(const void *arguments, unsigned long long block);                           \
    void dsom_##name(const void *arguments, unsigned long long block) {                          \
        order = (unsigned)block;                                                                 \
        name(*(const Arguments *)arguments, block);                                              \
    }                                                                                            \
    static void name(const Arguments a, const unsigned long long BLOCK)
#define FUNCTION static inline
#define SHARED
#define BARRIER (void)0
/* In another order in every phase, the same every time: a phase that relied on one would get it wrong here. */
#define EACH_THREAD \
    for (u32 of_phase = next_order(), step = 0, thread = nth(of_phase, 0); step < THREADS; thread = nth(of_phase, ++step))
#define NOTHING (-(double)INFINITY)
#define BITS(x) bits_of(x)
#define FLOAT(x) float_of(x)

/* The order of the phase that began last: a step of a linear congruence for each phase of a block. */
static _Thread_local unsigned order;

static inline unsigned next_order(void) {
    order = order * 1664525u + 1013904223u;
    return order;
}

/* The thread whose turn is number `step`: from any first one on, in strides that have no divisor in common with THREADS. */
static inline unsigned nth(unsigned order, unsigned step) {
    return ((order >> 16) + step * (order >> 20 | 1)) % THREADS;
}

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

/* Stands in for libcuda and libcublas where there is no GPU: the few calls that crates/cuda makes, as NVIDIA documents them.
 *
 * Memory is the process's own, kernels are the emulator's, and cuBLAS's product is written out, column by column, from its
 * documentation. So `make check-cuda` runs the whole test suite through the driver's path: which calls are made, with
 * which arguments, and which way round factors are. What is refused here would be refused or wrong on a device. It is no
 * part of the programs.
 */

#include <stdlib.h>

#include "../src/kernels/emulator.c"

#define REQUIRE(condition) \
    if (!(condition)) return 1 /* CUDA_ERROR_INVALID_VALUE */

typedef unsigned long long Pointer;

static char context;
static _Thread_local void *current;

int cuInit(unsigned flags) { return flags != 0; }

int cuDriverGetVersion(int *version) {
    *version = 13000;
    return 0;
}

int cuDeviceGetCount(int *count) {
    *count = 1;
    return 0;
}

int cuDeviceGet(int *device, int ordinal) {
    REQUIRE(ordinal == 0);
    *device = 0;
    return 0;
}

int cuDeviceGetName(char *name, int length, int device) {
    const char *stand_in = "stand-in";
    REQUIRE(device == 0 && length > (int)strlen(stand_in));
    strcpy(name, stand_in);
    return 0;
}

/* Compute capability 9.0. */
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    REQUIRE(device == 0 && (attribute == 75 || attribute == 76));
    *value = attribute == 75 ? 9 : 0;
    return 0;
}

int cuDevicePrimaryCtxRetain(void **into, int device) {
    REQUIRE(device == 0);
    *into = &context;
    return 0;
}

int cuCtxSetCurrent(void *of) {
    REQUIRE(of == &context);
    current = of;
    return 0;
}

int cuMemGetInfo_v2(size_t *available, size_t *total) {
    REQUIRE(current);
    *available = *total = (size_t)64 << 30;
    return 0;
}

int cuMemAlloc_v2(Pointer *into, size_t bytes) {
    REQUIRE(current && bytes > 0);
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory) return 2; /* CUDA_ERROR_OUT_OF_MEMORY */
    /* Fresh memory of a device is not zero: what relies on it shall fail here. */
    memset(memory, 0xff, bytes);
    *into = (Pointer)memory;
    return 0;
}

int cuMemFree_v2(Pointer pointer) {
    REQUIRE(current && pointer);
    free((void *)pointer);
    return 0;
}

int cuMemcpyHtoD_v2(Pointer to, const void *from, size_t bytes) {
    REQUIRE(current && to);
    memcpy((void *)to, from, bytes);
    return 0;
}

int cuMemcpyDtoH_v2(void *to, Pointer from, size_t bytes) {
    REQUIRE(current && from);
    memcpy(to, (const void *)from, bytes);
    return 0;
}

int cuMemsetD8Async(Pointer at, unsigned char value, size_t bytes, void *stream) {
    REQUIRE(current && at && !stream);
    memset((void *)at, value, bytes);
    return 0;
}

/* ---- Copies beside the rest ---- */

/* Pending: on the stream, then behind an event. It is done as late as a device may do it, when somebody waits for the event
 * that was recorded after it: what does not wait finds what was there before. The default stream's work is always done. */
typedef struct {
    Pointer to;
    const void *from;
    size_t bytes;
} Copy;

static char uploads;
static _Thread_local Copy pending;

static void finish(Copy *copy) {
    if (copy->bytes) memcpy((void *)copy->to, copy->from, copy->bytes);
    copy->bytes = 0;
}

int cuStreamCreate(void **stream, unsigned flags) {
    REQUIRE(current && flags == 1); /* CU_STREAM_NON_BLOCKING */
    *stream = &uploads;
    return 0;
}

int cuMemHostAlloc(void **into, size_t bytes, unsigned flags) {
    REQUIRE(current && bytes > 0 && flags == 0);
    *into = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*into) return 2;
    memset(*into, 0xff, bytes);
    return 0;
}

int cuMemFreeHost(void *memory) {
    REQUIRE(current && memory);
    free(memory);
    return 0;
}

int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) {
    REQUIRE(current && to && from && stream == &uploads && !pending.bytes);
    pending = (Copy){to, from, bytes};
    return 0;
}

int cuEventCreate(Copy **event, unsigned flags) {
    REQUIRE(current && flags == 2); /* CU_EVENT_DISABLE_TIMING */
    *event = calloc(1, sizeof **event);
    return *event ? 0 : 2;
}

int cuEventRecord(Copy *event, void *stream) {
    REQUIRE(current && event && (!stream || stream == &uploads));
    if (stream) {
        *event = pending;
        pending.bytes = 0;
    }
    return 0;
}

int cuEventSynchronize(Copy *event) {
    REQUIRE(current && event);
    finish(event);
    return 0;
}

int cuStreamWaitEvent(void *stream, Copy *event, unsigned flags) {
    REQUIRE(current && event && (!stream || stream == &uploads) && flags == 0);
    finish(event);
    return 0;
}

int cuEventDestroy_v2(Copy *event) {
    REQUIRE(current && event && !event->bytes);
    free(event);
    return 0;
}

/* ---- Kernels ---- */

typedef struct {
    const char *name;
    void (*run)(const void *arguments, unsigned long long block);
} Function;

#define NAMED(name) { #name, dsom_##name }

static const Function functions[] = {
    NAMED(gather), NAMED(add_rows),      NAMED(compose), NAMED(flow),  NAMED(adagrad),
    NAMED(adagrad_rows), NAMED(cross_entropy), NAMED(ranks),   NAMED(widen), NAMED(distil),
    NAMED(standardise), NAMED(relu_gradient), NAMED(log_softmax), NAMED(adam),
    NAMED(embed),  NAMED(activate),      NAMED(normalise), NAMED(softmax), NAMED(means),
};

/* A cubin is an ELF file. */
int cuModuleLoadData(void **module, const void *image) {
    REQUIRE(current && memcmp(image, "\177ELF", 4) == 0);
    *module = (void *)functions;
    return 0;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
    REQUIRE(current && module == (void *)functions);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (strcmp(functions[i].name, name) == 0) {
            *function = (void *)&functions[i];
            return 0;
        }
    }
    return 500; /* CUDA_ERROR_NOT_FOUND */
}

int cuLaunchKernel(const Function *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned threads_y,
                   unsigned threads_z, unsigned shared, void *stream, void **parameters, void **extra) {
    REQUIRE(current && x > 0 && y == 1 && z == 1 && threads == 256 && threads_y == 1 && threads_z == 1);
    REQUIRE(shared == 0 && !stream && !extra);
    for (unsigned block = 0; block < x; block++) function->run(parameters[0], block);
    return 0;
}

int cuGetErrorName(int error, const char **name) {
    *name = error == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
    return 0;
}

int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }

/* ---- cuBLAS ---- */

/* The loader takes this library for another than libcuda, so it knows nothing of the thread's context. */
int cublasCreate_v2(void **handle) {
    *handle = &context;
    return 0;
}

/* C = alpha op(A) op(B) + beta C, column by column: element (i, j) of a matrix lies at i + j * ld. */
int cublasGemmEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha, const void *a,
                 int a_type, int lda, const void *b, int b_type, int ldb, const void *beta, void *c, int c_type,
                 int ldc, int compute, int algorithm) {
    const float *of_a = a, *of_b = b, factor = *(const float *)alpha, keep = *(const float *)beta;
    float *of_c = c;
    if (handle != &context || a_type || b_type || c_type || algorithm != -1) return 7;
    if (compute != 68 && compute != 75 && compute != 77) return 15;
    if (m < 0 || n < 0 || k < 0 || lda < (transpose_a ? k : m) || ldb < (transpose_b ? n : k) || ldc < m) return 7;
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double sum = 0.0;
            for (int l = 0; l < k; l++) {
                const float x = of_a[transpose_a ? l + (size_t)i * lda : i + (size_t)l * lda];
                const float y = of_b[transpose_b ? j + (size_t)l * ldb : l + (size_t)j * ldb];
                sum += (double)x * y;
            }
            float *into = of_c + i + (size_t)j * ldc;
            *into = factor * (float)sum + (keep == 0.0f ? 0.0f : keep * *into);
        }
    }
    return 0;
}

/* The same for lists of addresses, which lie on the device. */
int cublasGemmBatchedEx(void *handle, int transpose_a, int transpose_b, int m, int n, int k, const void *alpha,
                        const void *const *a, int a_type, int lda, const void *const *b, int b_type, int ldb,
                        const void *beta, void *const *c, int c_type, int ldc, int count, int compute, int algorithm) {
    if (count < 0) return 7;
    for (int i = 0; i < count; i++) {
        const int status = cublasGemmEx(handle, transpose_a, transpose_b, m, n, k, alpha, a[i], a_type, lda, b[i], b_type,
                                        ldb, beta, c[i], c_type, ldc, compute, algorithm);
        if (status) return status;
    }
    return 0;
}

/* Every kernel of the CUDA path, in the subset of C that NVRTC (as C++) and a C compiler both take.
 *
 * On a device a block has THREADS threads. The emulator (emulator.c) compiles the same text as plain C and runs a block's
 * threads one after the other, in whatever order, phase by phase, so that tests without a GPU check all but the hardware. For that to
 * work, kernels keep to three rules:
 *
 *  1. Code that differs between threads stands in a phase, EACH_THREAD { .. }, which ends with a barrier. What one phase
 *     leaves to the next lies in SHARED or global memory, never in a variable.
 *  2. Code outside phases is the same for all threads: it reads what phases left, and writes nothing but variables.
 *  3. What such code has read of SHARED or global memory is written by a later phase only after a BARRIER (the reductions end
 *     with one).
 *
 * A kernel takes one structure of arguments by value; `kernel.rs` has their twins. Sums run over a thread's elements in
 * single precision and over the threads in double precision, in a fixed order: no atomics, so a device gives the same bits
 * every time. Matrices are row-major; `(row, column)` names their axes.
 */

typedef unsigned int u32;
typedef unsigned long long u64;

#ifdef __CUDACC__
#define KERNEL(name, Arguments) extern "C" __global__ void __launch_bounds__(THREADS) name(const Arguments a)
#define FUNCTION static __device__ __forceinline__
#define SHARED __shared__
#define BLOCK ((u64)blockIdx.x)
#define BARRIER __syncthreads()
#define EACH_THREAD \
    for (u32 thread = threadIdx.x, once = 1; once; once = 0, __syncthreads())
#define NOTHING __longlong_as_double(0xfff0000000000000LL)
#define BITS(x) __float_as_uint(x)
#define FLOAT(x) __uint_as_float(x)
#endif

/* Stands for a score of minus infinity, but differences of two of them are 0 and not NaN. */
#define MASKED (-1e30f)
/* Elements that a block of an element-wise kernel has; as in `kernel.rs`. */
#define SPAN 4096

#define EACH(i, from, to) for (u64 i = (u64)(from) + thread; i < (u64)(to); i += THREADS)

/* The sums of what a phase left for each thread, over so many threads that follow each other, a power of two: each lies where
 * the first of them left its own. */
FUNCTION void sums_of(double *partial, u32 lanes) {
    for (u32 half = lanes / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread % lanes < half) partial[thread] += partial[thread + half];
        }
    }
}

/* The largest of them. */
FUNCTION void maxima_of(double *partial, u32 lanes) {
    for (u32 half = lanes / 2; half > 0; half /= 2) {
        EACH_THREAD {
            if (thread % lanes < half && partial[thread + half] > partial[thread]) partial[thread] = partial[thread + half];
        }
    }
}

/* The sum of what a phase left for each thread. */
FUNCTION double block_sum(double *partial) {
    sums_of(partial, THREADS);
    const double sum = partial[0];
    BARRIER;
    return sum;
}

/* The largest of what a phase left for each thread. */
FUNCTION double block_max(double *partial) {
    maxima_of(partial, THREADS);
    const double most = partial[0];
    BARRIER;
    return most;
}

/* ln(e^a + e^b). */
FUNCTION double log_add(double a, double b) {
    const double high = a > b ? a : b, low = a > b ? b : a;
    return high == NOTHING ? high : high + log1p(exp(low - high));
}

/* x ln x - x ln y, 0 for x = 0, given the logarithms. */
FUNCTION double divergence(double log_x, double log_y) {
    return log_x == NOTHING ? 0.0 : exp(log_x) * (log_x - log_y);
}

/* ---- Rows ---- */

/* into (number, width) = rows of table. A block per row. */
typedef struct {
    const float *table;
    const u32 *rows;
    float *into;
    u64 width;
} Gather;

KERNEL(gather, Gather) {
    const float *from = a.table + a.rows[BLOCK] * a.width;
    float *into = a.into + BLOCK * a.width;
    EACH_THREAD {
        EACH(i, 0, a.width) into[i] = from[i];
    }
}

/* gradient (entity - first, width) += used (number, width), where `rows` says which entity a number is. A block per
 * number; `rows`, and `used` with it, begin with the first of the range. */
typedef struct {
    float *gradient;
    const float *used;
    const u32 *rows;
    u64 width;
    u64 first;
} AddRows;

KERNEL(add_rows, AddRows) {
    float *onto = a.gradient + (a.rows[BLOCK] - a.first) * a.width;
    const float *from = a.used + BLOCK * a.width;
    EACH_THREAD {
        EACH(i, 0, a.width) onto[i] += from[i];
    }
}

/* ---- ComplEx ---- */

/* vectors (query, 2k) = heads[head_of] * relations[relation_of], complex products. A block per query. */
typedef struct {
    const float *heads;
    const float *relations;
    const u32 *head_of;
    const u32 *relation_of;
    float *vectors;
    u64 rank;
} Compose;

KERNEL(compose, Compose) {
    const u64 k = a.rank, width = 2 * k;
    const float *head = a.heads + a.head_of[BLOCK] * width, *relation = a.relations + a.relation_of[BLOCK] * width;
    float *vector = a.vectors + BLOCK * width;
    EACH_THREAD {
        EACH(i, 0, k) {
            vector[i] = head[i] * relation[i] - head[k + i] * relation[k + i];
            vector[k + i] = head[i] * relation[k + i] + head[k + i] * relation[i];
        }
    }
}

/* What flows from query vectors into one of their two factors, and N3: gradient (number, 2k) of the rows `own_of` of `own`,
 * from the query vectors at positions[starts[number]..], whose second factor is other[other_of[position]]. A block per
 * number; its part of the regulariser goes to `values`. `weight` is N3's over the batch's pairs, `pairs` how many of them a
 * number has a part in. */
typedef struct {
    const float *vector_gradient;
    const float *other;
    const float *own;
    const u32 *other_of;
    const u32 *own_of;
    const u32 *starts;
    const u32 *positions;
    const u32 *pairs;
    float *gradient;
    double *values;
    u64 rank;
    double weight;
} Flow;

KERNEL(flow, Flow) {
    const u64 k = a.rank, width = 2 * k;
    const u32 from = a.starts[BLOCK], to = a.starts[BLOCK + 1];
    const float *own = a.own + a.own_of[BLOCK] * width;
    float *onto = a.gradient + BLOCK * width;
    const double weight = a.weight * a.pairs[BLOCK];
    const float slope = (float)(3.0 * weight);
    SHARED double partial[THREADS];
    EACH_THREAD {
        float sum = 0.0f;
        EACH(i, 0, k) {
            float re = 0.0f, im = 0.0f;
            for (u32 use = from; use < to; use++) {
                const u64 position = a.positions[use];
                const float *g = a.vector_gradient + position * width, *o = a.other + a.other_of[position] * width;
                re += g[i] * o[i] + g[k + i] * o[k + i];
                im += g[k + i] * o[i] - g[i] * o[k + i];
            }
            const float square = own[i] * own[i] + own[k + i] * own[k + i], modulus = sqrtf(square);
            onto[i] = re + slope * modulus * own[i];
            onto[k + i] = im + slope * modulus * own[k + i];
            sum += square * modulus;
        }
        partial[thread] = sum;
    }
    const double cubes = block_sum(partial);
    EACH_THREAD {
        if (thread == 0) a.values[BLOCK] = weight * cubes;
    }
}

/* ---- Adagrad ---- */

FUNCTION void adagrad_step(float *parameter, float *square, float gradient, float rate) {
    const float sum = *square + gradient * gradient;
    *square = sum;
    *parameter -= rate * gradient / (sqrtf(sum) + 1e-10f);
}

/* s += g * g; x -= rate * g / (sqrt(s) + 1e-10), element by element. A block per SPAN elements. */
typedef struct {
    float *parameters;
    float *squares;
    const float *gradient;
    u64 count;
    float rate;
} Adagrad;

KERNEL(adagrad, Adagrad) {
    const u64 from = BLOCK * SPAN, to = from + SPAN < a.count ? from + SPAN : a.count;
    EACH_THREAD {
        EACH(i, from, to) adagrad_step(a.parameters + i, a.squares + i, a.gradient[i], a.rate);
    }
}

/* The same for some rows of the parameters alone: gradient (number, width) of `rows`. A block per number. */
typedef struct {
    float *parameters;
    float *squares;
    const float *gradient;
    const u32 *rows;
    u64 width;
    float rate;
} AdagradRows;

KERNEL(adagrad_rows, AdagradRows) {
    const u64 row = a.rows[BLOCK] * a.width;
    const float *gradient = a.gradient + BLOCK * a.width;
    EACH_THREAD {
        EACH(i, 0, a.width) adagrad_step(a.parameters + row + i, a.squares + row + i, gradient[i], a.rate);
    }
}

/* ---- Cross-entropy ---- */

/* scores (query, entity) become the gradient of the softmax cross-entropy summed over a query's tails, times `scale`. A
 * block per query; its loss, not scaled, goes to `losses`. */
typedef struct {
    float *scores;
    const u32 *starts;
    const u32 *tails;
    double *losses;
    u64 entities;
    u64 stride;
    double scale;
} CrossEntropy;

KERNEL(cross_entropy, CrossEntropy) {
    float *row = a.scores + BLOCK * a.stride;
    const u32 from = a.starts[BLOCK], to = a.starts[BLOCK + 1];
    SHARED double partial[THREADS];
    EACH_THREAD {
        float most = MASKED;
        EACH(i, 0, a.entities) most = row[i] > most ? row[i] : most;
        partial[thread] = most;
    }
    const float shift = (float)block_max(partial);
    EACH_THREAD {
        float sum = 0.0f;
        EACH(i, 0, a.entities) sum += expf(row[i] - shift);
        partial[thread] = sum;
    }
    const double sum = block_sum(partial);
    EACH_THREAD {
        double of_tails = 0.0;
        EACH(tail, from, to) of_tails += row[a.tails[tail]];
        partial[thread] = of_tails;
    }
    const double of_tails = block_sum(partial), count = to - from;
    const float factor = (float)(count * a.scale / sum);
    EACH_THREAD {
        EACH(i, 0, a.entities) row[i] = factor * expf(row[i] - shift);
    }
    EACH_THREAD {
        EACH(tail, from, to) row[a.tails[tail]] -= (float)a.scale;
        if (thread == 0) a.losses[BLOCK] = count * (shift + log(sum)) - of_tails;
    }
}

/* ---- Ranks ---- */

/* Ranks of targets in rows of scores (query, entity), which it overwrites, without the other known answers. A block per
 * query; its targets are targets[target_starts[query]..], ascending or not, its known answers known[known_starts[query]..],
 * ascending. `above` and `tied` count per target; `confidence` is the softmax probability of the first of the
 * candidates that the filter leaves. `finite` is 1 for a query whose scores all are. */
typedef struct {
    float *scores;
    const u32 *target_starts;
    const u32 *targets;
    const u32 *known_starts;
    const u32 *known;
    float *of_targets;
    u32 *above;
    u32 *tied;
    float *confidence;
    u32 *finite;
    u64 entities;
    u64 stride;
} Ranks;

FUNCTION int is_known(const u32 *known, u32 from, u32 to, u32 entity) {
    while (from < to) {
        const u32 middle = from + (to - from) / 2;
        if (known[middle] == entity) return 1;
        if (known[middle] < entity) from = middle + 1;
        else to = middle;
    }
    return 0;
}

KERNEL(ranks, Ranks) {
    float *row = a.scores + BLOCK * a.stride;
    const u32 from = a.target_starts[BLOCK], to = a.target_starts[BLOCK + 1];
    const u32 known_from = a.known_starts[BLOCK], known_to = a.known_starts[BLOCK + 1];
    SHARED double partial[THREADS], other[THREADS];
    for (u32 target = from; target < to; target++) {
        const u32 entity = a.targets[target];
        const float score = row[entity];
        EACH_THREAD {
            int above = 0, tied = 0;
            EACH(i, 0, a.entities) {
                above += row[i] > score;
                tied += row[i] == score;
            }
            EACH(i, known_from, known_to) {
                if (a.known[i] != entity) {
                    above -= row[a.known[i]] > score;
                    tied -= row[a.known[i]] == score;
                }
            }
            partial[thread] = above;
            other[thread] = tied;
        }
        const double above = block_sum(partial), tied = block_sum(other) - 1.0;
        EACH_THREAD {
            if (thread == 0) {
                a.above[target] = (u32)above;
                a.tied[target] = tied < 0.0 ? 0 : (u32)tied;
                a.of_targets[target] = score;
            }
        }
    }
    EACH_THREAD {
        float zeros = 0.0f;
        EACH(i, 0, a.entities) zeros += row[i] * 0.0f;
        partial[thread] = zeros;
    }
    const double zeros = block_sum(partial);
    EACH_THREAD {
        EACH(i, known_from, known_to) row[a.known[i]] = MASKED;
        if (thread == 0) a.finite[BLOCK] = zeros == 0.0;
    }
    EACH_THREAD {
        float most = MASKED;
        EACH(i, 0, a.entities) most = row[i] > most ? row[i] : most;
        partial[thread] = most;
    }
    const double highest = block_max(partial);
    EACH_THREAD {
        float sum = 0.0f;
        EACH(i, 0, a.entities) sum += expf(row[i] - (float)highest);
        partial[thread] = sum;
    }
    const double sum = block_sum(partial);
    EACH_THREAD {
        EACH(target, from, to) {
            double confidence = 1.0 / sum;
            /* A known target is a candidate beside the rest. */
            if (is_known(a.known, known_from, known_to, a.targets[target])) {
                const double score = a.of_targets[target], top = highest > score ? highest : score;
                confidence = 1.0 / (sum * exp(highest - top) + exp(score - top));
            }
            a.confidence[target] = (float)confidence;
        }
    }
}

/* ---- Half precision ---- */

/* into (row, width) = from, halves as they lie in a cache of soft labels. A block per row. */
typedef struct {
    const unsigned short *from;
    float *into;
    u64 width;
    u64 stride;
} Widen;

KERNEL(widen, Widen) {
    const unsigned short *from = a.from + BLOCK * a.width;
    float *into = a.into + BLOCK * a.stride;
    EACH_THREAD {
        EACH(i, 0, a.width) {
            const u32 half = from[i], sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
            /* Exponents differ by 112; multiplying by 2^112 also makes subnormal halves what they are. */
            const float value = FLOAT(magnitude << 13) * FLOAT((127u + 112u) << 23);
            into[i] = FLOAT(BITS(value) | sign);
        }
    }
}

/* ---- Distillation ---- */

/* Which term; as in `kernel.rs`. */
#define NONE 0
#define KD 1
#define NDKD 2
#define DKD 3

/* scores (query, entity) of the student become the gradient of cross-entropy plus distillation, as `dsom_distill` does
 * it row by row (its `objective` has the mathematics and the names). A block per query.
 *
 * A query has groups: combinations of teachers, each for some of its tails, targets[target_starts[g]..], and with a weight
 * of its own, `trust`; one for none asks for its log-sum alone. Group g's score of an entity is the sum over teachers m of
 * weights[g, m] * teachers[m, query, entity]. Masked student scores tell tails from other entities. Of every pair of query and
 * tail there is room in `of_tails` and `tail_gradients`, for DKD three times in `of_targets`; of every group in `shifts`
 * and `factors`; of every group and tail of its query in `group_scores`, from group_starts[g] on. Strides are numbers from
 * one row of scores to the next. */
typedef struct {
    float *scores;
    const float *teachers;
    const u32 *starts;
    const u32 *tails;
    const u32 *groups;
    const u32 *group_starts;
    const u32 *target_starts;
    const u32 *targets;
    const float *trust;
    const float *weights;
    double *of_tails;
    double *tail_gradients;
    double *of_targets;
    double *shifts;
    double *factors;
    double *log_sums;
    double *group_scores;
    double *cross_entropies;
    double *values;
    double *log_sums_exp;
    u64 entities;
    u64 stride;
    u64 teacher_stride;
    u64 queries;
    u64 members;
    u64 objective;
    u64 mean;
    double tau;
    double alpha;
    double beta;
    double scale;
    double weight;
} Distil;

/* Combination `group`'s score of an entity of the block's query. */
FUNCTION float combined(const Distil *a, u64 query, u32 group, u64 entity) {
    float sum = 0.0f;
    for (u64 m = 0; m < a->members; m++) {
        const float weight = a->weights[group * a->members + m];
        if (weight != 0.0f) sum += weight * a->teachers[(m * a->queries + query) * a->teacher_stride + entity];
    }
    return sum;
}

/* The largest of `count` numbers; nothing where there are none. */
FUNCTION double largest(const double *xs, u32 count, double *partial) {
    EACH_THREAD {
        double most = NOTHING;
        EACH(i, 0, count) most = xs[i] > most ? xs[i] : most;
        partial[thread] = most;
    }
    return block_max(partial);
}

/* ln of the sum of exp((x - shift) / tau) over `count` numbers; nothing where there are none. */
FUNCTION double log_sum(const double *xs, u32 count, double shift, double tau, double *partial) {
    const double most = largest(xs, count, partial);
    if (most == NOTHING) return NOTHING;
    EACH_THREAD {
        double sum = 0.0;
        EACH(i, 0, count) sum += exp((xs[i] - most) / tau);
        partial[thread] = sum;
    }
    return (most - shift) / tau + log(block_sum(partial));
}

/* ln b and ln(1 - b) of a side's group, where its tails' log-sum is `group` and the others' `rest`. */
FUNCTION void binary_logs(double group, double rest, double size, int mean, double *inside, double *outside) {
    const double total = log_add(group, rest), of_rest = rest - total;
    *inside = group - total - (mean ? log(size) : 0.0);
    *outside = mean ? log((size - 1.0 + exp(of_rest)) / size) : of_rest;
}

/* ln of the sum of exp((x - shift) / tau) over all entities but the tail number `target`, for one thread: `others` is that
 * of the entities that are no tails. */
FUNCTION double rest_of(const double *xs, u32 count, u32 target, double others, double shift, double tau) {
    double most = others, sum = 0.0;
    for (u32 i = 0; i < count; i++) {
        const double x = (xs[i] - shift) / tau;
        if (i != target && x > most) most = x;
    }
    if (most == NOTHING) return NOTHING;
    for (u32 i = 0; i < count; i++) {
        if (i != target) sum += exp((xs[i] - shift) / tau - most);
    }
    return most + log(sum + exp(others - most));
}

KERNEL(distil, Distil) {
    const u64 query = BLOCK;
    float *row = a.scores + query * a.stride;
    const u32 first = a.starts[query], size = a.starts[query + 1] - first;
    const u32 *tails = a.tails + first;
    double *of_tails = a.of_tails + first, *tail_gradients = a.tail_gradients + first;
    const double tau = a.objective == NONE ? 1.0 : a.tau;
    const float rate = (float)(1.0 / tau);
    SHARED double partial[THREADS], other[THREADS], third[THREADS];

    /* The student's side: tails apart, the others summed. */
    EACH_THREAD {
        EACH(i, 0, size) {
            of_tails[i] = row[tails[i]];
            tail_gradients[i] = 0.0;
            row[tails[i]] = MASKED;
        }
    }
    EACH_THREAD {
        float most = MASKED;
        EACH(i, 0, a.entities) most = row[i] > most ? row[i] : most;
        partial[thread] = most;
    }
    double shift = block_max(partial);
    if (shift <= MASKED) shift = largest(of_tails, size, partial);
    EACH_THREAD {
        float soft = 0.0f, full = 0.0f;
        EACH(i, 0, a.entities) {
            const float x = row[i] - (float)shift;
            soft += expf(x * rate);
            full += expf(x);
        }
        partial[thread] = soft;
        other[thread] = full;
    }
    const double others = log(block_sum(partial)), others_full = shift + log(block_sum(other));
    const double group_of_student = log_sum(of_tails, size, shift, tau, partial);
    const double log_sum_exp = log_add(others_full, log_sum(of_tails, size, 0.0, 1.0, partial));
    const double student_total = log_add(others, group_of_student);
    double softened_factor = 0.0, value = 0.0;

    for (u32 group = a.groups[query]; group < a.groups[query + 1]; group++) {
        double *scores = a.group_scores + a.group_starts[group];
        const u32 *targets = a.targets + a.target_starts[group];
        const u32 of_group = a.target_starts[group + 1] - a.target_starts[group];
        const double count = (double)a.trust[group] * of_group;
        EACH_THREAD {
            EACH(i, 0, size) scores[i] = combined(&a, query, group, tails[i]);
        }
        EACH_THREAD {
            float most = MASKED;
            EACH(i, 0, a.entities) {
                const float c = row[i] > MASKED ? combined(&a, query, group, i) : MASKED;
                most = c > most ? c : most;
            }
            partial[thread] = most;
        }
        double teacher_shift = block_max(partial);
        if (teacher_shift <= MASKED) teacher_shift = largest(scores, size, partial);
        EACH_THREAD {
            float soft = 0.0f, full = 0.0f, gap = 0.0f;
            EACH(i, 0, a.entities) {
                if (row[i] > MASKED) {
                    const float c = combined(&a, query, group, i), e = expf((c - (float)teacher_shift) * rate);
                    soft += e;
                    gap += e * (c - row[i]);
                    full += expf(c - (float)teacher_shift);
                }
            }
            partial[thread] = soft;
            other[thread] = gap;
            third[thread] = full;
        }
        const double soft = block_sum(partial), sum_of_gaps = block_sum(other);
        const double full = teacher_shift + log(block_sum(third));
        const double teacher_others = log(soft);
        const double log_sum_of_group = log_add(full, log_sum(scores, size, 0.0, 1.0, partial));
        const double group_of_teacher = log_sum(scores, size, teacher_shift, tau, partial);
        /* The mean of (c - z) / tau over the others, weighted by exp(c / tau), both relative to their shifts. */
        const double gap =
            teacher_others == NOTHING ? 0.0 : (sum_of_gaps / soft - (teacher_shift - shift)) / tau;
        const double scale = a.scale * a.weight / tau;
        double teacher_factor = 0.0;
        if (a.objective == KD && count > 0.0) {
            const double teacher_total = log_add(teacher_others, group_of_teacher);
            EACH_THREAD {
                double sum = 0.0;
                EACH(i, 0, size) {
                    const double c = (scores[i] - teacher_shift) / tau, z = (of_tails[i] - shift) / tau;
                    const double p_teacher = exp(c - teacher_total), p_student = exp(z - student_total);
                    sum += p_teacher * (c - z);
                    tail_gradients[i] += count * scale * (p_student - p_teacher);
                }
                partial[thread] = sum;
            }
            const double total_gap = exp(teacher_others - teacher_total) * gap + block_sum(partial);
            value += count * (total_gap - teacher_total + student_total);
            softened_factor += count * scale * exp(-student_total);
            teacher_factor = -count * scale * exp(-teacher_total);
        } else if (a.objective == NDKD && count > 0.0) {
            const int mean = a.mean && size > 1;
            double in_student, out_student, in_teacher, out_teacher;
            binary_logs(group_of_student, others, size, mean, &in_student, &out_student);
            binary_logs(group_of_teacher, teacher_others, size, mean, &in_teacher, &out_teacher);
            const double binary = divergence(in_teacher, in_student) + divergence(out_teacher, out_student);
            const double p_group = exp(group_of_student - student_total), p_rest = exp(others - student_total);
            const double ratio = mean ? p_rest / (size - 1.0 + p_rest) : 1.0;
            const double k = a.alpha * (-exp(in_teacher) * p_rest + exp(out_teacher) * p_group * ratio);
            EACH_THREAD {
                EACH(i, 0, size) {
                    const double z = (of_tails[i] - shift) / tau;
                    tail_gradients[i] += count * scale * k * exp(z - group_of_student);
                }
            }
            /* With no entity outside the group there is nothing to compare. */
            const double rest = others == NOTHING ? 0.0 : gap - teacher_others + others;
            value += count * (a.alpha * binary + a.beta * rest);
            softened_factor += others == NOTHING ? 0.0 : count * scale * (a.beta - k) * exp(-others);
            teacher_factor = teacher_others == NOTHING ? 0.0 : -count * scale * a.beta * exp(-teacher_others);
        } else if (a.objective == DKD && count > 0.0) {
            /* Each target is a group of its own; the query's other tails belong to the rest. */
            double *by_student = a.of_targets + 3 * first, *by_teacher = by_student + size, *ks = by_teacher + size;
            EACH_THREAD {
                double sum = 0.0, of_student = 0.0, of_teacher = 0.0;
                EACH(i, 0, of_group) {
                    const u32 target = targets[i];
                    const double z = (of_tails[target] - shift) / tau, c = (scores[target] - teacher_shift) / tau;
                    const double rest_student = rest_of(of_tails, size, target, others, shift, tau);
                    const double rest_teacher =
                        rest_of(scores, size, target, teacher_others, teacher_shift, tau);
                    double in_student, out_student, in_teacher, out_teacher;
                    binary_logs(z, rest_student, 1.0, 0, &in_student, &out_student);
                    binary_logs(c, rest_teacher, 1.0, 0, &in_teacher, &out_teacher);
                    const double binary =
                        divergence(in_teacher, in_student) + divergence(out_teacher, out_student);
                    const double k =
                        a.alpha * (exp(out_teacher) * exp(in_student) - exp(in_teacher) * exp(out_student));
                    double rest_gap = exp(teacher_others - rest_teacher) * gap;
                    for (u32 j = 0; j < size; j++) {
                        const double other_z = (of_tails[j] - shift) / tau;
                        const double other_c = (scores[j] - teacher_shift) / tau;
                        if (j != target) rest_gap += exp(other_c - rest_teacher) * (other_c - other_z);
                    }
                    ks[i] = k;
                    by_student[i] = (a.beta - k) * exp(-rest_student);
                    by_teacher[i] = -a.beta * exp(-rest_teacher);
                    sum += a.alpha * binary + a.beta * (rest_gap - rest_teacher + rest_student);
                    of_student += by_student[i];
                    of_teacher += by_teacher[i];
                }
                partial[thread] = sum;
                other[thread] = of_student;
                third[thread] = of_teacher;
            }
            const double trusted = a.trust[group] * scale;
            EACH_THREAD {
                EACH(j, 0, size) {
                    const double z = exp((of_tails[j] - shift) / tau), c = exp((scores[j] - teacher_shift) / tau);
                    double sum = 0.0;
                    for (u32 i = 0; i < of_group; i++) {
                        sum += targets[i] == j ? ks[i] : by_student[i] * z + by_teacher[i] * c;
                    }
                    tail_gradients[j] += trusted * sum;
                }
            }
            value += a.trust[group] * block_sum(partial);
            softened_factor += trusted * block_sum(other);
            teacher_factor = trusted * block_sum(third);
        }
        EACH_THREAD {
            if (thread == 0) {
                a.shifts[group] = teacher_shift;
                a.factors[group] = teacher_factor;
                a.log_sums[group] = log_sum_of_group;
            }
        }
    }

    const float factor = (float)(size * a.scale * exp(shift - log_sum_exp)), softened = (float)softened_factor;
    EACH_THREAD {
        EACH(i, 0, a.entities) {
            if (row[i] > MASKED) {
                const float x = row[i] - (float)shift;
                float gradient = factor * expf(x) + softened * expf(x * rate);
                for (u32 group = a.groups[query]; group < a.groups[query + 1]; group++) {
                    const float by = (float)a.factors[group];
                    if (by != 0.0f) {
                        gradient += by * expf((combined(&a, query, group, i) - (float)a.shifts[group]) * rate);
                    }
                }
                row[i] = gradient;
            }
        }
    }
    EACH_THREAD {
        double sum = 0.0;
        EACH(i, 0, size) {
            const double log_p = of_tails[i] - log_sum_exp;
            sum -= log_p;
            row[tails[i]] = (float)(a.scale * (size * exp(log_p) - 1.0) + tail_gradients[i]);
        }
        partial[thread] = sum;
    }
    const double cross_entropy = block_sum(partial);
    EACH_THREAD {
        if (thread == 0) {
            a.cross_entropies[query] = cross_entropy;
            a.values[query] = value;
            a.log_sums_exp[query] = log_sum_exp;
        }
    }
}

/* ---- Layers ---- */

/* Which activation; as in `encoder.rs`. */
#define IDENTITY 0
#define GELU 1
#define GELU_TANH 2
#define RELU 3
#define SILU 4

FUNCTION float activated(u64 activation, float x) {
    switch (activation) {
        case GELU: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
        case GELU_TANH: return 0.5f * x * (1.0f + tanhf(0.79788456f * x * (1.0f + 0.044715f * x * x)));
        case RELU: return x > 0.0f ? x : 0.0f;
        case SILU: return x / (1.0f + expf(-x));
        default: return x;
    }
}

/* xs (row, width) = activation(xs + bias). A block per row. */
typedef struct {
    float *xs;
    const float *bias;
    u64 width;
    u64 activation;
} Activate;

KERNEL(activate, Activate) {
    float *row = a.xs + BLOCK * a.width;
    EACH_THREAD {
        EACH(i, 0, a.width) row[i] = activated(a.activation, row[i] + a.bias[i]);
    }
}

/* ---- The policy's network ---- */

/* How rows are standardised; as in `network.rs`. */
#define DEVIATION 1
#define SQUARE 2

/* into (number, width) = rows of `from`, standardised: to mean 0 and deviation 1, or to mean square 1, or left as they
 * are; a row without deviation or square becomes zeros. Strides are numbers from one row to the next. A block per row. */
typedef struct {
    const float *from;
    const u32 *rows;
    float *into;
    u64 width;
    u64 from_stride;
    u64 into_stride;
    u64 kind;
} Standardise;

KERNEL(standardise, Standardise) {
    const float *from = a.from + a.rows[BLOCK] * a.from_stride;
    float *into = a.into + BLOCK * a.into_stride;
    SHARED double partial[THREADS];
    float mean = 0.0f, rate = 1.0f;
    if (a.kind == DEVIATION) {
        EACH_THREAD {
            float sum = 0.0f;
            EACH(i, 0, a.width) sum += from[i];
            partial[thread] = sum;
        }
        mean = (float)(block_sum(partial) / a.width);
    }
    if (a.kind == DEVIATION || a.kind == SQUARE) {
        EACH_THREAD {
            float sum = 0.0f;
            EACH(i, 0, a.width) sum += (from[i] - mean) * (from[i] - mean);
            partial[thread] = sum;
        }
        const double square = block_sum(partial) / a.width;
        rate = square > 0.0 ? (float)(1.0 / sqrt(square)) : 0.0f;
    }
    EACH_THREAD {
        EACH(i, 0, a.width) into[i] = (from[i] - mean) * rate;
    }
}

/* gradient becomes 0 where the hidden layer is. A block per SPAN elements. */
typedef struct {
    float *gradient;
    const float *hidden;
    u64 count;
} ReluGradient;

KERNEL(relu_gradient, ReluGradient) {
    const u64 from = BLOCK * SPAN, to = from + SPAN < a.count ? from + SPAN : a.count;
    EACH_THREAD {
        EACH(i, from, to) {
            if (a.hidden[i] <= 0.0f) a.gradient[i] = 0.0f;
        }
    }
}

/* logits (query, width) become the logarithms of softmax(logits + bias). A block per query. */
typedef struct {
    float *logits;
    const float *bias;
    u64 width;
} LogSoftmax;

KERNEL(log_softmax, LogSoftmax) {
    float *row = a.logits + BLOCK * a.width;
    SHARED double partial[THREADS];
    EACH_THREAD {
        double most = NOTHING;
        EACH(i, 0, a.width) {
            row[i] += a.bias[i];
            most = row[i] > most ? row[i] : most;
        }
        partial[thread] = most;
    }
    const double most = block_max(partial);
    EACH_THREAD {
        double sum = 0.0;
        EACH(i, 0, a.width) sum += exp(row[i] - most);
        partial[thread] = sum;
    }
    const double log_sum = most + log(block_sum(partial));
    EACH_THREAD {
        EACH(i, 0, a.width) row[i] = (float)(row[i] - log_sum);
    }
}

/* m = decay m + share g, v = decay v + share g g, x -= rate m / (sqrt(correction v) + epsilon), element by element. A
 * block per SPAN elements. */
typedef struct {
    float *parameters;
    float *means;
    float *squares;
    const float *gradient;
    u64 count;
    float mean_decay;
    float mean_share;
    float square_decay;
    float square_share;
    float rate;
    float correction;
    float epsilon;
} Adam;

KERNEL(adam, Adam) {
    const u64 from = BLOCK * SPAN, to = from + SPAN < a.count ? from + SPAN : a.count;
    EACH_THREAD {
        EACH(i, from, to) {
            const float g = a.gradient[i];
            const float mean = a.mean_decay * a.means[i] + a.mean_share * g;
            const float square = a.square_decay * a.squares[i] + a.square_share * g * g;
            a.means[i] = mean;
            a.squares[i] = square;
            a.parameters[i] -= a.rate * mean / (sqrtf(square * a.correction) + a.epsilon);
        }
    }
}

/* ---- Encoders ---- */

/* Rows of an encoder are too short for all threads of a block: each has LANES of them, and a block ROWS rows. */
#define ROWS 4
#define LANES (THREADS / ROWS)
#define LANE (thread % LANES)
#define ROW (BLOCK * ROWS + thread / LANES)
/* What a reduction over a row's threads left. */
#define OF_ROW(partial) partial[thread - LANE]
#define EACH_OF_ROW(i, width) for (u64 i = LANE; i < (width); i += LANES)

/* Stands for a token without a row; as in `encoder.rs`. */
#define ROWLESS 0xffffffffu

/* into (token, width) = positions[places] + table[rows], a token's position alone where it has no row. A block per token. */
typedef struct {
    const float *table;
    const u32 *rows;
    const float *positions;
    const u32 *places;
    float *into;
    u64 width;
} Embed;

KERNEL(embed, Embed) {
    const u32 row = a.rows[BLOCK];
    const float *content = row == ROWLESS ? 0 : a.table + row * a.width;
    const float *position = a.positions + a.places[BLOCK] * a.width;
    float *into = a.into + BLOCK * a.width;
    EACH_THREAD {
        EACH(i, 0, a.width) into[i] = (content ? content[i] : 0.0f) + position[i];
    }
}

/* states (row, width) += bias, where there is one; into = (states - mean) / sqrt(variance + epsilon) * weight + shift, with each
 * row's own mean and variance. `into` may be `states`. A block per ROWS rows. */
typedef struct {
    float *states;
    const float *bias;
    const float *weight;
    const float *shift;
    float *into;
    u64 rows;
    u64 width;
    float epsilon;
} Normalise;

KERNEL(normalise, Normalise) {
    SHARED double sums[THREADS], squares[THREADS];
    EACH_THREAD {
        float sum = 0.0f;
        if (ROW < a.rows) {
            float *row = a.states + ROW * a.width;
            EACH_OF_ROW(i, a.width) {
                if (a.bias) row[i] += a.bias[i];
                sum += row[i];
            }
        }
        sums[thread] = sum;
    }
    sums_of(sums, LANES);
    EACH_THREAD {
        float sum = 0.0f;
        if (ROW < a.rows) {
            const float *row = a.states + ROW * a.width, mean = (float)(OF_ROW(sums) / a.width);
            EACH_OF_ROW(i, a.width) sum += (row[i] - mean) * (row[i] - mean);
        }
        squares[thread] = sum;
    }
    sums_of(squares, LANES);
    EACH_THREAD {
        if (ROW < a.rows) {
            const float *row = a.states + ROW * a.width, mean = (float)(OF_ROW(sums) / a.width);
            const float rate = 1.0f / sqrtf((float)(OF_ROW(squares) / a.width) + a.epsilon);
            float *into = a.into + ROW * a.width;
            EACH_OF_ROW(i, a.width) into[i] = (row[i] - mean) * rate * a.weight[i] + a.shift[i];
        }
    }
}

/* scores (row, width) become each row's softmax. A block per ROWS rows. */
typedef struct {
    float *scores;
    u64 rows;
    u64 width;
} Softmax;

KERNEL(softmax, Softmax) {
    SHARED double highest[THREADS], sums[THREADS];
    EACH_THREAD {
        float most = MASKED;
        if (ROW < a.rows) {
            const float *row = a.scores + ROW * a.width;
            EACH_OF_ROW(i, a.width) most = row[i] > most ? row[i] : most;
        }
        highest[thread] = most;
    }
    maxima_of(highest, LANES);
    EACH_THREAD {
        float sum = 0.0f;
        if (ROW < a.rows) {
            float *row = a.scores + ROW * a.width;
            const float shift = (float)OF_ROW(highest);
            EACH_OF_ROW(i, a.width) {
                row[i] = expf(row[i] - shift);
                sum += row[i];
            }
        }
        sums[thread] = sum;
    }
    sums_of(sums, LANES);
    EACH_THREAD {
        if (ROW < a.rows) {
            float *row = a.scores + ROW * a.width;
            const float factor = (float)(1.0 / OF_ROW(sums));
            EACH_OF_ROW(i, a.width) row[i] *= factor;
        }
    }
}

/* into (sequence, width) = the mean over states (token, width) from firsts[sequence] up to ends[sequence]. A block per
 * sequence. */
typedef struct {
    const float *states;
    const u32 *firsts;
    const u32 *ends;
    float *into;
    u64 width;
} Means;

KERNEL(means, Means) {
    const u64 first = a.firsts[BLOCK], end = a.ends[BLOCK];
    float *into = a.into + BLOCK * a.width;
    EACH_THREAD {
        EACH(i, 0, a.width) {
            float sum = 0.0f;
            for (u64 token = first; token < end; token++) sum += a.states[token * a.width + i];
            into[i] = sum / (float)(end - first);
        }
    }
}

// A list of operations in one launch: every work-group walks its own list of jobs, and work-groups meet at a
// grid-wide barrier only where an operation needs what another has written.
//
// A job is one chunk of the input channels of one tile of one operation (see `Job`). Weights do not depend on
// activations, so those of the next job are copied to local memory while this one computes and waits; they lie
// in the order in which the lanes of a warp hand them to the tensor cores.
//
// Defined by the host: PRECISION (0: f32 as three products of tf32, 1: tf32, 2: f16), GROUPS (the work-groups of a
// launch, all resident at once), WEIGHT_BYTES and TILE_BYTES (local memory), BULK where the device copies whole blocks
// by itself (sm_90), EMULATE where there is no PTX.

#define INLINE static inline __attribute__((always_inline))
#define THREADS 512
#define WARPS 16
#if PRECISION == 2
#define ESIZE 2
#else
#define ESIZE 4
#endif
#define VECTOR (16 / ESIZE)

// Mirrored by `Job` on the host: 108 integers. Offsets and strides are in bytes unless another unit is named.
// Divisors come as `ceil(2^32 / d)`, and as 0 for 1.
typedef struct {
    int kind;          // GEMM, WINDOW or NOTHING
    int flags;         // with three bits each for the memory of source, residual and output
    int weights, weights_count;    // this tile's weights, in units of 16 bytes
    int shared, shared_count;      // weights of the depthwise part, the same for every tile
    // The tile of the input.
    int source, source_batch, source_row, source_pixel, source_channel;
    int tile_height, tile_width, first_row, first_column, height, width, images;
    int tile_vectors, pixel_vectors, channels, pixel_stride;
    int by_pixel_vectors, by_tile_width, by_tile_height;
    // The left operand.
    int rows, rows_log2_tiles, by_image_rows, image_rows, by_row_width, row_width;
    int a_start, a_image, a_row, a_pixel;
    int units, channel_units, by_channel_units, kernel_width, by_kernel_width, tap_row, tap_column;
    int columns_log2;
    // The output.
    int output, output_batch, output_row, output_pixel;
    int output_rows, by_output_image, output_image, by_output_width, output_width;
    int valid_images, valid_rows, valid_columns, valid_channels;
    int residual, activation;
    int pool_height, pool_width, pool_row, pool_image;
    // A depthwise convolution or a mean before the product.
    int before, before_taps, before_width, before_activation, before_row, before_column;
    int before_image_stride, before_row_stride, before_pixel_stride, before_stride, before_bias;
    float before_scale;
    float bias[32];
} Job;

#define JOB_INTS 108
#define UNITS 320
#define JOB_VECTORS (JOB_INTS / 4)

enum { GEMM = 0, WINDOW = 1, NOTHING = 2 };
enum { BARRIER = 1, FIRST = 2, LAST = 4, SCALAR = 8, EIGHT_ROWS = 16 };
#define SOURCE_MEMORY(flags) (flags >> 8 & 7)
#define RESIDUAL_MEMORY(flags) (flags >> 11 & 7)
#define OUTPUT_MEMORY(flags) (flags >> 14 & 7)
enum { BEFORE_NONE = 0, BEFORE_DEPTHWISE = 1, BEFORE_MEAN = 2 };
enum { WINDOW_MAX = 0, WINDOW_MEAN = 1, WINDOW_MEAN_VALID = 2, WINDOW_DEPTHWISE = 3 };

INLINE uint divide(uint value, int magic) { return magic ? mul_hi(value, (uint)magic) : value; }

INLINE float activate(float x, int activation) {
    // Comparisons that are false for NaN keep it.
    if (activation == 1 || activation == 2) x = x < 0.0f ? 0.0f : x;
    if (activation == 2) x = x > 6.0f ? 6.0f : x;
    if (activation == 3) x = 1.0f / (1.0f + exp(-x));
    return x;
}

#ifdef EMULATE
INLINE void copy16(__local uchar *to, __global const uchar *from, bool valid) {
    *(__local uint4 *)to = valid ? *(__global const uint4 *)from : (uint4)(0);
}
#define copies_commit()
#define copies_wait(n)
INLINE float half_to_float(uint bits) { ushort h = (ushort)bits; return vload_half(0, (const __private half *)&h); }
INLINE uint float_to_half(float x) { ushort h; vstore_half_rte(x, 0, (__private half *)&h); return h; }
INLINE uint pack_half(float low, float high) { return float_to_half(low) | (float_to_half(high) << 16); }
INLINE float2 unpack_half(uint pair) { return (float2)(half_to_float(pair & 0xffff), half_to_float(pair >> 16)); }
INLINE float to_tf32(float x) {
    uint bits = as_uint(x);
    return (bits & 0x7f800000) == 0x7f800000 ? x : as_float((bits + 0x1000) & 0xffffe000);
}
#else
INLINE uint local_address(const __local void *p) {
    uint address;
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(address)
        : "l"((ulong)(__generic const void *)p));
    return address;
}
INLINE void copy16(__local uchar *to, __global const uchar *from, bool valid) {
    uint bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(local_address(to)), "l"((ulong)from), "r"(bytes)
        : "memory");
}
#define copies_commit() asm volatile("cp.async.commit_group;" ::: "memory")
#define copies_wait(n) asm volatile("cp.async.wait_group " #n ";" ::: "memory")
INLINE uint pack_half(float low, float high) {
    uint pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
INLINE float2 unpack_half(uint pair) {
    float2 x;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }" : "=f"(x.x), "=f"(x.y) : "r"(pair));
    return x;
}
INLINE float half_to_float(uint bits) { return unpack_half(bits).x; }
INLINE uint float_to_half(float x) { return pack_half(x, 0.0f) & 0xffff; }
INLINE float to_tf32(float x) {
    uint bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return as_float(bits);
}
INLINE uint4 load_matrices(uint address) {
    uint4 a;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(a.x), "=r"(a.y), "=r"(a.z), "=r"(a.w) : "r"(address) : "memory");
    return a;
}
INLINE void multiply_f16(float4 *c, uint4 a, uint2 b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c->x), "+f"(c->y), "+f"(c->z), "+f"(c->w)
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
INLINE void multiply_tf32(float4 *c, uint4 a, uint2 b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c->x), "+f"(c->y), "+f"(c->z), "+f"(c->w)
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b.x), "r"(b.y));
}
INLINE uint4 round4(uint4 a) {
    return as_uint4((float4)(to_tf32(as_float(a.x)), to_tf32(as_float(a.y)), to_tf32(as_float(a.z)), to_tf32(as_float(a.w))));
}
// What rounding left of a number; nothing of an infinity.
INLINE float rest(float x, float big) { return fabs(big) < INFINITY ? to_tf32(x - big) : 0.0f; }
// An infinity has met the other factor's big part; its small part, which may be a zero, is none of its business.
INLINE float finite(float big) { return fabs(big) < INFINITY ? big : 0.0f; }

// One step of 16 (f16) or 8 (otherwise) of the inner dimension.
INLINE void multiply(float4 *c, float4 *small, uint4 a, uint2 b) {
#if PRECISION == 2
    multiply_f16(c, a, b);
#elif PRECISION == 1
    multiply_tf32(c, round4(a), b);
#else
    // Each factor is a sum of two numbers of tf32; the product of the small ones is below the precision of f32.
    const uint4 big_a = round4(a);
    const float4 x = as_float4(a), big_x = as_float4(big_a);
    const uint4 small_a = as_uint4((float4)(rest(x.x, big_x.x), rest(x.y, big_x.y), rest(x.z, big_x.z), rest(x.w, big_x.w)));
    const uint4 finite_a = as_uint4((float4)(finite(big_x.x), finite(big_x.y), finite(big_x.z), finite(big_x.w)));
    const float2 y = as_float2(b), big_y = (float2)(to_tf32(y.x), to_tf32(y.y));
    const uint2 small_b = as_uint2((float2)(rest(y.x, big_y.x), rest(y.y, big_y.y)));
    const uint2 finite_b = as_uint2((float2)(finite(big_y.x), finite(big_y.y))), big_b = as_uint2(big_y);
    multiply_tf32(small, small_a, finite_b);
    multiply_tf32(small, finite_a, small_b);
    multiply_tf32(c, big_a, big_b);
#endif
}
#endif

// Tells the other work-groups that this one has come to its barrier.
INLINE void grid_arrive(__global uint *sync, int thread) {
#ifndef EMULATE
    if (thread == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" :: "l"((ulong)sync) : "memory");
#endif
}

// Waits until every work-group has arrived `times` times. Ends in an error of the launch rather than hang.
INLINE void grid_wait(__global uint *sync, uint times, int thread) {
#ifndef EMULATE
    if (thread == 0) {
        uint seen, polls = 0, goal = times * GROUPS;
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"((ulong)sync) : "memory");
            if (++polls == (1u << 22)) asm volatile("trap;");
        } while (seen < goal);
    }
#endif
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
}

#ifdef BULK
INLINE void arrivals_begin(__local ulong *arrived) {
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" :: "r"(local_address(arrived)) : "memory");
}
INLINE void copy_block(__local uchar *to, __global const uchar *from, uint bytes, __local ulong *arrived) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        :: "r"(local_address(to)), "l"((ulong)from), "r"(bytes), "r"(local_address(arrived)) : "memory");
}
INLINE void copy_weights(__local uchar *to, __global const uchar *weights, __local const Job *job, __local ulong *arrived, int thread) {
    // The last warp has the fewest units to multiply.
    if (thread == THREADS - 32) {
        const uint own = job->weights_count * 16, shared = job->shared_count * 16;
        asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" :: "r"(local_address(arrived)), "r"(own + shared) : "memory");
        if (own) copy_block(to, weights + (ulong)(uint)job->weights * 16, own, arrived);
        if (shared) copy_block(to + own, weights + (ulong)(uint)job->shared * 16, shared, arrived);
    }
}
INLINE void wait_weights(__local ulong *arrived, uint parity) {
    uint done = 0;
    // A copy always ends: the bound only keeps a fault from becoming a hang.
    for (uint polls = 0; !done && polls < (1u << 24); polls++)
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
            : "=r"(done) : "r"(local_address(arrived)), "r"(parity) : "memory");
}
#else
#define arrivals_begin(arrived)
INLINE void copy_weights(__local uchar *to, __global const uchar *weights, __local const Job *job, __local ulong *arrived, int thread) {
    __global const uchar *from = weights + (ulong)(uint)job->weights * 16;
    const int count = job->weights_count, shared = job->shared_count;
    for (int i = thread; i < count; i += THREADS) copy16(to + i * 16, from + (ulong)i * 16, true);
    from = weights + (ulong)(uint)job->shared * 16;
    to += count * 16;
    for (int i = thread; i < shared; i += THREADS) copy16(to + i * 16, from + (ulong)i * 16, true);
    copies_commit();
}
#define wait_weights(arrived, parity)
#endif

INLINE float load_element(__global const uchar *from) {
#if PRECISION == 2
    return half_to_float(*(__global const ushort *)from);
#else
    return *(__global const float *)from;
#endif
}

INLINE void store_element(__global uchar *to, float x) {
#if PRECISION == 2
    *(__global ushort *)to = (ushort)float_to_half(x);
#else
    *(__global float *)to = x;
#endif
}

// The tile of the input in local memory: pixels in rows, zeros where the window hangs over the border and where the
// channels do not fill the last unit. Which vector goes where is worked out before the barrier, for the first few.
#define PLANNED 6
#define ZEROS 0xffffffffu

typedef struct {
    uint from[PLANNED], to[PLANNED];
} TilePlan;

INLINE void tile_vector(__local const Job *job, uint i, uint *from, uint *to) {
    const uint pixel = divide(i, job->by_pixel_vectors), vector = i - pixel * job->pixel_vectors;
    const uint line = divide(pixel, job->by_tile_width), x = pixel - line * job->tile_width;
    const uint image = divide(line, job->by_tile_height), y = line - image * job->tile_height;
    const uint row = y + job->first_row, column = x + job->first_column;
    const bool inside = (row < (uint)job->height) & (column < (uint)job->width) & (image < (uint)job->images)
        & (vector * VECTOR < (uint)job->channels);
    *from = inside ? image * job->source_batch + row * job->source_row + column * job->source_pixel + vector * VECTOR * job->source_channel : ZEROS;
    *to = pixel * job->pixel_stride + vector * 16;
}

INLINE void load_tile(__local uchar *tile, __global const uchar *source, __local const Job *job, const TilePlan *plan, int thread) {
    const int vectors = job->tile_vectors;
    if (!(job->flags & SCALAR)) {
#pragma unroll
        for (int k = 0; k < PLANNED; k++) {
            if (thread + k * THREADS < vectors) {
                const bool inside = plan->from[k] != ZEROS;
                copy16(tile + plan->to[k], source + (inside ? plan->from[k] : 0), inside);
            }
        }
#pragma unroll 1
        for (int i = thread + PLANNED * THREADS; i < vectors; i += THREADS) {
            uint from, to;
            tile_vector(job, i, &from, &to);
            copy16(tile + to, source + (from != ZEROS ? from : 0), from != ZEROS);
        }
    } else {
        const int per_pixel = job->pixel_vectors, channels = job->channels;
#pragma unroll 1
        for (int i = thread; i < vectors; i += THREADS) {
            uint from, to;
            tile_vector(job, i, &from, &to);
            const int vector = i - divide(i, job->by_pixel_vectors) * per_pixel;
            float x[VECTOR];
            for (int k = 0; k < VECTOR; k++) {
                x[k] = from != ZEROS && vector * VECTOR + k < channels ? load_element(source + from + (uint)(k * job->source_channel)) : 0.0f;
            }
#if PRECISION == 2
            *(__local uint4 *)(tile + to) = (uint4)(pack_half(x[0], x[1]), pack_half(x[2], x[3]), pack_half(x[4], x[5]), pack_half(x[6], x[7]));
#else
            *(__local float4 *)(tile + to) = (float4)(x[0], x[1], x[2], x[3]);
#endif
        }
    }
}

typedef struct {
    float x[VECTOR];
} Vector;

INLINE Vector load_vector(__local const uchar *from) {
    Vector v;
    uint4 bits = *(__local const uint4 *)from;
#if PRECISION == 2
    float2 p = unpack_half(bits.x), q = unpack_half(bits.y), r = unpack_half(bits.z), s = unpack_half(bits.w);
    v.x[0] = p.x; v.x[1] = p.y; v.x[2] = q.x; v.x[3] = q.y; v.x[4] = r.x; v.x[5] = r.y; v.x[6] = s.x; v.x[7] = s.y;
#else
    float4 f = as_float4(bits);
    v.x[0] = f.x; v.x[1] = f.y; v.x[2] = f.z; v.x[3] = f.w;
#endif
    return v;
}

// The depthwise convolution or mean of the tile, as rows of the left operand behind it.
INLINE void before_product(__local uchar *tile, __local const uchar *shared, __local const Job *job, int thread) {
    const int per_pixel = job->pixel_vectors, count = job->rows * per_pixel, taps = job->before_taps;
    const int by_column = job->before_column, by_row = job->before_row, by_tap = job->before_stride, width = job->before_width;
    const bool depthwise = job->before == BEFORE_DEPTHWISE;
#pragma unroll 1
    for (int i = thread; i < count; i += THREADS) {
        const uint row = divide(i, job->by_pixel_vectors), vector = i - row * per_pixel;
        const uint image = divide(row, job->by_image_rows), in_image = row - image * job->image_rows;
        const uint y = divide(in_image, job->by_row_width), x = in_image - y * job->row_width;
        __local const uchar *from = tile + image * job->before_image_stride + y * job->before_row_stride
            + x * job->before_pixel_stride + vector * 16;
        __local const uchar *weight = shared + vector * 16;
        float sum[VECTOR];
        for (int k = 0; k < VECTOR; k++) sum[k] = 0.0f;
        if (depthwise && width == 3 && taps == 9) {
#pragma unroll
            for (int ky = 0; ky < 3; ky++) {
#pragma unroll
                for (int kx = 0; kx < 3; kx++) {
                    const Vector v = load_vector(from + kx * by_column), w = load_vector(weight + kx * by_tap);
                    for (int k = 0; k < VECTOR; k++) sum[k] = fma(v.x[k], w.x[k], sum[k]);
                }
                from += by_row;
                weight += 3 * by_tap;
            }
        } else {
            int column = 0;
#pragma unroll 1
            for (int tap = 0; tap < taps; tap++) {
                const Vector v = load_vector(from + column * by_column);
                if (depthwise) {
                    const Vector w = load_vector(weight);
                    for (int k = 0; k < VECTOR; k++) sum[k] = fma(v.x[k], w.x[k], sum[k]);
                    weight += by_tap;
                } else {
                    for (int k = 0; k < VECTOR; k++) sum[k] += v.x[k];
                }
                if (++column == width) {
                    column = 0;
                    from += by_row;
                }
            }
        }
        for (int k = 0; k < VECTOR; k++) {
            const float bias = depthwise ? *(__local const float *)(shared + job->before_bias + (vector * VECTOR + k) * 4) : 0.0f;
            sum[k] = activate(sum[k] * job->before_scale + bias, job->before_activation);
        }
        __local uchar *to = tile + job->a_start + row * job->a_pixel + vector * 16;
#if PRECISION == 2
        *(__local uint4 *)to = (uint4)(pack_half(sum[0], sum[1]), pack_half(sum[2], sum[3]), pack_half(sum[4], sum[5]), pack_half(sum[6], sum[7]));
#else
        *(__local float4 *)to = (float4)(sum[0], sum[1], sum[2], sum[3]);
#endif
    }
}

// Where a row of the left operand begins in the tile.
INLINE uint row_start(__local const Job *job, uint row) {
    row = min(row, (uint)job->rows - 1);
    const uint image = divide(row, job->by_image_rows), in_image = row - image * job->image_rows;
    const uint y = divide(in_image, job->by_row_width), x = in_image - y * job->row_width;
    return job->a_start + image * job->a_image + y * job->a_row + x * job->a_pixel;
}

// Where each unit of the inner dimension begins within a row's window.
INLINE void list_units(__local uint *starts, __local const Job *job, int thread) {
    const uint units = job->units;
    for (uint unit = thread; unit < units; unit += THREADS) {
        const uint tap = divide(unit, job->by_channel_units), channel = unit - tap * job->channel_units;
        const uint y = divide(tap, job->by_kernel_width), x = tap - y * job->kernel_width;
        starts[unit] = y * job->tap_row + x * job->tap_column + channel * 64;
    }
}

// One warp's share: 16 rows (or 8) by `8 * column_tiles` columns (or 4), over every `slices`th unit of 64 bytes of the
// inner dimension.
#ifdef EMULATE
INLINE void product(float4 *sum, __local const uchar *tile, __local const uchar *weights, __local const uint *starts, __local const Job *job, int warp, int lane) {
    const int tile_index = warp & ((1 << job->rows_log2_tiles) - 1), slice = warp >> job->rows_log2_tiles;
    const int slices = WARPS >> job->rows_log2_tiles, unit_bytes = 64 << job->columns_log2;
    for (int unit = slice; unit < job->units; unit += slices) {
        for (int column = lane % 4 * 2; column < 1 << job->columns_log2; column += 8) {
            float result[4] = {0, 0, 0, 0};
            for (int k = 0; k < 64 / ESIZE; k++) {
                for (int r = 0; r < 2; r++) {
                    if ((job->flags & EIGHT_ROWS) && r) continue;
                    __local const uchar *a = tile + row_start(job, tile_index * 16 + r * 8 + lane / 4) + starts[unit] + k * ESIZE;
                    for (int c = 0; c < 2; c++) {
#if PRECISION == 2
                        const int step = k / 16, in = k % 16, holder = (column + c) * 4 + in % 8 / 2, place = step * 4 + in / 8 * 2 + in % 2;
                        const float w = half_to_float(*(__local const ushort *)(weights + unit * unit_bytes + holder * 16 + place * 2));
                        result[r * 2 + c] += half_to_float(*(__local const ushort *)a) * w;
#else
                        const int step = k / 8, in = k % 8, holder = (column + c) * 4 + in % 4, place = step * 2 + in / 4;
                        const float w = *(__local const float *)(weights + unit * unit_bytes + holder * 16 + place * 4);
                        const float x = *(__local const float *)a;
                        result[r * 2 + c] += (PRECISION == 1 ? to_tf32(x) : x) * w;
#endif
                    }
                }
            }
            sum[column / 8] += (float4)(result[0], result[1], result[2], result[3]);
        }
    }
}
#else
INLINE void narrow_product(float4 *sum, uint a, __local const uchar *b, __local const uint *starts, int slice, int slices, int units, int unit_bytes, bool holds, const bool eight_rows) {
    // Two chains of sums, so that a product need not wait for the one before it.
    float4 other = (float4)(0.0f), small = (float4)(0.0f), small_other = (float4)(0.0f);
#pragma unroll 4
    for (int unit = slice; unit < units; unit += slices) {
        const uint at = a + starts[unit];
        uint4 w = (uint4)(0);
        if (holds) w = *(__local const uint4 *)(b + unit * unit_bytes);
        const uint4 x = load_matrices(at);
        if (eight_rows) {
            multiply(sum, &small, (uint4)(x.x, 0, x.y, 0), w.xy);
            multiply(&other, &small_other, (uint4)(x.z, 0, x.w, 0), w.zw);
        } else {
            const uint4 y = load_matrices(at + 32);
            multiply(sum, &small, x, w.xy);
            multiply(&other, &small_other, y, w.zw);
        }
    }
    *sum += other + (small + small_other);
}

INLINE void wide_product(float4 *sum, uint a, __local const uchar *b, __local const uint *starts, int slice, int slices, int units, int unit_bytes, int column_tiles, const bool eight_rows) {
    float4 small[4];
#pragma unroll
    for (int t = 0; t < 4; t++) small[t] = (float4)(0.0f);
#pragma unroll 1
    for (int unit = slice; unit < units; unit += slices) {
        const uint at = a + starts[unit];
        uint4 x = load_matrices(at), y = (uint4)(0);
        if (eight_rows) {
            y = (uint4)(x.z, 0, x.w, 0);
            x = (uint4)(x.x, 0, x.y, 0);
        } else {
            y = load_matrices(at + 32);
        }
#pragma unroll
        for (int t = 0; t < 4; t++) {
            if (t < column_tiles) {
                const uint4 w = *(__local const uint4 *)(b + unit * unit_bytes + t * 512);
                multiply(sum + t, small + t, x, w.xy);
                multiply(sum + t, small + t, y, w.zw);
            }
        }
    }
#pragma unroll
    for (int t = 0; t < 4; t++) sum[t] += small[t];
}

INLINE void product(float4 *sum, __local const uchar *tile, __local const uchar *weights, __local const uint *starts, __local const Job *job, int warp, int lane) {
    const int tile_index = warp & ((1 << job->rows_log2_tiles) - 1), slice = warp >> job->rows_log2_tiles;
    const int slices = WARPS >> job->rows_log2_tiles, units = job->units, columns_log2 = job->columns_log2;
    const int unit_bytes = 64 << columns_log2;
    const bool eight_rows = job->flags & EIGHT_ROWS, holds = lane < (4 << columns_log2);
    const uint row = eight_rows ? lane & 7 : tile_index * 16 + (lane & 15);
    const uint a = local_address(tile) + row_start(job, row) + (eight_rows ? lane >> 3 : lane >> 4) * 16;
    __local const uchar *b = weights + lane * 16;
    if (columns_log2 <= 3) {
        if (eight_rows) narrow_product(sum, a, b, starts, slice, slices, units, unit_bytes, holds, true);
        else narrow_product(sum, a, b, starts, slice, slices, units, unit_bytes, holds, false);
    } else {
        if (eight_rows) wide_product(sum, a, b, starts, slice, slices, units, unit_bytes, 1 << (columns_log2 - 3), true);
        else wide_product(sum, a, b, starts, slice, slices, units, unit_bytes, 1 << (columns_log2 - 3), false);
    }
}
#endif

// One output of a window that needs no product of matrices, for every output of a range.
INLINE void window(__global const uchar *from, __global const uchar *residual, __global uchar *to, __global const uchar *weights, __local const Job *job, int thread) {
    const int channels = job->channels, mode = job->before;
    const uint by_width = job->output_width, by_height = job->output_rows;
    for (int i = job->rows + thread; i < job->units; i += THREADS) {
        const uint pixel = (uint)i / channels, channel = i - pixel * channels;
        const uint line = pixel / by_width, ox = pixel - line * by_width;
        const uint image = line / by_height, oy = line - image * by_height;
        __global const uchar *source = from + (long)image * job->source_batch + (long)channel * job->source_channel;
        const int y0 = (int)oy * job->tap_row + job->first_row, x0 = (int)ox * job->tap_column + job->first_column;
        float result = mode == WINDOW_MAX ? -INFINITY : 0.0f;
        int count = 0;
        for (int tap = 0, ky = 0, kx = 0; tap < job->before_taps; tap++) {
            const int y = y0 + ky * job->before_row, x = x0 + kx * job->before_column;
            if (y >= 0 && y < job->height && x >= 0 && x < job->width) {
                const float v = load_element(source + (long)y * job->source_row + (long)x * job->source_pixel);
                if (mode == WINDOW_MAX) {
                    result = v > result || isnan(v) ? v : result;
                } else if (mode == WINDOW_DEPTHWISE) {
                    __global const uchar *w = weights + (ulong)(uint)job->shared * 16;
                    result = fma(v, *(__global const float *)(w + ((long)tap * channels + channel) * 4), result);
                } else {
                    result += v;
                }
                count++;
            }
            if (++kx == job->before_width) {
                kx = 0;
                ky++;
            }
        }
        if (mode == WINDOW_MEAN) result /= (float)job->before_taps;
        if (mode == WINDOW_MEAN_VALID) result /= (float)count;
        if (mode == WINDOW_DEPTHWISE) {
            __global const uchar *w = weights + (ulong)(uint)job->shared * 16;
            result += *(__global const float *)(w + ((long)job->before_taps * channels + channel) * 4);
        }
        const long at = (long)image * job->output_batch + (long)oy * job->output_row + (long)ox * job->output_pixel
            + (long)channel * job->pixel_stride;
        if (job->residual != -1) result += load_element(residual + at);
        store_element(to + at, activate(result, job->activation));
    }
}

#define MEMORY(index) ((index) == 0 ? memory0 : (index) == 1 ? memory1 : (index) == 2 ? memory2 : (index) == 3 ? memory3 : memory4)

// `sync`: arrivals, and work-groups that are done; zeros between launches.
// Runs jobs [first, last) of each work-group, of `stride` in its list.
__kernel __attribute__((reqd_work_group_size(THREADS, 1, 1)))
void persistent(__global uchar *memory0, __global uchar *memory1, __global uchar *memory2, __global uchar *memory3,
                __global uchar *memory4, __global const uchar *weights, __global const uchar *jobs, __global uint *sync,
                int stride, int first, int last) {
    __local uint4 local_weights[2 * WEIGHT_BYTES / 16];
    __local uint4 local_tile[TILE_BYTES / 16];
    __local uint4 local_jobs[3 * JOB_VECTORS];
    __local uint starts[UNITS];
    __local ulong arrived[2];
    __local uchar *tile = (__local uchar *)local_tile;
    __local float *partial = (__local float *)local_tile;

    const int thread = get_local_id(0), lane = thread & 31, warp = thread >> 5;
    __global const uchar *list = jobs + (ulong)get_group_id(0) * stride * JOB_VECTORS * 16;
    uint barriers = 0;
    float4 sum[4];

    if (thread < JOB_VECTORS) {
        local_jobs[thread] = *(__global const uint4 *)(list + (first * JOB_VECTORS + thread) * 16);
        if (first + 1 < last) local_jobs[JOB_VECTORS + thread] = *(__global const uint4 *)(list + ((first + 1) * JOB_VECTORS + thread) * 16);
    }
    if (thread == 0) {
        arrivals_begin(arrived);
        arrivals_begin(arrived + 1);
    }
    barrier(CLK_LOCAL_MEM_FENCE);
    copy_weights((__local uchar *)local_weights, weights, (__local const Job *)local_jobs, arrived, thread);

    for (int at = first; at < last; at++) {
        const int step = at - first;
        __local const Job *job = (__local const Job *)(local_jobs + step % 3 * JOB_VECTORS);
        __local uchar *own_weights = (__local uchar *)(local_weights + (step & 1) * (WEIGHT_BYTES / 16));
        __local uchar *next_weights = (__local uchar *)(local_weights + (~step & 1) * (WEIGHT_BYTES / 16));
        const int flags = job->flags;
        const bool gemm = job->kind == GEMM;
        __global const uchar *source = MEMORY(SOURCE_MEMORY(flags)) + (uint)job->source;
        __global const uchar *added = MEMORY(RESIDUAL_MEMORY(flags)) + (uint)job->residual;
        __global uchar *output = MEMORY(OUTPUT_MEMORY(flags)) + (uint)job->output;
        // Nothing of the job before is being read or written any more.
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        if (flags & BARRIER) grid_arrive(sync, thread);

        // All that does not depend on activations is worked out while the others arrive: where the vectors of the tile
        // come from, and the one output of this work-item.
        TilePlan plan;
        int writes = 0;
        uint image = 0, y = 0, x = 0, channel = 0, out = 0;
        if (gemm) {
            const uint columns = 1 << job->columns_log2, pixel = thread >> job->columns_log2;
            channel = thread & (columns - 1);
            list_units(starts, job, thread);
#pragma unroll
            for (int k = 0; k < PLANNED; k++) tile_vector(job, thread + k * THREADS, plan.from + k, plan.to + k);
            image = divide(pixel, job->by_output_image);
            const uint in_image = pixel - image * job->output_image;
            y = divide(in_image, job->by_output_width);
            x = in_image - y * job->output_width;
            writes = ((flags & LAST) != 0) & ((int)image < job->valid_images) & ((int)y < job->valid_rows)
                & ((int)x < job->valid_columns) & ((int)channel < job->valid_channels);
            out = image * job->output_batch + y * job->output_row + x * job->output_pixel + channel * ESIZE;
        }
        if (flags & BARRIER) grid_wait(sync, ++barriers, thread);
        if (gemm) load_tile(tile, source, job, &plan, thread);
        if (at + 2 < last && thread < JOB_VECTORS)
            copy16((__local uchar *)(local_jobs + (step + 2) % 3 * JOB_VECTORS + thread), list + ((at + 2) * JOB_VECTORS + thread) * 16, true);
        copies_commit();
        float residual = 0.0f;
        if (writes && job->residual != -1) residual = load_element(added + out);
        if (job->kind == WINDOW) window(source, added, output, weights, job, thread);
        copies_wait(0);
        wait_weights(arrived + (step & 1), (step >> 1) & 1);
        barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
        if (at + 1 < last) copy_weights(next_weights, weights, (__local const Job *)(local_jobs + (step + 1) % 3 * JOB_VECTORS), arrived + (~step & 1), thread);
        if (!gemm) continue;

        if (job->before) {
            before_product(tile, own_weights + job->weights_count * 16, job, thread);
            barrier(CLK_LOCAL_MEM_FENCE);
        }
        if (flags & FIRST) {
#pragma unroll
            for (int t = 0; t < 4; t++) sum[t] = (float4)(0.0f);
        }
        product(sum, tile, own_weights, starts, job, warp, lane);
        if (flags & LAST) {
            // The sums of the warps take the place of the tile.
            const int column_tiles = ((1 << job->columns_log2) + 7) >> 3, tiles_log2 = job->rows_log2_tiles, slices = WARPS >> tiles_log2;
            barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
            for (int t = 0; t < 4; t++) {
                if (t < column_tiles) {
                    *(__local float2 *)(partial + (warp * column_tiles + t) * 128 + lane * 2) = sum[t].xy;
                    *(__local float2 *)(partial + (warp * column_tiles + t) * 128 + 64 + lane * 2) = sum[t].zw;
                }
            }
            barrier(CLK_LOCAL_MEM_FENCE);
            if (writes) {
                const int by_slice = column_tiles * 128 << tiles_log2, activation = job->activation, pool_height = job->pool_height, pool_width = job->pool_width;
                const float bias = job->bias[channel] + residual;
                float best = 0.0f;
#pragma unroll 1
                for (int window = 0, py = 0, px = 0; window < pool_height * pool_width; window++) {
                    const uint row = image * job->pool_image + (y * pool_height + py) * job->pool_row + x * pool_width + px;
                    __local const float *from = partial + ((row >> 4) * column_tiles + (channel >> 3)) * 128 + (row & 15) * 8 + (channel & 7);
                    float value[WARPS];
#pragma unroll
                    for (int slice = 0; slice < WARPS; slice++) value[slice] = slice < slices ? from[slice * by_slice] : 0.0f;
#pragma unroll
                    for (int slice = 0; slice < 8; slice++) value[slice] += value[slice + 8];
#pragma unroll
                    for (int slice = 0; slice < 4; slice++) value[slice] += value[slice + 4];
                    const float sum_of_slices = (value[0] + value[2]) + (value[1] + value[3]);
                    const float result = activate(sum_of_slices + bias, activation);
                    best = window == 0 || result > best || isnan(result) ? result : best;
                    if (++px == pool_width) {
                        px = 0;
                        py++;
                    }
                }
                store_element(output + out, best);
            }
        }
    }
#ifndef EMULATE
    // The last to finish leaves the counters as they were found, for the next launch.
    barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);
    if (thread == 0) {
        if (atomic_inc((volatile __global uint *)(sync + 1)) == GROUPS - 1) {
            sync[0] = 0;
            sync[1] = 0;
        }
    }
#endif
}

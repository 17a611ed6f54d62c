// Convolution as an implicit matrix product on tensor cores, of NHWC tensors: M = output pixels of the whole batch,
// N = output channels, K = (tap, channel). It follows common.cl and ptx.cl, and takes these definitions:
//
//   PRECISION       0: halves, 1: floats rounded to tf32, 2: floats, each product from three tf32 products
//   BATCH HEIGHT WIDTH CHANNELS, OUT_HEIGHT OUT_WIDTH OUT_CHANNELS, KERNEL_ STRIDE_ DILATION_ (H and W), PAD_TOP PAD_LEFT
//   TILE_M TILE_N   the output tile of a work-group; TILE_N is a multiple of 32 (halves) or 16 (floats) a warp
//   TILE_K          bytes of K a stage, 64 or 128
//   WARPS_M WARPS_N the warps that share the tile, each with a part of at least 16 rows
//   STAGES          stages of the copy pipeline, at least 2
//   SPLIT           work-groups that share the K of one tile
//   PACKED_N        columns of the packed weights, a multiple of TILE_N
//   PIECE           bytes that are contiguous and aligned in every pixel's channels: 16, 8, 4 or 2
//   RESIDUAL        whether there is one
//
// Packed weights: [k / TILE_K][PACKED_N][TILE_K bytes], the 16-byte parts of a row permuted like those of the tiles in
// local memory (SWIZZLE), and the channels of a group of GROUP so that a work-item's accumulators are consecutive ones:
// column 8j + 2t + e of the group, j < GROUP / 8, t < 4, e < 2, is channel t * GROUP / 4 + 2j + e.
//
// Split tiles: each work-group stores its sums; the last one to finish adds them, always in the same order, so that
// results do not depend on who that is.

// A half is a ushort here: few compilers have arithmetic on halves.
#if PRECISION == 0
typedef ushort element;
#define ELEMENT 2
#define GROUP 32
#else
typedef float element;
#define ELEMENT 4
#define GROUP 16
#endif

#define ITEMS (WARPS_M * WARPS_N * 32)
#define ROW_M (TILE_M / WARPS_M)
#define ROW_N (TILE_N / WARPS_N)
#define FRAGMENTS_M (ROW_M / 16)
#define FRAGMENTS_N (ROW_N / 8)
#define PARTS (TILE_K / 16)
#define PIECES (TILE_K / PIECE)
#define PIECE_ELEMENTS (PIECE / ELEMENT)
#define PIXEL_PIECES (CHANNELS / PIECE_ELEMENTS)
#define TAPS (KERNEL_H * KERNEL_W)
#define TILES_K ((TAPS * CHANNELS * ELEMENT + TILE_K - 1) / TILE_K)
#define PIXELS (BATCH * OUT_HEIGHT * OUT_WIDTH)
#define TILES_M ((PIXELS + TILE_M - 1) / TILE_M)
#define TILES_N (PACKED_N / TILE_N)
#define BYTES_A (TILE_M * TILE_K)
#define BYTES_STAGE (BYTES_A + TILE_N * TILE_K)
#define COPIES_A ((TILE_M * PIECES + ITEMS - 1) / ITEMS)
#define COPIES_B ((TILE_N * PARTS + ITEMS - 1) / ITEMS)
#define COPIES (COPIES_A + COPIES_B)
#define STEPS (TILE_K / 32)
#define RUN (GROUP / 4)

// Spreads the same part of eight consecutive rows over all banks.
#if TILE_K == 128
#define SWIZZLE(row) ((row) & 7)
#else
#define SWIZZLE(row) (((row) >> 1) & 3)
#endif

// What the 11 bits that tensor cores take of a float leave of it. They truncate, so that it has the float's sign and no
// finite float becomes infinite. Where nothing is left it is a tiny share all the same, since an infinity times nothing
// would be NaN; that of an infinity is itself.
inline uint small_part(uint all)
{
    const float rest = as_float(all) - as_float(all & 0xffffe000u);
    return fabs(rest) > 0.0f ? as_uint(rest) + 0x1000u : as_uint(as_float(all) * 0x1p-30f);
}

__attribute__((reqd_work_group_size(ITEMS, 1, 1))) __kernel void
mma_conv(__global const element *restrict input, int input_at, __global const uint4 *restrict weights,
         __global const float *restrict bias,
#ifdef RESIDUAL
         __global const element *restrict residual, int residual_at,
#endif
#if SPLIT > 1
         __global float4 *restrict sums, __global uint *restrict counters,
#endif
         __global element *restrict output, int output_at)
{
    __local uint4 tiles[STAGES * BYTES_STAGE / 16];
#if SPLIT > 1
    __local uint arrival;
#endif
    PTX_SCRATCH(ITEMS);
    input += input_at;
    output += output_at;
#ifdef RESIDUAL
    residual += residual_at;
#endif
    const ptx_shared shared = PTX_SHARED(tiles);
    const uint item = get_local_id(0), lane = item % 32, warp = item / 32;
    const uint warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
    const uint group = get_group_id(0);
    const uint tile = group % (TILES_M * TILES_N), part = group / (TILES_M * TILES_N);
    const uint tile_m = tile / TILES_N, tile_n = tile % TILES_N;
    const uint first = TILES_K * part / SPLIT, count = TILES_K * (part + 1) / SPLIT - first;

    // The rows whose pieces this work-item copies: where the window begins, and which of its lines and columns lie in
    // the image (a bit each, columns from bit 16; the last is of no tap). Beyond the last row nothing does.
    const uint piece = item % PIECES;
    int start[COPIES_A];
    uint inside[COPIES_A];
    PTX_UNROLL
    for (uint i = 0; i < COPIES_A; i++) {
        const uint m = tile_m * TILE_M + item / PIECES + i * (ITEMS / PIECES);
        const uint x = m % OUT_WIDTH, y = m / OUT_WIDTH % OUT_HEIGHT, image = m / (OUT_WIDTH * OUT_HEIGHT);
        const int top = (int)(y * STRIDE_H) - PAD_TOP, left = (int)(x * STRIDE_W) - PAD_LEFT;
        start[i] = (((int)image * HEIGHT + top) * WIDTH + left) * CHANNELS;
        uint lies = 0;
        PTX_UNROLL
        for (int k = 0; k < KERNEL_H; k++)
            lies |= (uint)(top + k * DILATION_H) < HEIGHT ? 1u << k : 0u;
        PTX_UNROLL
        for (int k = 0; k < KERNEL_W; k++)
            lies |= (uint)(left + k * DILATION_W) < WIDTH ? 0x10000u << k : 0u;
        inside[i] = image < BATCH ? lies : 0u;
    }

    // The copies of one tile of K, those from `begin` to `end` of COPIES of each work-item.
#define COPY(stage, k_tile, begin, end)                                                                  \
    do {                                                                                                 \
        const uint base_ = (stage) * BYTES_STAGE, at_ = (k_tile) * PIECES + piece;                       \
        const uint tap_ = at_ / PIXEL_PIECES, line_ = tap_ / KERNEL_W, column_ = tap_ % KERNEL_W;        \
        const bool is_tap_ = TAPS * CHANNELS * ELEMENT % TILE_K == 0 || tap_ < TAPS;                     \
        const uint bits_ = is_tap_ ? (1u << line_) | (0x10000u << column_) : 0x80000000u;                \
        const int shift_ = (int)(line_ * DILATION_H * WIDTH + column_ * DILATION_W) * CHANNELS           \
            + (int)(at_ % PIXEL_PIECES * PIECE_ELEMENTS);                                                \
        __global const uint4 *from_ = weights + ((k_tile) * PACKED_N + tile_n * TILE_N) * PARTS + item;  \
        PTX_UNROLL                                                                                       \
        for (uint i = (begin); i < (end); i++) {                                                         \
            if (i < COPIES_A) {                                                                          \
                const uint row_ = item / PIECES + i * (ITEMS / PIECES);                                  \
                const uint to_ = base_ + row_ * TILE_K + ((piece * PIECE / 16 ^ SWIZZLE(row_)) * 16)     \
                    + piece * PIECE % 16;                                                                \
                if (TILE_M * PIECES % ITEMS == 0 || row_ < TILE_M)                                       \
                    COPY_PIECE(to_, input + (start[i] + shift_), (inside[i] & bits_) == bits_);          \
            } else if (TILE_N * PARTS % ITEMS == 0 || (i - COPIES_A) * ITEMS + item < TILE_N * PARTS) {  \
                const uint at = (i - COPIES_A) * ITEMS;                                                  \
                PTX_COPY_16(shared, base_ + BYTES_A + (at + item) * 16, from_ + at, true);               \
            }                                                                                            \
        }                                                                                                \
    } while (0)
// Taps overlap: other taps find most of a tile in the first-level cache.
#if PIECE == 16
#define COPY_PIECE(to, from, valid) PTX_COPY_16_CACHED(shared, to, from, valid)
#elif PIECE == 8
#define COPY_PIECE(to, from, valid) PTX_COPY_8(shared, to, from, valid)
#elif PIECE == 4
#define COPY_PIECE(to, from, valid) PTX_COPY_4(shared, to, from, valid)
#else
#define COPY_PIECE(to, from, valid) ((__local ushort *)tiles)[(to) / 2] = (valid) ? *(from) : 0
#endif

    // What this lane names for its warp's fragments, in bytes from the stage's tile.
    const uint row_a = warp_m * ROW_M + lane % 16;
    const uint row_b = warp_n * ROW_N + lane % 8 + lane / 16 * 8;
    const uint at_a = row_a * TILE_K + (lane / 16 ^ SWIZZLE(row_a)) * 16;
    const uint at_b = BYTES_A + row_b * TILE_K + (lane / 8 % 2 ^ SWIZZLE(row_b)) * 16;

    float c[FRAGMENTS_M][FRAGMENTS_N][4];
    PTX_UNROLL
    for (uint i = 0; i < FRAGMENTS_M; i++)
        PTX_UNROLL
        for (uint j = 0; j < FRAGMENTS_N; j++)
            PTX_UNROLL
            for (uint e = 0; e < 4; e++)
                c[i][j][e] = 0.0f;

    // Fragments are read a step ahead of their use, over the seam of two stages as well, and copies are spread over the
    // steps, so that neither waits in a queue while the tensor cores starve.
    uint a[2][FRAGMENTS_M][4], b[2][FRAGMENTS_N / 2][4];
#define READ(to, base, step)                                                                             \
    do {                                                                                                 \
        PTX_UNROLL                                                                                       \
        for (uint i = 0; i < FRAGMENTS_M; i++)                                                           \
            PTX_LDMATRIX_X4(a[to][i], shared, (base) + (at_a ^ (step) * 32) + i * 16 * TILE_K);          \
        PTX_UNROLL                                                                                       \
        for (uint j = 0; j < FRAGMENTS_N / 2; j++)                                                       \
            PTX_LDMATRIX_X4(b[to][j], shared, (base) + (at_b ^ (step) * 32) + j * 16 * TILE_K);          \
    } while (0)

    PTX_UNROLL
    for (uint s = 0; s < STAGES - 1; s++) {
        if (s < count)
            COPY(s, first + s, 0, COPIES);
        PTX_COMMIT();
    }
    PTX_WAIT(STAGES - 2);
    barrier(CLK_LOCAL_MEM_FENCE);
    READ(0, 0, 0);
    uint reading = 0, writing = STAGES - 1;
    for (uint k = 0; k < count; k++) {
        PTX_UNROLL
        for (uint step = 0; step < STEPS; step++) {
            const uint now = step % 2, next = 1 - now;
            if (step + 1 < STEPS) {
                READ(next, reading * BYTES_STAGE, step + 1);
                if (k + STAGES - 1 < count)
                    COPY(writing, first + k + STAGES - 1, COPIES * step / (STEPS - 1),
                         COPIES * (step + 1) / (STEPS - 1));
            } else {
                PTX_COMMIT();
                PTX_WAIT(STAGES - 2);
                barrier(CLK_LOCAL_MEM_FENCE);
                writing = reading;
                reading = reading + 1 == STAGES ? 0 : reading + 1;
                READ(next, reading * BYTES_STAGE, 0);
            }
#if PRECISION == 1
            PTX_UNROLL
            for (uint i = 0; i < FRAGMENTS_M; i++)
                PTX_UNROLL
                for (uint e = 0; e < 4; e++)
                    a[now][i][e] = ptx_tf32(as_float(a[now][i][e]));
#elif PRECISION == 2
            uint small_a[FRAGMENTS_M][4], small_b[FRAGMENTS_N / 2][4];
            PTX_UNROLL
            for (uint i = 0; i < FRAGMENTS_M; i++)
                PTX_UNROLL
                for (uint e = 0; e < 4; e++)
                    small_a[i][e] = small_part(a[now][i][e]);
            PTX_UNROLL
            for (uint j = 0; j < FRAGMENTS_N / 2; j++)
                PTX_UNROLL
                for (uint e = 0; e < 4; e++)
                    small_b[j][e] = small_part(b[now][j][e]);
#endif
            PTX_UNROLL
            for (uint i = 0; i < FRAGMENTS_M; i++)
                PTX_UNROLL
                for (uint j = 0; j < FRAGMENTS_N; j++) {
                    const uint *right = &b[now][j / 2][j % 2 * 2];
#if PRECISION == 0
                    PTX_MMA_F16(c[i][j], a[now][i], right[0], right[1]);
#elif PRECISION == 1
                    PTX_MMA_TF32(c[i][j], a[now][i], right[0], right[1]);
#else
                    // The tensor cores truncate where they add: left to themselves, they lose several bits over a long
                    // K. So they add only the products of a step, and the sums are rounded properly.
                    const uint *small_right = &small_b[j / 2][j % 2 * 2];
                    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
                    PTX_MMA_TF32(sum, small_a[i], right[0], right[1]);
                    PTX_MMA_TF32(sum, a[now][i], small_right[0], small_right[1]);
                    PTX_MMA_TF32(sum, a[now][i], right[0], right[1]);
                    PTX_UNROLL
                    for (uint e = 0; e < 4; e++)
                        c[i][j][e] += sum[e];
#endif
                }
        }
    }

#if SPLIT > 1
    PTX_UNROLL
    for (uint i = 0; i < FRAGMENTS_M; i++)
        PTX_UNROLL
        for (uint j = 0; j < FRAGMENTS_N; j++)
            sums[((tile * SPLIT + part) * FRAGMENTS_M * FRAGMENTS_N + i * FRAGMENTS_N + j) * ITEMS + item] =
                (float4)(c[i][j][0], c[i][j][1], c[i][j][2], c[i][j][3]);
    barrier(CLK_GLOBAL_MEM_FENCE | CLK_LOCAL_MEM_FENCE);
    if (item == 0) {
        arrival = ptx_count(counters + tile);
        if (arrival == SPLIT - 1)
            counters[tile] = 0;
    }
    barrier(CLK_GLOBAL_MEM_FENCE | CLK_LOCAL_MEM_FENCE);
    if (arrival != SPLIT - 1)
        return;
    PTX_UNROLL
    for (uint i = 0; i < FRAGMENTS_M; i++)
        PTX_UNROLL
        for (uint j = 0; j < FRAGMENTS_N; j++) {
            float4 sum = (float4)(0.0f);
            PTX_UNROLL
            for (uint s = 0; s < SPLIT; s++)
                sum += ptx_load_l2(sums + ((tile * SPLIT + s) * FRAGMENTS_M * FRAGMENTS_N + i * FRAGMENTS_N + j) * ITEMS
                                   + item);
            c[i][j][0] = sum.x;
            c[i][j][1] = sum.y;
            c[i][j][2] = sum.z;
            c[i][j][3] = sum.w;
        }
#endif

    // Fragments 2 or 4 of a row hold RUN consecutive channels of this work-item: 16 bytes.
    PTX_UNROLL
    for (uint j = 0; j < ROW_N / GROUP; j++) {
        const uint channel = tile_n * TILE_N + warp_n * ROW_N + j * GROUP + lane % 4 * RUN;
        float shift[RUN];
        PTX_UNROLL
        for (uint e = 0; e < RUN; e++)
            shift[e] = OUT_CHANNELS % TILE_N == 0 || channel + e < OUT_CHANNELS ? bias[channel + e] : 0.0f;
        PTX_UNROLL
        for (uint i = 0; i < FRAGMENTS_M * 2; i++) {
            const uint m = tile_m * TILE_M + warp_m * ROW_M + i * 8 + lane / 4;
            const bool within = TILE_M * TILES_M == PIXELS || m < PIXELS;
            const uint at = m * OUT_CHANNELS + channel;
            float x[RUN];
            PTX_UNROLL
            for (uint e = 0; e < RUN; e++)
                x[e] = c[i / 2][j * GROUP / 8 + e / 2][i % 2 * 2 + e % 2] + shift[e];
#if OUT_CHANNELS % RUN == 0
            if (within && (OUT_CHANNELS % TILE_N == 0 || channel < OUT_CHANNELS)) {
#if PRECISION == 0
#ifdef RESIDUAL
                const uint4 added = *(__global const uint4 *)(residual + at);
                x[0] += ptx_half_low(added.x);
                x[1] += ptx_half_high(added.x);
                x[2] += ptx_half_low(added.y);
                x[3] += ptx_half_high(added.y);
                x[4] += ptx_half_low(added.z);
                x[5] += ptx_half_high(added.z);
                x[6] += ptx_half_low(added.w);
                x[7] += ptx_half_high(added.w);
#endif
                *(__global uint4 *)(output + at) =
                    (uint4)(ptx_pack_half2(ACTIVATE(x[0]), ACTIVATE(x[1])), ptx_pack_half2(ACTIVATE(x[2]), ACTIVATE(x[3])),
                            ptx_pack_half2(ACTIVATE(x[4]), ACTIVATE(x[5])), ptx_pack_half2(ACTIVATE(x[6]), ACTIVATE(x[7])));
#else
#ifdef RESIDUAL
                const float4 added = *(__global const float4 *)(residual + at);
                x[0] += added.x;
                x[1] += added.y;
                x[2] += added.z;
                x[3] += added.w;
#endif
                *(__global float4 *)(output + at) =
                    (float4)(ACTIVATE(x[0]), ACTIVATE(x[1]), ACTIVATE(x[2]), ACTIVATE(x[3]));
#endif
            }
#else
            PTX_UNROLL
            for (uint e = 0; e < RUN; e++)
                if (within && channel + e < OUT_CHANNELS) {
#if PRECISION == 0
#ifdef RESIDUAL
                    x[e] += ptx_half_low(residual[at + e]);
#endif
                    output[at + e] = (ushort)ptx_pack_half2(ACTIVATE(x[e]), 0.0f);
#else
#ifdef RESIDUAL
                    x[e] += residual[at + e];
#endif
                    output[at + e] = ACTIVATE(x[e]);
#endif
                }
#endif
        }
    }
}

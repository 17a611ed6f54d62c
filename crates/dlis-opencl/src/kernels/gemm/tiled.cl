// Products for GPUs: a group of 16 by 16 work-items computes a tile of 16 * TM pixels by 16 * TN channels, DEPTH terms
// at a time: the group loads and decodes them to local memory once, each work-item multiplies its TM by TN part in
// registers. While it does, the next terms are on their way.

#define DEPTH 16
#define ITEMS 256
#define BM (16 * TM)
#define BN (16 * TN)
// Part of a work-item: runs of FM pixels and FN channels, 16 such runs to a fragment, so that neighbouring work-items
// read neighbouring banks.
#define FM (TM < 4 ? TM : 4)
#define FN (TN < 4 ? TN : 4)
// What a work-item loads: QUAD terms of one pixel at a time, UNITS times; neighbours load neighbouring terms.
#ifdef BY_FOUR
#define QUAD 4
#else
#define QUAD 1
#endif
#define PER_PIXEL (DEPTH / QUAD)
#define UNITS ((BM * PER_PIXEL + ITEMS - 1) / ITEMS)

// `table` has for each term the distance of its input from the window's first, and its row and column; `blocks` blocks
// of a group; `splits` work-groups share the terms of a tile, `part` each, and leave their sums in `partial`.
__kernel __attribute__((reqd_work_group_size(ITEMS, 1, 1))) void tiled(
    __constant int *g, __global const real *x, int x_at, __global const int4 *table, __global const uchar *codes,
    __global const stored *values, __global const float *positive, __global const float *negative,
    __global const float *bias, __global const real *residual, int residual_at, __global real *y, int y_at,
    __global float *partial, int terms, int blocks, int pixels, int splits, int part, int how) {
  __local float inputs[DEPTH][BM + 4] __attribute__((aligned(16)));
  __local float factors[DEPTH][BN] __attribute__((aligned(16)));
  int id = get_local_id(0), tx = id % 16, ty = id / 16;
  int split = get_group_id(2) % splits, group = get_group_id(2) / splits;
  int first_pixel = get_group_id(0) * BM, first_channel = get_group_id(1) * BN;
  int begin = split * part, end = min(begin + part, terms);
  x += x_at + group * GROUP_IN;

  // The pixels whose inputs this work-item loads.
  int tops[UNITS], lefts[UNITS], bases[UNITS];
  for (int u = 0; u < UNITS; u++) {
    int unit = id + u * ITEMS, q = first_pixel + unit / PER_PIXEL;
    bool is_pixel = q < pixels && unit < BM * PER_PIXEL;
    int h = q / OW % OH * SH - PT, v = q % OW * SW - PL;
    // What is no pixel sees padding only.
    tops[u] = is_pixel ? h : 1 << 29, lefts[u] = v;
    bases[u] = is_pixel ? q / (OH * OW) * XN + (h * W + v) * C : 0;
  }
  // The channels whose weights it loads: one if the tile is not wider than the group.
  int column = id % BN, block = first_channel / 16 + column / 16;
  bool is_block = block < blocks;
  int packed = (group * blocks + (is_block ? block : 0)) * 16 + column % 16;
  Block b = block_at(codes, values, packed / 16, terms);
  float plus = positive[packed], minus = negative[packed];

  float sums[TM][TN];
  for (int i = 0; i < TM; i++)
    for (int j = 0; j < TN; j++) sums[i][j] = 0;
#if QUAD == 4
  float4 next_inputs[UNITS];
#else
  float next_inputs[UNITS];
#endif
  float next_factors[TN];

#define FETCH(t0)                                                                                       \
  for (int u = 0; u < UNITS; u++) {                                                                     \
    int t = (t0) + (id + u * ITEMS) % PER_PIXEL * QUAD;                                                 \
    next_inputs[u] = 0;                                                                                 \
    if (t < end) {                                                                                      \
      int4 term = table[t];                                                                             \
      if ((uint)(tops[u] + term.y) < (uint)H && (uint)(lefts[u] + term.z) < (uint)W)                    \
        next_inputs[u] = LOAD_QUAD(x, bases[u] + term.x);                                               \
    }                                                                                                   \
  }                                                                                                     \
  for (int u = 0; u < TN; u++) {                                                                        \
    int t = (t0) + id / BN + u * (ITEMS / BN);                                                          \
    next_factors[u] = is_block && t < end ? weight(b, t, column % 16, plus, minus) : 0.0f;              \
  }
#if QUAD == 4
#define LOAD_QUAD(p, i) LOAD4(p, i)
#else
#define LOAD_QUAD(p, i) LOAD(p, i)
#endif

  FETCH(begin)
  for (int t0 = begin; t0 < end; t0 += DEPTH) {
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int u = 0; u < UNITS; u++) {
      int unit = id + u * ITEMS, pixel = unit / PER_PIXEL, t = unit % PER_PIXEL * QUAD;
      if (BM * PER_PIXEL >= ITEMS || unit < BM * PER_PIXEL) {
#if QUAD == 4
        inputs[t][pixel] = next_inputs[u].x, inputs[t + 1][pixel] = next_inputs[u].y;
        inputs[t + 2][pixel] = next_inputs[u].z, inputs[t + 3][pixel] = next_inputs[u].w;
#else
        inputs[t][pixel] = next_inputs[u];
#endif
      }
    }
    for (int u = 0; u < TN; u++) factors[id / BN + u * (ITEMS / BN)][column] = next_factors[u];
    barrier(CLK_LOCAL_MEM_FENCE);
    FETCH(t0 + DEPTH)
#pragma unroll
    for (int t = 0; t < DEPTH; t++) {
      float left[TM], right[TN];
      for (int i = 0; i < TM; i++) left[i] = inputs[t][i / FM * 16 * FM + ty * FM + i % FM];
      for (int j = 0; j < TN; j++) right[j] = factors[t][j / FN * 16 * FN + tx * FN + j % FN];
      for (int i = 0; i < TM; i++)
        for (int j = 0; j < TN; j++) sums[i][j] += left[i] * right[j];
    }
  }

  y += y_at, residual += residual_at;
#pragma unroll
  for (int i = 0; i < TM; i++) {
    int q = first_pixel + i / FM * 16 * FM + ty * FM + i % FM;
    if (q >= pixels) continue;
#pragma unroll
    for (int j = 0; j < TN; j++) {
      int k = first_channel + j / FN * 16 * FN + tx * FN + j % FN;
      if (k >= GROUP_OUT) continue;
      int at = q * K + group * GROUP_OUT + k, scale = group * blocks * 16 + k;
      float sum = SCALED(sums[i][j], positive[scale]);
      if (splits > 1) {
        partial[split * pixels * K + at] = sum;
        continue;
      }
      sum += bias[scale];
      if (HAS_RESIDUAL(how)) sum += LOAD(residual, at);
      STORE(FINISH(sum, how), y, at);
    }
  }
}

// Adds up what the work-groups of a tile have left: a work-item an element of `all`.
__kernel void add_up(__constant int *g, __global const float *partial, __global const float *bias,
                     __global const real *residual, int residual_at, __global real *y, int y_at, int blocks, int splits,
                     int all, int how) {
  int i = get_global_id(0), k = i % K;
  if (i >= all) return;
  float sum = bias[k / GROUP_OUT * blocks * 16 + k % GROUP_OUT];
  for (int split = 0; split < splits; split++) sum += partial[split * all + i];
  if (HAS_RESIDUAL(how)) sum += LOAD(residual, residual_at + i);
  STORE(FINISH(sum, how), y, y_at + i);
}

// Convolution on u8 for graphics processors, channels last, of few pixels: a work-group computes PIXELS pixels of BLOCK
// output channels of a group. Each of its SLICES rows of work-items takes a slice of every sum's words, so that there
// are many of them and none waits long.

#define PIXELS 8

__kernel __attribute__((reqd_work_group_size(BLOCK, SLICES, 1))) void
gemm(__constant int *g, __constant float *q, __global const uchar *x, int x_at, __global const uint *w,
     __global const float *multipliers, __global const float *biases, __global const made *residual, int residual_at,
     __global made *y, int y_at, __global const int *corrections, int blocks, int pixels, int aligned) {
  __local int parts[SLICES][PIXELS][BLOCK];
  const int lane = get_local_id(0), slice = get_local_id(1);
  const int column = get_group_id(1), group = column / blocks, block = column % blocks, slot = column * BLOCK + lane;
  const int first = get_group_id(0) * PIXELS, depth = GROUP_IN, words = WORDS(depth), total = KH * KW * words;
  const int share = (total + SLICES - 1) / SLICES, end = min(total, (slice + 1) * share);
#ifdef FOUR_BITS
  w += (size_t)column * (total / 2) * BLOCK;
#else
  w += (size_t)column * total * BLOCK;
#endif
  x += x_at + group * depth;
  const uint zeros = (uint)ZERO_POINT * 0x01010101u;
  int sums[PIXELS], top[PIXELS], left[PIXELS], image[PIXELS];
#pragma unroll
  for (int p = 0; p < PIXELS; p++) {
    // Beyond the last pixel, the last one is computed again.
    int pixel = min(first + p, pixels - 1), ow = pixel % OW, oh = pixel / OW % OH;
    sums[p] = 0, top[p] = oh * SH - PT, left[p] = ow * SW - PL, image[p] = pixel / OW / OH * XN;
  }
  int tap = slice * share / words, place = slice * share % words;
  for (int at = slice * share; at < end; tap++, place = 0) {
    int r = tap / KW, s = tap % KW, from[PIXELS];
#pragma unroll
    for (int p = 0; p < PIXELS; p++) {
      int h = top[p] + r * DH, v = left[p] + s * DW;
      from[p] = h >= 0 && h < H && v >= 0 && v < W ? image[p] + h * XH + v * XW : -1;
    }
    int stop = min(words - place, end - at) + at;
    // Unrolled, so that many loads are under way together.
#pragma unroll 4
    for (; at < stop; at++, place++) {
      int four = weight(w, at, lane);
#pragma unroll
      for (int p = 0; p < PIXELS; p++)
        sums[p] = dot4(from[p] < 0 ? zeros : four_inputs(x + from[p], 4 * place, depth, aligned), four, sums[p]);
    }
  }
#pragma unroll
  for (int p = 0; p < PIXELS; p++) parts[slice][p][lane] = sums[p];
  barrier(CLK_LOCAL_MEM_FENCE);
  // Each of the first rows of work-items finishes a pixel.
  int pixel = first + slice, within = block * BLOCK + lane, sum = corrections[slot];
  if (slice >= PIXELS || pixel >= pixels || within >= GROUP_OUT) return;
  for (int j = 0; j < SLICES; j++) sum += parts[j][slice][lane];
  int ow = pixel % OW, oh = pixel / OW % OH, n = pixel / OW / OH;
  finish(sum, slot, q, multipliers, biases, residual + residual_at, y + y_at,
         n * YN + oh * YH + ow * YW + group * GROUP_OUT + within);
}

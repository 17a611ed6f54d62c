// Convolution on u8 for graphics processors, channels last: a work-group computes TILE pixels of TILE output channels of
// a group, each work-item 4 of 4, from words of four inputs and four weights that the work-group shares.

#define TILE BLOCK
#define SIDE (TILE / 4)
#define ITEMS (SIDE * SIDE)
// Words that are brought to local memory together.
#define DEPTH 8
#define LOADS (DEPTH * TILE / ITEMS)

__kernel __attribute__((reqd_work_group_size(SIDE, SIDE, 1))) void
gemm(__constant int *g, __constant float *q, __global const uchar *x, int x_at, __global const uint *w,
     __global const float *multipliers, __global const float *biases, __global const made *residual, int residual_at,
     __global made *y, int y_at, __global const int *corrections, int blocks, int pixels, int aligned) {
  // A row more, so that writing columns meets all banks.
  __local uint inputs[DEPTH][TILE + 1];
  __local int4 weights[DEPTH][SIDE];
  const int item = get_local_id(1) * SIDE + get_local_id(0);
  const int column = get_group_id(1), group = column / blocks, block = column % blocks, slot = column * TILE;
  const int first = get_group_id(0) * TILE, depth = GROUP_IN, words = WORDS(depth), total = KH * KW * words;
#ifdef FOUR_BITS
  w += (size_t)column * (total / 2) * TILE;
#else
  w += (size_t)column * total * TILE;
#endif
  x += x_at + group * depth;
  const uint zeros = (uint)ZERO_POINT * 0x01010101u;
  int sums[4][4];
  for (int c = 0; c < 4; c++)
    for (int p = 0; p < 4; p++) sums[p][c] = corrections[slot + 4 * (int)get_local_id(0) + c];
  // A work-item brings one of the words, of a few pixels: places advance without being divided anew.
  int top[LOADS], left[LOADS];
  __global const uchar *image[LOADS];
#pragma unroll
  for (int i = 0; i < LOADS; i++) {
    int pixel = first + (item + i * ITEMS) / DEPTH, ow = pixel % OW, oh = pixel / OW % OH, n = pixel / OW / OH;
    // No row of the input is so far up.
    top[i] = pixel < pixels ? oh * SH - PT : -(1 << 30);
    left[i] = ow * SW - PL;
    image[i] = x + n * XN;
  }
  int r = 0, s = 0, place = item % DEPTH;
  for (int from = 0; from < total; from += DEPTH) {
    while (place >= words) {
      place -= words;
      if (++s == KW) s = 0, r++;
    }
    const int c = 4 * place;
    place += DEPTH;
#pragma unroll
    for (int i = 0; i < LOADS; i++) {
      int h = top[i] + r * DH, v = left[i] + s * DW;
      uint word = zeros;
      if (r < KH && h >= 0 && h < H && v >= 0 && v < W) {
        word = four_inputs(image[i] + h * XH + v * XW, c, depth, aligned);
      }
      inputs[item % DEPTH][(item + i * ITEMS) / DEPTH] = word;
    }
    for (int i = item; i < DEPTH * TILE; i += ITEMS) {
      int at = from + i / TILE, channel = i % TILE;
      ((__local int *)weights[i / TILE])[channel] = at < total ? weight(w, at, channel) : 0;
    }
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      int4 four = weights[d][get_local_id(0)];
#pragma unroll
      for (int p = 0; p < 4; p++) {
        uint word = inputs[d][get_local_id(1) + p * SIDE];
        sums[p][0] = dot4(word, four.x, sums[p][0]);
        sums[p][1] = dot4(word, four.y, sums[p][1]);
        sums[p][2] = dot4(word, four.z, sums[p][2]);
        sums[p][3] = dot4(word, four.w, sums[p][3]);
      }
    }
    barrier(CLK_LOCAL_MEM_FENCE);
  }
  for (int p = 0; p < 4; p++) {
    int pixel = first + get_local_id(1) + p * SIDE;
    if (pixel >= pixels) continue;
    int ow = pixel % OW, oh = pixel / OW % OH, n = pixel / OW / OH;
    int within = block * TILE + 4 * get_local_id(0), at = n * YN + oh * YH + ow * YW + group * GROUP_OUT + within;
    for (int c = 0; c < 4; c++)
      if (within + c < GROUP_OUT)
        finish(sums[p][c], slot + 4 * (int)get_local_id(0) + c, q, multipliers, biases, residual + residual_at, y + y_at,
               at + c);
  }
}

// Convolution on u8 for graphics processors, channels last: a work-group computes TILE pixels of TILE output channels of
// a group, each work-item 4 of 4, from words of four inputs and four weights that the work-group shares.
//
// The words of a sum are counted through all taps; weights are `[block of channels][word][channel of the block]`. A
// tap in the padding reads zero points, for which `corrections`, that every sum starts from, make up.

#define SIDE (TILE / 4)
#define ITEMS (SIDE * SIDE)
// Words that are brought to local memory together.
#define DEPTH 8
#define LOADS (DEPTH * TILE / ITEMS)

inline int dot4(uint x, int w, int sum) {
#ifdef PTX
  int result;
  __asm__("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
  return result;
#else
  int4 products = convert_int4(as_uchar4(x)) * convert_int4(as_char4(w));
  return sum + products.x + products.y + products.z + products.w;
#endif
}

#ifdef FOUR_BITS
// The signed nibble at bit `at`, as the byte `to` of a word.
#define BYTE(w, at, to) (((uint)((int)((w) << (28 - (at))) >> 28) & 255u) << 8 * (to))

// The first or second four of eight weights, whose nibbles are those of the inputs 0, 1, 4, 5, 2, 3, 6 and 7.
inline int weight(__global const uint *w, int word, int channel) {
  uint eight = w[word / 2 * TILE + channel] >> (word % 2 * 8);
  return (int)(BYTE(eight, 0, 0) | BYTE(eight, 4, 1) | BYTE(eight, 16, 2) | BYTE(eight, 20, 3));
}
#define WORDS(depth) (((depth) + 7) / 8 * 2)
#else
inline int weight(__global const uint *w, int word, int channel) { return (int)w[word * TILE + channel]; }
#define WORDS(depth) (((depth) + 3) / 4)
#endif

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
        __global const uchar *four = image[i] + h * XH + v * XW + c;
        if (aligned && c + 4 <= depth) {
          word = *(__global const uint *)four;
        } else {
          for (int b = 0; b < 4; b++)
            if (c + b < depth) word = (word & ~(255u << 8 * b)) | (uint)four[b] << 8 * b;
        }
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

// Convolution on u8 for processors, channels last, as a matrix product whose left matrix is never built: a work-item
// computes ROWS neighbouring pixels of COLUMNS vectors of 16 output channels.
//
// Four neighbouring inputs are multiplied with four weights of each channel. A lane of a vector is a channel. Weights
// are `[block of channels][tap][four inputs][channel of the block][one of four]`; a tap in the padding reads a row of
// zero points, for which `corrections`, that every sum starts from, make up.

// What the compiler's own functions take, and vectors that OpenCL C has no name for.
typedef short short_vector __attribute__((vector_size(64)));
typedef short short_half __attribute__((vector_size(32)));
typedef int int_vector __attribute__((vector_size(64)));
typedef short shorts __attribute__((ext_vector_type(32)));
typedef ushort ushorts __attribute__((ext_vector_type(32)));
#define AS(x, type) __builtin_astype(x, type)

// The sum of the products of the halves of each lane, of 16 bits each. The compiler says what the processor has.
inline int16 pairs(int16 a, int16 b) {
#if defined(__AVX512BW__)
  return AS(__builtin_ia32_pmaddwd512(AS(a, short_vector), AS(b, short_vector)), int16);
#elif defined(__AVX2__)
  return (int16)(AS(__builtin_ia32_pmaddwd256(AS(a.lo, short_half), AS(b.lo, short_half)), int8),
                 AS(__builtin_ia32_pmaddwd256(AS(a.hi, short_half), AS(b.hi, short_half)), int8));
#else
  return (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

// Bytes 0 and 2, and 1 and 3, of each lane, as pairs: unsigned, and signed.
#define EVEN(x) ((x) & 0x00ff00ff)
#define ODD(x) AS(AS(x, ushorts) >> (ushort)8, int16)
#define EVEN_SIGNED(w) AS(AS(w, shorts) << (short)8 >> (short)8, int16)
#define ODD_SIGNED(w) AS(AS(w, shorts) >> (short)8, int16)

#ifdef FOUR_BITS
// Eight weights a lane: each four bits of the low half are a pair with those of the high half.
#define STEP 8
#define NIBBLES(w, at) AS(AS(w, shorts) << (short)(12 - 4 * (at)) >> (short)12, int16)
#else
#define STEP 4
#endif

// The lanes of the vector `c` of channels, for words of inputs that `WORD(p, i)` makes for the pixel `p`.
#if defined(FOUR_BITS)
#define MULTIPLY(WORD)                                                                              \
  for (int c = 0; c < COLUMNS; c++) {                                                               \
    int16 eight = vload16(c, (__global const int *)w);                                              \
    int16 w0 = NIBBLES(eight, 0), w1 = NIBBLES(eight, 1), w2 = NIBBLES(eight, 2), w3 = NIBBLES(eight, 3); \
    for (int p = 0; p < ROWS; p++) {                                                                \
      int16 a = (int16)(WORD(p, 0)), b = (int16)(WORD(p, 1));                                       \
      sums[p][c] += pairs(EVEN(a), w0) + pairs(ODD(a), w1);                                         \
      sums[p][c] += pairs(EVEN(b), w2) + pairs(ODD(b), w3);                                         \
    }                                                                                               \
  }                                                                                                 \
  w += COLUMNS * 64;
#elif defined(__AVX512VNNI__)
#define MULTIPLY(WORD)                                                                              \
  for (int c = 0; c < COLUMNS; c++) {                                                               \
    int_vector four = AS(vload16(c, (__global const int *)w), int_vector);                          \
    for (int p = 0; p < ROWS; p++) {                                                                \
      int_vector inputs = AS((int16)(WORD(p, 0)), int_vector);                                      \
      sums[p][c] = AS(__builtin_ia32_vpdpbusd512(AS(sums[p][c], int_vector), inputs, four), int16); \
    }                                                                                               \
  }                                                                                                 \
  w += COLUMNS * 64;
#else
#define MULTIPLY(WORD)                                                                              \
  int16 even[COLUMNS], odd[COLUMNS];                                                                \
  for (int c = 0; c < COLUMNS; c++) {                                                               \
    int16 four = vload16(c, (__global const int *)w);                                               \
    even[c] = EVEN_SIGNED(four), odd[c] = ODD_SIGNED(four);                                         \
  }                                                                                                 \
  for (int p = 0; p < ROWS; p++) {                                                                  \
    int16 a = (int16)(WORD(p, 0)), low = EVEN(a), high = ODD(a);                                    \
    for (int c = 0; c < COLUMNS; c++) sums[p][c] += pairs(low, even[c]) + pairs(high, odd[c]);      \
  }                                                                                                 \
  w += COLUMNS * 64;
#endif

// Four inputs from `i` on, those beyond `depth` zeros.
inline int word(__global const uchar *x, int i, int depth) {
  int four = 0;
  for (int at = 0; at < 4; at++)
    if (i + at < depth) four |= (int)x[i + at] << 8 * at;
  return four;
}
#define WHOLE_WORD(p, i) as_int(vload4(0, from[p] + at + 4 * (i)))
#define LAST_WORD(p, i) word(from[p], at + 4 * (i), depth)

__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void
gemm(__constant int *g, __constant float *q, __global const uchar *x, int x_at, __global const char *w,
     __global const float *multipliers, __global const float *biases, __global const made *residual, int residual_at,
     __global made *y, int y_at, __global const int *corrections, __global const uchar *padding, int blocks,
     int pixels) {
  const int depth = GROUP_IN, column = get_global_id(1), group = column / blocks, slot = column * COLUMNS * 16;
  const int quads = (depth + STEP - 1) / STEP;
  w += (size_t)column * KH * KW * quads * COLUMNS * 64;
  int16 sums[ROWS][COLUMNS];
  int top[ROWS], left[ROWS], to[ROWS];
  __global const uchar *image[ROWS];
#pragma unroll
  for (int p = 0; p < ROWS; p++) {
    // Beyond the last pixel, the last one is computed again.
    int i = min((int)get_global_id(0) * ROWS + p, pixels - 1), ow = i % OW, oh = i / OW % OH, n = i / OW / OH;
    top[p] = oh * SH - PT, left[p] = ow * SW - PL;
    image[p] = x + x_at + n * XN + group * depth;
    to[p] = n * YN + oh * YH + ow * YW;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) sums[p][c] = vload16(0, corrections + slot + 16 * c);
  }
  for (int r = 0; r < KH; r++)
    for (int s = 0; s < KW; s++) {
      __global const uchar *from[ROWS];
#pragma unroll
      for (int p = 0; p < ROWS; p++) {
        int h = top[p] + r * DH, v = left[p] + s * DW;
        from[p] = h >= 0 && h < H && v >= 0 && v < W ? image[p] + h * XH + v * XW : padding;
      }
      int at = 0;
      for (; at + STEP <= depth; at += STEP) {
        MULTIPLY(WHOLE_WORD)
      }
      if (at < depth) {
        MULTIPLY(LAST_WORD)
      }
    }
  const int width = min(GROUP_OUT - (column - group * blocks) * COLUMNS * 16, COLUMNS * 16);
  const int first = group * GROUP_OUT + (column - group * blocks) * COLUMNS * 16;
#pragma unroll
  for (int p = 0; p < ROWS; p++) {
    if ((int)get_global_id(0) * ROWS + p >= pixels) break;
#pragma unroll
    for (int c = 0; c < COLUMNS; c++) {
      if (c * 16 >= width) break;
      finish16(sums[p][c], slot + c * 16, min(width - c * 16, 16), q, multipliers, biases, residual + residual_at,
               y + y_at, to[p] + first + c * 16);
    }
  }
}

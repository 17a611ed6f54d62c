// Winograd's convolution F(4x4, 3x3) (Lavin and Gray 2016), NHWC, in three launches: squares of 6x6 pixels of the input
// are transformed, multiplied element by element of the square, a product of matrices [tile, channel] each, and
// transformed back to 4x4 pixels of the output. What lies between is float, in `scratch`: [element][tile][channel], the
// input's channels padded to DEPTH and the output's to WIDTH.

#undef VALUE
#define VALUE(from, c) ((from)[c])
#define DEPTH ((C + 15) / 16 * 16)
#define WIDTH ((K + 63) / 64 * 64)
#define ACROSS ((OW + 3) / 4)
#define DOWN ((OH + 3) / 4)

// A work-item one tile by 64 channels.
__attribute__((reqd_work_group_size(1, 1, 1))) WIDE __kernel void
transform(__constant int *g, __global const real *x, int x_at, __global float *scratch) {
  int tile = get_global_id(0), tiles = get_global_size(0);
  int v = tile % ACROSS * 4 - PL, h = tile / ACROSS % DOWN * 4 - PT;
  x += x_at + tile / (ACROSS * DOWN) * XN;
  scratch += tile * DEPTH;
  int begin = get_global_id(1) * 64, end = min(begin + 64, DEPTH);
  for (int c = begin; c < end; c += 16) {
    int some = C - c;
    float16 half_way[6][6];
    for (int j = 0; j < 6; j++) {
      float16 d[6];
      for (int i = 0; i < 6; i++) {
        d[i] = 0;
        if ((uint)(h + i) < (uint)H && (uint)(v + j) < (uint)W) {
          __global const real *from = x + (h + i) * XH + (v + j) * XW + c;
          d[i] = some >= 16 ? LOAD16(from, 0) : load_some(from, some);
        }
      }
#define TRANSFORM(to, stride)                                             \
  to[0 * stride] = 4.0f * d[0] - 5.0f * d[2] + d[4];                      \
  to[1 * stride] = (d[4] - 4.0f * d[2]) + (d[3] - 4.0f * d[1]);           \
  to[2 * stride] = (d[4] - 4.0f * d[2]) - (d[3] - 4.0f * d[1]);           \
  to[3 * stride] = (d[4] - d[2]) + 2.0f * (d[3] - d[1]);                  \
  to[4 * stride] = (d[4] - d[2]) - 2.0f * (d[3] - d[1]);                  \
  to[5 * stride] = 4.0f * d[1] - 5.0f * d[3] + d[5];
      float16 *to = &half_way[0][j];
      TRANSFORM(to, 6)
    }
    for (int i = 0; i < 6; i++) {
      float16 *d = half_way[i], to[6];
      TRANSFORM(to, 1)
      for (int j = 0; j < 6; j++) vstore16(to[j], 0, scratch + (size_t)(i * 6 + j) * tiles * DEPTH + c);
    }
  }
}

// A work-item PIXELS tiles by BLOCK channels of one element. The weights are [element][block][input channel][BLOCK].
__attribute__((reqd_work_group_size(1, 1, 1))) WIDE __kernel void
multiply(__constant int *g, __global float *scratch, __global const float *w, int tiles) {
  int first = get_global_id(0) * PIXELS, block = get_global_id(1), element = get_global_id(2), channels = C;
  w += ((size_t)element * get_global_size(1) + block) * channels * BLOCK;
  __global const float *x = scratch + (size_t)element * tiles * DEPTH;
  __global float *y = scratch + (size_t)36 * tiles * DEPTH + (size_t)element * tiles * WIDTH + block * BLOCK;
#define BEGIN(p)                                                          \
  __global const float *from##p = x + min(first + p, tiles - 1) * DEPTH;  \
  SUMS(p)
  EACH(PIXELS, BEGIN)
  for (int c = 0; c < channels; c++, w += BLOCK) {
    float16 w0 = vload16(0, w);
    SECOND(float16 w1 = vload16(1, w);)
    THIRD(float16 w2 = vload16(2, w);)
    FOURTH(float16 w3 = vload16(3, w);)
    EACH(PIXELS, MULTIPLY)
  }
#define END(p)                                             \
  if (first + p < tiles) {                                 \
    __global float *to = y + (first + p) * WIDTH;          \
    vstore16(sum##p##_0, 0, to);                           \
    SECOND(vstore16(sum##p##_1, 1, to);)                   \
    THIRD(vstore16(sum##p##_2, 2, to);)                    \
    FOURTH(vstore16(sum##p##_3, 3, to);)                   \
  }
  EACH(PIXELS, END)
}

// A work-item one tile by 64 channels.
__attribute__((reqd_work_group_size(1, 1, 1))) WIDE __kernel void
transform_back(__constant int *g, __global const float *scratch, __global const float *bias,
               __global const real *residual, int residual_at, __global real *y, int y_at, int has_residual,
               int activation) {
  int tile = get_global_id(0), tiles = get_global_size(0);
  int ow = tile % ACROSS * 4, oh = tile / ACROSS % DOWN * 4, n = tile / (ACROSS * DOWN);
  scratch += (size_t)36 * tiles * DEPTH + tile * WIDTH;
  int begin = get_global_id(1) * 64, end = min(begin + 64, K), rows = min(4, OH - oh), columns = min(4, OW - ow);
  for (int k = begin; k < end; k += 16) {
    float16 half_way[4][6];
    for (int j = 0; j < 6; j++) {
      float16 d[6];
      for (int i = 0; i < 6; i++) d[i] = vload16(0, scratch + (size_t)(i * 6 + j) * tiles * WIDTH + k);
#define TRANSFORM_BACK(to, stride)                                             \
  to[0 * stride] = d[0] + (d[1] + d[2]) + (d[3] + d[4]);                       \
  to[1 * stride] = (d[1] - d[2]) + 2.0f * (d[3] - d[4]);                       \
  to[2 * stride] = (d[1] + d[2]) + 4.0f * (d[3] + d[4]);                       \
  to[3 * stride] = (d[1] - d[2]) + 8.0f * (d[3] - d[4]) + d[5];
      float16 *to = &half_way[0][j];
      TRANSFORM_BACK(to, 6)
    }
    for (int i = 0; i < rows; i++) {
      float16 *d = half_way[i], to[4];
      TRANSFORM_BACK(to, 1)
      int at = ((n * OH + oh + i) * OW + ow) * K + k;
      for (int j = 0; j < columns; j++, at += K)
        finish(to[j], K - k, bias + k, residual + residual_at + at, y + y_at + at, has_residual, activation);
    }
  }
}

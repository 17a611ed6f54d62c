// Convolution of every channel on its own, NHWC: a work-item PIXELS pixels of the output by BLOCK channels. The weights
// are [tap][channel], padded to whole blocks; `zeros` are BLOCK.
__attribute__((reqd_work_group_size(1, 1, 1))) WIDE __kernel void
depthwise(__constant int *g, __global const real *x, int x_at, __global const real *w, __global const float *bias,
          __global const real *residual, int residual_at, __global real *y, int y_at, __global const real *zeros,
          int pixels, int has_residual, int activation) {
  int first = get_global_id(0) * PIXELS, k = get_global_id(1) * BLOCK, padded = get_global_size(1) * BLOCK;
  x += x_at + k;
  w += k;
  EACH(PIXELS, PLACE)
  for (int r = 0; r < KH; r++) {
    for (int s = 0; s < KW; s++, w += padded) {
      int inside = 0;
      EACH(PIXELS, POINT)
      if (!inside) continue;
      if (k + BLOCK <= K) {
        float16 w0 = LOAD16(w, 0);
        SECOND(float16 w1 = LOAD16(w, 16);)
        THIRD(float16 w2 = LOAD16(w, 32);)
        FOURTH(float16 w3 = LOAD16(w, 48);)
#define BY_CHANNEL(p)                                  \
  sum##p##_0 += LOAD16(from##p, 0) * w0;             \
  SECOND(sum##p##_1 += LOAD16(from##p, 16) * w1;)    \
  THIRD(sum##p##_2 += LOAD16(from##p, 32) * w2;)     \
  FOURTH(sum##p##_3 += LOAD16(from##p, 48) * w3;)
        EACH(PIXELS, BY_CHANNEL)
      } else {
        // The last channels, where whole vectors would reach into the next pixel, or beyond the tensor.
        int some = K - k;
        float16 w0 = LOAD16(w, 0);
        SECOND(float16 w1 = LOAD16(w, 16);)
        THIRD(float16 w2 = LOAD16(w, 32);)
        FOURTH(float16 w3 = LOAD16(w, 48);)
#define SOME(p)                                                   \
  sum##p##_0 += load_some(from##p, some) * w0;                    \
  SECOND(sum##p##_1 += load_some(from##p + 16, some - 16) * w1;)  \
  THIRD(sum##p##_2 += load_some(from##p + 32, some - 32) * w2;)   \
  FOURTH(sum##p##_3 += load_some(from##p + 48, some - 48) * w3;)
        EACH(PIXELS, SOME)
      }
    }
  }
  FINISH
}

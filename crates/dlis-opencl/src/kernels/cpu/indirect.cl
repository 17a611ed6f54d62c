// Convolution, NHWC: a work-item PIXELS pixels of the output by BLOCK channels, whose weights stream by once. They are
// [block of channels][tap][input channel][BLOCK], zeros beyond the last channel; `zeros` are as many as there are input
// channels.
__attribute__((reqd_work_group_size(1, 1, 1))) WIDE __kernel void
conv2d(__constant int *g, __global const real *x, int x_at, __global const real *w, __global const float *bias,
       __global const real *residual, int residual_at, __global real *y, int y_at, __global const real *zeros,
       int pixels, int has_residual, int activation) {
  int first = get_global_id(0) * PIXELS, k = get_global_id(1) * BLOCK, channels = C;
  x += x_at;
  w += (size_t)k * KH * KW * channels;
  EACH(PIXELS, PLACE)
  for (int r = 0; r < KH; r++) {
    for (int s = 0; s < KW; s++, w += channels * BLOCK) {
      int inside = 0;
      EACH(PIXELS, POINT)
      if (!inside) continue;
      __global const real *weight = w;
      for (int c = 0; c < channels; c++, weight += BLOCK) {
        float16 w0 = LOAD16(weight, 0);
        SECOND(float16 w1 = LOAD16(weight, 16);)
        THIRD(float16 w2 = LOAD16(weight, 32);)
        FOURTH(float16 w3 = LOAD16(weight, 48);)
        EACH(PIXELS, MULTIPLY)
      }
    }
  }
  FINISH
}

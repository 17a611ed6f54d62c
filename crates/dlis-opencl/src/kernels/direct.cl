// Convolution by its definition: a work-item an element of the output, any layouts, groups, strides and dilations.

__kernel void conv2d(__constant int *g, __global const real *x, int x_at, __global const real *w,
                     __global const float *bias, __global const real *residual, int residual_at, __global real *y,
                     int y_at) {
  OUTPUT_PLACE(k, oh, ow, n)
  x += x_at + n * XN + (k / GROUP_OUT) * GROUP_IN * XC;
  w += (size_t)k * GROUP_IN * KH * KW;
  float sum = bias[k];
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (v < 0 || v >= W) continue;
      for (int c = 0; c < GROUP_IN; c++)
        sum += LOAD(x, h * XH + v * XW + c * XC) * LOAD(w, (c * KH + r) * KW + s);
    }
  }
  int at = n * YN + k * YC + oh * YH + ow * YW;
#ifdef RESIDUAL
  sum += LOAD(residual, residual_at + at);
#endif
  STORE(ACTIVATE(sum), y, y_at + at);
}

// The sparse convolution of Turner et al. 2018: every filter of a pair of channels is a sparse matrix of its own, and
// a work-item an output pixel that walks through all of them.

__kernel void conv2d(__constant int *g, __global const real *x, int x_at, __global const uint *firsts,
                     __global const uint *starts, __global const uint *columns, __global const float *values,
                     __global const float *bias, __global const real *residual, int residual_at, __global real *y,
                     int y_at, int how, int all) {
  int i = get_global_id(0), ow = i % OW;
  if (i >= all) return;
  i /= OW;
  int oh = i % OH;
  i /= OH;
  int k = i % K, n = i / K;
  x += x_at + n * XN + (k / GROUP_OUT) * GROUP_IN * XC;
  float sum = bias[k];
  for (int c = 0; c < GROUP_IN; c++) {
    int filter = k * GROUP_IN + c;
    __global const uint *rows = starts + filter * (KH + 1);
    uint first = firsts[filter];
    for (int r = 0; r < KH; r++) {
      int h = oh * SH - PT + r * DH;
      if (h < 0 || h >= H) continue;
      for (uint e = first + rows[r]; e < first + rows[r + 1]; e++) {
        int v = ow * SW - PL + (int)columns[e] * DW;
        if (v >= 0 && v < W) sum += values[e] * LOAD(x, c * XC + h * XH + v * XW);
      }
    }
  }
  int at = n * YN + k * YC + oh * YH + ow * YW;
  if (HAS_RESIDUAL(how)) sum += LOAD(residual, residual_at + at);
  STORE(FINISH(sum, how), y, y_at + at);
}

// The one matrix of a linear layer: a work-item an output.
__kernel void linear(__constant int *g, __global const real *x, int x_at, __global const uint *firsts,
                     __global const uint *starts, __global const uint *columns, __global const float *values,
                     __global const float *bias, __global const real *residual, int residual_at, __global real *y,
                     int y_at, int how, int all) {
  int i = get_global_id(0), k = i % K, n = i / K;
  if (i >= all) return;
  x += x_at + n * XN;
  float sum = bias[k];
  for (uint e = starts[k]; e < starts[k + 1]; e++) sum += values[e] * LOAD(x, (int)columns[e]);
  if (HAS_RESIDUAL(how)) sum += LOAD(residual, residual_at + i);
  STORE(FINISH(sum, how), y, y_at + i);
}

// What is done to tensors before and after a library's product of matrices.

// Writes what each output pixel's window sees as a row of floats, the taps of a group of channels in its order
// [group][row][column][channel]; zeros where it sees padding. A work-item a float; `first` is the first pixel.
__kernel void im2col(__constant int *g, __global const real *x, int x_at, __global float *columns, int first, int row_len) {
  int i = get_global_id(0), terms = GROUP_IN * KH * KW, group = i / terms, t = i % terms;
  if (i >= row_len) return;
  int c = t % GROUP_IN, tap = t / GROUP_IN;
  int p = first + get_global_id(1), ow = p % OW, row = p / OW, oh = row % OH, n = row / OH;
  int h = oh * SH - PT + tap / KW * DH, v = ow * SW - PL + tap % KW * DW;
  float value = 0;
  if (h >= 0 && h < H && v >= 0 && v < W)
    value = LOAD(x, x_at + n * XN + h * XH + v * XW + (group * GROUP_IN + c) * XC);
  columns[(size_t)get_global_id(1) * row_len + i] = value;
}

// What follows a product, a work-item an element. The product may be the output itself.
__kernel void finish(__global const float *product, int product_at, __global const float *bias,
                     __global const real *residual, int residual_at, __global real *y, int y_at, int channels, int how, int all) {
  int i = get_global_id(0);
  if (i >= all) return;
  float sum = product[product_at + i] + bias[i % channels];
  if (HAS_RESIDUAL(how)) sum += LOAD(residual, residual_at + i);
  STORE(FINISH(sum, how), y, y_at + i);
}

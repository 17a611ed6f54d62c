// Pooling by its definition: a work-item an element of the output, any layouts.

// Where this work-item's window and its output are.
#define PLACE                        \
  OUTPUT_PLACE(k, oh, ow, n)         \
  x += x_at + n * XN + k * XC;       \
  int at = y_at + n * YN + k * YC + oh * YH + ow * YW;

__kernel void max_pool(__constant int *g, __global const real *x, int x_at, __global real *y, int y_at) {
  PLACE
  float best = -INFINITY;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (h < 0 || h >= H || v < 0 || v >= W) continue;
      float value = LOAD(x, h * XH + v * XW);
      // NaN wins and stays.
      best = value > best || value != value ? value : best;
    }
  }
  STORE(ACTIVATE(best), y, at);
}

// With `whole` the padding counts among the averaged elements.
__kernel void avg_pool(__constant int *g, __global const real *x, int x_at, __global real *y, int y_at, int whole) {
  PLACE
  float sum = 0;
  int count = 0;
  for (int r = 0; r < KH; r++) {
    int h = oh * SH - PT + r * DH;
    for (int s = 0; s < KW; s++) {
      int v = ow * SW - PL + s * DW;
      if (h >= 0 && h < H && v >= 0 && v < W) {
        sum += LOAD(x, h * XH + v * XW);
        count++;
      } else if (whole && h < H + PB && v < W + PR) {
        count++;
      }
    }
  }
  STORE(ACTIVATE(sum / (float)count), y, at);
}

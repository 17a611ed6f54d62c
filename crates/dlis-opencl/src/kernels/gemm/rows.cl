// Products for devices of wide vectors: a work-item computes a block of 16 channels of ROWS pixels, all in registers;
// a term's weights are decoded once for all of them.

// `depth` channels of a group as the weights count them, `blocks` blocks of a group, `zeros` for what windows see
// beyond the edge.
__kernel void rows(__constant int *g, __global const real *x, int x_at, __global const real *zeros,
                   __global const uchar *codes, __global const stored *values, __global const float *positive,
                   __global const float *negative, __global const float *bias, __global const real *residual,
                   int residual_at, __global real *y, int y_at, int depth, int terms, int blocks, int pixels, int how) {
  int block = get_global_id(0), group = block / blocks, first = get_global_id(1) * ROWS;
  Block b = block_at(codes, values, block, terms);
  float16 plus = vload16(block, positive), minus = vload16(block, negative);
  x += x_at + group * GROUP_IN;
  float16 sums[ROWS];
  int tops[ROWS], lefts[ROWS], images[ROWS];
  for (int p = 0; p < ROWS; p++) {
    // Pixels behind the last are the last again.
    int q = min(first + p, pixels - 1);
    sums[p] = 0.0f;
    tops[p] = q / OW % OH * SH - PT, lefts[p] = q % OW * SW - PL, images[p] = q / (OH * OW) * XN;
  }
  for (int r = 0; r < KH; r++)
    for (int s = 0; s < KW; s++) {
      __global const real *inputs[ROWS];
      int seen = 0;
      for (int p = 0; p < ROWS; p++) {
        int h = tops[p] + r * DH, v = lefts[p] + s * DW;
        bool is_inside = h >= 0 && h < H && v >= 0 && v < W;
        inputs[p] = is_inside ? x + images[p] + (h * W + v) * C : zeros;
        seen |= is_inside;
      }
      // A tap that sees nothing but padding adds nothing.
      if (!seen) continue;
      int t = (r * KW + s) * depth;
      for (int c = 0; c < GROUP_IN; c++) {
        float16 w = weights(b, t + c, plus, minus);
        for (int p = 0; p < ROWS; p++) sums[p] += LOAD(inputs[p], c) * w;
      }
    }
  float16 biases = vload16(block, bias);
  int k = group * GROUP_OUT + block % blocks * 16, channels = min(16, (group + 1) * GROUP_OUT - k);
  y += y_at + k, residual += residual_at + k;
  for (int p = 0; p < ROWS && first + p < pixels; p++) {
    float16 sum = SCALED(sums[p], plus) + biases;
    int at = (first + p) * K;
    if (channels == 16) {
      if (HAS_RESIDUAL(how)) sum += LOAD16(residual, at);
      sum = FINISH(sum, how);
      STORE16(sum, y, at);
    } else {
      float one[16];
      vstore16(sum, 0, one);
      for (int j = 0; j < channels; j++) {
        if (HAS_RESIDUAL(how)) one[j] += LOAD(residual, at + j);
        STORE(FINISH(one[j], how), y, at + j);
      }
    }
  }
}

// Channels that are convolved on their own: a work-item an element of the output.
__kernel void depthwise(__constant int *g, __global const real *x, int x_at, __global const uchar *codes,
                        __global const stored *values, __global const float *positive, __global const float *negative,
                        __global const float *bias, __global const real *residual, int residual_at, __global real *y,
                        int y_at, int depth, int terms, int how) {
  if (get_global_id(0) >= K) return;
  int k = get_global_id(0), q = get_global_id(1), n = q / (OH * OW);
  int top = q / OW % OH * SH - PT, left = q % OW * SW - PL;
  Block b = block_at(codes, values, k / 16, terms);
  float plus = positive[k], minus = negative[k], sum = 0;
  x += x_at + n * XN + k;
  for (int r = 0; r < KH; r++) {
    int h = top + r * DH;
    if (h < 0 || h >= H) continue;
    for (int s = 0; s < KW; s++) {
      int v = left + s * DW;
      if (v < 0 || v >= W) continue;
      sum += LOAD(x, (h * W + v) * C) * weight(b, (r * KW + s) * depth, k % 16, plus, minus);
    }
  }
  sum = SCALED(sum, plus) + bias[k];
  int at = q * K + k;
  if (HAS_RESIDUAL(how)) sum += LOAD(residual, residual_at + at);
  STORE(FINISH(sum, how), y, y_at + at);
}

// Operations on each element by itself, and movements of elements: a work-item an element.

// x / scale, rounded as a quotient is: x and scale come times the power of two that brings the scale to between 1 and
// 2, and `inverse` is its reciprocal. The remainder of each estimate is exact, the first correction leaves at most one
// unit of error, and the second none (Markstein 1990). Far from the bytes any estimate will do.
__kernel void quantize(__global const real *x, int x_at, __global uchar *y, int y_at, float scale, float inverse,
                       int exponent, int zero) {
  int i = get_global_id(0);
  float a = ldexp(LOAD(x, x_at + i), exponent), v = a * inverse;
  if (fabs(v) < 1024.0f) {
    v = fma(fma(-v, scale, a), inverse, v);
    v = fma(fma(-v, scale, a), inverse, v);
  }
  y[y_at + i] = to_byte(v, -(float)zero, 255.0f - (float)zero, zero);
}

__kernel void dequantize(__global const uchar *x, int x_at, __global real *y, int y_at, float scale, int zero) {
  int i = get_global_id(0);
  STORE((float)((int)x[x_at + i] - zero) * scale, y, y_at + i);
}

__kernel void add(__global const uchar *a, int a_at, __global const uchar *b, int b_at, __global uchar *y, int y_at,
                  int a_zero, int b_zero, float of_a, float of_b, float low, float high, int zero) {
  int i = get_global_id(0);
  float v = times((float)((int)a[a_at + i] - a_zero), of_a) + times((float)((int)b[b_at + i] - b_zero), of_b);
  y[y_at + i] = to_byte(v, low, high, zero);
}

// Every run of `run` elements becomes, by a table, part of a run of `y_run`, from `first` on.
__kernel void look_up(__global const uchar *x, int x_at, __global uchar *y, int y_at, __global const uchar *table,
                      int run, int y_run, int first) {
  int i = get_global_id(0);
  y[y_at + i / run * y_run + first + i % run] = table[x[x_at + i]];
}

// From NHWC (`inner` channels of `outer` pixels) to NCHW, or the other way about.
__kernel void reorder(__global const uchar *x, int x_at, __global uchar *y, int y_at, int outer, int inner) {
  int i = get_global_id(0), image = outer * inner, n = i / image, j = i % image;
  y[y_at + i] = x[x_at + n * image + j % outer * inner + j / outer];
}

// Operations whose every output element is a function of the inputs' elements at its place: a work-item an element.
// `channel` is its channel, given the step from one channel to the next and the channels.

__kernel void affine(__global const real *x, int x_at, __global const float *scale, __global const float *shift,
                     __global real *y, int y_at, int step, int channels) {
  int i = get_global_id(0), c = i / step % channels;
  STORE(ACTIVATE(fma(LOAD(x, x_at + i), scale[c], shift[c])), y, y_at + i);
}

__kernel void activate(__global const real *x, int x_at, __global real *y, int y_at) {
  int i = get_global_id(0);
  STORE(ACTIVATE(LOAD(x, x_at + i)), y, y_at + i);
}

__kernel void add(__global const real *a, int a_at, __global const real *b, int b_at, __global real *y, int y_at) {
  int i = get_global_id(0);
  STORE(ACTIVATE(LOAD(a, a_at + i) + LOAD(b, b_at + i)), y, y_at + i);
}

// `factors` is one value a channel of each image of `image` elements.
__kernel void scale(__global const real *x, int x_at, __global const real *factors, int factors_at, __global real *y,
                    int y_at, int step, int channels, int image) {
  int i = get_global_id(0), c = i / step % channels, n = i / image;
  STORE(ACTIVATE(LOAD(x, x_at + i) * LOAD(factors, factors_at + n * channels + c)), y, y_at + i);
}

// From NHWC (`inner` channels of `outer` pixels) to NCHW, or the other way about.
__kernel void reorder(__global const bits *x, int x_at, __global bits *y, int y_at, int outer, int inner) {
  int i = get_global_id(0), image = outer * inner, n = i / image, j = i % image;
  y[y_at + i] = x[x_at + n * image + j % outer * inner + j / outer];
}

// Pooling, NHWC: a work-item all channels of a pixel of the output, 16 at a time.

#ifdef AVERAGE
#define START 0.0f
#define TAKE(sum, value) sum += value
#define RESULT(sum) ((sum) / (float)count)
#else
#define START -INFINITY
// NaN wins and stays.
#define TAKE(best, value) float16 next = value; best = next > best || next != next ? next : best
#define RESULT(best) (best)
#endif

// Takes what is loaded of every tap in the image; `from` is the pixel under it.
#define TAPS(load)                                                           \
  for (int r = top; r < bottom; r++)                                         \
    for (int s = left; s < right; s++) {                                     \
      __global const real *from = x + (h + r * DH) * XH + (v + s * DW) * XW; \
      TAKE(result, load);                                                    \
    }

// First tap that lies in the image, and the first after it that does not.
static inline int begin(int place, int step) { return place < 0 ? (-place + step - 1) / step : 0; }
static inline int end(int place, int step, int taps, int extent) {
  return min(taps, place < extent ? (extent - place + step - 1) / step : 0);
}

// With `whole` the padding counts among the averaged elements.
__attribute__((reqd_work_group_size(1, 1, 1))) WIDE __kernel void
pool(__constant int *g, __global const real *x, int x_at, __global real *y, int y_at, int whole, int activation) {
  int pixel = get_global_id(0), ow = pixel % OW, oh = pixel / OW % OH, n = pixel / OW / OH;
  int h = oh * SH - PT, v = ow * SW - PL;
  int top = begin(h, DH), bottom = end(h, DH, KH, H), left = begin(v, DW), right = end(v, DW, KW, W);
  x += x_at + n * XN;
  y += y_at + pixel * K;
#ifdef AVERAGE
  int count = whole ? end(h, DH, KH, H + PB) * end(v, DW, KW, W + PR) : max(bottom - top, 0) * max(right - left, 0);
#endif
  int k = 0;
  for (; k + 16 <= K; k += 16) {
    float16 result = START;
    TAPS(LOAD16(from, k))
    STORE16(activate(RESULT(result), activation), y, k);
  }
  if (k < K) {
    int some = K - k;
    float16 result = START;
    TAPS(load_some(from + k, some))
    store_some(activate(RESULT(result), activation), y + k, some);
  }
}

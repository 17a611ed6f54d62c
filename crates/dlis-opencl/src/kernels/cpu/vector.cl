// What programs for processors share: sums in vectors of 16 channels, VECTORS to a pixel and PIXELS pixels at a time,
// every one in a variable of its own so that it is kept in a register.

#ifdef __has_attribute
#if __has_attribute(min_vector_width)
// Vectors of 512 bits are one register where there are such; compilers prefer two of 256 otherwise.
#define WIDE __attribute__((min_vector_width(512)))
#endif
#endif
#ifndef WIDE
#define WIDE
#endif

// EACH(n, M) is M(0) M(1) ... M(n - 1).
#define EACH1(M) M(0)
#define EACH2(M) EACH1(M) M(1)
#define EACH3(M) EACH2(M) M(2)
#define EACH4(M) EACH3(M) M(3)
#define EACH5(M) EACH4(M) M(4)
#define EACH6(M) EACH5(M) M(5)
#define EACH7(M) EACH6(M) M(6)
#define EACH8(M) EACH7(M) M(7)
#define EACH9(M) EACH8(M) M(8)
#define EACH10(M) EACH9(M) M(9)
#define EACH11(M) EACH10(M) M(10)
#define EACH12(M) EACH11(M) M(11)
#define EACH13(M) EACH12(M) M(12)
#define EACH14(M) EACH13(M) M(13)
#define EACH15(M) EACH14(M) M(14)
#define EACH16(M) EACH15(M) M(15)
#define EACH_(n, M) EACH##n(M)
#define EACH(n, M) EACH_(n, M)

// Its argument if there are so many vectors.
#if VECTORS > 1
#define SECOND(...) __VA_ARGS__
#else
#define SECOND(...)
#endif
#if VECTORS > 2
#define THIRD(...) __VA_ARGS__
#else
#define THIRD(...)
#endif
#if VECTORS > 3
#define FOURTH(...) __VA_ARGS__
#else
#define FOURTH(...)
#endif

// Channels of a work-item.
#define BLOCK (VECTORS * 16)

// What follows an operation, known at run time: there are fewer programs so, and a store is no place to save time.
enum { RELU = 1, RELU6 = 2, SIGMOID = 3 };
static inline float16 activate(float16 value, int activation) {
  // NaN stays NaN, as comparisons with it are false.
  if (activation == RELU || activation == RELU6) value = value < 0.0f ? 0.0f : value;
  if (activation == RELU6) value = value > 6.0f ? 6.0f : value;
  if (activation == SIGMOID) value = 1.0f / (1.0f + exp(-value));
  return value;
}

// As many as there are, of 16.
static inline float16 load_some(__global const real *from, int some) {
  float part[16];
  for (int i = 0; i < 16; i++) part[i] = i < some ? LOAD(from, i) : 0.0f;
  return vload16(0, part);
}
static inline void store_some(float16 value, __global real *to, int some) {
  float part[16];
  vstore16(value, 0, part);
  for (int i = 0; i < some; i++) STORE(part[i], to, i);
}

// Stores the sums of 16 channels of a pixel, or of as many as there are; `bias` is of whole vectors.
static inline void finish(float16 sum, int some, __global const float *bias, __global const real *residual,
                          __global real *y, int has_residual, int activation) {
  sum += vload16(0, bias);
  if (has_residual) sum += some >= 16 ? LOAD16(residual, 0) : load_some(residual, some);
  sum = activate(sum, activation);
  if (some >= 16)
    STORE16(sum, y, 0);
  else
    store_some(sum, y, some);
}

// The sums of a pixel.
#define SUMS(p)                   \
  float16 sum##p##_0 = 0;         \
  SECOND(float16 sum##p##_1 = 0;) \
  THIRD(float16 sum##p##_2 = 0;)  \
  FOURTH(float16 sum##p##_3 = 0;)

// Adds the product of a pixel's channel `c` with a row of weights.
#ifndef VALUE
#define VALUE LOAD
#endif
#define MULTIPLY(p)                     \
  {                                     \
    float16 value = VALUE(from##p, c);  \
    sum##p##_0 += value * w0;           \
    SECOND(sum##p##_1 += value * w1;)   \
    THIRD(sum##p##_2 += value * w2;)    \
    FOURTH(sum##p##_3 += value * w3;)   \
  }

// What a work-item knows of its pixels, of which `pixels` are the batch's: the place of a pixel, where its window
// begins, and its sums. Pixels beyond the last are the last, and are not stored.
#define PLACE(p)                                             \
  int pixel##p = min(first + p, pixels - 1);                 \
  int v##p = pixel##p % OW * SW - PL;                        \
  int h##p = pixel##p / OW % OH * SH - PT;                   \
  __global const real *x##p = x + pixel##p / (OW * OH) * XN; \
  SUMS(p)

// Where a pixel's window has the tap of row `r` and column `s`: in the image, or in `zeros`.
#define POINT(p)                                                                    \
  int r##p = h##p + r * DH, s##p = v##p + s * DW;                                   \
  int in##p = ((uint)r##p < (uint)H) & ((uint)s##p < (uint)W);                      \
  __global const real *from##p = in##p ? x##p + r##p * XH + s##p * XW : zeros;      \
  inside |= in##p;

// Stores all pixels. One loop over the sums, although it takes them through memory: unrolled, the program would be
// mostly this.
#define KEEP(p)                         \
  sums[p * VECTORS] = sum##p##_0;       \
  SECOND(sums[p * VECTORS + 1] = sum##p##_1;) \
  THIRD(sums[p * VECTORS + 2] = sum##p##_2;)  \
  FOURTH(sums[p * VECTORS + 3] = sum##p##_3;)
#define FINISH                                                                                       \
  float16 sums[PIXELS * VECTORS];                                                                    \
  EACH(PIXELS, KEEP)                                                                                 \
  int stored = min(PIXELS, pixels - first) * VECTORS;                                                \
  __attribute__((opencl_unroll_hint(1))) for (int i = 0; i < stored; i++) {                          \
    int channel = k + i % VECTORS * 16, at = (first + i / VECTORS) * K + channel;                    \
    if (channel < K)                                                                                 \
      finish(sums[i], K - channel, bias + channel, residual + residual_at + at, y + y_at + at,       \
             has_residual, activation);                                                              \
  }

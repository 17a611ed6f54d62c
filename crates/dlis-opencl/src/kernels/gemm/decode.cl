// Weights in blocks of 16 output channels, [block][term][channel], in the bits of their format: one element by
// `weight`, those of a term by `weights`. `terms` counts the terms of a block.

#ifdef DENSE
#ifdef WEIGHT_HALF
typedef half stored;
#define STORED(p, i) vload_half((size_t)(i), (p))
#define STORED16(p, i) vload_half16(0, (p) + (i))
#else
typedef float stored;
#define STORED(p, i) ((p)[i])
#define STORED16(p, i) vload16(0, (p) + (i))
#endif
#elif defined(TWO_FOUR)
#ifdef WEIGHT_HALF
typedef half stored;
#define STORED(p, i) vload_half((size_t)(i), (p))
#define STORED16(p, i) vload_half16(0, (p) + (i))
#else
typedef float stored;
#define STORED(p, i) ((p)[i])
#define STORED16(p, i) vload16(0, (p) + (i))
#endif
#else
typedef float stored;
#endif

// What a block is decoded with: codes, values where there are some besides, and what a code 1 and 2 stand for.
typedef struct {
  __global const uchar *codes;
  __global const stored *values;
  int terms;
} Block;

#if defined(DENSE)
inline Block block_at(__global const uchar *codes, __global const stored *values, int block, int terms) {
  Block b = {codes, values + (size_t)block * terms * 16, terms};
  return b;
}
inline float weight(Block b, int t, int j, float positive, float negative) { return STORED(b.values, t * 16 + j); }
inline float16 weights(Block b, int t, float16 positive, float16 negative) { return STORED16(b.values, t * 16); }
#elif defined(INT8)
inline Block block_at(__global const uchar *codes, __global const stored *values, int block, int terms) {
  Block b = {codes + (size_t)block * terms * 16, values, terms};
  return b;
}
inline float weight(Block b, int t, int j, float positive, float negative) {
  return (float)as_char(b.codes[t * 16 + j]);
}
inline float16 weights(Block b, int t, float16 positive, float16 negative) {
  return convert_float16(as_char16(vload16(t, b.codes)));
}
#elif defined(INT4)
// Channels 8 to 15 in the high bits.
inline Block block_at(__global const uchar *codes, __global const stored *values, int block, int terms) {
  Block b = {codes + (size_t)block * terms * 8, values, terms};
  return b;
}
inline float weight(Block b, int t, int j, float positive, float negative) {
  uchar both = b.codes[t * 8 + (j & 7)];
  return (float)(as_char((uchar)(j < 8 ? both << 4 : both)) >> 4);
}
inline float16 weights(Block b, int t, float16 positive, float16 negative) {
  uchar8 both = vload8(t, b.codes);
  char8 low = as_char8(both << (uchar8)(4)) >> (char8)(4), high = as_char8(both) >> (char8)(4);
  return (float16)(convert_float8(low), convert_float8(high));
}
#elif defined(TERNARY_2BIT)
// Codes of two bits, the first channel's lowest.
inline Block block_at(__global const uchar *codes, __global const stored *values, int block, int terms) {
  Block b = {codes + (size_t)block * terms * 4, values, terms};
  return b;
}
inline float weight(Block b, int t, int j, float positive, float negative) {
  int code = b.codes[t * 4 + j / 4] >> (j % 4 * 2) & 3;
  return code == 1 ? positive : code == 2 ? negative : 0.0f;
}
inline float16 weights(Block b, int t, float16 positive, float16 negative) {
  const uint16 shifts = (uint16)(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  int16 code = as_int16((uint16)(((__global const uint *)b.codes)[t]) >> shifts & 3u);
  return code == 1 ? positive : code == 2 ? negative : (float16)(0.0f);
}
#elif defined(TERNARY_5IN8)
// Digits of base 3: a byte has five terms of a channel. Division is by multiplication, exact below 256.
__constant uint reciprocals[5] = {65536, 21846, 7282, 2428, 810};
inline Block block_at(__global const uchar *codes, __global const stored *values, int block, int terms) {
  Block b = {codes + (size_t)block * ((terms + 4) / 5) * 16, values, terms};
  return b;
}
inline float weight(Block b, int t, int j, float positive, float negative) {
  uint code = (b.codes[t / 5 * 16 + j] * reciprocals[t % 5] >> 16) % 3;
  return code == 1 ? positive : code == 2 ? negative : 0.0f;
}
inline float16 weights(Block b, int t, float16 positive, float16 negative) {
  uint16 rest = convert_uint16(vload16(t / 5, b.codes)) * reciprocals[t % 5] >> 16u;
  int16 code = as_int16(rest - 3u * (rest * 171u >> 9u));
  return code == 1 ? positive : code == 2 ? negative : (float16)(0.0f);
}
#elif defined(TWO_FOUR)
// A group of four terms has two values, and four bits that say where they belong: channels 8 to 15 in the high bits.
inline Block block_at(__global const uchar *codes, __global const stored *values, int block, int terms) {
  Block b = {codes + (size_t)block * (terms / 4) * 8, values + (size_t)block * (terms / 4) * 32, terms};
  return b;
}
inline float weight(Block b, int t, int j, float positive, float negative) {
  int group = t / 4, place = t % 4, both = b.codes[group * 8 + (j & 7)] >> (j < 8 ? 0 : 4);
  if ((both & 3) == place) return STORED(b.values, group * 32 + j);
  return (both >> 2 & 3) == place ? STORED(b.values, group * 32 + 16 + j) : 0.0f;
}
inline float16 weights(Block b, int t, float16 positive, float16 negative) {
  int group = t / 4, place = t % 4;
  int8 low = convert_int8(vload8(group, b.codes));
  int16 both = (int16)(low, low >> 4);
  float16 first = STORED16(b.values, group * 32), second = STORED16(b.values, group * 32 + 16);
  return (both & 3) == place ? first : (both >> 2 & 3) == place ? second : (float16)(0.0f);
}
#endif

// A sum of products with steps of a scale.
#if defined(INT8) || defined(INT4)
#define SCALED(sum, scale) ((sum) * (scale))
#else
#define SCALED(sum, scale) (sum)
#endif

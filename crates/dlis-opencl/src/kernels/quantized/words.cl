// Words of four inputs and of four weights, for graphics processors.
//
// The words of a sum are counted through all taps; weights are `[block of channels][word][channel of the block]`. A
// tap in the padding reads zero points, for which `corrections`, that every sum is added to, make up.

inline int dot4(uint x, int w, int sum) {
#ifdef PTX
  int result;
  __asm__("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(x), "r"(w), "r"(sum));
  return result;
#else
  int4 products = convert_int4(as_uchar4(x)) * convert_int4(as_char4(w));
  return sum + products.x + products.y + products.z + products.w;
#endif
}

#ifdef FOUR_BITS
// The signed nibble at bit `at`, as the byte `to` of a word.
#define BYTE(w, at, to) (((uint)((int)((w) << (28 - (at))) >> 28) & 255u) << 8 * (to))

// The first or second four of eight weights, whose nibbles are those of the inputs 0, 1, 4, 5, 2, 3, 6 and 7.
inline int weight(__global const uint *w, int word, int channel) {
  uint eight = w[word / 2 * BLOCK + channel] >> (word % 2 * 8);
  return (int)(BYTE(eight, 0, 0) | BYTE(eight, 4, 1) | BYTE(eight, 16, 2) | BYTE(eight, 20, 3));
}
#define WORDS(depth) (((depth) + 7) / 8 * 2)
#else
inline int weight(__global const uint *w, int word, int channel) { return (int)w[word * BLOCK + channel]; }
#define WORDS(depth) (((depth) + 3) / 4)
#endif

// Four inputs from the channel `c` on, those beyond `depth` of no account.
inline uint four_inputs(__global const uchar *x, int c, int depth, int aligned) {
  if (aligned) return *(__global const uint *)(x + c);
  uint word = 0;
  for (int b = 0; b < 4; b++)
    if (c + b < depth) word |= (uint)x[c + b] << 8 * b;
  return word;
}

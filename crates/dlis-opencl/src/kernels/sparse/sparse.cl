// Sparse convolution without a matrix: a work-item walks through the blocks of a row and adds each to VECTORS vectors
// of WIDTH neighbouring outputs. The input lies in planes in which a block meets its inputs a fixed distance from the
// outputs.
//
// HEIGHT rows of a block, or WIDE for blocks of four columns; LANES by SPLIT work-items of a group, where SPLIT of
// them share the blocks of a row. BY_ROWS: neighbouring work-items have neighbouring rows rather than outputs.

#if WIDTH == 1
typedef float vector;
#define LOADV(p, i) LOAD(p, i)
#define STOREV(v, p) (*(p) = (v))
#elif WIDTH == 2
typedef float2 vector;
#define STOREV(v, p) vstore2(v, 0, p)
#ifdef REAL_HALF
#define LOADV(p, i) vload_half2(0, (p) + (i))
#else
#define LOADV(p, i) vload2(0, (p) + (i))
#endif
#elif WIDTH == 4
typedef float4 vector;
#define LOADV(p, i) LOAD4(p, i)
#define STOREV(v, p) vstore4(v, 0, p)
#elif WIDTH == 8
typedef float8 vector;
#define LOADV(p, i) LOAD8(p, i)
#define STOREV(v, p) vstore8(v, 0, p)
#else
typedef float16 vector;
#define LOADV(p, i) LOAD16(p, i)
#define STOREV(v, p) vstore16(v, 0, p)
#endif

#ifdef VALUE_HALF
typedef half value;
#define VALUE(p, i) vload_half((size_t)(i), (p))
#else
typedef float value;
#define VALUE(p, i) ((p)[i])
#endif

#ifdef PLACE_SHORT
typedef ushort place;
#else
typedef uint place;
#endif

// Results in registers need known indices; a device of wide vectors has too many for that.
#ifdef BY_ROWS
#define UNROLL
#define UNROLL_SOME
#else
#define UNROLL _Pragma("unroll")
#define UNROLL_SOME _Pragma("unroll 4")
#endif

// Copies the input to its planes: a work-item an element. FH and FW phases of planes of PH by PW, NI images side by
// side.
__kernel void lay_out(__constant int *g, __global const bits *x, int x_at, __global bits *planes, int FH, int FW,
                      int PH, int PW, int NI, int all) {
  int i = get_global_id(0), n = i % NI, j = i / NI;
  if (i >= all) return;
  int column = j % PW, row = j / PW % PH, phase = j / PW / PH, c = phase / (FH * FW);
  phase %= FH * FW;
  n += c / C * NI, c %= C;
  int h = row * SH + phase / FW - PT, v = column * SW + phase % FW - PL;
  bits value = 0;
  if (h >= 0 && h < H && v >= 0 && v < W) value = x[x_at + n * XN + c * XC + h * XH + v * XW];
  planes[i] = value;
}

__kernel void sparse(__constant int *g, __global const real *x, int x_at, int image_len, int group_len, int PW, int NI,
                     __global const uint *starts, __global const place *places, __global const value *values,
                     __global const uint *columns, __global const float *bias, __global const real *residual,
                     int residual_at, __global real *y, int y_at, int how) {
#ifdef BY_ROWS
  int row = get_global_id(0), lane = get_global_id(1) * (WIDTH * VECTORS);
#else
  int row = get_group_id(1), lane = get_global_id(0) * (WIDTH * VECTORS);
#endif
  int image = get_global_id(2), lanes = ((OH - 1) * PW + OW) * NI;
  vector sums[HEIGHT][VECTORS];
  for (int r = 0; r < HEIGHT; r++)
    for (int v = 0; v < VECTORS; v++) sums[r][v] = 0;
#if SPLIT > 1
  int first = starts[row] + get_local_id(1);
#else
  int first = starts[row];
#endif
  int end = starts[row + 1];
  x += x_at + image * image_len + lane;
#ifdef WIDE
  x += row / GROUP_OUT * group_len;
#endif
  if (lane < lanes) {
UNROLL_SOME
    for (int e = first; e < end; e += SPLIT) {
#ifdef WIDE
      int column = 4 * places[e];
      for (int i = 0; i < 4; i++) {
        int at = columns[column + i];
        float w = VALUE(values, 4 * e + i);
        for (int v = 0; v < VECTORS; v++) sums[0][v] += w * LOADV(x, at + v * WIDTH);
      }
#else
      int at = places[e];
      for (int v = 0; v < VECTORS; v++) {
        vector input = LOADV(x, at + v * WIDTH);
        for (int r = 0; r < HEIGHT; r++) sums[r][v] += VALUE(values, e * HEIGHT + r) * input;
      }
#endif
    }
  }
  float results[HEIGHT * VECTORS * WIDTH];
  for (int r = 0; r < HEIGHT; r++)
    for (int v = 0; v < VECTORS; v++) STOREV(sums[r][v], results + (r * VECTORS + v) * WIDTH);
#if SPLIT > 1
  // The first of the work-items that share a row adds up.
  __local float shared[SPLIT][HEIGHT * VECTORS * WIDTH][LANES];
  int l = get_local_id(0), part = get_local_id(1);
UNROLL
  for (int i = 0; i < HEIGHT * VECTORS * WIDTH; i++) shared[part][i][l] = results[i];
  barrier(CLK_LOCAL_MEM_FENCE);
  if (part > 0) return;
UNROLL
  for (int i = 0; i < HEIGHT * VECTORS * WIDTH; i++)
    for (int p = 1; p < SPLIT; p++) results[i] += shared[p][i][l];
#endif
  int n = lane % NI, ow = lane / NI % PW, oh = lane / NI / PW;
  y += y_at, residual += residual_at;
UNROLL
  for (int i = 0; i < WIDTH * VECTORS; i++) {
    if (oh < OH && ow < OW)
UNROLL
      for (int r = 0; r < HEIGHT; r++) {
        int k = row * HEIGHT + r;
        if (HEIGHT > 1 && k >= K) continue;
        float sum = results[r * WIDTH * VECTORS + i] + bias[k];
        int at = (image * NI + n) * YN + k * YC + oh * YH + ow * YW;
        if (HAS_RESIDUAL(how)) sum += LOAD(residual, at);
        STORE(FINISH(sum, how), y, at);
      }
    if (++n == NI) {
      n = 0;
      if (++ow == PW) ow = 0, oh++;
    }
  }
}

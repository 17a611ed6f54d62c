// Vectors of VECTOR consecutive channels (1, 2, 4 or 8) of NHWC tensors, each at a multiple of its own size. Follows
// common.cl and ptx.cl.

#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)

#if VECTOR == 1
typedef float vector;
#else
typedef PASTE(float, VECTOR) vector;
#endif

// Eight halves are taken apart by hand: NVIDIA's compiler loads vloada_half8 piecemeal.
#ifdef REAL_HALF
#if VECTOR == 8
inline vector load_(__global const uint4 *pointer)
{
    const uint4 x = *pointer;
    return (vector)(ptx_half_low(x.x), ptx_half_high(x.x), ptx_half_low(x.y), ptx_half_high(x.y), ptx_half_low(x.z),
                    ptx_half_high(x.z), ptx_half_low(x.w), ptx_half_high(x.w));
}
#define GET(pointer) load_((__global const uint4 *)(pointer))
#define PUT(value, pointer)                                                                            \
    do {                                                                                                 \
        const vector value_ = (value);                                                                   \
        *(__global uint4 *)(pointer) = (uint4)(ptx_pack_half2(value_.s0, value_.s1),                     \
                                               ptx_pack_half2(value_.s2, value_.s3),                     \
                                               ptx_pack_half2(value_.s4, value_.s5),                     \
                                               ptx_pack_half2(value_.s6, value_.s7));                    \
    } while (0)
#elif VECTOR == 1
#define GET(pointer) vload_half(0, pointer)
#define PUT(value, pointer) vstore_half_rte(value, 0, pointer)
#else
#define GET(pointer) PASTE(vloada_half, VECTOR)(0, pointer)
#define PUT(value, pointer) PASTE(PASTE(vstorea_half, VECTOR), _rte)(value, 0, pointer)
#endif
#else
#define GET(pointer) (*(__global const vector *)(pointer))
#define PUT(value, pointer) (*(__global vector *)(pointer) = (value))
#endif

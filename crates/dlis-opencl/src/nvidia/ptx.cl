// The instructions of NVIDIA's tensor cores and asynchronous copies that OpenCL C has no words for, as macros over
// inline PTX (sm_80 and later), and an emulation of them in plain OpenCL C for every other device, by which the
// indexing of the kernels that use them is tested anywhere.
//
// A warp is 32 consecutive work-items. Every macro marked "warp" must be reached by all work-items of the work-group
// (the emulation exchanges fragments through local memory between barriers), in the same order.
//
// Shared memory is addressed by a base (`ptx_shared`, made by PTX_SHARED of a `__local` pointer) and a byte offset.
// A kernel that uses a "warp" macro says PTX_SCRATCH(work-items of a work-group); among its local variables.
//
// Fragments, of the work-item `lane` with g = lane / 4 and t = lane % 4; a register is one uint, of two halves or one
// tf32, so that both types have the same layout in bytes:
//   A (16 rows of 32 bytes):  a[0] row g bytes 4t, a[1] row g + 8 bytes 4t, a[2] row g bytes 16 + 4t,
//                             a[3] row g + 8 bytes 16 + 4t
//   B (8 columns of 32 bytes of k): b0 column g bytes 4t, b1 column g bytes 16 + 4t
//   C (16 x 8 floats): c[0], c[1] row g columns 2t, 2t + 1; c[2], c[3] row g + 8
// A is what PTX_LDMATRIX_X4 yields where lanes 0-15 name rows 0-15 at byte 0 and lanes 16-31 the same rows at byte 16;
// two B fragments where lanes 0-7 name columns 0-7 at byte 0, lanes 8-15 the same at byte 16, lanes 16-23 columns 8-15
// at byte 0, lanes 24-31 the same at byte 16: the first is d[0], d[1], the second d[2], d[3].

#if defined(__NV_CL_C_VERSION) && !defined(PTX_EMULATE)

#define PTX_UNROLL _Pragma("unroll")

typedef uint ptx_shared;
#define PTX_SHARED(pointer) ((uint)(size_t)(pointer))
#define PTX_SCRATCH(work_items)

// c += a * b, halves into floats (m16n8k16). Warp.
#define PTX_MMA_F16(c, a, b0, b1)                                                                       \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "                                   \
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                                   \
                 : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                               \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"(b0), "r"(b1))

// c += a * b, tf32 into floats (m16n8k8); the low 13 bits of an operand are ignored. Warp.
#define PTX_MMA_TF32(c, a, b0, b1)                                                                      \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "                                  \
                 "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                                   \
                 : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                               \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"(b0), "r"(b1))

// Four 8x8 matrices of 16-bit elements; lane i names (16-byte aligned) row i % 8 of matrix i / 8. Warp.
#define PTX_LDMATRIX_X4(d, shared, offset)                                                              \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"                         \
                 : "=r"((d)[0]), "=r"((d)[1]), "=r"((d)[2]), "=r"((d)[3])                               \
                 : "r"((shared) + (uint)(offset)))

// Copies 16 bytes from global memory, or writes zeros where `valid` is false (the pointer must be a mapped address all
// the same). Both sides aligned to 16 bytes.
#define PTX_COPY_16(shared, offset, pointer, valid)                                                     \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((shared) + (uint)(offset)),      \
                 "l"((ulong)(pointer)), "r"((valid) ? 16 : 0) : "memory")
// As PTX_COPY_16, through the first-level cache, for what other copies of the same work-group will read again.
#define PTX_COPY_16_CACHED(shared, offset, pointer, valid)                                              \
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"((shared) + (uint)(offset)),      \
                 "l"((ulong)(pointer)), "r"((valid) ? 16 : 0) : "memory")
#define PTX_COPY_8(shared, offset, pointer, valid)                                                      \
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"((shared) + (uint)(offset)),       \
                 "l"((ulong)(pointer)), "r"((valid) ? 8 : 0) : "memory")
#define PTX_COPY_4(shared, offset, pointer, valid)                                                      \
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"((shared) + (uint)(offset)),       \
                 "l"((ulong)(pointer)), "r"((valid) ? 4 : 0) : "memory")
// Closes a group of copies; waits until at most `n` (a literal) groups of this work-item are under way. What other
// work-items copied is visible after a barrier that follows their wait.
#define PTX_COMMIT() asm volatile("cp.async.commit_group;" ::: "memory")
#define PTX_WAIT(n) asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory")

// The nearest tf32 (ties away from zero), as bits; NaN stays NaN.
inline uint ptx_tf32(float x)
{
    uint bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// Two halves, the first in the low bits, rounded to nearest even.
inline uint ptx_pack_half2(float low, float high)
{
    uint bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

inline float ptx_half_low(uint bits)
{
    float x;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l; }" : "=f"(x) : "r"(bits));
    return x;
}

inline float ptx_half_high(uint bits)
{
    float x;
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h; }" : "=f"(x) : "r"(bits));
    return x;
}

// Adds one to a counter in global memory and returns what it was: all that this work-item (and, after a barrier, its
// work-group) wrote before is visible to whoever sees the count, and what others wrote before they counted is visible
// to this one.
inline uint ptx_count(__global uint *counter)
{
    uint old;
    asm volatile("fence.acq_rel.gpu; atom.add.acq_rel.gpu.global.u32 %0, [%1], 1; fence.acq_rel.gpu;"
                 : "=r"(old) : "l"((ulong)counter) : "memory");
    return old;
}

// Reads past the first-level cache.
inline float4 ptx_load_l2(__global const float4 *pointer)
{
    float4 x;
    asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "l"((ulong)pointer) : "memory");
    return x;
}

#else

#define PTX_UNROLL

typedef __local uchar *ptx_shared;
#define PTX_SHARED(pointer) ((__local uchar *)(pointer))
#define PTX_SCRATCH(work_items) __local uint ptx_scratch[(work_items) * 6]

#define PTX_MMA_F16(c, a, b0, b1) ptx_mma(c, a, b0, b1, 2, ptx_scratch)
#define PTX_MMA_TF32(c, a, b0, b1) ptx_mma(c, a, b0, b1, 1, ptx_scratch)
#define PTX_LDMATRIX_X4(d, shared, offset) ptx_ldmatrix(d, shared, offset, ptx_scratch)
#define PTX_COPY_16(shared, offset, pointer, valid)                                                     \
    *(__local uint4 *)((shared) + (offset)) = (valid) ? *(__global const uint4 *)(pointer) : (uint4)(0)
#define PTX_COPY_16_CACHED PTX_COPY_16
#define PTX_COPY_8(shared, offset, pointer, valid)                                                      \
    *(__local uint2 *)((shared) + (offset)) = (valid) ? *(__global const uint2 *)(pointer) : (uint2)(0)
#define PTX_COPY_4(shared, offset, pointer, valid)                                                      \
    *(__local uint *)((shared) + (offset)) = (valid) ? *(__global const uint *)(pointer) : 0u
#define PTX_COMMIT()
#define PTX_WAIT(n)

inline uint ptx_tf32(float x)
{
    return isfinite(x) ? (as_uint(x) + 0x1000u) & 0xffffe000u : as_uint(x);
}

inline uint ptx_pack_half2(float low, float high)
{
    ushort2 halves;
    vstore_half_rte(low, 0, (half *)&halves);
    vstore_half_rte(high, 1, (half *)&halves);
    return as_uint(halves);
}

inline float ptx_half_low(uint bits)
{
    return vload_half(0, (const half *)&bits);
}

inline float ptx_half_high(uint bits)
{
    return vload_half(1, (const half *)&bits);
}

inline uint ptx_count(__global uint *counter)
{
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    const uint old = atomic_inc(counter);
    mem_fence(CLK_GLOBAL_MEM_FENCE);
    return old;
}

inline float4 ptx_load_l2(__global const float4 *pointer)
{
    return *(__global const volatile float4 *)pointer;
}

// Work-items of a work-group are counted along all its dimensions.
inline uint ptx_item(void)
{
    return (get_local_id(2) * get_local_size(1) + get_local_id(1)) * get_local_size(0) + get_local_id(0);
}

inline float ptx_element(uint bits, uint halves, uint index)
{
    if (halves == 1)
        return as_float(bits & 0xffffe000u);
    return index == 0 ? ptx_half_low(bits) : ptx_half_high(bits);
}

// Both shapes are eight registers of k: row r of A is in the lanes 4 * (r % 8) + t, in registers r / 8 (first half of k)
// and r / 8 + 2 (second half).
inline void ptx_mma(float *c, const uint *a, uint b0, uint b1, uint halves, __local uint *scratch)
{
    const uint lane = ptx_item() % 32, g = lane / 4, t = lane % 4;
    __local uint *warp = scratch + (ptx_item() - lane) * 6;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = 0; i < 4; i++)
        warp[lane * 6 + i] = a[i];
    warp[lane * 6 + 4] = b0;
    warp[lane * 6 + 5] = b1;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = 0; i < 4; i++) {
        const uint row = g + (i / 2) * 8, column = 2 * t + i % 2;
        float sum = c[i];
        for (uint k = 0; k < 8; k++) {
            const uint left = warp[((row % 8) * 4 + k % 4) * 6 + row / 8 + (k / 4) * 2];
            const uint right = warp[(column * 4 + k % 4) * 6 + 4 + k / 4];
            for (uint e = 0; e < halves; e++)
                sum += ptx_element(left, halves, e) * ptx_element(right, halves, e);
        }
        c[i] = sum;
    }
}

inline void ptx_ldmatrix(uint *d, ptx_shared shared, uint offset, __local uint *scratch)
{
    const uint lane = ptx_item() % 32;
    __local uint *warp = scratch + (ptx_item() - lane) * 6;
    barrier(CLK_LOCAL_MEM_FENCE);
    warp[lane] = offset;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (uint i = 0; i < 4; i++)
        d[i] = *(__local const uint *)(shared + warp[i * 8 + lane / 4] + (lane % 4) * 4);
}

#endif

// Pooling of NHWC tensors: a work-item computes VECTOR channels of one output pixel. After vector.cl and these defines:
// BATCH HEIGHT WIDTH CHANNELS OUT_HEIGHT OUT_WIDTH; for max_pool KERNEL_ STRIDE_ DILATION_ (H and W), PAD_TOP PAD_LEFT.

#define VECTORS (CHANNELS / VECTOR)

#ifdef KERNEL_H
// Padding is never the maximum, and a window of nothing else does not exist. NaN is the maximum of its window.
__kernel void max_pool(__global const real *restrict input, int input_at, __global real *restrict output,
                              int output_at)
{
    const uint id = get_global_id(0);
    if (id >= BATCH * OUT_HEIGHT * OUT_WIDTH * VECTORS)
        return;
    const uint channel = id % VECTORS * VECTOR, pixel = id / VECTORS;
    const uint x = pixel % OUT_WIDTH, y = pixel / OUT_WIDTH % OUT_HEIGHT, image = pixel / (OUT_WIDTH * OUT_HEIGHT);
    const int top = (int)(y * STRIDE_H) - PAD_TOP, left = (int)(x * STRIDE_W) - PAD_LEFT;
    vector most = (vector)(-INFINITY);
#pragma unroll
    for (int i = 0; i < KERNEL_H; i++)
#pragma unroll
        for (int j = 0; j < KERNEL_W; j++) {
            const int from = top + i * DILATION_H, column = left + j * DILATION_W;
            if ((uint)from < HEIGHT && (uint)column < WIDTH) {
                const vector v =
                    GET(input + input_at + (((int)image * HEIGHT + from) * WIDTH + column) * CHANNELS + (int)channel);
                most = most >= v || most != most ? most : v;
            }
        }
    PUT(ACTIVATE(most), output + output_at + id * VECTOR);
}
#else
__kernel void global_avg_pool(__global const real *restrict input, int input_at, __global real *restrict output,
                              int output_at)
{
    const uint id = get_global_id(0);
    if (id >= BATCH * VECTORS)
        return;
    __global const real *from = input + input_at + (id / VECTORS * (HEIGHT * WIDTH * VECTORS) + id % VECTORS) * VECTOR;
    vector sum = (vector)(0.0f);
#pragma unroll 4
    for (int i = 0; i < HEIGHT * WIDTH; i++)
        sum += GET(from + i * CHANNELS);
    sum /= (float)(HEIGHT * WIDTH);
    PUT(ACTIVATE(sum), output + output_at + id * VECTOR);
}
#endif

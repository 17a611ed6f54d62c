// Depthwise convolution of NHWC tensors: a work-item computes VECTOR channels of RUN consecutive pixels of a line, so
// that each input vector is loaded once for all of them. After vector.cl and these defines: BATCH HEIGHT WIDTH CHANNELS
// OUT_HEIGHT OUT_WIDTH, KERNEL_ STRIDE_ DILATION_ (H and W), PAD_TOP PAD_LEFT. Weights: [tap][channel].

#define VECTORS (CHANNELS / VECTOR)
#define RUNS ((OUT_WIDTH + RUN - 1) / RUN)
#define SPAN ((RUN - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1)

__kernel void depthwise(__global const real *restrict input, int input_at, __global const real *restrict weights,
                        __global const float *restrict bias,
#ifdef RESIDUAL
                        __global const real *restrict residual, int residual_at,
#endif
                        __global real *restrict output, int output_at)
{
    const uint id = get_global_id(0);
    if (id >= BATCH * OUT_HEIGHT * RUNS * VECTORS)
        return;
    const uint channel = id % VECTORS * VECTOR, first = id / VECTORS % RUNS * RUN;
    const uint line = id / (VECTORS * RUNS), y = line % OUT_HEIGHT, image = line / OUT_HEIGHT;
    const int top = (int)(y * STRIDE_H) - PAD_TOP, left = (int)(first * STRIDE_W) - PAD_LEFT;
    vector sums[RUN];
#pragma unroll
    for (int p = 0; p < RUN; p++)
        sums[p] = *(__global const vector *)(bias + channel);
#pragma unroll
    for (int i = 0; i < KERNEL_H; i++) {
        const int from = top + i * DILATION_H;
        if ((uint)from >= HEIGHT)
            continue;
        vector w[KERNEL_W];
#pragma unroll
        for (int k = 0; k < KERNEL_W; k++)
            w[k] = GET(weights + (i * KERNEL_W + k) * CHANNELS + channel);
        __global const real *row = input + input_at + (((int)image * HEIGHT + from) * WIDTH + left) * CHANNELS + (int)channel;
#pragma unroll
        for (int s = 0; s < SPAN; s++) {
            const vector x = (uint)(left + s) < WIDTH ? GET(row + s * CHANNELS) : (vector)(0.0f);
#pragma unroll
            for (int p = 0; p < RUN; p++)
#pragma unroll
                for (int k = 0; k < KERNEL_W; k++)
                    if (p * STRIDE_W + k * DILATION_W == s)
                        sums[p] = fma(x, w[k], sums[p]);
        }
    }
#pragma unroll
    for (int p = 0; p < RUN; p++)
        if (OUT_WIDTH % RUN == 0 || first + p < OUT_WIDTH) {
            const uint at = (line * OUT_WIDTH + first + p) * CHANNELS + channel;
#ifdef RESIDUAL
            sums[p] += GET(residual + residual_at + at);
#endif
            PUT(ACTIVATE(sums[p]), output + output_at + at);
        }
}

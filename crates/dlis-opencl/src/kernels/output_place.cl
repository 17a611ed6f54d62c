
// The output element of this work-item, by its channel, row, column and image. Neighbouring work-items have neighbouring
// outputs: in NHWC channels, in NCHW columns.
#define OUTPUT_PLACE(k, oh, ow, n)                                      \
  int i = get_global_id(0), k, oh, ow, n;                               \
  if (YC == 1)                                                          \
    k = i % K, i /= K, ow = i % OW, i /= OW, oh = i % OH, n = i / OH;   \
  else                                                                  \
    ow = i % OW, i /= OW, oh = i % OH, i /= OH, k = i % K, n = i / K;


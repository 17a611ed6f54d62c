// What follows, by a number that is the same for all work-items rather than by definitions, so that one program does
// for all layers: the activation as in ACTIVATION, and 4 more where there is a residual.
#define HAS_RESIDUAL(how) (((how) & 4) != 0)
#define FINISH(x, how)                                                                  \
  (((how) & 3) == 0   ? (x)                                                             \
   : ((how) & 3) == 3 ? 1.0f / (1.0f + exp(-(x)))                                       \
   : ((how) & 3) == 1 ? ((x) < 0.0f ? 0.0f : (x))                                       \
                      : ((x) < 0.0f ? 0.0f : ((x) > 6.0f ? 6.0f : (x))))

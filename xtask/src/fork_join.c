// What a parallel loop of the OpenMP runtime costs, the EPCC way; see fork_join.rs, which compiles and
// runs this and does the same with our executors.
//
// usage: fork_join SAMPLES DELAY [ITERATIONS REGIONS]...
// prints a line a sample: case, time of a region with its loop, time of the same work of one thread
// without one, in microseconds.

#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// A chain of dependent operations that no compiler can shorten or vectorise.
static void delay(int steps) {
    uint64_t x = 1;
    for (int i = 0; i < steps; i++) x = (x ^ (x >> 7)) * 6364136223846793005u;
    __asm__ volatile("" : : "r"(x));
}

int main(int argc, char **argv) {
    if (argc < 5 || argc % 2 == 0) return 2;
    const int samples = atoi(argv[1]), steps = atoi(argv[2]), threads = omp_get_max_threads();
    for (int sample = -1; sample < samples; sample++) {
        for (int arg = 3; arg < argc; arg += 2) {
            const int each = atoi(argv[arg]), regions = atoi(argv[arg + 1]), n = each * threads;
            for (int dynamic = 0; dynamic < 2; dynamic++) {
                const double start = omp_get_wtime();
                for (int region = 0; region < regions; region++)
                    for (int i = 0; i < each; i++) delay(steps);
                const double middle = omp_get_wtime();
                if (dynamic) {
                    for (int region = 0; region < regions; region++) {
#pragma omp parallel for schedule(dynamic, 1)
                        for (int i = 0; i < n; i++) delay(steps);
                    }
                } else {
                    for (int region = 0; region < regions; region++) {
#pragma omp parallel for schedule(static)
                        for (int i = 0; i < n; i++) delay(steps);
                    }
                }
                const double end = omp_get_wtime();
                // The sample before the first one warms up.
                if (sample >= 0)
                    printf("%d %.6f %.6f\n", arg - 3 + dynamic, (end - middle) * 1e6 / regions,
                           (middle - start) * 1e6 / regions);
            }
        }
    }
    return 0;
}
